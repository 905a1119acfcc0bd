import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { isUuid } from '#platform/ids.ts';
import { viewOf } from '../../access/policy/service.ts';
import { countedAs, countTexts, forgetTerms } from '../retrieval/service.ts';
import { forgetInSegments } from '../vectors/service.ts';
import { type DeletableMemory, deleteVectors, dequeueMemories, listWeights, lockMemories } from './store.ts';
import { targetOf } from './target.ts';
import { memoryScope } from './vectors.ts';
import { requireVersion, versionOf } from './versions.ts';
import { hideMemories, removeMemories } from './write-store.ts';

/** What is given under either name. @throws ApiError 422 when both are given and differ */
export function isForGood({ hard_delete, hard }: { hard_delete?: boolean; hard?: boolean }): boolean {
  if (hard_delete !== undefined && hard !== undefined && hard_delete !== hard)
    throw invalid([{ path: '/hard', message: 'must be equal to hard_delete where both are given' }]);
  return hard_delete ?? hard ?? false;
}

/** Deletes one memory: hidden at once, or with `hard` removed with all that was made from it, also where it was hidden before or has expired. */
export async function deleteMemory(ctx: Ctx, id: string, hard: boolean, ifMatch?: string): Promise<void> {
  const { missing } = await deleteMemories(ctx, [id], hard, { expected: versionOf(ifMatch) });
  if (missing.length > 0) throw notFound('Memory');
}

/**
 * @param expected the version each must have
 * @returns the ids that were not there for the caller
 */
export async function deleteMemories(
  ctx: Ctx,
  ids: string[],
  hard: boolean,
  { reason, expected }: { reason?: string | undefined; expected?: number | undefined } = {},
): Promise<{ deleted: string[]; missing: string[] }> {
  const view = await viewOf(ctx, 'memory:delete');
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const found = (await lockMemories(tx, ids.filter(isUuid), now, hard)).filter((memory) =>
      view.reaches(targetOf(memory)),
    );
    for (const memory of found) requireVersion(memory, expected);
    const deleted = found.map(({ id }) => id);
    const missing = ids.filter((id) => !deleted.includes(id.toLowerCase()));
    if (deleted.length === 0) return { deleted, missing };
    // Those that were deleted left statistics and vectors then.
    await takeOut(
      tx,
      ctx.tenant,
      found.filter(({ deleted_at }) => deleted_at === null),
    );
    if (hard) await forgetTerms(tx, ctx.tenant, memoryScope);
    const kind = hard ? 'hard_deleted' : 'soft_deleted';
    await tx.batch([
      ...(hard ? removeMemories(ctx.tenant, deleted) : [hideMemories(ctx.tenant, deleted, now)]),
      ...found.map(({ id, type, version }) =>
        fact(ctx, {
          type: 'memory.deleted',
          resource_type: 'memory',
          resource_id: id,
          before: { type, version },
          data: { kind, ...(reason ? { reason } : {}) },
        }),
      ),
    ]);
    return { deleted, missing };
  });
}

/** Vectors of memories, in the table and in the segments it was copied to. */
export const forgetVectors = (tenant: string, ids: string[]) => [
  deleteVectors(tenant, ids),
  forgetInSegments(tenant, memoryScope, ids),
];

/** Takes texts out of queue, vectors and statistics; those that still waited, and sensitive ones, were never counted. */
export async function takeOut(
  tx: Db,
  tenant: string,
  memories: Pick<DeletableMemory, 'id' | 'sensitive'>[],
): Promise<void> {
  const ids = memories.map(({ id }) => id);
  const open = memories.filter(({ sensitive }) => !sensitive).map(({ id }) => id);
  const [dequeued, weights] = await tx.batch([dequeueMemories(tenant, ids), listWeights(tenant, open)]);
  const waiting = new Set(dequeued.rows.map(({ memory_id }) => memory_id));
  const counted = weights.rows.filter(({ id }) => !waiting.has(id)).map(countedAs);
  await tx.batch([...forgetVectors(tenant, ids), ...countTexts(tenant, memoryScope, counted, -1)]);
}
