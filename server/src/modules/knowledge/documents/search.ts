import type { Ctx } from '#platform/context.ts';
import { corpusScope, getCorpus } from '../corpora/service.ts';
import { embedQuery } from '../embeddings/service.ts';
import { type Candidate, encodeVector, prepareQuery, rankFound } from '../retrieval/service.ts';
import { type FoundChunk, findCandidates, findNearest } from './chunk-store.ts';
import type { ChunkSearch, RetrievedChunk } from './schema.ts';
import { readableDocuments } from './visible.ts';

interface Row extends Candidate {
  chunk: FoundChunk;
}

type Mode = NonNullable<ChunkSearch['mode']>;
type Scored = { chunk: FoundChunk; score: number };

/** Rows a model's nearest neighbours add to the candidates. */
const nearest = 100;

/**
 * Searches a corpus for the passages that answer a query, best first, among the documents the caller may read.
 * @param input `limit` 1..50; `min_score` 0..1: leave out weaker ones; `mode` default hybrid
 * @throws ApiError 404 for a corpus that is not there or that the caller may not see
 */
export async function retrieveChunks(
  ctx: Ctx,
  input: {
    corpus_id: string;
    query: string;
    limit?: number | undefined;
    min_score?: number | undefined;
    mode?: Mode | undefined;
  },
): Promise<RetrievedChunk[]> {
  const stop = ctx.app.metrics.searchDuration.startTimer({ kind: 'documents' });
  const corpus = await getCorpus(ctx, input.corpus_id);
  const documents = await readableDocuments(ctx, corpus.id);
  const found =
    documents?.length === 0
      ? []
      : await ranked(ctx, corpus.id, input.query, input.mode ?? 'hybrid', documents);
  const minimum = input.min_score ?? 0;
  const limit = input.limit ?? corpus.provider_config_json.retrieval.top_k_default;
  const shown = found.filter(({ score }) => score > 0 && score >= minimum).slice(0, limit);
  stop();
  return shown.map(({ chunk: { indexed: _, words: _w, trigrams: _t, cosine: _c, ...chunk }, score }) => ({
    ...chunk,
    score: Math.round(score * 10_000) / 10_000,
  }));
}

async function ranked(
  ctx: Ctx,
  corpusId: string,
  query: string,
  mode: Mode,
  documents: string[] | undefined,
): Promise<Scored[]> {
  if (mode === 'vector') return byVectors(ctx, corpusId, query, documents);
  const prepared = await prepareQuery(ctx, corpusScope(corpusId), query);
  const rows = new Map(
    (await findCandidates(ctx.db, corpusId, prepared, documents)).map((chunk) => [chunk.id, rowOf(chunk)]),
  );
  const cosines = new Map<string, number>();
  // The built-in vectors repeat what the words say: only a model that knows meaning takes part in the ranking.
  const model = mode === 'hybrid' ? ctx.app.models.embeddings : undefined;
  const vector = model && (await embedQuery(ctx, query)).find((known) => known.model === model)?.vector;
  if (model && vector) {
    for (const chunk of await findNearest(
      ctx.db,
      corpusId,
      model.name,
      encodeVector(vector),
      documents,
      nearest,
    )) {
      cosines.set(chunk.id, chunk.cosine!);
      if (!rows.has(chunk.id)) rows.set(chunk.id, rowOf(chunk));
    }
  }
  return rankFound(prepared, [...rows.values()], cosines, model?.weight ?? 0).map(({ row, score }) => ({
    chunk: row.candidate.chunk,
    score,
  }));
}

/** Nearest vectors alone, of every model that texts were embedded with, each compared with its own kind. */
async function byVectors(
  ctx: Ctx,
  corpusId: string,
  query: string,
  documents: string[] | undefined,
): Promise<Scored[]> {
  const best = new Map<string, Scored>();
  for (const { model, vector } of await embedQuery(ctx, query)) {
    for (const chunk of await findNearest(
      ctx.db,
      corpusId,
      model.name,
      encodeVector(vector),
      documents,
      nearest,
    )) {
      const score = Math.max(0, Math.min(1, chunk.cosine!));
      if ((best.get(chunk.id)?.score ?? -1) < score) best.set(chunk.id, { chunk, score });
    }
  }
  return [...best.values()].sort((a, b) => b.score - a.score || (a.chunk.id < b.chunk.id ? -1 : 1));
}

/** Re-ranking reads what was indexed: a passage is about its headings as much as about its own words. */
function rowOf(chunk: FoundChunk): Row {
  return {
    id: chunk.id,
    text: chunk.indexed,
    ...(chunk.words === undefined ? {} : { words: chunk.words }),
    ...(chunk.trigrams === undefined ? {} : { trigrams: chunk.trigrams }),
    chunk,
  };
}
