import type { ModelFailure } from '#platform/models/model-error.ts';
import {
  type AnalyzedQuery,
  buildQueryVectors,
  type CollectionStats,
  frequencyOf,
  idf,
  lengthInAverages,
  type QueryVectors,
  termsOf,
  termWeight,
} from './analyze.ts';
import { type Word, wordsOf, wordsOfStored } from './words.ts';

/** Cosine, or relevance to a reranker, that what has nothing to do with the query usually has. */
export const usuallyUnrelated = 0.3;

/** A row found by either list. */
export interface Candidate {
  id: string;
  text: string;
  /** Inner product of the words column with the query; computed from the text when absent. */
  words?: number | null;
  /** Inner product of the trigrams column with the query; computed from the text when absent. */
  trigrams?: number | null;
  /** Who said it; only rows with a role are turns of a conversation. */
  role?: string | null;
  session_id?: string | null;
  /** Ordinal of the turn within its session. Without it the order of `at` among the candidates stands in. */
  turn?: number | null;
  /** The text states a preference (PREFERENCE_MARK). */
  prefers?: boolean | null;
  /** Stored encrypted: its text is shown to no outside service. */
  sealed?: boolean;
  /** Time of the turn, milliseconds since the epoch; also breaks ties, newest first. */
  at?: number | null;
}

/** How alike query and text are to an embedding model. */
export interface Likeness {
  model: string;
  cosine: number;
  /** How far the model is believed, see `learnTrust`. */
  trust?: number;
}

/** What a reranker said of a result, or why it said nothing. */
export type SecondReading = { model: string } & (
  | { relevance: number; trust: number }
  | { failure: ModelFailure }
);

/** What each part adds to `score`, and what it was judged by. */
export interface ScoreParts extends Partial<Likeness> {
  words: number;
  trigrams: number;
  pairs: number;
  neighbours: number;
  role: number;
  /** A preference, where advice is asked for. */
  preference: number;
  /** Likeness to an embedding model; absent without one. */
  meaning?: number;
  /** What a reranker said; absent where it was not asked. */
  rerank?: SecondReading;
  /** Query words whose stem the text holds, as the query spells them (folded). */
  matched: string[];
}

export interface Ranked<C extends Candidate = Candidate> {
  candidate: C;
  /** Relevance on no fixed scale: comparable within one search only. See `calibrate`. */
  score: number;
  parts: ScoreParts;
  /** How related an embedding model finds the text, 0..1; absent without such a model. See `fuse`. */
  support?: number;
}

const TRIGRAMS = 0.4;
const PAIRS = 0.4;
const PAIR_LENGTH = 0.5;
/** Share of a pair's weight when one other word stands between. */
const LOOSE_PAIR = 0.5;
const NEIGHBOURS = 0.4;
const NEIGHBOUR_DISTANCE = 2;
/** A question about what the assistant said is answered by the turn before as well. */
const ROLE = { user: 0.15, assistant: 0.075 };
/** Share of the best match that a preference counts where advice is asked for. */
const PREFERENCE = 0.3;

/** Turns further apart than this do not support one another. */
const NEIGHBOUR_GAP_MS = 30 * 60_000;

/**
 * Texts of the first so many candidates are read for pairs of words; the rest keeps its inner products. Reading is
 * nearly the whole cost of a search of long texts; reading 64 instead changed recall@10 on BEAM from 0.754 to 0.756
 * and nothing on SciFact.
 */
export const READ_TEXTS = 32;

/** Text beyond this many characters is not read when candidates are re-ranked; the index has seen all of it. */
export const READ_CHARACTERS = 32_768;

/** What the inner product of trigrams counts beside that of words. */
export const trigramWeight = ({ Z, ZG }: QueryVectors): number => (ZG > 0 ? (TRIGRAMS * Z) / ZG : 0);

/**
 * Orders candidates by relevance: words, trigrams, neighbouring query words that are neighbours in the text, support
 * from the turns around, and the author's own turns for a query in the first person. Candidates that match nothing
 * stay, with score 0. Beyond the first READ_TEXTS candidates `matched` is empty. `vectors` may be passed when they were built for the search already.
 */
