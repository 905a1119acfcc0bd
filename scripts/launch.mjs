import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureInstalled, ROOT } from './install.mjs';

const REPEATED_SIGNAL_MS = 400;
const PARENT_CHECK_MS = 1000;

/** The program compiled, kept beside the packages: a later start spends a third of its time less on loading. */
export const compiled = join(ROOT, 'node_modules', '.cache', 'compiled');

/**
 * Runs server/src/main.ts with `args` on Node 24 and ends as it ends: same exit code (128 + number after a
 * signal), same standard streams. A `.env` file at the root supplies variables that the environment does not set.
 * @param {string[]} args
 */
export function launch(args) {
  const node = ensureInstalled({ dev: false });
  const envFile = join(ROOT, '.env');
  const flags = ['--import', pathToFileURL(join(ROOT, 'scripts', 'exit-with-launcher.mjs')).href];
  if (existsSync(envFile)) flags.push(`--env-file=${envFile}`);
  const child = spawn(node, [...flags, join(ROOT, 'server', 'src', 'main.ts'), ...args], {
    // Its own process group: a terminal's Ctrl-C, npm and a supervisor may all signal this process for one key
    // press, and a server that is told twice to stop gives up draining.
    detached: process.platform !== 'win32',
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: {
      NODE_COMPILE_CACHE: compiled,
      ...process.env,
      MANUSHYA_LAUNCHER: '1',
    },
  });
  child.on('error', (error) => {
    console.error(`The server could not be started: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => process.exit(signal ? 128 + constants.signals[signal] : code));
  forwardSignals(child);
  stopWithNpm(child);
}

let last = { signal: '', at: 0 };

function forwardSignals(child) {
  const forward = (signal) => {
    const at = performance.now();
    const repeated = signal === last.signal && at - last.at < REPEATED_SIGNAL_MS;
    last = { signal, at };
    if (!repeated) child.kill(signal);
  };
  process.on('SIGINT', () => forward('SIGINT'));
  process.on('SIGTERM', () => forward('SIGTERM'));
  process.on('SIGHUP', () => forward('SIGTERM'));
}

/** npm killed with SIGKILL tells nobody; only npm's death is a reason to stop (a login shell may leave its background job). */
function stopWithNpm(child) {
  if (process.env.npm_lifecycle_event === undefined) return;
  const ancestors = npmAncestors();
  const timer = setInterval(() => {
    if (npmAncestors() === ancestors) return;
    clearInterval(timer);
    // Told already, it is draining: npm may well go before that is over.
    if (last.signal === '') child.kill('SIGTERM');
  }, PARENT_CHECK_MS);
  timer.unref();
}

/** npm is the parent, or, where its `sh -c` stays in between (Debian's does), the parent's parent. */
function npmAncestors() {
  const parent = process.ppid;
  const file = `/proc/${parent}/stat`;
  if (!existsSync(file)) return String(parent);
  const [, name, grandparent] = /\((.*)\) \S (\d+)/s.exec(readFileSync(file, 'utf8')) ?? [];
  return /^(sh|dash|bash|busybox|ash)$/.test(name) ? `${parent} ${grandparent}` : String(parent);
}
