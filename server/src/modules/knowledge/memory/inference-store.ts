import type { Actor } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { Derivation, Memory } from './schema.ts';

export interface Inference {
  id: string;
  actor: Actor;
  source_ids: string[];
  request_id: string;
  created_at: string;
}

export const insertInference = (tenant: string, row: Inference): Statement => sql`
  insert into memory_inferences (tenant_id, id, actor, source_ids, request_id, created_at)
  values (${tenant}, ${row.id}, ${row.actor}, ${JSON.stringify(row.source_ids)}, ${row.request_id}, ${row.created_at})`;

export const findInference = (db: Db, id: string): Promise<Inference | undefined> =>
  db.one(sql<Inference>`
    select id, actor, source_ids, request_id, created_at from memory_inferences
    where tenant_id = ${db.tenant} and id = ${id}`);

/** Answers no row when it was done by somebody else meanwhile. */
export const takeInference = (tenant: string, id: string): Statement<{ id: string }> => sql<{ id: string }>`
  delete from memory_inferences where tenant_id = ${tenant} and id = ${id} returning id`;

/** The versions of memories that are there, in the clear; they stay until the transaction ends. */
export const keepSources = (tx: Db, ids: string[]): Promise<{ id: string; version: number }[]> =>
  tx.rows(sql<{ id: string; version: number }>`
    select id, version from memories
    where tenant_id = ${tx.tenant} and id = any(${ids}::uuid[]) and deleted_at is null and sealed is null for share`);

export const setInferenceStatus = (
  tenant: string,
  ids: string[],
  status: NonNullable<Memory['inference_status']>,
): Statement => sql`
  update memories set inference_status = ${status} where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;

export const insertDerivations = (tenant: string, sources: string[], memory: string): Statement => sql`
  insert into memory_derivations (tenant_id, source_id, memory_id)
  select ${tenant}, r.source_id, ${memory}::uuid from unnest(${sources}::uuid[]) as r (source_id)
  on conflict (tenant_id, source_id, memory_id) do nothing`;

export interface KnownFact {
  id: string;
  text: string;
  version: number;
  derived_from: Derivation | null;
}

/** What an identity remembers that shares most words with these texts, a few for each. */
export const selectKnown = (
  tenant: string,
  owner: string,
  words: Buffer,
  { without, always }: { without: string[]; always: string[] },
  limit: number,
  now: Date,
): Statement<KnownFact> => sql<KnownFact>`
  select m.id, m.text, m.version, m.derived_from from (
    select id, words <#> ${words}::sparsevec as distance from memories
    where tenant_id = ${tenant} and identity_id = ${owner} and deleted_at is null and (expires_at is null or expires_at > ${now})
      and sealed is null and id <> all(${without}::uuid[]) and type <> all(${always}::text[])
    order by distance limit ${limit}
  ) alike join memories m on m.tenant_id = ${tenant} and m.id = alike.id
  where alike.distance < 0 order by alike.distance, m.id`;

export interface WaitingInference {
  tenant_id: string;
  id: string;
}

/** Inferences that have waited since before `before`; for the operator. */
export const listWaitingInferences = (operator: Db, before: Date): Promise<WaitingInference[]> =>
  operator.rows(sql<WaitingInference>`
    select tenant_id, id from memory_inferences where created_at < ${before} and tenant_id is not null
    order by created_at limit 500`);
