import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { DocumentStatus } from './schema.ts';

/** What policies look at. */
export interface DocumentOfPolicy {
  id: string;
  content_type: string;
  metadata_json: Record<string, unknown>;
  created_by: string | null;
}

/** A document as it is shown, and what the rules need to know besides. Its content is read by the job alone. */
export interface DocumentRow extends DocumentOfPolicy {
  tenant_id: string;
  corpus_id: string;
  filename: string;
  source: string;
  ingest_source: string;
  status: DocumentStatus;
  failure_reason: string | null;
  num_chunks: number | null;
  created_at: string;
  updated_at: string;
  queued_at: string | null;
  processing_started_at: string | null;
  completed_at: string | null;
  last_reindexed_at: string | null;
  last_job_id: string | null;
  attempt: number;
  options: ChunkSizes;
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
  content_type: string;
  source: string;
  ingest_source: string;
  metadata_json: Record<string, unknown>;
  content: Buffer;
  content_hash: Buffer;
  options: ChunkSizes;
}

const shown = sql`
  id, tenant_id, corpus_id, filename, content_type, source, ingest_source, metadata_json, status, failure_reason,
  case when status = 'succeeded' then num_chunks end as num_chunks, created_at, updated_at, queued_at,
  processing_started_at, completed_at, last_reindexed_at, last_job_id, attempt, options, created_by`;

export const findDocument = (db: Db, id: string): Promise<DocumentRow | undefined> =>
  db.one(sql<DocumentRow>`select ${shown} from documents where tenant_id = ${db.tenant} and id = ${id}`);

/** The same, kept from changing until the transaction ends. */
export const lockDocument = (tenant: string, id: string): Statement<DocumentRow> =>
  sql<DocumentRow>`select ${shown} from documents where tenant_id = ${tenant} and id = ${id} for update`;

export interface DocumentFilter {
  corpus_id?: string | undefined;
  status?: string | undefined;
}

/** Newest first; one row more than `limit` when there are more. */
export const listDocuments = (
  db: Db,
  filter: DocumentFilter,
  { after, skip, limit }: PageFrom,
): Promise<DocumentRow[]> =>
  db.rows(sql<DocumentRow>`
    select ${shown} from documents
    where tenant_id = ${db.tenant}
      and (${filter.corpus_id}::text is null or corpus_id = ${filter.corpus_id}::text)
      and (${filter.status}::text is null or status = ${filter.status}::text)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::text))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

/** What policies look at, of the documents of a corpus, by id. */
export const listTargets = (
  db: Db,
  corpusId: string,
  after: string,
  limit: number,
): Promise<DocumentOfPolicy[]> =>
  db.rows(sql<DocumentOfPolicy>`
    select id, content_type, metadata_json, created_by from documents
    where tenant_id = ${db.tenant} and corpus_id = ${corpusId} and id > ${after} order by id limit ${limit}`);

/** A queued document; no row comes back when the id is taken. */
export const insertDocument = (
  key: { tenant_id: string; id: string; corpus_id: string; created_by: string | undefined },
  row: DocumentContent,
  job: string,
  now: Date,
): Statement<{ id: string }> => sql<{ id: string }>`
  insert into documents (tenant_id, id, corpus_id, filename, content_type, source, ingest_source, metadata_json, content,
    content_hash, options, created_by, status, attempt, created_at, updated_at, queued_at, last_job_id)
  values (${key.tenant_id}, ${key.id}, ${key.corpus_id}, ${row.filename}, ${row.content_type}, ${row.source},
    ${row.ingest_source}, ${row.metadata_json}, ${row.content}, ${row.content_hash}, ${row.options}, ${key.created_by},
    'queued', 1, ${now}, ${now}, ${now}, ${job})
  on conflict (tenant_id, id) do nothing returning id`;

/** Puts other content into a document. What it was is found until the new content is ready. */
export const replaceContent = (tenant: string, id: string, row: DocumentContent): Statement => sql`
  update documents set filename = ${row.filename}, content_type = ${row.content_type}, source = ${row.source},
    ingest_source = ${row.ingest_source}, metadata_json = ${row.metadata_json}, content = ${row.content},
    content_hash = ${row.content_hash}
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

export const deleteDocument = (tenant: string, id: string): Statement =>
  sql`delete from documents where tenant_id = ${tenant} and id = ${id}`;

export interface ClaimedDocument extends DocumentOfPolicy {
  corpus_id: string;
  filename: string;
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
    returning id, corpus_id, filename, content_type, content, options, attempt, metadata_json, created_by`);

/** Ends an attempt well, once: no row comes back when it ended already or is not the last attempt any more. */
export const succeedDocument = (
  tenant: string,
  id: string,
  attempt: number,
  chunks: number,
  now: Date,
): Statement<{ id: string }> =>
  sql<{ id: string }>`
    update documents set status = 'succeeded', num_chunks = ${chunks}, failure_reason = null, completed_at = ${now},
      updated_at = ${now}, requeues = 0,
      last_reindexed_at = case when options->>'reindex' = 'true' then ${now}::timestamptz else last_reindexed_at end
    where tenant_id = ${tenant} and id = ${id} and attempt = ${attempt} and status = 'processing' returning id`;

/** Ends an attempt badly, once. */
export const failDocument = (
  tenant: string,
  id: string,
  attempt: number,
  reason: string,
  now: Date,
): Statement<{ id: string }> =>
  sql<{ id: string }>`
    update documents set status = 'failed', failure_reason = ${reason}, completed_at = ${now}, updated_at = ${now}
    where tenant_id = ${tenant} and id = ${id} and attempt = ${attempt} and status in ('queued', 'processing') returning id`;

export interface UnfinishedDocument {
  tenant_id: string;
  id: string;
  corpus_id: string;
  attempt: number;
  requeues: number;
  queued_at: string;
  last_job_id: string;
}

/** Documents of all tenants that have been queued or worked on since before `before`, by time; for the operator. */
export const listUnfinished = (
  operator: Db,
  before: Date,
  after: [queued_at: string, tenant: string, id: string] | undefined,
  limit: number,
): Promise<UnfinishedDocument[]> =>
  operator.rows(sql<UnfinishedDocument>`
    select tenant_id, id, corpus_id, attempt, requeues, queued_at, last_job_id from documents
    where status in ('queued', 'processing') and queued_at < ${before} and tenant_id is not null
      and (${after?.[0]}::timestamptz is null
        or (queued_at, tenant_id, id) > (${after?.[0]}::timestamptz, ${after?.[1]}::text, ${after?.[2]}::text))
    order by queued_at, tenant_id, id limit ${limit}`);

/** Queues a document again whose job has died, unless something happened to it meanwhile. */
export const requeueDocument = (
  tenant: string,
  id: string,
  attempt: number,
  job: string,
  now: Date,
): Statement<{ id: string }> =>
  sql<{ id: string }>`
    update documents set status = 'queued', attempt = attempt + 1, requeues = requeues + 1, queued_at = ${now},
      processing_started_at = null, updated_at = ${now}, last_job_id = ${job}
    where tenant_id = ${tenant} and id = ${id} and attempt = ${attempt} and status in ('queued', 'processing') returning id`;

/** Documents of each corpus that wait to be made findable. */
export const countUnfinished = (db: Db): Promise<{ corpus_id: string; count: number }[]> =>
  db.rows(sql<{ corpus_id: string; count: number }>`
    select corpus_id, count(*)::int as count from documents
    where tenant_id = ${db.tenant} and status in ('queued', 'processing') group by corpus_id order by corpus_id`);
