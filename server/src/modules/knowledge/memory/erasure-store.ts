import type { Actor } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { ErasureReceipt } from './erasure-schema.ts';

/** What is to be erased: these memories, or all of an identity, or all with this metadata, or both of these. */
export interface ErasureCriteria {
  memory_ids?: string[];
  /** The names that were given, whether they can be ids or not. */
  named?: string[];
  identity_id?: string;
  metadata?: Record<string, unknown>;
}

export interface ErasureCounts {
  memories: number;
  derived: number;
  versions: number;
  vectors: number;
  imports: number;
}

export interface ErasureRow {
  id: string;
  identity_id: string | null;
  actor: Actor;
  criteria: ErasureCriteria | null;
  reason: string | null;
  status: 'running' | 'completed';
  position: string | null;
  counts: ErasureCounts;
  receipt: ErasureReceipt | null;
  request_id: string;
  created_at: string;
  completed_at: string | null;
  swept_at: string | null;
}

const columns = sql`
  id, identity_id, actor, criteria, reason, status, position, counts, receipt, request_id, created_at, completed_at, swept_at`;

export const insertErasure = (tenant: string, row: ErasureRow): Statement => sql`
  insert into memory_erasures (tenant_id, id, identity_id, actor, criteria, reason, status, counts, request_id, created_at)
  values (${tenant}, ${row.id}, ${row.identity_id}, ${row.actor}, ${row.criteria}, ${row.reason}, 'running', ${row.counts},
    ${row.request_id}, ${row.created_at})`;

export const findErasure = (db: Db, id: string): Promise<ErasureRow | undefined> =>
  db.one(
    sql<ErasureRow>`select ${columns} from memory_erasures where tenant_id = ${db.tenant} and id = ${id}`,
  );

export const lockErasure = (tx: Db, id: string): Promise<ErasureRow | undefined> =>
  tx.one(sql<ErasureRow>`
    select ${columns} from memory_erasures where tenant_id = ${tx.tenant} and id = ${id} for update`);

export const moveErasure = (
  tenant: string,
  id: string,
  position: string | null,
  counts: ErasureCounts,
): Statement => sql`
  update memory_erasures set position = ${position}, counts = ${counts} where tenant_id = ${tenant} and id = ${id}`;

export const completeErasure = (
  tenant: string,
  id: string,
  receipt: ErasureReceipt,
  counts: ErasureCounts,
  now: string,
): Statement => sql`
  update memory_erasures set status = 'completed', criteria = null, receipt = ${receipt}, counts = ${counts},
    completed_at = ${now} where tenant_id = ${tenant} and id = ${id}`;

/** The end of an erasure. Of one whose asker was removed meanwhile it forgets who that was: nobody else would, from now on. */
export const sweptErasure = (tenant: string, id: string, now: Date): Statement => sql`
  update memory_erasures e set swept_at = ${now},
    identity_id = (select i.id from identities i where i.tenant_id = ${tenant} and i.id = e.identity_id),
    actor = case when e.identity_id is null or exists (
      select 1 from identities i where i.tenant_id = ${tenant} and i.id = e.identity_id) then e.actor else '{}' end
  where e.tenant_id = ${tenant} and e.id = ${id}`;

export interface ErasableMemory {
  id: string;
  identity_id: string;
  type: string;
  metadata: Record<string, unknown>;
  text: string;
  sealed: Buffer | null;
  sensitive: boolean;
  version: number;
  deleted_at: string | null;
}

const erasable = sql`
  id, identity_id, type, metadata, text, sealed, sealed is not null as sensitive, version, deleted_at`;

