import type { App } from '#platform/context.ts';

/** Groups under way at once: the embedded database does one thing at a time, so there two would only be smaller. */
export const lanesOf = (app: App): number => (app.database.engine === 'embedded' ? 1 : 2);

/** By then every process knows what another has set: longer than a cache may be trusted without word, and a request takes. */
export const knownAfterMs = (app: App): number =>
  (app.database.engine === 'embedded' ? 0 : app.shared.cacheTtlMs()) + 2_000;
