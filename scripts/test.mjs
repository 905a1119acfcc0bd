// `npm test`: the whole suite on the embedded database, and what needs a database again on PostgreSQL with pgvector and Redis.
//   npm test -- [--engine embedded|postgres] [file.test.ts ...] [any option of node --test]
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { ensureInstalled, ROOT } from './install.mjs';
import { compiled } from './launch.mjs';
import { createDatabase, down, dropDatabase, ServicesError, up } from './services.mjs';

const TEST_FILE = /\.test\.(ts|mjs)$/;
// They start and kill processes of their own, so nothing else may run in their process.
const PROCESS_TEST_FILE = /\.(crash|process)\.test\.(ts|mjs)$/;
const LONG_TEST_FILE = /\.crash\.|\/(commands|rewrap|revocation|outage)\./;
/** What a test file says that needs a database of the suite; all others are run once. */
const NEEDS_ENGINE = /#test\/|harness\.ts|from '\.\/crash|DATABASE_URL|TEST_ENGINE/;
/** Options of node --test whose value may be the next word. */
const WITH_VALUE = new Set(['--test-name-pattern', '--test-skip-pattern', '--test-concurrency']);
const TEST_TIMEOUT_MS = 180_000;
const RUN_TIMEOUT_MS = 15 * 60_000;
/** Test processes at once, and into how many parts the files that can share one are cut. */
const LANES = Math.min(4, availableParallelism());
const PARTS = 2 * LANES;

const running = new Set();
let interrupted = false;
const inCi = process.env.CI === 'true' || process.env.CI === '1';

async function main() {
  const { engines, files, options } = readArguments(process.argv.slice(2));
  const node = ensureInstalled();
  const suites = [];
  for (const engine of engines) {
    const suite = engine === engines[0] ? files : files.filter(needsEngine);
    if (suite.length === 0 || interrupted) continue;
    suites.push({ engine, files: suite, opened: await openEngine(node, engine) });
  }
  report(await runSuites(node, suites, options));
}

function readArguments(args) {
  let engines = ['embedded', 'postgres'];
  const files = [];
  const options = [];
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i];
    if (arg === '--engine') engines = [args[++i]];
    else if (arg.startsWith('--engine=')) engines = [arg.slice('--engine='.length)];
    else if (WITH_VALUE.has(arg)) options.push(`${arg}=${args[++i]}`);
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

const needsEngine = (file) => NEEDS_ENGINE.test(readFileSync(join(ROOT, file), 'utf8'));

function testFiles(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : testFiles(path);
    return TEST_FILE.test(entry.name) ? [path] : [];
  });
}

/**
 * Makes an engine ready. `variables` are those of one test process, which has its database for itself; lanes are how many
 * processes it serves at once.
 * @returns { missing } when the engine can not be had
 */
async function openEngine(node, engine) {
  if (engine === 'embedded') {
    const TEST_DATA_TEMPLATE = mkdtempSync(join(tmpdir(), 'manushya-template-'));
    const close = () => rmSync(TEST_DATA_TEMPLATE, { recursive: true, force: true });
    const template = join(ROOT, 'server', 'test', 'template.ts');
    const made = spawnSync(node, [template, TEST_DATA_TEMPLATE], { stdio: 'inherit' });
    if (made.status !== 0) {
      close();
      throw new Error('the schema of the embedded database could not be made');
    }
    const env = {
      TEST_ENGINE: 'embedded',
      DATABASE_URL: undefined,
      REDIS_URL: undefined,
      TEST_DATA_TEMPLATE,
    };
    return { lanes: Infinity, variables: () => ({ env, release: () => {} }), close };
  }
  const { TEST_DATABASE_URL, TEST_REDIS_URL } = process.env;
  if (TEST_DATABASE_URL && TEST_REDIS_URL) {
    const env = { TEST_ENGINE: 'postgres', DATABASE_URL: TEST_DATABASE_URL, REDIS_URL: TEST_REDIS_URL };
    return { lanes: 1, variables: () => ({ env, release: () => {} }), close: () => {} };
  }
  let services;
  try {
    services = await up();
  } catch (error) {
    if (error instanceof ServicesError) return { missing: error.message };
    throw error;
  }
  let made = 0;
  // A database of its own for each process: migrations start from nothing, and runs side by side do not meet.
  const variables = (lane) => {
    const name = `test_${process.pid}_${Date.now().toString(36)}_${made++}`;
    const redis = 1 + (((process.pid % 7) * 2 * LANES + lane) % 15);
    const env = {
      TEST_ENGINE: 'postgres',
      DATABASE_URL: createDatabase(name),
      SUPERUSER_DATABASE_URL: Object.assign(new URL(services.SUPERUSER_DATABASE_URL), {
        pathname: `/${name}`,
      }).href,
      REDIS_URL: services.REDIS_URL.replace(/0$/, String(redis)),
    };
    return { env, release: () => dropDatabase(name) };
  };
  return { lanes: Infinity, variables, close: () => (services.started ? down() : undefined) };
}

/**
 * All suites at once, since those of one engine wait while those of the other work. Most lanes begin with the files that share a
 * process, in parts; one takes what needs a process of its own, the longest first, which waits more than it works.
 */
