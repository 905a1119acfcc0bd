import type { VectorTypes } from '#platform/db/binary.ts';
import { binaryArray } from '#platform/db/binary.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import { forgetAnswersAbout } from '#platform/http/idempotency.ts';
import { noWeights } from './rows.ts';
import type { Memory } from './schema.ts';

type Computed =
  | 'score'
  | 'embedding_status'
  | 'meta_data'
  | 'deleted_at'
  | 'duplicates'
  | 'contradictions'
  | 'parts';

/** A memory as it is stored: the resource without what is computed on reading, with its term weights in pgvector's binary form. */
export interface MemoryRow extends Omit<Memory, Computed> {
  words: Buffer;
  trigrams: Buffer;
  /** Of a sensitive memory its text, which is empty otherwise. */
  sealed: Buffer | null;
  key_id: string | null;
}

/** One row by its values: half the price of a list of one. */
const insertMemory = (tenant: string, row: MemoryRow): Statement[] => [
  sql`
    insert into memories (tenant_id, id, identity_id, text, type, metadata, session_id, role, occurred_at, ttl_days,
      expires_at, version, created_at, updated_at, words, trigrams)
    values (${tenant}, ${row.id}, ${row.identity_id}, ${row.text}, ${row.type}, ${row.metadata}, ${row.session_id},
      ${row.role}, ${row.occurred_at}, ${row.ttl_days}, ${row.expires_at}, 1, ${row.created_at}, ${row.created_at},
      ${row.words}, ${row.trigrams})`,
  sql`insert into memory_queue (tenant_id, memory_id, created_at) values (${tenant}, ${row.id}, ${row.created_at})`,
];

/** What few memories have, and only those pay for. */
const isSpecial = (row: MemoryRow): boolean =>
  row.sensitive ||
  row.inference_status !== null ||
  row.derived_from !== null ||
  row.updated_at !== row.created_at;

/** The rows, and their places in the queue of texts to be counted and embedded. Sensitive ones are in no queue. */
export function insertMemories(tenant: string, rows: MemoryRow[], types: VectorTypes): Statement[] {
  if (rows.some(isSpecial)) return insertSpecial(tenant, rows, types);
  if (rows.length === 1) return insertMemory(tenant, rows[0]!);
  const column = <K extends keyof MemoryRow>(name: K) => rows.map((row) => row[name]);
  return [
    sql`
      insert into memories (tenant_id, id, identity_id, text, type, metadata, session_id, role, occurred_at, ttl_days,
        expires_at, version, created_at, updated_at, words, trigrams)
      select ${tenant}, r.id, r.identity_id, r.text, r.type, r.metadata::jsonb, r.session_id, r.role, r.occurred_at,
        r.ttl_days, r.expires_at, 1, r.created_at, r.created_at, r.words, r.trigrams
      from unnest(${column('id')}::uuid[], ${column('identity_id')}::uuid[], ${column('text')}::text[],
        ${column('type')}::text[], ${rows.map(({ metadata }) => JSON.stringify(metadata))}::text[],
        ${column('session_id')}::text[], ${column('role')}::text[], ${column('occurred_at')}::timestamptz[],
        ${column('ttl_days')}::int[], ${column('expires_at')}::timestamptz[], ${column('created_at')}::timestamptz[],
        ${binaryArray(types.sparsevec, column('words'))}::sparsevec[],
        ${binaryArray(types.sparsevec, column('trigrams'))}::sparsevec[])
        as r (id, identity_id, text, type, metadata, session_id, role, occurred_at, ttl_days, expires_at, created_at,
          words, trigrams)
      returning 1`,
    sql`
      insert into memory_queue (tenant_id, memory_id, created_at)
      select ${tenant}, r.id, r.created_at
      from unnest(${column('id')}::uuid[], ${column('created_at')}::timestamptz[]) as r (id, created_at)
      returning 1`,
  ];
}

