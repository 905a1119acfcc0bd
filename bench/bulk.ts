/** Bulk ingestion: memories accepted a second, and the vectors that follow. */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'undici';
import { type Bed, type Caller, call, waiting } from './bed.ts';
import { backendsUs, used } from './calls.ts';
import { cpuUs, load, type Process } from './processes.ts';
import { newMemory } from './texts.ts';

export interface BulkFigure {
  accepted: number;
  acceptedPerSecond: number;
  p50_ms: number;
  /** Vectors a second: while memories come, after the last came, and from the first memory to the last vector. */
  vectorsWhile: number;
  vectorsAfter: number;
  vectorsOverall: number;
  node_us: number;
  database_us: number;
}

const SIZE = 1_000;
const BODIES = 24;
const DRAIN_LIMIT_MS = 60_000;

export async function measureBulk(
  bed: Bed,
  generator: ChildProcess,
  server: Process,
  client: Client,
  caller: Caller,
  random: () => number,
  { seconds, connections }: { seconds: number; connections: number },
): Promise<BulkFigure> {
  const headers = { authorization: `Bearer ${caller.token}`, 'content-type': 'application/json' };
  const requests = Array.from({ length: BODIES }, () => ({
    method: 'POST',
    path: '/v1/memory/bulk',
    headers,
    body: JSON.stringify({ memories: Array.from({ length: SIZE }, () => newMemory(random)) }),
  }));
  const [node, database] = [cpuUs(server.pid) ?? 0, await backendsUs(bed.operator)];
  const from = performance.now();
  const result = await load(generator, { url: server.url, requests, connections, seconds });
  const accepted = result.done * SIZE;
  const left = await countWaiting(bed, client, caller);
  const loaded = performance.now();
  const drained = await untilDrained(bed, client, caller);
  const [nodeAfter, databaseAfter] = [cpuUs(server.pid) ?? 0, await backendsUs(bed.operator)];
  return {
    accepted,
    acceptedPerSecond: accepted / result.seconds,
    p50_ms: result.p50_ms,
    // Bodies still under way when the load stopped are stored too, but not counted as accepted.
    vectorsWhile: (Math.max(0, accepted - left) / (loaded - from)) * 1_000,
    vectorsAfter: left === 0 ? Number.NaN : (left / (drained - loaded)) * 1_000,
    vectorsOverall: (accepted / (drained - from)) * 1_000,
    node_us: (nodeAfter - node) / accepted,
    database_us: used(database, databaseAfter) / accepted,
  };
}

/** On the embedded engine only the API can be asked: the newest memories of the caller, one page of 1,000. */
async function countWaiting(bed: Bed, client: Client, caller: Caller): Promise<number> {
  if (bed.operator) return waiting(bed.operator);
  let count = 0;
  for (let skip = 0; ; skip += 1_000) {
    const page = await call(client, 'GET', `/v1/memory/?limit=1000&skip=${skip}`, caller.token);
    const pending = page.filter(
      (memory: { embedding_status: string }) => memory.embedding_status === 'pending',
    );
    count += pending.length;
    if (pending.length === 0) return count;
  }
}

/** @returns when the last vector was there, on the clock of `performance.now`; infinity when it did not come in time */
async function untilDrained(bed: Bed, client: Client, caller: Caller): Promise<number> {
  const until = performance.now() + DRAIN_LIMIT_MS;
  for (;;) {
    const left = bed.operator
      ? await waiting(bed.operator)
      : (await call(client, 'GET', '/v1/memory/?limit=1', caller.token))[0].embedding_status === 'pending'
        ? 1
        : 0;
    if (left === 0) return performance.now();
    if (performance.now() > until) return Number.POSITIVE_INFINITY;
    await sleep(100);
  }
}
