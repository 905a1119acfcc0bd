import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

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
