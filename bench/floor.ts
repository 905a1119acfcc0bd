/**
 * What the server is compared with, in a process of its own: bare Fastify with one prepared SELECT or one INSERT
 * (same table, same row size, same pool size), and the search statement alone.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { fastify } from 'fastify';
import pg from 'pg';
import { wordSearch } from '../server/src/modules/knowledge/memory/store.ts';
import { prepareQuery } from '../server/src/modules/knowledge/retrieval/service.ts';
import type { Ctx } from '../server/src/platform/context.ts';
import { wireValue } from '../server/src/platform/db/batch.ts';
import { type Db, operatorDb } from '../server/src/platform/db/database.ts';
import { openEmbedded } from '../server/src/platform/db/embedded/open.ts';
import type { Statement } from '../server/src/platform/db/sql.ts';

const max = Number(process.env.DATABASE_POOL_SIZE ?? 10);
const embedded = process.env.DATABASE_URL
  ? undefined
  : await openEmbedded(join(process.env.DATA_DIR!, 'database'));
const pool: pg.Pool = embedded
  ? embedded.createPool({ max })
  : new pg.Pool({ connectionString: process.env.DATABASE_URL!, max });

await pool.query(`
  create table if not exists bench_rows (
    tenant_id text not null, id uuid not null, identity_id uuid not null, text text not null, type text not null,
    metadata jsonb not null, payload bytea not null, created_at timestamptz not null, updated_at timestamptz not null,
    primary key (tenant_id, id))`);
const { rows: sizes } = await pool.query(
  'select coalesce(avg(pg_column_size(words) + pg_column_size(trigrams)), 500)::int as bytes from (select * from memories limit 1000) m',
);
// Weighs what the memory's term weights weigh; random, so that no compression makes it lighter.
const payload = randomBytes(sizes[0].bytes);
const identity = randomUUID();

const text = { type: 'string' } as const;
const nullable = { type: ['string', 'null'] } as const;
const time = { type: 'string', format: 'date-time' } as const;
const anything = { type: 'object', additionalProperties: true } as const;
const row = {
  type: 'object',
  properties: {
    id: text,
    identity_id: text,
    text,
    type: text,
    metadata: anything,
    session_id: nullable,
    role: nullable,
    version: { type: 'integer' },
    created_at: time,
    updated_at: time,
    tenant_id: text,
  },
} as const;

const server = fastify();
server.get<{ Params: { id: string }; Headers: { 'x-tenant': string } }>(
  '/v1/memory/:id',
  { schema: { params: { type: 'object', properties: { id: text } }, response: { 200: row } } },
  async ({ params, headers }, reply) => {
    const found = await pool.query({
      name: 'by_id',
      text: `select id, identity_id, text, type, metadata, session_id, role, version, created_at, updated_at, tenant_id
        from memories where tenant_id = $1 and id = $2`,
      values: [headers['x-tenant'], params.id],
    });
    return found.rows[0] ?? reply.code(404).send({});
  },
);
server.post<{ Body: { text: string; type: string; metadata: object }; Headers: { 'x-tenant': string } }>(
  '/v1/memory/',
  {
    schema: {
      body: {
        type: 'object',
        required: ['text', 'type'],
        properties: { text, type: text, metadata: anything },
      },
      response: { 201: row },
    },
  },
  async ({ body, headers }, reply) => {
    const now = new Date();
    const made = { ...body, tenant_id: headers['x-tenant'], id: randomUUID(), identity_id: identity };
    await pool.query({
      name: 'insert',
      text: 'insert into bench_rows values ($1, $2, $3, $4, $5, $6, $7, $8, $8)',
      values: [made.tenant_id, made.id, identity, made.text, made.type, made.metadata, payload, now],
    });
    reply.code(201);
    return { ...made, version: 1, created_at: now, updated_at: now };
  },
);

/** The statement a search of a whole tenant sends for its candidates, taken from the store itself. */
async function searchStatement(tenant: string, query: string): Promise<Statement<unknown>> {
  const db: Db = { ...operatorDb(pool), tenant };
  const filter = {
    owner: undefined,
    types: undefined,
    session_id: undefined,
    metadata: undefined,
    created_from: undefined,
    created_to: undefined,
  };
  // Preparing a query looks at the tenant, its database and the process's memory of counts: this process has its own.
  const ctx = { app: {}, tenant: db.tenant, db } as unknown as Ctx;
  return wordSearch(tenant, await prepareQuery(ctx, 'memory', query), filter, new Date()).statement(
    undefined,
  );
}

let alone: pg.PoolClient | undefined;
async function timeSearch({ tenant, query }: { tenant: string; query: string }): Promise<number> {
  const { name, text, values } = await searchStatement(tenant, query);
  alone ??= await pool.connect();
  const start = performance.now();
  await alone.query({ name: name!, text, values: values.map(wireValue) });
  return performance.now() - start;
}

process.on('message', async (message: { tenant: string; query: string }) => {
  try {
    process.send!({ value: await timeSearch(message) });
  } catch (error) {
    process.send!({ error: (error as Error).message });
  }
});
process.on('SIGTERM', async () => {
  alone?.release();
  await server.close();
  if (embedded) await embedded.close();
  else await pool.end();
  process.exit(0);
});
await server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
process.send!({ value: 'ready' });
