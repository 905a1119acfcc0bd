import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  dot,
  encodeSparse,
  encodeVector,
  formatSparse,
  limitNonZeros,
  MAX_NON_ZEROS,
  sparseFrom,
} from './sparse.ts';

test('a sparse vector is encoded as pgvector receives it', () => {
  const vector = sparseFrom(
    new Map([
      [7, 0.5],
      [2, 1.5],
      [4, 0],
    ]),
  );
  assert.equal(
    encodeSparse(vector, 10).toString('hex'),
    `${'0000000a'}${'00000002'}${'00000000'}${'00000002'}${'00000007'}${'3fc00000'}${'3f000000'}`,
  );
  assert.equal(formatSparse(vector, 10), '{3:1.5,8:0.5}/10');
  assert.equal(encodeSparse(sparseFrom(new Map()), 10).toString('hex'), '0000000a0000000000000000');
});

test('a dense vector is encoded as pgvector receives it', () => {
  assert.equal(encodeVector(Float32Array.of(1, -2)).toString('hex'), '000200003f800000c0000000');
});

test('the heaviest entries survive the limit', () => {
  const size = MAX_NON_ZEROS + 100;
  const values = Float32Array.from({ length: size }, (_, i) => (i % 2 === 0 ? 2 : 1));
  const kept = limitNonZeros(
    Uint32Array.from({ length: size }, (_, i) => i),
    values,
  );
  assert.equal(kept.dimensions.length, MAX_NON_ZEROS);
  assert.equal(kept.values.filter((value) => value === 2).length, size / 2);
  assert.ok(kept.dimensions.every((dimension, i) => i === 0 || dimension > kept.dimensions[i - 1]!));
});

test('the inner product counts shared dimensions only', () => {
  const a = sparseFrom(new Map([[1, 2], [3, 4], [9, 1]])); // biome-ignore format: a table
  const b = sparseFrom(new Map([[2, 5], [3, 0.5], [9, 3]])); // biome-ignore format: a table
  assert.equal(dot(a, b), 5);
});
