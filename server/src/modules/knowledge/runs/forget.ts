import type { Ctx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { removeOldAudioOf } from './audio.ts';
import { deleteRuns, deleteSessionsOf, lockRunsOf } from './delete-store.ts';
import { cancelFromOutside } from './record.ts';

const batch = 100;

/** Removes all runs of an identity that was removed itself, with what was said and spoken in them. */
export async function forgetRunsOf(ctx: Ctx, identityId: string): Promise<void> {
  for (let count = batch; count === batch; ) {
    ctx.signal.throwIfAborted();
    const runs = await ctx.db.transaction((tx) => lockRunsOf(tx, identityId, batch));
    for (const { id, status } of runs) if (status === 'running') await cancelFromOutside(ctx, id);
    count = runs.length;
    if (count === 0) break;
    const ids = runs.map(({ id }) => id);
    await ctx.db.batch([
      ...deleteRuns(ctx.tenant, ids, new Date()),
      fact(ctx, {
        type: 'run.bulk_deleted',
        resource_type: 'run',
        data: { deleted_count: ids.length, identity_id: identityId },
      }),
    ]);
  }
  const now = new Date();
  await ctx.db.batch(deleteSessionsOf(ctx.tenant, identityId, now));
  await removeOldAudioOf(ctx, now);
}
