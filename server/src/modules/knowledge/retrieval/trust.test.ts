import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Actor, App } from '#platform/context.ts';
import { fuse, unrelatedAmong } from './fuse.ts';
import type { Ranked } from './rank.ts';
import { reordered } from './second-reading.ts';
import { agreementOf, learnTrust } from './trust.ts';

/** The same sequence every time: nothing here is left to chance. */
function newDice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const parts = { words: 1, trigrams: 0, pairs: 0, neighbours: 0, role: 0, preference: 0, matched: [] };
/** `count` texts that words found, best first. */
const lexical = (count: number): Ranked[] =>
  Array.from({ length: count }, (_, i) => ({
    candidate: { id: `t${i}`, text: 'text', words: 1 },
    score: 1 - i / (2 * count),
    parts,
  }));
const cosinesOf = (found: Ranked[], cosine: (i: number) => number) =>
  new Map(found.map(({ candidate }, i) => [candidate.id, cosine(i)]));
const askerIn = (app: App, identity_id: string, tenant = 'a') => ({
  app,
  tenant,
  actor: { identity_id } as Actor,
});
const someApp = () => askerIn({} as App, 'ann');

describe('trust in a model', () => {
  it('is lost after a few searches by random vectors, and at once by constant ones', () => {
    const [app, dice, found] = [someApp(), newDice(1), lexical(64)];
    let random = 1;
    for (let i = 0; i < 10; i++) random = learnTrust(app, 'random', found, cosinesOf(found, dice));
    assert.ok(random < 0.1, `${random}`);
    assert.ok(
      learnTrust(
        app,
        'constant',
        found,
        cosinesOf(found, () => 0.9),
      ) < 0.1,
    );
  });

  it('is kept by vectors that agree with words more often than by chance', () => {
    const [app, dice, found] = [someApp(), newDice(2), lexical(64)];
    for (let i = 0; i < 50; i++) {
      const trust = learnTrust(
        app,
        'good',
        found,
        cosinesOf(found, (place) => dice() + (place < 16 ? 0.6 : 0)),
      );
      assert.ok(trust > 0.9, `${trust} at search ${i}`);
    }
  });

  it('comes back, and goes, with a server that changes', () => {
    const [app, dice, found] = [someApp(), newDice(3), lexical(64)];
    const ask = (knows: boolean) =>
      learnTrust(
        app,
        'm',
        found,
        cosinesOf(found, (place) => dice() + (knows && place < 16 ? 1 : 0)),
      );
    let trust = 1;
    for (let i = 0; i < 100; i++) trust = ask(true);
    assert.equal(trust, 1);
    for (let i = 0; i < 300; i++) trust = ask(false);
    assert.equal(trust, 0);
    for (let i = 0; i < 200; i++) trust = ask(true);
    assert.equal(trust, 1);
  });

  it('is no other asker’s to take away, in the same tenant or another', () => {
    const found = lexical(64);
    const [good, contrary] = [cosinesOf(found, (i) => 1 - i / 64), cosinesOf(found, (i) => i / 64)];
    for (const before of [0, 500]) {
      const app = {} as App;
      const [ann, bob, eve] = [askerIn(app, 'ann'), askerIn(app, 'ann', 'b'), askerIn(app, 'eve')];
      for (let i = 0; i < before; i++) learnTrust(ann, 'm', found, good);
      for (let i = 0; i < 200; i++) learnTrust(eve, 'm', found, contrary);
      assert.equal(learnTrust(eve, 'm', found, contrary), 0);
      assert.deepEqual([learnTrust(ann, 'm', found, good), learnTrust(bob, 'm', found, good)], [1, 1]);
    }
  });

  it('is not touched by searches that find too little to tell', () => {
    const [app, found] = [someApp(), lexical(11)];
    assert.equal(agreementOf(found, new Map()), undefined);
    assert.equal(learnTrust(app, 'm', found, new Map()), 1);
  });

  it('takes texts the model finds far for chance, and passes over those found by vectors alone', () => {
    const found = lexical(16);
    const near = new Map([['t0', 0.8]]);
    assert.ok(agreementOf(found, near)!.agreement > 0);
    assert.equal(agreementOf(found, new Map())!.agreement, 0);
    const alone = { candidate: { id: 'v', text: 'text' }, score: 2, parts };
    assert.deepEqual(agreementOf([alone, ...found], near), agreementOf(found, near));
  });
});

describe('the scale of a model', () => {
  it('begins where its unrelated texts end', () => {
    assert.equal(unrelatedAmong([0.9, 0.2], 100), 0.3);
    const [few, many] = [Array.from({ length: 20 }, (_, i) => 0.95 - i / 100), 100];
    assert.equal(unrelatedAmong(few, many), few[10]);
    assert.equal(unrelatedAmong(few, 20), few[19]);
  });

  it('lets vectors that are all alike move nothing', () => {
    const found = lexical(20);
    const cosines = cosinesOf(found, () => 1);
    const unrelated = unrelatedAmong([...cosines.values()], 20);
    const fused = fuse(found, [{ model: 'm', cosines, weight: 1, unrelated }]);
    assert.deepEqual(
      fused.map(({ candidate, score }) => [candidate.id, score]),
      found.map(({ candidate, score }) => [candidate.id, score]),
    );
  });
});

describe('an order by a reranker', () => {
  const order = lexical(4);
  const said = (...relevances: number[]) => new Map(relevances.map((one, i) => [order[i]!, one]));
  const ids = (rows: Ranked[]) => rows.map(({ candidate }) => candidate.id);

  it('is its own among what it read, and comes before the rest', () => {
    const rows = reordered(order, said(0.1, 0.9, 0.5), { name: 'm', trust: 1 });
    assert.deepEqual(ids(rows), ['t1', 't2', 't0', 't3']);
    assert.equal(rows[0]!.score, order[0]!.score);
  });

  it('changes nothing when it says the same of all, or is not trusted', () => {
    for (const [relevances, trust] of [
      [said(0.5, 0.5, 0.5), 1],
      [said(0.1, 0.9, 0.5), 0],
    ] as const) {
      const rows = reordered(order, relevances, { name: 'm', trust });
      assert.deepEqual(
        rows.map(({ candidate, score }) => [candidate.id, score]),
        order.map(({ candidate, score }) => [candidate.id, score]),
      );
    }
  });
});
