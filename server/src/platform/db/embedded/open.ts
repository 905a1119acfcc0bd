import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startBridge } from './bridge.ts';
import { lockDirectory } from './lock.ts';

/**
 * PostgreSQL in this process: PGlite in a worker thread.
 *
 * What differs from a server: one backend runs one unit at a time, so a long statement delays all others, and an
 * open transaction keeps all other connections waiting; a statement cannot be cancelled or timed out (never send
 * `statement_timeout` or the like: the backend hangs); session settings and roles set by a client do not outlive
 * its turn, so use `SET LOCAL`; LISTEN, session advisory locks, temporary tables and SQL-level PREPARE belong to
 * all connections together; COPY FROM STDIN, DISCARD ALL and DEALLOCATE ALL are refused. Committed rows survive
 * the death of the process but, without fsync, not a loss of power.
 */
export interface EmbeddedDatabase {
  /**
   * A normal pg.Pool whose connections are streams into the one backend. `role`: the SQL role its statements run
   * as; undefined is the database owner (superuser). The role guards against mistakes, not against hostile SQL:
   * the session belongs to the owner, so a client's own `RESET ROLE` works for the rest of its turn.
   * `pipeline` (default true): whether a client sends queued queries without waiting for answers.
   */
  createPool(options: {
    role?: string | undefined;
    max: number;
    application_name?: string | undefined;
    pipeline?: boolean | undefined;
  }): pg.Pool;
  /** What autovacuum does, which PGlite does not run, for what changed much. Others have their turn after each table. */
  vacuum(): Promise<void>;
  /** Without one the write-ahead log of a long run would all be replayed after a crash. Others wait meanwhile. */
  checkpoint(): Promise<void>;
  /**
   * Ends the pools (clients still checked out after `closeGraceMs` are cut off), closes the database, ends the
   * thread and releases the directory. May be called more than once.
   */
  close(): Promise<void>;
}

/** By the thresholds of autovacuum's documentation; and nothing that was deleted stays in the files for over an hour. */
const wornTables = `
  with tables as (
    select s.relid, s.n_dead_tup > 50 + 0.2 * greatest(c.reltuples, 0)
        or s.n_ins_since_vacuum > 1000 + 0.2 * greatest(c.reltuples, 0)
        or s.n_dead_tup > 0 and coalesce(s.last_vacuum < now() - interval '1 hour', true) as is_worn,
      s.n_mod_since_analyze > 50 + 0.1 * greatest(c.reltuples, 0) as has_changed
    from pg_stat_all_tables s join pg_class c on c.oid = s.relid
    where c.relkind = 'r' and s.schemaname <> 'pg_toast')
  select case when is_worn and has_changed then 'VACUUM (ANALYZE) ' when is_worn then 'VACUUM ' else 'ANALYZE ' end
    || relid::regclass as command
  from tables where is_worn or has_changed`;

export interface EmbeddedOptions {
  /** How long a unit may wait for another connection's open transaction before it fails with 55P03. */
  ownerWaitMs?: number;
  /** How long `close` waits for checked-out clients. */
  closeGraceMs?: number;
}

/**
 * Opens or creates an embedded database. `directory` is created when missing and locked for this process;
 * `memory://` opens a database that lives only in memory, without a lock. What is asked of it waits until it is open, and
 * is rejected with the reason where it cannot be opened.
 *
 * @throws DirectoryLockedError when another living process has the directory open.
 */
export async function openEmbedded(
  directory: string,
  options: EmbeddedOptions = {},
): Promise<EmbeddedDatabase> {
  const { ownerWaitMs = 30_000, closeGraceMs = 5_000 } = options;
  if (directory === 'memory://') return start(directory, { ownerWaitMs, closeGraceMs }, async () => {});
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const lock = await lockDirectory(directory);
  try {
    const data = join(directory, 'data');
    if (!(await exists(data))) await create(directory, data);
    return start(data, { ownerWaitMs, closeGraceMs }, lock.release);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

// A first start that is killed half way must not leave half a cluster under the final name.
async function create(directory: string, data: string): Promise<void> {
  const unfinished = join(directory, 'data.unfinished');
  await rm(unfinished, { recursive: true, force: true });
  const bridge = startBridge({ data: unfinished, ownerWaitMs: 0 });
  try {
    await bridge.opened;
  } finally {
    await bridge.close();
  }
  await rename(unfinished, data);
}

function start(
  data: string,
  options: Required<EmbeddedOptions>,
  release: () => Promise<void>,
): EmbeddedDatabase {
  const bridge = startBridge({ data, ownerWaitMs: options.ownerWaitMs });
  const pools = new Set<pg.Pool>();
  let closing: Promise<void> | undefined;

  const createPool: EmbeddedDatabase['createPool'] = ({ role, max, application_name, pipeline = true }) => {
    const config: pg.PoolConfig & { pipeline: boolean } = {
      stream: () => bridge.createStream(role),
      max,
      application_name,
      pipeline,
      // Nothing here may come from PGUSER, PGSSLMODE and the like, which speak of another database.
      user: role ?? 'postgres',
      database: 'postgres',
      host: 'embedded',
      password: '',
      ssl: false,
      // A connection costs nothing while idle, and a new one prepares its statements again.
      idleTimeoutMillis: 0,
    };
    const pool = new pg.Pool(config);
    // When the worker dies every query and every later connect rejects with the reason; without listeners the
    // same news about an idle client would end the process.
    pool.on('error', () => {});
    pool.on('connect', (client) => client.on('error', () => {}));
    pools.add(pool);
    return pool;
  };

  async function maintain(work: (pool: pg.Pool) => Promise<unknown>): Promise<void> {
    const pool = createPool({ max: 1, application_name: 'maintenance' });
    try {
      await work(pool);
    } finally {
      pools.delete(pool);
      await pool.end();
    }
  }

  const vacuum = () =>
    maintain(async (pool) => {
      const { rows } = await pool.query(wornTables);
      for (const { command } of rows)
        await pool.query(command).catch((error: { code?: string }) => {
          const isGoneMeanwhile = error.code === '42P01';
          if (!isGoneMeanwhile) throw error;
        });
    });

  const checkpoint = () => maintain((pool) => pool.query('CHECKPOINT'));

  async function closeAll(): Promise<void> {
    try {
      await bridge.opened.catch(() => {});
      const deadline = performance.now() + options.closeGraceMs;
      await Promise.all(Array.from(pools, (pool) => endPool(pool, deadline)));
      await bridge.close();
    } finally {
      await release();
    }
  }

  function close(): Promise<void> {
    closing ??= closeAll();
    return closing;
  }

  return { createPool, vacuum, checkpoint, close };
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function endPool(pool: pg.Pool, deadline: number): Promise<void> {
  if (pool.ending) return;
  // A pool that ends never serves those who wait for a client, nor tells them.
  while (pool.waitingCount > 0 && performance.now() < deadline) await sleep(5);
  const ended = pool.end();
  await Promise.race([ended, sleep(Math.max(0, deadline - performance.now()), undefined, { ref: false })]);
}
