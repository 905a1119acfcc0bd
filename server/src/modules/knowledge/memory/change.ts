import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { notFound } from '#platform/errors.ts';
import { factRow, insertFacts } from '#platform/facts/record.ts';
import { isUuid } from '#platform/ids.ts';
import { authorize, requireScope } from '#platform/permission.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { type Asking, dataKeysOf } from '../../access/data-keys/service.ts';
import { type View, viewOf } from '../../access/policy/service.ts';
import { countedAs, countTexts } from '../retrieval/service.ts';
import { openMemories, sealRows, sealText } from './encryption.ts';
import { keepVersions, listPlainVersions, type Replacement, sealVersions } from './history-store.ts';
import { forgetVectors, takeOut } from './remove.ts';
import { checkText, expiryOf, metadataOf, noWeights, refusePast, resourceOf, weightsOf } from './rows.ts';
import type { Derivation, Memory, MemoryUpdate } from './schema.ts';
import { alwaysSensitive, isSensitive } from './sensitive-types.ts';
import { enqueueMemory, listWeights, lockMemory } from './store.ts';
import { targetOf } from './target.ts';
import { refuseErased } from './tombstones.ts';
import { memoryScope } from './vectors.ts';
import { requireVersion, versionOf } from './versions.ts';
import { type MemoryRow, updateMemory } from './write-store.ts';

/**
 * Changes a memory; its version grows. A changed text is searched by its words at once and embedded anew.
 * @throws ApiError 403 when policies do not allow what would become of it, 404 also when they do not let it be read: the
 * answer shows it, 409, 422
 */
export async function changeMemory(
  ctx: Ctx,
  id: string,
  { expected_version, ...input }: MemoryUpdate,
  ifMatch?: string,
): Promise<Memory> {
  const expected = [expected_version, versionOf(ifMatch)];
  if (input.text !== undefined) checkText(ctx, input.text);
  const view = await viewOfChanges(ctx);
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const locked = isUuid(id) ? await lockMemory(tx, id, now) : undefined;
    if (!locked || !view.reaches(targetOf(locked))) throw notFound('Memory');
    for (const version of expected) requireVersion(locked, version);
    const [before] = await openMemories({ app: ctx.app, tenant: ctx.tenant, db: tx }, [locked]);
    if (Object.keys(input).length === 0) return before!;
    const changes = changesOf(input, before!, now);
    // A policy that looks at type or metadata must not be got round by changing them.
    if (view.watched) await authorize(ctx, 'memory:update', targetOf({ ...before!, ...changes }));
    return applyChange(ctx, tx, before!, changes, 'updated', now);
  });
}

/** What the caller may change, and read: the answer shows it. */
export async function viewOfChanges(ctx: Ctx): Promise<Pick<View, 'watched' | 'reaches'>> {
  requireScope(ctx, 'memory:read');
  const { watched, reaches } = await viewOf(ctx, 'memory:update');
  const shown = await viewOf(ctx, 'memory:read');
  return { watched, reaches: (target) => reaches(target) && shown.reaches(target) };
}

/** What changes of a memory. */
export interface Changes {
  text?: string;
  type?: string;
  metadata?: Record<string, unknown>;
  session_id?: string | null;
  role?: string | null;
  occurred_at?: string | null;
  expiry?: { ttl_days: number | null; expires_at: string | null };
  sensitive?: boolean;
  derived_from?: Derivation;
}

function changesOf(input: Omit<MemoryUpdate, 'expected_version'>, before: Memory, now: Date): Changes {
  const { text, type, session_id, role, occurred_at, sensitive } = input;
  const metadata = metadataOf(input);
  const changes: Changes = {};
  if (text !== undefined) changes.text = text;
  if (type !== undefined) changes.type = type;
  if (metadata !== undefined) changes.metadata = metadata;
  if (session_id !== undefined) changes.session_id = session_id;
  if (role !== undefined) changes.role = role;
  if (occurred_at !== undefined)
    changes.occurred_at = occurred_at === null ? null : storedTimestamp(occurred_at, '/occurred_at');
  if (input.ttl_days !== undefined || input.expires_at !== undefined) {
    changes.expiry = expiryOf(input, new Date(before.created_at));
    refusePast(changes.expiry, now);
  }
  if (sensitive !== undefined) changes.sensitive = sensitive;
  return changes;
}

