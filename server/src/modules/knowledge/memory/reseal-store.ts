import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface SealedRow {
  id: string;
  version: number;
  sealed: Buffer;
}

/** Sealed memories whose key is another than this one, kept from changing until the transaction ends. */
export const lockSealedOtherwise = (tx: Db, key: string, limit: number): Promise<SealedRow[]> =>
  tx.rows(sql<SealedRow>`
    select id, version, sealed from memories
    where tenant_id = ${tx.tenant} and key_id is not null and key_id <> ${key} order by id limit ${limit} for update`);

export const lockVersionsSealedOtherwise = (tx: Db, key: string, limit: number): Promise<SealedRow[]> =>
  tx.rows(sql<SealedRow>`
    select memory_id as id, version, sealed from memory_versions
    where tenant_id = ${tx.tenant} and key_id is not null and key_id <> ${key}
    order by memory_id, version limit ${limit} for update`);

export interface Resealed {
  id: string;
  version: number;
  sealed: Buffer;
  key_id: string;
}

export const resealMemories = (tenant: string, rows: Resealed[]): Statement => sql`
  update memories set sealed = r.sealed, key_id = r.key_id
  from unnest(${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ sealed }) => sealed)}::bytea[],
    ${rows.map(({ key_id }) => key_id)}::uuid[]) as r (id, sealed, key_id)
  where memories.tenant_id = ${tenant} and memories.id = r.id`;