/** Memories that criteria name, deleted and expired ones as well, after a position; kept from changing until the transaction ends. */
export const lockErasable = (
  tx: Db,
  { memory_ids, identity_id, metadata }: ErasureCriteria,
  after: string | null,
  limit: number,
): Promise<ErasableMemory[]> =>
  tx.rows(sql<ErasableMemory>`
    select ${erasable} from memories
    where tenant_id = ${tx.tenant}
      ${memory_ids === undefined ? raw('') : sql`and id = any(${memory_ids}::uuid[])`}
      ${identity_id === undefined ? raw('') : sql`and identity_id = ${identity_id}::uuid`}
      ${metadata === undefined ? raw('') : sql`and metadata @> ${metadata}::jsonb`}
      ${after === null ? raw('') : sql`and id > ${after}::uuid`}
    order by id limit ${limit} for update`);

/** What was made from these memories, by anybody. */
export const listDerived = (tx: Db, sources: string[]): Promise<{ memory_id: string }[]> =>
  tx.rows(sql<{ memory_id: string }>`
    select distinct memory_id from memory_derivations
    where tenant_id = ${tx.tenant} and source_id = any(${sources}::uuid[])`);

export const countVectors = async (tx: Db, ids: string[]): Promise<number> =>
  (await tx.one(sql<{ count: number }>`
    select count(*) as count from memory_vectors
    where tenant_id = ${tx.tenant} and memory_id = any(${ids}::uuid[])`))!.count;

/** Forgets what these memories were made from, and what was made from them. */
export const deleteDerivations = (tenant: string, ids: string[]): Statement => sql`
  delete from memory_derivations
  where tenant_id = ${tenant} and (source_id = any(${ids}::uuid[]) or memory_id = any(${ids}::uuid[]))`;

export interface ErasedRow {
  memory_id: string;
  hash: Buffer;
  is_derived: boolean;
}

export const insertErased = (tenant: string, erasure: string, rows: ErasedRow[]): Statement => sql`
  insert into memory_erased (tenant_id, erasure_id, memory_id, hash, is_derived)
  select ${tenant}, ${erasure}, r.memory_id, r.hash, r.is_derived
  from unnest(${rows.map(({ memory_id }) => memory_id)}::uuid[], ${rows.map(({ hash }) => hash)}::bytea[],
    ${rows.map(({ is_derived }) => is_derived)}::boolean[]) as r (memory_id, hash, is_derived)
  on conflict (tenant_id, erasure_id, memory_id) do nothing`;

/** What an erasure erased, after a position. */
export const listErased = (
  db: Db,
  erasure: string,
  after: string | undefined,
  limit: number,
): Promise<ErasedRow[]> =>
  db.rows(sql<ErasedRow>`
    select memory_id, hash, is_derived from memory_erased
    where tenant_id = ${db.tenant} and erasure_id = ${erasure}
      ${after === undefined ? raw('') : sql`and memory_id > ${after}::uuid`}
    order by memory_id limit ${limit}`);

export interface OpenErasure {
  tenant_id: string;
  id: string;
  status: 'running' | 'completed';
}

/** Erasures that are not done, or not swept, and began before `before`; for the operator. */
export const listOpenErasures = (operator: Db, before: Date): Promise<OpenErasure[]> =>
  operator.rows(sql<OpenErasure>`
    select tenant_id, id, status from memory_erasures
    where swept_at is null and created_at < ${before} and tenant_id is not null order by created_at limit 500`);

/** Memories stored between two ids, of these owners. */
export const listBetween = (
  db: Db,
  owners: string[],
  from: string,
  to: string,
  limit: number,
): Promise<ErasableMemory[]> =>
  db.rows(sql<ErasableMemory>`
    select ${erasable} from memories
    where tenant_id = ${db.tenant} and id > ${from}::uuid and id <= ${to}::uuid and identity_id = any(${owners}::uuid[])
    order by id limit ${limit}`);

export const listOwnersOf = (db: Db, erasure: string): Promise<{ identity_id: string }[]> =>
  db.rows(sql<{ identity_id: string }>`
    select distinct identity_id from memory_tombstones where tenant_id = ${db.tenant} and erasure_id = ${erasure}`);
