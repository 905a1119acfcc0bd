import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { RowColumns } from '../../access/policy/service.ts';
import type { Format, Warning } from './formats/format.ts';
import { granted, type Principals } from './permission-store.ts';
import type { Access, DocumentStatus, Grant } from './schema.ts';

/** What policies look at. */
export interface DocumentOfPolicy {
  id: string;
  content_type: string;
  metadata_json: Record<string, unknown>;
  created_by: string | null;
}

/** What decides whether grants are asked, and those of the caller. */
export interface Guarded {
  access: Access;
  grants: Grant[];
}

/** A document as it is shown, and what the rules need to know besides. Its content is read by the job alone. */
export interface DocumentRow extends DocumentOfPolicy, Guarded {
  tenant_id: string;
  corpus_id: string;
  filename: string;
  content_hash: string;
  size_bytes: number;
  source: string;
  ingest_source: string;
  status: DocumentStatus;
  failure_reason: string | null;
  warnings: Warning[];
  num_chunks: number | null;
  num_pages: number | null;
  created_at: string;
  updated_at: string;
  queued_at: string | null;
  processing_started_at: string | null;
  completed_at: string | null;
  last_reindexed_at: string | null;
  last_job_id: string | null;
  attempt: number;
  options: ChunkSizes;
  /** An ingestion has succeeded, and what it made is found. */
  is_found: boolean;
}

/** How a document is cut; what is unset follows from defaults. `reindex`: it was asked for by a reindex. */
export interface ChunkSizes {
  chunk_size_chars?: number;
  chunk_overlap_chars?: number;
  reindex?: true;
}

/** What a client stores. */
export interface DocumentContent {
  filename: string;
  format: Format;
  content_type: string;
  access: Access;
  intake_warnings: Warning[];
  source: string;
  ingest_source: string;
  metadata_json: Record<string, unknown>;
  content: Buffer;
  content_hash: Buffer;
  options: ChunkSizes;
}

/** Where what policies see of a document is. */
export const documentColumns: RowColumns = {
  id: { column: sql`documents.id` },
  owner: { column: sql`documents.created_by`, uuid: true, nullable: true },
  type: { column: sql`documents.content_type` },
  metadata: sql`documents.metadata_json`,
  labels: true,
};

const shown = sql`
  id, tenant_id, corpus_id, filename, content_type, encode(content_hash, 'hex') as content_hash,
  octet_length(content) as size_bytes, source, ingest_source, metadata_json, access, status, failure_reason,
  intake_warnings || parse_warnings as warnings, case when status = 'succeeded' then num_chunks end as num_chunks,
  case when status = 'succeeded' then cardinality(page_starts) end as num_pages, created_at, updated_at, queued_at,
  processing_started_at, completed_at, last_reindexed_at, last_job_id, attempt, options, created_by,
  num_chunks is not null as is_found`;

// Of a corpus that is being deleted nothing is shown any more.
const inCorpus = sql`exists (
  select 1 from corpora c
  where c.tenant_id = documents.tenant_id and c.id = documents.corpus_id and c.deleted_at is null)`;

/** `who`: whose grants are looked for. */
export const findDocument = (db: Db, id: string, who: Principals): Promise<DocumentRow | undefined> =>
  db.one(sql<DocumentRow>`
    select ${shown}, array(select p.permission from document_permissions p where ${granted(who)}) as grants
    from documents where tenant_id = ${db.tenant} and id = ${id} and ${inCorpus}`);

/** The same, kept from changing until the transaction ends. */
export const lockDocument = (tenant: string, id: string, who: Principals): Statement<DocumentRow> =>
  sql<DocumentRow>`
    select ${shown}, array(select p.permission from document_permissions p where ${granted(who)}) as grants
    from documents where tenant_id = ${tenant} and id = ${id} and ${inCorpus} for update`;

/** The bytes of a document, or its text: null until an ingestion has succeeded. */
export const findContent = (
  db: Db,
  id: string,
  original: boolean,
): Promise<{ content: Buffer | null; extracted_text: string | null } | undefined> =>
  db.one(sql<{ content: Buffer | null; extracted_text: string | null }>`
    select case when ${original}::boolean then content end as content,
      case when not ${original}::boolean then extracted_text end as extracted_text
    from documents where tenant_id = ${db.tenant} and id = ${id}`);

/** @param given what was asked for: content that waits changes it no more */
export const updateDocumentRow = (
  tenant: string,
  id: string,
  after: Pick<DocumentRow, 'access' | 'metadata_json' | 'updated_at'>,
  given: string[],
): Statement => sql`
  update documents set access = ${after.access}, metadata_json = ${after.metadata_json}, updated_at = ${after.updated_at},
    next = next - ${given}::text[]
  where tenant_id = ${tenant} and id = ${id}`;

export interface DocumentFilter {
  corpus_id?: string | undefined;
  status?: string | undefined;
}

