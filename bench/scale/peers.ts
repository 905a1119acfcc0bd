/** The same vectors in what others use: hnswlib-node, sqlite-vec, and pgvector with one index for all tenants. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import pg from 'pg';
import { median } from '../table.ts';
import { DIMENSIONS, nearestOf } from './topics.ts';

export interface PeerData {
  /** All vectors, and the number of the tenant of each. */
  vectors: Float32Array[];
  tenants: Int32Array;
}

export interface Asked {
  tenant: number;
  queries: Float32Array[];
}

export interface PeerFigure {
  what: string;
  tenant: number;
  size: number;
  ms: number;
  recall: number;
  rows: number;
}

type Search = (query: Float32Array, tenant: number) => Promise<number[]> | number[];

/** @param folder where hnswlib-node and sqlite-vec are installed (npm install hnswlib-node sqlite-vec) */
export async function measurePeers(
  data: PeerData,
  asked: Asked[],
  databaseUrl: string,
  folder: string | undefined,
  say: (line: string) => void,
): Promise<PeerFigure[]> {
  const figures: PeerFigure[] = [];
  const measure = async (what: string, search: Search) => {
    for (const { tenant, queries } of asked)
      figures.push(await measureOne(what, search, data, tenant, queries));
  };
  const load = folder ? createRequire(join(folder, 'package.json')) : undefined;
  for (const [name, open] of [
    ['hnswlib-node', openHnswlib],
    ['sqlite-vec', openSqliteVec],
  ] as const) {
    try {
      if (!load) throw new Error('no --peers folder given');
      const from = performance.now();
      const search = open(load, data);
      say(`${name}: filled in ${((performance.now() - from) / 1000).toFixed(1)} s`);
      await measure(name, search);
    } catch (error) {
      say(`${name}: not measured (${(error as Error).message.split('\n')[0]})`);
    }
  }
  const plain = await openPlainPgvector(databaseUrl, data, say);
  await measure('pgvector, one HNSW and a filter', plain.search(false));
  await measure('the same, iterative scan', plain.search(true));
  await plain.close();
  return figures;
}

async function measureOne(
  what: string,
  search: Search,
  { vectors, tenants }: PeerData,
  tenant: number,
  queries: Float32Array[],
): Promise<PeerFigure> {
  const own = vectors.flatMap((vector, at) => (tenants[at] === tenant ? [{ vector, at }] : []));
  const times: number[] = [];
  let right = 0;
  let wanted = 0;
  let rows = 0;
  for (const query of queries) {
    const from = performance.now();
    const found = await search(query, tenant);
    times.push(performance.now() - from);
    const best = nearestOf(
      own.map(({ vector }) => vector),
      query,
      10,
    ).map(({ at }) => own[at]!.at);
    right += best.filter((at) => found.includes(at)).length;
    wanted += best.length;
    rows += found.length;
  }
  return {
    what,
    tenant,
    size: own.length,
    ms: median(times),
    recall: right / wanted,
    rows: rows / queries.length,
  };
}

function openHnswlib(load: NodeJS.Require, { vectors, tenants }: PeerData): Search {
  const { HierarchicalNSW } = load('hnswlib-node');
  const index = new HierarchicalNSW('cosine', DIMENSIONS);
  index.initIndex(vectors.length, 16, 64);
  for (const [at, vector] of vectors.entries()) index.addPoint(Array.from(vector), at);
  index.setEf(160);
  return (query, tenant) =>
    index.searchKnn(Array.from(query), 10, (at: number) => tenants[at] === tenant).neighbors as number[];
}

function openSqliteVec(load: NodeJS.Require, { vectors, tenants }: PeerData): Search {
  const database = new DatabaseSync(':memory:', { allowExtension: true });
  database.loadExtension(load('sqlite-vec').getLoadablePath());
  database.exec(
    `create virtual table vectors using vec0(tenant integer partition key, embedding float[${DIMENSIONS}] distance_metric=cosine)`,
  );
  const insert = database.prepare('insert into vectors (rowid, tenant, embedding) values (?, ?, ?)');
  database.exec('begin');
  for (const [at, vector] of vectors.entries())
    insert.run(BigInt(at), BigInt(tenants[at]!), new Uint8Array(vector.buffer));
  database.exec('commit');
  const search = database.prepare(
    'select rowid from vectors where tenant = ? and embedding match ? and k = 10',
  );
  return (query, tenant) =>
    search.all(BigInt(tenant), new Uint8Array(query.buffer)).map(({ rowid }) => Number(rowid));
}

const literal = (vector: Float32Array): string => `[${vector}]`;

async function openPlainPgvector(url: string, { vectors, tenants }: PeerData, say: (line: string) => void) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(
    `create table plain_vectors (tenant int not null, id int not null, embedding vector(${DIMENSIONS}) not null)`,
  );
  for (let at = 0; at < vectors.length; at += 500) {
    const part = vectors.slice(at, at + 500);
    await client.query('insert into plain_vectors select * from unnest($1::int[], $2::int[], $3::vector[])', [
      Array.from(tenants.slice(at, at + 500)),
      part.map((_, i) => at + i),
      part.map(literal),
    ]);
  }
  const from = performance.now();
  await client.query(`set maintenance_work_mem = '512MB'`);
  await client.query('set statement_timeout = 0');
  await client.query('create index on plain_vectors using hnsw (embedding vector_cosine_ops)');
  say(`pgvector, one HNSW: built in ${((performance.now() - from) / 1000).toFixed(1)} s`);
  await client.query('analyze plain_vectors');
  return {
    search: (iterative: boolean): Search => {
      let ready: Promise<unknown> | undefined;
      return async (query, tenant) => {
        ready ??= client.query(`set hnsw.iterative_scan = ${iterative ? 'strict_order' : 'off'}`);
        await ready;
        const { rows } = await client.query({
          name: 'plain',
          text: 'select id from plain_vectors where tenant = $1 order by embedding <=> $2 limit 10',
          values: [tenant, literal(query)],
        });
        return rows.map(({ id }) => id as number);
      };
    },
    close: async () => {
      await client.query('drop table plain_vectors');
      await client.end();
    },
  };
}