export function rerank<C extends Candidate>(
  query: AnalyzedQuery,
  stats: CollectionStats,
  candidates: readonly C[],
  vectors: QueryVectors = buildQueryVectors(query, stats),
): Ranked<C>[] {
  const reader = makeReader(query, stats, vectors);
  const trigramScale = trigramWeight(vectors);
  const quick = ({ words, trigrams }: C) => (words ?? 0) + trigramScale * (trigrams ?? 0);
  const ordered = [...candidates].sort((a, b) => quick(b) - quick(a));
  const ranked = ordered.map((candidate, position): Ranked<C> => {
    const seen = position >= READ_TEXTS ? unread(candidate) : reader(candidate);
    const parts: ScoreParts = {
      words: seen.words,
      trigrams: trigramScale * seen.trigrams,
      pairs: seen.pairs,
      neighbours: 0,
      role: candidate.role && candidate.role === query.speaker ? ROLE[query.speaker] * vectors.Z : 0,
      preference: 0,
      matched: seen.matched,
    };
    return { candidate, score: 0, parts };
  });
  addNeighbours(ranked);
  if (query.wantsPreferences) addPreferences(ranked);
  for (const entry of ranked) {
    const { words, trigrams, pairs, neighbours, role, preference } = entry.parts;
    const matching = words + trigrams + pairs + neighbours;
    if (matching <= 0) entry.parts.role = 0;
    entry.score = matching > 0 ? matching + role + preference : 0;
  }
  return ranked.sort(compareRanked);
}

/** Best first; of equals the newest, then by id, so that an order never depends on how rows arrived. */
export function compareRanked(a: Ranked, b: Ranked): number {
  return (
    b.score - a.score ||
    (b.candidate.at ?? 0) - (a.candidate.at ?? 0) ||
    (a.candidate.id < b.candidate.id ? -1 : a.candidate.id > b.candidate.id ? 1 : 0)
  );
}

/** The words of a candidate that are read. */
export const wordsIn = ({ text, sealed }: Candidate): Word[] =>
  (sealed ? wordsOf : wordsOfStored)(text.slice(0, READ_CHARACTERS));

const SIEVE = 4_096;

type Reading = Pick<ScoreParts, 'words' | 'trigrams' | 'pairs' | 'matched'>;

function unread({ words, trigrams }: Candidate): Reading {
  return { words: words ?? 0, trigrams: trigrams ?? 0, pairs: 0, matched: [] };
}

