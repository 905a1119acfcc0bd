import type { Ctx } from '#platform/context.ts';
import { raw, type Statement } from '#platform/db/sql.ts';
import {
  type AnalyzedQuery,
  analyzeQuery,
  buildQueryVectors,
  type CollectionStats,
  dimensionsOf,
  frequencyOf,
  PREFERENCE_MARK,
  type QueryVectors,
} from './analyze.ts';
import { calibrate } from './calibrate.ts';
import { countDimensions } from './counts.ts';
import { type DenseScores, fuse, unrelatedAmong } from './fuse.ts';
import { type Candidate, type Ranked, rerank, trigramWeight, usuallyUnrelated } from './rank.ts';
import { readAgain } from './second-reading.ts';
import { decodeDimensions, encodeSparse, type SparseVector, sparseFrom } from './sparse.ts';
import { termCounts } from './statistics.ts';
import { addChange } from './store.ts';
import { learnTrust } from './trust.ts';

export {
  type AnalyzedQuery,
  analyzeDocument,
  analyzeQuery,
  type CollectionStats,
  PREFERENCE_MARK,
} from './analyze.ts';
export { type Candidate, type Ranked, READ_TEXTS } from './rank.ts';
export { forgetTerms, removeCounts, retrievalSchedules, settleCounts } from './settle.ts';
export { encodeSparse, encodeVector, SPARSE_DIMENSIONS, type SparseVector } from './sparse.ts';
export { type Word, wordsOf } from './words.ts';

/** Inner product with it tells the texts that state a preference. */
export const PREFERENCES = encodeSparse(sparseFrom(new Map([[PREFERENCE_MARK, 1]])));

/** A query made ready for one scope of one tenant: its terms, the statistics they need, and the vectors SQL compares with. */
export interface PreparedQuery {
  text: string;
  query: AnalyzedQuery;
  stats: CollectionStats;
  vectors: QueryVectors;
  words: Buffer;
  trigrams: Buffer;
  /** A word that no text of the scope holds, or a language whose words are not stemmed: look for likeness of spelling too. */
  needsTrigrams: boolean;
  /** What the inner product of trigrams counts beside that of words. */
  trigramWeight: number;
}

/**
 * Analyses a query and loads how common its terms are in a scope (`memory`, or `corpus:` and an id).
 * At most one round trip.
 */
export async function prepareQuery(ctx: Ctx, scope: string, text: string): Promise<PreparedQuery> {
  const query = analyzeQuery(text);
  const words = [...query.terms.flatMap(({ word }) => dimensionsOf(word)), ...query.respelt.keys()];
  const trigrams = [...query.trigrams.keys()];
  const counts = await termCounts(ctx, scope, words, trigrams);
  const stats: CollectionStats = {
    documents: Math.max(counts.texts, 1),
    // What was read at different times need not add up.
    df: (space, dimension) =>
      Math.min(Math.max(0, counts[space].get(dimension) ?? 0), Math.max(counts.texts, 1)),
  };
  const vectors = buildQueryVectors(query, stats);
  return {
    text,
    query,
    stats,
    vectors,
    words: encodeSparse(vectors.words),
    trigrams: encodeSparse(vectors.trigrams),
    needsTrigrams:
      query.language !== 'english' || query.terms.some(({ word }) => frequencyOf(stats, word) === 0),
    trigramWeight: trigramWeight(vectors),
  };
}

/** What one embedding model found: the nearest texts, of as many as were asked for. */
export interface Neighbours extends Pick<DenseScores, 'model' | 'weight'> {
  nearest: { id: string; cosine: number }[];
  wanted: number;
}

/**
 * Ranks what was found, best first, with calibrated scores 0..1: by words, then with the cosines of embedding models
 * where such took part.
 * @param again whether a reranker, where there is one, reads the best of them
 */
export async function rankFound<C extends Candidate>(
  ctx: Ctx,
  prepared: PreparedQuery,
  found: C[],
  neighbours: Neighbours[],
  again: boolean,
): Promise<{ row: Ranked<C>; score: number }[]> {
  const { query, stats, text } = prepared;
  const lexical = rerank(query, stats, found, prepared.vectors);
  const evidence = neighbours.map(({ model, weight, nearest, wanted }): DenseScores => {
    const cosines = new Map(nearest.map(({ id, cosine }) => [id, cosine]));
    const unrelated = unrelatedAmong([...cosines.values()], wanted);
    return { model, weight, cosines, unrelated, trust: learnTrust(ctx, model, lexical, cosines) };
  });
  const fused = fuse(lexical, evidence);
  const order = again ? await readAgain(ctx, text, fused) : fused;
  const scores = calibrate(query, stats, order);
  return order.map((row, i) => ({ row, score: scores[i]! }));
}

/** The terms of one text. */
export type CountedText = Record<'words' | 'trigrams', Pick<SparseVector, 'dimensions'>>;

/** The columns of a stored text, for `countedAs`. */
export const weightColumns = raw('sparsevec_send(words) as words, sparsevec_send(trigrams) as trigrams');
export type StoredWeights = Record<keyof CountedText, Buffer>;

/** What a stored text was counted for, which is not always what it would be read as today. */
export const countedAs = ({ words, trigrams }: StoredWeights): CountedText => ({
  words: { dimensions: decodeDimensions(words) },
  trigrams: { dimensions: decodeDimensions(trigrams) },
});

/**
 * Statements that count texts into a scope's statistics (`sign` 1) or out of them (-1). They belong in the
 * transaction that makes the texts findable, so that each is counted exactly once.
 */
export function countTexts(tenant: string, scope: string, texts: CountedText[], sign: 1 | -1): Statement[] {
  if (texts.length === 0) return [];
  return [
    addChange(tenant, scope, {
      texts: sign * texts.length,
      words: countDimensions(
        texts.map(({ words }) => words),
        sign,
      ),
      trigrams: countDimensions(
        texts.map(({ trigrams }) => trigrams),
        sign,
      ),
    }),
  ];
}

/**
 * Scores 0..1 of passages that another engine found and put in order, on the scale of our own: the share of the query's
 * subject that the best of them covers, or how near in meaning that engine finds it, scaled for the rest.
 * @param found most relevant first; `relevance` 0..1 as that engine tells it, where it does
 */
export function scoreForeign(
  text: string,
  found: { text: string; relevance: number | undefined }[],
): number[] {
  const query = analyzeQuery(text);
  // How common the words are over there is not known: they weigh as they do in general.
  const stats: CollectionStats = { documents: 1, df: () => 0 };
  const best = Math.max(0, ...found.map(({ relevance }) => relevance ?? 0));
  const ranked = found.map(({ text: passage, relevance }, i) => ({
    candidate: { id: String(i), text: passage },
    // An engine that tells no relevance tells an order.
    score: best > 0 ? (relevance ?? 0) / best : 1 / (1 + i * rankStep),
    parts: noParts,
    support: Math.max(0, ((relevance ?? 0) - usuallyUnrelated) / (1 - usuallyUnrelated)),
  }));
  return calibrate(query, stats, ranked);
}

const rankStep = 0.1;
const noParts = { words: 0, trigrams: 0, pairs: 0, neighbours: 0, role: 0, preference: 0, matched: [] };
