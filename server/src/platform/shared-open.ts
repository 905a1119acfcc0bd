import type { Log } from './log.ts';
import { type Bucket, type FilledBucket, type Shared, type Taken, unheardTtlMs } from './shared.ts';

/** The client of Redis is loaded where there is one. */
export const openShared = async (
  redisUrl: string | undefined,
  multiProcess: boolean,
  log: Log,
): Promise<Shared> =>
  redisUrl ? (await import('./shared-redis.ts')).redisShared(redisUrl, log) : localShared(multiProcess);

function localShared(multiProcess: boolean): Shared {
  const levels = new Map<string, { tokens: number; at: number; rate: number; burst: number }>();
  const listeners: ((topic: string, key: string) => void)[] = [];
  const maximum = 100_000;
  const level = ({ key, rate, burst }: Omit<Bucket, 'cost'>, now: number): number => {
    const last = levels.get(key);
    return last ? Math.min(burst, last.tokens + ((now - last.at) / 1000) * rate) : burst;
  };
  return {
    take: (buckets) => {
      const now = performance.now();
      const remaining = buckets.map((bucket) => level(bucket, now));
      const refusal = refusalOf(buckets, remaining);
      if (refusal) return { ...refusal, remaining };
      buckets.forEach((bucket, i) => {
        remaining[i]! -= bucket.cost;
        const { key, rate, burst } = bucket;
        levels.set(key, { tokens: remaining[i]!, at: now, rate, burst });
      });
      if (levels.size > maximum)
        for (const key of levels.keys()) if (levels.delete(key) && levels.size < maximum / 2) break;
      return { allowed: true, scope: -1, retryAfterMs: 0, remaining };
    },
    levels: async (prefix, most) => {
      const now = performance.now();
      const found: FilledBucket[] = [];
      for (const [key, { rate, burst }] of levels) {
        if (!key.startsWith(prefix)) continue;
        const tokens = level({ key, rate, burst }, now);
        if (tokens < burst && found.push({ key, rate, burst, tokens }) >= most) break;
      }
      return found;
    },
    clear: async (prefix) => {
      let cleared = 0;
      for (const key of levels.keys()) if (key.startsWith(prefix) && levels.delete(key)) cleared += 1;
      return cleared;
    },
    invalidate: (topic, key) => {
      for (const listener of listeners) listener(topic, key);
    },
    onInvalidate: (listener) => void listeners.push(listener),
    cacheTtlMs: () => (multiProcess ? unheardTtlMs : 60_000),
    spreadMs: () => (multiProcess ? unheardTtlMs : 0),
    reachable: async () => true,
    close: async () => {},
  };
}

function refusalOf(buckets: Bucket[], tokens: number[]): Omit<Taken, 'remaining'> | undefined {
  let scope = -1;
  let wait = 0;
  buckets.forEach(({ rate, cost }, i) => {
    const missing = cost - tokens[i]!;
    const ms = missing > 0 ? (missing / rate) * 1000 : 0;
    if (ms > wait) {
      wait = ms;
      scope = i;
    }
  });
  return scope < 0 ? undefined : { allowed: false, scope, retryAfterMs: Math.ceil(wait) };
}
