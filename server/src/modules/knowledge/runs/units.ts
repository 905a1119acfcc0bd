import {
  type Block,
  isTableDelimiter,
  linesOf,
  listMarker,
  markdownBlocks,
} from '#modules/knowledge/documents/blocks.ts';

/**
 * The smallest things an answer quotes, in plain text without Markdown marks. `context` holds the headings over it
 * inside the passage and, for an item, the sentence that introduces its list. A `list` unit stands for a whole
 * list: `text` is its introduction (or heading) and `items` are its entries; a `code` unit likewise has the lines
 * of code, fenced, as its `items`.
 */
export type Unit = {
  kind: 'sentence' | 'item' | 'list' | 'row' | 'code';
  text: string;
  context: string;
  items: string[];
  /** Items and their list share a number; -1 elsewhere. */
  list: number;
};

/** What is read of a passage, in UTF-16 units. */
export const PASSAGE_MAX_CHARS = 8_000;
const UNIT_MAX_CHARS = 400;
const LIST_MAX_ITEMS = 12;

const SENTENCES = new Intl.Segmenter('en', { granularity: 'sentence' });
const ABBREVIATION = /(?:^|[\s(])(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Fig|vs|e\.g|i\.e|cf|approx)\.\s*$/;

/** Reads a passage (Markdown or plain text, the first 8,000 UTF-16 units) as units, in order. */
export function unitsOf(text: string): Unit[] {
  const source = text.slice(0, PASSAGE_MAX_CHARS);
  const units: Unit[] = [];
  const headings: { level: number; title: string }[] = [];
  for (const block of markdownBlocks(source)) {
    if (block.kind === 'heading') {
      while (headings.length > 0 && headings.at(-1)!.level >= block.level) headings.pop();
      headings.push({ level: block.level, title: plainText(block.title) });
      continue;
    }
    const heading = headings.at(-1)?.title ?? '';
    const context = headings.map((heading) => heading.title).join(' ');
    if (block.kind === 'paragraph') addSentences(units, source.slice(block.start, block.end), context);
    else if (block.kind === 'list') addList(units, source, block, context, heading);
    else if (block.kind === 'table') addRows(units, source, block, context);
    else if (block.kind === 'code') addCode(units, source, block, context, heading);
  }
  return units;
}

/**
 * Takes Markdown and HTML marks, control characters and direction overrides out of one line of text, folds white
 * space, and turns what looks like one of our citation marks, `[3]`, into `(3)`, so that a source can not forge one.
 */
export function plainText(markdown: string): string {
  return markdown
    .replace(/[\u202a-\u202e\u2066-\u2069\u200b\ufeff]/g, '')
    .replace(/\p{Cc}+/gu, ' ')
    .replace(/!?\[([^[\]]{0,400})\]\([^()\s]{0,2000}\)/g, '$1')
    .replace(/<\/?[a-z!][^<>]{0,400}>/gi, ' ')
    .replace(/`+|\*{2,}|~~|(?<![\p{L}\p{N}_])_{1,3}(?=\S)|(?<=[^\s_])_{1,3}(?![\p{L}\p{N}_])/gu, '')
    .replace(/(?<!\S)\*(?=\S)|(?<=[^\s\\])\*(?!\S)|(?<!\\)\*(?=[.,;:!?)])|(?<=\()\*/g, '')
    .replace(/\\([!-/:-@[-`{-~])/g, '$1')
    .replace(/\[(\d{1,4})\]/g, '($1)')
    .replace(/\s+/g, ' ')
    .trim();
}

function addSentences(units: Unit[], paragraph: string, context: string): void {
  const flat = paragraph.replace(/\s*[\r\n]+\s*(?:>\s?)*/g, joinLines).replace(/^(?:>\s?)+/, '');
  let pending = '';
  for (const { segment } of SENTENCES.segment(flat)) {
    pending += segment;
    if (ABBREVIATION.test(pending.slice(-12))) continue;
    addUnit(units, 'sentence', pending, context);
    pending = '';
  }
  addUnit(units, 'sentence', pending, context);
}

/** A line break is a space, except between two characters of a script that uses none. */
function joinLines(_match: string, at: number, whole: string): string {
  return /[\u3000-\u9fff\uff00-\uffef]/.test(whole.charAt(at - 1)) ? '' : ' ';
}

