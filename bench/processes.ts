/** The processes of a run: servers, floor and load generator; and what Linux says they cost. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { compiled } from '../scripts/launch.mjs';
import type { LoadOrder, LoadResult } from './load.ts';

const here = import.meta.dirname;
const running = new Set<ChildProcess>();
const START_LIMIT_MS = 120_000;
const STOP_LIMIT_MS = 15_000;

export interface Process {
  child: ChildProcess;
  pid: number;
  url: string;
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}

/** Nothing of the caller's environment: a stray setting would make figures that nobody can repeat. */
const own = { PATH: process.env.PATH, HOME: process.env.HOME, NODE_COMPILE_CACHE: compiled };

function start(file: string, args: string[], env: Record<string, string>, execArgv: string[] = []) {
  const child = fork(file, args, {
    execArgv,
    env: { ...own, ...env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

/** Starts `manushya serve` as `npm start` does, without npm. `started_ms` runs from the fork to the first answer of /healthz. */
export async function startServer(
  env: Record<string, string>,
  args: string[] = [],
): Promise<Process & { started_ms: number }> {
  const port = await freePort();
  const from = performance.now();
  const child = start(
    join(here, '../server/src/main.ts'),
    ['serve', ...args],
    { ...env, PORT: String(port) },
    ['--import', join(here, 'profile-hook.ts')],
  );
  const url = `http://127.0.0.1:${port}`;
  await untilHealthy(child, url);
  return { child, pid: child.pid!, url, started_ms: performance.now() - from };
}

/** Milliseconds from `npm start` to the first answer of /healthz; the server is stopped again. */
export async function startByNpm(env: Record<string, string>): Promise<number> {
  const port = await freePort();
  const from = performance.now();
  const child = spawn('npm', ['start'], {
    cwd: join(here, '..'),
    env: { ...own, ...env, PORT: String(port) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  child.stdout.resume();
  await untilHealthy(child, `http://127.0.0.1:${port}`);
  const started = performance.now() - from;
  // npm itself may end before the server, which has the same output.
  const ended = once(child, 'close');
  child.kill('SIGTERM');
  await ended;
  running.delete(child);
  return started;
}

async function untilHealthy(child: ChildProcess, url: string): Promise<void> {
  const until = performance.now() + START_LIMIT_MS;
  while (!(await isHealthy(url))) {
    if (child.exitCode !== null) throw new Error(`the server ended with code ${child.exitCode}`);
    if (performance.now() > until) throw new Error('the server did not start in time');
    await sleep(10);
  }
}

async function isHealthy(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}

/** Starts `manushya worker`. */
export const startWorker = (env: Record<string, string>): { child: ChildProcess } => ({
  child: start(join(here, '../server/src/main.ts'), ['worker'], env),
});

/** Starts the embeddings server of the scale benchmark; answers its address. */
export async function startEmbeddings(): Promise<{ child: ChildProcess; url: string }> {
  const child = start(join(here, 'scale/embeddings.ts'), [], {});
  const port = await answerOf(child, START_LIMIT_MS);
  return { child, url: `http://127.0.0.1:${port}/v1` };
}

/** What searches while the run does something else. */
export const startSearches = (): ChildProcess => start(join(here, 'scale/searches.ts'), [], {});

export const startFloor = (env: Record<string, string>): Promise<Process> => startHelper('floor.ts', env);

/** It opens the floor's database, which only one process can where that is embedded. */
export const startSearchFloor = (env: Record<string, string>): Promise<Process> =>
  startHelper('search-floor.ts', env);

/** A server of the benchmark's own, from a file beside this one; it says when it is ready. */
export async function startHelper(file: string, env: Record<string, string>): Promise<Process> {
  const port = await freePort();
  const child = start(join(here, file), [], { ...env, PORT: String(port) });
  await answerOf(child, START_LIMIT_MS);
  return { child, pid: child.pid!, url: `http://127.0.0.1:${port}` };
}

export const startLoad = (): ChildProcess => start(join(here, 'load.ts'), [], {});

/** The next message of a child: `{ value }` or `{ error }`. */
async function answerOf(child: ChildProcess, limitMs: number): Promise<unknown> {
  const heard = new AbortController();
  const signal = AbortSignal.any([heard.signal, AbortSignal.timeout(limitMs)]);
  const gone = once(child, 'exit', { signal }).then(() => {
    throw new Error('a process of the run ended before it answered');
  });
  gone.catch(() => {});
  try {
    const [message] = (await Promise.race([once(child, 'message', { signal }), gone])) as [
      { value: unknown; error?: string },
    ];
    if (message.error !== undefined) throw new Error(message.error);
    return message.value;
  } finally {
    heard.abort();
  }
}

export async function ask<T>(child: ChildProcess, message: object, limitMs = 60_000): Promise<T> {
  const answer = answerOf(child, limitMs);
  child.send(message);
  return (await answer) as T;
}

export const load = (child: ChildProcess, order: LoadOrder): Promise<LoadResult> =>
  ask(child, order, order.seconds * 1_000 + 30_000);

export async function stop({ child }: { child: ChildProcess }): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
  await ended;
  clearTimeout(late);
}

/** Ends whatever still runs; for the end of the run, however it comes. */
export function killAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

const TICK_US = 10_000;

/** Processor time a process has used, in microseconds; undefined when it is gone or belongs to another machine. */
export const cpuUs = (pid: number): number | undefined => ticksUs(`/proc/${pid}/stat`);

/** The same of its main thread alone: without garbage collection in the background and the embedded database. */
export const mainThreadUs = (pid: number): number | undefined => ticksUs(`/proc/${pid}/task/${pid}/stat`);

function ticksUs(file: string): number | undefined {
  try {
    const fields = readFileSync(file, 'utf8').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_US;
  } catch {
    return undefined;
  }
}

/** Resident memory in MB. */
export function residentMb(pid: number): number {
  const kb = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Math.round(Number(kb) / 1024);
}
