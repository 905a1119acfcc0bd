import type { App } from './context.ts';

/** Something a module keeps for the life of a process, made when first asked for: a cache, a buffer, a key ring. */
export function perApp<T>(make: (app: App) => T): (app: App) => T {
  const made = new WeakMap<App, T>();
  return (app) => {
    const known = made.get(app);
    if (known !== undefined) return known;
    const value = make(app);
    made.set(app, value);
    return value;
  };
}
