import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { firstUuidv7, isUuid, uuidv7 } from './ids.ts';

test('ids made in order sort in order, and never run ahead of the clock, however many there are', () => {
  let before = firstUuidv7(Date.now());
  for (let i = 0; i < 300_000; i++) {
    const id = uuidv7();
    if (!(id > before)) assert.fail(`${id} comes after ${before}`);
    before = id;
  }
  assert.ok(before < firstUuidv7(Date.now() + 1));
  assert.match(before, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.ok(isUuid(before));
});

test('ids follow a clock that is set back', () => {
  const ahead = Date.now() + 60_000;
  const clock = mock.method(Date, 'now', () => ahead);
  assert.ok(uuidv7() >= firstUuidv7(ahead));
  clock.mock.restore();
  assert.ok(uuidv7() < firstUuidv7(Date.now() + 1));
});
