import { type AnalyzedQuery, type CollectionStats, frequencyOf, type QueryTerm, termsOf } from './analyze.ts';
import type { Candidate, Ranked } from './rank.ts';
import { wordsIn } from './rank.ts';
import { FUNCTION_CHARACTERS } from './stopwords.ts';
import type { Word } from './words.ts';

/** Background texts that make a tenant of one row behave like one of hundreds. */
const PSEUDO_DOCUMENTS = 200;
const WINDOW_WORDS = 40;
const JUDGED_RESULTS = 3;
const SHARPNESS = 1.25;
/** Up to this many subject words a text must hold them all; beyond, ever fewer of them suffice. */
const STRICT_TERMS = 3;
const FUZZY_LETTERS = 4;
const FUZZY_FLOOR = 0.5;
const GENERAL_BACKGROUND = 0.1;

/**
 * Scores between 0 and 1 that mean the same in every tenant and search, in the order of `ranked` (best first, as
 * `rerank` or `fuse` return it): the share of the query's subject that the best of the first three texts covers,
 * scaled by relevance for the rest. A query that nothing answers gets low scores throughout. 0.4 keeps nearly all
 * right answers, 0.6 is strict. Where `fuse` recorded `support`, a meaning found without shared words counts too.
 */
export function calibrate<C extends Candidate>(
  query: AnalyzedQuery,
  stats: CollectionStats,
  ranked: readonly Ranked<C>[],
): number[] {
  const first = ranked[0]?.score ?? 0;
  if (first <= 0) return ranked.map(() => 0);
  const cover = makeCoverage(query, stats);
  const top = Math.max(
    ...ranked
      .slice(0, JUDGED_RESULTS)
      .map(({ candidate, support }) => Math.max(cover(candidate), support ?? 0)),
  );
  return ranked.map(({ score }) => (top * score) / first);
}

/** Returns a function that says which share of the query's subject (0..1) a text covers, in its best 40 words. */
export function makeCoverage(query: AnalyzedQuery, stats: CollectionStats): (candidate: Candidate) => number {
  const weights = query.terms.map((term) => weightOf(term, stats));
  const subject = query.terms.filter(({ background }) => background < GENERAL_BACKGROUND).length;
  const required = subject > STRICT_TERMS ? Math.sqrt(STRICT_TERMS / subject) : 1;
  const total = required * weights.reduce((sum, weight) => sum + weight, 0);
  const known = new Map<Word, Hit[]>();
  return (candidate) => {
    if (total <= 0) return 0;
    const hits: (Hit & { position: number })[] = [];
    let position = 0;
    for (const word of wordsIn(candidate)) {
      let found = known.get(word);
      if (!found) {
        found = hitsOf(query, word);
        known.set(word, found);
      }
      for (const hit of found) hits.push({ ...hit, position });
      if (word.kind !== 'beside') position++;
    }
    return Math.min(1, bestWindow(hits, weights) / total) ** SHARPNESS;
  };
}

interface Hit {
  term: number;
  match: number;
}

function weightOf({ word, background }: QueryTerm, stats: CollectionStats): number {
  const documents = stats.documents + PSEUDO_DOCUMENTS;
  const df = Math.min(frequencyOf(stats, word), stats.documents) + PSEUDO_DOCUMENTS * background;
  return Math.log(1 + (documents - df + 0.5) / (df + 0.5));
}

function hitsOf(query: AnalyzedQuery, word: Word): Hit[] {
  const hits: Hit[] = [];
  const same = termsOf(query, word);
  query.terms.forEach((queryTerm, term) => {
    const match = same.includes(term)
      ? 1
      : Math.max(similarity(queryTerm.word, word), half(queryTerm.word, word));
    if (match > 0) hits.push({ term, match });
  });
  return hits;
}

const HAN = /^\p{Script=Han}$/u;

/** 0.5 for a Han character that is half of a pair the query has: words of one character meet others in every sentence. */
export const half = (pair: Word, { bare }: Word): number =>
  pair.kind === 'gram' && HAN.test(bare) && pair.bare.includes(bare) && !FUNCTION_CHARACTERS.has(bare)
    ? 0.5
    : 0;

const DIGIT = /\p{N}/u;

const mayBeMisspelt = ({ kind, bare }: Word): boolean =>
  kind === 'word' && bare.length >= FUZZY_LETTERS && !DIGIT.test(bare);

/** 0, or 0.5 to 0.9, for two words of four letters or more that share half of their trigrams: typos, inflections. */
export function similarity(a: Word, b: Word): number {
  if (!mayBeMisspelt(a) || !mayBeMisspelt(b)) return 0;
  let met = 0;
  for (const trigram of a.trigrams) if (b.trigrams.includes(trigram)) met++;
  // Nearly all pairs of words end here, without a set: one trigram is never half of what four letters have.
  if (met < 2) return 0;
  const left = new Set(a.trigrams);
  const right = new Set(b.trigrams);
  let shared = 0;
  for (const trigram of left) if (right.has(trigram)) shared++;
  const dice = (2 * shared) / (left.size + right.size);
  return dice < FUZZY_FLOOR ? 0 : Math.min(1, 0.8 * dice + 0.1);
}

/** Greatest sum of weights, each term by its best match, within any WINDOW_WORDS consecutive words. */
function bestWindow(hits: readonly (Hit & { position: number })[], weights: readonly number[]): number {
  let best = 0;
  const matches = new Float64Array(weights.length);
  for (let start = 0; start < hits.length; start++) {
    if (start > 0 && hits[start]!.position === hits[start - 1]!.position) continue;
    matches.fill(0);
    let sum = 0;
    for (let i = start; i < hits.length && hits[i]!.position < hits[start]!.position + WINDOW_WORDS; i++) {
      const { term, match } = hits[i]!;
      if (match <= matches[term]!) continue;
      sum += (match - matches[term]!) * weights[term]!;
      matches[term] = match;
    }
    if (sum > best) best = sum;
  }
  return best;
}
