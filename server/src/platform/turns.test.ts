import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setImmediate as once } from 'node:timers/promises';
import { takingTurns } from './turns.ts';

it('however many do long work, a short request waits for one slice between two looks at the sockets', async () => {
  let slices = 0;
  let working = 8;
  const work = async () => {
    const others = takingTurns();
    for (let i = 0; i < 5; ) {
      const until = performance.now() + 0.1;
      while (performance.now() < until);
      const turn = others();
      if (!turn) continue;
      i += 1;
      slices += 1;
      await turn;
    }
    working -= 1;
  };
  for (let i = 0; i < 8; i++) void work();
  assert.equal(slices, 8, 'each had its first slice when it began');
  let most = 0;
  while (working > 0) {
    const before = slices;
    await once();
    most = Math.max(most, slices - before);
  }
  assert.equal(slices, 40);
  assert.ok(most <= 2, `${most} slices in one round`);
});
