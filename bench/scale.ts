/**
 * Many tenants of very different sizes with an embedding model: recall and rows at each size against an exact search,
 * latency through HTTP against the same search's statements alone, and ingestion while searches run.
 *
 *   node bench/scale.ts [--full] [--memories N] [--tenants N] [--queries N] [--rate N] [--peers FOLDER] [--no-peers]
 *
 * 100,000 memories, 1,000,000 with --full, over 1,000 tenants; the largest has a fifth of all. They are sent at 10,000 a second
 * (--rate, 0 for as fast as they are taken), whether the answers keep up or not. FOLDER is where
 * hnswlib-node and sqlite-vec are installed, if they are to be measured beside it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client } from 'undici';
import { call, makeBed } from './bed.ts';
import { ask, killAll, startEmbeddings, startSearches, startServer, startWorker, stop } from './processes.ts';
import { openReplay, type Replay } from './replay.ts';
import { measurePeers } from './scale/peers.ts';
import type { SearchOrder } from './scale/searches.ts';
import { DIMENSIONS, nearestOf, newQuestion, newText, vectorOf } from './scale/topics.ts';
import { aligned, machine, median, percentile } from './table.ts';
import { newRandom } from './texts.ts';

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    memories: { type: 'string' },
    tenants: { type: 'string', default: '1000' },
    queries: { type: 'string', default: '40' },
    rate: { type: 'string', default: '10000' },
    peers: { type: 'string' },
    'no-peers': { type: 'boolean', default: false },
  },
});
const total = Number(values.memories ?? (values.full ? 1_000_000 : 100_000));
const tenantCount = Number(values.tenants);
const queryCount = Number(values.queries);
const largestShare = 0.2;
const bulk = 1_000;
const rate = Number(values.rate);
const senders = 4;
const random = newRandom(42);

interface Tenant {
  rank: number;
  id: string;
  token: string;
  texts: string[];
  ids: string[];
}

/** Sizes that fall as a power of the rank, the largest with its share of all. */
function sizesOf(): number[] {
  const sizes = (power: number) =>
    Array.from({ length: tenantCount }, (_, i) => Math.max(1, (largestShare * total) / (i + 1) ** power));
  let [low, high] = [0.5, 4];
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (sizes(middle).reduce((sum, size) => sum + size, 0) > total) low = middle;
    else high = middle;
  }
  return sizes(high).map(Math.round);
}

/** The best is what it costs when nobody else has the processor: on a busy machine the only one to be believed. */
const ms = (times: number[]) =>
  `${Math.min(...times).toFixed(1)}, ${median(times).toFixed(1)}, ${percentile(times, 0.99).toFixed(1)}`;
const say = (line: string) => console.log(`${new Date().toISOString().slice(11, 19)} ${line}`);

async function signUp(client: Client, sizes: number[]): Promise<Tenant[]> {
  const tenants: Tenant[] = [];
  for (const [i, size] of sizes.entries()) {
    const body = { external_id: 'bench', role: 'admin' };
    const { access_token: token, identity } = await call(client, 'POST', '/v1/identity/', '', body);
    const texts = Array.from({ length: size }, () => newText(random));
    tenants.push({ rank: i + 1, id: identity.tenant_id, token, texts, ids: [] });
  }
  return tenants;
}

async function search(client: Client, tenant: Tenant, query: string, mode: string) {
  const from = performance.now();
  const found = await call(client, 'POST', '/v1/memory/search', tenant.token, { query, mode });
  return { ms: performance.now() - from, ids: found.map(({ id }: { id: string }) => id) as string[] };
}

const questionTo = (tenant: Tenant): string =>
  newQuestion(tenant.texts[Math.floor(random() * tenant.texts.length)]!, random);

