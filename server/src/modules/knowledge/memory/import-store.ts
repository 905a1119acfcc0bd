import type { Actor } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { ImportOptions, MemoryImport } from './import-schema.ts';
import { type StoredMemory, shown } from './store.ts';

export interface ImportRow {
  id: string;
  identity_id: string;
  actor: Actor;
  options: Pick<ImportOptions, 'owner' | 'preserve_ids'>;
  status: MemoryImport['status'];
  upload_key: string | null;
  received_bytes: number;
  received_lines: number;
  chunk_count: number;
  next_chunk: number;
  processed: number;
  created: number;
  updated: number;
  unchanged: number;
  failed: number;
  errors: MemoryImport['errors'];
  failure_code: string | null;
  request_id: string;
  created_at: string;
  updated_at: string;
  completed_at: string | null;
}

const columns = sql`
  id, identity_id, actor, options, status, upload_key, received_bytes, received_lines, chunk_count, next_chunk, processed, created,
  updated, unchanged, failed, errors, failure_code, request_id, created_at, updated_at, completed_at`;

/** Answers no row when the caller has an upload of this key. */
export const insertImport = (
  tenant: string,
  row: Pick<
    ImportRow,
    'id' | 'identity_id' | 'actor' | 'options' | 'upload_key' | 'request_id' | 'created_at'
  >,
): Statement<{ id: string }> => sql<{ id: string }>`
  insert into memory_imports (tenant_id, id, identity_id, actor, options, status, upload_key, request_id, created_at, updated_at)
  values (${tenant}, ${row.id}, ${row.identity_id}, ${row.actor}, ${row.options}, 'uploading', ${row.upload_key},
    ${row.request_id}, ${row.created_at}, ${row.created_at})
  on conflict (tenant_id, identity_id, upload_key) where upload_key is not null do nothing returning id`;

export const findImport = (db: Db, id: string): Promise<ImportRow | undefined> =>
  db.one(sql<ImportRow>`select ${columns} from memory_imports where tenant_id = ${db.tenant} and id = ${id}`);

export const findImportByKey = (db: Db, identity: string, key: string): Promise<ImportRow | undefined> =>
  db.one(sql<ImportRow>`
    select ${columns} from memory_imports
    where tenant_id = ${db.tenant} and identity_id = ${identity} and upload_key = ${key}`);

export const lockImport = (tx: Db, id: string): Promise<ImportRow | undefined> =>
  tx.one(sql<ImportRow>`
    select ${columns} from memory_imports where tenant_id = ${tx.tenant} and id = ${id} for update`);

/** Newest first; one row more than `limit` when there are more. */
export const listImports = (
  db: Db,
  status: string | undefined,
  { owner, after, skip, limit }: PageFrom,
): Promise<ImportRow[]> =>
  db.rows(sql<ImportRow>`
    select ${columns} from memory_imports
    where tenant_id = ${db.tenant}
      ${owner === undefined ? raw('') : sql`and identity_id = ${owner}::uuid`}
      ${after === undefined ? raw('') : sql`and id < ${after[0]}::uuid`}
      and (${status}::text is null or status = ${status}::text)
    order by id desc limit ${limit + 1} offset ${skip}`);

export interface ImportChunk {
  position: number;
  first_line: number;
  lines: number;
  sealed: Buffer;
  key_id: string;
}

export const insertChunk = (tenant: string, id: string, chunk: ImportChunk): Statement => sql`
  insert into memory_import_chunks (tenant_id, import_id, position, first_line, lines, sealed, key_id)
  values (${tenant}, ${id}, ${chunk.position}, ${chunk.first_line}, ${chunk.lines}, ${chunk.sealed}, ${chunk.key_id})`;

/** Moves an upload on from where it was; answers no row when it is not there any more: another one goes on with it. */
export const moveUpload = (
  tenant: string,
  id: string,
  from: number,
  to: { received_bytes: number; received_lines: number; chunk_count: number; now: Date },
): Statement<{ id: string }> => sql<{ id: string }>`
  update memory_imports set received_bytes = ${to.received_bytes}, received_lines = ${to.received_lines}, chunk_count = ${to.chunk_count},
    updated_at = ${to.now}
  where tenant_id = ${tenant} and id = ${id} and status = 'uploading' and received_bytes = ${from} returning id`;

/** Answers no row when the upload went on, or ended, meanwhile. */
export const endUpload = (
  tenant: string,
  id: string,
  received: number,
  now: Date,
): Statement<{ id: string }> => sql<{
  id: string;
}>`
  update memory_imports set status = 'queued', updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and status = 'uploading' and received_bytes = ${received} returning id`;

export const findChunk = (db: Db, id: string, position: number): Promise<ImportChunk | undefined> =>
  db.one(sql<ImportChunk>`
    select position, first_line, lines, sealed, key_id from memory_import_chunks
    where tenant_id = ${db.tenant} and import_id = ${id} and position = ${position}`);

export const deleteChunk = (tenant: string, id: string, position: number): Statement =>
  sql`delete from memory_import_chunks where tenant_id = ${tenant} and import_id = ${id} and position = ${position}`;

export const deleteChunks = (tenant: string, id: string): Statement =>
  sql`delete from memory_import_chunks where tenant_id = ${tenant} and import_id = ${id}`;

export type Progress = Pick<
  ImportRow,
  'next_chunk' | 'processed' | 'created' | 'updated' | 'unchanged' | 'failed' | 'errors'
>;

