import { setTimeout as sleep } from 'node:timers/promises';
import type { App, Ctx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { embedAnew, HASHED_MODEL, preferredModel, preferredOpen } from '../embeddings/service.ts';
import type { VectorCollection, VectorScope } from './collection.ts';
import { storeVectors } from './keep.ts';
import {
  claimRenewal,
  countRenewed,
  deleteVectorsOf,
  listSpacesToRenew,
  listTenantsToRenew,
  listToRenew,
  lockSpace,
  markRefused,
  releaseRenewal,
  settleSpace,
  whatIsLeft,
} from './renew-store.ts';
import { forgetInSegments } from './space-store.ts';
import { scopeOf, tailGrew, tendJob } from './tend.ts';

const batch = 200;
export const renewJob = 'embeddings.renew';

/** Longer than a batch takes with all its retries. */
const leaseMs = 5 * 60_000;
const leaseEnd = () => new Date(Date.now() + leaseMs);

/**
 * Embeds anew, with the preferred model, what a fallback or a former model made: a batch at a time, resting as long as
 * it worked. An old vector goes in the transaction that stores the new one, so it can be broken off anywhere and begun
 * again. Ends quietly when the model can not be reached; the clock asks again.
 */
export async function renewTenant(ctx: Ctx, collections: VectorCollection[]): Promise<void> {
  const preferred = await preferredModel(ctx);
  if (!preferred) return;
  for (const { scope: name, model } of await listSpacesToRenew(ctx.db, preferred.name)) {
    const scope = scopeOf(collections, name);
    if (!scope) continue;
    const now = new Date();
    if ((await ctx.db.rows(claimRenewal(ctx.tenant, name, model, now, leaseEnd()))).length === 0) continue;
    let reached = true;
    try {
      reached = await renewSpace(ctx, scope, model, preferred.name);
    } finally {
      await ctx.db.run(releaseRenewal(ctx.tenant, name, model));
    }
    await tailGrew(ctx, scope, new Set([preferred.name]));
    if (!reached) return;
  }
}

/** @returns false when the preferred model could not be reached to the end */
async function renewSpace(ctx: Ctx, scope: VectorScope, model: string, preferred: string): Promise<boolean> {
  for (let after: string | undefined; ; ) {
    ctx.signal.throwIfAborted();
    const begun = performance.now();
    const old = await listToRenew(ctx.db, scope, model, preferred, after, batch);
    if (old.length === 0) break;
    if (!(await renewBatch(ctx, scope, model, preferred, old))) return false;
    after = old.at(-1)!.id;
    await sleep(performance.now() - begun, undefined, { signal: ctx.signal });
  }
  await settle(ctx, scope, model, preferred);
  // Segments of what is gone are given up.
  await ctx.app.enqueue(tendJob, [{ tenant_id: ctx.tenant, fact_id: uuidv7(), resource_id: null, data: {} }]);
  return true;
}

async function renewBatch(
  ctx: Ctx,
  scope: VectorScope,
  model: string,
  preferred: string,
  old: { id: string; done: boolean }[],
): Promise<boolean> {
  const texts = await scope.collection.readTexts(
    ctx.db,
    old.filter(({ done }) => !done).map(({ id }) => id),
  );
  const outcomes = await embedAnew(
    ctx,
    texts.map(({ text }) => text),
  );
  const reached = !outcomes.includes(undefined);
  const known = new Set(texts.map(({ id }) => id));
  const needless = old.filter(({ id, done }) => done || !known.has(id)).map(({ id }) => id);
  await ctx.db.transaction(async (tx) => {
    const unchanged = await scope.collection.lockTexts(tx, scope, texts);
    const renewed = texts.flatMap(({ id }, i) => {
      const vector = outcomes[i];
      return vector instanceof Float32Array && unchanged.has(id)
        ? [{ id, embedded: { model: preferred, vector, refusedBy: undefined } }]
        : [];
    });
    const refused = texts.filter((_, i) => outcomes[i] === 'refused').map(({ id }) => id);
    // The built-in model never drives out a better one: that may only be missing from the configuration just now.
    const gone = preferred === HASHED_MODEL ? [] : [...renewed.map(({ id }) => id), ...needless];
    await tx.batch([
      ...(gone.length > 0
        ? [deleteVectorsOf(ctx.tenant, scope, model, gone), forgetInSegments(ctx.tenant, scope.name, gone)]
        : []),
      ...(renewed.length > 0 ? storeVectors(ctx, scope, renewed) : []),
      ...(refused.length > 0 ? [markRefused(ctx.tenant, scope, model, preferred, refused)] : []),
      countRenewed(ctx.tenant, scope.name, model, renewed.length, new Date(), leaseEnd()),
    ]);
    tx.afterCommit(() => ctx.app.metrics.embeddingsRenewed.inc({ model: preferred }, renewed.length));
  });
  return reached;
}

/** Says that nothing more can be done here, unless vectors of the old model were stored meanwhile. */
async function settle(ctx: Ctx, scope: VectorScope, model: string, preferred: string): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const [{ rows }] = await tx.batch([lockSpace(ctx.tenant, scope.name, model)] as const);
    // Asked only after the lock: whoever was just storing vectors has committed, and they are seen.
    const { any, renewable } = await whatIsLeft(tx, scope, model, preferred);
    if (renewable && preferred !== HASHED_MODEL) return;
    await tx.batch([
      settleSpace(ctx.tenant, scope.name, model, preferred, !any, new Date()),
      fact(ctx, {
        type: 'embeddings.renewed',
        resource_type: 'vectors',
        resource_id: scope.name,
        data: { from: model, to: preferred, vectors: rows[0]?.renewed ?? 0 },
      }),
    ]);
  });
}

/** Asks for renewal where it is due, while the preferred model is not known to be away. */
export async function nudgeRenewal(app: App): Promise<void> {
  const preferred = await preferredOpen(app);
  if (preferred === undefined) return;
  const tenants = await listTenantsToRenew(app.database.operator, preferred);
  await app.enqueue(
    renewJob,
    tenants.map(({ tenant_id }) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}
