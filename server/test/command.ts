import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/**
 * The program itself, as arguments of Node. Its embedded database is not optimised: that is a second of work for each of the many
 * processes that end before it would be of use.
 */
export const program = ['--liftoff-only', fileURLToPath(new URL('../src/main.ts', import.meta.url))];

/** What a process gets of the environment of the tests: nothing that could be a setting. */
export const surroundings: Record<string, string> = Object.fromEntries(
  ['PATH', 'HOME', 'NODE_COMPILE_CACHE'].flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  }),
);

/** What a command of the command line said, and how it ended. */
export interface Said {
  code: number | null;
  out: string;
  err: string;
}

/** Runs a command with these settings and no others. */
export async function command(env: Record<string, string>, ...args: string[]): Promise<Said> {
  const child = spawn(process.execPath, [...program, ...args], {
    env: { ...surroundings, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said: Said = { code: null, out: '', err: '' };
  child.stdout.on('data', (bytes) => {
    said.out += bytes;
  });
  child.stderr.on('data', (bytes) => {
    said.err += bytes;
  });
  const [code] = await once(child, 'close');
  return { ...said, code };
}
