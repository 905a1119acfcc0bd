import { cpSync, existsSync, mkdtempSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import pg from 'pg';
import { prepareApiKey } from '#modules/access/api-keys/service.ts';
import { ensureIdentity, findIdentity } from '#modules/access/identity/service.ts';
import { startSession } from '#modules/access/sessions/service.ts';
import { ensureOperators, SYSTEM_TENANT } from '#modules/access/tenants/service.ts';
import { type Config, readConfig } from '#platform/config.ts';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { createLog } from '#platform/log.ts';
import { type Running, start } from '../src/app.ts';

/** Which engine this run of the suite is on. */
export const engine: 'embedded' | 'postgres' =
  process.env.TEST_ENGINE === 'postgres' ? 'postgres' : 'embedded';

/** Settings of the shared test server; files that need others start their own with `startServer`. */
const testEnvironment = {
  ENVIRONMENT: 'development',
  LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'fatal',
  HOST: '127.0.0.1',
  PORT: '0',
  RATE_LIMIT_ENABLED: 'false',
  SIGN_UPS_PER_HOUR: '1000000',
  MAX_IN_FLIGHT: '2000',
  LOGIN_FREE_FAILURES: '1000000',
  PUBLIC_URL: 'http://manushya.test',
  SECRET_KEY: 'a secret of the tests, forty characters.',
  ENCRYPTION_KEY: 'another secret of the tests, longer still',
  SHUTDOWN_DRAIN_MS: '0',
  SHUTDOWN_GRACE_MS: '500',
  TTS_PROVIDER: 'fake',
};

/** The environment of a server of the engine under test. */
export function environmentOf(overrides: Record<string, string> = {}): Record<string, string> {
  const services =
    engine === 'postgres'
      ? {
          DATABASE_URL: required('DATABASE_URL'),
          ...(process.env.REDIS_URL ? { REDIS_URL: process.env.REDIS_URL } : {}),
        }
      : {};
  const environment = {
    ...testEnvironment,
    // Refused in production.
    ...(overrides.ENVIRONMENT === 'production' ? { TTS_PROVIDER: 'none' } : {}),
    DATA_DIR: overrides.DATA_DIR ?? newDataDir(),
    ...services,
    ...overrides,
  };
  dataDirs.add(environment.DATA_DIR);
  return environment;
}

/**
 * An empty data directory. On the embedded database the schema is there already, since to make it takes seconds of work
 * that every server of its own would do again.
 */
export function newDataDir(): string {
  const directory = mkdtempSync(join(tmpdir(), 'manushya-test-'));
  const template = process.env.TEST_DATA_TEMPLATE;
  if (engine === 'embedded' && template && existsSync(template))
    cpSync(template, directory, { recursive: true });
  return directory;
}

/** Directories of all servers of this process. Where they share a database, each may do the work of another. */
export const dataDirs = new Set<string>();

function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} must be set when TEST_ENGINE=postgres`);
  return value;
}

/** Empties the PostgreSQL database under test, so that a run never sees what an earlier one left. */
export async function emptyDatabase(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query(`select tablename from pg_tables where schemaname = 'public'`);
    for (const { tablename } of rows)
      await client.query(`drop table if exists public.${pg.escapeIdentifier(tablename)} cascade`);
    const functions = await client.query(
      `select p.oid::regprocedure as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where n.nspname = 'public' and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')`,
    );
    for (const { name } of functions.rows) await client.query(`drop function if exists ${name} cascade`);
    await client.query('drop schema if exists pgboss cascade');
  } finally {
    await client.end();
  }
}

/** A server of one's own, with other settings. Stop it in the test. */
export async function startServer(
  overrides: Record<string, string> = {},
  parts = { serve: true, work: true },
): Promise<Running> {
  const config: Config = readConfig(environmentOf(overrides));
  return start(config, createLog(config.LOG_LEVEL), parts);
}

let shared: Promise<Running> | undefined;

/** The one server all test files of a process share. */
export function testServer(): Promise<Running> {
  shared ??= (async () => {
    if (engine === 'postgres') await emptyDatabase(required('DATABASE_URL'));
    return startServer();
  })();
  return shared;
}

/** Call at the top of a test file: the shared server is up before its tests, and the last file closes it. */
export function useTestServer(): void {
  before(async () => {
    users += 1;
    await testServer();
  });
  after(() => {
    users -= 1;
    scheduleStop();
  });
}

let users = 0;

// All files run in one process, one after another; nobody says which is the last one. The server closes when no
// file has wanted it for a moment.
function scheduleStop(): void {
  setTimeout(async () => {
    if (users > 0 || !shared) return;
    const running = await shared;
    shared = undefined;
    await running.stop();
  }, 1_000);
}

/**
 * Call in a `describe`: its tests have a server with other settings. On PostgreSQL it shares the database with the other
 * servers of the process, and any worker takes any job; where that matters the file is a `*.process.test.ts`.
 */
export function useOwnServer(settings: () => Promise<Record<string, string>>): () => Running {
  let own: Running | undefined;
  before(async () => {
    own = await startServer(await settings());
  });
  after(() => own?.stop());
  return () => own!;
}

/** Fills again what a test took from what one address may do, since Redis keeps it for the tests that follow. */
export async function giveBack({ app }: Running, operation: string): Promise<void> {
  await app.shared.clear(`@:${operation}:127.0.0.1`);
}

export interface Reply {
  status: number;
  body: any;
  headers: Record<string, string | string[] | number | undefined>;
  text: string;
}

export interface CallOptions {
  body?: unknown;
  token?: string;
  headers?: Record<string, string>;
  /** A body as it is, for what JSON can not say. */
  payload?: string | Buffer;
}

