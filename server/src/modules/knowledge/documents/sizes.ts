import { invalid } from '#platform/errors.ts';
import type { Reindex } from './schema.ts';
import type { ChunkSizes } from './store.ts';

const size = 1_200;
const overlap = 150;

/** What a document is cut by: an overlap that nobody named is an eighth of the size, at most 150. */
export function chunkSizesOf({ chunk_size_chars = size, chunk_overlap_chars }: ChunkSizes) {
  return {
    chunk_size_chars,
    chunk_overlap_chars: chunk_overlap_chars ?? Math.min(overlap, Math.floor(chunk_size_chars / 8)),
  };
}

/**
 * The sizes a document keeps: those given, else those it had; an overlap belongs to the size it was given with.
 * @throws ApiError 422 when the overlap is not smaller than the size
 */
export function sizesOf(stored: ChunkSizes, given: Reindex): ChunkSizes {
  const base: ChunkSizes =
    given.chunk_size_chars == null ? stored : { chunk_size_chars: given.chunk_size_chars };
  const wanted = given.chunk_overlap_chars ?? base.chunk_overlap_chars;
  const sizes: ChunkSizes = {
    ...(base.chunk_size_chars === undefined ? {} : { chunk_size_chars: base.chunk_size_chars }),
    ...(wanted === undefined ? {} : { chunk_overlap_chars: wanted }),
  };
  const { chunk_size_chars, chunk_overlap_chars } = chunkSizesOf(sizes);
  if (chunk_overlap_chars >= chunk_size_chars) {
    throw invalid([
      {
        path: '/chunk_overlap_chars',
        message: `must be smaller than chunk_size_chars (${chunk_size_chars})`,
      },
    ]);
  }
  return sizes;
}
