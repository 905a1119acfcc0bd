import { type App, type Ctx, systemCtx } from '#platform/context.ts';
import { firstUuidv7, uuidv7 } from '#platform/ids.ts';
import { jobStates } from '#platform/jobs/states.ts';
import { openTexts } from './encryption.ts';
import { complete, eraseRows } from './erasure.ts';
import {
  type ErasureRow,
  findErasure,
  listBetween,
  listOpenErasures,
  listOwnersOf,
  lockErasable,
  lockErasure,
  sweptErasure,
} from './erasure-store.ts';
import { knownAfterMs } from './lanes.ts';
import { onBehalfOf } from './on-behalf.ts';
import { erasedAmong } from './tombstones.ts';

/** So much may the clocks of two processes differ. */
const skewMs = 5_000;
const batch = 500;

/**
 * Erases what was stored between the first tombstone and the moment all processes knew of it: what was asked for before
 * may have been written after. Nearly always there is nothing.
 */
export async function sweepErasure(ctx: Ctx, erasure: ErasureRow): Promise<void> {
  const owners = (await listOwnersOf(ctx.db, erasure.id)).map(({ identity_id }) => identity_id);
  const end = Date.parse(erasure.completed_at!) + knownAfterMs(ctx.app) + skewMs;
  const to = firstUuidv7(end);
  for (let after = firstUuidv7(Date.parse(erasure.created_at) - skewMs); owners.length > 0; ) {
    const rows = await listBetween(ctx.db, owners, after, to, batch);
    const texts = await openTexts(ctx, rows);
    const said = rows.map(({ identity_id }, i) => ({ identity_id, text: texts[i]! }));
    const relearned = [...(await erasedAmong(ctx, said, true))].map((i) => rows[i]!.id);
    if (relearned.length > 0) await eraseLate(ctx, erasure.id, relearned);
    if (rows.length < batch) break;
    after = rows.at(-1)!.id;
  }
  await ctx.db.run(sweptErasure(ctx.tenant, erasure.id, new Date()));
}

async function eraseLate(ctx: Ctx, id: string, memory_ids: string[]): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const erasure = (await lockErasure(tx, id))!;
    const rows = await lockErasable(tx, { memory_ids }, null, memory_ids.length);
    const counts = { ...erasure.counts };
    await eraseRows(ctx, tx, id, rows, counts);
    await complete(ctx, tx, { ...erasure, counts });
  });
}

const job = 'memory.erase';

/** Sweeps what is done and gives what is not another job where its own is not there any more. */
export async function tendErasures(app: App): Promise<void> {
  const open = await listOpenErasures(app.database.operator, new Date(Date.now() - 2_000));
  const states = await jobStates(
    app,
    job,
    open.map(({ id }) => id),
  );
  for (const { tenant_id, id, status } of open) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    const erasure = await findErasure(ctx.db, id);
    if (!erasure || erasure.swept_at !== null) continue;
    if (erasure.status === 'completed') {
      if (Date.parse(erasure.completed_at!) + knownAfterMs(app) < Date.now())
        await sweepErasure(onBehalfOf(ctx, erasure.actor, erasure.request_id), erasure);
    } else if (status === 'running' && states.get(id) !== 'living') {
      const lost = states.get(id) === 'ended';
      await app.enqueue(job, [{ tenant_id, fact_id: lost ? uuidv7() : id, resource_id: id, data: {} }]);
    }
  }
}
