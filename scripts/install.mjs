// Plain JavaScript that runs on Node 20: it prepares the Node 24 that everything else runs on.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const EXECUTABLE = process.platform === 'win32' ? 'node.exe' : 'node';
const BUNDLED_NODE = join(ROOT, 'node_modules', 'node', 'bin', EXECUTABLE);

/** True when the module at `url` (its import.meta.url) is the program that was started, not an import of it. */
export function isProgram(url) {
  return process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url);
}

/**
 * Installs the locked dependencies when node_modules does not hold them, and returns the path of Node 24.
 * Messages go to standard error, so that a command's own output stays clean. A failure ends the process with
 * one line and npm's exit code.
 * @param {{ dev?: boolean }} [need] dev: false accepts an installation without development dependencies.
 * @returns {string}
 */
export function ensureInstalled({ dev = true } = {}) {
  if (!isInstalled(dev)) {
    console.error('Installing dependencies (npm ci), once per change of package-lock.json ...');
    npm(['ci', '--no-audit', '--no-fund', '--loglevel=error'], 'npm ci');
  }
  if (existsSync(BUNDLED_NODE)) return BUNDLED_NODE;
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath;
  // npm settings that forbid install scripts leave the `node` package empty; this runs that one script only.
  npm(['rebuild', 'node', '--ignore-scripts=false', '--loglevel=error'], 'npm rebuild node');
  if (existsSync(BUNDLED_NODE)) return BUNDLED_NODE;
  return stop('Node 24 could not be installed from npm: install Node 24 or later and start again.', 1);
}

/** npm writes node_modules/.package-lock.json last, so it also tells an interrupted installation from a finished one. */
function isInstalled(dev) {
  const wanted = readLock(join(ROOT, 'package-lock.json'));
  const present = readLock(join(ROOT, 'node_modules', '.package-lock.json'));
  if (wanted === undefined) return stop('package-lock.json is missing: restore it from the repository.', 1);
  if (present === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (!path.includes('node_modules/')) return true;
    const found = present[path];
    if (found !== undefined) return found.version === entry.version && found.integrity === entry.integrity;
    return entry.optional === true || entry.devOptional === true || (!dev && entry.dev === true);
  });
}

function readLock(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined;
}

function npm(args, name) {
  const windows = process.platform === 'win32';
  const run = spawnSync(windows ? 'npm.cmd' : 'npm', args, {
    cwd: ROOT,
    stdio: ['ignore', 2, 2],
    shell: windows,
  });
  if (run.error) stop(`${name} could not be started (${run.error.message}): is npm on the PATH?`, 127);
  if (run.status !== 0)
    stop(`${name} failed with exit code ${run.status}: its own message is above.`, run.status ?? 1);
}

function stop(message, code) {
  console.error(message);
  process.exit(code);
}

if (isProgram(import.meta.url)) ensureInstalled();
