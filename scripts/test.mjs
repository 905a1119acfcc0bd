// `npm test`: the whole suite on the embedded database, then on PostgreSQL with pgvector and Redis.
//   npm test -- [--engine embedded|postgres] [file.test.ts ...] [any option of node --test]
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureInstalled, ROOT } from './install.mjs';
import { createDatabase, down, dropDatabase, ServicesError, up } from './services.mjs';

const TEST_FILE = /\.test\.(ts|mjs)$/;
// They start, kill and time processes of their own, so nothing may run in their process or beside them.
const PROCESS_TEST_FILE = /\.(crash|process)\.test\.(ts|mjs)$/;
const TEST_TIMEOUT_MS = 180_000;
const RUN_TIMEOUT_MS = 15 * 60_000;

let running;
let interrupted = false;
const inCi = process.env.CI === 'true' || process.env.CI === '1';

async function main() {
  const { engines, files, options } = readArguments(process.argv.slice(2));
  const node = ensureInstalled();
  const results = [];
  for (const engine of engines) {
    const first = engine === engines[0];
    const suite = first ? files : files.filter((file) => file.startsWith('server'));
    if (suite.length === 0 || interrupted) continue;
    const result = await withEngine(engine, (env) => runSuite(node, engine, suite, options, env));
    results.push({ engine, ...result });
  }
  report(results);
}

function readArguments(args) {
  let engines = ['embedded', 'postgres'];
  const files = [];
  const options = [];
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i];
    if (arg === '--engine') engines = [args[++i]];
    else if (arg.startsWith('--engine=')) engines = [arg.slice('--engine='.length)];
    else if (arg.startsWith('-')) options.push(arg);
    else files.push(arg);
  }
  if (engines.some((engine) => !['embedded', 'postgres'].includes(engine)))
    fail('--engine takes embedded or postgres');
  const base = process.env.INIT_CWD ?? process.cwd();
  const named = files.map((file) =>
    [resolve(base, file), resolve(ROOT, file)].find((path) => existsSync(path)),
  );
  if (named.includes(undefined)) fail(`no such file: ${files[named.indexOf(undefined)]}`);
  const all = ['server', 'sdk', 'scripts'].flatMap((folder) => testFiles(join(ROOT, folder)));
  return {
    engines,
    options,
    files: (named.length > 0 ? named : all).map((file) => relative(ROOT, file)).sort(),
  };
}

function testFiles(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : testFiles(path);
    return TEST_FILE.test(entry.name) ? [path] : [];
  });
}

/** Calls `work` with the variables of the engine; answers { missing } when the engine can not be had. */
async function withEngine(engine, work) {
  if (engine === 'embedded')
    return work({ TEST_ENGINE: 'embedded', DATABASE_URL: undefined, REDIS_URL: undefined });
  const { TEST_DATABASE_URL, TEST_REDIS_URL } = process.env;
  if (TEST_DATABASE_URL && TEST_REDIS_URL) {
    return work({ TEST_ENGINE: 'postgres', DATABASE_URL: TEST_DATABASE_URL, REDIS_URL: TEST_REDIS_URL });
  }
  let services;
  try {
    services = await up();
  } catch (error) {
    if (error instanceof ServicesError) return { missing: error.message };
    throw error;
  }
  // A database of its own for each run: migrations start from nothing, and runs side by side do not meet.
  const name = `test_${process.pid}_${Date.now().toString(36)}`;
  try {
    return await work({
      TEST_ENGINE: 'postgres',
      DATABASE_URL: TEST_DATABASE_URL ?? createDatabase(name),
      SUPERUSER_DATABASE_URL: TEST_DATABASE_URL
        ? undefined
        : withDatabase(services.SUPERUSER_DATABASE_URL, name),
      REDIS_URL: TEST_REDIS_URL ?? services.REDIS_URL.replace(/0$/, String(1 + (process.pid % 15))),
    });
  } finally {
    dropDatabase(name);
    if (services.started) await down();
  }
}

function withDatabase(url, name) {
  return Object.assign(new URL(url), { pathname: `/${name}` }).href;
}

/** Everything that shares one process first, then what needs processes of its own. */
async function runSuite(node, engine, files, options, env) {
  const alone = files.filter((file) => PROCESS_TEST_FILE.test(file));
  const shared = files.filter((file) => !alone.includes(file));
  const total = { passed: 0, failed: 0, skipped: 0, seconds: 0 };
  for (const [group, flags] of [
    [shared, ['--test-isolation=none', '--test-force-exit']],
    [alone, ['--test-isolation=process', '--test-concurrency=1']],
  ]) {
    if (group.length === 0 || interrupted) continue;
    console.log(
      `\n== ${engine}: ${group.length} test files${group === alone ? ', each in its own process' : ''}`,
    );
    const run = await runNode(node, group, [...flags, ...options], env);
    for (const key of Object.keys(total)) total[key] += run[key];
  }
  return total;
}

async function runNode(node, files, options, env) {
  const folder = mkdtempSync(join(tmpdir(), 'manushya-test-'));
  const countsFile = join(folder, 'counts.json');
  const counter = pathToFileURL(join(ROOT, 'scripts', 'test-counts.mjs')).href;
  const reporters = ['spec', 'stdout', counter, countsFile];
  const flags = reporters.map((value, i) => `--test-reporter${i % 2 === 0 ? '' : '-destination'}=${value}`);
  const started = performance.now();
  const child = spawn(node, ['--test', `--test-timeout=${TEST_TIMEOUT_MS}`, ...flags, ...options, ...files], {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, ...env },
    timeout: RUN_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  running = child;
  const [code, signal] = await once(child, 'exit');
  running = undefined;
  const seconds = (performance.now() - started) / 1000;
  const text = existsSync(countsFile) ? readFileSync(countsFile, 'utf8') : '';
  rmSync(folder, { recursive: true, force: true });
  const counts = text === '' ? { passed: 0, failed: 0, skipped: 0 } : JSON.parse(text);
  // A run that ended badly without a failed test (a crash, a hang, an error while loading) counts as one failure.
  if (code !== 0 && counts.failed === 0) {
    console.error(`The test process ended with ${signal ?? `exit code ${code}`}, not by a failed test.`);
    counts.failed = 1;
  }
  return { ...counts, seconds };
}

function report(results) {
  const ran = results.filter((result) => result.missing === undefined);
  const total = { passed: 0, failed: 0, skipped: 0 };
  console.log('');
  for (const result of results) {
    if (result.missing !== undefined) {
      console.log(`${result.engine}: DID NOT RUN, ${result.missing}`);
      continue;
    }
    for (const key of Object.keys(total)) total[key] += result[key];
    console.log(`${result.engine}: ${counted(result)} (${result.seconds.toFixed(1)} s)`);
  }
  console.log(counted(total));
  const incomplete = ran.length < results.length && (inCi || ran.length === 0);
  if (total.passed + total.failed === 0) console.error('No test ran.');
  process.exitCode = total.failed > 0 || total.passed === 0 || incomplete || interrupted ? 1 : 0;
}

function counted({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

function fail(message) {
  console.error(message);
  process.exit(2);
}

// An interrupted run still removes its database and stops the services it started.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    interrupted = true;
    running?.kill(signal);
  });
}
await main();
