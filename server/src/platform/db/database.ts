import pg from 'pg';
import { isBroken, type Result, sendBatch } from './batch.ts';
import { type Statement, sql } from './sql.ts';

/** A PostgreSQL timestamp in UTC as RFC 3339 with milliseconds: `2026-11-20 10:11:12.3+00` -> `2026-11-20T10:11:12.300Z`. */
function timestamp(text: string): string {
  if (!text.endsWith('+00') || text.length < 22)
    return new Date(text.includes('infinity') ? Number.NaN : text).toISOString();
  const fraction = text.length > 22 ? text.slice(20, -3).padEnd(3, '0').slice(0, 3) : '000';
  return `${text.slice(0, 10)}T${text.slice(11, 19)}.${fraction}Z`;
}

const parsers: Record<number, (text: string) => unknown> = {
  [pg.types.builtins.INT8]: Number,
  [pg.types.builtins.NUMERIC]: Number,
  [pg.types.builtins.TIMESTAMPTZ]: timestamp,
  [pg.types.builtins.DATE]: (text) => text,
};

/** How columns come back: timestamps as RFC 3339 strings, bigint as number, JSON parsed. */
export const types = {
  getTypeParser: (oid: number, format?: string) =>
    (format === 'binary' ? undefined : parsers[oid]) ?? pg.types.getTypeParser(oid, format as 'text'),
};

type Rows<S> = S extends Statement<infer Row> ? Result<Row> : never;
type Results<S extends readonly Statement<unknown>[]> = { [I in keyof S]: Rows<S[I]> };

/** What runs statements: one after the other inside a transaction, or each batch as a transaction of its own. */
export interface Db {
  /** The tenant all statements run for; undefined for the operator, who sees all. */
  readonly tenant: string | undefined;
  readonly inTransaction: boolean;
  /** Runs statements in one round trip. Outside `transaction` they are one transaction: all take effect or none. */
  batch<const S extends readonly Statement<unknown>[]>(statements: S): Promise<Results<S>>;
  rows<Row>(statement: Statement<Row>): Promise<Row[]>;
  one<Row>(statement: Statement<Row>): Promise<Row | undefined>;
  /** Number of rows a statement changed. Under a distributed database only trust it with `returning`. */
  run(statement: Statement<unknown>): Promise<number>;
  /** Several batches in one transaction. Inside it use only the Db that is handed in. */
  transaction<T>(work: (tx: Db) => Promise<T>): Promise<T>;
  /** Does something once what was written is there for all to see: now, or when the transaction around it commits. */
  afterCommit(work: () => void): void;
}

/**
 * The database as one tenant sees it. Every batch first enters the tenant with the SQL function `enter`, in the same
 * round trip and transaction, so row-level security shows and takes that tenant's rows only.
 */
export const tenantDb = (pool: pg.Pool, tenant: string): Db => createDb(pool, tenant, inTurn(pool));

/** The database as the operator of the installation sees it: all tenants. For platform work and the command line. */
export const operatorDb = (pool: pg.Pool): Db => createDb(pool, undefined, inTurn(pool));

/** As `tenantDb`; what is no transaction shares connections and round trips with what other tenants ask for (share.ts). */
export const glanceDb = (pool: pg.Pool, trips: Send, tenant: string): Db => createDb(pool, tenant, trips);

/** What one tenant has to write. */
export interface Part {
  tenant: string;
  statements: readonly Statement<unknown>[];
}

/** Writes of several tenants in one transaction: each tenant is entered before its statements, and can touch its own rows only. */
export const writeTogether = async (pool: pg.Pool, parts: readonly Part[]): Promise<void> =>
  void (await inTurn(pool)(
    parts.flatMap(({ tenant, statements }) => [sql`select enter(${tenant})`, ...statements]),
  ));

type Send = (statements: readonly Statement<unknown>[]) => Promise<Result<unknown>[]>;

/** Each batch on a connection of its own. */
const inTurn =
  (pool: pg.Pool): Send =>
  (statements) =>
    withClient(pool, (client) => sendBatch(client, statements));

function createDb(pool: pg.Pool, tenant: string | undefined, send: Send): Db {
  const enter = tenant === undefined ? [] : [sql`select enter(${tenant})`];
  const db = withQueries(tenant, false, async (statements) => {
    const results = await send([...enter, ...statements]);
    return enter.length ? results.slice(1) : results;
  });
  return {
    ...db,
    afterCommit: (work) => work(),
    transaction: async (work) => {
      const committed: (() => void)[] = [];
      const value = await withClient(pool, async (client) => {
        // Remembered here: what is thrown in the end may be another error than that of the statement.
        let connectionUnusable = false;
        const sendOne = (statements: readonly Statement<unknown>[]) =>
          sendBatch(client, statements).catch((error) => {
            connectionUnusable ||= error.connectionUnusable === true;
            throw error;
          });
        const tx: Db = {
          ...withQueries(tenant, true, sendOne),
          transaction: (inner) => inner(tx),
          afterCommit: (work) => void committed.push(work),
        };
        try {
          await sendBatch(client, [sql`begin`, ...enter]);
          const value = await work(tx);
          await sendBatch(client, [sql`commit`]);
          return value;
        } catch (error) {
          if (connectionUnusable || (error as { connectionUnusable?: boolean }).connectionUnusable) {
            Object.assign(error as Error, { connectionUnusable: true });
          } else {
            await sendBatch(client, [sql`rollback`]).catch((lost) => {
              throw Object.assign(error as Error, {
                connectionUnusable: true,
                rollbackFailure: String(lost),
              });
            });
          }
          throw error;
        }
      });
      for (const then of committed) then();
      return value;
    },
  };
}

function withQueries(
  tenant: string | undefined,
  inTransaction: boolean,
  send: Send,
): Omit<Db, 'transaction' | 'afterCommit'> {
  return {
    tenant,
    inTransaction,
    batch: (async (statements: readonly Statement<unknown>[]) =>
      statements.length ? send(statements) : []) as Db['batch'],
    rows: async <Row>(statement: Statement<Row>) => (await send([statement]))[0]!.rows as Row[],
    one: async <Row>(statement: Statement<Row>) => (await send([statement]))[0]!.rows[0] as Row | undefined,
    run: async (statement) => (await send([statement]))[0]!.count,
  };
}

async function withClient<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken = false;
  try {
    return await work(client);
  } catch (error) {
    broken = isBroken(error);
    throw error;
  } finally {
    client.release(broken);
  }
}