/** Searches of tenants as they come, in a process of their own, until told to stop. A tenant is asked as often as it is large. */
async function searching(url: string, tenants: Tenant[]) {
  const child = startSearches();
  const order: SearchOrder = {
    url,
    seed: Math.floor(random() * 2 ** 31),
    tenants: tenants.map(({ token, texts, ids }) => ({
      token,
      size: texts.length,
      texts: texts.filter((_, i) => i % Math.ceil(texts.length / 200) === 0),
      filled: ids.length > 0,
    })),
  };
  child.send(order);
  return {
    filled: (at: number) => child.send({ filled: at }),
    stop: async () => {
      const times = await ask<number[]>(child, { stop: true });
      child.kill();
      return times;
    },
  };
}

async function ingest(url: string, tenants: Tenant[], filled: (at: number) => void): Promise<number> {
  const calls = tenants.flatMap((tenant) =>
    Array.from({ length: Math.ceil(tenant.texts.length / bulk) }, (_, i) => ({ tenant, at: i * bulk })),
  );
  for (let i = calls.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [calls[i], calls[j]] = [calls[j]!, calls[i]!];
  }
  const from = performance.now();
  let sent = 0;
  await Promise.all(
    Array.from({ length: senders }, async () => {
      const client = new Client(url);
      for (let next = calls.pop(); next; next = calls.pop()) {
        const { tenant, at } = next;
        const part = tenant.texts.slice(at, at + bulk);
        const early = rate > 0 ? from + (sent / rate) * 1_000 - performance.now() : 0;
        sent += part.length;
        if (early > 0) await sleep(early);
        const body = { memories: part.map((text) => ({ text, type: 'note' })) };
        const { created } = await call(client, 'POST', '/v1/memory/bulk', tenant.token, body);
        created.forEach(({ id }: { id: string }, i: number) => {
          tenant.ids[at + i] = id;
        });
        filled(tenant.rank - 1);
      }
      await client.close();
    }),
  );
  return total / ((performance.now() - from) / 1_000);
}

async function measureTenant(
  client: Client,
  replay: Replay,
  tenant: Tenant,
  segments: number,
): Promise<string[]> {
  const vectors = tenant.texts.map(vectorOf);
  const http: number[] = [];
  let right = 0;
  let wanted = 0;
  let rows = 0;
  // In a row each: what runs in turns with another process finds its caches empty. The first ones make statements ready.
  const warmUp = 10;
  const queries = Array.from({ length: queryCount + warmUp }, () => questionTo(tenant));
  for (const query of queries) http.push((await search(client, tenant, query, 'hybrid')).ms);
  const sql = await replay.time(tenant.id, queries, 'hybrid');
  const near = [];
  for (const query of queries) near.push(await search(client, tenant, query, 'vector'));
  for (const times of [http, sql, near]) times.splice(0, warmUp);
  for (const [i, { ids }] of near.entries()) {
    // What points the other way has a score of 0 and is no answer.
    const best = nearestOf(vectors, vectorOf(queries[i + warmUp]!), 10).filter(({ cosine }) => cosine > 0);
    right += best.filter(({ at }) => ids.includes(tenant.ids[at]!)).length;
    wanted += best.length;
    rows += ids.length;
  }
  return [
    `${tenant.rank}`,
    tenant.texts.length.toLocaleString('en'),
    `${segments}`,
    `${rows} of ${wanted}`,
    (right / wanted).toFixed(3),
    ms(http),
    ms(sql),
    `${(median(http) / median(sql)).toFixed(2)}, ${(percentile(http, 0.99) / percentile(sql, 0.99)).toFixed(2)}`,
    ms(near.map((one) => one.ms)),
  ];
}

const bed = await makeBed('postgres');
const operator = bed.operator!;
const count = async (text: string) => Number(Object.values((await operator.query(text)).rows[0])[0]);

/** Waits until every memory has its vector and no tail is long; says how long each took. */
async function untilSettled(from: number): Promise<{ vectors: number; settled: number }> {
  while ((await count('select count(*) from memory_queue')) > 0) await sleep(250);
  const vectors = performance.now() - from;
  for (let quiet = 0; quiet < 8; ) {
    const others = await count(
      `select count(*) from vector_spaces where model <> 'topics-${DIMENSIONS}' and drained_at is null`,
    );
    const building = await count(`select count(*) from vector_segments where state = 'building'`);
    const active = await count(
      `select count(*) from pgboss.job where name = 'vectors.tend' and state in ('created', 'active', 'retry')`,
    );
    quiet = others + building + active === 0 ? quiet + 1 : 0;
    await sleep(500);
  }
  return { vectors, settled: performance.now() - from };
}

