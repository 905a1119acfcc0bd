import type { Ctx } from '#platform/context.ts';
import { createGatherer } from '#platform/db/gather.ts';
import { invalid, notFound } from '#platform/errors.ts';
import { parseJsonField } from '#platform/http/json.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { isPermitted } from '#platform/permission.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { openMemories } from './encryption.ts';
import { lanesOf } from './lanes.ts';
import type { Memory, MemoryListQuery } from './schema.ts';
import { ofIdentity } from './seen.ts';
import { findMemories, listMemories, memoryColumns, type StoredMemory } from './store.ts';
import { targetOf } from './target.ts';

export { changeMemory } from './change.ts';
export { createMemories, createMemory } from './create.ts';
export { eraseMemories } from './erasure.ts';
export { forgetMemoriesOf } from './forget.ts';
export { getMemoryAsOf, historyOf, listVisibleAsOf } from './history.ts';
export { rememberConversation } from './inferences.ts';
export { deleteMemories, deleteMemory, isForGood, takeOut } from './remove.ts';
export { weightsOf } from './rows.ts';
export { Memory, MemoryCreate, MemorySearch, MemoryUpdate, Metadata } from './schema.ts';
export { searchMemories } from './search.ts';
export { mayHaveSensitive } from './sensitive-search.ts';
export { targetOf } from './target.ts';
export { restoreMemory } from './trash.ts';
export { memoryVectors } from './vectors.ts';

const gatherReads = perApp((app) =>
  createGatherer<string, StoredMemory | undefined>(async (tenant, ids) => {
    const found = await findMemories(app.database.glance(tenant), ids, new Date());
    const byId = new Map(found.map((memory) => [memory.id, memory]));
    return ids.map((id) => byId.get(id.toLowerCase()));
  }, 2 * lanesOf(app)),
);

/** @throws ApiError 404 also for what is deleted, expired, or not the caller's to see */
export async function getMemory(ctx: Ctx, id: string): Promise<Memory> {
  const memory = isUuid(id) ? await gatherReads(ctx.app)(ctx.tenant, id) : undefined;
  if (!memory || !(await isPermitted(ctx, 'memory:read', targetOf(memory)))) throw notFound('Memory');
  if (memory.sealed === null) return memory;
  return (await openMemories(ctx, [memory]))[0]!;
}

/** Memories the caller may see, newest first: its own, or the tenant's where policy says so. */
export const listVisible = (
  ctx: Ctx,
  { memory_type, session_id, identity_id, metadata, ...query }: MemoryListQuery & { metadata?: string },
): Promise<Answer> => {
  const filter = {
    types: memory_type === undefined ? undefined : [memory_type],
    session_id,
    metadata: metadata === undefined ? undefined : metadataIn(metadata),
  };
  return visiblePage(ctx, 'memory:list', { memory_type, session_id, identity_id, metadata }, query, {
    rows: ofIdentity<StoredMemory>(identity_id, (from) => listMemories(ctx.db, filter, from, new Date())),
    owned: true,
    columns: memoryColumns,
    open: (rows) => openMemories(ctx, rows),
    target: targetOf,
    position: ({ id }) => [id],
    size: 100,
  });
};

/** @throws ApiError 422 for what is no JSON object */
function metadataIn(text: string): Record<string, unknown> {
  const value = parseJsonField(text, '/metadata');
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid([{ path: '/metadata', message: 'must be a JSON object' }]);
  return value as Record<string, unknown>;
}
