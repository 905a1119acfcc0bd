import type { Ctx } from '#platform/context.ts';
import { corpusScope, getCorpus, retrievalOf } from '../corpora/service.ts';
import { embedQuery } from '../embeddings/service.ts';
import { type Candidate, encodeVector, prepareQuery, rankFound } from '../retrieval/service.ts';
import { principalsOf } from './access.ts';
import { type DocumentScope, type FoundChunk, findCandidates, findNearest } from './chunk-store.ts';
import { searchOutside } from './routed.ts';
import type { ChunkSearch, RetrievedChunk } from './schema.ts';
import { readableDocuments } from './visible.ts';

interface Row extends Candidate {
  chunk: FoundChunk;
}

type Mode = NonNullable<ChunkSearch['mode']>;
type Scored = { chunk: FoundChunk; score: number; explain: Record<string, unknown> };

/** Rows a model's nearest neighbours add to the candidates. */
const nearest = 100;

/**
 * Searches a corpus for the passages that answer a query, best first, among the documents the caller may read; here, or
 * with the engine the corpus is routed to.
 * @param input `limit` 1..50; `min_score` 0..1: leave out weaker ones; `mode` default hybrid, of local_pgvector alone;
 *   `explain`: say what each score is made of
 * @throws ApiError 404 for a corpus that is not there or that the caller may not see; the codes of the outside engines
 */
export async function retrieveChunks(
  ctx: Ctx,
  input: {
    corpus_id: string;
    query: string;
    limit?: number | undefined;
    min_score?: number | undefined;
    mode?: Mode | undefined;
    explain?: boolean | undefined;
  },
): Promise<RetrievedChunk[]> {
  const corpus = await getCorpus(ctx, input.corpus_id);
  const retrieval = retrievalOf(corpus, ctx);
  const limit = input.limit ?? retrieval.top_k_default;
  const kind = retrieval.provider === 'local_pgvector' ? 'documents' : retrieval.provider;
  const stop = ctx.app.metrics.searchDuration.startTimer({ kind });
  const found =
    retrieval.provider === 'local_pgvector'
      ? await searchHere(ctx, corpus.id, input.query, input.mode ?? 'hybrid')
      : await searchOutside(ctx, corpus, retrieval, input.query, limit);
  stop();
  const minimum = input.min_score ?? 0;
  return found
    .filter(({ score }) => score > 0 && score >= minimum)
    .slice(0, limit)
    .map(({ explain, ...chunk }) => ({
      ...chunk,
      score: Math.round(chunk.score * 10_000) / 10_000,
      ...(input.explain && explain ? { explain } : {}),
    }));
}

async function searchHere(ctx: Ctx, corpusId: string, query: string, mode: Mode): Promise<RetrievedChunk[]> {
  const documents = await readableDocuments(ctx, corpusId, principalsOf(ctx));
  if (documents?.only?.length === 0) return [];
  const found = await ranked(ctx, corpusId, query, mode, documents);
  return found.map(
    ({ chunk: { indexed: _, words: _w, trigrams: _t, cosine: _c, ...chunk }, score, explain }) => ({
      ...chunk,
      score,
      explain: { provider: 'local_pgvector', mode, ...explain },
    }),
  );
}

async function ranked(
  ctx: Ctx,
  corpusId: string,
  query: string,
  mode: Mode,
  documents: DocumentScope | undefined,
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
  return rankFound(prepared, [...rows.values()], cosines, model?.weight ?? 0).map(({ row, score }) => {
    const { words, trigrams, pairs, matched } = row.parts;
    const cosine = cosines.get(row.candidate.id);
    const explain = { relevance: row.score, words, trigrams, pairs, matched };
    return {
      chunk: row.candidate.chunk,
      score,
      explain: cosine === undefined ? explain : { ...explain, cosine, model: model!.name },
    };
  });
}

/** Nearest vectors alone, of every model that texts were embedded with, each compared with its own kind. */
async function byVectors(
  ctx: Ctx,
  corpusId: string,
  query: string,
  documents: DocumentScope | undefined,
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
      const explain = { cosine: chunk.cosine, model: model.name };
      if ((best.get(chunk.id)?.score ?? -1) < score) best.set(chunk.id, { chunk, score, explain });
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
