import type { Ctx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { forgetTerms } from '../retrieval/service.ts';
import { deleteDerivations } from './erasure-store.ts';
import { forgetInVersions, tracesOf, type VersionKey } from './forget-store.ts';
import { dropImports } from './import-store.ts';
import { takeOut } from './remove.ts';
import { lockOwned } from './store.ts';
import { memoryScope } from './vectors.ts';
import { removeMemories } from './write-store.ts';

const size = 500;
const firstVersion: VersionKey = { memory_id: '00000000-0000-0000-0000-000000000000', version: 0 };

/**
 * Removes what an identity remembered that was removed itself, in steps that may be broken off anywhere; and who it was
 * in what stays: others' memories that it changed, and erasures that it asked for, whose signed receipts are kept.
 */
export async function forgetMemoriesOf(ctx: Ctx, identityId: string): Promise<void> {
  await ctx.db.run(dropImports(ctx.tenant, identityId, new Date()));
  for (let removed = size; removed === size; ) {
    ctx.signal.throwIfAborted();
    removed = await ctx.db.transaction(async (tx) => {
      const owned = await lockOwned(tx, identityId, size);
      if (owned.length === 0) return 0;
      // Those that were deleted before left statistics and vectors then.
      await takeOut(
        tx,
        ctx.tenant,
        owned.filter(({ deleted_at }) => deleted_at === null),
      );
      await forgetTerms(tx, ctx.tenant, memoryScope);
      const ids = owned.map(({ id }) => id);
      await tx.batch([
        ...removeMemories(ctx.tenant, ids),
        deleteDerivations(ctx.tenant, ids),
        fact(ctx, {
          type: 'memory.bulk_deleted',
          resource_type: 'memory',
          data: { kind: 'hard_deleted', deleted_count: ids.length, identity_id: identityId },
        }),
      ]);
      return owned.length;
    });
  }
  for (const trace of tracesOf(ctx.tenant, identityId, size))
    for (let count = size; count === size; ) {
      ctx.signal.throwIfAborted();
      count = await ctx.db.run(trace);
    }
  // No index leads from an identity to them: all versions of the tenant are looked through.
  for (let at: VersionKey | undefined = firstVersion; at; ) {
    ctx.signal.throwIfAborted();
    at = await forgetInVersions(ctx.db, identityId, at, 10 * size);
  }
}