try {
  console.log(`${machine(bed.describe)}\n`);
  const embeddings = await startEmbeddings();
  const env = {
    ...bed.env,
    EMBEDDING_BASE_URL: embeddings.url,
    EMBEDDING_MODEL: 'topics',
    EMBEDDING_DIMENSIONS: String(DIMENSIONS),
    // The server of this run shares the processors with all the rest; nothing here is about one that is slow.
    EXT_CALL_TIMEOUT_MS: '120000',
    EMBEDDING_QUERY_TIMEOUT_MS: '120000',
  };
  const server = await startServer(env, ['--no-worker']);
  const worker = startWorker(env);
  const client = new Client(server.url);
  const sizes = sizesOf();
  const tenants = await signUp(client, sizes);
  say(
    `${total.toLocaleString('en')} memories over ${tenantCount} tenants, the largest ${sizes[0]!.toLocaleString('en')}`,
  );

  const from = performance.now();
  const during = await searching(server.url, tenants);
  const accepted = await ingest(server.url, tenants, during.filled);
  const timesDuring = await during.stop();
  say(`accepted ${Math.round(accepted).toLocaleString('en')}/s while searches ran`);
  const { vectors, settled } = await untilSettled(from);
  say(
    `vectors of all after ${(vectors / 1000).toFixed(0)} s, segments after ${(settled / 1000).toFixed(0)} s`,
  );
  await operator.query('vacuum analyze');
  const after = await searching(server.url, tenants);
  await sleep(Math.min(20_000, 5_000 + total / 50));
  const timesAfter = await after.stop();
  say(
    `searches while ingesting: ${ms(timesDuring)} ms (${timesDuring.length}); afterwards: ${ms(timesAfter)} ms (${timesAfter.length})`,
  );

  const replay = await openReplay(env);
  const rows = [
    [
      'rank',
      'memories',
      'segments',
      'rows',
      'recall@10',
      'hybrid, HTTP ms: best, p50, p99',
      'its SQL ms',
      'ratio p50, p99',
      'vector, HTTP ms',
    ],
  ];
  const ranks = [1, 2, 3, 5, 10, 30, 100, 300, 1_000].filter((rank) => rank <= tenantCount);
  for (const rank of ranks) {
    const tenant = tenants[rank - 1]!;
    const { rows: found } = await operator.query(
      `select count(*)::int as count from vector_segments where tenant_id = $1 and state = 'live'`,
      [tenant.id],
    );
    rows.push(await measureTenant(client, replay, tenant, found[0].count));
  }
  console.log(`\n${aligned(rows)}\n`);
  await replay.close();
  await client.close();
  await stop(worker);
  await stop(server);

  if (!values['no-peers'] && total <= 200_000) {
    const all = tenants.flatMap(({ rank, texts }) => texts.map((text) => ({ rank, vector: vectorOf(text) })));
    const data = {
      vectors: all.map(({ vector }) => vector),
      tenants: Int32Array.from(all, ({ rank }) => rank),
    };
    const asked = [1, 10, 100]
      .filter((rank) => rank <= tenantCount)
      .map((rank) => ({
        tenant: rank,
        queries: Array.from({ length: queryCount }, () => vectorOf(questionTo(tenants[rank - 1]!))),
      }));
    const figures = await measurePeers(data, asked, bed.env.DATABASE_URL!, values.peers, say);
    console.log(
      `\n${aligned([
        ['beside it, all vectors in one', 'memories', 'p50 ms', 'recall@10', 'rows of 10'],
        ...figures.map(({ what, size, ms: took, recall, rows: found }) => [
          what,
          size.toLocaleString('en'),
          took.toFixed(2),
          recall.toFixed(3),
          found.toFixed(1),
        ]),
      ])}\n`,
    );
  }
} finally {
  killAll();
  await bed.close();
}
process.exit(0);