/** Those that are open to `who` or granted, newest first; one row more than `limit` when there are more. */
export const listDocuments = (
  db: Db,
  filter: DocumentFilter,
  who: Principals,
  { visible, after, skip, limit }: PageFrom,
): Promise<DocumentRow[]> =>
  db.rows(sql<DocumentRow>`
    select ${shown}, '{}'::text[] as grants from documents
    where tenant_id = ${db.tenant} and ${inCorpus}
      and (access = 'open' or ${who.all}::boolean or exists (select 1 from document_permissions p where ${granted(who)}))
      ${visible === undefined ? raw('') : sql`and ${visible}`}
      and (${filter.corpus_id}::text is null or corpus_id = ${filter.corpus_id}::text)
      and (${filter.status}::text is null or status = ${filter.status}::text)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::text))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

/** Other documents of a corpus with the same bytes, oldest first: a few, of which the caller may see one. */
export const listTwins = (
  tenant: string,
  { id, corpus_id, content_hash }: { id: string; corpus_id: string; content_hash: Buffer },
  who: Principals,
): Statement<DocumentRow> =>
  sql<DocumentRow>`
    select ${shown}, array(select p.permission from document_permissions p where ${granted(who)}) as grants
    from documents
    where tenant_id = ${tenant} and corpus_id = ${corpus_id} and content_hash = ${content_hash} and id <> ${id}
    order by created_at, id limit 5`;

/** Answers a row when a tenant has more than `most` documents waiting or worked on. */
export const findFullQueue = (tenant: string, most: number): Statement<{ id: string }> =>
  sql<{ id: string }>`
    select id from documents where tenant_id = ${tenant} and status in ('queued', 'processing') offset ${most - 1} limit 1`;

/** Restricted documents of a corpus that nothing is granted of to `who`. */
export const listClosed = (db: Db, corpusId: string, who: Principals): Promise<{ id: string }[]> =>
  db.rows(sql<{ id: string }>`
    select id from documents
    where tenant_id = ${db.tenant} and corpus_id = ${corpusId} and access = 'restricted'
      and not exists (select 1 from document_permissions p where ${granted(who)})`);

/** Ids of the documents of a corpus for which a condition is true. */
export const idsOfCorpus = (tenant: string, corpusId: string, condition: Statement): Statement => sql`
  select documents.id from documents
  where documents.tenant_id = ${tenant} and documents.corpus_id = ${corpusId} and ${condition}`;

/** What policies look at, of the documents of a corpus for which a condition is true, by id. */
export const listTargets = (
  db: Db,
  corpusId: string,
  condition: Statement,
  after: string,
  limit: number,
): Promise<DocumentOfPolicy[]> =>
  db.rows(sql<DocumentOfPolicy>`
    select id, content_type, metadata_json, created_by from documents
    where tenant_id = ${db.tenant} and corpus_id = ${corpusId} and id > ${after} and ${condition}
    order by id limit ${limit}`);

/** What policies look at, of some documents. */
export const findTargets = (db: Db, ids: string[]): Promise<DocumentOfPolicy[]> =>
  db.rows(sql<DocumentOfPolicy>`
    select id, content_type, metadata_json, created_by from documents
    where tenant_id = ${db.tenant} and id = any(${ids}::text[])`);

/** A queued document; no row comes back when the id is taken. */
export const insertDocument = (
  key: { tenant_id: string; id: string; corpus_id: string; created_by: string | undefined },
  row: DocumentContent,
  job: string,
  now: Date,
): Statement<{ id: string }> => sql<{ id: string }>`
  insert into documents (tenant_id, id, corpus_id, filename, format, content_type, source, ingest_source,
    metadata_json, access, intake_warnings, content, content_hash, options, created_by, status, attempt, created_at,
    updated_at, queued_at, last_job_id)
  values (${key.tenant_id}, ${key.id}, ${key.corpus_id}, ${row.filename}, ${row.format}, ${row.content_type},
    ${row.source}, ${row.ingest_source}, ${row.metadata_json}, ${row.access},
    ${JSON.stringify(row.intake_warnings)}, ${row.content}, ${row.content_hash}, ${row.options}, ${key.created_by},
    'queued', 1, ${now}, ${now}, ${now}, ${job})
  on conflict (tenant_id, id) do nothing returning id`;

/** Puts other content into a document of which nothing is found yet. */
export const replaceContent = (tenant: string, id: string, row: DocumentContent): Statement => sql`
  update documents set filename = ${row.filename}, format = ${row.format}, content_type = ${row.content_type},
    source = ${row.source}, ingest_source = ${row.ingest_source},
    metadata_json = ${row.metadata_json}, access = ${row.access}, intake_warnings = ${JSON.stringify(row.intake_warnings)},
    content = ${row.content}, content_hash = ${row.content_hash}
  where tenant_id = ${tenant} and id = ${id}`;

/** Content that takes the place of what is found once it is read. Metadata and access come with it where they are given. */
export const keepNext = (
  tenant: string,
  id: string,
  { content, content_hash, options: _, metadata_json, access, ...row }: DocumentContent,
  given: Pick<Partial<DocumentContent>, 'metadata_json' | 'access'>,
): Statement => sql`
  update documents set next = ${{ ...row, content_hash: content_hash.toString('hex'), ...given }}, next_content = ${content},
    -- Who must not read what comes must not read what is there in the meantime either.
    access = case when ${given.access === 'restricted'}::boolean then 'restricted' else access end
  where tenant_id = ${tenant} and id = ${id}`;

/** Queues a document for another attempt. The caller holds its lock. */
export const queueDocument = (
  tenant: string,
  id: string,
  attempt: number,
  options: ChunkSizes,
  job: string,
  now: Date,
): Statement => sql`
  update documents set status = 'queued', attempt = ${attempt}, requeues = 0, options = ${options}, failure_reason = null,
    queued_at = ${now}, processing_started_at = null, completed_at = null, updated_at = ${now}, last_job_id = ${job}
  where tenant_id = ${tenant} and id = ${id}`;

export const forgetCreator = (tenant: string, identityId: string): Statement =>
  sql`update documents set created_by = null where tenant_id = ${tenant} and created_by = ${identityId}`;

export const deleteDocument = (tenant: string, id: string): Statement =>
  sql`delete from documents where tenant_id = ${tenant} and id = ${id}`;

/** A document of a corpus that is waiting or worked on, if there is one. */
export const findInFlight = (tenant: string, corpusId: string): Statement<{ id: string }> =>
  sql<{ id: string }>`
    select id from documents
    where tenant_id = ${tenant} and corpus_id = ${corpusId} and status in ('queued', 'processing') limit 1`;

/** Documents a corpus still holds, whether it is shown or not. */
export const listStored = (
  db: Db,
  corpusId: string,
  limit: number,
): Promise<{ id: string; num_chunks: number | null }[]> =>
  db.rows(sql<{ id: string; num_chunks: number | null }>`
    select id, num_chunks from documents where tenant_id = ${db.tenant} and corpus_id = ${corpusId} order by id limit ${limit}`);

export interface ClaimedDocument extends DocumentOfPolicy {
  corpus_id: string;
  filename: string;
  format: Format;
  content: Buffer;
  options: ChunkSizes;
  attempt: number;
}

/** Marks a document as worked on and answers it, if it still waits for this attempt; a repeated job claims it again. */
export const claimDocument = (
  db: Db,
  id: string,
  attempt: number,
  now: Date,
): Promise<ClaimedDocument | undefined> =>
  db.one(sql<ClaimedDocument>`
    update documents set status = 'processing', processing_started_at = ${now}, updated_at = ${now}
    where tenant_id = ${db.tenant} and id = ${id} and attempt = ${attempt} and status in ('queued', 'processing')
    returning id, corpus_id, coalesce(next->>'filename', filename) as filename, coalesce(next->>'format', format) as format,
      coalesce(next->>'content_type', content_type) as content_type, coalesce(next_content, content) as content, options,
      attempt, coalesce(next->'metadata_json', metadata_json) as metadata_json, created_by`);

/** What was read of a document. */
export interface ReadDocument {
  text: string;
  page_starts: number[] | null;
  warnings: Warning[];
}

/** Ends an attempt well, once: no row comes back when it ended already or is not the last attempt any more. */
export const succeedDocument = (
  tenant: string,
  id: string,
  attempt: number,
  { text, page_starts, warnings }: ReadDocument,
  chunks: number,
  now: Date,
): Statement<{ id: string }> =>
  sql<{ id: string }>`
    update documents set status = 'succeeded', num_chunks = ${chunks}, failure_reason = null, completed_at = ${now},
      updated_at = ${now}, requeues = 0, extracted_text = ${text}, page_starts = ${page_starts},
      parse_warnings = ${JSON.stringify(warnings)},
      filename = coalesce(next->>'filename', filename), format = coalesce(next->>'format', format),
      content_type = coalesce(next->>'content_type', content_type), source = coalesce(next->>'source', source),
      ingest_source = coalesce(next->>'ingest_source', ingest_source), access = coalesce(next->>'access', access),
      metadata_json = coalesce(next->'metadata_json', metadata_json),
      intake_warnings = coalesce(next->'intake_warnings', intake_warnings), content = coalesce(next_content, content),
      content_hash = coalesce(decode(next->>'content_hash', 'hex'), content_hash), next = null, next_content = null,
      last_reindexed_at = case when options->>'reindex' = 'true' then ${now}::timestamptz else last_reindexed_at end
    where tenant_id = ${tenant} and id = ${id} and attempt = ${attempt} and status = 'processing' returning id`;

/** Ends an attempt badly, once. Of content that was to replace what is found the reason says its name; another attempt reads it again. */
export const failDocument = (
  tenant: string,
  id: string,
  attempt: number,
  reason: string,
  now: Date,
): Statement<{ id: string }> =>
  sql<{ id: string }>`
    update documents set status = 'failed',
      failure_reason = coalesce((next->>'filename') || ': ', '') || ${reason}::text, completed_at = ${now}, updated_at = ${now}
    where tenant_id = ${tenant} and id = ${id} and attempt = ${attempt} and status in ('queued', 'processing') returning id`;
