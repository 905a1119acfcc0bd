import { type Block, isSpace, linesOf, listMarker } from './blocks.ts';

/**
 * A stretch of the source that is not cut any further. `words` is an upper estimate of the terms it adds to a
 * lexical vector; `sentence` says that it begins where a sentence begins, so that an overlap may start there.
 */
export type Piece = { start: number; end: number; words: number; sentence: boolean };

/** What one chunk may hold, in UTF-16 code units and in words. */
export type Limits = { chars: number; words: number };

// A fixed locale: the same text must give the same chunks on every machine.
const SENTENCES = new Intl.Segmenter('en', { granularity: 'sentence' });
const WORDS = new Intl.Segmenter('en', { granularity: 'word' });

/**
 * Words between two offsets: runs of letters and digits, and half a word for each character of a script written
 * without spaces (such a character makes one bigram term, and two or three of them make a word).
 */
export function countWords(text: string, start: number, end: number): number {
  let words = 0;
  let dense = 0;
  let inside = false;
  for (let at = start; at < end; at += 1) {
    const code = text.charCodeAt(at);
    if (isDense(code)) {
      dense += 1;
      inside = false;
    } else if (isWordUnit(code)) {
      if (!inside) words += 1;
      inside = true;
    } else inside = code === 39 && inside;
  }
  return words + dense / 2;
}

function isWordUnit(code: number): boolean {
  if (code < 128)
    return (code >= 97 && code <= 122) || (code >= 65 && code <= 90) || (code >= 48 && code <= 57);
  return !isSpace(code) && (code < 0x2000 || code > 0x206f) && (code < 0x3000 || code > 0x303f);
}

/** Thai, Lao, Burmese, Khmer, kana, Han, and Han beyond the basic plane (by its high surrogates). */
function isDense(code: number): boolean {
  if (code < 0x0e00) return false;
  return (
    code <= 0x0eff ||
    (code >= 0x1000 && code <= 0x109f) ||
    (code >= 0x1780 && code <= 0x17ff) ||
    (code >= 0x3040 && code <= 0x30ff) ||
    (code >= 0x3400 && code <= 0x9fff) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xd840 && code <= 0xd888)
  );
}

/** The offsets at which the sentences of a paragraph begin; a single line break does not end a sentence. */
export function sentenceStarts(text: string, start: number, end: number): number[] {
  // Spaces for breaks, one for one, so that offsets hold: the segmenter would end a sentence at each line.
  const flat = text.slice(start, end).replace(/[\r\n\u0085\u2028\u2029]/g, ' ');
  const starts: number[] = [];
  for (const { index } of SENTENCES.segment(flat)) starts.push(start + index);
  return starts;
}

/** Cuts a block that is too large for one chunk: list items, rows and lines of code, or sentences; then smaller. */
export function* piecesOf(text: string, block: Block, limits: Limits): Generator<Piece> {
  if (block.kind === 'list')
    yield* cut(text, listItemStarts(text, block), block.end, limits, 'sentences', false);
  else if (block.kind === 'table' || block.kind === 'code') {
    yield* cut(text, lineStarts(text, block.start, block.end), block.end, limits, 'spaces', false);
  } else yield* shrink(text, block.start, block.end, limits, 'sentences');
}

type Step = 'sentences' | 'lines' | 'spaces' | 'words' | 'points';

/** Cuts a stretch that is too large at the given step; a part that is still too large goes one step down. */
function* shrink(text: string, start: number, end: number, limits: Limits, step: Step): Generator<Piece> {
  switch (step) {
    case 'sentences':
      return yield* cut(text, sentenceStarts(text, start, end), end, limits, 'lines', true);
    case 'lines':
      return yield* cut(text, lineStarts(text, start, end), end, limits, 'spaces', false);
    case 'spaces':
      return yield* cut(text, tokenStarts(text, start, end), end, limits, 'words', false);
    case 'words':
      return yield* cut(text, wordStarts(text, start, end), end, limits, 'points', false);
    case 'points':
      return yield* slabs(text, start, end, limits);
  }
}

function* cut(
  text: string,
  starts: Iterable<number>,
  end: number,
  limits: Limits,
  smaller: Step,
  sentence: boolean,
): Generator<Piece> {
  let from = -1;
  for (const start of starts) {
    if (from >= 0) yield* fit(text, from, start, limits, smaller, sentence);
    from = start;
  }
  if (from >= 0) yield* fit(text, from, end, limits, smaller, sentence);
}

function* fit(
  text: string,
  from: number,
  to: number,
  limits: Limits,
  smaller: Step,
  sentence: boolean,
): Generator<Piece> {
  let start = from;
  let end = to;
  while (start < end && isSpace(text.charCodeAt(start))) start += 1;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end -= 1;
  if (start === end) return;
  const words = countWords(text, start, end);
  if (end - start <= limits.chars && words <= limits.words) yield { start, end, words, sentence };
  else yield* shrink(text, start, end, limits, smaller);
}

function* listItemStarts(text: string, block: Block): Generator<number> {
  for (const line of linesOf(text, block.start, block.end)) {
    if (line.start === block.start || listMarker(text, line)) yield line.start;
  }
}

function* lineStarts(text: string, start: number, end: number): Generator<number> {
  for (const line of linesOf(text, start, end)) yield line.start;
}

function* tokenStarts(text: string, start: number, end: number): Generator<number> {
  let spaced = true;
  for (let at = start; at < end; at += 1) {
    const space = isSpace(text.charCodeAt(at));
    if (!space && spaced) yield at;
    spaced = space;
  }
}

function* wordStarts(text: string, start: number, end: number): Generator<number> {
  for (const { index } of WORDS.segment(text.slice(start, end))) yield start + index;
}

/** Slabs as large as a chunk: each is one word, or as many as its dense characters make. */
function* slabs(text: string, start: number, end: number, limits: Limits): Generator<Piece> {
  const dense = limits.words * 2;
  let from = start;
  let count = 0;
  for (let at = start; at < end; ) {
    const next = Math.min(end, at + ((text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1));
    count += isDense(text.charCodeAt(at)) ? 1 : 0;
    if (at > from && (next - from > limits.chars || count > dense)) {
      yield { start: from, end: at, words: countWords(text, from, at), sentence: false };
      from = at;
      count = 0;
    } else at = next;
  }
  if (from < end) yield { start: from, end, words: countWords(text, from, end), sentence: false };
}
