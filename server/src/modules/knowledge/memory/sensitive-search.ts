import type { Ctx } from '#platform/context.ts';
import { invalid } from '#platform/errors.ts';
import {
  analyzeDocument,
  PREFERENCE_MARK,
  type PreparedQuery,
  type SparseVector,
} from '../retrieval/service.ts';
import { dot } from '../retrieval/sparse.ts';
import { openTexts } from './encryption.ts';
import type { MemorySearch } from './schema.ts';
import { hasSensitive, listSensitive } from './sensitive-store.ts';
import { alwaysSensitive } from './sensitive-types.ts';
import type { FoundMemory, SearchFilter } from './store.ts';

/** Sensitive memories that one search opens, the newest first: some 30 ms of work. */
const mostOpened = 500;

/** @throws ApiError 422 for a search that could find none of them: they have no vectors */
export function requireWords({ sensitive, mode }: MemorySearch): void {
  if (!sensitive || mode !== 'vector') return;
  throw invalid([
    { path: '/mode', message: 'must be hybrid or text together with sensitive' },
    {
      path: '/sensitive',
      message: 'can not be given together with mode vector: such memories have no vectors',
    },
  ]);
}

/** Whether a search for the sensitive memories of an identity may find some of a type: its tenant demands that, or there are some. */
export const mayHaveSensitive = async (ctx: Ctx, owner: string, type: string): Promise<boolean> =>
  (await alwaysSensitive(ctx)).has(type) || hasSensitive(ctx.db, owner, type);

/**
 * Candidates among the sensitive memories of one identity. They are in no index, so each is opened and its words compared;
 * nothing of them is kept.
 * @throws ApiError 422 when no identity is named: only somebody's own can be looked through
 */
export async function sensitiveCandidates(
  ctx: Ctx,
  prepared: PreparedQuery,
  filter: SearchFilter,
  now: Date,
): Promise<FoundMemory[]> {
  if (filter.owner === undefined)
    throw invalid([{ path: '/sensitive', message: 'needs identity_id: whose memories are to be opened' }]);
  const rows = await listSensitive(ctx.db, filter, mostOpened, now);
  const texts = await openTexts(ctx, rows);
  const { words, trigrams } = prepared.vectors;
  return rows.flatMap(({ id, session_id, role, at }, i) => {
    const text = texts[i]!;
    const own: { words: SparseVector; trigrams: SparseVector } = analyzeDocument(text, {
      marks: true,
      secret: true,
    });
    const found = { words: dot(words, own.words), trigrams: dot(trigrams, own.trigrams) };
    const prefers = own.words.dimensions.includes(PREFERENCE_MARK);
    const isHit = found.words > 0 || (prepared.needsTrigrams && found.trigrams > 0);
    return isHit ? [{ id, text, session_id, role, at, turn: null, prefers, sealed: true, ...found }] : [];
  });
}
