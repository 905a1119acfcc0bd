import { type Chunk, chunkText } from '../chunk.ts';
import { type Extracted, Unreadable, type Warning } from './format.ts';
import { readSource, type Source } from './read.ts';

/** What the server asks for. */
export interface ParseRequest extends Source {
  chunk_size_chars: number;
  chunk_overlap_chars: number;
  max_chars: number;
  max_chunks: number;
}

/** A document cut into passages; of each only where it stands, since its text is part of `text`. */
export interface Parsed {
  text: string;
  page_starts: number[] | null;
  warnings: Warning[];
  spans: Pick<Chunk, 'offset_start' | 'offset_end' | 'heading_path'>[];
}

export type ParseReply = { ok: Parsed } | { unreadable: string } | { failed: string };

/** @throws Unreadable */
export async function parseDocument(request: ParseRequest): Promise<Parsed> {
  const extracted = await readSource(request, request.max_chars);
  if (extracted.text.length > request.max_chars)
    throw new Unreadable(`The document has more than ${request.max_chars} characters of text. Split it.`);
  return { ...withoutMarks(extracted), spans: spansOf(extracted, request) };
}

const withoutMarks = ({ text, page_starts, warnings }: Extracted) => ({ text, page_starts, warnings });

function spansOf({ text, markdown }: Extracted, request: ParseRequest): Parsed['spans'] {
  const { chunk_size_chars, chunk_overlap_chars, max_chunks } = request;
  const tooMany = () =>
    new Unreadable(
      `The document would make more than ${max_chunks} chunks. Reindex it with a larger chunk_size_chars.`,
    );
  if (text.length / chunk_size_chars > max_chunks) throw tooMany();
  const content_type = markdown ? 'text/markdown' : 'text/plain';
  const chunks = chunkText(text, { content_type, chunk_size_chars, chunk_overlap_chars });
  if (chunks.length > max_chunks) throw tooMany();
  return chunks.map(({ offset_start, offset_end, heading_path }) => ({
    offset_start,
    offset_end,
    heading_path,
  }));
}

/** What the parser process says to a request; never rejects. */
export async function answer(request: ParseRequest): Promise<ParseReply> {
  try {
    return { ok: await parseDocument({ ...request, bytes: Buffer.from(request.bytes) }) };
  } catch (error) {
    if (error instanceof Unreadable) return { unreadable: error.message };
    return { failed: String((error as Error)?.stack ?? error).slice(0, 2_000) };
  }
}