/** Returns a function that scores one text against the query; what is known of a word is kept between texts. */
function makeReader(query: AnalyzedQuery, stats: CollectionStats, vectors: QueryVectors) {
  const weights = query.terms.map(({ word }) => idf(frequencyOf(stats, word), stats.documents));
  const pairs = new Map<number, number>();
  for (const [x, y] of query.pairs) pairs.set(x * query.terms.length + y, weights[x]! + weights[y]!);
  const trigramWeights = new Map<number, number>();
  // Most trigrams of a text are none of the query's: a look at a small table is cheaper than one at the map.
  const sieve = new Uint8Array(SIEVE);
  vectors.trigrams.dimensions.forEach((dimension, i) => {
    trigramWeights.set(dimension, vectors.trigrams.values[i]!);
    sieve[dimension % SIEVE] = 1;
  });
  const queryTrigramsOf = new Map<Word, number[]>();
  const knownTrigrams = (word: Word): number[] => {
    let known = queryTrigramsOf.get(word);
    if (known === undefined) {
      known = [];
      for (const trigram of word.trigrams)
        if (sieve[trigram % SIEVE] === 1 && trigramWeights.has(trigram)) known.push(trigram);
      queryTrigramsOf.set(word, known);
    }
    return known;
  };

  return (candidate: Candidate): Reading => {
    const counts = new Array<number>(query.terms.length).fill(0);
    const trigramCounts = candidate.trigrams == null ? new Map<number, number>() : undefined;
    const pairFound = new Map<number, number>();
    const meet = (x: number, y: number, share: number) => {
      const key = x * query.terms.length + y;
      if (x >= 0 && y >= 0 && pairs.has(key) && (pairFound.get(key) ?? 0) < share) pairFound.set(key, share);
    };
    let length = 0;
    let trigramLength = 0;
    let previous = -1;
    let beforeThat = -1;
    for (const word of wordsIn(candidate)) {
      const terms = termsOf(query, word);
      for (const term of terms) counts[term]!++;
      const term = terms.at(-1) ?? -1;
      if (trigramCounts) {
        trigramLength += word.trigrams.length;
        for (const trigram of knownTrigrams(word))
          trigramCounts.set(trigram, (trigramCounts.get(trigram) ?? 0) + 1);
      }
      if (word.kind === 'beside') continue;
      length++;
      if (term >= 0) {
        meet(previous, term, 1);
        if (previous < 0) meet(beforeThat, term, LOOSE_PAIR);
      }
      beforeThat = previous;
      previous = term;
    }
    let pairWeight = 0;
    for (const [pair, share] of pairFound) pairWeight += share * pairs.get(pair)!;
    let words = candidate.words ?? 0;
    if (candidate.words == null) {
      counts.forEach((tf, term) => {
        if (tf > 0) words += termWeight(tf, length, 'words') * weights[term]! * query.terms[term]!.count;
      });
    }
    let trigrams = candidate.trigrams ?? 0;
    trigramCounts?.forEach((tf, dimension) => {
      trigrams += termWeight(tf, trigramLength, 'trigrams') * trigramWeights.get(dimension)!;
    });
    const matched = query.terms.filter((_, term) => counts[term]! > 0).map(({ word }) => word.bare);
    const pairScore = (PAIRS * pairWeight) / (1 + PAIR_LENGTH * lengthInAverages(length));
    return { words, trigrams, pairs: pairScore, matched };
  };
}

/** Who asks for advice is served by what was said of likes and dislikes, though its words are seldom those of the question. */
function addPreferences(ranked: Ranked[]): void {
  const best = ranked.reduce(
    (most, { parts }) => Math.max(most, parts.words + parts.trigrams + parts.pairs),
    0,
  );
  for (const { candidate, parts } of ranked)
    if (candidate.prefers && candidate.role !== 'assistant') parts.preference = PREFERENCE * best;
}

/**
 * Consecutive turns of one conversation support each other. Independent facts must not: both rows need a role and a
 * session, and must lie close in time when times are known.
 */
function addNeighbours(ranked: Ranked[]): void {
  const sessions = new Map<string, Ranked[]>();
  for (const entry of ranked) {
    const { session_id: session, role, turn, at } = entry.candidate;
    if (session == null || role == null || (turn == null && at == null)) continue;
    const turns = sessions.get(session);
    if (turns) turns.push(entry);
    else sessions.set(session, [entry]);
  }
  for (const all of sessions.values()) {
    const turns = all.filter(({ candidate }) => candidate.turn != null);
    // What vectors alone have found has no number, and must not take it from those that words have found.
    const numbered = turns.length > 0;
    if (!numbered) turns.push(...all);
    const position = ({ candidate }: Ranked) => (numbered ? candidate.turn! : (candidate.at ?? 0));
    turns.sort((a, b) => position(a) - position(b) || (a.candidate.id < b.candidate.id ? -1 : 1));
    for (let i = 0; i < turns.length; i++) {
      for (let j = i + 1; j < turns.length && j <= i + NEIGHBOUR_DISTANCE; j++) {
        const [a, b] = [turns[i]!, turns[j]!];
        const distance = numbered ? position(b) - position(a) : j - i;
        if (distance < 1 || distance > NEIGHBOUR_DISTANCE) continue;
        if (Math.abs((a.candidate.at ?? 0) - (b.candidate.at ?? 0)) > NEIGHBOUR_GAP_MS) continue;
        a.parts.neighbours += (NEIGHBOURS * b.parts.words) / (2 * distance);
        b.parts.neighbours += (NEIGHBOURS * a.parts.words) / (2 * distance);
      }
    }
  }
}
