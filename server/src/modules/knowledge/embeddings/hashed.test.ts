import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { samples } from '../../../../test/language-samples.ts';
import { HASHED_DIMENSIONS, hashedEmbedding } from './hashed.ts';

const cosine = (a: string, b: string) => {
  const [x, y] = [hashedEmbedding(a), hashedEmbedding(b)];
  return x.reduce((sum, value, i) => sum + value * y[i]!, 0);
};

test('every text has a vector of length one, the same each time', () => {
  const hostile = ['', ' ', '😀', '\u0301', '\ud800', '​', '12', 'x'.repeat(1_000_000), '东京'.repeat(1000)];
  const check = (text: string) => {
    const vector = hashedEmbedding(text);
    assert.equal(vector.length, HASHED_DIMENSIONS);
    assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-4);
    assert.deepEqual(hashedEmbedding(text), vector);
  };
  hostile.forEach(check);
  fc.assert(fc.property(fc.string({ unit: 'binary' }), check));
});

test('texts alike in words or spelling are near, others are not', () => {
  const text = 'The user prefers dark mode interfaces';
  assert.ok(cosine(text, text.toUpperCase()) > 0.999);
  assert.ok(cosine(text, 'The user preferred a dark interface') > 0.6);
  assert.ok(Math.abs(cosine(text, 'Allergic to peanuts and shellfish')) < 0.25);
  assert.ok(cosine('😀', '🚀') < 0.9);
});

const PINNED = [83, '0.2677'];

test('the vector of a text is pinned, since stored ones must stay comparable', () => {
  const vector = hashedEmbedding('retirement planning');
  const strongest = vector.reduce(
    (best, value, i) => (Math.abs(value) > Math.abs(vector[best]!) ? i : best),
    0,
  );
  assert.deepEqual([strongest, vector[strongest]!.toFixed(4)], PINNED);
});

test('a vector does not depend on the texts embedded before it, in whatever language', async () => {
  const anew: string = './hashed.ts?anew';
  const { hashedEmbedding: fresh } = (await import(anew)) as { hashedEmbedding: typeof hashedEmbedding };
  for (const { language, memories } of samples) {
    const [first] = memories;
    // Each word is stemmed as an English one where it stands in an English text.
    for (const word of first!.split(' '))
      hashedEmbedding(`they said that it is the ${word} and nothing else of theirs`);
    assert.deepEqual(hashedEmbedding(first!), fresh(first!), language);
  }
});
