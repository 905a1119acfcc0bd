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
    where tenant_id = ${db.tenant} and id = ${id}`);

/** Newest first; one row more than `limit` when there are more. */
export const listCorpora = (db: Db, { after, skip, limit }: PageFrom): Promise<Corpus[]> =>
  db.rows(sql<Corpus>`
    select id, tenant_id, name, provider_config_json, created_at, updated_at from corpora
    where tenant_id = ${db.tenant}
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::text))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

/** Keeps a corpus from being deleted until the transaction ends; others may go on adding to it. */
export const holdCorpus = (tenant: string, id: string): Statement<{ id: string }> => sql<{ id: string }>`
  select id from corpora where tenant_id = ${tenant} and id = ${id} for key share`;

/**
 * Makes changes of a corpus' chunks and statistics wait for one another. Taken before a document's own lock, so that
 * two documents with words in common can not wait for each other in a circle.
 */
export const lockCorpusContent = (tenant: string, id: string): Statement<{ id: string }> => sql<{
  id: string;
}>`
  select id from corpora where tenant_id = ${tenant} and id = ${id} for no key update`;
