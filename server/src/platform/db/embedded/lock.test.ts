import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { DirectoryLockedError, lockDirectory } from './lock.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'lock-'));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

const CONTENDER = `
  import { lockDirectory } from ${JSON.stringify(new URL('./lock.ts', import.meta.url).href)};
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, Number(process.argv[2]) - Date.now())));
  try {
    await lockDirectory(process.argv[1]);
    console.log('won');
  } catch (error) {
    console.log(error.name);
  }
  process.stdin.on('end', () => process.exit()).resume();
`;

/** Starts a process that tries for the lock at a given moment; it holds what it has until `stop`. */
function contend(at: number): { outcome: Promise<string>; stop: (signal?: NodeJS.Signals) => Promise<void> } {
  const child = spawn(process.execPath, ['--input-type=module', '-e', CONTENDER, directory, String(at)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const gone = new Promise<void>((resolve) => child.on('exit', () => resolve()));
  const outcome = new Promise<string>((resolve) =>
    child.stdout.on('data', (data) => resolve(String(data).trim())),
  );
  const stop = (signal: NodeJS.Signals = 'SIGKILL') => {
    child.kill(signal);
    return gone;
  };
  return { outcome, stop };
}

async function race(contenders: number): Promise<string[]> {
  const at = Date.now() + 1_000;
  const all = Array.from({ length: contenders }, () => contend(at));
  const outcomes = await Promise.all(all.map(({ outcome }) => outcome));
  await Promise.all(all.map(({ stop }) => stop()));
  return outcomes.sort();
}

test('a held directory names its holder in one line', async () => {
  const lock = await lockDirectory(directory);
  await assert.rejects(lockDirectory(directory), (error: DirectoryLockedError) => {
    assert.ok(error instanceof DirectoryLockedError);
    assert.equal(error.pid, process.pid);
    assert.ok(error.message.includes(directory) && error.message.includes(String(process.pid)));
    assert.ok(!error.message.includes('\n'));
    return true;
  });
  await lock.release();
  await (await lockDirectory(directory)).release();
  assert.deepEqual(await readdir(directory), []);
});

test('of many starters exactly one wins, on a free lock and on a dead one', async () => {
  const expected = [...Array.from({ length: 5 }, () => 'DirectoryLockedError'), 'won'];
  for (let round = 0; round < 3; round++) assert.deepEqual(await race(6), expected, `round ${round}`);
});

test('the lock of a killed process is taken over', async () => {
  const first = contend(0);
  assert.equal(await first.outcome, 'won');
  await assert.rejects(lockDirectory(directory), DirectoryLockedError);
  await first.stop('SIGKILL');
  const lock = await lockDirectory(directory);
  assert.deepEqual(await readdir(directory), ['lock']);
  await lock.release();
});

test('a process that got the pid of a dead holder is not taken for it', {
  skip: process.platform !== 'linux',
}, async () => {
  const stale = { pid: process.pid, start: 'another boot/1', nonce: 'stale' };
  await writeFile(join(directory, 'lock'), JSON.stringify(stale));
  const lock = await lockDirectory(directory);
  assert.notEqual(JSON.parse(await readFile(join(directory, 'lock'), 'utf8')).nonce, 'stale');
  await lock.release();
});

test('a successor that died before it was in place is succeeded too', async () => {
  const dead = { pid: 2 ** 22 + 1, start: null };
  await writeFile(join(directory, 'lock'), JSON.stringify({ ...dead, nonce: 'one' }));
  await writeFile(join(directory, 'lock.after-one'), JSON.stringify({ ...dead, nonce: 'two' }));
  const lock = await lockDirectory(directory);
  assert.deepEqual(await readdir(directory), ['lock']);
  await lock.release();
});

test('release leaves the lock of a later holder alone', async () => {
  const lock = await lockDirectory(directory);
  await writeFile(join(directory, 'lock'), JSON.stringify({ pid: process.pid, start: null, nonce: 'later' }));
  await lock.release();
  assert.deepEqual(await readdir(directory), ['lock']);
});

test('what a process left that was killed while it took the lock is cleared away, and nobody else’s', async () => {
  const dead = { pid: 2 ** 22 + 1, start: null, nonce: 'dead' };
  await writeFile(join(directory, 'lock.draft-dead'), JSON.stringify(dead));
  await writeFile(join(directory, 'lock.draft-living'), JSON.stringify({ ...dead, pid: process.pid }));
  await writeFile(join(directory, 'lock.draft-begun'), '{"pid"');
  await lockDirectory(directory);
  assert.deepEqual((await readdir(directory)).sort(), ['lock', 'lock.draft-begun', 'lock.draft-living']);
});
