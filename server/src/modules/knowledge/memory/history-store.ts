import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { MemoryVersion } from './schema.ts';
import type { MemoryFilter, StoredMemory } from './store.ts';

/** Who replaces a version, how, and in which request. */
export interface Replacement {
  actor_type: string;
  actor_id: string;
  on_behalf_of: string | undefined;
  request_id: string;
  change: Exclude<MemoryVersion['change'], 'created'>;
}

/** Keeps what memories are now as former versions; belongs before the statements that change them. */
export const keepVersions = (tenant: string, ids: string[], by: Replacement, now: string): Statement => sql`
  insert into memory_versions (tenant_id, memory_id, version, text, sealed, key_id, type, metadata, session_id, role,
    occurred_at, ttl_days, expires_at, valid_from, valid_until, replaced_by_type, replaced_by, on_behalf_of, request_id, change)
  select m.tenant_id, m.id, m.version, m.text, m.sealed, m.key_id, m.type, m.metadata, m.session_id, m.role, m.occurred_at,
    m.ttl_days, m.expires_at, m.updated_at,
    case when m.deleted_at is null then greatest(${now}::timestamptz, m.updated_at) else m.deleted_at end,
    ${by.actor_type}, ${by.actor_id}, ${by.on_behalf_of}, ${by.request_id}, ${by.change}
  from memories m where m.tenant_id = ${tenant} and m.id = any(${ids}::uuid[])`;

/** A former version as a row; `change` and who did it are what ended it. */
export interface VersionRow {
  version: number;
  text: string;
  sealed: Buffer | null;
  type: string;
  metadata: Record<string, unknown>;
  session_id: string | null;
  role: string | null;
  occurred_at: string | null;
  ttl_days: number | null;
  expires_at: string | null;
  valid_from: string;
  valid_until: string;
  replaced_by_type: string | null;
  replaced_by: string | null;
  on_behalf_of: string | null;
  request_id: string | null;
  change: Exclude<MemoryVersion['change'], 'created'>;
}

const version = sql`
  version, text, sealed, type, metadata, session_id, role, occurred_at, ttl_days, expires_at, valid_from, valid_until,
  replaced_by_type, replaced_by, on_behalf_of, request_id, change`;

/** Former versions before one, newest first. */
export const listVersions = (db: Db, id: string, before: number, limit: number): Promise<VersionRow[]> =>
  db.rows(sql<VersionRow>`
    select ${version} from memory_versions
    where tenant_id = ${db.tenant} and memory_id = ${id} and version < ${before} order by version desc limit ${limit}`);

/** All former versions of these memories, oldest first. */
export const readVersions = (db: Db, ids: string[]): Promise<(VersionRow & { memory_id: string })[]> =>
  db.rows(sql<VersionRow & { memory_id: string }>`
    select memory_id, ${version} from memory_versions
    where tenant_id = ${db.tenant} and memory_id = any(${ids}::uuid[]) order by memory_id, version`);

/** Former versions of a memory whose texts are in the clear. */
export const listPlainVersions = (tx: Db, id: string): Promise<{ version: number; text: string }[]> =>
  tx.rows(sql<{ version: number; text: string }>`
    select version, text from memory_versions
    where tenant_id = ${tx.tenant} and memory_id = ${id} and sealed is null order by version`);

export interface SealedVersion {
  id: string;
  version: number;
  sealed: Buffer;
  key_id: string;
}

/** Stores texts of former versions as they were sealed, in the place of what there was. */
export const sealVersions = (tenant: string, rows: SealedVersion[]): Statement => sql`
  update memory_versions set text = '', sealed = r.sealed, key_id = r.key_id
  from unnest(${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ version }) => version)}::int[],
    ${rows.map(({ sealed }) => sealed)}::bytea[], ${rows.map(({ key_id }) => key_id)}::uuid[])
    as r (id, version, sealed, key_id)
  where memory_versions.tenant_id = ${tenant} and memory_versions.memory_id = r.id and memory_versions.version = r.version`;

/** A memory as it was, and by what its policies go now. */
export interface FormerMemory extends StoredMemory {
  type_now: string;
  metadata_now: Record<string, unknown>;
}

/** A point in time, the time now, and since when deleted memories are still kept. */
export interface AsOf {
  at: string;
  now: Date;
  keptSince: Date;
}

/**
 * Of each memory that was there at a time the version it had then: the first that was still to end, or the one it has now.
 * One that has expired by now is gone for the past as well.
 */
const then = (tenant: string | undefined, { at, now, keptSince }: AsOf): Statement => sql`
  select m.id, m.identity_id, s.text, s.type, s.metadata, s.metadata as meta_data, s.session_id, s.role, s.occurred_at,
    null::float8 as score, s.version, s.ttl_days, s.expires_at, 'none' as embedding_status, s.sealed is not null as sensitive,
    s.sealed, m.derived_from, m.inference_status, m.created_at, s.valid_from as updated_at, m.tenant_id,
    m.type as type_now, m.metadata as metadata_now
  from memories m cross join lateral (
    select * from (
      select v.version, v.text, v.sealed, v.type, v.metadata, v.session_id, v.role, v.occurred_at, v.ttl_days, v.expires_at,
        v.valid_from
      from memory_versions v where v.tenant_id = ${tenant} and v.memory_id = m.id and v.valid_until > ${at}::timestamptz
      union all
      select m.version, m.text, m.sealed, m.type, m.metadata, m.session_id, m.role, m.occurred_at, m.ttl_days, m.expires_at,
        m.updated_at
    ) known order by version limit 1
  ) s
  where m.tenant_id = ${tenant} and m.created_at <= ${at}::timestamptz
    and (m.expires_at is null or m.expires_at > ${now})
    and (m.deleted_at is null or (m.deleted_at > ${at}::timestamptz and m.deleted_at > ${keptSince}))
    and s.valid_from <= ${at}::timestamptz and (s.expires_at is null or s.expires_at > ${at}::timestamptz)`;

export const findAsOf = (db: Db, id: string, asOf: AsOf): Promise<FormerMemory | undefined> =>
  db.one(sql<FormerMemory>`${then(db.tenant, asOf)} and m.id = ${id}`);

/** Newest first; one row more than `limit` when there are more. */
export const listAsOf = (
  db: Db,
  filter: MemoryFilter,
  { owner, after, skip, limit }: PageFrom,
  asOf: AsOf,
): Promise<FormerMemory[]> =>
  db.rows(sql<FormerMemory>`
    ${then(db.tenant, asOf)}
      ${owner === undefined ? raw('') : sql`and m.identity_id = ${owner}::uuid`}
      ${filter.session_id === undefined ? raw('') : sql`and s.session_id = ${filter.session_id}`}
      ${after === undefined ? raw('') : sql`and m.id < ${after[0]}::uuid`}
      and (${filter.types}::text[] is null or s.type = any(${filter.types}::text[]))
    order by m.id desc limit ${limit + 1} offset ${skip}`);
