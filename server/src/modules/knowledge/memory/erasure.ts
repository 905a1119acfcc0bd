import { createHmac } from 'node:crypto';
import type { Ctx } from '#platform/context.ts';
import { sameBytes } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { invalid, notFound } from '#platform/errors.ts';
import { fact, factRow } from '#platform/facts/record.ts';
import { canonicalJson } from '#platform/http/json.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { isPermitted } from '#platform/permission.ts';
import { type DataKeys, dataKeysOf, keyedHash } from '../../access/data-keys/service.ts';
import { type View, viewOf } from '../../access/policy/service.ts';
import { forgetTerms } from '../retrieval/service.ts';
import { openTexts } from './encryption.ts';
import type { ErasureReceipt, MemoryErase, MemoryErasure } from './erasure-schema.ts';
import {
  completeErasure,
  countVectors,
  deleteDerivations,
  type ErasableMemory,
  type ErasureCounts,
  type ErasureCriteria,
  type ErasureRow,
  findErasure,
  insertErased,
  insertErasure,
  listDerived,
  listErased,
  lockErasable,
  lockErasure,
  moveErasure,
} from './erasure-store.ts';
import { readVersions } from './history-store.ts';
import { dropImports } from './import-store.ts';
import { onBehalfOf } from './on-behalf.ts';
import { takeOut } from './remove.ts';
import { targetOf } from './target.ts';
import { insertTombstones } from './tombstone-store.ts';
import { tombstoneOf, tombstonesChanged } from './tombstones.ts';
import { memoryScope } from './vectors.ts';
import { removeMemories } from './write-store.ts';

/** Memories erased in one transaction. */
const size = 500;
/** Hashes a receipt shows; its digest is over all. */
const mostHashes = 1_000;

/**
 * Erases memories with all that was made from them, and sets tombstones so that they are not learned again. As many as
 * fit into one request are gone when it answers; a job does the rest. Deleted and expired ones are erased as well.
 * @throws ApiError 422
 */
export async function eraseMemories(ctx: Ctx, input: MemoryErase): Promise<MemoryErasure> {
  const view = await viewOf(ctx, 'memory:delete');
  const criteria = criteriaOf(ctx, input, view);
  const row: ErasureRow = {
    id: uuidv7(),
    identity_id: ctx.actor.identity_id ?? null,
    actor: ctx.actor,
    criteria,
    reason: input.reason ?? null,
    status: 'running',
    position: null,
    counts: { memories: 0, derived: 0, versions: 0, vectors: 0, imports: 0 },
    receipt: null,
    request_id: ctx.requestId,
    created_at: new Date().toISOString(),
    completed_at: null,
    swept_at: null,
  };
  return ctx.db.transaction(async (tx) => {
    await tx.batch([
      insertErasure(ctx.tenant, row),
      fact(ctx, {
        id: row.id,
        type: 'memory.erasure_requested',
        resource_type: 'memory_erasure',
        resource_id: row.id,
        data: {
          ...(criteria.memory_ids ? { memory_ids: criteria.memory_ids } : {}),
          ...(criteria.identity_id ? { identity_id: criteria.identity_id } : {}),
          ...(row.reason ? { reason: row.reason } : {}),
        },
      }),
    ]);
    // A request names at most two steps of memories.
    for (let steps = input.memory_ids ? 3 : 1; steps > 0; steps--) {
      if (await eraseStep(ctx, tx, row.id, view)) break;
    }
    return shown((await findErasure(tx, row.id))!);
  });
}

/** What the caller may name: an own view is that of its own memories, whatever else was asked for. */
function criteriaOf(
  ctx: Ctx,
  { memory_ids, identity_id, metadata }: MemoryErase,
  view: View,
): ErasureCriteria {
  if (memory_ids) {
    if (identity_id !== undefined || metadata !== undefined)
      throw invalid([
        { path: '/memory_ids', message: 'can not be given together with identity_id or metadata' },
      ]);
    const named = [...new Set(memory_ids)];
    return { memory_ids: [...new Set(named.filter(isUuid).map((id) => id.toLowerCase()))], named };
  }
  if (identity_id === undefined && metadata === undefined)
    throw invalid([{ path: '', message: 'needs memory_ids, identity_id or metadata' }]);
  const own = ctx.actor.identity_id;
  const owner = identity_id ?? (view.onlyOwn ? own : undefined);
  // What others have is not looked at: how long that takes would tell how much there is.
  const isElsewhere = view.onlyOwn && owner?.toLowerCase() !== own;
  if (isElsewhere || (owner !== undefined && !isUuid(owner))) return { memory_ids: [] };
  return { ...(owner ? { identity_id: owner } : {}), ...(metadata ? { metadata } : {}) };
}

