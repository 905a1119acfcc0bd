import { setImmediate as nextTurn } from 'node:timers/promises';
import { readQuestion, stemsIn, type Term } from './question.ts';
import { type Unit, unitsOf } from './units.ts';

/** A retrieved passage; `score` in 0..1, higher is better. The order of passages does not matter. */
export type Passage = { id: string; text: string; score: number; heading_path?: string[]; title?: string };

/** `max_sentences` is 4 unless told, 1 to 20; a list takes the room of one sentence for every three items. */
export type ExtractiveInput = {
  question: string;
  passages: Passage[];
  max_sentences?: number;
  /** What the passages are of, in our own words round them; `corpus` unless told. */
  of?: 'corpus' | 'memories';
};

/** `text` is what the reader sees; `sentences` are the quotations in it, in the order of the text. */
export type ExtractiveAnswer = { text: string; sentences: ExtractedSentence[] };

/** `score` in 0..1: how well the question's words are met. A whole list is one entry, its items on lines. */
export type ExtractedSentence = { text: string; passage_id: string; score: number };

export const NO_ANSWER = 'No passage of the corpus answers this question.';
const FRAMES = {
  corpus: {
    none: NO_ANSWER,
    direct: 'The sources say:',
    closest: 'The corpus does not answer this directly. The closest passages say:',
    summary: 'In short, from the sources:',
  },
  memories: {
    none: 'No memory of yours answers this question.',
    direct: 'From your memories:',
    closest: 'Your memories do not answer this directly. The closest say:',
    summary: 'In short, from your memories:',
  },
} as const;

const MAX_PASSAGES = 50;
const MAX_SENTENCES = 20;
const MAX_QUESTION_CHARS = 2_000;
// Shares of the question's weighted words: below the first nothing is said, below the second only with a warning.
const SUPPORT_MIN = 0.45;
const SUPPORT_DIRECT = 0.55;
// A word in a heading speaks for the text below it, in a document's title for less of it.
const HEADING_SHARE = 0.8;
const TITLE_SHARE = 0.5;
const SAME_WORDS = 0.8;
const RELATIVE_MIN = 0.7;
// A bare name as a list entry matches well and says nothing.
const FRAGMENT_STEMS = 4;

type Candidate = {
  unit: Unit;
  passage: number;
  order: number;
  stems: Set<string>;
  /** The unit's own stems and those of the headings over it. */
  near: Set<string>;
  support: number;
  score: number;
};
type Source = { passage: Passage; units: Unit[]; title: Map<string, number>; relative: number };

/**
 * Answers a question with the best supported sentences of the passages, quoted without markup, each with its
 * citation mark ([1], [2], … by order of first use). Adds no claim: only a line of frame is our own wording. Says
 * `NO_ANSWER` when too few of the question's weighty words are found together. A list that answers comes whole,
 * under its introduction or heading; a request for a summary gets the leading sentence of each document and
 * section. Pure, deterministic, linear in the length of the passages (50 of 8,000 units are read).
 */
export function answerExtractively(input: ExtractiveInput): ExtractiveAnswer {
  const limit = Math.min(MAX_SENTENCES, Math.max(1, Math.floor(input.max_sentences ?? 4)));
  const question = input.question.slice(0, MAX_QUESTION_CHARS);
  const sources = readSources(input.passages);
  const { terms, isSummary, isWhole } = readQuestion(
    question,
    sources.map(({ title, passage }) => ({ headings: [...title.keys()], text: passage.text })),
  );
  const candidates = scoreAll(
    sources,
    terms,
    /\b(?:what are|which|list|name|steps|how (?:do|does|is|are|can|to))\b/i.test(question),
  );
  const best = candidates.reduce((most, { support }) => Math.max(most, support), 0);
  const isSupported = best >= SUPPORT_MIN || isWhole;
  const frames = FRAMES[input.of ?? 'corpus'];
  const none: ExtractiveAnswer = { text: frames.none, sentences: [] };
  if (!isSupported) return none;
  if (isSummary) {
    const subject = isWhole ? candidates : candidates.filter(({ support }) => support >= SUPPORT_MIN);
    return render(sources, leads(sources, subject, limit), frames.summary, true) ?? none;
  }
  const chosen = choose(candidates, terms, limit);
  return render(sources, chosen, best < SUPPORT_DIRECT ? frames.closest : frames.direct, false) ?? none;
}

