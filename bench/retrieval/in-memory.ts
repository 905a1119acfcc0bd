/**
 * Quality and speed of the retrieval core without a database: the same vectors, candidate lists and re-rank as a
 * search, over an exact inverted index in memory.
 *
 *   node bench/retrieval/in-memory.ts [data directory]     or MANUSHYA_BENCH_DATA
 *
 * DETAILS=1 adds the BEAM question types, SIZES=0,200 sets the chunk sizes (0: whole).
 */
import { hashedEmbedding } from '../../server/src/modules/knowledge/embeddings/hashed.ts';
import {
  type AnalyzedQuery,
  analyzeDocument,
  analyzeQuery,
  buildQueryVectors,
  type CollectionStats,
  PREFERENCE_MARK,
  type Space,
} from '../../server/src/modules/knowledge/retrieval/analyze.ts';
import { type Candidate, type Ranked, rerank } from '../../server/src/modules/knowledge/retrieval/rank.ts';
import type { SparseVector } from '../../server/src/modules/knowledge/retrieval/sparse.ts';
import { findData, mean, ndcgAt10, readBeam, readScifact, recallAt } from './sets.ts';

const WORD_CANDIDATES = 200;
const TRIGRAM_CANDIDATES = 100;

interface Row extends Candidate {
  document: string;
  /** Set for a piece of a longer document. */
  minimumLength?: number;
}

interface Postings {
  rows: number[];
  values: number[];
}

export interface Index {
  rows: Row[];
  stats: CollectionStats;
  postings: Record<Space, Map<number, Postings>>;
}

/** Inverted index of both spaces; document frequency is the length of a posting list. */
export function buildIndex(rows: Row[]): Index {
  const postings: Index['postings'] = { words: new Map(), trigrams: new Map() };
  const add = (space: Space, row: number, vector: SparseVector) => {
    vector.dimensions.forEach((dimension, i) => {
      let list = postings[space].get(dimension);
      if (!list) {
        list = { rows: [], values: [] };
        postings[space].set(dimension, list);
      }
      list.rows.push(row);
      list.values.push(vector.values[i]!);
    });
  };
  rows.forEach((row, i) => {
    const document = analyzeDocument(row.text, { minimumLength: row.minimumLength, marks: true });
    row.prefers = document.words.dimensions.includes(PREFERENCE_MARK);
    add('words', i, document.words);
    add('trigrams', i, document.trigrams);
  });
  const stats = {
    documents: rows.length,
    df: (space: Space, dimension: number) => postings[space].get(dimension)?.rows.length ?? 0,
  };
  return { rows, stats, postings };
}

/** What the two SQL lists and the re-rank return. */
export function search(index: Index, query: AnalyzedQuery): Ranked<Row>[] {
  const vectors = buildQueryVectors(query, index.stats);
  const words = innerProducts(index, 'words', vectors.words);
  const trigrams = innerProducts(index, 'trigrams', vectors.trigrams);
  const chosen = new Set([...best(words, WORD_CANDIDATES), ...best(trigrams, TRIGRAM_CANDIDATES)]);
  const candidates = Array.from(chosen, (i) => ({
    ...index.rows[i]!,
    words: words[i]!,
    trigrams: trigrams[i]!,
  }));
  return rerank(query, index.stats, candidates, vectors);
}

function innerProducts(index: Index, space: Space, query: SparseVector): Float32Array {
  const sums = new Float32Array(index.rows.length);
  query.dimensions.forEach((dimension, i) => {
    const list = index.postings[space].get(dimension);
    list?.rows.forEach((row, at) => {
      sums[row]! += list.values[at]! * query.values[i]!;
    });
  });
  return sums;
}

function best(scores: Float32Array, limit: number): number[] {
  const found: number[] = [];
  scores.forEach((score, i) => {
    if (score > 0) found.push(i);
  });
  return found.sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, limit);
}

/** Sentences gathered up to `size` words, the title before each piece. */
export function chunk(title: string, text: string, size: number): string[] {
  const pieces: string[][] = [[]];
  let words = 0;
  for (const sentence of text.split(/(?<=[.!?])\s+/)) {
    const count = sentence.split(/\s+/).length;
    if (words + count > size && words > 0) {
      pieces.push([]);
      words = 0;
    }
    pieces.at(-1)!.push(sentence);
    words += count;
  }
  return pieces.map((sentences) => `${title} ${sentences.join(' ')}`);
}

