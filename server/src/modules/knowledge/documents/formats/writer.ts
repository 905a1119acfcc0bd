import { Unreadable } from './format.ts';

/** What could be taken for a mark of Markdown at the beginning of a line. */
const mark = /^(#{1,6}(?=\s|$)|[-*+](?=\s)|\d{1,9}[.)](?=\s)|`{3}|~{3}|\||[-=]{2,}\s*$|(?:[-*_]\s*){3,}$)/;

/** One line of running text: white space folded, nothing in it that could be taken for structure. */
export function lineOf(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return mark.test(line) ? `\\${line}` : line;
}

/**
 * What can not be stored or read: control characters (but white space), and halves of surrogate pairs.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const controls = /[\u0000-\u0008\u000e-\u001f\u007f-\u009f\u00ad\ufeff]/g;
export const cleaned = (text: string): string => text.replace(controls, '').toWellFormed();

/** Writes the text of a document block by block, with its structure marked as in Markdown. */
export class Writer {
  private readonly parts: string[] = [];
  private length = 0;
  /** Items of one list stand close together. */
  private last: 'none' | 'block' | 'item' = 'none';
  private readonly maxChars: number;

  constructor(maxChars: number) {
    this.maxChars = maxChars;
  }

  /** Where the next character goes, after the blank line that will stand before it. */
  get end(): number {
    return this.length === 0 ? 0 : this.length + 2;
  }

  get isEmpty(): boolean {
    return this.length === 0;
  }

  heading(level: number, text: string): void {
    const title = text.replace(/\s+/g, ' ').trim();
    if (title) this.add(`${'#'.repeat(Math.min(6, Math.max(1, level)))} ${title}`, 'block');
  }

  /** Lines of one paragraph; each becomes a line. */
  paragraph(text: string): void {
    const lines = text.split('\n').map(lineOf).filter(Boolean);
    if (lines.length > 0) this.add(lines.join('\n'), 'block');
  }

  /** What comes is another list than what came. */
  apart(): void {
    if (this.last === 'item') this.last = 'block';
  }

  item(depth: number, marker: string, text: string): void {
    const line = text.replace(/\s+/g, ' ').trim();
    if (line) this.add(`${'  '.repeat(Math.min(depth, 8))}${marker} ${line}`, 'item');
  }

  /** Text whose line breaks and spaces count. */
  code(text: string): void {
    const body = text.replace(/^\n+|\s+$/g, '');
    if (!/\S/.test(body)) return;
    const fence = '`'.repeat(Math.max(3, ...[...body.matchAll(/`+/g)].map(([run]) => run.length + 1)));
    this.add(`${fence}\n${body}\n${fence}`, 'block');
  }

  /**
   * Rows as `Header: value; Header: value`, one item each, so that each row says by itself what its values are.
   * @param header names of the columns; undefined: the first row, where it looks like one
   */
  rows(rows: string[][], header?: string[]): void {
    const names = header ?? headerOf(rows);
    this.apart();
    for (const row of header || !names ? rows : rows.slice(1)) this.row(row, names);
  }

  row(row: string[], names: string[] | undefined): void {
    const cells = row.map((cell) => cell.replace(/\s+/g, ' ').trim());
    const shown = cells.map((cell, i) => (cell && names?.[i] ? `${names[i]}: ${cell}` : cell));
    this.item(0, '-', shown.filter(Boolean).join('; '));
  }

  /** @returns the whole text */
  finish(): string {
    return this.parts.join('');
  }

  private add(text: string, kind: 'block' | 'item'): void {
    const gap = this.last === 'none' ? '' : this.last === 'item' && kind === 'item' ? '\n' : '\n\n';
    const part = gap + cleaned(text);
    this.length += part.length;
    if (this.length > this.maxChars)
      throw new Unreadable(`The document has more than ${this.maxChars} characters of text. Split it.`);
    this.parts.push(part);
    this.last = kind;
  }
}

const longestName = 80;

/**
 * The first row of a table as names of its columns, where it looks like them: short, different, and no numbers. A column may
 * have none, as a list's own numbering often has.
 */
export function headerOf(rows: string[][]): string[] | undefined {
  const [first, second] = rows;
  if (!first || !second || first.length < 2) return undefined;
  const names = first.map((name) => name.replace(/\s+/g, ' ').trim());
  const given = names.filter(Boolean);
  const sound = given.every((name) => name.length <= longestName && !/^[\d\s.,:%€$£/+-]+$/.test(name));
  return sound && given.length * 2 > names.length && new Set(given).size === given.length ? names : undefined;
}
