/** Latency of a search through HTTP against its statements alone, in blocks that take turns. */
import type { Client } from 'undici';
import { type Caller, call } from './bed.ts';
import { ask, type Process } from './processes.ts';
import { median, percentile } from './table.ts';
import { newQuery } from './texts.ts';

export interface SearchFigure {
  size: number;
  http: { p50_ms: number; p99_ms: number };
  sql: { p50_ms: number; p99_ms: number };
  /** Median of the ratios of the blocks' medians. */
  ratio: number;
}

/** Searches in a row, then their statements in a row: what runs in turns with another process finds its caches empty. */
const block = 20;
/** A server that runs: code compiled, statements planned on every connection, words known. */
const warmUp = 60;

export async function measureSearch(
  client: Client,
  floor: Process,
  caller: Caller,
  random: () => number,
  blocks: number,
): Promise<SearchFigure> {
  const http: number[] = [];
  const sql: number[] = [];
  const ratios: number[] = [];
  for (let i = 0; i < blocks + warmUp; i++) {
    const queries = Array.from({ length: block }, () =>
      newQuery(caller.memories[Math.floor(random() * caller.memories.length)]!, random),
    );
    const times: number[] = [];
    for (const query of queries) {
      const from = performance.now();
      const found = await call(client, 'POST', '/v1/memory/search', caller.token, { query });
      times.push(performance.now() - from);
      if (found.length === 0)
        throw new Error(`a search for words of a stored memory found nothing: ${query}`);
    }
    const alone = await ask<number[]>(floor.child, { tenant: caller.tenant, queries });
    if (i < warmUp) continue;
    http.push(...times);
    sql.push(...alone);
    ratios.push(median(times) / median(alone));
  }
  const of = (values: number[]) => ({ p50_ms: median(values), p99_ms: percentile(values, 0.99) });
  return { size: caller.memories.length, http: of(http), sql: of(sql), ratio: median(ratios) };
}
