import { getDocumentProxy } from 'unpdf';
import { type Extracted, Unreadable, type Warning } from './format.ts';
import { bodySize, type Line, linesOf, paragraphsOf, withoutRunningHeads } from './pdf-lines.ts';
import { cleaned, Writer } from './writer.ts';

type Pdf = Awaited<ReturnType<typeof getDocumentProxy>>;

const maxPages = 5_000;
/** A heading is set so much larger than the text. */
const larger = 1.12;
const longestHeading = 200;

/**
 * The text of a PDF page by page. Paragraphs are put together from lines by their distance; headings are what the
 * outline names, and lines set larger than the text. Lines that stand on every page are left out.
 * @throws Unreadable
 */
export async function readPdf(bytes: Buffer, maxChars: number): Promise<Extracted> {
  const pdf = await open(bytes);
  if (pdf.numPages > maxPages)
    throw new Unreadable(`The PDF has ${pdf.numPages} pages; up to ${maxPages} are read. Split it.`);
  const pages: Line[][] = [];
  let length = 0;
  for (let number = 1; number <= pdf.numPages; number++) {
    const lines = await linesOfPage(pdf, number);
    length += lines.reduce((sum, { text }) => sum + text.length, 0);
    if (length > maxChars)
      throw new Unreadable(`The document has more than ${maxChars} characters of text. Split it.`);
    pages.push(lines);
  }
  const empty = pages.flatMap((lines, i) => (lines.length === 0 ? [i + 1] : []));
  if (empty.length === pages.length)
    throw new Unreadable('The PDF has no text: its pages may be pictures. Recognise their text (OCR) first.');
  const outline = await outlineOf(pdf);
  const written = write(withoutRunningHeads(pages), outline, maxChars);
  await pdf.loadingTask.destroy();
  return { ...written, markdown: true, warnings: empty.length > 0 ? [withoutText(empty)] : [] };
}

async function open(bytes: Buffer): Promise<Pdf> {
  try {
    return await getDocumentProxy(new Uint8Array(bytes), {
      stopAtErrors: false,
      disableFontFace: true,
      useSystemFonts: false,
      enableXfa: false,
      verbosity: 0,
    });
  } catch (error) {
    const { name } = error as Error;
    if (name === 'PasswordException')
      throw new Unreadable('The PDF is encrypted: remove its password and send it again.');
    if (error instanceof RangeError) throw error;
    throw new Unreadable('The PDF is damaged, or is not one: it can not be opened.', { cause: error });
  }
}

async function linesOfPage(pdf: Pdf, number: number): Promise<Line[]> {
  try {
    const page = await pdf.getPage(number);
    const { items } = await page.getTextContent();
    page.cleanup();
    return linesOf(items);
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Unreadable(`Page ${number} of the PDF is damaged and can not be read.`, { cause: error });
  }
}

const withoutText = (pages: number[]): Warning => {
  const shown = pages.slice(0, 20).join(', ');
  const more = pages.length > 20 ? ` and ${pages.length - 20} more` : '';
  return {
    code: 'PAGES_WITHOUT_TEXT',
    message: `Without text, perhaps pictures: page ${shown}${more}.`,
  };
};

interface OutlineItem {
  title: string;
  items: OutlineItem[];
}

const normal = (text: string): string =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();

/** The level of each heading the outline names, by its normalised words. A broken outline says nothing. */
async function outlineOf(pdf: Pdf): Promise<Map<string, number>> {
  const levels = new Map<string, number>();
  const stack: { item: OutlineItem; level: number }[] = [];
  try {
    const items = ((await pdf.getOutline()) ?? []) as OutlineItem[];
    for (const item of items.reverse()) stack.push({ item, level: 1 });
  } catch {
    return levels;
  }
  for (let top = stack.pop(); top && levels.size < 10_000; top = stack.pop()) {
    const title = normal(top.item.title);
    if (title && !levels.has(title)) levels.set(title, Math.min(6, top.level));
    for (const item of [...top.item.items].reverse()) stack.push({ item, level: top.level + 1 });
  }
  return levels;
}

function write(
  pages: Line[][],
  outline: Map<string, number>,
  maxChars: number,
): { text: string; page_starts: number[] } {
  const writer = new Writer(maxChars);
  const body = bodySize(pages);
  const sizes = headingSizes(pages, body);
  const starts: number[] = [];
  for (const lines of pages) {
    starts.push(writer.end);
    for (const paragraph of paragraphsOf(lines, (text) => outline.has(normal(text)))) {
      const text = cleaned(paragraph.text);
      const level = levelOf(text, paragraph.size, outline, sizes);
      if (level) writer.heading(level, text);
      else writer.paragraph(text);
    }
  }
  const text = writer.finish();
  // Pages without text at the end begin where the text ends.
  return { text, page_starts: starts.map((start) => Math.min(start, text.length)) };
}

/** Sizes that headings are set in, largest first; a document has three levels of them at most. */
function headingSizes(pages: Line[][], body: number): number[] {
  const sizes = new Set<number>();
  for (const { size, text } of pages.flat())
    if (size >= body * larger && text.length <= longestHeading) sizes.add(size);
  return [...sizes].sort((a, b) => b - a);
}

function levelOf(
  text: string,
  size: number,
  outline: Map<string, number>,
  sizes: number[],
): number | undefined {
  if (text.length > longestHeading || !/\p{L}/u.test(text)) return undefined;
  const named = outline.get(normal(text));
  if (named) return named;
  // Where the outline says what the headings are, large print is something else.
  if (outline.size > 0 || /[.,;:]$/.test(text)) return undefined;
  const rank = sizes.indexOf(size);
  return rank < 0 ? undefined : Math.min(rank + 1, 3);
}
