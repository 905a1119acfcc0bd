// Many tenants that store nearly the same texts, and random searches and runs of all of them at once: not one id or text
// of another tenant may come back, in answers, citations, caches, logs or metrics.
//   node server/test/isolation-driver.ts [--tenants 50] [--requests 100000] [--engine embedded|postgres] [--seed N]
// PostgreSQL: DATABASE_URL (and REDIS_URL), whose database is emptied first.
import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Pool } from 'undici';
import { environment } from './crash/installation.ts';
import { createVictim, sleep } from './crash/processes.ts';
import { type Random, seeded } from './crash/random.ts';
import { emptyDatabase, newDataDir } from './harness.ts';

export interface IsolationOptions {
  engine: 'embedded' | 'postgres';
  tenants: number;
  requests: number;
  seed: number;
  /** Of PostgreSQL. */
  databaseUrl?: string | undefined;
  redisUrl?: string | undefined;
  say?: (line: string) => void;
}

interface Shop {
  tenant: string;
  token: string;
  /** A word that only its texts have. */
  mark: string;
  memories: string[];
  documents: string[];
  sessions: string[];
  runs: string[];
}

const rows = 12;
const atOnce = 16;
const corpus = 'handbook';
const ID = /[0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}|zq[0-9a-z]{6}/g;

/** What is named in a text: ids (UUID version 7, with hyphens or without) and marks. */
const namedIn = (text: string): Set<string> =>
  new Set([...text.matchAll(ID)].map(([id]) => id.replaceAll('-', '')));

/** Whose an id is: of the first tenant that was told of it. */
function createRegister(tell: (problem: string) => void) {
  const owners = new Map<string, Shop>();
  return {
    owners,
    note(shop: Shop, text: string, where: string): void {
      for (const id of namedIn(text)) {
        const owner = owners.get(id);
        if (owner === undefined) owners.set(id, shop);
        else if (owner !== shop) tell(`${where}: ${id} of ${owner.tenant} came to ${shop.tenant}`);
      }
    },
  };
}

