import type { Ctx } from '#platform/context.ts';
import type { Chunk } from './chunk.ts';
import { type Parsed, type ParseRequest, parseDocument } from './formats/parse.ts';
import { parsersOf } from './formats/parser-pool.ts';
import { chunkSizesOf } from './sizes.ts';
import type { ClaimedDocument } from './store.ts';

/** More chunks than any limit of an upload gives under sensible sizes. */
const maxChunks = 100_000;

/** Text that needs no reader is cut in the server itself up to this size: it takes less time than to hand it over. */
const smallBytes = 128 * 1024;

/** A passage and the pages it stands on, from 1. */
export interface PlacedChunk extends Chunk {
  page_start: number | null;
  page_end: number | null;
}

export interface ExtractedDocument extends Omit<Parsed, 'spans'> {
  chunks: PlacedChunk[];
}

/**
 * Reads the text of a document and cuts it into passages.
 * @throws Unreadable when it can not be read, whenever it is tried
 */
export async function extractDocument(ctx: Ctx, document: ClaimedDocument): Promise<ExtractedDocument> {
  const { format, content } = document;
  const request: ParseRequest = {
    format,
    bytes: content,
    ...chunkSizesOf(document.options),
    max_chars: ctx.app.config.PARSE_MAX_CHARS,
    max_chunks: maxChunks,
  };
  const isPlain = format === 'plain' || format === 'markdown' || format === 'json';
  const { spans, ...parsed } = await (isPlain && content.length <= smallBytes
    ? parseDocument(request)
    : parsersOf(ctx.app).parse(ctx.tenant, request, ctx.signal));
  const chunks = spans.map((span, index): PlacedChunk => {
    const { offset_start, offset_end } = span;
    const text = parsed.text.slice(offset_start, offset_end);
    return { index, text, ...span, ...pagesOf(parsed.page_starts, offset_start, offset_end) };
  });
  return { ...parsed, chunks };
}

function pagesOf(starts: number[] | null, from: number, to: number) {
  if (!starts) return { page_start: null, page_end: null };
  return { page_start: pageAt(starts, from), page_end: pageAt(starts, to - 1) };
}

/** The last page that begins at or before an offset. */
function pageAt(starts: number[], offset: number): number {
  let low = 0;
  let high = starts.length;
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (starts[middle]! <= offset) low = middle;
    else high = middle;
  }
  return low + 1;
}
