import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crashTrial } from './crash-driver.ts';
import { engine } from './harness.ts';

test('kill -9 of server and worker under write load loses nothing, doubles nothing and leaves no work behind', {
  timeout: 300_000,
}, async () => {
  const seed = Math.floor(Math.random() * 1_000_000);
  const { problems, figures } = await crashTrial({
    engine,
    kills: 4,
    seed,
    clients: 6,
    databaseUrl: process.env.DATABASE_URL,
    redisUrl: process.env.REDIS_URL,
  });
  const again = `node server/test/crash-driver.ts --kills 4 --engine ${engine} --seed ${seed}`;
  assert.deepEqual(problems, [], `again with: ${again}\n${JSON.stringify(figures)}`);
  assert.ok(Number(figures.memories) > 0 && Number(figures.documents) > 0, 'the load wrote something');
});
