import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { program, surroundings } from '../command.ts';

const readyWithinMs = 60_000;

/** A real process of the server's own command line, to be killed and started again. */
export interface Victim {
  readonly name: string;
  start(): void;
  /** Waits until it says it is ready. @throws when it ended by itself */
  ready(): Promise<void>;
  /** `kill -9`, and waits until the process is gone. */
  kill(): Promise<void>;
  /** Sends it a signal; resolves with its exit code when it is gone. */
  tell(signal: NodeJS.Signals): Promise<number | null>;
  /** Asks it to end; answers its exit code, null when it had to be killed. */
  stop(): Promise<number | null>;
  /** The last lines it logged, over all its lives. */
  lines(): string[];
  /** How long each start took until ready, in ms. */
  readonly startsMs: number[];
}

/**
 * @param isReady asked again and again while the process starts
 * @param hear told every whole line it logs
 */
export function createVictim(
  name: string,
  args: string[],
  env: Record<string, string>,
  isReady: (logged: string) => Promise<boolean> | boolean,
  hear: (line: string) => void = () => {},
): Victim {
  let child: ChildProcess | undefined;
  let logged = '';
  let startedAt = 0;
  const kept: string[] = [];
  const startsMs: number[] = [];
  const ended = () => child === undefined || child.exitCode !== null || child.signalCode !== null;
  let begun = '';
  const take = (chunk: Buffer) => {
    logged += chunk;
    const lines = (begun + chunk).split('\n');
    begun = lines.pop()!;
    for (const line of lines.filter(Boolean)) {
      kept.push(line);
      hear(line);
    }
    if (kept.length > 400) kept.splice(0, kept.length - 400);
  };
  const end = async (signal: NodeJS.Signals) => {
    if (ended()) return;
    const exit = once(child!, 'exit');
    child!.kill(signal);
    await exit;
  };
  return {
    name,
    startsMs,
    start: () => {
      logged = '';
      startedAt = performance.now();
      // Nothing of the driver's own environment speaks to the process: its settings are these.
      child = spawn(process.execPath, [...program, ...args], {
        env: { ...surroundings, ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      child.stdout!.on('data', take);
      child.stderr!.on('data', take);
    },
    ready: async () => {
      while (!(await isReady(logged))) {
        if (ended()) {
          // What it said last may still be in the pipe.
          await sleep(200);
          const how = child?.signalCode ?? child?.exitCode;
          throw new Error(`${name} ended by itself (${how}): ${logged.slice(-2_000)}`);
        }
        if (performance.now() - startedAt > readyWithinMs)
          throw new Error(`${name} was not ready in time: ${logged.slice(-2_000)}`);
        await sleep(10);
      }
      startsMs.push(Math.round(performance.now() - startedAt));
    },
    kill: () => end('SIGKILL'),
    tell: async (signal) => {
      await end(signal);
      return child?.exitCode ?? null;
    },
    stop: async () => {
      const late = setTimeout(() => child?.kill('SIGKILL'), 20_000);
      await end('SIGTERM');
      clearTimeout(late);
      return child?.exitCode ?? null;
    },
    lines: () => kept,
  };
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A port nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
