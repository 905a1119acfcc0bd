import { markdownBlocks, plainBlocks } from './blocks.ts';
import { add, finish, newPacker } from './pack.ts';

/**
 * One passage of a document. `original.slice(offset_start, offset_end) === text`, in UTF-16 code units.
 * `heading_path` leads from the document's top heading to the passage; where a chunk spans several sections it is
 * what they have in common.
 */
export type Chunk = {
  index: number;
  text: string;
  offset_start: number;
  offset_end: number;
  heading_path: string[];
};

/** `content_type`: headings, fences, lists and tables are read in `text/markdown` only. Sizes are UTF-16 units. */
export type ChunkOptions = { content_type: string; chunk_size_chars?: number; chunk_overlap_chars?: number };

// Keeps a chunk's lexical vector within what an index takes, and a passage short enough to score as one thought.
const CHUNK_MAX_WORDS = 200;

/**
 * Cuts a text into passages along its structure: sections, then blocks (paragraphs, lists, tables, fenced code),
 * then items or sentences, and only where those are too long lines, words and code points.
 *
 * Every character that is not white space is in some chunk; chunks come in source order, are never blank, and
 * hold at most `chunk_size_chars` units (two where a single surrogate pair is more) and 200 words. Neighbouring
 * blocks of a section share a chunk while they fit; a heading of level 1 or 2 starts a new one unless what comes
 * before it is tiny. Where a section goes on in the next chunk, up to `chunk_overlap_chars` of whole sentences are
 * repeated. Time is linear in the length of the text.
 *
 * Throws an Error with code `CHUNK_OPTIONS_INVALID`.
 */
export function chunkText(text: string, options: ChunkOptions): Chunk[] {
  const { content_type, chunk_size_chars = 1200, chunk_overlap_chars = 150 } = options;
  checkOptions(chunk_size_chars, chunk_overlap_chars);
  const packer = newPacker(text, { chars: chunk_size_chars, words: CHUNK_MAX_WORDS }, chunk_overlap_chars);
  const isMarkdown = content_type.split(';', 1)[0]!.trim().toLowerCase() === 'text/markdown';
  const headings: { level: number; title: string }[] = [];
  let path: string[] = [];
  for (const block of isMarkdown ? markdownBlocks(text) : plainBlocks(text)) {
    if (block.kind === 'heading') {
      while (headings.length > 0 && headings.at(-1)!.level >= block.level) headings.pop();
      headings.push(block);
      path = headings.map((heading) => heading.title).filter((title) => title !== '');
    }
    add(packer, block, path);
  }
  return finish(packer).map(({ start, end, path: heading_path }, index) => {
    return { index, text: text.slice(start, end), offset_start: start, offset_end: end, heading_path };
  });
}

/**
 * What search should index for a chunk: the document's title and the headings above it, a line, then its text.
 * Headings that stand in the text itself are not repeated.
 */
export function indexedText(chunk: Pick<Chunk, 'text' | 'heading_path'>, title?: string): string {
  const above = title?.trim() ? [title.trim(), ...chunk.heading_path] : chunk.heading_path;
  const own = new Set<string>();
  for (const block of markdownBlocks(chunk.text)) if (block.kind === 'heading') own.add(block.title);
  const line = [...new Set(above)].filter((heading) => !own.has(heading));
  return line.length > 0 ? `${line.join(' > ')}\n\n${chunk.text}` : chunk.text;
}

function checkOptions(size: number, overlap: number): void {
  if (!Number.isInteger(size) || size < 1) throw invalid('chunk_size_chars must be a positive integer');
  if (!Number.isInteger(overlap) || overlap < 0) throw invalid('chunk_overlap_chars must not be negative');
  if (overlap >= size) throw invalid('chunk_overlap_chars must be smaller than chunk_size_chars');
}

function invalid(message: string): Error {
  return Object.assign(new Error(message), { code: 'CHUNK_OPTIONS_INVALID' });
}