const shown = (row: ErasureRow): MemoryErasure => ({
  id: row.id,
  status: row.status,
  counts: row.counts,
  reason: row.reason,
  ...(row.receipt?.missing ? { missing: row.receipt.missing } : {}),
  receipt: row.receipt,
  status_url: `/v1/memory/erasures/${row.id}`,
  created_at: row.created_at,
  completed_at: row.completed_at,
});

/** An erasure and its receipt. @throws ApiError 404 also for that of somebody else */
export async function getErasure(ctx: Ctx, id: string): Promise<MemoryErasure> {
  const row = isUuid(id) ? await findErasure(ctx.db, id) : undefined;
  const target = row && { id: row.id, ...(row.identity_id ? { owner: row.identity_id } : {}) };
  if (!row || !(await isPermitted(ctx, 'memory:read', target))) throw notFound('Erasure');
  if (!row.receipt) return shown(row);
  const { signature, ...receipt } = row.receipt;
  const wanted = signatureOf(await dataKeysOf(ctx), receipt);
  return { ...shown(row), is_verified: sameBytes(Buffer.from(signature, 'hex'), wanted) };
}

/** Goes on with an erasure until it is done. Killed anywhere, it is begun again where it was. */
export async function continueErasure(jobCtx: Ctx, id: string): Promise<void> {
  for (let isDone = false; !isDone; ) {
    jobCtx.signal.throwIfAborted();
    const row = await findErasure(jobCtx.db, id);
    if (row?.status !== 'running') return;
    const ctx = onBehalfOf(jobCtx, row.actor, row.request_id);
    const view = await viewOf(ctx, 'memory:delete');
    isDone = await ctx.db.transaction((tx) => eraseStep(ctx, tx, id, view));
  }
}

/** Erases the next memories of an erasure, and completes it when there are no more. @returns whether it is done */
async function eraseStep(ctx: Ctx, tx: Db, id: string, view: View): Promise<boolean> {
  const erasure = await lockErasure(tx, id);
  if (erasure?.status !== 'running') return true;
  const criteria = erasure.criteria!;
  const rows = await lockErasable(tx, criteria, erasure.position, size);
  const direct = rows.filter((row) => view.sees(targetOf(row)));
  const counts = { ...erasure.counts };
  const isWhole = criteria.identity_id !== undefined && criteria.metadata === undefined;
  const mayDropImports = isWhole && view.sees({ owner: criteria.identity_id! });
  if (erasure.position === null && mayDropImports)
    counts.imports += (await tx.rows(dropImports(ctx.tenant, criteria.identity_id!, new Date()))).length;
  await eraseRows(ctx, tx, id, direct, counts);
  await tx.run(moveErasure(ctx.tenant, id, rows.at(-1)?.id ?? erasure.position, counts));
  const isDone = rows.length < size;
  if (isDone) await complete(ctx, tx, { ...erasure, counts });
  return isDone;
}

/** Removes memories and all that was made from them, and leaves tombstones of whatever they said. */
export async function eraseRows(
  ctx: Ctx,
  tx: Db,
  erasure: string,
  direct: ErasableMemory[],
  counts: ErasureCounts,
): Promise<void> {
  if (direct.length === 0) return;
  const derived = await derivedFrom(tx, direct);
  const all = [...direct, ...derived];
  const ids = all.map(({ id }) => id);
  const asking = { app: ctx.app, tenant: ctx.tenant, db: tx };
  const keys = await dataKeysOf(asking);
  const texts = await openTexts(asking, all);
  const owners = new Map(all.map(({ id, identity_id }) => [id, identity_id]));
  const versions = await readVersions(tx, ids);
  const formerly = await openTexts(
    asking,
    versions.map((version) => ({ ...version, id: version.memory_id })),
  );
  const said = [
    ...all.map(({ identity_id }, i) => tombstoneOf(keys, identity_id, texts[i]!)),
    ...versions.map(({ memory_id }, i) => tombstoneOf(keys, owners.get(memory_id)!, formerly[i]!)),
  ];
  const stones = [
    ...new Map(said.map((stone) => [`${stone.identity_id} ${stone.hash.toString('hex')}`, stone])).values(),
  ];
  counts.memories += all.length;
  counts.derived += derived.length;
  counts.versions += versions.length;
  counts.vectors += await countVectors(tx, ids);
  await takeOut(
    tx,
    ctx.tenant,
    all.filter(({ deleted_at }) => deleted_at === null),
  );
  await tx.batch([
    ...removeMemories(ctx.tenant, ids),
    deleteDerivations(ctx.tenant, ids),
    insertTombstones(ctx.tenant, erasure, stones, new Date()),
    insertErased(
      ctx.tenant,
      erasure,
      all.map(({ id }, i) => ({
        memory_id: id,
        hash: keyedHash(keys, `erased memory ${id}`, texts[i]!),
        is_derived: i >= direct.length,
      })),
    ),
    fact(ctx, {
      type: 'memory.erased',
      resource_type: 'memory_erasure',
      resource_id: erasure,
      data: { memory_ids: ids, erased_count: ids.length },
    }),
  ]);
  tombstonesChanged(asking);
}

