/**
 * Measures what a run costs between a model and its reader: how long after the model wrote a token the reader has it,
 * one run at a time and two hundred at once, beside a bare Fastify that hands on the bytes of the same model.
 *
 *   npm run bench:runs [-- --engine postgres|embedded] [--streams 200] [--tokens 120] [--quick] [--profile] [--strict]
 */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Agent, Client, request } from 'undici';
import { type Bed, call, type Engine, makeBed } from './bed.ts';
import { cpuUs, killAll, type Process, residentMb, startHelper, startServer } from './processes.ts';
import { profiled } from './profile.ts';
import { atMost, type Figure, machine, percentile, round, tableOf } from './table.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'postgres' },
    streams: { type: 'string', default: '200' },
    tokens: { type: 'string', default: '120' },
    quick: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    strict: { type: 'boolean', default: false },
  },
});
const streams = Number(values.streams);
const agent = new Agent({ connections: 2 * streams, bodyTimeout: 120_000, headersTimeout: 120_000 });

/** How long after the model wrote it each token was here, in ms; the first one apart. */
interface Lags {
  first: number;
  others: number[];
}

/** Reads a stream to its end. A token is the monotonic clock of the machine when it was written. */
async function readLags(url: string, token: string, body: object): Promise<Lags> {
  const answer = await request(`${url}/v1/run`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    body: JSON.stringify(body),
    dispatcher: agent,
  });
  if (answer.statusCode !== 200)
    throw new Error(`the run answered ${answer.statusCode}: ${await answer.body.text()}`);
  const lags: number[] = [];
  let rest = '';
  let ended = '';
  for await (const bytes of answer.body) {
    const now = process.hrtime.bigint();
    rest += bytes;
    const end = rest.lastIndexOf('\n\n');
    if (end < 0) continue;
    const whole = rest.slice(0, end);
    rest = rest.slice(end + 2);
    for (const [, written] of whole.matchAll(/"(?:delta|content)":"(\d+) "/g))
      lags.push(Number(now - BigInt(written!)) / 1e6);
    ended = whole.slice(-400);
  }
  if (!/"type":"done"|\[DONE\]/.test(ended)) throw new Error(`a stream ended without an end: ${ended}`);
  const [first, ...others] = lags;
  if (first === undefined) throw new Error('a stream had no token');
  return { first, others };
}

type Start = (tokens: number) => Promise<Lags>;

async function inTurn(subject: Start, floor: Start, count: number): Promise<[Lags[], Lags[]]> {
  const [ours, bare]: [Lags[], Lags[]] = [[], []];
  for (let n = 0; n < count + 10; n++) {
    const [one, other] = [await subject(10), await floor(10)];
    if (n < 10) continue;
    ours.push(one);
    bare.push(other);
  }
  return [ours, bare];
}

interface Crowd {
  lags: Lags[];
  residentMb: number;
  cpuUsPerToken: number;
}

/** Many at once: begun one after another, since nobody's users come in the same millisecond. */
async function together(start: Start, process: Process, tokens: number): Promise<Crowd> {
  const before = cpuUs(process.pid) ?? 0;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, residentMb(process.pid));
  }, 100);
  const lags = await Promise.all(
    Array.from({ length: streams }, async (_, n) => {
      await sleep(n * 20);
      return start(tokens);
    }),
  );
  clearInterval(watch);
  const used = (cpuUs(process.pid) ?? 0) - before;
  return { lags, residentMb: most, cpuUsPerToken: used / (streams * tokens) };
}

const shown = (values: number[]): string =>
  `p50 ${round(percentile(values, 0.5))}, p99 ${round(percentile(values, 0.99))} ms`;
const firstOf = (lags: Lags[]) => lags.map(({ first }) => first);
const othersOf = (lags: Lags[]) => lags.flatMap(({ others }) => others);

