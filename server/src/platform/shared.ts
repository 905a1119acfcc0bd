import type { Log } from './log.ts';

/** A token bucket: `rate` tokens a second up to `burst`. */
export interface Bucket {
  key: string;
  rate: number;
  burst: number;
  cost: number;
}

/** A bucket as it was left when something was last taken from it, filled up to now. */
export type FilledBucket = Omit<Bucket, 'cost'> & { tokens: number };

/** What taking from all buckets said. When refused none was charged, and `scope` is the index of the bucket that waits longest. */
export interface Taken {
  allowed: boolean;
  scope: number;
  retryAfterMs: number;
  /** Tokens left in each bucket. */
  remaining: number[];
}

/**
 * What the processes of an installation share: limits and the word that something cached is no longer true.
 * Redis when configured, else this process alone. Never in the path of correctness.
 */
export interface Shared {
  /** @throws SharedUnavailable when Redis can not be reached */
  take(buckets: Bucket[]): Promise<Taken> | Taken;
  /** The buckets whose key begins so and that are not full, at most `most`. @throws SharedUnavailable */
  levels(prefix: string, most: number): Promise<FilledBucket[]>;
  /** Fills the buckets whose key begins so; answers how many were not full. @throws SharedUnavailable */
  clear(prefix: string): Promise<number>;
  /** Tells all processes, this one included, that what is cached under a topic and key is no longer true. */
  invalidate(topic: string, key: string): void;
  onInvalidate(listener: (topic: string, key: string) => void): void;
  /** How long a cache may be trusted without word: long while words arrive, short when they may be lost. */
  cacheTtlMs(): number;
  /** How long a word takes to every process that hears; where words do not arrive, until caches have aged without. */
  spreadMs(): number;
  reachable(): Promise<boolean>;
  close(): Promise<void>;
}

/** How long caches are trusted where no words arrive. */
export const unheardTtlMs = 1_500;

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
