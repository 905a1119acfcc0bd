/** What a stretch of the source is. `rule` is a thematic break; `code` is fenced code or front matter. */
export type BlockKind = 'heading' | 'rule' | 'code' | 'list' | 'table' | 'paragraph';

/**
 * A block of the source: `text.slice(start, end)` begins and ends with a character that is not white space.
 * `level` (1..6) and `title` are set for headings only.
 */
export type Block = { kind: BlockKind; start: number; end: number; level: number; title: string };

/** One line: `end` and `next` exclude and include the line break; `first` and `last` enclose what is not blank. */
export type Line = { start: number; end: number; next: number; first: number; last: number };

// A heading is copied into the path of each chunk below it, so an endless "heading" must not be.
const TITLE_MAX_CHARS = 200;
const FRONT_MATTER_MAX_LINES = 200;

const HASH = 35;
const BACKTICK = 96;
const TILDE = 126;

/** The same set as `\s` in a regular expression, by UTF-16 code unit. */
export function isSpace(code: number): boolean {
  if (code < 128) return code === 32 || (code >= 9 && code <= 13);
  if (code === 0xa0 || code === 0x1680 || code === 0xfeff) return true;
  if (code < 0x2000 || code > 0x3000) return false;
  return (
    code <= 0x200a ||
    (code >= 0x2028 && code <= 0x202f && (code <= 0x2029 || code === 0x202f)) ||
    code === 0x205f ||
    code === 0x3000
  );
}

/** Lines of `text` between two offsets, broken by LF, CRLF or CR; `first === last` for a blank line. */
export function* linesOf(text: string, from = 0, to = text.length): Generator<Line> {
  let start = from;
  while (start < to) {
    // A character loop: searching for "\r" with indexOf line by line reads the whole rest of a text without one.
    let end = start;
    let code = 0;
    while (end < to) {
      code = text.charCodeAt(end);
      if (code === 10 || code === 13) break;
      end += 1;
    }
    let next = end;
    if (end < to) next = code === 13 && end + 1 < to && text.charCodeAt(end + 1) === 10 ? end + 2 : end + 1;
    let first = start;
    while (first < end && isSpace(text.charCodeAt(first))) first += 1;
    let last = end;
    while (last > first && isSpace(text.charCodeAt(last - 1))) last -= 1;
    yield { start, end, next, first, last };
    start = next;
  }
}

/** Blocks of plain text: paragraphs between blank lines. */
export function* plainBlocks(text: string): Generator<Block> {
  let open: Block | null = null;
  for (const line of linesOf(text)) {
    if (line.first === line.last) {
      if (open) yield open;
      open = null;
    } else if (open) open.end = line.last;
    else open = block('paragraph', line.first, line.last);
  }
  if (open) yield open;
}

/**
 * Blocks of Markdown, in source order, covering everything that is not white space. It reads the constructs
 * that matter for cutting (headings, fences, lists, pipe tables, rules) after CommonMark 0.31 and GFM, each
 * line once; anything unclear is a paragraph.
 */
export function* markdownBlocks(text: string): Generator<Block> {
  let open: Block | null = null;
  let openLines = 0;
  let gap = false;
  let fence: { code: number; length: number } | null = null;
  let from = 0;
  const matter = frontMatter(text);
  if (matter) {
    yield matter;
    from = matter.end;
  }
  for (const line of linesOf(text, from)) {
    if (fence && open) {
      if (line.first === line.last) continue;
      open.end = line.last;
      if (!closesFence(text, line, fence)) continue;
      yield open;
      open = null;
      fence = null;
      continue;
    }
    if (line.first === line.last) {
      if (open && open.kind !== 'list') {
        yield open;
        open = null;
      }
      gap = true;
      continue;
    }
    const shape = shapeOf(text, line, open, openLines, gap);
    gap = false;
    if (shape.kind === 'more' && open) {
      open.end = line.last;
      openLines += 1;
      if (shape.becomes) Object.assign(open, shape.becomes);
      if (open.kind !== 'heading') continue;
      yield open;
      open = null;
      continue;
    }
    if (open) yield open;
    open = shape.kind === 'more' ? block('paragraph', line.first, line.last) : shape.block;
    openLines = 1;
    fence = shape.kind === 'start' ? shape.fence : null;
    if (open.kind !== 'heading' && open.kind !== 'rule') continue;
    yield open;
    open = null;
  }
  if (open) yield open;
}

type Fence = { code: number; length: number };
type Shape =
  | { kind: 'start'; block: Block; fence: Fence | null }
  | { kind: 'more'; becomes?: Partial<Block> };

/** Whether a line starts a block of its own or continues (and perhaps turns) the open one. */
function shapeOf(text: string, line: Line, open: Block | null, openLines: number, gap: boolean): Shape {
  const start = (kind: BlockKind, fence: Fence | null = null): Shape => {
    return { kind: 'start', block: block(kind, line.first, line.last), fence };
  };
  const indent = line.first - line.start;
  const fence = fenceAt(text, line);
  if (fence) return start('code', fence);
  if (indent < 4) {
    const heading = atxHeading(text, line);
    if (heading) return { kind: 'start', block: heading, fence: null };
    const loneLine = open?.kind === 'paragraph' && openLines === 1;
    const level = loneLine ? setextLevel(text, line) : 0;
    if (level > 0 && open) {
      return { kind: 'more', becomes: { kind: 'heading', level, title: title(text, open.start, open.end) } };
    }
    if (isRule(text, line)) return start('rule');
    if (loneLine && isTableDelimiter(text, line)) return { kind: 'more', becomes: { kind: 'table' } };
  }
  const marker = listMarker(text, line);
  if (open?.kind === 'list' && (marker || !gap || indent >= 2)) return { kind: 'more' };
  const mayInterrupt = marker === 'bullet' || marker === 'first' || open?.kind !== 'paragraph';
  if (marker && mayInterrupt && indent < 4) return start('list');
  if (open?.kind === 'list') return start('paragraph');
  if (text.charCodeAt(line.first) === 124 && open?.kind !== 'table' && open?.kind !== 'paragraph') {
    return start('table');
  }
  return open ? { kind: 'more' } : start('paragraph');
}

