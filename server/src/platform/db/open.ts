import type { Socket } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import type { Config } from '../config.ts';
import { keysOf } from '../crypto.ts';
import type { Log } from '../log.ts';
import { type Db, glanceDb, operatorDb, type Part, tenantDb, types, writeTogether } from './database.ts';
import { type EmbeddedDatabase, openEmbedded } from './embedded/open.ts';
import { createSharedTrips } from './share.ts';

/** The open database of a process. */
export interface Database {
  engine: 'postgresql' | 'embedded';
  /** The database as one tenant sees it. */
  tenant(tenantId: string): Db;
  /** As `tenant`, for reads by key, which are always quick: concurrent ones share connections, whoever's they are. */
  glance(tenantId: string): Db;
  /**
   * Writes of several tenants in one transaction: all take effect or none. Only where one back end does one thing at a time
   * anyway; elsewhere a tenant would wait for another's locks.
   */
  together(parts: readonly Part[]): Promise<void>;
  /** The database as the operator sees it: every tenant. */
  operator: Db;
  /** The operator's pool itself, for the queue. */
  operatorPool: pg.Pool;
  /** The restricted role that tenant statements run as. */
  appRole: string;
  waiting(): number;
  /** Gathers statistics and frees space where the engine does not do so by itself. */
  vacuum(): Promise<void>;
  /** Makes what a crash would leave to be done again short, where the engine does not do so by itself. */
  checkpoint(): Promise<void>;
  close(): Promise<void>;
}

const embeddedAppRole = 'manushya_app';

/** The restricted role's name: from its own connection string, or derived from the database's name. */
export function appRoleOf(config: Config): string {
  if (!config.DATABASE_URL) return embeddedAppRole;
  if (config.DATABASE_APP_URL) return decodeURIComponent(new URL(config.DATABASE_APP_URL).username);
  const database = decodeURIComponent(new URL(config.DATABASE_URL).pathname.slice(1)) || 'postgres';
  return `${database.replace(/[^A-Za-z0-9_]/g, '_').slice(0, 59)}_app`;
}

/** Opens PostgreSQL when DATABASE_URL is set, else the embedded database, without waiting for it. Does not migrate. */
export async function openDatabase(config: Config, log: Log): Promise<Database> {
  const onError = (error: Error) => log.warn({ err: error }, 'a database connection was lost');
  return config.DATABASE_URL ? openPostgres(config, onError) : openEmbeddedDatabase(config, onError);
}

async function openEmbeddedDatabase(config: Config, onError: (error: Error) => void): Promise<Database> {
  const embedded: EmbeddedDatabase = await openEmbedded(join(config.dataDir, 'database'));
  let closing = false;
  const operatorPool = embedded.createPool({ max: 4, application_name: 'manushya-operator' });
  const appPool = embedded.createPool({
    role: embeddedAppRole,
    max: config.DATABASE_POOL_SIZE,
    application_name: 'manushya',
  });
  for (const pool of [operatorPool, appPool]) {
    pool.options.types = types as pg.CustomTypesConfig;
    pool.on('error', (error) => {
      if (!closing) onError(error);
    });
  }
  return {
    ...databaseOf('embedded', operatorPool, appPool, embeddedAppRole),
    vacuum: () => embedded.vacuum(),
    checkpoint: () => embedded.checkpoint(),
    close: async () => {
      closing = true;
      await Promise.all([operatorPool.end(), appPool.end()]);
      await embedded.close();
    },
  };
}

const longestStatementMs = 30_000;
const sessionSettings = `-c timezone=UTC -c statement_timeout=${longestStatementMs} -c idle_in_transaction_session_timeout=30000`;

// The statements of requests are planned once for each connection. Planning anew for each value costs more than most
// of them, and for a tenant that is newer than the last ANALYZE it chooses badly; so a statement whose best plan depends
// on which filters are given is written as several.
// Nor are they compiled: that takes a tenth of a second each time, and begins where a plan is thought to be dear, which a
// generic one for a large tenant's tables often is.
// And no table is read from end to end while an index leads to a tenant's rows: where statistics are older than the rows, as while
// many are stored, that seems cheap, and a plan stays.
const plannedOnce = '-c plan_cache_mode=force_generic_plan -c jit=off -c enable_seqscan=off';

