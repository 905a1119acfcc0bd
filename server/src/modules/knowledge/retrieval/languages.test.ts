import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Sample, samples } from '#test/language-samples.ts';
import {
  analyzeDocument,
  analyzeQuery,
  buildQueryVectors,
  type CollectionStats,
  type Space,
} from './analyze.ts';
import { calibrate } from './calibrate.ts';
import { rerank } from './rank.ts';
import { dot } from './sparse.ts';

/** A collection in memory: what the database does with the same vectors. */
function collection(texts: string[]) {
  const rows = texts.map((text, i) => ({ id: String(i), text, ...analyzeDocument(text) }));
  const df: Record<Space, Map<number, number>> = { words: new Map(), trigrams: new Map() };
  for (const row of rows)
    for (const space of ['words', 'trigrams'] as const)
      for (const dimension of row[space].dimensions)
        df[space].set(dimension, (df[space].get(dimension) ?? 0) + 1);
  const stats: CollectionStats = {
    documents: rows.length,
    df: (space, dimension) => df[space].get(dimension) ?? 0,
  };
  return (question: string) => {
    const query = analyzeQuery(question);
    const vectors = buildQueryVectors(query, stats);
    const candidates = rows.map(({ id, text, words, trigrams }) => ({
      id,
      text,
      words: dot(words, vectors.words),
      trigrams: dot(trigrams, vectors.trigrams),
    }));
    const ranked = rerank(query, stats, candidates, vectors);
    const scores = calibrate(query, stats, ranked);
    return ranked.map(({ candidate }, i) => ({ index: Number(candidate.id), score: scores[i]! }));
  };
}

const shown = ({ memories }: Sample, found: { index: number; score: number }[]) =>
  found.slice(0, 3).map(({ index, score }) => `${score.toFixed(2)} ${memories[index]}`);

for (const sample of samples) {
  describe(sample.language, () => {
    const search = collection(sample.memories);
    for (const [question, answer, least] of sample.questions) {
      it(`finds the answer to ${question}`, () => {
        const found = search(question);
        assert.equal(found[0]!.index, answer, shown(sample, found).join('\n'));
        assert.ok(found[0]!.score >= least, shown(sample, found).join('\n'));
      });
    }
    for (const question of sample.unrelated) {
      it(`finds nothing for ${question}`, () => {
        const found = search(question);
        assert.ok(found[0]!.score < 0.6, shown(sample, found).join('\n'));
      });
    }
  });
}
