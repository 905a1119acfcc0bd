import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCache } from './cache.ts';
import { openShared } from './shared-open.ts';

test('names that somebody makes up drive out nothing that is there, and are few', async () => {
  const shared = await openShared(undefined, false, console as never);
  const cache = createCache<string | undefined>(shared, 'things', 20);
  let loads = 0;
  const get = (key: string, value?: string) =>
    cache.get(key, async () => {
      loads += 1;
      return value;
    });
  await get('real', 'a thing');
  for (let i = 0; i < 100; i++) await get(`made up ${i}`);
  assert.deepEqual([cache.peek('real'), loads], ['a thing', 101]);
  await get('made up 99');
  assert.equal(loads, 101, 'the last of them are known');
  await get('made up 90');
  assert.equal(loads, 102);
  shared.invalidate('things', 'made up 99');
  assert.equal(await get('made up 99', 'made'), 'made');
});

test('what was known is told however old it is, until it is said to be untrue', async () => {
  const shared = { ...(await openShared(undefined, false, console as never)), cacheTtlMs: () => 0 };
  const cache = createCache<string>(shared, 'things', 20);
  await cache.get('a', async () => 'old');
  assert.deepEqual([cache.peek('a'), cache.last('a')], [undefined, 'old']);
  shared.invalidate('things', 'a');
  assert.equal(cache.last('a'), undefined);
});