async function openPostgres(config: Config, onError: (error: Error) => void): Promise<Database> {
  const appRole = appRoleOf(config);
  const common = {
    types: types as pg.CustomTypesConfig,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: longestStatementMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    options: sessionSettings,
  };
  const appUrl = new URL(config.DATABASE_APP_URL ?? config.DATABASE_URL!);
  if (!config.DATABASE_APP_URL) {
    appUrl.username = encodeURIComponent(appRole);
    appUrl.password = encodeURIComponent(keysOf(config).databaseRole);
  }
  const operatorPool = new pg.Pool({
    ...common,
    connectionString: config.DATABASE_URL,
    max: 4,
    application_name: 'manushya-operator',
  });
  const appPool = new pg.Pool({
    ...common,
    // Queries that share a connection are sent without waiting for the answers of those before.
    ...{ pipeline: true },
    connectionString: appUrl.href,
    options: `${sessionSettings} ${plannedOnce}`,
    max: config.DATABASE_POOL_SIZE,
    application_name: 'manushya',
  });
  for (const pool of [operatorPool, appPool]) {
    // The pool listens to idle connections only: one that dies in use would end the process.
    pool.on('connect', (client) => client.on('error', onError));
    pool.on('error', () => {});
    pool.on('connect', endWhenSilent);
  }
  return {
    ...databaseOf('postgresql', operatorPool, appPool, appRole),
    // It does both itself.
    vacuum: async () => {},
    checkpoint: async () => {},
    close: async () => {
      await Promise.all([operatorPool.end(), appPool.end()]);
    },
  };
}

const longestSilenceMs = longestStatementMs + 5_000;

interface Wired {
  connection: { stream: Socket };
  readyForQuery: boolean;
}

/**
 * The server ends each statement in time. So a connection on which nothing moves for longer while an answer is waited for leads to
 * a server that went away without a word: a network that is cut, a machine that stands still. TCP gives up on it after a
 * quarter of an hour, and so would the request or the job that waits. Held without a question, as for a lock, it may be silent.
 */
function endWhenSilent(client: pg.PoolClient): void {
  const wired = client as unknown as Wired;
  const { stream } = wired.connection;
  stream.setTimeout(longestSilenceMs, () => {
    if (wired.readyForQuery) return;
    stream.destroy(
      Object.assign(new Error('the connection to the database is silent'), { code: 'ETIMEDOUT' }),
    );
  });
}

/**
 * For maintenance on PostgreSQL that takes as long as it takes. That the server's machine is there is asked by TCP meanwhile. Where
 * the work fails, the connection must be given up.
 */
export async function withoutTimeLimit<T>(client: pg.PoolClient, work: () => Promise<T>): Promise<T> {
  const { stream } = (client as unknown as Wired).connection;
  await client.query('set statement_timeout = 0');
  stream.setTimeout(0);
  const done = await work();
  stream.setTimeout(longestSilenceMs);
  await client.query('reset statement_timeout');
  return done;
}

function databaseOf(
  engine: Database['engine'],
  operatorPool: pg.Pool,
  appPool: pg.Pool,
  appRole: string,
): Omit<Database, 'vacuum' | 'checkpoint' | 'close'> {
  const trips = createSharedTrips(appPool, engine === 'embedded' ? 1 : 2);
  return {
    engine,
    tenant: (tenantId) => tenantDb(appPool, tenantId),
    glance: (tenantId) => glanceDb(appPool, trips, tenantId),
    together: (parts) => writeTogether(appPool, parts),
    operator: operatorDb(operatorPool),
    operatorPool,
    appRole,
    waiting: () => operatorPool.waitingCount + appPool.waitingCount,
  };
}