/** nDCG@10 and recall@100 over documents, a document scored by its best chunk; `size` 0 keeps abstracts whole. */
export function scifact(
  data: string,
  size: number,
): { rows: number; ndcg: number; recall: number; query_ms: number } {
  const rows: Row[] = [];
  const { abstracts, topics } = readScifact(data);
  for (const { id, title, text } of abstracts) {
    const chunks = size === 0 ? [`${title} ${text}`] : chunk(title, text, size);
    chunks.forEach((piece, i) => {
      rows.push({
        id: `${id}#${i}`,
        document: id,
        text: piece,
        minimumLength: chunks.length > 1 ? size : undefined,
      });
    });
  }
  const index = buildIndex(rows);
  let [ndcg, recall] = [0, 0];
  const started = performance.now();
  for (const { query, gold } of topics) {
    const ranked = search(index, analyzeQuery(query));
    const order = [...new Set(ranked.map(({ candidate }) => candidate.document))];
    ndcg += ndcgAt10(order, gold);
    recall += recallAt(100, order, gold);
  }
  return {
    rows: rows.length,
    ndcg: ndcg / topics.length,
    recall: recall / topics.length,
    query_ms: (performance.now() - started) / topics.length,
  };
}

/** Recall by question type at each depth, and nDCG@10; `userOnly` stores the user's messages alone. */
export function beam(data: string, userOnly: boolean, depths = [5, 10, 20]) {
  const types = new Map<string, { questions: number; recall: number[]; ndcg: number }>();
  for (const { messages, questions } of readBeam(data)) {
    const rows = messages
      .filter(({ role }) => !userOnly || role === 'user')
      .map(({ id, session, role, text }, turn) => {
        return { id, document: id, text, role, session_id: session, turn, at: turn };
      });
    const index = buildIndex(rows);
    const stored = new Set(rows.map(({ id }) => id));
    for (const { type, query, gold: all } of questions) {
      const gold = all.intersection(stored);
      if (gold.size === 0) continue;
      const order = search(index, analyzeQuery(query)).map(({ candidate }) => candidate.id);
      let entry = types.get(type);
      if (!entry) {
        entry = { questions: 0, recall: depths.map(() => 0), ndcg: 0 };
        types.set(type, entry);
      }
      entry.questions++;
      depths.forEach((depth, i) => {
        entry.recall[i]! += recallAt(depth, order, gold);
      });
      entry.ndcg += ndcgAt10(order, gold);
    }
  }
  return types;
}

const figure = (value: number) => value.toFixed(3);

function reportBeam(name: string, result: ReturnType<typeof beam>, details: boolean): void {
  if (details) {
    for (const [type, { questions, recall, ndcg }] of result) {
      console.log(
        `  ${type.padEnd(26)} n=${questions} R@5/10/20 ${recall.map((r) => figure(r / questions)).join(' ')} nDCG ${figure(ndcg / questions)}`,
      );
    }
  }
  const over = (pick: (entry: { questions: number; recall: number[]; ndcg: number }) => number) =>
    figure(mean([...result.values()].map((entry) => pick(entry) / entry.questions)));
  console.log(
    `${name.padEnd(28)} R@5 ${over((e) => e.recall[0]!)} R@10 ${over((e) => e.recall[1]!)} R@20 ${over((e) => e.recall[2]!)} nDCG@10 ${over((e) => e.ndcg)}`,
  );
}

/** CPU microseconds for a text of 20 words, after warming up. */
function reportSpeed(data: string): void {
  const texts: string[] = [];
  for (const { text } of readScifact(data).abstracts) {
    const words = text.split(/\s+/);
    for (let i = 0; i + 20 <= words.length && texts.length < 40_000; i += 20) {
      texts.push(words.slice(i, i + 20).join(' '));
    }
  }
  const measure = (name: string, work: (text: string) => void) => {
    texts.slice(0, 5_000).forEach(work);
    const before = process.cpuUsage();
    texts.forEach(work);
    const { user, system } = process.cpuUsage(before);
    console.log(
      `${name.padEnd(28)} ${((user + system) / texts.length).toFixed(1)} us CPU a text of 20 words`,
    );
  };
  measure('analyzeDocument', (text) => analyzeDocument(text));
  measure('analyzeDocument, words only', (text) => analyzeDocument(text, { trigrams: false }));
  measure('hashedEmbedding', hashedEmbedding);
}

if (import.meta.main) {
  const data = findData(process.argv[2]);
  if (!data) throw new Error('give the data directory as an argument or in MANUSHYA_BENCH_DATA');
  const details = process.env.DETAILS === '1';
  for (const size of (process.env.SIZES ?? '0,200').split(',').map(Number)) {
    const { rows, ndcg, recall, query_ms } = scifact(data, size);
    console.log(
      `${`SciFact ${size === 0 ? 'whole' : `chunks of ${size}`}`.padEnd(28)} nDCG@10 ${figure(ndcg)} R@100 ${figure(recall)} rows ${rows} query ${query_ms.toFixed(1)} ms`,
    );
  }
  reportBeam('BEAM', beam(data, false), details);
  reportBeam('BEAM, user messages only', beam(data, true), details);
  reportSpeed(data);
}
