import type { App } from '#platform/context.ts';

/** Groups under way at once: the embedded database does one thing at a time, so there two would only be smaller. */
export const lanesOf = (app: App): number => (app.database.engine === 'embedded' ? 1 : 2);
