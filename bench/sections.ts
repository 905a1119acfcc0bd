/** The sections of a run on one engine. */
import type { ChildProcess } from 'node:child_process';
import type { Request } from 'autocannon';
import { Client } from 'undici';
import { type Bed, type Caller, copyForFloor, newCaller, untilQuiet } from './bed.ts';
import { measureBulk } from './bulk.ts';
import { type CallFigure, type Contestant, measureCalls, type Rounds } from './calls.ts';
import {
  load,
  type Process,
  residentMb,
  startByNpm,
  startFloor,
  startLoad,
  startSearchFloor,
  startServer,
  stop,
} from './processes.ts';
import { profiled } from './profile.ts';
import { measureSearch } from './search.ts';
import { atLeast, atMost, type Figure, round } from './table.ts';
import { newMemory, newQuery, newRandom } from './texts.ts';

export interface Options {
  quick: boolean;
  /** Sections to run; undefined: all. */
  only: string[] | undefined;
}

export interface Profiled {
  what: string;
  text: string;
}

/** Everything a section needs. */
interface Stage {
  bed: Bed;
  options: Options;
  server: Process;
  floor: Process;
  floorEnv: Record<string, string>;
  generator: ChildProcess;
  client: Client;
  random: () => number;
  callers: Caller[];
  searchers: Caller[];
  table: Figure[];
  profiles: Profiled[];
}

const TENANTS = 40;
const MEMORIES = 25;
const CONNECTIONS = 32;

const isWanted = ({ only }: Options, name: string): boolean => !only || only.includes(name);

export async function measureEngine(bed: Bed, options: Options) {
  const stage = await prepare(bed, options);
  const sections: [string, (stage: Stage) => Promise<void>][] = [
    ['get', getSection],
    ['post', postSection],
    ['search', searchSection],
    ['bulk', bulkSection],
    ['profile', profileSection],
  ];
  for (const [name, section] of sections) {
    if (!isWanted(options, name)) continue;
    await untilQuiet(bed, stage.server);
    console.error(`${bed.engine}: ${name} ...`);
    const before = stage.table.length;
    await section(stage);
    for (const { what, measured, ratio } of stage.table.slice(before))
      console.error(`  ${what}: ${measured}${ratio === undefined ? '' : `, ratio ${ratio.toFixed(2)}`}`);
  }
  stage.table.push({ what: 'resident memory after load', measured: `${residentMb(stage.server.pid)} MB` });
  await stage.client.close();
  for (const process of [stage.server, stage.floor]) await stop(process);
  stage.generator.kill();
  return stage;
}

/** Starts everything, which is also how starting is measured. */
async function prepare(bed: Bed, options: Options): Promise<Stage> {
  console.error(`${bed.engine}: starting, callers and memories ...`);
  const first = await startServer(bed.env);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const idle = residentMb(first.pid);
  const random = newRandom(7);
  const client = new Client(first.url);
  const callers: Caller[] = [];
  for (let i = 0; i < TENANTS; i++) callers.push(await newCaller(client, random, MEMORIES));
  const sizes = options.quick ? [1_000] : [1_000, 10_000];
  const needsSearch = !options.only || options.only.some((name) => name === 'search' || name === 'profile');
  const searchers: Caller[] = [];
  for (const size of needsSearch ? sizes : []) searchers.push(await newCaller(client, random, size));
  await untilQuiet(bed, first);
  await bed.operator?.query('analyze');
  await client.close();
  await stop(first);
  const floorEnv = copyForFloor(bed);
  const starts: Figure[] = [];
  if (isWanted(options, 'start')) {
    const later = await startByNpm(bed.env);
    starts.push(
      { what: 'start on nothing', measured: `${round(first.started_ms)} ms` },
      { what: '`npm start` later', measured: `${round(later)} ms`, target: atMost3s(later) },
    );
  }
  const server = await startServer(bed.env);
  const table: Figure[] = [...starts, { what: 'resident memory, idle', measured: `${idle} MB` }];
  return {
    bed,
    options,
    server,
    floor: await startFloor(floorEnv),
    floorEnv,
    generator: startLoad(),
    client: new Client(server.url),
    random,
    callers,
    searchers,
    table,
    profiles: [],
  };
}