function addUnit(units: Unit[], kind: Unit['kind'], raw: string, context: string, list = -1): void {
  const text = clip(plainText(raw));
  if (/[\p{L}\p{N}]/u.test(text)) units.push({ kind, text, context, items: [], list });
}

function addList(units: Unit[], source: string, block: Block, context: string, heading: string): void {
  const introduced = takeIntroduction(units);
  const text = introduced || (heading && `${heading}:`);
  const number = units.length;
  const list: Unit = { kind: 'list', text, context, items: [], list: number };
  units.push(list);
  for (const raw of itemsOf(source, block)) {
    addUnit(units, 'item', raw, `${context} ${introduced}`, number);
  }
  const entries = units.slice(number + 1).map((unit) => unit.text);
  list.items = entries.slice(0, LIST_MAX_ITEMS);
  if (entries.length > LIST_MAX_ITEMS)
    list.items.push(`… (${entries.length - LIST_MAX_ITEMS} more in the source)`);
}

function itemsOf(source: string, block: Block): string[] {
  const items: string[] = [];
  for (const line of linesOf(source, block.start, block.end)) {
    const text = source.slice(line.first, line.last);
    if (items.length === 0 || listMarker(source, line)) {
      items.push(text.replace(/^(?:[-*+]|\d{1,9}[.)])\s*(?:\[[ xX]\]\s+)?/, ''));
    } else items[items.length - 1] += ` ${text}`;
  }
  return items;
}

/** Removes and answers the sentence that announces what follows it by a colon; empty when there is none. */
function takeIntroduction(units: Unit[]): string {
  const before = units.at(-1);
  if (before?.kind !== 'sentence' || !/[:：]$/.test(before.text)) return '';
  units.pop();
  return before.text;
}

/** Rows read as `column: value; column: value`, since a row without its header says little. */
function addRows(units: Unit[], source: string, block: Block, context: string): void {
  let header: string[] | null = null;
  let first = true;
  for (const line of linesOf(source, block.start, block.end)) {
    if (isTableDelimiter(source, line)) continue;
    const cells = cellsOf(source.slice(line.first, line.last));
    const isHeader = first && line.next < block.end && isDelimiterNext(source, line.next, block.end);
    first = false;
    if (isHeader) {
      header = cells;
      continue;
    }
    const named = cells.map((cell, n) => (header?.[n] ? `${header[n]}: ${cell}` : cell));
    addUnit(units, 'row', named.filter((cell) => cell !== '').join('; '), context);
  }
}

function isDelimiterNext(source: string, from: number, to: number): boolean {
  for (const line of linesOf(source, from, to)) return isTableDelimiter(source, line);
  return false;
}

function cellsOf(row: string): string[] {
  return row
    .replace(/^\||\|$/g, '')
    .split('|')
    .map((cell) => cell.trim());
}

/** Code keeps its lines; its fences, and every line that looks like one, are replaced by a fence of ours. */
function addCode(units: Unit[], source: string, block: Block, context: string, heading: string): void {
  const lines: string[] = [];
  for (const line of linesOf(source, block.start, block.end)) {
    const text = source
      .slice(line.start, line.end)
      .trimEnd()
      .replace(/\p{Cc}|[\u202a-\u202e\u2066-\u2069]/gu, ' ');
    if (!/^\s*(?:`{3}|~{3})/.test(text) && text !== '') lines.push(text);
  }
  const code = clip(lines.join('\n').replace(/\[(\d{1,4})\]/g, '($1)'));
  if (!/[\p{L}\p{N}]/u.test(code)) return;
  const text = takeIntroduction(units) || (heading && `${heading}:`);
  units.push({ kind: 'code', text, context, items: ['```', ...code.split('\n'), '```'], list: -1 });
}

/** Shortens to 400 UTF-16 units at a space where there is one near, never inside a code point. */
function clip(text: string): string {
  if (text.length <= UNIT_MAX_CHARS) return text;
  const cut = text.slice(0, UNIT_MAX_CHARS - 1);
  const space = cut.lastIndexOf(' ');
  const end = space > UNIT_MAX_CHARS * 0.8 ? space : cut.length;
  return `${cut
    .slice(0, end)
    .replace(/[\uD800-\uDBFF]$/, '')
    .trimEnd()}…`;
}