/**
 * Replaces a memory by its next version and keeps the former one, in the transaction that has it locked.
 * @param before as it is, its text in the clear
 * @throws ApiError 409 MEMORY_ERASED for a text that was erased, 422
 */
export async function applyChange(
  ctx: Ctx,
  tx: Db,
  before: Memory,
  changes: Changes,
  change: Replacement['change'],
  now: Date,
): Promise<Memory> {
  const asking = { app: ctx.app, tenant: ctx.tenant, db: tx };
  const { id } = before;
  const { text: newText, expiry, ...others } = changes;
  const text = newText ?? before.text;
  if (newText !== undefined && newText !== before.text)
    await refuseErased(asking, [{ identity_id: before.identity_id, text }]);
  const wanted = changes.sensitive ?? (before.sensitive || undefined);
  const always = await alwaysSensitive(asking);
  const sensitive = isSensitive(always, changes.type ?? before.type, wanted);
  const row: MemoryRow = {
    ...before,
    ...others,
    ...expiry,
    text,
    version: before.version + 1,
    // Clocks of processes differ: a version never begins before the one it replaces.
    updated_at: now.toISOString() > before.updated_at ? now.toISOString() : before.updated_at,
    sensitive,
    sealed: null,
    key_id: null,
    ...(sensitive ? noWeights : weightsOf(text)),
  };
  const record = factRow(ctx, {
    type: 'memory.updated',
    resource_type: 'memory',
    resource_id: id,
    before: shownInFacts(before),
    after: shownInFacts(row),
    ...(change === 'updated' ? {} : { data: { change } }),
  });
  await tx.run(keepVersions(ctx.tenant, [id], { ...record, change }, row.updated_at));
  // Also what is of another type from now on, and was to be encrypted yet.
  if (!before.sensitive && (sensitive || always.has(before.type))) await sealHistory(asking, id);
  if (sensitive && !before.sensitive) {
    await takeOut(tx, ctx.tenant, [before]);
  } else if (!sensitive && (before.sensitive || text !== before.text)) {
    await recount(tx, ctx.tenant, before, row.updated_at);
  }
  const [stored] = await sealRows(asking, [row]);
  await tx.batch([updateMemory(stored!), insertFacts(ctx.tenant, [record])]);
  const isEmbedded = !sensitive && !before.sensitive && text === before.text;
  return { ...resourceOf(row), ...(isEmbedded ? { embedding_status: before.embedding_status } : {}) };
}

/** Facts say no more of a sensitive text than that it is one. */
const shownInFacts = ({ type, version, text, sensitive, expires_at }: Memory | MemoryRow) => ({
  type,
  version,
  ...(sensitive ? { sensitive } : { length: text.length }),
  expires_at,
});

/** Takes the old text out of statistics and vectors, and queues the memory. */
async function recount(tx: Db, tenant: string, before: Memory, now: string): Promise<void> {
  const [enqueued, weights] = await tx.batch([
    enqueueMemory(tenant, before.id, now),
    listWeights(tenant, [before.id]),
  ]);
  const wasCounted = enqueued.rows.length === 1 && !before.sensitive;
  await tx.batch([
    ...forgetVectors(tenant, [before.id]),
    ...(wasCounted ? countTexts(tenant, memoryScope, weights.rows.map(countedAs), -1) : []),
  ]);
}

/** What a memory was before it became sensitive is sealed with it. */
export async function sealHistory(asking: Asking, id: string): Promise<void> {
  const { db, tenant } = asking;
  const plain = await listPlainVersions(db, id);
  if (plain.length === 0) return;
  const keys = await dataKeysOf(asking);
  const sealed = plain.map(({ version, text }) => ({ id, version, ...sealText(keys, id, version, text) }));
  await db.run(sealVersions(tenant, sealed));
}
