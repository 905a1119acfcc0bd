import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Corpus } from './schema.ts';

export const insertCorpus = (corpus: Corpus): Statement<{ id: string }> => sql<{ id: string }>`
  insert into corpora (tenant_id, id, name, provider_config_json, created_at, updated_at)
  values (${corpus.tenant_id}, ${corpus.id}, ${corpus.name}, ${corpus.provider_config_json}, ${corpus.created_at}, ${corpus.updated_at})
  on conflict (tenant_id, id) do nothing returning id`;

export const findCorpus = (db: Db, id: string): Promise<Corpus | undefined> =>
  db.one(sql<Corpus>`
    select id, tenant_id, name, provider_config_json, created_at, updated_at from corpora
    where tenant_id = ${db.tenant} and id = ${id} and deleted_at is null`);

/** Newest first; one row more than `limit` when there are more. */
export const listCorpora = (db: Db, { after, skip, limit }: PageFrom): Promise<Corpus[]> =>
  db.rows(sql<Corpus>`
    select id, tenant_id, name, provider_config_json, created_at, updated_at from corpora
    where tenant_id = ${db.tenant} and deleted_at is null
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::text))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

/** A corpus, kept from changing, being added to and being deleted until the transaction ends. */
export const lockCorpus = (tenant: string, id: string): Statement<Corpus> => sql<Corpus>`
  select id, tenant_id, name, provider_config_json, created_at, updated_at from corpora
  where tenant_id = ${tenant} and id = ${id} and deleted_at is null for update`;

export const updateCorpusRow = (corpus: Corpus): Statement => sql`
  update corpora set name = ${corpus.name}, provider_config_json = ${corpus.provider_config_json}, updated_at = ${corpus.updated_at}
  where tenant_id = ${corpus.tenant_id} and id = ${corpus.id}`;

/** From now on the corpus is not there for anybody; `job` removes what it holds. */
export const markCorpusDeleted = (tenant: string, id: string, job: string, now: Date): Statement => sql`
  update corpora set deleted_at = ${now}, purge_job = ${job} where tenant_id = ${tenant} and id = ${id}`;

/** Another job for a deletion whose job has died, unless it has another already. */
export const moveToPurgeJob = (
  tenant: string,
  id: string,
  before: string,
  job: string,
): Statement<{ id: string }> => sql<{ id: string }>`
  update corpora set purge_job = ${job} where tenant_id = ${tenant} and id = ${id} and purge_job = ${before} returning id`;

/** True while a corpus that was deleted still holds something. */
export const isBeingDeleted = async (db: Db, id: string): Promise<boolean> =>
  (await db.one(sql<{ id: string }>`
    select id from corpora where tenant_id = ${db.tenant} and id = ${id} and deleted_at is not null`)) !==
  undefined;

export const deleteCorpusRow = (tenant: string, id: string): Statement<{ id: string }> => sql<{ id: string }>`
  delete from corpora where tenant_id = ${tenant} and id = ${id} and deleted_at is not null returning id`;

export interface DeletedCorpus {
  tenant_id: string;
  id: string;
  purge_job: string;
}

/** Corpora of all tenants that were deleted before `before` and are not empty yet; for the operator. */
export const listDeletedCorpora = (operator: Db, before: Date): Promise<DeletedCorpus[]> =>
  operator.rows(sql<DeletedCorpus>`
    select tenant_id, id, purge_job from corpora
    where deleted_at < ${before} and tenant_id is not null order by deleted_at limit 1000`);

/** Keeps a corpus from being deleted until the transaction ends; others may go on adding to it. */
export const holdCorpus = (tenant: string, id: string): Statement<{ id: string }> => sql<{ id: string }>`
  select id from corpora where tenant_id = ${tenant} and id = ${id} and deleted_at is null for key share`;

/**
 * Makes changes of a corpus' chunks and statistics wait for one another. Taken before a document's own lock, so that
 * two documents with words in common can not wait for each other in a circle.
 */
export const lockCorpusContent = (tenant: string, id: string): Statement<{ id: string }> => sql<{
  id: string;
}>`
  select id from corpora where tenant_id = ${tenant} and id = ${id} for no key update`;
