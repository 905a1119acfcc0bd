import type { Shared } from './shared.ts';

/** A bounded cache of what the database said, dropped at once when any process says it changed. */
export interface Cache<V> {
  get(key: string, load: () => Promise<V>): Promise<V>;
  /** The value when it is there and fresh; saves a promise on the hot path. */
  peek(key: string): V | undefined;
}

/**
 * @param topic what `shared.invalidate(topic, key)` names; the key `*` drops all
 * @param max entries kept; the oldest go first
 */
export function createCache<V>(shared: Shared, topic: string, max: number): Cache<V> {
  const entries = new Map<string, { value: V; at: number }>();
  const loading = new Map<string, Promise<V>>();
  let generation = 0;
  shared.onInvalidate((said, key) => {
    if (said !== topic && said !== '*') return;
    generation += 1;
    if (key === '*') {
      entries.clear();
      loading.clear();
    } else {
      entries.delete(key);
      loading.delete(key);
    }
  });
  const fresh = (key: string): { value: V } | undefined => {
    const entry = entries.get(key);
    return entry && performance.now() - entry.at < shared.cacheTtlMs() ? entry : undefined;
  };
  return {
    peek: (key) => fresh(key)?.value,
    get: async (key, load) => {
      const entry = fresh(key);
      if (entry) return entry.value;
      const pending = loading.get(key);
      if (pending) return pending;
      // What was loaded before a change was announced must not be kept after it.
      const begun = generation;
      const promise = load();
      loading.set(key, promise);
      try {
        const value = await promise;
        if (begun === generation) {
          entries.delete(key);
          entries.set(key, { value, at: performance.now() });
          if (entries.size > max) entries.delete(entries.keys().next().value!);
        }
        return value;
      } finally {
        if (loading.get(key) === promise) loading.delete(key);
      }
    },
  };
}
