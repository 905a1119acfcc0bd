import assert from 'node:assert/strict';
import { test } from 'node:test';
import { engine } from './harness.ts';
import { isolationTrial } from './isolation-driver.ts';

test('tenants with nearly the same texts never see anything of each other, in answers, citations, logs or metrics', async () => {
  const seed = Math.floor(Math.random() * 1_000_000);
  const { problems, figures } = await isolationTrial({
    engine,
    tenants: 10,
    requests: 800,
    seed,
    databaseUrl: process.env.DATABASE_URL,
    redisUrl: process.env.REDIS_URL,
  });
  const again = `node server/test/isolation-driver.ts --tenants 10 --requests 800 --engine ${engine} --seed ${seed}`;
  assert.deepEqual(problems, [], `again with: ${again}\n${JSON.stringify(figures)}`);
});
