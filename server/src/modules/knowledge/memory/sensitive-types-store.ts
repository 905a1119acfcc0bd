import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

/** What a tenant demands of its memories, and how far what was stored before is encrypted. */
export interface MemorySettings {
  sensitive_types: string[];
  updated_at: string;
  demanded_at: string | null;
  found: number | null;
  encrypted: number;
  completed_at: string | null;
  swept_at: string | null;
}

const columns = sql`sensitive_types, updated_at, demanded_at, found, encrypted, completed_at, swept_at`;

export const findSettings = (db: Db): Promise<MemorySettings | undefined> =>
  db.one(sql<MemorySettings>`select ${columns} from memory_settings where tenant_id = ${db.tenant}`);

export const storeSettings = (tenant: string, row: MemorySettings): Statement => sql`
  insert into memory_settings (tenant_id, ${columns})
  values (${tenant}, ${JSON.stringify(row.sensitive_types)}, ${row.updated_at}, ${row.demanded_at}, ${row.found}, ${row.encrypted},
    ${row.completed_at}, ${row.swept_at})
  on conflict (tenant_id) do update set sensitive_types = excluded.sensitive_types, updated_at = excluded.updated_at,
    demanded_at = excluded.demanded_at, found = excluded.found, encrypted = excluded.encrypted,
    completed_at = excluded.completed_at, swept_at = excluded.swept_at`;

/** Tenants where something is to be encrypted still, or to be looked through again; for the operator. */
export const listTenantsEncrypting = (operator: Db): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select tenant_id from memory_settings
    where demanded_at is not null and swept_at is null and tenant_id is not null order by demanded_at limit 1000`);

/** Says how much there is; says nothing when a type was added since. */
export const setFound = (tenant: string, demandedAt: string, found: number): Statement => sql`
  update memory_settings set found = ${found} where tenant_id = ${tenant} and demanded_at = ${demandedAt} and found is null`;

export const countEncrypted = (tenant: string, demandedAt: string, texts: number): Statement => sql`
  update memory_settings set encrypted = encrypted + ${texts} where tenant_id = ${tenant} and demanded_at = ${demandedAt}`;

/** Answers the row when this ends it for the first time, and nothing when a type was added since. */
export const completeEncryption = (
  tenant: string,
  demandedAt: string,
  now: Date,
): Statement<{ encrypted: number }> => sql<{ encrypted: number }>`
  update memory_settings set completed_at = ${now}
  where tenant_id = ${tenant} and demanded_at = ${demandedAt} and completed_at is null returning encrypted`;

export const sweptEncryption = (tenant: string, demandedAt: string, now: Date): Statement => sql`
  update memory_settings set swept_at = ${now} where tenant_id = ${tenant} and demanded_at = ${demandedAt}`;

/** Names a former version, or a memory as it is. */
export interface VersionKey {
  id: string;
  version: number;
}

/** Texts in the clear among some rows, and the last of these rows where more may follow. */
export interface Plain {
  found: VersionKey[];
  last: VersionKey | null;
}

/** However rare such texts are, a statement looks at no more rows than these; fewer are the end, while more may still come. */
const lookAt = async (db: Db, looked: Statement, rows: number): Promise<Plain> =>
  (await db.one(sql<Plain>`
    with looked as materialized (${looked}), keys as (
      select id, version, plain, json_build_object('id', id, 'version', version) as key from looked
    )
    select (select coalesce(json_agg(key order by id, version), '[]') from keys where plain) as found,
      (select key from keys order by id, version offset ${rows - 1} limit 1) as last`))!;

/** Memories of these types, deleted ones as well, after one of them. */
export const lookAtMemories = (db: Db, types: string[], after: VersionKey, rows: number): Promise<Plain> =>
  lookAt(
    db,
    sql`
      select id, version, sealed is null and type = any(${types}::text[]) as plain from memories
      where tenant_id = ${db.tenant} and id > ${after.id}::uuid order by id limit ${rows}`,
    rows,
  );

/** Former versions of these types, or of memories that are: what one was, of whatever type, is sealed with it. */
export const lookAtVersions = (db: Db, types: string[], after: VersionKey, rows: number): Promise<Plain> =>
  lookAt(
    db,
    sql`
      select v.memory_id as id, v.version, v.sealed is null and (
          v.type = any(${types}::text[]) or exists (
            select 1 from memories m
            where m.tenant_id = ${db.tenant} and m.id = v.memory_id
              and (m.sealed is not null or m.type = any(${types}::text[]))
          )
        ) as plain
      from memory_versions v
      where v.tenant_id = ${db.tenant} and (v.memory_id, v.version) > (${after.id}::uuid, ${after.version}::int)
      order by v.memory_id, v.version limit ${rows}`,
    rows,
  );

export interface PlainMemory {
  id: string;
  text: string;
  version: number;
  deleted_at: string | null;
}

/** Those of these memories that are of these types and in the clear, kept from changing until the transaction ends. */
export const lockPlainMemories = (tx: Db, types: string[], keys: VersionKey[]): Promise<PlainMemory[]> =>
  tx.rows(sql<PlainMemory>`
    select id, text, version, deleted_at from memories
    where tenant_id = ${tx.tenant} and id = any(${keys.map(({ id }) => id)}::uuid[]) and sealed is null
      and type = any(${types}::text[])
    order by id for update`);

/** Those of these versions that are in the clear, kept from changing until the transaction ends. */
export const lockPlainVersions = (tx: Db, keys: VersionKey[]): Promise<(VersionKey & { text: string })[]> =>
  tx.rows(sql<VersionKey & { text: string }>`
    select v.memory_id as id, v.version, v.text
    from unnest(${keys.map(({ id }) => id)}::uuid[], ${keys.map(({ version }) => version)}::int[]) as r (id, version)
    join memory_versions v on v.memory_id = r.id and v.version = r.version
    where v.tenant_id = ${tx.tenant} and v.sealed is null order by v.memory_id, v.version for update of v`);