/**
 * The same answer as text deltas of a few words each; joined they are exactly `text`, and the generator returns the
 * answer. Lets other work run between deltas; when `signal` aborts it throws the signal's reason.
 */
export async function* streamExtractively(
  input: ExtractiveInput,
  options: { signal?: AbortSignal } = {},
): AsyncGenerator<string, ExtractiveAnswer, undefined> {
  options.signal?.throwIfAborted();
  const answer = answerExtractively(input);
  for (const delta of wordGroups(answer.text)) {
    await nextTurn();
    options.signal?.throwIfAborted();
    yield delta;
  }
  return answer;
}

/** About three words a group, with the space after them; a long run without spaces in groups of code points. */
function* wordGroups(text: string): Generator<string> {
  let group = '';
  let words = 0;
  let wasSpace = false;
  for (const point of text) {
    const isSpace = /\s/.test(point);
    if (wasSpace && !isSpace) words += 1;
    if ((words >= 3 && wasSpace && !isSpace) || group.length >= 40) {
      yield group;
      group = '';
      words = 0;
    }
    group += point;
    wasSpace = isSpace;
  }
  if (group !== '') yield group;
}

function readSources(passages: Passage[]): Source[] {
  const scoreOf = (passage: Passage) => (Number.isFinite(passage.score) ? Math.max(0, passage.score) : 0);
  const top = passages.toSorted((a, b) => scoreOf(b) - scoreOf(a)).slice(0, MAX_PASSAGES);
  const most = Math.max(...top.map(scoreOf), Number.MIN_VALUE);
  return top.map((passage) => {
    const title = new Map(stemsIn(passage.title ?? '').map((stem) => [stem, TITLE_SHARE]));
    for (const heading of passage.heading_path ?? []) {
      for (const stem of stemsIn(heading)) title.set(stem, HEADING_SHARE);
    }
    return { passage, units: unitsOf(passage.text), title, relative: scoreOf(passage) / most };
  });
}

function scoreAll(sources: Source[], terms: Term[], asksForList: boolean): Candidate[] {
  const total = terms.reduce((sum, { weight }) => sum + weight, 0) || 1;
  // A long question need not be met in every word.
  const needed = total * Math.min(1, Math.sqrt(3 / Math.max(1, terms.length)));
  const candidates: Candidate[] = [];
  for (const [passage, source] of sources.entries()) {
    for (const [order, unit] of source.units.entries()) {
      const stems = new Set(stemsIn(unit.text || unit.items.join(' ')));
      const context = new Set(stemsIn(unit.context));
      const near = new Set([...stems, ...context]);
      for (const [stem, share] of source.title) if (share === HEADING_SHARE) near.add(stem);
      let own = 0;
      let met = 0;
      for (const { stem, weight } of terms) {
        const isOwn = stems.has(stem);
        const around = context.has(stem) ? HEADING_SHARE : (source.title.get(stem) ?? 0);
        own += isOwn ? weight : 0;
        met += weight * (isOwn ? 1 : around);
      }
      const support = Math.min(1, met / needed);
      let score = 0.55 * support + 0.25 * Math.min(1, own / needed) + 0.12 * source.relative;
      score += 0.08 / (1 + order);
      if (unit.kind === 'list') score += asksForList ? 0.1 : 0;
      if (unit.items.length === 0 && stems.size < FRAGMENT_STEMS) score -= 0.15;
      if (unit.text === '') score -= 0.15;
      if (/^(?:It|This|These|They|That|He|She)\b/.test(unit.text)) score -= 0.05;
      candidates.push({ unit, passage, order, stems, near, support, score });
    }
  }
  return candidates;
}

function choose(candidates: Candidate[], terms: Term[], limit: number): Candidate[] {
  const ranked = candidates.filter(({ support }) => support >= SUPPORT_MIN).sort((a, b) => b.score - a.score);
  // What is added to the best must speak of the weightiest word that the best has, not only of the same product.
  const heaviest = terms.reduce<Term | null>((most, term) => {
    return ranked[0]?.near.has(term.stem) && term.weight >= (most?.weight ?? 0) ? term : most;
  }, null);
  const chosen: Candidate[] = [];
  let room = limit;
  for (const candidate of ranked) {
    if (room <= 0 || candidate.score < RELATIVE_MIN * ranked[0]!.score) break;
    if (candidate.unit.kind === 'list' && candidate.unit.items.length === 0) continue;
    if (heaviest && !candidate.near.has(heaviest.stem)) continue;
    if (chosen.some((other) => repeats(candidate, other))) continue;
    chosen.push(candidate);
    room -= candidate.unit.kind === 'list' ? Math.ceil(candidate.unit.items.length / 3) : 1;
  }
  return chosen;
}