/** Runs the whole trial. What should not be is in `problems`. */
export async function isolationTrial(options: IsolationOptions) {
  const { engine, tenants, requests, seed, databaseUrl, say = () => {} } = options;
  if (engine === 'postgres') await emptyDatabase(databaseUrl!);
  const directory = newDataDir();
  const env: Record<string, string> = { ...(await environment(options, directory)), LOG_LEVEL: 'debug' };
  const address = `http://127.0.0.1:${env.PORT}`;
  const random = seeded(seed);
  const problems: string[] = [];
  const tell = (problem: string) => {
    if (problems.length < 50) problems.push(problem);
  };
  const register = createRegister(tell);
  const logged: string[] = [];
  const server = createVictim(
    'serve',
    ['serve'],
    env,
    () =>
      fetch(`${address}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      ),
    (line) => logged.push(line),
  );
  const pool = new Pool(address, { connections: atOnce, headersTimeout: 60_000, bodyTimeout: 60_000 });
  const figures: Record<string, number> = { seed };

  /** Sends as a tenant; everything named in the answer must be its own. */
  async function send(shop: Shop, method: 'GET' | 'POST', path: string, body?: object) {
    const reply = await pool.request({
      method,
      path,
      headers: {
        authorization: `Bearer ${shop.token}`,
        accept: 'application/json, text/event-stream',
        ...(body ? { 'content-type': 'application/json' } : {}),
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const text = await reply.body.text();
    register.note(shop, text, `${method} ${path.replace(/[0-9a-f-]{36}/, '{id}')}`);
    if (reply.statusCode >= 500)
      tell(`${method} ${path} answered ${reply.statusCode}: ${text.slice(0, 200)}`);
    figures[`http_${reply.statusCode}`] = (figures[`http_${reply.statusCode}`] ?? 0) + 1;
    return { status: reply.statusCode, text };
  }

  try {
    server.start();
    await server.ready();
    const shops: Shop[] = [];
    for (let i = 0; i < tenants; i++) shops.push(await open(pool, send, register, i));
    for (const { tenant, memories, documents } of shops)
      if (memories.length !== rows || documents.length !== 2)
        throw new Error(`${tenant} has ${memories.length} memories and ${documents.length} documents`);
    await settle(shops, send);
    say(`${tenants} tenants have ${rows} memories and 2 documents each`);
    const actions = actionsOf(send, tell, random, shops);
    let left = requests;
    const work = async () => {
      while (left-- > 0) {
        const [name, act] = random.pick(actions);
        figures[name] = (figures[name] ?? 0) + 1;
        await act(random.pick(shops));
        if (left > 0 && left % 10_000 === 0) say(`${left} requests to go, ${problems.length} problems`);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    await sleep(1_500);
    const metrics = await (await fetch(`${address}/metrics`)).text();
    for (const id of namedIn(metrics)) tell(`/metrics names ${id}`);
    for (const { tenant } of shops) if (metrics.includes(tenant)) tell(`/metrics names tenant ${tenant}`);
    checkLog(logged, register.owners, shops, tell);
    figures.log_lines = logged.length;
    figures.ids = register.owners.size;
    return { problems, figures };
  } finally {
    await pool.destroy();
    await server.kill();
    rmSync(directory, { recursive: true, force: true });
  }
}

type Send = (
  shop: Shop,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
) => Promise<{ status: number; text: string }>;

/** A tenant whose texts differ from everybody else's by one word. */
async function open(
  pool: Pool,
  send: Send,
  register: ReturnType<typeof createRegister>,
  i: number,
): Promise<Shop> {
  const reply = await pool.request({
    method: 'POST',
    path: '/v1/identity/',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ external_id: `owner-${i}`, role: 'admin' }),
  });
  const text = await reply.body.text();
  const { identity, access_token } = JSON.parse(text);
  const mark = `zq${i.toString(36).padStart(2, '0')}${(i * 7_919 + 104_729).toString(36).padStart(4, '0').slice(-4)}`;
  const shop: Shop = {
    tenant: identity.tenant_id,
    token: access_token,
    mark,
    memories: [],
    documents: [],
    sessions: [],
    runs: [],
  };
  register.note(shop, text, 'signing up');
  register.note(shop, mark, 'its mark');
  const memories = Array.from({ length: rows }, (_, row) => ({
    text: `The blue lantern of row ${row} is kept in drawer ${mark}.`,
    type: 'note',
    metadata: { row },
  }));
  const stored = await send(shop, 'POST', '/v1/memory/bulk', { memories });
  shop.memories = [...namedIn(stored.text)].filter((id) => id.length === 32);
  await send(shop, 'POST', '/v1/corpora', { id: corpus, name: 'Handbook' });
  for (const n of [1, 2]) {
    const text = `# Lanterns\n\nHall ${n}: the lanterns are lit at seven by ${mark}.\n\n# Gates\n\nThe gate of hall ${n} is shut at nine by ${mark}.`;
    const made = await send(shop, 'POST', '/v1/documents/text', {
      corpus_id: corpus,
      text,
      filename: `hall-${n}.md`,
    });
    if (made.status >= 300) throw new Error(`a document was answered ${made.status}: ${made.text}`);
    shop.documents.push(JSON.parse(made.text).data.document_id);
  }
  return shop;
}

/** Waits until everything is embedded and ingested. */
async function settle(shops: Shop[], send: Send): Promise<void> {
  for (const shop of shops) {
    for (let tries = 0; ; tries++) {
      const { text } = await send(shop, 'GET', '/v1/ops/embeddings');
      const collections: Collection[] = JSON.parse(text).data.collections;
      const memories = collections.find(({ scope }) => scope === 'memory');
      const vectors = memories?.models.reduce((sum, { vectors }) => sum + vectors, 0) ?? 0;
      if (memories?.waiting === 0 && vectors >= rows) break;
      if (tries > 600) throw new Error(`the memories of ${shop.tenant} are not embedded: ${text}`);
      await sleep(100);
    }
    for (const id of shop.documents)
      for (let tries = 0; ; tries++) {
        const { text } = await send(shop, 'GET', `/v1/documents/${id}`);
        if (JSON.parse(text).data?.status === 'succeeded') break;
        if (tries > 600) throw new Error(`document ${id} is not ready: ${text}`);
        await sleep(100);
      }
  }
}

interface Collection {
  scope: string;
  waiting: number;
  models: { vectors: number }[];
}

/** Each surely finds something, of memories or of documents. */
const aboutMemories = [
  'where is the blue lantern of row 3 kept?',
  'blue lantern of row 7',
  'in which drawer is the lantern',
];
const aboutDocuments = ['when are the lanterns lit?', 'who shuts the gate of hall 2?', 'gate hall'];
const questions = [...aboutMemories, ...aboutDocuments];

function actionsOf(send: Send, tell: (problem: string) => void, random: Random, shops: Shop[]) {
  const expect = async (what: string, reply: Promise<{ status: number; text: string }>, status = 200) => {
    const got = await reply;
    if (got.status !== status) tell(`${what} was answered ${got.status}: ${got.text.slice(0, 200)}`);
    return got;
  };
  /** An answer in which nothing is somebody else's says something only where its own is in it. */
  const expectOwn = async (what: string, shop: Shop, own: string[], reply: ReturnType<Send>) => {
    const got = await expect(what, reply);
    if (namedIn(own.join(' ')).isDisjointFrom(namedIn(got.text)))
      tell(`${what} of ${shop.tenant} found nothing of its own: ${got.text.slice(0, 200)}`);
    return got;
  };
  const search = (shop: Shop) => {
    const query = random.pick(aboutMemories);
    const mode = random.pick(['hybrid', 'text', 'vector']);
    return expectOwn(
      `a search (${mode}: ${query})`,
      shop,
      shop.memories,
      send(shop, 'POST', '/v1/memory/search', { query, limit: random.between(1, 20), mode }),
    );
  };
  const passages = (shop: Shop) => {
    const query = random.pick(aboutDocuments);
    return expectOwn(
      `a search of a corpus (${query})`,
      shop,
      shop.documents,
      send(shop, 'POST', `/v1/corpora/${corpus}/search`, { query }),
    );
  };
  const run = async (shop: Shop) => {
    const session_id =
      random.chance(0.3) && shop.sessions.length > 0 ? random.pick(shop.sessions) : `s-${random.next()}`;
    if (shop.sessions.length < 20) shop.sessions.push(session_id);
    const body = {
      session_id,
      message: random.pick(questions),
      ...(random.chance(0.7) ? { corpus_id: corpus } : {}),
      memory: { recall: true },
    };
    const { status, text } = await send(shop, 'POST', '/v1/run', body);
    // One run at a time a session.
    if (status === 409) return;
    if (status !== 200 || !text.includes('"message.final"'))
      tell(`a run was answered ${status}: ${text.slice(-300)}`);
    const id = /"run_id":"([^"]+)"/.exec(text)?.[1];
    if (id && shop.runs.length < 50) shop.runs.push(id);
  };
  const tool = async (shop: Shop) => {
    const query = random.pick(aboutMemories);
    const call = send(shop, 'POST', '/mcp', {
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: { name: 'recall', arguments: { query } },
    });
    const { text } = await expectOwn(`a tool (${query})`, shop, shop.memories, call);
    // What goes wrong in a tool is an answer all the same.
    if (/"isError":true|"error":/.test(text)) tell(`a tool failed: ${text.slice(0, 200)}`);
  };
  const list = (shop: Shop) =>
    expect(
      'a list',
      send(shop, 'GET', random.pick(['/v1/memory/?limit=20', '/v1/runs?limit=20', '/v1/documents'])),
    );
  const foreign = async (shop: Shop) => {
    const other = random.pick(shops);
    if (other === shop) return;
    const paths = [
      ...other.memories.map((id) => `/v1/memory/${id.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')}`),
      ...other.documents.map((id) => `/v1/documents/${id}`),
      ...other.runs.flatMap((id) => [`/v1/runs/${id}`, `/v1/runs/${id}/events`]),
    ];
    const { status, text } = await send(shop, 'GET', random.pick(paths));
    // Events that are not there are answered as a stream that says so.
    if (status !== 404 && !text.includes('"resume.unsupported"'))
      tell(`an id of ${other.tenant} was answered ${status} for ${shop.tenant}: ${text.slice(0, 200)}`);
  };
  const named = { search, passages, run, tool, list, foreign };
  return Object.entries(named) as [string, (shop: Shop) => Promise<unknown>][];
}

