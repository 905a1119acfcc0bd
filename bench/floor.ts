/**
 * What the server is compared with, in a process of its own: bare Fastify with one prepared SELECT or one INSERT
 * (same table, same row size, same pool size).
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { fastify } from 'fastify';
import pg from 'pg';
import { openEmbedded } from '../server/src/platform/db/embedded/open.ts';

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

process.on('SIGTERM', async () => {
  await server.close();
  if (embedded) await embedded.close();
  else await pool.end();
  process.exit(0);
});
await server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
process.send!({ value: 'ready' });