/** The same sentence again (overlapping chunks repeat some), or a list and one of its own items. */
function repeats(a: Candidate, b: Candidate): boolean {
  if (a.passage === b.passage && a.unit.list >= 0 && a.unit.list === b.unit.list) {
    return a.unit.kind === 'list' || b.unit.kind === 'list';
  }
  const one = a.unit.kind === 'list' ? new Set(stemsIn(quote(a.unit))) : a.stems;
  const two = b.unit.kind === 'list' ? new Set(stemsIn(quote(b.unit))) : b.stems;
  const smaller = one.size < two.size ? one : two;
  const larger = smaller === one ? two : one;
  let shared = 0;
  for (const stem of smaller) if (larger.has(stem)) shared += 1;
  return smaller.size === 0 ? a.unit.text === b.unit.text : shared / smaller.size >= SAME_WORDS;
}

/** For a summary: the first sentence of each document, best passages first, then of further sections. */
function leads(sources: Source[], candidates: Candidate[], limit: number): Candidate[] {
  const first = new Map<number, Candidate>();
  for (const candidate of candidates) {
    if (candidate.unit.kind === 'sentence' && !first.has(candidate.passage))
      first.set(candidate.passage, candidate);
  }
  const ranked = [...first.values()].sort((a, b) => b.score - a.score);
  const documents = new Set<string>();
  const rest: Candidate[] = [];
  const chosen: Candidate[] = [];
  for (const candidate of ranked) {
    const { title, heading_path, id } = sources[candidate.passage]!.passage;
    const document = title ?? heading_path?.[0] ?? id;
    if (documents.has(document)) rest.push(candidate);
    else chosen.push(candidate);
    documents.add(document);
  }
  const unlike: Candidate[] = [];
  for (const candidate of [...chosen, ...rest]) {
    if (unlike.length < limit && !unlike.some((other) => repeats(candidate, other))) unlike.push(candidate);
  }
  return unlike;
}

/** Passages in the order of their best unit, units in the order of the passage; nothing when nothing was chosen. */
function render(
  sources: Source[],
  chosen: Candidate[],
  frame: string,
  asList: boolean,
): ExtractiveAnswer | undefined {
  if (chosen.length === 0) return undefined;
  const numbers = new Map<string, number>();
  const byPassage = new Map<number, Candidate[]>();
  for (const candidate of chosen) {
    const group = byPassage.get(candidate.passage) ?? [];
    byPassage.set(candidate.passage, [...group, candidate]);
  }
  const blocks: string[] = [];
  const sentences: ExtractedSentence[] = [];
  for (const [passage, group] of byPassage) {
    const { id } = sources[passage]!.passage;
    if (!numbers.has(id)) numbers.set(id, numbers.size + 1);
    const mark = `[${numbers.get(id)}]`;
    let block = '';
    let wasApart = false;
    for (const { unit, score } of group.sort((a, b) => a.order - b.order)) {
      sentences.push({ text: quote(unit), passage_id: id, score: Math.min(1, Math.max(0, score)) });
      const isApart = unit.kind === 'list' || unit.kind === 'code';
      if (block !== '') block += isApart || wasApart ? '\n\n' : ' ';
      block += cite(unit, mark);
      wasApart = isApart;
    }
    blocks.push(block);
  }
  const body = asList ? blocks.map((block) => `- ${block}`).join('\n') : blocks.join('\n\n');
  return { text: `${frame}\n\n${body}`, sentences };
}

function quote(unit: Unit): string {
  const lines = unit.kind === 'list' ? unit.items.map((item) => `- ${item}`) : unit.items;
  return [unit.text, ...lines].filter((line) => line !== '').join('\n');
}

/** The mark stands after a sentence, and after the line that introduces a list or code, or at its end where none does. */
function cite(unit: Unit, mark: string): string {
  if (unit.text === '') return `${quote(unit)}${unit.kind === 'code' ? '\n' : ' '}${mark}`;
  return [`${unit.text} ${mark}`, quote({ ...unit, text: '' })].filter((part) => part !== '').join('\n');
}