const atMost3s = (ms: number) => ({ ...atMost(ms, 3_000), text: '<= 3,000 ms' });

const roundsOf = ({ quick }: Options): Rounds => ({
  rounds: quick ? 3 : 5,
  seconds: quick ? 0.7 : 1.5,
  connections: CONNECTIONS,
});

/** Who calls: everybody in turn, or one tenant alone, whose concurrent requests the server may answer together. */
type Who = 'one tenant' | '40 tenants';

const callersOf = ({ callers }: Stage, who: Who) => (who === 'one tenant' ? callers.slice(0, 1) : callers);

/** The floor reads the tenant from a header that the server ignores. */
const getRequests = (stage: Stage, who: Who): Request[] =>
  Array.from({ length: MEMORIES }, (_, i) =>
    callersOf(stage, who).map(({ tenant, token, ids }) => ({
      method: 'GET',
      path: `/v1/memory/${ids[i]}`,
      headers: { authorization: `Bearer ${token}`, 'x-tenant': tenant },
    })),
  ).flat();

const postRequests = (stage: Stage, who: Who): Request[] =>
  Array.from({ length: 1_000 }, (_, i) => {
    const callers = callersOf(stage, who);
    const { tenant, token } = callers[i % callers.length]!;
    return {
      method: 'POST',
      path: '/v1/memory/',
      headers: { authorization: `Bearer ${token}`, 'x-tenant': tenant, 'content-type': 'application/json' },
      body: JSON.stringify(newMemory(stage.random)),
    };
  });

function pushCalls(stage: Stage, what: string, least: number, [floor, ...subjects]: CallFigure[]): void {
  const us = (figure: CallFigure) =>
    `${round(figure.node_us)}${stage.bed.operator ? ` + ${round(figure.database_us)}` : ''} us`;
  const show = (figure: CallFigure) =>
    `${round(figure.perSecond)}/s, p50 ${round(figure.p50_ms)}, p99 ${round(figure.p99_ms)} ms, ${us(figure)}`;
  for (const figure of subjects) {
    stage.table.push({
      what: `${what}, ${figure.name}`,
      measured: show(figure),
      floor: show(floor!),
      ratio: figure.ratio,
      target: atLeast(figure.ratio, least),
    });
  }
}

async function getSection(stage: Stage): Promise<void> {
  const { bed, floor, server, generator, options } = stage;
  const contestants: Contestant[] = [
    { name: 'floor', process: floor },
    { name: 'no limits', process: server },
  ];
  const measure = async (who: Who) => {
    const requests = getRequests(stage, who);
    const figures = await measureCalls(generator, bed.operator, contestants, requests, roundsOf(options));
    pushCalls(stage, `GET /v1/memory/{id}, ${who}`, 0.6, figures);
  };
  await measure('one tenant');
  // One credential may make 500 calls a second at most: limits can only be measured with many.
  const limited = await startLimited(bed);
  if (limited) contestants.push({ name: 'rate limits on', process: limited });
  await measure('40 tenants');
  if (limited) await stop(limited);
}

/** A second server needs a database that two processes can open. */
const startLimited = async (bed: Bed): Promise<Process | undefined> =>
  bed.operator ? startServer({ ...bed.env, RATE_LIMIT_ENABLED: 'true' }, ['--no-worker']) : undefined;

async function postSection(stage: Stage): Promise<void> {
  const { bed, floor, server, generator, options } = stage;
  const settle = () => untilQuiet(bed, server);
  const both: Contestant = { name: 'server and worker in one', process: server, settle };
  const apart = bed.operator ? await startServer(bed.env, ['--no-worker']) : undefined;
  const contestants: Contestant[] = [{ name: 'floor', process: floor }];
  if (apart) contestants.push({ name: 'worker paused', process: apart, paused: server, settle });
  contestants.push(both);
  for (const who of ['one tenant', '40 tenants'] as const) {
    const requests = postRequests(stage, who);
    const figures = await measureCalls(generator, bed.operator, contestants, requests, roundsOf(options));
    pushCalls(stage, `POST /v1/memory/, ${who}`, 0.5, figures);
  }
  if (apart) await stop(apart);
}

