import type { Ctx } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { newBoundedCache } from '../retrieval/bounded-cache.ts';
import type { VectorScope } from './collection.ts';
import { findLiveSegments, type LiveSegment } from './search-store.ts';

interface Known {
  segments: LiveSegment[];
  at: number;
}

const scopes = 5_000;
/** Where nothing depends on it, what was read is taken for true this long. */
const freshMs = 5_000;

const topic = 'vector_segments';

/** The live segments a search of this process saw last, by tenant and scope. */
const knownOf = perApp((app) => {
  const known = newBoundedCache<string, Known>(scopes);
  app.shared.onInvalidate((said, key) => {
    const old = said === topic ? known.get(key) : undefined;
    if (old) known.set(key, { ...old, at: Number.NEGATIVE_INFINITY });
  });
  return known;
});
const keyOf = (ctx: Ctx, scope: { name: string }): string => `${ctx.tenant}/${scope.name}`;

/** Tells all processes that a scope's segments are others now. */
export const segmentsChanged = (ctx: Ctx, scope: { name: string }): void =>
  ctx.app.shared.invalidate(topic, keyOf(ctx, scope));

/** What is known, however old. Whoever relies on it asks again in the batch of its own question. */
export async function segmentsKnown(ctx: Ctx, scope: VectorScope, fresh = false): Promise<LiveSegment[]> {
  const known = knownOf(ctx.app).get(keyOf(ctx, scope));
  if (known && (!fresh || performance.now() - known.at < freshMs)) return known.segments;
  return noteSegments(ctx, scope, await ctx.db.rows(findLiveSegments(ctx.tenant, scope.name)));
}

export function noteSegments(ctx: Ctx, scope: VectorScope, segments: LiveSegment[]): LiveSegment[] {
  knownOf(ctx.app).set(keyOf(ctx, scope), { segments, at: performance.now() });
  return segments;
}

export const isSame = (a: LiveSegment[], b: LiveSegment[]): boolean =>
  a.length === b.length && a.every(({ id }, i) => id === b[i]!.id);

/** A segment's table is gone: it was given up, or is for the repair to find. */
export const isGone = (error: unknown): boolean => (error as { code?: string }).code === '42P01';

/** How often a search asks again because segments were made or given up meanwhile; then it compares all texts. */
export const repeats = 3;
