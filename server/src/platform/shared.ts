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
