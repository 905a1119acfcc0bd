import { type App, type Ctx, systemCtx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { mergeCounts, sliceCounts } from './counts.ts';
import { largeScope } from './statistics.ts';
import {
  addChange,
  addTermCounts,
  addTextCount,
  type Change,
  deleteChanges,
  deleteTermCounts,
  deleteTextCount,
  listChanged,
  measureChanges,
  takeChanges,
} from './store.ts';

/** So many changes of a scope, or so large ones together, are settled: a search reads them all, of a large scope not always. */
const most = 16;
const mostBytes = { small: 32_768, large: 131_072 };
/** Terms that stay in one change; more go to the term counts, of which a search reads only those it asks about. */
const kept = 2_048;
/** Terms that go there in one transaction: all others wait for it in the embedded database. */
const step = 4_000;

/**
 * Puts the changes of a scope's statistics together where they have become many. A term is written once for all texts
 * that have it, and of a small scope never by itself.
 */
export async function settleCounts(ctx: Ctx, scope: string): Promise<void> {
  const { changes, bytes, settled } = await measureChanges(ctx.db, scope);
  if (changes < most && bytes < mostBytes[settled < largeScope ? 'small' : 'large']) return;
  while (await ctx.db.transaction((tx) => settle(tx, ctx.tenant, scope, step))) ctx.signal.throwIfAborted();
}

/** Forgets, in the transaction that takes texts out, the terms that only they had. */
export async function forgetTerms(tx: Db, tenant: string, scope: string): Promise<void> {
  await settle(tx, tenant, scope, Number.POSITIVE_INFINITY);
}

/**
 * Terms are written in one order, once in a transaction: those that settle at once do not wait for each other in a circle.
 * @param terms how many of them
 * @returns whether there is more to do
 */
async function settle(tx: Db, tenant: string, scope: string, terms: number): Promise<boolean> {
  const changes = await takeChanges(tx, tenant, scope);
  if (changes.length === 0) return false;
  const all = {
    texts: changes.reduce((sum, { texts }) => sum + texts, 0),
    words: mergeCounts(changes.map(({ words }) => words)),
    trigrams: mergeCounts(changes.map(({ trigrams }) => trigrams)),
  };
  if (staysChange(all)) {
    if (termsOf(all) > 0 || all.texts !== 0) await tx.run(addChange(tenant, scope, all));
    return false;
  }
  const words = sliceCounts(all.words, 0, terms);
  const trigrams = sliceCounts(all.trigrams, 0, terms - words.dimensions.length);
  const rest = {
    texts: 0,
    words: sliceCounts(all.words, words.dimensions.length),
    trigrams: sliceCounts(all.trigrams, trigrams.dimensions.length),
  };
  await tx.batch([
    ...addTermCounts(tenant, scope, 'w', words),
    ...addTermCounts(tenant, scope, 'g', trigrams),
    addTextCount(tenant, scope, all.texts),
    ...(termsOf(rest) > 0 ? [addChange(tenant, scope, rest)] : []),
  ]);
  return !staysChange(rest);
}

const termsOf = ({ words, trigrams }: Change): number => words.dimensions.length + trigrams.dimensions.length;

/** What is less than nothing takes from the term counts. */
const staysChange = (change: Change): boolean =>
  termsOf(change) <= kept && ![change.words, change.trigrams].some(({ texts }) => texts.some((n) => n < 0));

/** Settles what has become many elsewhere than in jobs that count: where texts are deleted one by one. */
async function settleAll(app: App): Promise<void> {
  for (const { tenant_id, scope } of await listChanged(app.database.operator, most))
    await settleCounts(systemCtx(app, tenant_id, uuidv7()), scope);
}

export const retrievalSchedules: Schedule[] = [
  { name: 'counts.settle', pattern: '*/30 * * * * *', run: settleAll },
];

const removedAtOnce = 5_000;

/** Removes all statistics of a scope that is no more, step by step; it may be called again. */
export async function removeCounts(ctx: Ctx, scope: string): Promise<void> {
  // First, and after whoever settles them just now.
  await ctx.db.run(deleteChanges(ctx.tenant, scope));
  for (let removed = removedAtOnce; removed === removedAtOnce; ) {
    ctx.signal.throwIfAborted();
    removed = (await ctx.db.rows(deleteTermCounts(ctx.tenant, scope, removedAtOnce))).length;
  }
  await ctx.db.run(deleteTextCount(ctx.tenant, scope));
}