/** A line of the log that is about a tenant names nothing of another. */
function checkLog(
  lines: string[],
  owners: Map<string, Shop>,
  shops: Shop[],
  tell: (problem: string) => void,
): void {
  const byTenant = new Map(shops.map((shop) => [shop.tenant, shop]));
  let about = 0;
  for (const line of lines) {
    if (!line.startsWith('{')) continue;
    const entry = JSON.parse(line);
    const shop = byTenant.get(entry.tenant_id);
    if (line.includes('"zq') || / zq[0-9a-z]{6}/.test(line))
      tell(`the log tells a text: ${line.slice(0, 300)}`);
    if (!shop) continue;
    about += 1;
    // Whoever asks for an id of somebody else names it; the path is theirs.
    for (const id of namedIn(JSON.stringify({ ...entry, url: undefined, path: undefined }))) {
      const owner = owners.get(id);
      if (owner && owner !== shop)
        tell(`the log of ${shop.tenant} names ${id} of ${owner.tenant}: ${line.slice(0, 300)}`);
    }
  }
  if (about === 0) tell('the log says nothing about any tenant');
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      tenants: { type: 'string', default: '50' },
      requests: { type: 'string', default: '100000' },
      engine: { type: 'string', default: 'embedded' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    },
  });
  const began = performance.now();
  const { problems, figures } = await isolationTrial({
    engine: values.engine as 'embedded',
    tenants: Number(values.tenants),
    requests: Number(values.requests),
    seed: Number(values.seed),
    databaseUrl: process.env.DATABASE_URL,
    redisUrl: process.env.REDIS_URL,
    say: console.log,
  });
  console.log({ ...figures, seconds: Math.round((performance.now() - began) / 1000) });
  for (const problem of problems) console.error(problem);
  process.exit(problems.length > 0 ? 1 : 0);
}
