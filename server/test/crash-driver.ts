// Kills server and worker with SIGKILL while clients write, and compares what is left with what was acknowledged.
//   node server/test/crash-driver.ts [--kills 50] [--engine embedded|postgres] [--seed N] [--clients 6]
// PostgreSQL: DATABASE_URL (and REDIS_URL), whose database is emptied first; unset: one of its own on the services of
// scripts/services.mjs.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readConfig } from '#platform/config.ts';
import type { App } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import { createLog } from '#platform/log.ts';
import { openApp, start } from '../src/app.ts';
import { type Account, type Client, createClient } from './crash/client.ts';
import { environment, victimsOf } from './crash/installation.ts';
import { type Ledger, newLedger } from './crash/ledger.ts';
import { createLoad, type Load } from './crash/load.ts';
import { trialCorpus } from './crash/load-documents.ts';
import { sleep, type Victim } from './crash/processes.ts';
import { type Random, seeded } from './crash/random.ts';
import { leftToDo, verify } from './crash/verify.ts';
import { verifyOverHttp } from './crash/verify-http.ts';
import { emptyDatabase } from './harness.ts';

export interface CrashOptions {
  engine: 'embedded' | 'postgres';
  /** How often each process is killed under load; the first start is killed once more before that. */
  kills: number;
  seed: number;
  clients: number;
  /** Of PostgreSQL. */
  databaseUrl?: string | undefined;
  redisUrl?: string | undefined;
  /** Told what happens. */
  say?: (line: string) => void;
}

export interface CrashReport {
  problems: string[];
  figures: Record<string, unknown>;
}

/** Work comes to rest within this time after the last kill, or something hangs: a lost job is back after 15 s. */
const restWithinMs = 90_000;