function insertSpecial(tenant: string, rows: MemoryRow[], types: VectorTypes): Statement[] {
  if (rows.some(({ sensitive, sealed }) => sensitive !== (sealed !== null)))
    throw new Error('a sensitive memory has to be sealed before it is stored');
  const column = <K extends keyof MemoryRow>(name: K) => rows.map((row) => row[name]);
  const queued = rows.filter(({ sensitive }) => !sensitive);
  return [
    sql`
      insert into memories (tenant_id, id, identity_id, text, type, metadata, session_id, role, occurred_at, ttl_days,
        expires_at, version, created_at, updated_at, words, trigrams, sealed, key_id, derived_from, inference_status)
      select ${tenant}, r.id, r.identity_id, r.text, r.type, r.metadata::jsonb, r.session_id, r.role, r.occurred_at,
        r.ttl_days, r.expires_at, r.version, r.created_at, r.updated_at, r.words, r.trigrams, r.sealed, r.key_id,
        r.derived_from::jsonb, r.inference_status
      from unnest(${column('id')}::uuid[], ${column('identity_id')}::uuid[], ${column('text')}::text[],
        ${column('type')}::text[], ${rows.map(({ metadata }) => JSON.stringify(metadata))}::text[],
        ${column('session_id')}::text[], ${column('role')}::text[], ${column('occurred_at')}::timestamptz[],
        ${column('ttl_days')}::int[], ${column('expires_at')}::timestamptz[], ${column('version')}::int[],
        ${column('created_at')}::timestamptz[], ${column('updated_at')}::timestamptz[],
        ${binaryArray(types.sparsevec, column('words'))}::sparsevec[],
        ${binaryArray(types.sparsevec, column('trigrams'))}::sparsevec[],
        ${column('sealed')}::bytea[], ${column('key_id')}::uuid[],
        ${rows.map(({ derived_from }) => derived_from && JSON.stringify(derived_from))}::text[],
        ${column('inference_status')}::text[])
        as r (id, identity_id, text, type, metadata, session_id, role, occurred_at, ttl_days, expires_at, version,
          created_at, updated_at, words, trigrams, sealed, key_id, derived_from, inference_status)
      returning 1`,
    sql`
      insert into memory_queue (tenant_id, memory_id, created_at)
      select ${tenant}, r.id, r.created_at
      from unnest(${queued.map(({ id }) => id)}::uuid[], ${queued.map(({ created_at }) => created_at)}::timestamptz[])
        as r (id, created_at)
      returning 1`,
  ];
}

export const updateMemory = (row: MemoryRow): Statement => sql`
  update memories set text = ${row.text}, type = ${row.type}, metadata = ${row.metadata}, session_id = ${row.session_id},
    role = ${row.role}, occurred_at = ${row.occurred_at}, ttl_days = ${row.ttl_days}, expires_at = ${row.expires_at},
    version = ${row.version}, updated_at = ${row.updated_at}, words = ${row.words}, trigrams = ${row.trigrams},
    sealed = ${row.sealed}, key_id = ${row.key_id}, derived_from = ${row.derived_from}
  where tenant_id = ${row.tenant_id} and id = ${row.id}`;

/** Stores texts of memories as they were sealed, in the place of what there was; nothing else of them changes. */
export const sealMemories = (
  tenant: string,
  rows: { id: string; sealed: Buffer; key_id: string }[],
): Statement => sql`
  update memories set text = '', words = ${noWeights.words}, trigrams = ${noWeights.trigrams}, sealed = r.sealed,
    key_id = r.key_id
  from unnest(${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ sealed }) => sealed)}::bytea[],
    ${rows.map(({ key_id }) => key_id)}::uuid[]) as r (id, sealed, key_id)
  where memories.tenant_id = ${tenant} and memories.id = r.id`;

/** Hides memories. `updated_at` stays: it says since when a memory is as it is. */
export const hideMemories = (tenant: string, ids: string[], now: Date): Statement =>
  sql`update memories set deleted_at = ${now} where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;

/**
 * Removes memories with all that they were, and the answers kept for repeated requests that show them, whoever sent those.
 * Statistics and vectors are for `takeOut`. What they were made from, and what was made from them, stays known: an erasure
 * follows these links over memories that are gone.
 */
export const removeMemories = (tenant: string, ids: string[]): Statement[] => [
  sql`delete from memories where tenant_id = ${tenant} and id = any(${ids}::uuid[])`,
  sql`delete from memory_versions where tenant_id = ${tenant} and memory_id = any(${ids}::uuid[])`,
  sql`delete from memory_sources where tenant_id = ${tenant} and memory_id = any(${ids}::uuid[])`,
  forgetAnswersAbout(tenant, ids),
];