/** What was inferred from memories, from what was inferred from them, and so on. */
async function derivedFrom(tx: Db, sources: ErasableMemory[]): Promise<ErasableMemory[]> {
  const seen = new Set(sources.map(({ id }) => id));
  const found: ErasableMemory[] = [];
  for (let from = [...seen]; from.length > 0; ) {
    const ids = (await listDerived(tx, from)).map(({ memory_id }) => memory_id).filter((id) => !seen.has(id));
    for (const id of ids) seen.add(id);
    found.push(...(ids.length > 0 ? await lockErasable(tx, { memory_ids: ids }, null, ids.length) : []));
    from = ids;
  }
  return found;
}

const signatureOf = (keys: DataKeys, receipt: Omit<ErasureReceipt, 'signature'>): Buffer =>
  keyedHash(keys, 'erasure receipt', canonicalJson(receipt));

/** The names that were given, or of an erasure told anew those of them that were not there; none where none were given. */
const namedBy = ({ criteria, receipt }: ErasureRow): string[] | undefined =>
  criteria?.named ?? receipt?.missing;

/** Ends an erasure, or tells anew what it erased: with the receipt of all of it. */
export async function complete(ctx: Ctx, tx: Db, erasure: ErasureRow): Promise<void> {
  // Here, since it is once in a transaction; what was erased in steps before has been counted out.
  await forgetTerms(tx, ctx.tenant, memoryScope);
  const keys = await dataKeysOf({ app: ctx.app, tenant: ctx.tenant, db: tx });
  const digest = createHmac('sha256', keys.hashes).update('erasure digest');
  const hashes: ErasureReceipt['hashes'] = [];
  const named = namedBy(erasure);
  const missing = new Map(named?.map((name) => [name.toLowerCase(), name]));
  const pageSize = 5_000;
  for (let after: string | undefined; ; ) {
    const rows = await listErased(tx, erasure.id, after, pageSize);
    for (const { memory_id, hash } of rows) {
      digest.update(memory_id).update(hash);
      missing.delete(memory_id);
      if (hashes.length < mostHashes) hashes.push({ memory_id, hash: hash.toString('hex') });
    }
    if (rows.length < pageSize) break;
    after = rows.at(-1)!.memory_id;
  }
  const now = new Date().toISOString();
  const { actor_type, actor_id, on_behalf_of } = factRow(ctx, { type: '', resource_type: '' });
  const receipt = {
    id: erasure.id,
    tenant_id: ctx.tenant,
    erased_at: now,
    requested_by: { type: actor_type, id: actor_id, on_behalf_of: on_behalf_of ?? null },
    reason: erasure.reason,
    found: erasure.counts.memories + erasure.counts.imports > 0,
    ...(named ? { missing: [...missing.values()] } : {}),
    counts: erasure.counts,
    algorithm: 'hmac-sha256' as const,
    hashes,
    digest: digest.digest('hex'),
  };
  const signed = { ...receipt, signature: signatureOf(keys, receipt).toString('hex') };
  await tx.batch([
    completeErasure(ctx.tenant, erasure.id, signed, erasure.counts, now),
    fact(ctx, {
      type: 'memory.erasure_completed',
      resource_type: 'memory_erasure',
      resource_id: erasure.id,
      data: { ...erasure.counts, missing: missing.size, signature: signed.signature },
    }),
  ]);
}
