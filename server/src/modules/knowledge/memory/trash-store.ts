import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import { type MemoryFilter, type StoredMemory, shown } from './store.ts';

export type DeletedMemory = StoredMemory & { deleted_at: string };

/** Memories deleted since a time that have not expired, newest first; one row more than `limit` when there are more. */
export const listDeleted = (
  db: Db,
  filter: MemoryFilter,
  { owner, visible, after, skip, limit }: PageFrom,
  since: Date,
  now: Date,
): Promise<DeletedMemory[]> =>
  db.rows(sql<DeletedMemory>`
    select ${shown}, m.deleted_at from memories m
    where m.tenant_id = ${db.tenant} and m.deleted_at is not null and m.deleted_at > ${since}
      and (m.expires_at is null or m.expires_at > ${now})
      ${owner === undefined ? raw('') : sql`and m.identity_id = ${owner}::uuid`}
      ${visible === undefined ? raw('') : sql`and ${visible}`}
      ${filter.session_id === undefined ? raw('') : sql`and m.session_id = ${filter.session_id}`}
      ${after === undefined ? raw('') : sql`and m.id < ${after[0]}::uuid`}
      and (${filter.types}::text[] is null or m.type = any(${filter.types}::text[]))
    order by m.id desc limit ${limit + 1} offset ${skip}`);

/** A memory deleted since a time, kept from changing until the transaction ends. */
export const lockDeleted = (tx: Db, id: string, since: Date): Promise<DeletedMemory | undefined> =>
  tx.one(sql<DeletedMemory>`
    select ${shown}, m.deleted_at from memories m
    where m.tenant_id = ${tx.tenant} and m.id = ${id} and m.deleted_at > ${since} for update of m`);

/** Brings a memory back as its next version. */
export const unhideMemory = (
  row: Pick<StoredMemory, 'tenant_id' | 'id' | 'version' | 'updated_at'>,
): Statement => sql`
  update memories set deleted_at = null, version = ${row.version}, updated_at = ${row.updated_at}
  where tenant_id = ${row.tenant_id} and id = ${row.id}`;

/** Tenants with memories deleted before a time; for the operator. */
export const listTenantsTrashing = (operator: Db, before: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from memories
    where deleted_at is not null and deleted_at <= ${before} and tenant_id is not null limit 1000`);

/** Memories deleted before a time, kept from changing until the transaction ends. */
export const lockTrash = (tx: Db, before: Date, limit: number): Promise<{ id: string }[]> =>
  tx.rows(sql<{ id: string }>`
    select id from memories
    where tenant_id = ${tx.tenant} and deleted_at is not null and deleted_at <= ${before}
    order by id limit ${limit} for update skip locked`);