/** Calls the shared server without a socket. */
export const call = async (method: string, url: string, options: CallOptions = {}): Promise<Reply> =>
  callServer(await testServer(), method, url, options);

/** Calls a server of one's own without a socket. */
export async function callServer(
  { server }: Running,
  method: string,
  url: string,
  options: CallOptions = {},
): Promise<Reply> {
  const reply = await server!.inject({
    method: method as 'GET',
    url,
    headers: {
      ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(options.token ? { authorization: `Bearer ${options.token}` } : {}),
      ...options.headers,
    },
    ...(options.payload === undefined
      ? options.body === undefined
        ? {}
        : { payload: JSON.stringify(options.body) }
      : { payload: options.payload }),
  });
  let body: unknown;
  try {
    body = reply.payload ? JSON.parse(reply.payload) : undefined;
  } catch {
    body = undefined;
  }
  return { status: reply.statusCode, body, headers: reply.headers, text: reply.payload };
}

/** The address of the shared server, for what needs a real socket: streams, disconnects. */
export async function address(): Promise<string> {
  const { server } = await testServer();
  const { port } = server!.server.address() as AddressInfo;
  return `http://127.0.0.1:${port}`;
}

/** Somebody with a credential. */
export interface Caller {
  tenant: string;
  id: string;
  token: string;
  call: (method: string, url: string, body?: unknown, headers?: Record<string, string>) => Promise<Reply>;
}

let named = 0;

/** Signs up: a new tenant with one identity of the given role. */
export const newTenant = (role = 'admin', server?: Running): Promise<Caller> => register(role, server);

/** An identity in the tenant of an admin. */
export const newMember = (admin: Caller, role: string, server?: Running): Promise<Caller> =>
  register(role, server, admin.token);

async function register(role: string, server?: Running, token?: string): Promise<Caller> {
  const running = server ?? (await testServer());
  named += 1;
  const reply = await callServer(running, 'POST', '/v1/identity/', {
    body: { external_id: `${role}-${named}`, role },
    ...(token ? { token } : {}),
  });
  if (reply.status !== 200) throw new Error(`registration answered ${reply.status}: ${reply.text}`);
  const { identity, access_token } = reply.body;
  return callerOf(running, { tenant: identity.tenant_id, id: identity.id, token: access_token });
}

const callerOf = (running: Running, who: Omit<Caller, 'call'>): Caller => ({
  ...who,
  call: (method, url, body, headers) =>
    callServer(running, method, url, {
      token: who.token,
      ...(body === undefined ? {} : { body }),
      ...(headers ? { headers } : {}),
    }),
});

/** An API key that acts as the caller's identity, narrowed by scopes when given. */
export async function newKey(
  owner: Caller,
  options: { scopes?: string[]; expires_in_days?: number; server?: Running } = {},
): Promise<Caller & { keyId: string }> {
  const running = options.server ?? (await testServer());
  const ctx = systemCtx(running.app, owner.tenant, uuidv7());
  const { scopes, expires_in_days } = options;
  const key = prepareApiKey(
    ctx,
    {
      identity_id: owner.id,
      name: `key-${++named}`,
      ...(scopes === undefined ? {} : { scopes }),
      ...(expires_in_days === undefined ? {} : { expires_in_days }),
    },
    new Date(),
  );
  await ctx.db.batch(key.statements);
  return { ...callerOf(running, { tenant: owner.tenant, id: owner.id, token: key.text }), keyId: key.id };
}

/** Another session of the caller's identity, as a further sign-in makes one. */
export async function newSession(
  owner: Caller,
  server?: Running,
): Promise<{ id: string; access_token: string; refresh_token: string }> {
  const running = server ?? (await testServer());
  const ctx = systemCtx(running.app, owner.tenant, uuidv7());
  const identity = await findIdentity(ctx.db, owner.id);
  const { statements, tokens } = await startSession(ctx, identity!, new Date());
  await ctx.db.batch(statements);
  const { sid } = JSON.parse(Buffer.from(tokens.access_token.split('.')[1]!, 'base64url').toString());
  return { id: sid, ...tokens };
}

/** An operator of the installation, as the command line makes one. */
export async function newOperator(server?: Running): Promise<Caller> {
  const running = server ?? (await testServer());
  const ctx = systemCtx(running.app, SYSTEM_TENANT, uuidv7());
  const { id } = await ctx.db.transaction(async (tx) => {
    await ensureOperators(ctx, tx);
    return ensureIdentity({ ...ctx, db: tx }, `operator-${++named}`, 'system');
  });
  const key = prepareApiKey(ctx, { identity_id: id, name: 'operator' }, new Date());
  await ctx.db.batch(key.statements);
  return callerOf(running, { tenant: SYSTEM_TENANT, id, token: key.text });
}

/** All that the database holds of a tenant, as text. */
export async function everythingOf(tenant: string): Promise<string> {
  const { app } = await testServer();
  const { operator } = app.database;
  const tables = await operator.rows<{ name: string }>(sql`
    select c.relname as name from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'`);
  let all = '';
  for (const { name } of tables) {
    const { rows } = await app.database.operatorPool.query(
      `select encode(convert_to(t::text, 'utf8'), 'escape') as line from ${name} t where tenant_id = $1`,
      [tenant],
    );
    all += rows.map(({ line }) => `${name}: ${line}\n`).join('');
  }
  return all;
}

/** Waits until a question has the answer, or fails saying what it was waiting for. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined | false>,
  timeoutMs = 45_000,
): Promise<T> {
  const until = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > until) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
