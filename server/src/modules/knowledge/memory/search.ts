import type { Ctx } from '#platform/context.ts';
import { isUuid } from '#platform/ids.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { viewOf } from '../../access/policy/service.ts';
import { prepareQuery, type Ranked } from '../retrieval/service.ts';
import {
  byVectors,
  findByWords,
  findNearest,
  meaningOfQuery,
  type QueryVector,
  rankTogether,
  vectorsOfQuery,
} from '../vectors/service.ts';
import { openMemories } from './encryption.ts';
import type { Memory, MemorySearch } from './schema.ts';
import { memoriesSeen } from './seen.ts';
import { requireWords, sensitiveCandidates } from './sensitive-search.ts';
import { unsettledTypes } from './sensitive-types.ts';
import {
  findMemories,
  type MemoryCandidate,
  type SearchFilter,
  viewOfMemories,
  wordSearch,
} from './store.ts';
import { targetOf } from './target.ts';
import { memoryScope, memoryVectors } from './vectors.ts';

type Found = { row: Ranked<MemoryCandidate>; score: number };

/** Rows a model's nearest neighbours add to the candidates. */
const nearest = 100;

/**
 * Finds memories: by words with the neighbours and speakers of a conversation, by the vectors of an embedding model
 * where one is configured, or both. `score` is calibrated: 0.6 and more is what a person would call a match.
 * A caller searches its own memories; an admin the tenant's, or one identity's.
 */
export async function searchMemories(ctx: Ctx, input: MemorySearch): Promise<Memory[]> {
  requireWords(input);
  const stop = ctx.app.metrics.searchDuration.startTimer({ kind: 'memory' });
  const view = await viewOf(ctx, 'memory:search');
  const owner = view.onlyOwn ? ctx.actor.identity_id : input.identity_id;
  const names = input.memory_types ?? (input.type === undefined ? undefined : [input.type]);
  if (
    view.rows === 'none' ||
    (view.onlyOwn && (owner === undefined || (input.identity_id ?? owner) !== owner)) ||
    (owner !== undefined && !isUuid(owner))
  )
    return [];
  const unsettled = await unsettledTypes(ctx);
  const filter: SearchFilter = {
    owner,
    types: names,
    session_id: input.session_id,
    metadata: input.metadata,
    created_from: input.created_from && storedTimestamp(input.created_from, '/created_from'),
    created_to: input.created_to && storedTimestamp(input.created_to, '/created_to'),
    unsettled: unsettled.length > 0 ? unsettled : undefined,
  };
  const threshold = input.similarity_threshold ?? 0;
  const each = view.rows === 'each';
  if (each) {
    const seen = await memoriesSeen(ctx, view, { ...filter, unsettled: undefined });
    if (seen === false) return [];
    if (seen !== true) filter.seen = seen;
  }
  const found = (await ranked(ctx, input, filter))
    .filter(({ score }) => score > 0 && score >= threshold)
    .slice(0, input.limit ?? 10);
  const memories = await readMemories(ctx, found);
  const shown = found.flatMap(({ row, score }) => {
    const memory = memories.get(row.candidate.id);
    // It may be another since.
    return memory && (!each || view.sees(targetOf(memory))) ? [{ memory, row, score }] : [];
  });
  stop();
  return shown.map(({ memory, row, score }) => ({
    ...memory,
    score: Math.round(score * 10_000) / 10_000,
    ...(input.explain ? { parts: { ...row.parts, relevance: row.score } } : {}),
  }));
}

async function readMemories(ctx: Ctx, found: Found[]): Promise<Map<string, Memory>> {
  if (found.length === 0) return new Map();
  const ids = found.map(({ row }) => row.candidate.id);
  const memories = await openMemories(ctx, await findMemories(ctx.db, ids, new Date()));
  return new Map(memories.map((memory) => [memory.id, memory]));
}

async function ranked(ctx: Ctx, input: MemorySearch, filter: SearchFilter): Promise<Found[]> {
  const mode = input.mode ?? 'hybrid';
  const now = new Date();
  const view = viewOfMemories(filter, now);
  const near = async (queries: Promise<QueryVector[]>) =>
    findNearest<MemoryCandidate>(ctx, memoryVectors, await queries, view, nearest);
  if (mode === 'vector') return byVectors(await near(vectorsOfQuery(ctx, memoryVectors, input.query)));
  const byWords = async () => {
    const prepared = await prepareQuery(ctx, memoryScope, input.query);
    const search = wordSearch(ctx.tenant, prepared, filter, now);
    const found: MemoryCandidate[] = await findByWords(ctx, memoryVectors, prepared, view, search);
    if (input.sensitive) found.push(...(await sensitiveCandidates(ctx, prepared, filter, now)));
    return { prepared, found };
  };
  // The two halves wait for nothing of each other, and the model's server for neither.
  const [{ prepared, found }, neighbours] = await Promise.all([
    byWords(),
    mode === 'text' ? [] : near(meaningOfQuery(ctx, memoryVectors, input.query)),
  ]);
  return rankTogether(ctx, prepared, found, neighbours, mode === 'hybrid');
}
