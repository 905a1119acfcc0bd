import type { Ctx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { removeOldAudioOf } from './audio.ts';
import { deleteRuns, deleteSession, listRunsOf, listSessionsOf, restOf } from './delete-store.ts';
import { cancelFromOutside } from './record.ts';

const batch = 100;

/** Removes all runs of an identity that was removed itself, with what was said and spoken in them. */
export async function forgetRunsOf(ctx: Ctx, identityId: string): Promise<void> {
  for (let count = batch; count === batch; ) {
    ctx.signal.throwIfAborted();
    const runs = await listRunsOf(ctx.db, identityId, batch);
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
  for (let count = batch; count === batch; ) {
    ctx.signal.throwIfAborted();
    const sessions = await listSessionsOf(ctx.db, identityId, batch);
    count = sessions.length;
    await ctx.db.batch(sessions.flatMap(({ id }) => deleteSession(ctx.tenant, identityId, id)));
  }
  for (const rest of restOf(ctx.tenant, identityId, now, batch))
    for (let count = batch; count === batch; ) {
      ctx.signal.throwIfAborted();
      count = await ctx.db.run(rest);
    }
  await removeOldAudioOf(ctx, now);
}
