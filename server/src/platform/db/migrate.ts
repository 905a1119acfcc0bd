import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import type { Keys } from '../crypto.ts';
import { type Database, withoutTimeLimit } from './open.ts';

const directory = fileURLToPath(new URL('../../../migrations/', import.meta.url));

interface Migration {
  version: number;
  name: string;
  text: string;
  checksum: string;
}

async function readMigrations(): Promise<Migration[]> {
  const files = (await readdir(directory)).filter((file) => /^\d{4}_.+\.sql$/.test(file)).sort();
  return Promise.all(
    files.map(async (name) => {
      const text = await readFile(`${directory}${name}`, 'utf8');
      return {
        version: Number(name.slice(0, 4)),
        name,
        text,
        checksum: createHash('sha256').update(text).digest('hex'),
      };
    }),
  );
}

/** One number for all Manushya processes that migrate the same PostgreSQL database at once. */
const migrationLock = 7_266_510_501;

/**
 * Brings the schema up to date: forward only, each migration in its own transaction, one process at a time.
 * Also makes the restricted role and sets its password, where the connection string for it is not given.
 * @returns names of the migrations applied now
 * @throws Error when an applied migration differs from its file, or the database is newer than the program
 */
export async function migrate(
  database: Database,
  keys: Keys,
  options: { manageRole: boolean },
): Promise<string[]> {
  const client = await database.operatorPool.connect();
  let failed = true;
  try {
    const work = async () => {
      await checkServer(client);
      if (options.manageRole) await ensureAppRole(client, database, keys);
      return apply(client, database.appRole);
    };
    // Building an index over a large table, or waiting for another process that does, may take long.
    const alone = async () => {
      await client.query(`select pg_advisory_lock(${migrationLock})`);
      const applied = await work();
      await client.query(`select pg_advisory_unlock(${migrationLock})`);
      return applied;
    };
    const applied = await (database.engine === 'postgresql' ? withoutTimeLimit(client, alone) : work());
    failed = false;
    return applied;
  } finally {
    client.release(failed);
  }
}

async function checkServer(client: pg.PoolClient): Promise<void> {
  const { rows } = await client.query('show server_version_num');
  requireVersion(rows[0].server_version_num);
  const available = await client.query(
    `select default_version from pg_available_extensions where name = 'vector'`,
  );
  requireVector(available.rows);
  await client.query('create extension if not exists vector');
}

function requireVersion(number: string): void {
  if (Number(number) < 150_000)
    throw new Error(`PostgreSQL 15 or newer is needed; this server says ${number}`);
}

function requireVector(available: unknown[]): void {
  if (!available.length)
    throw new Error('the extension "vector" (pgvector) is not installed on this PostgreSQL server');
}

function requireBound(role: string, rows: { bypasses: boolean }[]): void {
  if (rows[0]?.bypasses) throw new Error(`the role ${role} must be neither superuser nor BYPASSRLS`);
}

async function ensureAppRole(client: pg.PoolClient, database: Database, keys: Keys): Promise<void> {
  const role = pg.escapeIdentifier(database.appRole);
  const { rowCount } = await client.query('select 1 from pg_roles where rolname = $1', [database.appRole]);
  const password = database.engine === 'postgresql' ? ` password ${pg.escapeLiteral(keys.databaseRole)}` : '';
  try {
    if (!rowCount) await client.query(`create role ${role} login${password}`);
    else if (password) await client.query(`alter role ${role} login${password}`);
  } catch (error) {
    throw new Error(
      `the role ${database.appRole} can not be made (${(error as Error).message}): give the owner CREATEROLE, or make the role and set DATABASE_APP_URL`,
    );
  }
  const { rows } = await client.query(
    'select rolsuper or rolbypassrls as bypasses from pg_roles where rolname = $1',
    [database.appRole],
  );
  requireBound(database.appRole, rows);
}

async function apply(client: pg.PoolClient, appRole: string): Promise<string[]> {
  await client.query(
    `create table if not exists schema_migrations (version int primary key, name text not null, checksum text not null, applied_at timestamptz not null default now())`,
  );
  const applied: string[] = [];
  for (const migration of (await standing(client)).pending) {
    await client.query('begin');
    try {
      await client.query(migration.text.replaceAll(':app_role', pg.escapeIdentifier(appRole)));
      await client.query('insert into schema_migrations (version, name, checksum) values ($1, $2, $3)', [
        migration.version,
        migration.name,
        migration.checksum,
      ]);
      await client.query('commit');
    } catch (error) {
      await client.query('rollback');
      throw new Error(`${migration.name}: ${(error as Error).message}`);
    }
    applied.push(migration.name);
  }
  return applied;
}

/**
 * How many migrations the database has, and which it is to get.
 * @throws Error when an applied migration differs from its file, or the database is newer than the program
 */
async function standing(client: pg.PoolClient | pg.Pool): Promise<{ applied: number; pending: Migration[] }> {
  const { rows } = await client.query(
    'select version, name, checksum from schema_migrations order by version',
  );
  const done = new Map(rows.map((row) => [row.version as number, row]));
  const migrations = await readMigrations();
  const newest = migrations.at(-1)?.version ?? 0;
  const last = rows.at(-1);
  if (last && last.version > newest) {
    throw new Error(
      `the database has migration ${last.name}, which this version does not know: run a newer version`,
    );
  }
  const changed = migrations.find(
    ({ version, checksum }) => done.has(version) && done.get(version).checksum !== checksum,
  );
  if (changed) throw new Error(`${changed.name} was changed after it was applied to this database`);
  return { applied: rows.length, pending: migrations.filter(({ version }) => !done.has(version)) };
}

/** What a start would find in a database; changes nothing. Each part says what there is, or throws what is wrong. */
export function inspect({ operatorPool, appRole }: Database, options: { manageRole: boolean }) {
  return {
    server: async (): Promise<string> => {
      const { rows } = await operatorPool.query('show server_version_num');
      requireVersion(rows[0].server_version_num);
      return (await operatorPool.query('show server_version')).rows[0].server_version;
    },
    extension: async (): Promise<string> => {
      const { rows } = await operatorPool.query(
        `select installed_version, default_version from pg_available_extensions where name = 'vector'`,
      );
      requireVector(rows);
      return `vector ${rows[0].installed_version ?? `${rows[0].default_version}, to be made by the next start`}`;
    },
    role: async (): Promise<string> => {
      const { rows } = await operatorPool.query(
        `select rolsuper or rolbypassrls as bypasses from pg_roles where rolname = $1`,
        [appRole],
      );
      requireBound(appRole, rows);
      if (rows.length > 0) return appRole;
      const owner = await operatorPool.query(
        'select rolsuper or rolcreaterole as makes from pg_roles where rolname = current_user',
      );
      if (!options.manageRole) throw new Error(`there is no role ${appRole}, which DATABASE_APP_URL names`);
      if (!owner.rows[0]?.makes)
        throw new Error(
          `the role ${appRole} can not be made: give the owner CREATEROLE, or make the role and set DATABASE_APP_URL`,
        );
      return `${appRole}, to be made by the next start`;
    },
    migrations: async (): Promise<string> => {
      const { rows } = await operatorPool.query(`select to_regclass('schema_migrations') as there`);
      const { applied, pending } = rows[0].there
        ? await standing(operatorPool)
        : { applied: 0, pending: await readMigrations() };
      return `${applied} applied${pending.length ? `, ${pending.length} to be applied by the next start` : ''}`;
    },
  };
}
