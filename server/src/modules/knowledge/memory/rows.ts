import { isBlank } from '#platform/blank.ts';
import type { Ctx } from '#platform/context.ts';
import { invalid } from '#platform/errors.ts';
import { canonicalJson } from '#platform/http/json.ts';
import { uuidv7 } from '#platform/ids.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { analyzeDocument, encodeSparse } from '../retrieval/service.ts';
import type { Memory, MemoryCreate, MemoryUpdate } from './schema.ts';
import { type AlwaysSensitive, isSensitive } from './sensitive-types.ts';
import type { MemoryRow } from './write-store.ts';

/** How memories are read for search: also for the preferences they state. */
const analyzeMemory = (text: string) => analyzeDocument(text, { marks: true });

/** Term weights of a text in the form they are stored. */
export function weightsOf(text: string) {
  const { words, trigrams } = analyzeMemory(text);
  return { words: encodeSparse(words), trigrams: encodeSparse(trigrams) };
}

const none = encodeSparse({ dimensions: new Uint32Array(), values: new Float32Array() });
/** Of a text that no search may find. */
export const noWeights = { words: none, trigrams: none };

const dayMs = 86_400_000;

/** @throws ApiError 422 when both are given, or a time can not be kept */
export function expiryOf(
  input: Pick<MemoryCreate, 'ttl_days' | 'expires_at'>,
  created: Date,
): { ttl_days: number | null; expires_at: string | null } {
  if (input.ttl_days != null && input.expires_at != null) {
    throw invalid([{ path: '/expires_at', message: 'can not be given together with ttl_days' }]);
  }
  if (input.ttl_days != null) {
    return {
      ttl_days: input.ttl_days,
      expires_at: new Date(created.getTime() + input.ttl_days * dayMs).toISOString(),
    };
  }
  return {
    ttl_days: null,
    expires_at: input.expires_at == null ? null : storedTimestamp(input.expires_at, '/expires_at'),
  };
}

/**
 * A memory that is past its time as it is stored would be gone with the answer.
 * @throws ApiError 422 that names what was given
 */
export function refusePast({ ttl_days, expires_at }: ReturnType<typeof expiryOf>, now: Date): void {
  if (expires_at === null || Date.parse(expires_at) > now.getTime()) return;
  throw invalid([
    ttl_days === null
      ? { path: '/expires_at', message: `must be in the future; it is ${now.toISOString()}` }
      : { path: '/ttl_days', message: `ends in the past, at ${expires_at}: days count from created_at` },
  ]);
}

/** What is given under either name of metadata. @throws ApiError 422 when both are given and differ */
export function metadataOf({
  metadata,
  meta_data,
}: Pick<MemoryUpdate, 'metadata' | 'meta_data'>): Record<string, unknown> | undefined {
  if (metadata && meta_data && canonicalJson(metadata) !== canonicalJson(meta_data))
    throw invalid([{ path: '/meta_data', message: 'must be equal to metadata where both are given' }]);
  return metadata ?? meta_data;
}

/** @throws ApiError 422 for a text that is too long or blank */
export function checkText(ctx: Pick<Ctx, 'app'>, text: string): void {
  const maximum = ctx.app.config.MAX_MEMORY_SIZE;
  if (text.length > maximum)
    throw invalid([{ path: '/text', message: `must not be longer than ${maximum} characters` }]);
  if (isBlank(text)) throw invalid([{ path: '/text', message: 'must not be blank' }]);
}

/** A new memory of the caller's as a row. @throws ApiError 422 */
export function newRow(ctx: Ctx, always: AlwaysSensitive, input: MemoryCreate, now: Date): MemoryRow {
  const row = rowAsOf(ctx, always, input, now);
  refusePast(row, now);
  return row;
}

/** A memory of the caller's as a row, made at some time. A sensitive one has yet to be sealed. @throws ApiError 422 */
export function rowAsOf(ctx: Ctx, always: AlwaysSensitive, input: MemoryCreate, created: Date): MemoryRow {
  checkText(ctx, input.text);
  const sensitive = isSensitive(always, input.type, input.sensitive);
  if (sensitive && input.infer)
    throw invalid([{ path: '/infer', message: 'can not be asked of a sensitive memory' }]);
  return {
    id: uuidv7(),
    identity_id: ctx.actor.identity_id!,
    text: input.text,
    type: input.type,
    metadata: metadataOf(input) ?? {},
    session_id: input.session_id ?? null,
    role: input.role ?? null,
    occurred_at: input.occurred_at === undefined ? null : storedTimestamp(input.occurred_at, '/occurred_at'),
    version: 1,
    ...expiryOf(input, created),
    created_at: created.toISOString(),
    updated_at: created.toISOString(),
    tenant_id: ctx.tenant,
    sensitive,
    sealed: null,
    key_id: null,
    derived_from: null,
    inference_status: input.infer ? (ctx.app.models.answers ? 'pending' : 'unavailable') : null,
    ...(sensitive ? noWeights : weightsOf(input.text)),
  };
}

/** A row with its text in the clear as it is answered. */
export const resourceOf = ({
  words: _w,
  trigrams: _t,
  sealed: _s,
  key_id: _k,
  ...row
}: MemoryRow): Memory => ({
  ...row,
  meta_data: row.metadata,
  score: null,
  embedding_status: row.sensitive ? 'none' : 'pending',
});
