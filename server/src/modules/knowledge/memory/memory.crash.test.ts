import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readConfig } from '#platform/config.ts';
import { sql } from '#platform/db/sql.ts';
import { createLog } from '#platform/log.ts';
import { environment, victimsOf } from '#test/crash/installation.ts';
import type { Victim } from '#test/crash/processes.ts';
import { type Random, seeded } from '#test/crash/random.ts';
import { emptyDatabase, engine, eventually, newDataDir } from '#test/harness.ts';
import { start } from '../../../app.ts';

// Server and worker are killed with SIGKILL while files are uploaded and imported, memories encrypted and erased, and keys
// rotated. Each must end as if nobody had been killed.

const seed = Math.floor(Math.random() * 1_000_000);
const random: Random = seeded(seed);
const directory = newDataDir();
let env: Record<string, string>;
let victims: Victim[];
let address: string;
let token: string;
let tenant: string;

before(async () => {
  const databaseUrl = process.env.DATABASE_URL;
  if (engine === 'postgres') await emptyDatabase(databaseUrl!);
  const options = { engine, kills: 0, seed, clients: 0, databaseUrl, redisUrl: process.env.REDIS_URL };
  env = await environment(options, directory);
  address = `http://127.0.0.1:${env.PORT}`;
  victims = victimsOf(engine, env, address);
  await startAll();
  const { access_token, identity } = await ask('POST', '/v1/identity/', {
    external_id: 'ann',
    role: 'admin',
  });
  token = access_token;
  tenant = identity.tenant_id;
});
after(async () => {
  for (const victim of victims) await victim.kill();
  rmSync(directory, { recursive: true, force: true });
});

async function startAll(): Promise<void> {
  for (const victim of victims) victim.start();
  for (const victim of victims) await victim.ready();
}

async function killAll(): Promise<void> {
  await Promise.all(victims.map((victim) => victim.kill()));
  await startAll();
}

async function ask(method: string, path: string, body?: unknown): Promise<any> {
  const reply = await fetch(`${address}${path}`, {
    method,
    headers: {
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  assert.ok(reply.ok, `${method} ${path}: ${reply.status} ${text} (seed ${seed})`);
  return text.startsWith('{') && text.includes('\n') ? text : JSON.parse(text);
}

const exported = async (): Promise<any[]> => {
  const reply = await fetch(`${address}/v1/memory/export`, { headers: { authorization: `Bearer ${token}` } });
  return (await reply.text())
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
};

/** Kills everything again and again, each time a moment after it is ready, while something is under way. */
async function killWhile(kills: number, isGoing: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < kills && (await isGoing()); i++) {
    await sleep(random.between(0, 250));
    await killAll();
  }
}

/** On a busy machine a process takes long to start. */
const patient = { timeout: 300_000 };

const count = 2_000;
const line = (i: number): string =>
  i % 100 === 99
    ? '{"text":"broken'
    : JSON.stringify({
        text: `memory ${i} ${'of some length '.repeat(6)}`,
        type: 'note',
        id: `row-${i}`,
        ...(i % 10 === 0 ? { sensitive: true } : {}),
      });
const file = Buffer.from(`${Array.from({ length: count }, (_, i) => line(i)).join('\n')}\n`);
const valid = count - count / 100;

test(
  'an upload that is killed goes on where it was, and its import makes every memory once',
  patient,
  async () => {
    const part = Math.floor(file.length * 0.75);
    const sending = request(`${address}/v1/memory/import`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/x-ndjson',
        'content-length': file.length,
      },
    });
    sending.on('error', () => {});
    sending.write(file.subarray(0, part));
    const uploading = async () => (await ask('GET', '/v1/memory/imports?status=uploading'))[0];
    await eventually('the first piece', async () => (await uploading())?.received_bytes > 0);
    await killAll();
    const begun = await uploading();
    const { received_bytes, status_url } = begun;
    assert.ok(received_bytes > 0 && received_bytes <= part);
    const rest = await fetch(`${address}${status_url}?offset=${received_bytes}`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/x-ndjson' },
      body: file.subarray(received_bytes),
    });
    assert.equal(rest.status, 202, await rest.text());
    const state = () => ask('GET', status_url);
    await killWhile(1, async () => ['queued', 'processing'].includes((await state()).status));
    const done = await eventually(
      'the import',
      async () => {
        const now = await state();
        return now.status === 'succeeded' && now;
      },
      90_000,
    );
    assert.deepEqual(
      [done.received_bytes, done.processed, done.created, done.updated, done.failed],
      [file.length, count, valid, 0, count / 100],
      `seed ${seed}`,
    );
    const texts = (await exported()).map(({ text }) => Number(/^memory (\d+) /.exec(text)![1]));
    assert.deepEqual(
      texts,
      Array.from({ length: count }, (_, i) => i).filter((i) => i % 100 !== 99),
      `seed ${seed}`,
    );
  },
);

