/** Sparse vectors of term weights and the binary forms in which pgvector receives vectors. */

/**
 * Size of both hashed spaces. pgvector allows up to 10^9 dimensions and stores only non-zeros, so a large space
 * costs nothing; at 2^28 a million distinct terms collide in about 0.4 % of cases (2^20: in most).
 */
export const SPARSE_DIMENSIONS = 2 ** 28;

/** pgvector refuses more than 16,000 non-zeros; longer texts keep their heaviest terms. */
export const MAX_NON_ZEROS = 4_096;

/** `dimensions` ascending, 0-based, distinct; `values` non-zero, one for each dimension. */
export interface SparseVector {
  dimensions: Uint32Array;
  values: Float32Array;
}

/** Spreads 32 bits evenly (finaliser of MurmurHash3). */
export function mix32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** 32-bit hash of UTF-16 code units `start` to `end` of `text`; total for any string, lone surrogates included. */
export function hashText(text: string, start = 0, end = text.length): number {
  let h = 0x811c9dc5;
  for (let i = start; i < end; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return mix32(h);
}

/** Dimension of code units `start` to `end` of `text`. */
export function dimensionOf(text: string, start = 0, end = text.length): number {
  return hashText(text, start, end) % SPARSE_DIMENSIONS;
}

/** Builds a vector from weights by dimension; zero weights are left out, at most MAX_NON_ZEROS are kept. */
export function sparseFrom(weights: Map<number, number>): SparseVector {
  const dimensions = Uint32Array.from(weights.keys()).sort();
  return limitNonZeros(
    dimensions,
    Float32Array.from(dimensions, (dimension) => weights.get(dimension)!),
  );
}

/** Drops zeros and, beyond MAX_NON_ZEROS, the lightest entries (of equals, the higher dimension). */
export function limitNonZeros(dimensions: Uint32Array, values: Float32Array): SparseVector {
  let floor = 0;
  let spare = Number.POSITIVE_INFINITY;
  if (dimensions.length > MAX_NON_ZEROS) {
    const byWeight = Float32Array.from(values).sort();
    floor = byWeight[byWeight.length - MAX_NON_ZEROS]!;
    spare = MAX_NON_ZEROS;
    for (const value of values) if (value > floor) spare--;
  } else if (!values.includes(0)) {
    return { dimensions, values };
  }
  const kept: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value === 0 || value < floor) continue;
    if (value === floor && spare-- <= 0) continue;
    kept.push(i);
  }
  return {
    dimensions: Uint32Array.from(kept, (i) => dimensions[i]!),
    values: Float32Array.from(kept, (i) => values[i]!),
  };
}

/** Inner product. */
export function dot(a: SparseVector, b: SparseVector): number {
  let sum = 0;
  for (let i = 0, j = 0; i < a.dimensions.length && j < b.dimensions.length; ) {
    const x = a.dimensions[i]!;
    const y = b.dimensions[j]!;
    if (x === y) sum += a.values[i++]! * b.values[j++]!;
    else if (x < y) i++;
    else j++;
  }
  return sum;
}

/**
 * Binary `sparsevec` as pgvector's receive function reads it, big endian: int32 dimensions, int32 non-zeros, int32
 * unused (0), int32 0-based indices ascending, float4 values. An empty vector is valid.
 */
export function encodeSparse(vector: SparseVector, dimensions = SPARSE_DIMENSIONS): Buffer {
  const count = vector.dimensions.length;
  const buffer = Buffer.allocUnsafe(12 + 8 * count);
  buffer.writeInt32BE(dimensions, 0);
  buffer.writeInt32BE(count, 4);
  buffer.writeInt32BE(0, 8);
  for (let i = 0; i < count; i++) {
    buffer.writeInt32BE(vector.dimensions[i]!, 12 + 4 * i);
    buffer.writeFloatBE(vector.values[i]!, 12 + 4 * (count + i));
  }
  return buffer;
}

/** Text form of `sparsevec`, `{index:value,...}/dimensions`; unlike the binary form its indices start at 1. */
export function formatSparse(vector: SparseVector, dimensions = SPARSE_DIMENSIONS): string {
  const entries = Array.from(vector.dimensions, (dimension, i) => `${dimension + 1}:${vector.values[i]}`);
  return `{${entries.join(',')}}/${dimensions}`;
}

/** The dimensions of a binary `sparsevec`. */
export function decodeDimensions(stored: Buffer): Uint32Array {
  const dimensions = new Uint32Array(stored.readInt32BE(4));
  for (let i = 0; i < dimensions.length; i++) dimensions[i] = stored.readInt32BE(12 + 4 * i);
  return dimensions;
}

/** Binary `vector` as pgvector's receive function reads it, big endian: int16 dimensions, int16 unused, float4 values. */
export function encodeVector(vector: Float32Array): Buffer {
  const buffer = Buffer.allocUnsafe(4 + 4 * vector.length);
  buffer.writeInt16BE(vector.length, 0);
  buffer.writeInt16BE(0, 2);
  for (let i = 0; i < vector.length; i++) buffer.writeFloatBE(vector[i]!, 4 + 4 * i);
  return buffer;
}
