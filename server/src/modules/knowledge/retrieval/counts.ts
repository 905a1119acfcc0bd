/** How many texts hold each of many terms. `dimensions` ascending and distinct; `texts` below 0 where texts went. */
export interface Counts {
  dimensions: Int32Array;
  texts: Int32Array;
}

/** Counts the dimensions of many texts. @param sign -1 where the texts go */
export function countDimensions(vectors: { dimensions: Uint32Array }[], sign: 1 | -1): Counts {
  const all = new Int32Array(vectors.reduce((sum, { dimensions }) => sum + dimensions.length, 0));
  let at = 0;
  for (const { dimensions } of vectors) {
    all.set(dimensions, at);
    at += dimensions.length;
  }
  all.sort();
  const dimensions = new Int32Array(all.length);
  const texts = new Int32Array(all.length);
  let last = -1;
  for (const dimension of all) {
    if (last < 0 || dimensions[last] !== dimension) dimensions[++last] = dimension;
    texts[last]! += sign;
  }
  return { dimensions: dimensions.subarray(0, last + 1), texts: texts.subarray(0, last + 1) };
}

/** Adds up; what comes to nothing is left out. */
export function mergeCounts(some: Counts[]): Counts {
  const sums = new Map<number, number>();
  for (const { dimensions, texts } of some)
    for (let i = 0; i < dimensions.length; i++)
      sums.set(dimensions[i]!, (sums.get(dimensions[i]!) ?? 0) + texts[i]!);
  for (const [dimension, texts] of sums) if (texts === 0) sums.delete(dimension);
  const dimensions = Int32Array.from(sums.keys()).sort();
  return { dimensions, texts: dimensions.map((dimension) => sums.get(dimension)!) };
}

/** The counts of the dimensions `from` to `to` in order. */
export const sliceCounts = ({ dimensions, texts }: Counts, from: number, to?: number): Counts => ({
  dimensions: dimensions.subarray(from, to),
  texts: texts.subarray(from, to),
});

/** As they are stored. Both this and reading rely on the byte order of every processor Node runs on: little-endian. */
export function packCounts({ dimensions, texts }: Counts): Buffer {
  const packed = Buffer.allocUnsafe(dimensions.byteLength * 2);
  const bytes = ({ buffer, byteOffset, byteLength }: Int32Array) =>
    new Uint8Array(buffer, byteOffset, byteLength);
  packed.set(bytes(dimensions), 0);
  packed.set(bytes(texts), dimensions.byteLength);
  return packed;
}

export function unpackCounts(packed: Buffer): Counts {
  // A copy, since a view of integers has to begin at a multiple of four.
  const all = new Int32Array(new Uint8Array(packed).buffer);
  const half = all.length / 2;
  return { dimensions: all.subarray(0, half), texts: all.subarray(half) };
}

/** The count of one dimension; 0 where there is none. */
export function countOf({ dimensions, texts }: Counts, dimension: number): number {
  let low = 0;
  let high = dimensions.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const found = dimensions[middle]!;
    if (found === dimension) return texts[middle]!;
    if (found < dimension) low = middle + 1;
    else high = middle - 1;
  }
  return 0;
}