export const moveImport = (tenant: string, id: string, to: Progress, now: Date): Statement => sql`
  update memory_imports set status = 'processing', next_chunk = ${to.next_chunk}, processed = ${to.processed},
    created = ${to.created}, updated = ${to.updated}, unchanged = ${to.unchanged}, failed = ${to.failed},
    errors = ${JSON.stringify(to.errors)}, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id}`;

/** Ends an import that has not ended; answers no row for one that has. */
export const endImport = (
  tenant: string,
  id: string,
  status: 'succeeded' | 'failed' | 'canceled',
  failureCode: string | null,
  now: Date,
): Statement<{ id: string }> => sql<{ id: string }>`
  update memory_imports set status = ${status}, failure_code = ${failureCode}, updated_at = ${now}, completed_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and status in ('uploading', 'queued', 'processing') returning id`;

/** Cancels all that an identity imports, and drops its files; answers which. */
export const dropImports = (
  tenant: string,
  identity: string,
  now: Date,
): Statement<{ import_id: string }> => sql<{
  import_id: string;
}>`
  with canceled as (
    update memory_imports set status = 'canceled', updated_at = ${now}, completed_at = ${now}
    where tenant_id = ${tenant} and identity_id = ${identity} and status in ('uploading', 'queued', 'processing')
    returning id
  ), dropped as (
    delete from memory_import_chunks where tenant_id = ${tenant} and import_id in (select id from canceled)
  )
  select id as import_id from canceled`;

export interface OpenImport {
  tenant_id: string;
  id: string;
  status: 'uploading' | 'queued' | 'processing';
}

/** Imports nothing has happened to since a time; for the operator. */
export const listStalled = (operator: Db, before: Date): Promise<OpenImport[]> =>
  operator.rows(sql<OpenImport>`
    select tenant_id, id, status from memory_imports
    where status in ('uploading', 'queued', 'processing') and updated_at < ${before} and tenant_id is not null
    order by updated_at limit 500`);

export interface SourceRow {
  identity_id: string;
  source_id: string;
  memory_id: string;
}

export const findSources = (db: Db, owners: string[], sourceIds: string[]): Promise<SourceRow[]> =>
  db.rows(sql<SourceRow>`
    select identity_id, source_id, memory_id from memory_sources
    where tenant_id = ${db.tenant} and identity_id = any(${owners}::uuid[]) and source_id = any(${sourceIds}::text[])`);

export const insertSources = (tenant: string, rows: SourceRow[]): Statement => sql`
  insert into memory_sources (tenant_id, identity_id, source_id, memory_id)
  select ${tenant}, r.identity_id, r.source_id, r.memory_id
  from unnest(${rows.map(({ identity_id }) => identity_id)}::uuid[], ${rows.map(({ source_id }) => source_id)}::text[],
    ${rows.map(({ memory_id }) => memory_id)}::uuid[]) as r (identity_id, source_id, memory_id)
  on conflict (tenant_id, identity_id, source_id) do update set memory_id = excluded.memory_id`;

/** Live memories of these ids, kept from changing until the transaction ends. */
export const lockKnown = (tx: Db, ids: string[], now: Date): Promise<StoredMemory[]> =>
  tx.rows(sql<StoredMemory>`
    select ${shown} from memories m
    where m.tenant_id = ${tx.tenant} and m.id = any(${ids}::uuid[]) and m.deleted_at is null
      and (m.expires_at is null or m.expires_at > ${now}) order by m.id for update of m`);

/** Of these ids those that are taken, whatever became of their memories. */
export const findTaken = (db: Db, ids: string[]): Promise<{ id: string }[]> =>
  db.rows(
    sql<{ id: string }>`select id from memories where tenant_id = ${db.tenant} and id = any(${ids}::uuid[])`,
  );

export interface NewVersion {
  memory_id: string;
  version: number;
  text: string;
  sealed: Buffer | null;
  key_id: string | null;
  type: string;
  metadata: Record<string, unknown>;
  session_id: string | null;
  role: string | null;
  occurred_at: string | null;
  ttl_days: number | null;
  expires_at: string | null;
  valid_from: string;
  valid_until: string;
}

/** Former versions as a file tells them. */
export function insertVersions(tenant: string, rows: NewVersion[], by: string, requestId: string): Statement {
  const column = <K extends keyof NewVersion>(name: K) => rows.map((row) => row[name]);
  return sql`
    insert into memory_versions (tenant_id, memory_id, version, text, sealed, key_id, type, metadata, session_id, role,
      occurred_at, ttl_days, expires_at, valid_from, valid_until, replaced_by_type, replaced_by, request_id, change)
    select ${tenant}, r.memory_id, r.version, r.text, r.sealed, r.key_id, r.type, r.metadata::jsonb, r.session_id, r.role,
      r.occurred_at, r.ttl_days, r.expires_at, r.valid_from, r.valid_until, 'identity', ${by}, ${requestId}, 'imported'
    from unnest(${column('memory_id')}::uuid[], ${column('version')}::int[], ${column('text')}::text[],
      ${column('sealed')}::bytea[], ${column('key_id')}::uuid[], ${column('type')}::text[],
      ${rows.map(({ metadata }) => JSON.stringify(metadata))}::text[], ${column('session_id')}::text[],
      ${column('role')}::text[], ${column('occurred_at')}::timestamptz[], ${column('ttl_days')}::int[],
      ${column('expires_at')}::timestamptz[], ${column('valid_from')}::timestamptz[], ${column('valid_until')}::timestamptz[])
      as r (memory_id, version, text, sealed, key_id, type, metadata, session_id, role, occurred_at, ttl_days, expires_at,
        valid_from, valid_until)
    returning 1`;
}
