import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DirectoryLockedError } from './lock.ts';
import { openEmbedded } from './open.ts';

let directory: string;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'embedded-'));
});

after(() => rm(directory, { recursive: true, force: true }));

/** Runs a script in a process of its own, with `openEmbedded` and the arguments at hand. */
function start(script: string, ...args: string[]): ChildProcess & { lines: Promise<string> } {
  const module = JSON.stringify(new URL('./open.ts', import.meta.url).href);
  const source = `import { openEmbedded } from ${module}; const args = process.argv.slice(1); ${script}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let text = '';
  child.stdout.on('data', (data) => {
    text += data;
  });
  child.stderr.on('data', (data) => {
    text += data;
  });
  const lines = new Promise<string>((resolve) => child.on('close', (code) => resolve(`${text}exit ${code}`)));
  return Object.assign(child, { lines });
}

async function waitFor(child: ChildProcess, word: string): Promise<void> {
  let text = '';
  await new Promise<void>((resolve, reject) => {
    child.on('close', () => reject(new Error(`ended before it said ${word}`)));
    child.stdout!.on('data', (data) => {
      text += data;
      if (text.includes(word)) resolve();
    });
  });
}

test('a new database keeps its rows over a clean close', async () => {
  const path = join(directory, 'clean');
  const first = await openEmbedded(path);
  await first.createPool({ max: 1 }).query('CREATE TABLE kept AS SELECT 1 AS x');
  await first.close();
  await first.close();
  const second = await openEmbedded(path);
  const { rows } = await second.createPool({ max: 1 }).query('SELECT x FROM kept');
  assert.deepEqual(rows, [{ x: 1 }]);
  await second.close();
});

test('a killed owner leaves its rows, and the next process takes over', async () => {
  const path = join(directory, 'killed');
  const owner = start(
    `const db = await openEmbedded(args[0]);
     const pool = db.createPool({ max: 4 });
     await pool.query('CREATE TABLE kept (x int)');
     for (let x = 0; x < 500; x++) await pool.query('INSERT INTO kept VALUES ($1)', [x]);
     console.log('written');
     for (;;) await pool.query('INSERT INTO kept VALUES (-1)');`,
    path,
  );
  await waitFor(owner, 'written');
  await assert.rejects(openEmbedded(path), (error: DirectoryLockedError) => {
    assert.ok(error instanceof DirectoryLockedError);
    assert.equal(error.pid, owner.pid);
    return true;
  });
  owner.kill('SIGKILL');
  await owner.lines;
  const db = await openEmbedded(path);
  const pool = db.createPool({ max: 1 });
  const { rows } = await pool.query('SELECT count(*)::int AS n FROM kept WHERE x >= 0');
  assert.equal(rows[0].n, 500);
  await db.vacuum();
  await db.close();
});

test('what changed much is vacuumed a table at a time, and what did not is left alone', async () => {
  const db = await openEmbedded('memory://');
  const pool = db.createPool({ max: 2 });
  for (const name of ['one', 'two', 'three', 'calm'])
    await pool.query(`CREATE TABLE ${name} AS SELECT x FROM generate_series(1, 2000) AS x`);
  const names = ['one', 'two', 'three'];
  const of = async (name: string) => {
    const { rows } = await pool.query(
      `SELECT n_live_tup::int AS live, n_dead_tup::int AS dead, vacuum_count::int AS vacuums
       FROM pg_stat_user_tables WHERE relname = $1`,
      [name],
    );
    return rows[0];
  };
  // What a table counts is written within a second.
  const until = async (isSo: (counts: { live: number; dead: number }) => boolean) => {
    for (const name of [...names, 'calm']) while (!isSo(await of(name))) await sleep(50);
  };
  await until(({ live }) => live === 2000);
  // The first time each is new, and so it has changed much.
  await db.vacuum();
  for (const name of names) await pool.query(`DELETE FROM ${name} WHERE x % 2 = 0`);
  await pool.query('DELETE FROM calm WHERE x < 10');
  await until(({ dead }) => dead > 0);
  let turns = 0;
  let over = false;
  const vacuuming = db.vacuum().then(() => {
    over = true;
  });
  while (!over) {
    await pool.query('SELECT 1');
    turns += 1;
  }
  await vacuuming;
  for (const name of names) assert.deepEqual(await of(name), { live: 1000, dead: 0, vacuums: 2 });
  assert.deepEqual(await of('calm'), { live: 1991, dead: 9, vacuums: 1 });
  assert.ok(turns >= 3, `${turns} turns of others`);
  await db.checkpoint();
  await db.close();
});

test('a process with open pools exits after close', async () => {
  const script = `
    const db = await openEmbedded('memory://');
    const pool = db.createPool({ max: 4 });
    await Promise.all([1, 2, 3].map((x) => pool.query('SELECT $1::int', [x])));
    await db.close();
    console.log('closed');`;
  assert.equal(await start(script).lines, 'closed\nexit 0');
});

test('close cuts off a client that is still checked out', async () => {
  const db = await openEmbedded('memory://', { closeGraceMs: 50 });
  const client = await db.createPool({ max: 1 }).connect();
  await client.query('BEGIN');
  await db.close();
  await assert.rejects(client.query('SELECT 1'));
});

test('queries under way at close are answered', async () => {
  const db = await openEmbedded('memory://');
  const pool = db.createPool({ max: 2 });
  const answers = Promise.all([1, 2, 3, 4].map((x) => pool.query('SELECT $1::int AS x', [x])));
  await db.close();
  assert.equal((await answers).length, 4);
});

test('the death of the backend fails what runs, what waits and what comes later, with a clear error', async () => {
  const db = await openEmbedded('memory://');
  const pool = db.createPool({ max: 3 });
  const idle = await pool.connect();
  const outcomes = await Promise.allSettled([
    pool.query('SET exit_on_error = on; SELECT 1 / 0'),
    pool.query('SELECT 1'),
  ]);
  assert.equal(outcomes[0].status, 'rejected');
  await assert.rejects(idle.query('SELECT 1'));
  idle.release(true);
  await assert.rejects(pool.query('SELECT 1'), /embedded database/);
  await assert.rejects(db.createPool({ max: 1 }).connect(), /embedded database/);
  await db.close();
});

test('a directory that cannot be opened gives the reason and no lock', async () => {
  const path = join(directory, 'broken');
  const first = await openEmbedded(path);
  await first.close();
  await rm(join(path, 'data', 'global'), { recursive: true });
  for (let i = 0; i < 2; i++) {
    const broken = await openEmbedded(path);
    const pool = broken.createPool({ max: 2 });
    const asked = [pool.query('SELECT 1'), pool.query('SELECT 2')];
    for (const query of asked) await assert.rejects(query, /^Error: The embedded database failed: /);
    await assert.rejects(pool.query('SELECT 3'), /The embedded database failed/);
    await broken.close();
  }
});
