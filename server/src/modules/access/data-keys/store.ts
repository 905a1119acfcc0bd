import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export type KeyPurpose = 'seal' | 'hash';

export interface DataKeyRow {
  id: string;
  purpose: KeyPurpose;
  wrapped: Buffer;
  wrapped_by: string;
  created_at: string;
  retired_at: string | null;
}

/** All keys of a tenant, oldest first. */
export const selectKeys = (tenant: string): Statement<DataKeyRow> => sql<DataKeyRow>`
  select id, purpose, wrapped, wrapped_by, created_at, retired_at from data_keys where tenant_id = ${tenant} order by id`;

/** Makes a key unless the tenant has one in use for the purpose. */
export const insertKey = (
  tenant: string,
  row: Pick<DataKeyRow, 'id' | 'purpose' | 'wrapped' | 'wrapped_by'>,
  now: Date,
): Statement<{ id: string }> => sql<{ id: string }>`
  insert into data_keys (tenant_id, id, purpose, wrapped, wrapped_by, created_at)
  values (${tenant}, ${row.id}, ${row.purpose}, ${row.wrapped}, ${row.wrapped_by}, ${now})
  on conflict (tenant_id, purpose) where retired_at is null do nothing returning id`;

/** Retires the sealing key in use; answers which it was. */
export const retireKey = (tenant: string, now: Date): Statement<{ id: string }> => sql<{ id: string }>`
  update data_keys set retired_at = ${now}
  where tenant_id = ${tenant} and purpose = 'seal' and retired_at is null returning id`;

/** @throws a foreign key violation (23503) while something is sealed with it */
export const deleteRetiredKey = (tenant: string, id: string, before: Date): Statement<{ id: string }> => sql<{
  id: string;
}>`
  delete from data_keys where tenant_id = ${tenant} and id = ${id} and retired_at < ${before} returning id`;

export const rewrapKey = (tenant: string, id: string, wrapped: Buffer, wrappedBy: string): Statement => sql`
  update data_keys set wrapped = ${wrapped}, wrapped_by = ${wrappedBy} where tenant_id = ${tenant} and id = ${id}`;

export interface WrappedKey extends Pick<DataKeyRow, 'id' | 'purpose' | 'wrapped'> {
  tenant_id: string;
}

/** Keys wrapped by another key than this one, after a position; for the operator. */
export const listWrappedOtherwise = (
  operator: Db,
  wrappedBy: string,
  after: [string, string],
  limit: number,
): Promise<WrappedKey[]> =>
  operator.rows(sql<WrappedKey>`
    select tenant_id, id, purpose, wrapped from data_keys
    where wrapped_by <> ${wrappedBy} and (tenant_id, id) > (${after[0]}::text, ${after[1]}::uuid)
    order by tenant_id, id limit ${limit}`);

/** Tenants with keys that were retired before `before`; for the operator. */
export const listTenantsWithRetiredKeys = (operator: Db, before: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from data_keys where retired_at < ${before} and tenant_id is not null limit 1000`);
