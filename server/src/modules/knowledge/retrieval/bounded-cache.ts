export interface BoundedCache<K, V> {
  get(key: K): V | undefined;
  set(key: K, value: V): void;
}

/**
 * A map of at most twice `limit` entries, in two generations: when the younger is full it becomes the older and what
 * was not used since falls out. A hit costs one look-up, unlike a list kept in order of use.
 */
export function newBoundedCache<K, V>(limit: number): BoundedCache<K, V> {
  let younger = new Map<K, V>();
  let older = new Map<K, V>();
  const set = (key: K, value: V): void => {
    if (younger.size >= limit) {
      older = younger;
      younger = new Map();
    }
    younger.set(key, value);
  };
  return {
    get(key) {
      const value = younger.get(key);
      if (value !== undefined) return value;
      const past = older.get(key);
      if (past !== undefined) set(key, past);
      return past;
    },
    set,
  };
}
