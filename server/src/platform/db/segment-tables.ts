import { type Database, withoutTimeLimit } from './open.ts';

/**
 * Tables that are copies of vectors and of term weights with indexes over them, made and dropped while the program runs.
 * Only here are tables made outside the migrations; the functions called are theirs.
 */
export interface SegmentTable {
  /** Of the copies of vectors; those of words and trigrams are called after it. */
  name: string;
  /** Whether vectors get an index. */
  near: boolean;
  /** halfvec takes half the room and builds as fast on a server; the embedded database builds it far slower. */
  kind: 'vector' | 'halfvec';
  dimensions: number;
}

/** Largest number of dimensions pgvector can build an index over. */
export const maxIndexedDimensions = (database: Database): number =>
  database.engine === 'embedded' ? 2_000 : 4_000;

export const segmentKind = (database: Database): SegmentTable['kind'] =>
  database.engine === 'embedded' ? 'vector' : 'halfvec';

export async function makeSegmentTable(
  { operatorPool }: Database,
  { name, kind, dimensions }: SegmentTable,
): Promise<void> {
  await operatorPool.query('select make_segment_table($1, $2::regtype, $3)', [name, kind, dimensions]);
}

/**
 * Builds the index over a table that is filled. It takes as long as it takes: until then nobody searches the table, and
 * nothing else waits for it. Broken off by the signal.
 */
export async function indexSegmentTable(
  { operatorPool, engine }: Database,
  { name, kind, near }: SegmentTable,
  memoryMb: number,
  signal: AbortSignal,
): Promise<void> {
  const client = await operatorPool.connect();
  let failed = true;
  try {
    if (engine === 'embedded') {
      await client.query('select index_segment_table($1, $2::regtype, $3)', [name, kind, near]);
    } else {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      const cancel = () => {
        operatorPool.query('select pg_cancel_backend($1)', [rows[0].pid]).catch(() => {});
      };
      signal.throwIfAborted();
      signal.addEventListener('abort', cancel, { once: true });
      try {
        await withoutTimeLimit(client, async () => {
          await client.query('begin');
          await client.query('set local idle_in_transaction_session_timeout = 0');
          await client.query(`set local maintenance_work_mem = '${Math.round(memoryMb)}MB'`);
          // The processors belong to requests: one is enough for what nobody waits for.
          await client.query('set local max_parallel_maintenance_workers = 0');
          await client.query('select index_segment_table($1, $2::regtype, $3)', [name, kind, near]);
          await client.query('commit');
        });
      } finally {
        signal.removeEventListener('abort', cancel);
      }
    }
    failed = false;
  } finally {
    client.release(failed);
  }
}

/** Gives up rather than letting searches queue behind it; the next sweep tries again. */
export async function dropSegmentTable({ operatorPool, engine }: Database, name: string): Promise<void> {
  const client = await operatorPool.connect();
  let failed = true;
  try {
    await client.query('begin');
    if (engine === 'postgresql') await client.query(`set local lock_timeout = '200ms'`);
    await client.query('select drop_segment_table($1)', [name]);
    await client.query('commit');
    failed = false;
  } finally {
    client.release(failed);
  }
}

/** All segments' tables that are there, and which of their indexes can be used. */
export async function listSegmentTables({
  operatorPool,
}: Database): Promise<{ name: string; near: boolean; terms: boolean }[]> {
  const { rows } = await operatorPool.query(
    `select substr(t.relname, 1, 40) as name,
       coalesce(bool_or(i.indisvalid and x.relname like '%\\_near'), false) as near,
       count(*) filter (where i.indisvalid and x.relname like '%\\_terms') = 2 as terms
     from pg_class t join pg_namespace n on n.oid = t.relnamespace and n.nspname = current_schema()
     left join pg_index i on i.indrelid = t.oid left join pg_class x on x.oid = i.indexrelid
     where t.relkind = 'r' and t.relname ~ '^segment_[0-9a-f]{32}(_[wt])?$' group by 1`,
  );
  return rows;
}

export const segmentTableName = (id: string): string => `segment_${id.replaceAll('-', '')}`;
export const wordTableName = (id: string): string => `${segmentTableName(id)}_w`;
export const trigramTableName = (id: string): string => `${segmentTableName(id)}_t`;