function block(kind: BlockKind, start: number, end: number): Block {
  return { kind, start, end, level: 0, title: '' };
}

/** YAML front matter: without this its closing `---` would make a setext heading of its last line. */
function frontMatter(text: string): Block | null {
  let count = 0;
  for (const line of linesOf(text)) {
    const dashes = line.last - line.start === 3 && text.startsWith('---', line.start);
    if (count === 0 ? !dashes : count > FRONT_MATTER_MAX_LINES) return null;
    if (count > 1 && dashes) return block('code', 0, line.last);
    if (count === 1 && line.first === line.last) return null;
    count += 1;
  }
  return null;
}

function fenceAt(text: string, line: Line): Fence | null {
  const code = text.charCodeAt(line.first);
  if (code !== BACKTICK && code !== TILDE) return null;
  let at = line.first;
  while (at < line.last && text.charCodeAt(at) === code) at += 1;
  const length = at - line.first;
  if (length < 3) return null;
  // CommonMark 4.5: a backtick in the info string means inline code, not a fence.
  if (code === BACKTICK) for (; at < line.last; at += 1) if (text.charCodeAt(at) === BACKTICK) return null;
  return { code, length };
}

function closesFence(text: string, line: Line, fence: Fence): boolean {
  if (line.last - line.first < fence.length) return false;
  for (let at = line.first; at < line.last; at += 1) if (text.charCodeAt(at) !== fence.code) return false;
  return true;
}

function atxHeading(text: string, line: Line): Block | null {
  let level = 0;
  while (text.charCodeAt(line.first + level) === HASH) level += 1;
  const after = line.first + level;
  if (level < 1 || level > 6 || (after < line.last && !isSpace(text.charCodeAt(after)))) return null;
  let end = line.last;
  while (end > after && text.charCodeAt(end - 1) === HASH) end -= 1;
  if (end > after && !isSpace(text.charCodeAt(end - 1))) end = line.last;
  return { kind: 'heading', start: line.first, end: line.last, level, title: title(text, after, end) };
}

function setextLevel(text: string, line: Line): 0 | 1 | 2 {
  const code = text.charCodeAt(line.first);
  if (code !== 61 && code !== 45) return 0;
  for (let at = line.first; at < line.last; at += 1) if (text.charCodeAt(at) !== code) return 0;
  return code === 61 ? 1 : 2;
}

function isRule(text: string, line: Line): boolean {
  const code = text.charCodeAt(line.first);
  if (code !== 42 && code !== 45 && code !== 95) return false;
  let marks = 0;
  for (let at = line.first; at < line.last; at += 1) {
    const here = text.charCodeAt(at);
    if (here === code) marks += 1;
    else if (here !== 32 && here !== 9) return false;
  }
  return marks >= 3;
}

/** The second line of a pipe table: dashes, colons and at least one bar. */
export function isTableDelimiter(text: string, line: Line): boolean {
  let bars = 0;
  let dashes = 0;
  for (let at = line.first; at < line.last; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 124) bars += 1;
    else if (code === 45) dashes += 1;
    else if (code !== 58 && code !== 32 && code !== 9) return false;
  }
  return bars > 0 && dashes > 0;
}

/** The kind of list marker a line begins with: a bullet, an ordered 1, another number, or none. */
export function listMarker(text: string, line: Line): 'bullet' | 'first' | 'number' | null {
  const code = text.charCodeAt(line.first);
  if (code === 42 || code === 43 || code === 45) {
    return line.first + 1 === line.last || isSpace(text.charCodeAt(line.first + 1)) ? 'bullet' : null;
  }
  let at = line.first;
  while (at < line.last && at - line.first < 9 && text.charCodeAt(at) >= 48 && text.charCodeAt(at) <= 57)
    at += 1;
  const mark = text.charCodeAt(at);
  if (at === line.first || at >= line.last || (mark !== 46 && mark !== 41)) return null;
  if (at + 1 < line.last && !isSpace(text.charCodeAt(at + 1))) return null;
  return at - line.first === 1 && code === 49 ? 'first' : 'number';
}

/** A heading's words: no emphasis or code marks, white space folded, at most 200 UTF-16 units. */
function title(text: string, start: number, end: number): string {
  const raw = text.slice(start, Math.min(end, start + TITLE_MAX_CHARS * 2));
  const plain = raw
    .replace(/[*`]|__/g, '')
    .replace(/\s+/g, ' ')
    .trim();
  if (plain.length <= TITLE_MAX_CHARS) return plain;
  const cut = plain.slice(0, TITLE_MAX_CHARS - 1);
  return `${/[\uD800-\uDBFF]$/.test(cut) ? cut.slice(0, -1) : cut}…`;
}
