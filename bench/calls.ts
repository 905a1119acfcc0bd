/** Throughput of one call against the floor, in short rounds that take turns. */
import type { ChildProcess } from 'node:child_process';
import type { Request } from 'autocannon';
import type pg from 'pg';
import { cpuUs, load, type Process } from './processes.ts';
import { median } from './table.ts';

export interface Contestant {
  name: string;
  process: Process;
  /** A process that must not work meanwhile. */
  paused?: Process;
  /** After each round: waits until nothing is left to do in the background. */
  settle?: () => Promise<void>;
}

export interface CallFigure {
  name: string;
  perSecond: number;
  p50_ms: number;
  p99_ms: number;
  /** Median of the rounds' ratios to the first contestant, the floor. */
  ratio: number;
  /** Processor microseconds a request: of the process itself, and of the PostgreSQL back ends. */
  node_us: number;
  database_us: number;
}

export interface Rounds {
  rounds: number;
  seconds: number;
  connections: number;
}

type Sample = Omit<CallFigure, 'name' | 'ratio'>;

/** @param contestants the first is the floor */
export async function measureCalls(
  generator: ChildProcess,
  operator: pg.Client | undefined,
  contestants: Contestant[],
  requests: Request[],
  { rounds, seconds, connections }: Rounds,
): Promise<CallFigure[]> {
  const samples = contestants.map((): Sample[] => []);
  let first: Request[] = requests;
  const round = async (contestant: Contestant, duration: number) => {
    const sample = await measureRound(generator, operator, contestant, first, duration, connections);
    first = [];
    return sample;
  };
  // Unmeasured: compiles what is hot and fills the caches. A server has more of both than its floor; for three seconds its rate
  // doubles, and on a slow machine it still grows by a third after six.
  for (const contestant of contestants) await round(contestant, 7 * seconds);
  for (let i = 0; i < rounds; i++) {
    for (const [index, contestant] of contestants.entries()) {
      samples[index]!.push(await round(contestant, seconds));
    }
  }
  return contestants.map(({ name }, index) => {
    const own = samples[index]!;
    const of = (field: keyof Sample) => median(own.map((sample) => sample[field]));
    return {
      name,
      perSecond: of('perSecond'),
      p50_ms: of('p50_ms'),
      p99_ms: of('p99_ms'),
      node_us: of('node_us'),
      database_us: of('database_us'),
      ratio: median(own.map(({ perSecond }, i) => perSecond / samples[0]![i]!.perSecond)),
    };
  });
}

async function measureRound(
  generator: ChildProcess,
  operator: pg.Client | undefined,
  { process, paused, settle }: Contestant,
  requests: Request[],
  seconds: number,
  connections: number,
): Promise<Sample> {
  paused?.child.kill('SIGSTOP');
  try {
    const [node, database] = [cpuUs(process.pid) ?? 0, await backendsUs(operator)];
    const result = await load(generator, { url: process.url, requests, connections, seconds });
    const [nodeAfter, databaseAfter] = [cpuUs(process.pid) ?? 0, await backendsUs(operator)];
    return {
      perSecond: result.done / result.seconds,
      p50_ms: result.p50_ms,
      p99_ms: result.p99_ms,
      node_us: (nodeAfter - node) / result.done,
      database_us: used(database, databaseAfter) / result.done,
    };
  } finally {
    paused?.child.kill('SIGCONT');
    await settle?.();
  }
}

/** Processor time of each back end of this database; empty when they run elsewhere. */
export async function backendsUs(operator: pg.Client | undefined): Promise<Map<number, number>> {
  const { rows } = (await operator?.query(
    'select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
  )) ?? { rows: [] };
  return new Map(rows.map(({ pid }) => [pid as number, cpuUs(pid) ?? 0]));
}

/** What back ends used between two looks; one that ended meanwhile is not counted. */
export const used = (before: Map<number, number>, after: Map<number, number>): number =>
  [...after].reduce((sum, [pid, us]) => sum + us - (before.get(pid) ?? 0), 0);
