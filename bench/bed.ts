/** What a run is measured on: one engine with its own empty database, a server on it, and callers with memories. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Client } from 'undici';
import { cpuUs, type Process } from './processes.ts';
import { type MemoryInput, newMemory } from './texts.ts';

export type Engine = 'postgres' | 'embedded';

/** Environment of the servers of an engine; `directory` is theirs alone and removed at the end. */
export interface Bed {
  engine: Engine;
  directory: string;
  env: Record<string, string>;
  /** The owner's connection; only PostgreSQL can be looked into from outside. */
  operator: pg.Client | undefined;
  describe: string;
  close: () => Promise<void>;
}

const DATABASE = 'manushya_bench';

const common = {
  ENVIRONMENT: 'development',
  LOG_LEVEL: 'error',
  HOST: '127.0.0.1',
  RATE_LIMIT_ENABLED: 'false',
  SIGN_UPS_PER_HOUR: '1000000',
  ACCESS_TOKEN_TTL_S: '3600',
  PUBLIC_URL: 'http://manushya.bench',
  SECRET_KEY: 'a secret of the benchmark, forty letters.',
  ENCRYPTION_KEY: 'another secret of the benchmark, also long',
};

export async function makeBed(engine: Engine): Promise<Bed> {
  const directory = mkdtempSync(join(tmpdir(), 'manushya-bench-'));
  const env = { ...common, DATA_DIR: join(directory, 'server'), BENCH_PROFILE: join(directory, 'profile') };
  const remove = () => rmSync(directory, { recursive: true, force: true });
  if (engine === 'embedded') {
    const describe = 'embedded PostgreSQL (PGlite), no fsync';
    return { engine, directory, env, operator: undefined, describe, close: async () => remove() };
  }
  const { urls, drop } = process.env.DATABASE_URL ? givenServices() : await ownServices();
  const operator = new pg.Client({ connectionString: urls.DATABASE_URL });
  await operator.connect();
  const ask = async (text: string) => Object.values((await operator.query(text)).rows[0])[0];
  if ((await ask(`select to_regclass('tenants')`)) !== null)
    throw new Error('DATABASE_URL must name an empty database: the benchmark fills it');
  const version = await ask('show server_version');
  const vector = await ask(`select extversion from pg_extension where extname = 'vector'`);
  const durable = `fsync ${await ask('show fsync')}, synchronous_commit ${await ask('show synchronous_commit')}`;
  return {
    engine,
    directory,
    env: { ...env, ...urls },
    operator,
    describe: `PostgreSQL ${version}, pgvector ${vector}, ${durable}${urls.REDIS_URL ? ', Redis' : ''}`,
    close: async () => {
      await operator.end();
      await drop();
      remove();
    },
  };
}

function givenServices() {
  const { DATABASE_URL, REDIS_URL } = process.env;
  const urls: Record<string, string> = { DATABASE_URL: DATABASE_URL!, ...(REDIS_URL ? { REDIS_URL } : {}) };
  return { urls, drop: async () => {} };
}

/** Services of the benchmark's own: those of the tests run without fsync, and what is accepted here must be durable. */
async function ownServices() {
  const printed = services('up', '--durable');
  const given = Object.fromEntries(
    [...printed.matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name, value]),
  );
  const superuser = given.SUPERUSER_DATABASE_URL!;
  const owner = new URL(given.DATABASE_URL!);
  const drop = () => runAs(superuser, [`drop database if exists ${DATABASE} with (force)`]);
  const end = async () => {
    await drop();
    services('down');
  };
  await drop();
  await runAs(superuser, [`create database ${DATABASE} owner ${owner.username}`]);
  const its = (url: string) => Object.assign(new URL(url), { pathname: `/${DATABASE}` }).href;
  await runAs(its(superuser), ['create extension vector']);
  const urls: Record<string, string> = {
    DATABASE_URL: its(given.DATABASE_URL!),
    REDIS_URL: given.REDIS_URL!,
  };
  return { urls, drop: end };
}

function services(...command: string[]): string {
  const root = join(import.meta.dirname, '..');
  const args = [join(root, 'scripts/services.mjs'), ...command, '--dir', join(root, 'var/bench-services')];
  return execFileSync(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] }).toString();
}

async function runAs(url: string, statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  for (const statement of statements) await client.query(statement);
  await client.end();
}

/** A server's embedded database cannot be opened twice: the floor gets a copy, rows and all. */
export function copyForFloor(bed: Bed): Record<string, string> {
  if (bed.engine === 'postgres') return bed.env;
  const copy = join(bed.directory, 'floor');
  cpSync(join(bed.env.DATA_DIR!, 'database'), join(copy, 'database'), { recursive: true });
  return { ...bed.env, DATA_DIR: copy };
}

/** One call at a time over one connection, for what is measured as latency and for preparations. */
export async function call(
  client: Client,
  method: 'GET' | 'POST',
  path: string,
  token: string,
  body?: unknown,
) {
  const reply = await client.request({
    method,
    path,
    headers: {
      'content-type': 'application/json',
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await reply.body.text();
  if (reply.statusCode >= 300) throw new Error(`${method} ${path} answered ${reply.statusCode}: ${text}`);
  return JSON.parse(text);
}

export interface Caller {
  tenant: string;
  token: string;
  memories: MemoryInput[];
  ids: string[];
}

/** Signs up a tenant and gives it memories. */
export async function newCaller(client: Client, random: () => number, count: number): Promise<Caller> {
  const { access_token: token, identity } = await call(client, 'POST', '/v1/identity/', '', {
    external_id: 'bench',
    role: 'admin',
  });
  const memories = Array.from({ length: count }, () => newMemory(random));
  const ids: string[] = [];
  for (let at = 0; at < count; at += 1_000) {
    const body = { memories: memories.slice(at, at + 1_000) };
    const { created } = await call(client, 'POST', '/v1/memory/bulk', token, body);
    ids.push(...created.map(({ id }: { id: string }) => id));
  }
  return { tenant: identity.tenant_id, token, memories, ids };
}

const QUIET_LIMIT_MS = 60_000;

/** Waits until a server has nothing left to do in the background, so that one measurement does not pay for another. */
export async function untilQuiet(bed: Bed, { pid }: Process): Promise<void> {
  const until = Date.now() + QUIET_LIMIT_MS;
  for (let quiet = 0; quiet < 2 && Date.now() < until; ) {
    const before = cpuUs(pid) ?? 0;
    await sleep(200);
    const idle = (cpuUs(pid) ?? 0) - before < 40_000;
    quiet = idle && (bed.operator ? await isQuiet(bed.operator) : true) ? quiet + 1 : 0;
  }
}

/** Whether every memory has its vector and no back end works: the building of a segment is nothing to the server's process. */
async function isQuiet(operator: pg.Client): Promise<boolean> {
  const { rows } = await operator.query(`
    select 1 from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle' limit 1`);
  return rows.length === 0 && (await waiting(operator)) === 0;
}

/** Memories that have no vector yet. */
export async function waiting(operator: pg.Client): Promise<number> {
  return Number((await operator.query('select count(*) from memory_queue')).rows[0].count);
}
