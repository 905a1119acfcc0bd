import { setTimeout } from 'node:timers/promises';
import type { App, Ctx } from '#platform/context.ts';
import { systemCtx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { fact } from '#platform/facts/record.ts';
import { forgetAnswersAbout } from '#platform/http/idempotency.ts';
import { timeOfId, uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import type { JobDefinition, JobPayload } from '#platform/jobs/worker.ts';
import { perApp } from '#platform/per-app.ts';
import { type Embedded, embedTexts } from '../embeddings/service.ts';
import { countedAs, countTexts, type StoredWeights, settleCounts } from '../retrieval/service.ts';
import { storeVectors, tailGrew } from '../vectors/service.ts';
import { lifeJobs, lifeSchedules } from './life-jobs.ts';
import { takeOut } from './remove.ts';
import { unsettledTypes } from './sensitive-types.ts';
import {
  listTenantsExpiring,
  listTenantsWaiting,
  listWaiting,
  lockExpired,
  notAllTaken,
  takeAllFromQueue,
  takeFromQueue,
  type WaitingMemory,
} from './store.ts';
import { memoryScope, memoryVectors } from './vectors.ts';
import { hideMemories } from './write-store.ts';

/** Memories of one transaction. The embedded database does nothing else meanwhile. */
const rowsAtOnce = { postgresql: 2_000, embedded: 250 };
/** What was just written is soon followed by more; a larger batch costs far less a memory. */
const gatherMs = 150;
/**
 * A tenant that goes on writing is not embedded for again before this has passed: longer where it took long, and where many
 * tenants write, so that under load fewer and larger batches leave the database to those who write.
 * @param writing tenants that were embedded for a moment ago
 */
const restOf = (tookMs: number, writing: number): number =>
  Math.min(Math.max(3_000, writing * 200), Math.max(1_000, 40 * tookMs, writing * 100), 10_000);

/** From when on a tenant may be embedded for again in this process, on the clock of `performance.now`. */
const rests = perApp(() => new Map<string, number>());

/** One job of a tenant works in a process at a time, and not again at once: a job that comes too early comes back. */
async function embedTenant(ctx: Ctx, { fact_id }: JobPayload): Promise<void> {
  const until = rests(ctx.app);
  const began = performance.now();
  const early = (until.get(ctx.tenant) ?? began) - began;
  if (early > 0) {
    const payload = { tenant_id: ctx.tenant, fact_id: uuidv7(), resource_id: null, data: {} };
    await ctx.app.enqueue('memory.embed', [payload], Number.isFinite(early) ? early : 1_000);
    return;
  }
  until.set(ctx.tenant, Number.POSITIVE_INFINITY);
  // Where jobs have waited themselves, more has come meanwhile.
  const gather = Math.max(0, Math.min(gatherMs, timeOfId(fact_id) + gatherMs - Date.now()));
  try {
    if (gather > 0) await setTimeout(gather, undefined, { signal: ctx.signal });
    await embedWaiting(ctx);
  } finally {
    const now = performance.now();
    for (const [tenant, end] of until) if (end < now) until.delete(tenant);
    until.set(ctx.tenant, now + restOf(now - began - gather, until.size));
  }
}

/**
 * Embeds and counts what waits in a tenant, a batch at a time, until nothing does. While one batch is stored the next
 * is read and prepared: the database and this process work at once.
 */
async function embedWaiting(ctx: Ctx): Promise<void> {
  const models = new Set<string>();
  let stored: Promise<void> = Promise.resolve();
  let after: string | undefined;
  const limit = rowsAtOnce[ctx.app.database.engine];
  for (;;) {
    ctx.signal.throwIfAborted();
    const waiting = await listWaiting(ctx.db, limit, after);
    const open = await withoutSensitive(ctx, waiting);
    const prepared = open.length > 0 ? await prepare(ctx, open) : [];
    await stored;
    if (waiting.length === 0) break;
    for (const { embedded } of prepared) models.add(embedded.model);
    stored = store(ctx, open, prepared);
    // Awaited above, or below; told here so that a failure meanwhile is not taken for one nobody looks at.
    stored.catch(() => {});
    after = waiting.at(-1)!.id;
    // What came or changed meanwhile has a fact, and so a job, of its own: gathered with others it costs far less.
    if (waiting.length < limit) {
      await stored;
      break;
    }
  }
  await settleCounts(ctx, memoryScope);
  await tailGrew(ctx, memoryVectors, models);
}

/** What was stored before its type was sensitive waits to be encrypted: no model sees it any more. */
async function withoutSensitive<M extends WaitingMemory>(ctx: Ctx, waiting: M[]): Promise<M[]> {
  if (waiting.length === 0) return waiting;
  const unsettled = await unsettledTypes(ctx);
  return unsettled.length === 0 ? waiting : waiting.filter(({ type }) => !unsettled.includes(type));
}

interface Prepared extends StoredWeights {
  id: string;
  embedded: Embedded;
}

async function prepare(ctx: Ctx, waiting: (WaitingMemory & StoredWeights)[]): Promise<Prepared[]> {
  const embedded = await embedTexts(
    ctx,
    waiting.map(({ text }) => text),
  );
  return waiting.map(({ id, words, trigrams }, i) => ({ id, words, trigrams, embedded: embedded[i]! }));
}

/** Vectors, statistics and the end of waiting, in one transaction. */
async function store(ctx: Ctx, waiting: WaitingMemory[], memories: Prepared[]): Promise<void> {
  if (memories.length === 0) return;
  const storing = (kept: Prepared[]): Statement[] => [
    ...storeVectors(ctx, memoryVectors, kept),
    ...countTexts(ctx.tenant, memoryScope, kept.map(countedAs), 1),
  ];
  try {
    // In one round trip: what is locked meanwhile, in the embedded database all of it, does not wait for this process.
    await ctx.db.batch([takeAllFromQueue(ctx.tenant, waiting), ...storing(memories)]);
  } catch (error) {
    if (!notAllTaken(error)) throw error;
    await ctx.db.transaction(async (tx) => {
      const taken = new Set((await takeFromQueue(tx, waiting)).map(({ memory_id }) => memory_id));
      // The others were changed, deleted, or done by another worker meanwhile.
      const kept = memories.filter(({ id }) => taken.has(id));
      if (kept.length > 0) await tx.batch(storing(kept));
    });
  }
}

export const memoryJobs: JobDefinition[] = [
  {
    name: 'memory.embed',
    follows: ['memory.created', 'memory.updated', 'memory.restored', 'memory.bulk_created'],
    per: 'tenant',
    concurrency: 2,
    timeoutS: 300,
    retries: 20,
    run: embedTenant,
  },
  ...lifeJobs,
];

/** Queues the embedding of tenants whose memories have waited long: a worker may have died with the job in hand. */
async function nudgeWaiting(app: App): Promise<void> {
  const tenants = await listTenantsWaiting(app.database.operator, new Date(Date.now() - 3_000));
  await app.enqueue(
    'memory.embed',
    tenants.map(({ tenant_id }) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}

/** Puts away memories past their time. Readers do not see them anyway from the very millisecond. */
export async function removeExpired(app: App): Promise<void> {
  const now = new Date();
  for (const { tenant_id } of await listTenantsExpiring(app.database.operator, now)) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    const size = 500;
    for (let removed = size; removed === size; ) {
      removed = await ctx.db.transaction(async (tx) => {
        const expired = await lockExpired(tx, now, size);
        if (expired.length === 0) return 0;
        const ids = expired.map(({ id }) => id);
        await takeOut(tx, tenant_id, expired);
        await tx.batch([
          hideMemories(tenant_id, ids, now),
          // Nothing brings them back, so nothing may tell them any more.
          forgetAnswersAbout(tenant_id, ids),
          fact(ctx, {
            type: 'memory.expired',
            resource_type: 'memory',
            data: { memory_ids: ids, deleted_count: ids.length },
          }),
        ]);
        return expired.length;
      });
    }
  }
}

export const memorySchedules: Schedule[] = [
  { name: 'memory.waiting', pattern: '*/5 * * * * *', run: nudgeWaiting },
  { name: 'memory.expired', pattern: '30 * * * * *', run: removeExpired },
  ...lifeSchedules,
];