async function searchSection(stage: Stage): Promise<void> {
  const { client, searchers, random, options, table } = stage;
  await stop(stage.floor);
  // No section that follows has the other one.
  stage.floor = await startSearchFloor(stage.floorEnv);
  for (const searcher of searchers) {
    const { size, http, sql, ratio } = await measureSearch(
      client,
      stage.floor,
      searcher,
      random,
      options.quick ? 6 : 20,
    );
    const show = ({ p50_ms, p99_ms }: typeof http) => `p50 ${round(p50_ms)}, p99 ${round(p99_ms)} ms`;
    table.push({
      what: `search among ${size.toLocaleString('en')}`,
      measured: show(http),
      floor: show(sql),
      ratio,
      target: atMost(ratio, 2),
    });
  }
}

async function bulkSection(stage: Stage): Promise<void> {
  const { bed, generator, server, client, random, options, table } = stage;
  const caller = await newCaller(client, random, 1);
  const order = { seconds: options.quick ? 3 : 6, connections: 4 };
  const figure = await measureBulk(bed, generator, server, client, caller, random, order);
  const promised = bed.engine === 'postgres';
  table.push(
    {
      what: `bulk: accepted, ${figure.accepted.toLocaleString('en')} in all`,
      measured: `${round(figure.acceptedPerSecond)}/s, ${round(figure.p50_ms)} ms a thousand`,
      ...(promised ? { target: perSecond(figure.acceptedPerSecond, 10_000) } : {}),
    },
    {
      what: 'bulk: vectors, first memory to last vector',
      measured: `${round(figure.vectorsOverall)}/s (${round(figure.vectorsWhile)} while, ${round(figure.vectorsAfter)} after)`,
      ...(promised ? { target: perSecond(figure.vectorsOverall, 5_000) } : {}),
    },
    {
      what: 'bulk: processor time a memory with its vector',
      measured: `${round(figure.node_us)}${bed.operator ? ` + ${round(figure.database_us)}` : ''} us`,
    },
  );
}

const perSecond = (value: number, least: number) => ({
  text: `>= ${least.toLocaleString('en')}/s`,
  met: value >= least,
});

async function profileSection(stage: Stage): Promise<void> {
  const { bed, server, generator, client, options, random } = stage;
  const seconds = options.quick ? 1 : 3;
  const file = bed.env.BENCH_PROFILE!;
  const under = (requests: Request[]) => async () =>
    (await load(generator, { url: server.url, requests, connections: CONNECTIONS, seconds })).done;
  const add = async (what: string, unit: string, work: () => Promise<number>) => {
    await untilQuiet(bed, server);
    stage.profiles.push({ what, text: await profiled(file, server, unit, work) });
  };
  await add('GET /v1/memory/{id}, 40 tenants', 'request', under(getRequests(stage, '40 tenants')));
  await add(
    'POST /v1/memory/, 40 tenants, server and worker in one',
    'request',
    under(postRequests(stage, '40 tenants')),
  );
  const searcher = stage.searchers.at(-1)!;
  const searches = Array.from({ length: 500 }, () => ({
    method: 'POST',
    path: '/v1/memory/search',
    headers: { authorization: `Bearer ${searcher.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      query: newQuery(searcher.memories[Math.floor(random() * searcher.memories.length)]!, random),
    }),
  }));
  await add(`search among ${searcher.memories.length.toLocaleString('en')}`, 'request', under(searches));
  const caller = await newCaller(client, random, 1);
  await add('bulk and its vectors', 'memory', async () => {
    const figure = await measureBulk(bed, generator, server, client, caller, random, {
      seconds,
      connections: 4,
    });
    return figure.accepted;
  });
}
