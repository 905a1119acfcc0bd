/** The two collections retrieval is measured on, as their publishers give them, and the measures of a ranking. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/**
 * The directory that holds `scifact/` (BEIR: scifact.corpus.jsonl, scifact.topics.tsv, scifact.qrels) and `beam/<n>/`
 * (chat.json, probing_questions.json): the one given, else MANUSHYA_BENCH_DATA, else `../shared/data` beside the
 * repository. Undefined when it is not there.
 */
export function findData(given: string | undefined): string | undefined {
  const directory = resolve(
    given ?? process.env.MANUSHYA_BENCH_DATA ?? join(import.meta.dirname, '../../../shared/data'),
  );
  const complete = ['scifact/scifact.corpus.jsonl', 'beam'].every((name) =>
    existsSync(join(directory, name)),
  );
  return complete ? directory : undefined;
}

const linesOf = (path: string): string[] => readFileSync(path, 'utf8').split('\n').filter(Boolean);

export interface Abstract {
  id: string;
  title: string;
  text: string;
}

export interface Topic {
  query: string;
  gold: Set<string>;
}

/** 5,183 abstracts, and the 300 claims with the abstracts that bear on each. */
export function readScifact(data: string): { abstracts: Abstract[]; topics: Topic[] } {
  const path = (ending: string) => join(data, `scifact/scifact.${ending}`);
  const abstracts = linesOf(path('corpus.jsonl')).map((line) => {
    const { _id: id, title, text } = JSON.parse(line) as { _id: string; title: string; text: string };
    return { id, title, text };
  });
  const judged = new Map<string, Set<string>>();
  for (const line of linesOf(path('qrels'))) {
    const [topic, , document] = line.split(/\s+/);
    judged.set(topic!, (judged.get(topic!) ?? new Set()).add(document!));
  }
  const topics = linesOf(path('topics.tsv')).flatMap((line) => {
    const [topic, query] = line.split('\t');
    const gold = judged.get(topic!);
    return gold ? [{ query: query!, gold }] : [];
  });
  return { abstracts, topics };
}

export const FACT_TYPES = [
  'contradiction_resolution',
  'information_extraction',
  'knowledge_update',
  'multi_session_reasoning',
  'preference_following',
  'temporal_reasoning',
] as const;
export type FactType = (typeof FACT_TYPES)[number];

export interface Message {
  id: string;
  session: string;
  role: 'user' | 'assistant';
  text: string;
  /** Day the conversation takes place, at its first message only: `March-15-2024`. */
  time_anchor: string | undefined;
}

export interface Question extends Topic {
  type: FactType;
}

export interface Chat {
  name: string;
  messages: Message[];
  questions: Question[];
}

/** Ten long chats in order of their numbers, with the questions of the six fact types. */
export function readBeam(data: string): Chat[] {
  const directory = join(data, 'beam');
  return readdirSync(directory)
    .sort((a, b) => Number(a) - Number(b))
    .map((name) => ({
      name,
      messages: readMessages(join(directory, name)),
      questions: readQuestions(join(directory, name)),
    }));
}

interface StoredMessage {
  id: number;
  role: 'user' | 'assistant';
  content: string;
  time_anchor?: string | null;
}

function readMessages(directory: string): Message[] {
  const batches = JSON.parse(readFileSync(join(directory, 'chat.json'), 'utf8')) as {
    batch_number: number;
    turns: StoredMessage[][];
  }[];
  return batches.flatMap(({ batch_number, turns }) =>
    turns.flat().map(({ id, role, content, time_anchor }) => ({
      id: String(id),
      session: String(batch_number),
      role,
      // What follows the arrow names the plan the message was written from.
      text: content.replace(/\s*->->[^\n]*$/, ''),
      time_anchor: time_anchor ?? undefined,
    })),
  );
}

function readQuestions(directory: string): Question[] {
  const types = JSON.parse(readFileSync(join(directory, 'probing_questions.json'), 'utf8')) as Record<
    string,
    { question: string; source_chat_ids?: unknown }[]
  >;
  return FACT_TYPES.flatMap((type) =>
    (types[type] ?? []).map(({ question, source_chat_ids }) => ({
      type,
      query: question,
      gold: new Set(numbersIn(source_chat_ids).map(String)),
    })),
  );
}

/** All numbers anywhere inside a value: source ids are nested differently from type to type. */
function numbersIn(value: unknown): number[] {
  if (typeof value === 'number') return [value];
  return value && typeof value === 'object' ? Object.values(value).flatMap(numbersIn) : [];
}

/** The share of the right ones among the first `depth` results. */
export const recallAt = (depth: number, order: readonly string[], gold: ReadonlySet<string>): number =>
  order.slice(0, depth).filter((id) => gold.has(id)).length / gold.size;

/** nDCG@10 with gains of 0 and 1. */
export function ndcgAt10(order: readonly string[], gold: ReadonlySet<string>): number {
  let [gain, ideal] = [0, 0];
  for (let i = 0; i < 10; i++) {
    if (gold.has(order[i] ?? '')) gain += 1 / Math.log2(i + 2);
    if (i < gold.size) ideal += 1 / Math.log2(i + 2);
  }
  return gain / ideal;
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean over question types of the mean over a type's questions, and each type's own. */
export function byType<T extends { type: string; value: number }>(
  answers: readonly T[],
): { mean: number; types: Map<string, number> } {
  const types = new Map<string, number>();
  for (const [type, own] of Map.groupBy(answers, (answer) => answer.type))
    types.set(type, mean(own.map(({ value }) => value)));
  return { mean: mean([...types.values()]), types };
}
