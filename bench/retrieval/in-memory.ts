/**
 * Quality and speed of the retrieval core without a database: the same vectors, candidate lists and re-rank as a
 * search, over an exact inverted index in memory.
 *
 *   node bench/retrieval/in-memory.ts [data directory]     or MANUSHYA_BENCH_DATA
 *
 * DETAILS=1 adds the BEAM question types, SIZES=0,200 sets the chunk sizes (0: whole). The directory holds `scifact/` (BEIR: scifact.corpus.jsonl, scifact.topics.tsv, scifact.qrels) and `beam/<n>/`
 * (chat.json, probing_questions.json).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hashedEmbedding } from '../../server/src/modules/knowledge/embeddings/hashed.ts';
import {
  type AnalyzedQuery,
  analyzeDocument,
  analyzeQuery,
  buildQueryVectors,
  type CollectionStats,
  type Space,
} from '../../server/src/modules/knowledge/retrieval/analyze.ts';
import { type Candidate, type Ranked, rerank } from '../../server/src/modules/knowledge/retrieval/rank.ts';
import type { SparseVector } from '../../server/src/modules/knowledge/retrieval/sparse.ts';

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
    const document = analyzeDocument(row.text, { minimumLength: row.minimumLength });
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

function readLines(path: string): string[] {
  return readFileSync(path, 'utf8').split('\n').filter(Boolean);
}

/** nDCG@10 and recall@100 over documents, a document scored by its best chunk; `size` 0 keeps abstracts whole. */
export function scifact(
  directory: string,
  size: number,
): { rows: number; ndcg: number; recall: number; query_ms: number } {
  const rows: Row[] = [];
  for (const line of readLines(join(directory, 'scifact.corpus.jsonl'))) {
    const { _id, title, text } = JSON.parse(line) as { _id: string; title: string; text: string };
    const chunks = size === 0 ? [`${title} ${text}`] : chunk(title, text, size);
    chunks.forEach((piece, i) => {
      rows.push({
        id: `${_id}#${i}`,
        document: _id,
        text: piece,
        minimumLength: chunks.length > 1 ? size : undefined,
      });
    });
  }
  const index = buildIndex(rows);
  const judged = new Map<string, Set<string>>();
  for (const line of readLines(join(directory, 'scifact.qrels'))) {
    const [topic, , document] = line.split(/\s+/);
    judged.set(topic!, (judged.get(topic!) ?? new Set()).add(document!));
  }
  let [ndcg, recall, topics] = [0, 0, 0];
  const started = performance.now();
  for (const line of readLines(join(directory, 'scifact.topics.tsv'))) {
    const [topic, text] = line.split('\t');
    const gold = judged.get(topic!);
    if (!gold) continue;
    const ranked = search(index, analyzeQuery(text!));
    const order = [...new Set(ranked.map(({ candidate }) => candidate.document))];
    const gain = order
      .slice(0, 10)
      .reduce((sum, id, i) => sum + (gold.has(id) ? 1 / Math.log2(i + 2) : 0), 0);
    let ideal = 0;
    for (let i = 0; i < Math.min(10, gold.size); i++) ideal += 1 / Math.log2(i + 2);
    ndcg += gain / ideal;
    recall += order.slice(0, 100).filter((id) => gold.has(id)).length / gold.size;
    topics++;
  }
  return {
    rows: rows.length,
    ndcg: ndcg / topics,
    recall: recall / topics,
    query_ms: (performance.now() - started) / topics,
  };
}

const FACT_TYPES = [
  'contradiction_resolution',
  'information_extraction',
  'knowledge_update',
  'multi_session_reasoning',
  'preference_following',
  'temporal_reasoning',
];

interface Message {
  id: number;
  role: string;
  content: string;
}

/** All numbers anywhere inside a value: BEAM nests source ids differently from type to type. */
function numbersIn(value: unknown): number[] {
  if (typeof value === 'number') return [value];
  return value && typeof value === 'object' ? Object.values(value).flatMap(numbersIn) : [];
}

/** Recall by question type at each depth, and nDCG@10; `userOnly` stores the user's messages alone. */
export function beam(directory: string, userOnly: boolean, depths = [5, 10, 20]) {
  const types = new Map<string, { questions: number; recall: number[]; ndcg: number }>();
  for (const chat of readdirSync(directory).sort((a, b) => Number(a) - Number(b))) {
    const index = buildIndex(readChat(join(directory, chat), userOnly));
    const questions = JSON.parse(
      readFileSync(join(directory, chat, 'probing_questions.json'), 'utf8'),
    ) as Record<string, { question: string; source_chat_ids?: unknown }[]>;
    const stored = new Set(index.rows.map(({ id }) => id));
    for (const type of FACT_TYPES) {
      for (const { question, source_chat_ids } of questions[type] ?? []) {
        const gold = new Set(
          numbersIn(source_chat_ids)
            .map(String)
            .filter((id) => stored.has(id)),
        );
        if (gold.size === 0) continue;
        const order = search(index, analyzeQuery(question)).map(({ candidate }) => candidate.id);
        let entry = types.get(type);
        if (!entry) {
          entry = { questions: 0, recall: depths.map(() => 0), ndcg: 0 };
          types.set(type, entry);
        }
        entry.questions++;
        depths.forEach((depth, i) => {
          entry.recall[i]! += order.slice(0, depth).filter((id) => gold.has(id)).length / gold.size;
        });
        let [gain, ideal] = [0, 0];
        for (let i = 0; i < 10; i++) {
          if (gold.has(order[i] ?? '')) gain += 1 / Math.log2(i + 2);
          if (i < gold.size) ideal += 1 / Math.log2(i + 2);
        }
        entry.ndcg += gain / ideal;
      }
    }
  }
  return types;
}

function readChat(directory: string, userOnly: boolean): Row[] {
  const batches = JSON.parse(readFileSync(join(directory, 'chat.json'), 'utf8')) as {
    batch_number: number;
    turns: Message[][];
  }[];
  const rows: Row[] = [];
  for (const { batch_number, turns } of batches) {
    for (const { id, role, content } of turns.flat()) {
      if (userOnly && role !== 'user') continue;
      const text = content.replace(/\s*->->[^\n]*$/, '');
      const turn = rows.length;
      rows.push({
        id: String(id),
        document: String(id),
        text,
        role,
        session_id: String(batch_number),
        turn,
        at: turn,
      });
    }
  }
  return rows;
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
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
function reportSpeed(directory: string): void {
  const texts: string[] = [];
  for (const line of readLines(join(directory, 'scifact.corpus.jsonl'))) {
    const words = (JSON.parse(line) as { text: string }).text.split(/\s+/);
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
  const directory = process.argv[2] ?? process.env.MANUSHYA_BENCH_DATA;
  if (!directory) throw new Error('give the data directory as an argument or in MANUSHYA_BENCH_DATA');
  const details = process.env.DETAILS === '1';
  for (const size of (process.env.SIZES ?? '0,200').split(',').map(Number)) {
    const { rows, ndcg, recall, query_ms } = scifact(join(directory, 'scifact'), size);
    console.log(
      `${`SciFact ${size === 0 ? 'whole' : `chunks of ${size}`}`.padEnd(28)} nDCG@10 ${figure(ndcg)} R@100 ${figure(recall)} rows ${rows} query ${query_ms.toFixed(1)} ms`,
    );
  }
  reportBeam('BEAM', beam(join(directory, 'beam'), false), details);
  reportBeam('BEAM, user messages only', beam(join(directory, 'beam'), true), details);
  reportSpeed(join(directory, 'scifact'));
}
