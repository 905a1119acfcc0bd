import type { Shared } from './shared.ts';

/** A bounded cache of what the database said, dropped at once when any process says it changed. */
export interface Cache<V> {
  get(key: string, load: () => Promise<V>): Promise<V>;
  /** The value when it is there and fresh; saves a promise on the hot path. */
  peek(key: string): V | undefined;
  /** The value as it was last loaded, however long ago. */
  last(key: string): V | undefined;
  /** Loads anew what may be kept, for a caller that has seen it is out of date; at most once a second a key. */
  reload(key: string, load: () => Promise<V>): Promise<V>;
}

const reloadMs = 1_000;

interface Entry<V> {
  value: V;
  /** When its load began: the database may have answered with what was true at that moment. */
  at: number;
  reloadedAt: number;
}

/**
 * @param topic what `shared.invalidate(topic, key)` names; the key `*` drops all
 * @param max entries kept; the oldest go first. Of `undefined`, which says that there is nothing, a tenth as many beside
 *   them, so that names somebody makes up drive out nothing that is there.
 */
export function createCache<V>(shared: Shared, topic: string, max: number): Cache<V> {
  const present = new Map<string, Entry<V>>();
  const absent = new Map<string, Entry<V>>();
  const entryOf = (key: string) => present.get(key) ?? absent.get(key);
  const forget = (key: string) => {
    present.delete(key);
    absent.delete(key);
  };
  const loading = new Map<string, Promise<V>>();
  const reloading = new Map<string, Promise<V>>();
  shared.onInvalidate((said, key) => {
    if (said !== topic && said !== '*') return;
    // A load under way may have read what was true before: forgotten here, it is neither joined nor kept.
    if (key === '*') {
      present.clear();
      absent.clear();
      loading.clear();
    } else {
      forget(key);
      loading.delete(key);
    }
  });
  const fresh = (key: string): Entry<V> | undefined => {
    const entry = entryOf(key);
    return entry && performance.now() - entry.at < shared.cacheTtlMs() ? entry : undefined;
  };
  const loadInto = async (key: string, load: () => Promise<V>, reloadedAt: number): Promise<V> => {
    const at = performance.now();
    const promise = load();
    loading.set(key, promise);
    try {
      const value = await promise;
      if (loading.get(key) === promise) {
        forget(key);
        const [entries, most] = value === undefined ? [absent, max / 10] : [present, max];
        entries.set(key, { value, at, reloadedAt });
        if (entries.size > most) entries.delete(entries.keys().next().value!);
      }
      return value;
    } finally {
      if (loading.get(key) === promise) loading.delete(key);
    }
  };
  return {
    peek: (key) => fresh(key)?.value,
    last: (key) => entryOf(key)?.value,
    get: async (key, load) => {
      const entry = fresh(key);
      if (entry) return entry.value;
      return loading.get(key) ?? loadInto(key, load, Number.NEGATIVE_INFINITY);
    },
    reload: async (key, load) => {
      const entry = fresh(key);
      const now = performance.now();
      if (entry && now - entry.reloadedAt < reloadMs) return entry.value;
      // Of many that see it at the same moment one asks.
      let pending = reloading.get(key);
      if (!pending) {
        pending = loadInto(key, load, now).finally(() => reloading.delete(key));
        reloading.set(key, pending);
      }
      return pending;
    },
  };
}
