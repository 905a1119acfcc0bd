import type { Ctx } from '#platform/context.ts';
import { isUuid } from '#platform/ids.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { viewOf } from '../../access/policy/service.ts';
import { embedQuery } from '../embeddings/service.ts';
import { type Candidate, encodeVector, prepareQuery, type Ranked, rankFound } from '../retrieval/service.ts';
import type { Memory, MemorySearch } from './schema.ts';
import { findCandidates, findMemories, findNearest, type SearchFilter } from './store.ts';
import { memoryScope, targetOf } from './target.ts';

interface Found {
  row: Ranked;
  score: number;
}

/** Rows a model's nearest neighbours add to the candidates. */
const nearest = 100;

/**
 * Finds memories: by words with the neighbours and speakers of a conversation, by the vectors of an embedding model
 * where one is configured, or both. `score` is calibrated: 0.6 and more is what a person would call a match.
 * A caller searches its own memories; an admin the tenant's, or one identity's.
 */
export async function searchMemories(ctx: Ctx, input: MemorySearch): Promise<Memory[]> {
  const stop = ctx.app.metrics.searchDuration.startTimer({ kind: 'memory' });
  const view = await viewOf(ctx, 'memory:search');
  const mine = view.rows === 'own' || view.rows === 'none';
  const owner = mine ? ctx.actor.identity_id : input.identity_id;
  const names = input.memory_types ?? (input.type === undefined ? undefined : [input.type]);
  if (
    (mine && input.identity_id !== undefined && input.identity_id !== owner) ||
    (owner !== undefined && !isUuid(owner))
  )
    return [];
  const filter: SearchFilter = {
    owner,
    types: names,
    session_id: input.session_id,
    metadata: input.metadata,
    created_from: input.created_from && storedTimestamp(input.created_from, '/created_from'),
    created_to: input.created_to && storedTimestamp(input.created_to, '/created_to'),
  };
  const threshold = input.similarity_threshold ?? 0;
  const found = (await ranked(ctx, input, filter)).filter(({ score }) => score > 0 && score >= threshold);
  const limit = input.limit ?? 10;
  // Policies look at each row; elsewhere only what is shown is read whole.
  const each = view.rows === 'each';
  const memories = await readMemories(ctx, each ? found : found.slice(0, limit));
  const shown = found.flatMap(({ row, score }) => {
    const memory = memories.get(row.candidate.id);
    return memory && (!each || view.sees(targetOf(memory))) ? [{ memory, row, score }] : [];
  });
  stop();
  return shown.slice(0, limit).map(({ memory, row, score }) => ({
    ...memory,
    score: Math.round(score * 10_000) / 10_000,
    ...(input.explain ? { parts: { ...row.parts, relevance: row.score } } : {}),
  }));
}

async function readMemories(ctx: Ctx, found: Found[]): Promise<Map<string, Memory>> {
  if (found.length === 0) return new Map();
  const ids = found.map(({ row }) => row.candidate.id);
  return new Map((await findMemories(ctx.db, ids, new Date())).map((memory) => [memory.id, memory]));
}

async function ranked(ctx: Ctx, input: MemorySearch, filter: SearchFilter): Promise<Found[]> {
  const mode = input.mode ?? 'hybrid';
  if (mode === 'vector') return byVectors(ctx, input.query, filter);
  const now = new Date();
  const prepared = await prepareQuery(ctx, memoryScope, input.query);
  const found = await findCandidates(ctx.db, prepared, filter, now);
  const rows = new Map<string, Candidate>(found.map((memory) => [memory.id, memory]));
  const cosines = new Map<string, number>();
  // The built-in vectors repeat what the words say: only a model that knows meaning takes part in the ranking.
  const model = mode === 'hybrid' ? ctx.app.models.embeddings : undefined;
  if (model) {
    const vector = (await embedQuery(ctx, input.query)).find((known) => known.model === model)?.vector;
    if (vector) await addNearest(ctx, model.name, vector, filter, rows, cosines);
  }
  return rankFound(prepared, [...rows.values()], cosines, model?.weight ?? 0);
}

async function addNearest(
  ctx: Ctx,
  model: string,
  vector: Float32Array,
  filter: SearchFilter,
  rows: Map<string, Candidate>,
  cosines: Map<string, number>,
): Promise<void> {
  for (const { cosine, ...memory } of await findNearest(
    ctx.db,
    model,
    encodeVector(vector),
    filter,
    nearest,
    new Date(),
  )) {
    cosines.set(memory.id, cosine);
    if (!rows.has(memory.id)) rows.set(memory.id, memory);
  }
}

/** Nearest vectors alone, of every model that texts were embedded with, each compared with its own kind. */
async function byVectors(ctx: Ctx, query: string, filter: SearchFilter): Promise<Found[]> {
  const best = new Map<string, Found>();
  for (const { model, vector } of await embedQuery(ctx, query)) {
    for (const { cosine, ...memory } of await findNearest(
      ctx.db,
      model.name,
      encodeVector(vector),
      filter,
      nearest,
      new Date(),
    )) {
      const score = Math.max(0, Math.min(1, cosine));
      const parts = { words: 0, trigrams: 0, pairs: 0, neighbours: 0, role: 0, matched: [], cosine };
      if ((best.get(memory.id)?.score ?? -1) < score)
        best.set(memory.id, { row: { candidate: memory, score, parts }, score });
    }
  }
  return [...best.values()].sort((a, b) => b.score - a.score);
}
