import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface Tombstone {
  identity_id: string;
  hash: Buffer;
}

export const hasTombstones = async (db: Db): Promise<boolean> =>
  (await db.rows(sql`select 1 from memory_tombstones where tenant_id = ${db.tenant} limit 1`)).length > 0;

/** Those of these that are there; `hashes` are of any of the identities. */
export const findTombstones = (db: Db, identities: string[], hashes: Buffer[]): Promise<Tombstone[]> =>
  db.rows(sql<Tombstone>`
    select identity_id, hash from memory_tombstones
    where tenant_id = ${db.tenant} and identity_id = any(${identities}::uuid[]) and hash = any(${hashes}::bytea[])`);

export const insertTombstones = (
  tenant: string,
  erasure: string,
  stones: Tombstone[],
  now: Date,
): Statement => sql`
  insert into memory_tombstones (tenant_id, identity_id, hash, erasure_id, created_at)
  select ${tenant}, r.identity_id, r.hash, ${erasure}, ${now}
  from unnest(${stones.map(({ identity_id }) => identity_id)}::uuid[], ${stones.map(({ hash }) => hash)}::bytea[])
    as r (identity_id, hash)
  on conflict (tenant_id, identity_id, hash) do nothing`;

export const deleteTombstone = (
  tenant: string,
  { identity_id, hash }: Tombstone,
): Statement<{ hash: Buffer }> => sql<{
  hash: Buffer;
}>`
  delete from memory_tombstones where tenant_id = ${tenant} and identity_id = ${identity_id} and hash = ${hash} returning hash`;
