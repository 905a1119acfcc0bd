import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  analyzeDocument,
  analyzeQuery,
  buildQueryVectors,
  type CollectionStats,
  type Space,
} from './analyze.ts';
import { calibrate } from './calibrate.ts';
import { fuse } from './fuse.ts';
import { type Candidate, rerank } from './rank.ts';
import { dot } from './sparse.ts';

const MEMORIES = [
  'Client meeting notes: Discussed retirement planning',
  'The user prefers dark mode interfaces',
  'My name is John and I live in Berlin',
  'Planning a birthday party for Anna in June',
  'Anna wants to travel to Japan before she retires',
  'The quarterly report shows that revenue grew by twelve percent',
  'The dashboard API answers in 250 ms after caching',
  'Allergic to peanuts and shellfish',
  'Deployed version 2.4 to the staging cluster on Friday',
  'The user is learning to play the cello',
];

function statsOf(texts: string[]): CollectionStats {
  const df = { words: new Map<number, number>(), trigrams: new Map<number, number>() };
  for (const text of texts) {
    const vectors = analyzeDocument(text);
    for (const space of ['words', 'trigrams'] as const) {
      for (const d of vectors[space].dimensions) df[space].set(d, (df[space].get(d) ?? 0) + 1);
    }
  }
  return { documents: texts.length, df: (space: Space, d: number) => df[space].get(d) ?? 0 };
}

function search(queryText: string, texts: string[]) {
  const query = analyzeQuery(queryText);
  const stats = statsOf(texts);
  const ranked = rerank(
    query,
    stats,
    texts.map((text, i) => ({ id: String(i), text })),
  );
  const scores = calibrate(query, stats, ranked);
  return ranked.map(({ candidate, parts }, i) => ({ text: candidate.text, score: scores[i]!, parts }));
}

test('scores mean the same in a tenant of ten, two and one memories', () => {
  for (const count of [10, 2]) {
    const planning = search('retirement planning', MEMORIES.slice(0, count));
    assert.equal(planning[0]!.text, MEMORIES[0]);
    assert.ok(planning[0]!.score >= 0.9);
    assert.ok(planning[1]!.score < 0.5);
    const preferences = search('user interface preferences', MEMORIES.slice(0, count));
    assert.equal(preferences[0]!.text, MEMORIES[1]);
    assert.ok(preferences[0]!.score >= 0.9);
  }
  assert.ok(search('retirement planning', [MEMORIES[0]!])[0]!.score >= 0.9);
  assert.ok(search('user interface preferences', [MEMORIES[1]!])[0]!.score >= 0.9);
});

test('a query that nothing answers scores near zero in a tenant of any size', () => {
  for (const count of [10, 2, 1]) {
    for (const { score } of search('weather forecast tomorrow', MEMORIES.slice(0, count)))
      assert.ok(score < 0.2);
  }
  assert.ok(search('retirement planning', [MEMORIES[7]!])[0]!.score < 0.2);
});

test('a long question and misspelt words still find their memory', () => {
  const long = search(
    'what did we discuss about the retirement plan of the client in the meeting?',
    MEMORIES,
  );
  assert.equal(long[0]!.text, MEMORIES[0]);
  assert.ok(long[0]!.score >= 0.9);
  const typos = search('planing for retirment', MEMORIES);
  assert.equal(typos[0]!.text, MEMORIES[0]);
  assert.ok(typos[0]!.score >= 0.6);
  assert.equal(search('Where does the user live?', MEMORIES)[0]!.parts.matched.length, 1);
});

test('an empty query scores nothing', () => {
  for (const text of ['', '?!', '😀']) {
    assert.ok(search(text, MEMORIES).every(({ score }) => score === 0));
  }
  assert.deepEqual(calibrate(analyzeQuery('x'), statsOf([]), []), []);
});

test('a CJK question is judged like an English one', () => {
  const texts = ['客户会议讨论了退休计划', '我喜欢喝红茶', '他住在柏林'];
  const [first, second] = search('退休计划', texts);
  assert.equal(first!.text, texts[0]);
  assert.ok(first!.score >= 0.9 && second!.score < 0.2);
});

test('a long text is judged by its best forty words', () => {
  const filler = Array.from({ length: 200 }, (_, i) => `filler${i}x`).join(' ');
  const near = search('retirement planning', [`${filler} retirement planning ${filler}`]);
  const far = search('retirement planning', [`retirement ${filler} planning`]);
  assert.ok(near[0]!.score >= 0.9 && far[0]!.score < 0.6);
});

test('scores computed from the text equal those of the stored vectors', () => {
  const query = analyzeQuery('retirement planing for the client client');
  const stats = statsOf(MEMORIES);
  const vectors = buildQueryVectors(query, stats);
  for (const text of MEMORIES) {
    const stored = analyzeDocument(text);
    const [words, trigrams] = [dot(stored.words, vectors.words), dot(stored.trigrams, vectors.trigrams)];
    const [given] = rerank(query, stats, [{ id: 'a', text, words, trigrams }], vectors);
    const [computed] = rerank(query, stats, [{ id: 'a', text }]);
    assert.ok(Math.abs(given!.score - computed!.score) < 1e-4);
  }
});

test('turns around a hit gain only within one conversation and close in time', () => {
  const query = analyzeQuery('retirement planning');
  const stats = statsOf(MEMORIES);
  const neighbours = (second: Partial<Candidate>) => {
    const first = { id: 'a', text: MEMORIES[0]!, role: 'user', session_id: 's', turn: 4, at: 0 };
    const rows = [
      first,
      { ...first, id: 'b', text: 'Yes, exactly that', turn: 5, role: 'assistant', ...second },
    ];
    return rerank(query, stats, rows).find(({ candidate }) => candidate.id === 'b')!.parts.neighbours;
  };
  assert.ok(neighbours({}) > 0);
  assert.ok(neighbours({ turn: 6 }) < neighbours({}));
  for (const other of [{ session_id: 't' }, { turn: 8 }, { role: null }, { at: 3_600_000 }]) {
    assert.equal(neighbours(other), 0);
  }
});

test("the author's own turns come first for a question in the first person", () => {
  const rows = ['assistant', 'user'].map((role, i) => ({ id: String(i), text: 'Plan the retirement', role }));
  const order = (text: string) => rerank(analyzeQuery(text), statsOf(MEMORIES), rows)[0]!.candidate.role;
  assert.equal(order('how do I plan my retirement'), 'user');
  assert.equal(order('how does one plan retirement'), 'assistant');
});

test('an embedding adds and never lowers; with weight 0 it changes nothing', () => {
  const query = analyzeQuery('retirement planning');
  const stats = statsOf(MEMORIES);
  const ranked = rerank(
    query,
    stats,
    MEMORIES.map((text, i) => ({ id: String(i), text })),
  );
  const cosines = new Map([['7', 0.9]]);
  assert.deepEqual(fuse(ranked, [{ model: 'm', cosines, weight: 0 }]), ranked);
  const fused = fuse(ranked, [{ model: 'm', cosines, weight: 1 }]);
  for (const { candidate, score } of ranked) {
    assert.ok(fused.find((entry) => entry.candidate.id === candidate.id)!.score >= score);
  }
  assert.ok(fused.slice(0, 2).some(({ candidate }) => candidate.id === '7'));
  const unheard = analyzeQuery('weather forecast');
  const onlyDense = fuse(rerank(unheard, stats, [{ id: '7', text: MEMORIES[7]! }]), [
    { model: 'm', cosines, weight: 1 },
  ]);
  assert.ok(calibrate(unheard, stats, onlyDense)[0]! > 0.8);
});
