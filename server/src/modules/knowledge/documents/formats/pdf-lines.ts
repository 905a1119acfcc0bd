/** A piece of text where a page puts it, as the PDF reader tells it; marks of structure have no `str`. */
export interface TextPiece {
  str?: string;
  transform?: number[];
  width?: number;
  hasEOL?: boolean;
}

/** One printed line. `size` of the print, rounded to half a point; `y` grows upwards. */
export interface Line {
  text: string;
  size: number;
  x: number;
  end: number;
  y: number;
}

const half = (size: number): number => Math.round(size * 2) / 2;

/** Puts the pieces of a page together to lines, in the order the page has them. */
export function linesOf(pieces: readonly unknown[]): Line[] {
  const lines: Line[] = [];
  let open: (Line & { sizes: Map<number, number> }) | undefined;
  const close = () => {
    if (open && open.text.trim() !== '') {
      const [size] = [...open.sizes].sort((a, b) => b[1] - a[1])[0]!;
      lines.push({ text: open.text.replace(/\s+/g, ' ').trim(), size, x: open.x, end: open.end, y: open.y });
    }
    open = undefined;
  };
  for (const piece of pieces as TextPiece[]) {
    if (piece.str === undefined || !piece.transform) continue;
    const [, , c = 0, d = 0, x = 0, y = 0] = piece.transform;
    const size = half(Math.hypot(c, d));
    if (open && Math.abs(open.y - y) > Math.max(size, 4) * 0.5) close();
    if (piece.str !== '') {
      if (!open) open = { text: '', size, x, end: x, y, sizes: new Map() };
      const gap = x - open.end;
      if (open.text && (gap > size * 0.15 || gap < -size) && !/\s$/.test(open.text)) open.text += ' ';
      open.text += piece.str;
      open.end = x + (piece.width ?? 0);
      open.sizes.set(size, (open.sizes.get(size) ?? 0) + piece.str.trim().length);
    }
    if (piece.hasEOL) close();
  }
  close();
  return lines;
}

/** The size most of the text is set in. */
export function bodySize(pages: Line[][]): number {
  const counts = new Map<number, number>();
  for (const { size, text } of pages.flat()) counts.set(size, (counts.get(size) ?? 0) + text.length);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 0;
}

const fewestPages = 4;
const edge = 2;

/** Leaves out lines that many pages have at their head or foot: the same words, or a number that counts with the pages. */
export function withoutRunningHeads(pages: Line[][]): Line[][] {
  if (pages.length < fewestPages) return pages;
  const seen = new Map<string, number>();
  pages.forEach((lines, page) => {
    const keys = new Set(edgesOf(lines).flatMap((line) => keysOf(line, page)));
    for (const key of keys) seen.set(key, (seen.get(key) ?? 0) + 1);
  });
  // Left and right pages may have heads of their own.
  const repeated = (line: Line, page: number) =>
    keysOf(line, page).some((key) => (seen.get(key) ?? 0) > pages.length / 3);
  return pages.map((lines, page) => {
    const dropped = new Set(edgesOf(lines).filter((line) => repeated(line, page)));
    // A page of nothing else keeps it: it may be what the page is about.
    return dropped.size === lines.length ? lines : lines.filter((line) => !dropped.has(line));
  });
}

/** A line as it stands, and with its first or last number as its distance from the number of the page. */
function keysOf({ text }: Line, page: number): string[] {
  const counted = (number: string) => `<${Number(number) - page}>`;
  return [text, text.replace(/\d{1,5}/, counted), text.replace(/\d{1,5}(?=\D*$)/, counted)];
}

/** The first and last lines of a page, as they stand on it. */
function edgesOf(lines: Line[]): Line[] {
  const down = [...lines].sort((a, b) => b.y - a.y);
  return [...down.slice(0, edge), ...down.slice(-edge)];
}

/** Lines of one paragraph are set at most so many sizes apart, two being double spacing. */
const widestSpacing = 2.5;
const bullet = /^(?:[•◦▪‣·*–-]|\(?\d{1,3}[.)])\s/;

/**
 * Puts lines together to paragraphs: by distance, size, indentation, and where a line ends early.
 * @param standsAlone whether a line is known to be a heading
 */
export function paragraphsOf(
  lines: Line[],
  standsAlone: (text: string) => boolean,
): { text: string; size: number }[] {
  const paragraphs: { text: string; size: number }[] = [];
  const width = Math.max(0, ...lines.map(({ end }) => end));
  const distance = usualDistance(lines);
  lines.forEach((line, i) => {
    const before = lines[i - 1];
    const last = paragraphs.at(-1);
    const alone = standsAlone(line.text) || (before !== undefined && standsAlone(before.text));
    if (!before || !last || alone || beginsParagraph(before, line, distance, width)) {
      paragraphs.push({ text: line.text, size: line.size });
    } else last.text = joined(last.text, line.text);
  });
  return paragraphs;
}

function usualDistance(lines: Line[]): number {
  const counts = new Map<number, number>();
  for (let i = 1; i < lines.length; i++) {
    const distance = half(lines[i - 1]!.y - lines[i]!.y);
    if (distance > 0) counts.set(distance, (counts.get(distance) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0]?.[0] ?? 0;
}

function beginsParagraph(before: Line, line: Line, distance: number, width: number): boolean {
  if (Math.abs(before.size - line.size) > 0.5 || bullet.test(line.text)) return true;
  const down = before.y - line.y;
  // Upwards: a new column. Its first line mostly goes on with the sentence.
  if (down < 0) return /[.!?:]$/.test(before.text);
  if (down > Math.min(Math.max(distance, line.size) * 1.4, line.size * widestSpacing)) return true;
  const endsEarly = before.end < width * 0.8 && /[.!?:]$/.test(before.text);
  return endsEarly || (line.x - before.x > line.size && /[.!?:]$/.test(before.text));
}

/** A word that was broken at the end of a line is whole again. */
function joined(before: string, next: string): string {
  if (/\p{Ll}-$/u.test(before) && /^\p{Ll}/u.test(next)) return before.slice(0, -1) + next;
  return `${before} ${next}`;
}
