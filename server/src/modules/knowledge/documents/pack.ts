import type { Block } from './blocks.ts';
import { countWords, type Limits, type Piece, piecesOf, sentenceStarts } from './pieces.ts';

/** A finished stretch of the source and the headings over it. */
export type Span = { start: number; end: number; path: string[] };

/**
 * The chunk being filled. `mixed`: it holds sections of which neither lies below the other. `tail` is its last
 * paragraph; where its sentences start is found only when needed.
 */
type Open = Span & { mixed: boolean; words: number; body_chars: number; tail: Tail | null };
type Tail = { start: number; end: number; sentences: number[] | null };

/** Headings and rules on hold for the block they belong to, so that no chunk ends with a heading. */
type Waiting = { items: { block: Block; path: string[] }[]; start: number; words: number; level: number };

/** The state of filling chunks with blocks, from the first to the last. */
export type Packer = {
  text: string;
  limits: Limits;
  overlap: number;
  done: Span[];
  open: Open | null;
  waiting: Waiting | null;
};

// With less body text than this (or a twelfth of a chunk) a section is not worth a passage: it joins the next one.
const TINY_SECTION_CHARS = 100;
const RULE_LEVEL = 7;

/** `overlap` is in UTF-16 units, smaller than `limits.chars`. */
export function newPacker(text: string, limits: Limits, overlap: number): Packer {
  return { text, limits, overlap, done: [], open: null, waiting: null };
}

/** Takes the next block of the source, with the titles of the headings over it (a heading counts itself). */
export function add(packer: Packer, block: Block, path: string[]): void {
  if (block.kind === 'heading' || block.kind === 'rule') hold(packer, block, path);
  else if (packer.waiting) appendUnder(packer, packer.waiting, block, path);
  else appendBlock(packer, block, path);
}

/** Puts a block into one chunk with the headings that wait for it. */
function appendUnder(packer: Packer, waiting: Waiting, block: Block, path: string[]): void {
  if (startsChunk(packer, waiting.level)) close(packer);
  const words = waiting.words + countWords(packer.text, block.start, block.end);
  const together = fits(packer, waiting.start, block.end, words);
  const { open } = packer;
  if (open && !(together && fits(packer, open.start, block.end, open.words + words))) close(packer);
  release(packer);
  if (together) appendBlock(packer, block, path);
  // Cut although it might fit alone, so that its headings keep at least its beginning.
  else appendPieces(packer, block, path);
}

/** Closes what is open and answers all stretches in source order. */
export function finish(packer: Packer): Span[] {
  if (packer.waiting && startsChunk(packer, packer.waiting.level)) close(packer);
  release(packer);
  close(packer);
  return packer.done;
}

function fits({ limits }: Packer, start: number, end: number, words: number): boolean {
  return end - start <= limits.chars && words <= limits.words;
}

/** Whether a heading of this level opens a new chunk although there is room in the open one. */
function startsChunk({ open, limits }: Packer, level: number): boolean {
  if (!open) return false;
  if (level <= 2) return open.body_chars >= Math.min(TINY_SECTION_CHARS, limits.chars / 12);
  return level < RULE_LEVEL && open.end - open.start >= limits.chars / 2;
}

function hold(packer: Packer, block: Block, path: string[]): void {
  const words = countWords(packer.text, block.start, block.end);
  const level = block.kind === 'heading' ? block.level : RULE_LEVEL;
  const { waiting } = packer;
  if (waiting && fits(packer, waiting.start, block.end, waiting.words + words)) {
    waiting.items.push({ block, path });
    waiting.words += words;
    waiting.level = Math.min(waiting.level, level);
    return;
  }
  if (waiting) {
    close(packer);
    release(packer);
  }
  packer.waiting = { items: [{ block, path }], start: block.start, words, level };
}

function release(packer: Packer): void {
  const items = packer.waiting?.items ?? [];
  packer.waiting = null;
  for (const { block, path } of items) appendBlock(packer, block, path);
}

function appendBlock(packer: Packer, block: Block, path: string[]): void {
  const { kind, start, end } = block;
  const words = countWords(packer.text, start, end);
  if (!fits(packer, start, end, words)) {
    appendPieces(packer, block, path);
    return;
  }
  const open = append(packer, { start, end, words, sentence: true }, kind, path);
  open.tail = kind === 'paragraph' ? { start, end, sentences: null } : null;
}

function appendPieces(packer: Packer, block: Block, path: string[]): void {
  for (const piece of piecesOf(packer.text, block, packer.limits)) {
    const open = append(packer, piece, block.kind, path);
    if (block.kind !== 'paragraph' || !piece.sentence) open.tail = null;
    else if (open.tail?.sentences) open.tail.sentences.push(piece.start);
    else open.tail = { start: piece.start, end: piece.end, sentences: [piece.start] };
  }
}

/** Puts a piece into the open chunk or, where it does not fit, into a new one that repeats the last sentences. */
function append(packer: Packer, piece: Piece, kind: Block['kind'], path: string[]): Open {
  const last = packer.open;
  if (last && !fits(packer, last.start, piece.end, last.words + piece.words)) {
    close(packer);
    packer.open = path === last.path ? repeatTail(packer, last, piece) : null;
  }
  const { start, end } = piece;
  const open = packer.open ?? { start, end, path, mixed: false, words: 0, body_chars: 0, tail: null };
  packer.open = open;
  open.end = piece.end;
  open.words += piece.words;
  joinPath(open, path);
  if (kind !== 'heading' && kind !== 'rule') open.body_chars += piece.end - piece.start;
  return open;
}

function repeatTail(packer: Packer, last: Open, piece: Piece): Open | null {
  const { text, overlap } = packer;
  const { tail, end } = last;
  if (overlap === 0 || !tail) return null;
  for (const start of tail.sentences ?? sentenceStarts(text, tail.start, tail.end)) {
    // Beyond the start of the chunk before, or it would be repeated whole.
    if (end - start > overlap || start <= last.start) continue;
    const words = countWords(text, start, end);
    if (!fits(packer, start, piece.end, words + piece.words)) continue;
    return { ...last, start, words, body_chars: end - start, tail: { start, end, sentences: [start] } };
  }
  return null;
}

function close(packer: Packer): void {
  if (packer.open)
    packer.done.push({ start: packer.open.start, end: packer.open.end, path: packer.open.path });
  packer.open = null;
}

/** A chunk that goes on into a section below has the deeper path, into any other one what both paths share. */
function joinPath(open: Open, path: string[]): void {
  if (open.path === path) return;
  let shared = 0;
  while (shared < open.path.length && shared < path.length && open.path[shared] === path[shared]) shared += 1;
  if (shared === open.path.length && !open.mixed) open.path = path;
  else if (shared < open.path.length) {
    open.path = open.path.slice(0, shared);
    open.mixed = true;
  }
}
