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

const plainMemories = (tenant: string | undefined, types: string[]): Statement => sql`
  from memories m where m.tenant_id = ${tenant} and m.sealed is null and m.type = any(${types}::text[])`;

/** Also what a memory was, of whatever type, that is of such a type now: it is sealed with it. */
const plainVersions = (tenant: string | undefined, types: string[]): Statement => sql`
  from memory_versions v where v.tenant_id = ${tenant} and v.sealed is null and (
    v.type = any(${types}::text[]) or exists (
      select 1 from memories m
      where m.tenant_id = ${tenant} and m.id = v.memory_id and (m.sealed is not null or m.type = any(${types}::text[]))
    ))`;

/** How many texts of these types are in the clear. */
export async function countPlain(db: Db, types: string[]): Promise<number> {
  const found = await db.one(sql<{ texts: number }>`
    select (select count(*) ${plainMemories(db.tenant, types)})::int
      + (select count(*) ${plainVersions(db.tenant, types)})::int as texts`);
  return found!.texts;
}

/** Memories of these types in the clear after an id, deleted ones as well. */
export const listPlainMemories = (
  db: Db,
  types: string[],
  after: string,
  limit: number,
): Promise<{ id: string }[]> =>
  db.rows(sql<{ id: string }>`
    select m.id ${plainMemories(db.tenant, types)} and m.id > ${after}::uuid order by m.id limit ${limit}`);

export interface PlainMemory {
  id: string;
  text: string;
  version: number;
  deleted_at: string | null;
}

/** Those of these memories that are in the clear, kept from changing until the transaction ends. */
export const lockPlainMemories = (tx: Db, types: string[], ids: string[]): Promise<PlainMemory[]> =>
  tx.rows(sql<PlainMemory>`
    select m.id, m.text, m.version, m.deleted_at ${plainMemories(tx.tenant, types)} and m.id = any(${ids}::uuid[])
    order by m.id for update of m`);

export interface VersionKey {
  id: string;
  version: number;
}

/** Former versions in the clear that are of these types, or of memories that are, after one of them. */
export const listPlainVersions = (
  db: Db,
  types: string[],
  after: VersionKey,
  limit: number,
): Promise<VersionKey[]> =>
  db.rows(sql<VersionKey>`
    select v.memory_id as id, v.version ${plainVersions(db.tenant, types)}
      and (v.memory_id, v.version) > (${after.id}::uuid, ${after.version}::int)
    order by v.memory_id, v.version limit ${limit}`);

/** Those of these versions that are in the clear, kept from changing until the transaction ends. */
export const lockPlainVersions = (tx: Db, keys: VersionKey[]): Promise<(VersionKey & { text: string })[]> =>
  tx.rows(sql<VersionKey & { text: string }>`
    select v.memory_id as id, v.version, v.text
    from memory_versions v join unnest(${keys.map(({ id }) => id)}::uuid[], ${keys.map(({ version }) => version)}::int[])
      as r (id, version) on v.memory_id = r.id and v.version = r.version
    where v.tenant_id = ${tx.tenant} and v.sealed is null order by v.memory_id, v.version for update of v`);
