/** Latency of a search through HTTP against its candidate statement alone, query by query in turn. */
import type { Client } from 'undici';
import { type Caller, call } from './bed.ts';
import { ask, type Process } from './processes.ts';
import { median, percentile } from './table.ts';
import { newQuery } from './texts.ts';

export interface SearchFigure {
  size: number;
  http: { p50_ms: number; p99_ms: number };
  sql: { p50_ms: number; p99_ms: number };
  /** Median of the ratios of single queries. */
  ratio: number;
}

export async function measureSearch(
  client: Client,
  floor: Process,
  caller: Caller,
  random: () => number,
  count: number,
): Promise<SearchFigure> {
  const http: number[] = [];
  const sql: number[] = [];
  // A server that runs: code compiled, statements planned on every connection, words known.
  const warmUp = 300;
  for (let i = 0; i < count + warmUp; i++) {
    const memory = caller.memories[Math.floor(random() * caller.memories.length)]!;
    const query = newQuery(memory, random);
    const from = performance.now();
    const found = await call(client, 'POST', '/v1/memory/search', caller.token, { query });
    const ms = performance.now() - from;
    if (found.length === 0) throw new Error(`a search for words of a stored memory found nothing: ${query}`);
    const alone = await ask<number>(floor.child, { tenant: caller.tenant, query });
    if (i < warmUp) continue;
    http.push(ms);
    sql.push(alone);
  }
  const of = (values: number[]) => ({ p50_ms: median(values), p99_ms: percentile(values, 0.99) });
  return {
    size: caller.memories.length,
    http: of(http),
    sql: of(sql),
    ratio: median(http.map((ms, i) => ms / sql[i]!)),
  };
}
