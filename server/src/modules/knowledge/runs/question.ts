import { analyzeQuery, type Word, wordsOf } from '../retrieval/service.ts';
import { PASSAGE_MAX_CHARS } from './units.ts';

/** A content word of the question as the passages spell it; the heavier, the more an answer must speak of it. */
export type Term = { stem: string; weight: number };

/** What decides how rare a word is: a passage's text and the stems of its title and headings. */
export type Held = { headings: string[]; text: string };

const MAX_TERMS = 64;
const GENERAL_PASSAGES = 20;
const SIMILAR_SPELLING_MIN = 0.6;
// Two swapped letters break most trigrams of a word.
const SWAPPED_LETTERS = 0.8;

const lettersOf = (bare: string): string => [...bare].sort().join('');

const countedWords = (text: string): Word[] => wordsOf(text).filter((word) => word.kind !== 'beside');
/** The stems of a text's words, in order. */
export const stemsIn = (text: string): string[] => countedWords(text).map((word) => word.stem);

const SUMMARY = new Set(stemsIn('summarize summarise summary summaries overview outline recap gist tldr'));
const SUMMARY_SPACELESS = /总结|總結|概括|摘要|要約|まとめ|요약/;
// What a summary may be asked of without naming a subject.
const WHOLE = new Set(
  stemsIn('demo corpus document documents file files text content contents everything knowledge'),
);

// Part of how a question is put rather than what it is about; and the digits of "2.0", found nearly anywhere.
const LIGHT = new Set(
  stemsIn('often long many much far soon happen happens require requires mean means work works'),
);
const LIGHT_SHARE = 0.3;

/** `isWhole`: a summary of everything, not of a subject. */
export type Question = { terms: Term[]; isSummary: boolean; isWhole: boolean };

/**
 * The question's content words with their weights: rare among the passages is heavy. Twenty pseudo-passages of
 * general text keep a word that all passages hold from weighing nothing.
 */
export function readQuestion(question: string, sources: Held[]): Question {
  const found = analyzeQuery(question).terms.slice(0, MAX_TERMS);
  const isSummary = SUMMARY_SPACELESS.test(question) || found.some(({ word }) => SUMMARY.has(word.stem));
  const asked = found.filter(({ word }) => !SUMMARY.has(word.stem) && !SUMMARY_SPACELESS.test(word.bare));
  const isWhole = isSummary && asked.every(({ word }) => WHOLE.has(word.stem));
  const vocabulary = new Map<string, Word>();
  const holders = new Map<string, number>();
  for (const source of sources) {
    const stems = new Set(source.headings);
    for (const word of countedWords(source.text.slice(0, PASSAGE_MAX_CHARS))) {
      stems.add(word.stem);
      vocabulary.set(word.stem, word);
    }
    for (const stem of stems) holders.set(stem, (holders.get(stem) ?? 0) + 1);
  }
  const terms = (isSummary ? asked : found).map(({ word, background }) => {
    const known = holders.has(word.stem) ? { stem: word.stem, likeness: 1 } : similar(word, vocabulary);
    const holding = (holders.get(known.stem) ?? 0) + GENERAL_PASSAGES * background;
    const rarity = Math.log(1 + (sources.length + GENERAL_PASSAGES - holding + 0.5) / (holding + 0.5));
    const isLight = LIGHT.has(word.stem) || /^\d{1,2}$/.test(word.bare);
    return { stem: known.stem, weight: rarity * known.likeness * (isLight ? LIGHT_SHARE : 1) };
  });
  return { terms, isSummary, isWhole };
}

/** The passages' word that a mistyped question word must mean, by shared trigrams or letters; the word itself when none. */
function similar(word: Word, vocabulary: Map<string, Word>): { stem: string; likeness: number } {
  let best = { stem: word.stem, likeness: 1 };
  if (word.bare.length < 5 || /\d/.test(word.bare) || word.trigrams.length === 0) return best;
  const trigrams = new Set(word.trigrams);
  const letters = lettersOf(word.bare);
  let most = SIMILAR_SPELLING_MIN;
  for (const other of vocabulary.values()) {
    if (other.bare.length > 64 || Math.abs(other.bare.length - word.bare.length) > 3) continue;
    let shared = 0;
    for (const trigram of other.trigrams) if (trigrams.has(trigram)) shared += 1;
    const isSwapped = other.bare[0] === word.bare[0] && lettersOf(other.bare) === letters;
    const likeness = isSwapped ? SWAPPED_LETTERS : (2 * shared) / (trigrams.size + other.trigrams.length);
    if (likeness <= most) continue;
    most = likeness;
    best = { stem: other.stem, likeness };
  }
  return best;
}