/** Runs the whole trial. What should not be is in `problems`. */
export async function crashTrial(options: CrashOptions): Promise<CrashReport> {
  const { engine, kills, seed, clients, databaseUrl, say = () => {} } = options;
  if (engine === 'postgres') await emptyDatabase(databaseUrl!);
  const directory = mkdtempSync(join(tmpdir(), 'manushya-crash-'));
  const random = seeded(seed);
  const env = await environment(options, directory);
  const address = `http://127.0.0.1:${env.PORT}`;
  const victims = victimsOf(engine, env, address);
  const ledger = newLedger();
  const client = createClient(address, clients + 4, ledger);
  const figures: Record<string, unknown> = { seed };
  const began = performance.now();
  const seconds = () => Math.round((performance.now() - began) / 100) / 10;
  try {
    await killFirstStarts(victims, random);
    for (const victim of victims) victim.start();
    for (const victim of victims) await victim.ready();
    const accounts = [await signUp(client, 'first'), await signUp(client, 'second')];
    const load = createLoad(client, accounts, ledger, random);
    load.start(clients);
    await Promise.all(victims.map((victim) => killAgain(victim, kills, random, seconds, say)));
    await sleep(500);
    await load.stop();
    say(`${seconds()} s: ${kills} kills each of ${victims.map(({ name }) => name)}; the load has ended`);
    const checking = { env, victims, load, client, accounts, ledger, seconds, say };
    const { problems, figures: found } = await examine(
      checking,
      engine === 'embedded' ? directory : undefined,
    );
    for (const { name, startsMs } of victims) figures[`${name}_start_ms`] = spread(startsMs);
    Object.assign(figures, found, { seconds: seconds() });
    return { problems: [...problems, ...victims.flatMap(loggedErrors)], figures };
  } finally {
    for (const victim of victims) await victim.kill();
    await client.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Kills each process once while it makes its database or brings the schema up to date. */
async function killFirstStarts(victims: Victim[], random: Random): Promise<void> {
  await Promise.all(
    victims.map(async (victim) => {
      victim.start();
      await sleep(random.between(200, 2_500));
      await victim.kill();
    }),
  );
}

/** Most kills come 50 to 800 ms after it is ready, some while it still starts. It is started again at once. */
async function killAgain(
  victim: Victim,
  kills: number,
  random: Random,
  seconds: () => number,
  say: (line: string) => void,
): Promise<void> {
  await sleep(random.between(50, 800));
  for (let i = 1; i <= kills; i++) {
    await victim.kill();
    victim.start();
    const early = i < kills && random.chance(0.15);
    if (early) await sleep(random.between(0, 700));
    else {
      await victim.ready();
      // Some live longer: a cold process does little in its first second.
      await sleep(random.chance(0.3) ? random.between(800, 3_000) : random.between(50, 800));
    }
    if (i % 10 === 0) say(`${seconds()} s: ${victim.name} was killed ${i} times`);
  }
}

async function signUp(client: Client, name: string): Promise<Account> {
  const nobody: Account = { tenant: '', token: '' };
  const outcome = await client.send(nobody, 'POST', '/v1/identity/', { external_id: name, role: 'admin' });
  if (outcome.is !== 'answer' || outcome.status !== 200)
    throw new Error(`sign-up: ${JSON.stringify(outcome)}`);
  const account = { tenant: outcome.body.identity.tenant_id, token: outcome.body.access_token };
  const corpus = await client.send(account, 'POST', '/v1/corpora', { id: trialCorpus, name: 'Trial' });
  if (corpus.is !== 'answer' || corpus.status !== 201) throw new Error(`corpus: ${JSON.stringify(corpus)}`);
  return account;
}

interface Checking {
  env: Record<string, string>;
  victims: Victim[];
  load: Load;
  client: Client;
  accounts: Account[];
  ledger: Ledger;
  seconds: () => number;
  say: (line: string) => void;
}

/** Lets the work come to rest, then looks over HTTP and in the database. `embedded`: the directory of that engine. */
async function examine(checking: Checking, embedded: string | undefined): Promise<CrashReport> {
  const { env, victims, load, client, accounts, ledger, seconds, say } = checking;
  const config = readConfig({ ...env, LOG_LEVEL: 'warn' });
  const figures: Record<string, unknown> = {};
  const restingFrom = performance.now();
  const since = () => Math.round((performance.now() - restingFrom) / 100) / 10;
  // A write whose server died holds its key for a minute. Its time passes faster here: the claims are aged.
  await stopAll(victims, ledger);
  const outside = await openApp(config, createLog('warn'));
  figures.claims_left = await ageClaims(outside.app, load, ledger);
  await outside.close();
  for (const victim of victims) victim.start();
  for (const victim of victims) await victim.ready();
  figures.settled_late = await load.settle(20_000);
  for (const { key } of load.unanswered()) ledger.problems.push(`key ${key} never got its answer`);
  say(`${seconds()} s: every write with a key has its answer`);
  // The embedded database has one process: from here on it is this one.
  if (embedded) await stopAll(victims, ledger);
  const running = embedded ? await start(config, createLog('warn'), { serve: true, work: true }) : undefined;
  const opened = running ? undefined : await openApp(config, createLog('warn'));
  const app = running?.app ?? opened!.app;
  try {
    const left = await rest(app, say);
    figures.rest_s = since();
    if (left) ledger.problems.push(`${restWithinMs} ms after the last kill there is left: ${left}`);
    say(`${seconds()} s: at rest ${figures.rest_s} s after the last kill`);
    await verifyOverHttp(client, accounts, ledger);
    const verified = await verify(
      app,
      accounts.map(({ tenant }) => tenant),
      ledger,
    );
    Object.assign(figures, verified.figures);
    ledger.problems = verified.problems;
  } finally {
    await running?.stop();
    await opened?.close();
  }
  await stopAll(victims, ledger);
  if (embedded) strayFiles(embedded, ledger);
  return { problems: ledger.problems, figures };
}

async function stopAll(victims: Victim[], ledger: Ledger): Promise<void> {
  for (const victim of victims) {
    const code = await victim.stop();
    if (code !== 0)
      ledger.problems.push(`${victim.name} ended with ${code} when asked to: ${victim.lines().slice(-5)}`);
  }
}

/** Only writes that still have no answer may hold a claim. Answers how many claims there were. */
async function ageClaims(app: App, load: Load, ledger: Ledger): Promise<number> {
  const { operator } = app.database;
  const claims = await operator.rows(sql<{ key: string; claimed_until: string }>`
    update idempotency_keys set claimed_until = now() - interval '1 second' where status is null returning key, claimed_until`);
  const unanswered = new Set(load.unanswered().map(({ key }) => key));
  for (const { key } of claims)
    if (!unanswered.has(key)) ledger.problems.push(`key ${key} was answered and is still claimed`);
  return claims.length;
}

/** Waits until nothing is left to do; answers what is, when that takes too long. */
async function rest(app: App, say: (line: string) => void): Promise<string | undefined> {
  const until = performance.now() + restWithinMs;
  for (let last = ''; ; ) {
    const left = await leftToDo(app.database.operator);
    if (Object.keys(left).length === 0) return undefined;
    const shown = JSON.stringify(left);
    if (shown !== last) say(`left to do: ${shown}`);
    last = shown;
    if (performance.now() > until) return shown;
    await sleep(200);
  }
}

/** What a crash may leave beside the database: at most one draft of a lock for each kill would pile up. */
function strayFiles(directory: string, ledger: Ledger): void {
  const stray = readdirSync(join(directory, 'database')).filter((name) => name !== 'data');
  if (stray.length > 0) ledger.problems.push(`left beside the database: ${stray}`);
}

/** What was logged as an error, which no crash of another process explains. */
const loggedErrors = (victim: Victim): string[] =>
  victim
    .lines()
    .filter((line) => /"level":"(error|fatal)"/.test(line) || !line.startsWith('{"level"'))
    .filter((line) => /error|fatal/i.test(line))
    .map((line) => `${victim.name} logged: ${line.slice(0, 600)}`);

function spread(values: number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  return `${sorted[0]}..${sorted[Math.floor(sorted.length / 2)]}..${sorted.at(-1)}`;
}

async function byHand(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '50' },
      engine: { type: 'string', default: 'embedded' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      clients: { type: 'string', default: '6' },
    },
  });
  if (values.engine !== 'embedded' && values.engine !== 'postgres')
    throw new Error('--engine takes embedded or postgres');
  const own = values.engine === 'postgres' && !process.env.DATABASE_URL ? await ownDatabase() : undefined;
  const say = (line: string) => void process.stdout.write(`${line}\n`);
  try {
    const { problems, figures } = await crashTrial({
      engine: values.engine,
      kills: Number(values.kills),
      seed: Number(values.seed),
      clients: Number(values.clients),
      databaseUrl: own?.url ?? process.env.DATABASE_URL,
      redisUrl: own?.redis ?? process.env.REDIS_URL,
      say,
    });
    say(JSON.stringify(figures, null, 2));
    for (const problem of problems.slice(0, 100)) say(`PROBLEM ${problem.slice(0, 1_000)}`);
    say(`${problems.length} problems; --seed ${values.seed}`);
    process.exitCode = problems.length > 0 ? 1 : 0;
  } finally {
    own?.drop();
  }
}

async function ownDatabase(): Promise<{ url: string; redis: string; drop: () => void }> {
  const services = await import('../../scripts/services.mjs' as string);
  const { REDIS_URL } = await services.up();
  const name = `crash_${process.pid}`;
  return { url: services.createDatabase(name), redis: REDIS_URL, drop: () => services.dropDatabase(name) };
}

if (import.meta.main) await byHand();