/** Readers that read nothing while their runs go on; answers how much the server grew. */
async function stalled(server: Process, token: string, count: number, tokens: number): Promise<number> {
  const before = residentMb(server.pid);
  const sockets: Socket[] = [];
  const { port } = new URL(server.url);
  for (let n = 0; n < count; n++) {
    const body = JSON.stringify({
      session_id: `stalled-${n}`,
      corpus_id: 'bench',
      message: `What opens the gate? tokens=${tokens}`,
      on_disconnect: 'continue',
    });
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    socket.pause();
    socket.write(
      `POST /v1/run HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    sockets.push(socket);
  }
  let most = 0;
  for (let going = true; going; ) {
    await sleep(200);
    most = Math.max(most, residentMb(server.pid) - before);
    const reply = await request(`${server.url}/v1/runs?status=running&limit=1`, {
      headers: { authorization: `Bearer ${token}` },
    });
    going = ((await reply.body.json()) as { data: unknown[] }).data.length > 0;
  }
  for (const socket of sockets) socket.destroy();
  return most;
}

async function prepare(server: Process): Promise<string> {
  const client = new Client(server.url);
  const { access_token: token } = await call(client, 'POST', '/v1/identity/', '', {
    external_id: 'bench',
    role: 'admin',
  });
  await call(client, 'POST', '/v1/corpora', token, { id: 'bench', name: 'bench' });
  for (let n = 0; n < 20; n++) {
    await call(client, 'POST', '/v1/documents/text', token, {
      corpus_id: 'bench',
      document_id: `gate-${n}`,
      text: `Gate number ${n} opens when every check is green, and it closes after ${n + 5} minutes.`,
    });
  }
  for (let n = 0; n < 20; n++) {
    while ((await call(client, 'GET', `/v1/documents/gate-${n}`, token)).data.status !== 'succeeded')
      await sleep(50);
  }
  await client.close();
  return token;
}

async function measure(bed: Bed): Promise<Figure[]> {
  const model = await startHelper('model-server.ts', {});
  const env = { LLM_PROVIDER: 'openai-compatible', LLM_BASE_URL: `${model.url}/v1`, LLM_MODEL: 'clock' };
  const server = await startServer({ ...bed.env, ...env });
  const bare = await startHelper('run-floor.ts', env);
  const token = await prepare(server);
  let session = 0;
  const subject: Start = (tokens) =>
    readLags(server.url, token, {
      session_id: `s${session++}`,
      corpus_id: 'bench',
      message: `What opens the gate? tokens=${tokens}`,
    });
  const floor: Start = (tokens) =>
    readLags(bare.url, '', { model: 'clock', messages: [{ role: 'user', content: `tokens=${tokens}` }] });

  const idle = residentMb(server.pid);
  const [ours, theirs] = await inTurn(subject, floor, values.quick ? 40 : 150);
  const tokens = Number(values.tokens);
  const crowd = await together(subject, server, tokens);
  const bareCrowd = await together(floor, bare, tokens);
  if (values.profile) {
    const work = async () => {
      await together(subject, server, tokens);
      return streams * tokens;
    };
    console.log(`${await profiled(bed.env.BENCH_PROFILE!, server, 'token', work)}\n`);
  }
  const grown = await stalled(server, token, 20, values.quick ? 500 : 2_000);
  const within = (lags: number[]) => atMost(Math.round(percentile(lags, 0.99) * 100) / 100, 15);
  return [
    {
      what: 'first token, one run at a time: behind the model',
      measured: shown(firstOf(ours)),
      floor: shown(firstOf(theirs)),
      target: within(firstOf(ours)),
    },
    {
      what: 'later tokens, one run at a time',
      measured: shown(othersOf(ours)),
      floor: shown(othersOf(theirs)),
    },
    {
      what: `first token, ${streams} runs at once`,
      measured: shown(firstOf(crowd.lags)),
      floor: shown(firstOf(bareCrowd.lags)),
      target: within(firstOf(crowd.lags)),
    },
    {
      what: `later tokens, ${streams} runs at once, 20 a second each`,
      measured: shown(othersOf(crowd.lags)),
      floor: shown(othersOf(bareCrowd.lags)),
    },
    {
      what: 'processor time of the server a token',
      measured: `${round(crowd.cpuUsPerToken)} us`,
      floor: `${round(bareCrowd.cpuUsPerToken)} us`,
    },
    {
      what: `resident memory: idle, with ${streams} runs`,
      measured: `${idle} MB, ${crowd.residentMb} MB`,
      floor: `${bareCrowd.residentMb} MB`,
    },
    { what: '20 readers that read nothing: memory grown by', measured: `${grown} MB` },
  ];
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    killAll();
    process.exit(1);
  });
}
const bed = await makeBed(values.engine as Engine);
let figures: Figure[] = [];
try {
  console.log(`${machine(bed.describe)}\n`);
  figures = await measure(bed);
  console.log(tableOf(figures));
} finally {
  killAll();
  await bed.close();
}
process.exit(values.strict && figures.some(({ target }) => target && !target.met) ? 1 : 0);