async function runSuites(node, suites, options) {
  const results = suites.map(({ engine, opened: { missing } }) => ({
    engine,
    missing,
    ...nothing(),
    seconds: 0,
  }));
  const began = performance.now();
  const tasks = suites.flatMap(({ engine, files, opened }, i) => {
    if (opened.missing !== undefined) return [];
    const alone = files.filter((file) => PROCESS_TEST_FILE.test(file));
    const task = { engine, opened, result: results[i] };
    return [
      ...partsOf(files.filter((file) => !alone.includes(file))).map((part) => ({ ...task, files: part })),
      ...alone.map((file) => ({ ...task, files: [file], length: lengthOf(file) })),
    ];
  });
  const parts = tasks.filter(({ length }) => length === undefined);
  const alone = tasks.filter((task) => !parts.includes(task)).sort((a, b) => b.length - a.length);
  /** The next of an engine that has a lane free: a database that was given to us serves one process at a time. */
  const take = (waiting) => {
    const next = waiting.findIndex(({ opened }) => (opened.busy ?? 0) < opened.lanes);
    return next < 0 ? undefined : waiting.splice(next, 1)[0];
  };
  const work = async (lane) => {
    const lists = lane < LANES ? [parts, alone] : [alone, parts];
    while (!interrupted && parts.length + alone.length > 0) {
      const task = take(lists[0]) ?? take(lists[1]);
      if (!task) {
        await sleep(200);
        continue;
      }
      const { opened, result } = task;
      const flags = task.length
        ? ['--test-isolation=process']
        : ['--test-isolation=none', '--test-force-exit'];
      opened.busy = (opened.busy ?? 0) + 1;
      const { env, release } = opened.variables(lane);
      try {
        const counts = await runNode(node, task.engine, task.files, [...flags, ...options], env);
        add(result, counts);
      } finally {
        release();
        opened.busy -= 1;
        result.seconds = (performance.now() - began) / 1000;
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.floor(LANES * 1.5) }, (_, lane) => work(lane)));
  } finally {
    for (const { opened } of suites) await opened.close?.();
  }
  return results;
}

const nothing = () => ({ passed: 0, failed: 0, skipped: 0, failures: [] });

function add(total, { passed, failed, skipped, failures }) {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  total.failures.push(...failures);
}

/** Those that start processes again and again are the longest, however short their files are. */
const lengthOf = (file) => (LONG_TEST_FILE.test(file) ? 1e9 : 0) + statSync(join(ROOT, file)).size;

/** Parts of about the same size, the largest files spread over them. */
function partsOf(files) {
  const parts = Array.from({ length: files.length > PARTS * 2 ? PARTS : 1 }, () => ({ bytes: 0, files: [] }));
  const sized = files.map((file) => ({ file, bytes: statSync(join(ROOT, file)).size }));
  for (const { file, bytes } of sized.sort((a, b) => b.bytes - a.bytes)) {
    const smallest = parts.reduce((a, b) => (b.bytes < a.bytes ? b : a));
    smallest.bytes += bytes;
    smallest.files.push(file);
  }
  return parts.map((part) => part.files.sort()).filter((part) => part.length > 0);
}

async function runNode(node, engine, files, options, env) {
  const folder = mkdtempSync(join(tmpdir(), 'manushya-test-'));
  const countsFile = join(folder, 'counts.json');
  const counter = pathToFileURL(join(ROOT, 'scripts', 'test-counts.mjs')).href;
  const reporters = ['spec', 'stdout', counter, countsFile];
  const flags = reporters.map((value, i) => `--test-reporter${i % 2 === 0 ? '' : '-destination'}=${value}`);
  const started = performance.now();
  const child = spawn(node, ['--test', `--test-timeout=${TEST_TIMEOUT_MS}`, ...flags, ...options, ...files], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_COMPILE_CACHE: compiled, ...env },
    // A group of its own: what tests started ends with them.
    detached: true,
  });
  const timer = setTimeout(() => endGroup(child, 'SIGKILL'), RUN_TIMEOUT_MS);
  // Shown when it has ended, since several run at once.
  const said = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => said.push(bytes));
  running.add(child);
  const [code, signal] = await once(child, 'close');
  running.delete(child);
  clearTimeout(timer);
  const seconds = (performance.now() - started) / 1000;
  const text = existsSync(countsFile) ? readFileSync(countsFile, 'utf8') : '';
  rmSync(folder, { recursive: true, force: true });
  const counts = text === '' ? nothing() : JSON.parse(text);
  console.log(`\n== ${engine}: ${files.join(' ')} (${seconds.toFixed(1)} s)`);
  process.stdout.write(Buffer.concat(said));
  // A run that ended badly without a failed test (a crash, a hang, an error while loading) counts as one failure.
  if (code !== 0 && counts.failed === 0) {
    const how = `The test process ended with ${signal ?? `exit code ${code}`}, not by a failed test.`;
    console.error(how);
    counts.failed = 1;
    counts.failures.push(`${files.join(' ')}\n${how}`);
  }
  return counts;
}

function endGroup({ pid }, signal) {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

function report(results) {
  const ran = results.filter((result) => result.missing === undefined);
  const total = nothing();
  console.log('');
  for (const result of results) {
    if (result.missing !== undefined) {
      console.log(`${result.engine}: DID NOT RUN, ${result.missing}`);
      continue;
    }
    add(total, result);
    // Once more, since it is far above by now.
    for (const failure of result.failures) console.log(`\n${result.engine}: FAILED ${failure}`);
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
    for (const child of running) endGroup(child, signal);
  });
}
await main();
