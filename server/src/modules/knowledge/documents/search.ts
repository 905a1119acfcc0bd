import type { Ctx } from '#platform/context.ts';
import { corpusScope, getCorpus, retrievalOf } from '../corpora/service.ts';
import { type Candidate, prepareQuery, type Ranked } from '../retrieval/service.ts';
import {
  byVectors,
  findByWords,
  findNearest,
  meaningOfQuery,
  type NearRows,
  type QueryVector,
  rankTogether,
  type Scored,
  vectorsOfQuery,
} from '../vectors/service.ts';
import { principalsOf } from './access.ts';
import { type DocumentScope, type FoundChunk, viewOfChunks, wordSearch } from './chunk-store.ts';
import { searchOutside } from './routed.ts';
import type { ChunkSearch, RetrievedChunk } from './schema.ts';
import { corpusVectors } from './vectors.ts';
import { readableDocuments, stillReadable } from './visible.ts';

interface Row extends Candidate {
  chunk: FoundChunk;
}

type Mode = NonNullable<ChunkSearch['mode']>;

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
  const minimum = input.min_score ?? 0;
  const best = found.filter(({ score }) => score > 0 && score >= minimum).slice(0, limit);
  const shown = kind === 'documents' ? await stillReadable(ctx, best) : best;
  stop();
  return shown.map(({ explain, ...chunk }) => ({
    ...chunk,
    score: Math.round(chunk.score * 10_000) / 10_000,
    ...(input.explain && explain ? { explain } : {}),
  }));
}

async function searchHere(ctx: Ctx, corpusId: string, query: string, mode: Mode): Promise<RetrievedChunk[]> {
  const documents = await readableDocuments(ctx, corpusId, principalsOf(ctx));
  if (documents?.only?.length === 0) return [];
  const found = await ranked(ctx, corpusId, query, mode, documents);
  return found.map(({ row, score }) => ({
    ...retrievedOf(row.candidate.chunk),
    score,
    explain: { provider: 'local_pgvector', mode, ...explainOf(row, mode) },
  }));
}

function retrievedOf({
  indexed: _,
  words: _w,
  trigrams: _t,
  cosine: _c,
  considered: _n,
  ...chunk
}: FoundChunk) {
  return chunk;
}

async function ranked(
  ctx: Ctx,
  corpusId: string,
  query: string,
  mode: Mode,
  documents: DocumentScope | undefined,
): Promise<Scored<Row>[]> {
  const scope = corpusVectors(corpusId);
  const view = viewOfChunks(corpusId, documents);
  const near = async (queries: Promise<QueryVector[]>) =>
    (await findNearest<FoundChunk>(ctx, scope, await queries, view, nearest)).map(rowsOf);
  if (mode === 'vector') return byVectors(await near(vectorsOfQuery(ctx, scope, query)));
  const byWords = async () => {
    const prepared = await prepareQuery(ctx, corpusScope(corpusId), query);
    const search = wordSearch(ctx.tenant, corpusId, prepared, documents);
    return { prepared, found: await findByWords(ctx, scope, prepared, view, search) };
  };
  // The two halves wait for nothing of each other, and the model's server for neither.
  const [{ prepared, found }, neighbours] = await Promise.all([
    byWords(),
    mode === 'text' ? [] : near(meaningOfQuery(ctx, scope, query)),
  ]);
  return rankTogether(ctx, prepared, found.map(rowOf), neighbours, mode === 'hybrid');
}

const rowsOf = ({ query, rows, wanted }: NearRows<FoundChunk>): NearRows<Row> => ({
  query,
  wanted,
  rows: rows.map((chunk) => ({ ...rowOf(chunk), cosine: chunk.cosine })),
});

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

/** Of vectors alone there is nothing but their likeness; a passage has no turns around it and nobody who spoke it. */
function explainOf({ score, parts }: Ranked<Row>, mode: Mode): Record<string, unknown> {
  const { model, cosine, neighbours: _n, role: _r, preference: _p, ...rest } = parts;
  const likeness = cosine === undefined ? {} : { model, cosine };
  return mode === 'vector' ? likeness : { relevance: score, ...rest, ...likeness };
}
