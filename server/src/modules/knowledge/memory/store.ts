import type { Db } from '#platform/db/database.ts';
import { isAmong, isIn, raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { RowColumns } from '../../access/policy/service.ts';
import {
  PREFERENCES,
  type PreparedQuery,
  READ_TEXTS,
  type StoredWeights,
  weightColumns,
} from '../retrieval/service.ts';
import type { NewVectors, VectorView, WordSearch } from '../vectors/service.ts';
import type { Memory } from './schema.ts';

/** A memory as it is read: the text of a sensitive one is still closed. */
export interface StoredMemory extends Memory {
  sealed: Buffer | null;
}

export const shown = sql`
  m.id, m.identity_id, m.text, m.type, m.metadata, m.metadata as meta_data, m.session_id, m.role, m.occurred_at,
  null::float8 as score, m.version, m.ttl_days, m.expires_at,
  case when m.sealed is not null then 'none'
    when exists (select 1 from memory_queue q where q.tenant_id = m.tenant_id and q.memory_id = m.id)
    then 'pending' else 'ready' end as embedding_status,
  m.sealed is not null as sensitive, m.sealed, m.derived_from, m.inference_status,
  m.created_at, m.updated_at, m.tenant_id`;

/** Those of these memories that are neither deleted nor expired at `now`. */
export const findMemories = (db: Db, ids: string[], now: Date): Promise<StoredMemory[]> =>
  db.rows(sql<StoredMemory>`
    select ${shown} from memories m
    where m.tenant_id = ${db.tenant} and m.id = any(${ids}::uuid[]) and m.deleted_at is null
      and (m.expires_at is null or m.expires_at > ${now})`);

/** A memory, kept from changing until the transaction ends. */
export const lockMemory = (tx: Db, id: string, now: Date): Promise<StoredMemory | undefined> =>
  tx.one(sql<StoredMemory>`
    select ${shown} from memories m
    where m.tenant_id = ${tx.tenant} and m.id = ${id} and m.deleted_at is null and (m.expires_at is null or m.expires_at > ${now})
    for update of m`);

/** Where what policies see of a memory is. */
export const memoryColumns: RowColumns = {
  id: { column: sql`m.id`, uuid: true },
  owner: { column: sql`m.identity_id`, uuid: true },
  type: { column: sql`m.type` },
  metadata: sql`m.metadata`,
};

export interface MemoryFilter {
  types: string[] | undefined;
  session_id?: string | undefined;
  /** What their metadata contains. */
  metadata?: Record<string, unknown> | undefined;
}

/** Newest first; one row more than `limit` when there are more. */
export const listMemories = (
  db: Db,
  filter: MemoryFilter,
  { owner, visible, after, skip, limit }: PageFrom,
  now: Date,
): Promise<StoredMemory[]> =>
  db.rows(sql<StoredMemory>`
    select ${shown} from memories m
    where m.tenant_id = ${db.tenant} and m.deleted_at is null and (m.expires_at is null or m.expires_at > ${now})
      ${owner === undefined ? raw('') : sql`and m.identity_id = ${owner}::uuid`}
      ${visible === undefined ? raw('') : sql`and ${visible}`}
      ${filter.session_id === undefined ? raw('') : sql`and m.session_id = ${filter.session_id}`}
      ${filter.metadata === undefined ? raw('') : sql`and m.metadata @> ${filter.metadata}::jsonb`}
      ${after === undefined ? raw('') : sql`and m.id < ${after[0]}::uuid`}
      and (${filter.types}::text[] is null or m.type = any(${filter.types}::text[]))
    order by m.id desc limit ${limit + 1} offset ${skip}`);

/** Puts a memory into the queue; answers the id when it was not there, which means it was counted before. */
export const enqueueMemory = (
  tenant: string,
  id: string,
  now: string,
): Statement<{ memory_id: string }> => sql<{ memory_id: string }>`
  insert into memory_queue (tenant_id, memory_id, created_at) values (${tenant}, ${id}, ${now})
  on conflict (tenant_id, memory_id) do nothing returning memory_id`;

export const deleteVectors = (tenant: string, ids: string[]): Statement =>
  sql`delete from memory_vectors where tenant_id = ${tenant} and ${isAmong(raw('memory_id'), ids)}`;

/** Answers which of these were still waiting, so not counted yet. */
export const dequeueMemories = (tenant: string, ids: string[]): Statement<{ memory_id: string }> => sql<{
  memory_id: string;
}>`
  delete from memory_queue where tenant_id = ${tenant} and ${isAmong(raw('memory_id'), ids)} returning memory_id`;

/** What these memories are counted for. */
export const listWeights = (tenant: string, ids: string[]): Statement<{ id: string } & StoredWeights> => sql<
  { id: string } & StoredWeights
>`
  select id, ${weightColumns} from memories
  where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;

export interface DeletableMemory {
  id: string;
  identity_id: string;
  type: string;
  metadata: Record<string, unknown>;
  /** Empty when it is sensitive: such a text was never counted. */
  text: string;
  sensitive: boolean;
  version: number;
  deleted_at: string | null;
}

/** The visible ones of these ids, or also those that were deleted or have expired, kept from changing until the transaction ends. */
export const lockMemories = (
  tx: Db,
  ids: string[],
  now: Date,
  withHidden: boolean,
): Promise<DeletableMemory[]> =>
  tx.rows(sql<DeletableMemory>`
    select id, identity_id, type, metadata, text, sealed is not null as sensitive, version, deleted_at from memories
    where tenant_id = ${tx.tenant} and id = any(${ids}::uuid[])
      and (${withHidden}::boolean or deleted_at is null and (expires_at is null or expires_at > ${now}))
    order by id for update`);

export interface SearchFilter extends MemoryFilter {
  /** Undefined: of all identities. */
  owner: string | undefined;
  metadata: Record<string, unknown> | undefined;
  created_from: string | undefined;
  created_to: string | undefined;
  /** Only memories of which this is true. */
  seen?: Statement | undefined;
  /** Types whose memories are to be encrypted: those that are not yet are found as if they were. */
  unsettled?: string[] | undefined;
}

/** What ranking needs of a memory. */
export interface MemoryCandidate {
  id: string;
  /** Empty for those too far down to be read. */
  text: string;
  session_id: string | null;
  role: string | null;
  /** When it happened, else when it was stored; milliseconds since the epoch. */
  at: number;
  /** Opened for this search alone. */
  sealed?: boolean;
}

export interface FoundMemory extends MemoryCandidate {
  /** States a preference; only looked at where the query wants one. */
  prefers: boolean;
  words: number;
  trigrams: number;
  /** Place in its conversation, right to two turns from the next candidate of it; beyond, three stands for any number. */
  turn: number | null;
}

// As the index has it, and not coalesce(): under row-level security the planner takes that for a function that might
// tell what it sees, and keeps it away from indexes.
export const happened = sql`case when m.occurred_at is null then m.created_at else m.occurred_at end`;

/** Longest list of candidates by words and by trigrams. */
const byWords = 200;
const byTrigrams = 100;
/** More than an answer holds; beyond it only turns that may support their neighbours are of use. */
const mostShown = 100;

/** What the caller may see at all, whatever it looks for. */
const seenBy = ({ owner, seen }: SearchFilter): Statement => sql`
  ${owner === undefined ? raw('') : sql`and m.identity_id = ${owner}::uuid`}
  ${seen === undefined ? raw('') : sql`and ${seen}`}`;

/** Each filter that is given is a condition of its own, so that the one plan of a statement can use its index. */
export const narrowed = (filter: SearchFilter): Statement => sql`
  ${seenBy(filter)}
  ${filter.session_id === undefined ? raw('') : sql`and m.session_id = ${filter.session_id}`}
  ${filter.types === undefined ? raw('') : sql`and m.type = any(${filter.types}::text[])`}
  ${filter.metadata === undefined ? raw('') : sql`and m.metadata @> ${filter.metadata}::jsonb`}
  ${filter.created_from === undefined ? raw('') : sql`and m.created_at >= ${filter.created_from}::timestamptz`}
  ${filter.created_to === undefined ? raw('') : sql`and m.created_at <= ${filter.created_to}::timestamptz`}`;

/** How a search by words looks for candidates. */
export const wordSearch = (
  tenant: string,
  prepared: PreparedQuery,
  filter: SearchFilter,
  now: Date,
): WordSearch<FoundMemory> => ({
  byWords,
  byTrigrams,
  statement: (hits) =>
    rankedCandidates(tenant, prepared, filter, now, hits ?? allHits(tenant, prepared, filter, now)),
});

export const visible = (filter: SearchFilter, now: Date): Statement => sql`
  and m.deleted_at is null and (m.expires_at is null or m.expires_at > ${now}) ${narrowed(filter)}
  ${filter.unsettled === undefined ? raw('') : sql`and m.type <> all(${filter.unsettled}::text[])`}`;

/** The best by words, and by likeness of spelling when the query needs it, among all that may be seen. */
const allHits = (tenant: string, prepared: PreparedQuery, filter: SearchFilter, now: Date): Statement => sql`
      with visible as not materialized (
        select m.id, m.words, m.trigrams from memories m where m.tenant_id = ${tenant} ${visible(filter, now)}
      ), word_hits as (
        select id, words <#> ${prepared.words}::sparsevec as distance from visible order by distance limit ${byWords}
      ), trigram_hits as (
        select id, trigrams <#> ${prepared.trigrams}::sparsevec as distance from visible
        where ${prepared.needsTrigrams}::boolean order by distance limit ${byTrigrams}
      )
      select id from word_hits where distance < 0 union select id from trigram_hits where distance < 0`;

/**
 * Candidates of a text search, with their place in their conversations: among the turns that may be seen, since others may
 * name theirs alike. Only the most promising carry their text; of the others only the numbers are needed.
 */
const rankedCandidates = (
  tenant: string,
  prepared: PreparedQuery,
  filter: SearchFilter,
  now: Date,
  hits: Statement,
): Statement<FoundMemory> => sql<FoundMemory>`
    -- Here and below row by row through the key: of how many hits there are the planner knows nothing, and of tenants that each is
    -- of middling size; it would read all of a large one.
    with hits as materialized (${hits}
    ), scored as (
      select m.id, case when m.role is not null then m.session_id end as conversation, m.session_id, m.role,
        ${happened} as happened,
        ${prepared.query.wantsPreferences}::boolean and (m.words <#> ${PREFERENCES}::sparsevec) < 0 as prefers,
        -(m.words <#> ${prepared.words}::sparsevec) as word_score, -(m.trigrams <#> ${prepared.trigrams}::sparsevec) as trigram_score
      from hits cross join lateral (
        select id, session_id, role, occurred_at, created_at, words, trigrams from memories m
        where m.tenant_id = ${tenant} and m.id = hits.id ${visible(filter, now)} offset 0
      ) m
    ), ordered as (
      select *, row_number() over (order by word_score + ${prepared.trigramWeight}::float8 * trigram_score desc) as place,
        lag(happened) over turns as happened_before, lag(id) over turns as id_before
      from scored window turns as (partition by conversation order by happened, id)
    ), counted as (
      select *, case when conversation is null or id_before is null then 0 else (
        select count(*) from (
          select 1 from memories m
          where m.tenant_id = ${tenant} and m.session_id = ordered.conversation
            and (${happened}, m.id) > (happened_before, id_before)
            and (${happened}, m.id) <= (happened, ordered.id)
            and m.deleted_at is null ${seenBy(filter)}
          limit 3
        ) as steps
      ) end as steps from ordered
    )
    select id, case when place <= ${READ_TEXTS} then (
        select m.text from memories m where m.tenant_id = ${tenant} and m.id = counted.id
      ) else '' end as text, session_id, role, extract(epoch from happened)::float8 * 1000 as at, word_score as words,
      trigram_score as trigrams, prefers,
      case when conversation is not null then (sum(steps) over (partition by conversation order by happened, id))::int end as turn
    from counted where place <= ${mostShown} or conversation is not null`;

/** What a search among vectors reads of memories, and which it may find. */
export const viewOfMemories = (filter: SearchFilter, now: Date): VectorView => ({
  columns: sql`m.id, m.text, m.session_id, m.role, extract(epoch from ${happened})::float8 * 1000 as at`,
  joins: raw(''),
  visible: visible(filter, now),
  narrow: Object.values(filter).some((given) => given !== undefined),
});

export interface WaitingMemory {
  id: string;
  text: string;
  type: string;
  version: number;
}

/** How many memories wait to be counted and embedded. */
export async function countWaiting(db: Db): Promise<number> {
  const found = await db.one(sql<{ count: number }>`
    select count(*)::int as count from memory_queue where tenant_id = ${db.tenant}`);
  return found!.count;
}

/** The oldest memories that wait to be counted and embedded, from one on, with what they are counted for. */
export const listWaiting = (
  db: Db,
  limit: number,
  after: string | undefined,
): Promise<(WaitingMemory & StoredWeights)[]> =>
  db.rows(sql<WaitingMemory & StoredWeights>`
    select m.id, m.text, m.type, m.version, ${weightColumns}
    from (
      select memory_id from memory_queue where tenant_id = ${db.tenant}
        ${after === undefined ? raw('') : sql`and memory_id > ${after}::uuid`} order by memory_id limit ${limit}
    ) q
    -- Row by row through the key: of a tenant newer than the last ANALYZE the planner thinks it has one row, and joins
    -- all with all.
    cross join lateral (
      select id, text, type, version, words, trigrams from memories where tenant_id = ${db.tenant} and id = q.memory_id offset 0
    ) m`);

const takenFromQueue = (tenant: string | undefined, rows: WaitingMemory[]) => {
  const unchanged = sql`
    select m.id from unnest(${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ version }) => version)}::int[]) as r (id, version)
    cross join lateral (
      select id, version from memories
      where tenant_id = ${tenant} and id = r.id and deleted_at is null for update
    ) m
    where m.version = r.version`;
  const [from, to] = [sql`${rows[0]!.id}::uuid`, sql`${rows.at(-1)!.id}::uuid`];
  return sql<{ memory_id: string }>`
    delete from memory_queue where tenant_id = ${tenant} and ${isIn(raw('memory_id'), from, to, unchanged)} returning memory_id`;
};

/** Takes memories from the queue that are still as they were read; answers which. @param rows in the order of their ids, one at least */
export const takeFromQueue = (tx: Db, rows: WaitingMemory[]): Promise<{ memory_id: string }[]> =>
  tx.rows(takenFromQueue(tx.tenant, rows));

/** Takes memories from the queue; fails by `notAllTaken` unless each is still as it was read. */
export const takeAllFromQueue = (tenant: string, rows: WaitingMemory[]): Statement => sql`
  with taken as (${takenFromQueue(tenant, rows)}) select 1 / (count(*) = ${rows.length})::int from taken`;

/** Whether a transaction was undone since `takeAllFromQueue` did not find all: it divided by zero. */
export const notAllTaken = (error: unknown): boolean => (error as { code?: string }).code === '22012';

/** Vectors of one model. They come into the tail, also where an older one was in a segment. */
export const insertVectors = (
  tenant: string,
  { model, ids, vectors, refusedBy }: NewVectors,
): Statement => sql`
  insert into memory_vectors (tenant_id, memory_id, model, embedding, refused_by)
  select ${tenant}, r.id, ${model}, r.embedding, r.refused_by
  from unnest(${ids}::uuid[], ${vectors}::vector[], ${refusedBy}::text[]) as r (id, embedding, refused_by)
  on conflict (tenant_id, memory_id, model) do update
    set embedding = excluded.embedding, refused_by = excluded.refused_by, segment = null`;

/** Texts of memories that are there, to be embedded anew; not of those that are encrypted, or to be. */
export const readTexts = (db: Db, ids: string[]): Promise<Omit<WaitingMemory, 'type'>[]> =>
  db.rows(sql<Omit<WaitingMemory, 'type'>>`
    select id, text, version from memories
    where tenant_id = ${db.tenant} and id = any(${ids}::uuid[]) and deleted_at is null and sealed is null
      and type not in (
        select jsonb_array_elements_text(sensitive_types) from memory_settings where tenant_id = ${db.tenant}
      )`);

/** Which memories are still as they were read, and in the clear; they stay so until the transaction ends. */
export async function lockUnchanged(
  tx: Db,
  memories: Pick<WaitingMemory, 'id' | 'version'>[],
): Promise<Set<string>> {
  const rows = await tx.rows(sql<{ id: string }>`
    select m.id from unnest(${memories.map(({ id }) => id)}::uuid[], ${memories.map(({ version }) => version)}::int[])
      as r (id, version)
    cross join lateral (
      select id, version from memories
      where tenant_id = ${tx.tenant} and id = r.id and deleted_at is null and sealed is null for update
    ) m
    where m.version = r.version`);
  return new Set(rows.map(({ id }) => id));
}

/** Tenants whose memories have waited since before `before`; for the operator. */
export const listTenantsWaiting = (operator: Db, before: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from memory_queue where created_at < ${before} and tenant_id is not null limit 1000`);

/** Tenants that have memories past their time; for the operator. */
export const listTenantsExpiring = (operator: Db, now: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from memories where expires_at <= ${now} and deleted_at is null and tenant_id is not null limit 1000`);

/** Memories past their time, kept from changing until the transaction ends. */
export const lockExpired = (tx: Db, now: Date, limit: number): Promise<DeletableMemory[]> =>
  tx.rows(sql<DeletableMemory>`
    select id, identity_id, type, metadata, text, sealed is not null as sensitive, version from memories
    where tenant_id = ${tx.tenant} and expires_at <= ${now} and deleted_at is null order by id limit ${limit} for update skip locked`);

/** Memories of an identity, deleted ones as well, kept from changing until the transaction ends. */
export const lockOwned = (
  tx: Db,
  owner: string,
  limit: number,
): Promise<(DeletableMemory & { deleted_at: string | null })[]> =>
  tx.rows(sql<DeletableMemory & { deleted_at: string | null }>`
    select id, identity_id, type, metadata, text, sealed is not null as sensitive, version, deleted_at from memories
    where tenant_id = ${tx.tenant} and identity_id = ${owner} order by id limit ${limit} for update`);
