import type { App, Ctx } from '#platform/context.ts';
import { systemCtx } from '#platform/context.ts';
import { conflict, notFound } from '#platform/errors.ts';
import { fact, factRow, insertFacts } from '#platform/facts/record.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { dataKeysOf } from '../../access/data-keys/service.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { sealHistory, viewOfChanges } from './change.ts';
import { openMemories, sealText } from './encryption.ts';
import { keepVersions } from './history-store.ts';
import type { Memory, MemoryListQuery } from './schema.ts';
import { ofIdentity } from './seen.ts';
import { alwaysSensitive } from './sensitive-types.ts';
import { enqueueMemory, memoryColumns, type StoredMemory } from './store.ts';
import { targetOf } from './target.ts';
import { refuseErased } from './tombstones.ts';
import {
  type DeletedMemory,
  listDeleted,
  listTenantsTrashing,
  lockDeleted,
  lockTrash,
  unhideMemory,
} from './trash-store.ts';
import { removeMemories, sealMemories } from './write-store.ts';

/** Memories deleted after this can be restored. */
export const keptSince = ({ config }: App, now: Date): Date =>
  new Date(now.getTime() - config.MEMORY_TRASH_DAYS * 86_400_000);

/** Deleted memories that the caller may see and restore, newest first. */
export const listVisibleDeleted = (
  ctx: Ctx,
  { memory_type, session_id, identity_id, ...query }: MemoryListQuery,
): Promise<Answer> => {
  const filter = { types: memory_type === undefined ? undefined : [memory_type], session_id };
  const now = new Date();
  return visiblePage(ctx, 'memory:list', { memory_type, session_id, identity_id, deleted: true }, query, {
    rows: ofIdentity<DeletedMemory>(identity_id, (from) =>
      listDeleted(ctx.db, filter, from, keptSince(ctx.app, now), now),
    ),
    owned: true,
    columns: memoryColumns,
    open: (rows) => openMemories(ctx, rows),
    target: targetOf,
    position: ({ id }) => [id],
    size: 100,
  });
};

/**
 * Brings a deleted memory back as its next version; it is counted and embedded again, or encrypted when its type demands it now.
 * @throws ApiError 404 also when it was deleted too long ago, or may not be read: the answer shows it, 409 MEMORY_EXPIRED, MEMORY_ERASED
 */
export async function restoreMemory(ctx: Ctx, id: string): Promise<Memory> {
  const view = await viewOfChanges(ctx);
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const locked = isUuid(id) ? await lockDeleted(tx, id, keptSince(ctx.app, now)) : undefined;
    if (!locked || !view.reaches(targetOf(locked))) throw notFound('Memory');
    if (locked.expires_at !== null && locked.expires_at <= now.toISOString())
      throw conflict('MEMORY_EXPIRED', 'The memory expired meanwhile and can not be restored.');
    const asking = { app: ctx.app, tenant: ctx.tenant, db: tx };
    const [before] = (await openMemories(asking, [locked])) as [Memory];
    await refuseErased(asking, [before]);
    const version = before.version + 1;
    const updated_at = now.toISOString();
    const sensitive = before.sensitive || (await alwaysSensitive(asking)).has(before.type);
    const sealed = sensitive
      ? sealText(await dataKeysOf(asking), before.id, version, before.text)
      : undefined;
    const record = factRow(ctx, {
      type: 'memory.restored',
      resource_type: 'memory',
      resource_id: before.id,
      before: { version: before.version, deleted_at: locked.deleted_at },
      after: { type: before.type, version },
    });
    await tx.batch([
      keepVersions(ctx.tenant, [before.id], { ...record, change: 'restored' }, updated_at),
      ...(sealed ? [sealMemories(ctx.tenant, [{ id: before.id, ...sealed }])] : []),
      unhideMemory({ tenant_id: ctx.tenant, id: before.id, version, updated_at }),
      ...(sensitive ? [] : [enqueueMemory(ctx.tenant, before.id, updated_at)]),
      insertFacts(ctx.tenant, [record]),
    ]);
    if (sensitive && !before.sensitive) await sealHistory(asking, before.id);
    const { deleted_at: _, ...memory } = before as Memory & Partial<StoredMemory>;
    return { ...memory, version, updated_at, sensitive, embedding_status: sensitive ? 'none' : 'pending' };
  });
}

const size = 500;

/** Removes what was deleted too long ago to be restored. */
export async function emptyTrash(app: App): Promise<void> {
  const before = keptSince(app, new Date());
  for (const { tenant_id } of await listTenantsTrashing(app.database.operator, before)) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    for (let removed = size; removed === size; ) {
      ctx.signal.throwIfAborted();
      removed = await ctx.db.transaction(async (tx) => {
        const ids = (await lockTrash(tx, before, size)).map(({ id }) => id);
        if (ids.length === 0) return 0;
        // They left statistics and vectors when they were deleted.
        await tx.batch([
          ...removeMemories(tenant_id, ids),
          fact(ctx, {
            type: 'memory.bulk_deleted',
            resource_type: 'memory',
            data: { kind: 'hard_deleted', deleted_count: ids.length, memory_ids: ids, reason: 'trash' },
          }),
        ]);
        return ids.length;
      });
    }
  }
}