test('an encryption by type that is killed encrypts all, once, and says how many', patient, async () => {
  const before = await exported();
  const path = '/v1/admin/memory/sensitive-types';
  await ask('PUT', path, { types: ['note'] });
  const state = async () => (await ask('GET', path)).encryption;
  await killWhile(2, async () => (await state()).status === 'running');
  const done = await eventually(
    'the encryption',
    async () => {
      const now = await state();
      return now.status === 'completed' && now;
    },
    90_000,
  );
  const plain = before.filter(({ sensitive }) => !sensitive).length;
  assert.deepEqual([done.found, done.encrypted], [plain, plain], `seed ${seed}`);
  const after = before.map((line) => ({ ...line, sensitive: true }));
  assert.deepEqual(await exported(), after, `seed ${seed}`);
});

test('a rotation that is killed leaves no text under the former key, and loses none', patient, async () => {
  const before = await exported();
  await ask('POST', '/v1/admin/encryption/rotate');
  await killWhile(1, async () => true);
  assert.deepEqual(await exported(), before);
  await inProcess(async (app) => {
    const left = async () =>
      (
        await app.database.operator.rows(sql`
          select 1 from memories m join data_keys k on k.tenant_id = m.tenant_id and k.id = m.key_id
          where m.tenant_id = ${tenant} and k.retired_at is not null limit 1`)
      ).length;
    await eventually('the re-encryption', async () => (await left()) === 0, 60_000);
  });
  await startAll();
  assert.deepEqual(await exported(), before);
});

test('an erasure that is killed erases all, once, and says how many', patient, async () => {
  const begun = await ask('POST', '/v1/memory/erase', {
    identity_id: (await ask('GET', '/v1/identity/me')).id,
  });
  const state = () => ask('GET', begun.status_url);
  await killWhile(1, async () => (await state()).status === 'running');
  const done = await eventually(
    'the erasure',
    async () => {
      const now = await state();
      return now.status === 'completed' && now;
    },
    90_000,
  );
  assert.deepEqual([done.counts.memories, done.is_verified], [valid, true], `seed ${seed}`);
  assert.deepEqual(await exported(), []);
  await inProcess(async (app) => {
    const { operator } = app.database;
    const [memories, vectors, words, erased, stones] = await operator.batch([
      sql`select 1 from memories where tenant_id = ${tenant}`,
      sql`select 1 from memory_vectors where tenant_id = ${tenant}`,
      sql`select 1 from term_counts where tenant_id = ${tenant} and scope = 'memory'
        union all select 1 from term_changes where tenant_id = ${tenant} and scope = 'memory'`,
      sql`select 1 from memory_erased where tenant_id = ${tenant}`,
      sql`select 1 from memory_tombstones where tenant_id = ${tenant}`,
    ]);
    assert.deepEqual(
      [memories, vectors, words, erased, stones].map(({ rows }) => rows.length),
      [0, 0, 0, valid, valid],
      `seed ${seed}`,
    );
  });
});

/** Looks into the database. The embedded one has one process: the victims give way to this one for that time. */
async function inProcess(
  look: (app: Awaited<ReturnType<typeof start>>['app']) => Promise<void>,
): Promise<void> {
  for (const victim of victims) await victim.stop();
  const running = await start(readConfig({ ...env, LOG_LEVEL: 'fatal' }), createLog('fatal'), {
    serve: false,
    work: true,
  });
  try {
    await look(running.app);
  } finally {
    await running.stop();
  }
}
