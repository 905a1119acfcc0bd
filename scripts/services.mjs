// A private PostgreSQL with pgvector and a private Redis on free loopback ports, for tests, benchmarks and development.
//   node scripts/services.mjs up [--durable] | env | down   [--dir var/services]
// Plain JavaScript on Node 20, without dependencies: it also runs before anything is installed.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { isProgram, ROOT } from './install.mjs';
import { dataFolder, serviceAccount } from './services/account.mjs';
import { obtainPostgres, obtainRedis, ServicesError } from './services/obtain.mjs';
import {
  DATABASE,
  initPostgres,
  OWNER,
  postgresRuns,
  psql,
  startPostgres,
  stopPostgres,
} from './services/postgres.mjs';
import { redisRuns, startRedis, stopRedis } from './services/redis.mjs';

export { ServicesError };
export const DEFAULT_DIR = join(ROOT, 'var', 'services');

const LOCK_WAIT_MS = 300_000;

/**
 * Starts what is not running yet and returns the connection strings; calling it again returns the same services.
 * The owner role is what a managed PostgreSQL gives: no superuser, CREATEROLE, owner of a database that has `vector`.
 * @param {{ dir?: string, durable?: boolean, log?: (line: string) => void }} [options]
 *   durable: wait for the disk. Without it the data survives a killed server or worker; a killed PostgreSQL loses what it
 *   promised last.
 * @returns {Promise<{ DATABASE_URL: string, SUPERUSER_DATABASE_URL: string, REDIS_URL: string, started: boolean }>}
 * @throws {ServicesError}
 */
export async function up({ dir = DEFAULT_DIR, durable = false, log = console.error } = {}) {
  return locked(dir, async () => {
    const state = readState(dir) ?? (await createState(dir, log));
    const postgresStarted = await startPostgres(state, durable, log);
    const redisStarted = await startRedis(state, log);
    writeState(dir, state);
    return { ...urls(state), started: postgresStarted || redisStarted };
  });
}

/** Stops both services; their data stays. */
export async function down({ dir = DEFAULT_DIR } = {}) {
  if (!existsSync(join(dir, 'state.json'))) return;
  await locked(dir, async () => {
    const state = readState(dir);
    if (state === undefined) return;
    stopPostgres(state);
    await stopRedis(state);
  });
}

/** The connection strings of running services, or undefined when they do not run. */
export async function running({ dir = DEFAULT_DIR } = {}) {
  const state = readState(dir);
  if (state === undefined || !postgresRuns(state) || !(await redisRuns(state))) return undefined;
  return urls(state);
}

/**
 * Makes an empty database with `vector`, owned by the owner role, beside the default one.
 * @returns {string} its DATABASE_URL
 */
export function createDatabase(name, { dir = DEFAULT_DIR } = {}) {
  const state = readState(dir);
  psql(state, 'postgres', `CREATE DATABASE "${name}" OWNER ${OWNER}`);
  psql(state, name, 'CREATE EXTENSION vector');
  return urls(state, name).DATABASE_URL;
}

/** Removes a database and disconnects whoever still uses it. */
export function dropDatabase(name, { dir = DEFAULT_DIR } = {}) {
  psql(readState(dir), 'postgres', `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`);
}

function urls({ postgres, redis: { port } }, database = DATABASE) {
  const address = `127.0.0.1:${postgres.port}/${database}`;
  return {
    DATABASE_URL: `postgres://${OWNER}:${postgres.ownerPassword}@${address}`,
    SUPERUSER_DATABASE_URL: `postgres://postgres:${postgres.superuserPassword}@${address}`,
    REDIS_URL: `redis://127.0.0.1:${port}/0`,
  };
}

function readState(dir) {
  const file = join(dir, 'state.json');
  if (!existsSync(file)) return undefined;
  const state = JSON.parse(readFileSync(file, 'utf8'));
  return existsSync(join(state.data, 'postgres')) && existsSync(state.postgres.bin) ? state : undefined;
}

function writeState(dir, state) {
  writeFileSync(join(dir, 'state.json'), JSON.stringify(state, null, 2), { mode: 0o600 });
}

async function createState(dir, log) {
  const redisProgram = obtainRedis(log);
  const postgresProgram = obtainPostgres(log);
  const account = serviceAccount();
  const data = dataFolder(dir, account);
  const state = {
    account,
    data,
    postgres: { ...postgresProgram, port: 0, superuserPassword: secret(), ownerPassword: secret() },
    redis: { ...redisProgram, port: 0 },
  };
  initPostgres(state, log);
  writeState(dir, state);
  return state;
}

const secret = () => randomBytes(18).toString('hex');

/** One caller at a time in a directory; a lock whose process is gone is taken over. */
async function locked(dir, work) {
  mkdirSync(dir, { recursive: true });
  const file = join(dir, 'lock');
  const deadline = Date.now() + LOCK_WAIT_MS;
  while (!takeLock(file)) {
    if (Date.now() > deadline) throw new ServicesError(`${file} is held by another process`);
    await sleep(100);
  }
  try {
    return await work();
  } finally {
    rmSync(file, { force: true });
  }
}

function takeLock(file) {
  try {
    writeFileSync(file, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  if (existsSync(file) && !isAlive(Number(readFileSync(file, 'utf8')))) rmSync(file, { force: true });
  return false;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

const USAGE = 'usage: node scripts/services.mjs up [--durable] | env | down   [--dir var/services]';

async function main() {
  const options = {
    dir: { type: 'string' },
    durable: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const dir = values.dir ? resolve(values.dir) : DEFAULT_DIR;
  const print = ({ started, ...addresses }) => {
    for (const [name, url] of Object.entries(addresses)) console.log(`${name}=${url}`);
  };
  if (values.help) console.log(USAGE);
  else if (positionals[0] === 'up') print(await up({ dir, durable: values.durable }));
  else if (positionals[0] === 'down') await down({ dir });
  else if (positionals[0] === 'env') {
    const addresses = await running({ dir });
    if (addresses === undefined)
      throw new ServicesError(`the services of ${dir} do not run: node scripts/services.mjs up`);
    print(addresses);
  } else throw new ServicesError(USAGE);
}

if (isProgram(import.meta.url)) {
  main().catch((error) => {
    if (!(error instanceof ServicesError) && !error.code?.startsWith('ERR_PARSE_ARGS')) throw error;
    console.error(error.message);
    process.exitCode = 1;
  });
}
