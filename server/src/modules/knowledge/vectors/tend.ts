import type { App, Ctx } from '#platform/context.ts';

import { uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { preferredOpen } from '../embeddings/service.ts';
import type { VectorCollection, VectorScope } from './collection.ts';
import { dissolve, isAbandoned, mergeSegments, sealTail, undo } from './seal.ts';
import { countAllSegments, listLongTails, listSegments, type Segment } from './segment-store.ts';
import { countTail, listSpaces, type Space } from './space-store.ts';

export const tendJob = 'vectors.tend';

/** More segments than this and two neighbours are merged: each is one more index to ask. */
const segmentsKept = 4;

export const scopeOf = (collections: VectorCollection[], name: string): VectorScope | undefined =>
  collections.map((collection) => collection.scope(name)).find((scope) => scope !== undefined);

/** Called after vectors were stored: asks for a tail to be sealed when it has become long. */
export async function tailGrew(ctx: Ctx, scope: VectorScope, models: Set<string>): Promise<void> {
  const { VECTOR_TAIL_ROWS: long } = ctx.app.config;
  for (const model of models) {
    if ((await countTail(ctx.db, scope, model, long)) < long) continue;
    await ctx.app.enqueue(tendJob, [
      { tenant_id: ctx.tenant, fact_id: uuidv7(), resource_id: null, data: {} },
    ]);
    return;
  }
}

/** Tenants this process tends now, and whether more was asked for meanwhile. */
const tending = perApp(() => new Map<string, { again: boolean }>());

/** Seals, merges and gives up segments of a tenant until there is nothing to do. Killed anywhere, it is begun again. */
export async function tendTenant(ctx: Ctx, collections: VectorCollection[]): Promise<void> {
  const tenants = tending(ctx.app);
  const current = tenants.get(ctx.tenant);
  if (current) {
    current.again = true;
    return;
  }
  const state = { again: true };
  tenants.set(ctx.tenant, state);
  try {
    while (state.again) {
      state.again = false;
      await tendOnce(ctx, collections);
    }
  } finally {
    tenants.delete(ctx.tenant);
  }
}

async function tendOnce(ctx: Ctx, collections: VectorCollection[]): Promise<void> {
  const spaces = await listSpaces(ctx.db);
  const [{ rows: segments }] = await ctx.db.batch([listSegments(ctx.tenant)] as const);
  for (const segment of segments.filter(isAbandoned)) await undo(ctx, segment);
  for (const space of spaces) {
    const scope = scopeOf(collections, space.scope);
    if (scope) await tendSpace(ctx, scope, space);
  }
  // Of spaces that are empty by now.
  for (const segment of segments.filter(({ state }) => state === 'live')) {
    const scope = scopeOf(collections, segment.scope);
    if (scope && !spaces.some(({ scope: name, model }) => name === segment.scope && model === segment.model))
      await dissolve(ctx, scope, [segment]);
  }
}

async function tendSpace(ctx: Ctx, scope: VectorScope, space: Space): Promise<void> {
  const { VECTOR_INDEX_FROM: from, VECTOR_TAIL_ROWS: long } = ctx.app.config;
  for (;;) {
    ctx.signal.throwIfAborted();
    const segments = await segmentsOf(ctx, space);
    if (segments.some(({ state }) => state === 'building')) return;
    const live = segments.filter(({ state }) => state === 'live');
    const least = live.length > 0 ? long : from;
    const tail = await countTail(ctx.db, scope, space.model, least);
    const sealed = live.reduce((sum, { rows }) => sum + rows, 0);
    if (live.length > 0 && tail + sealed < from / 2) await dissolve(ctx, scope, live);
    else if (tail >= least && (await isRoom(ctx))) await sealTail(ctx, scope, space, segments);
    else {
      const old = toMerge(live, ctx.app.config.VECTOR_SEGMENT_ROWS);
      if (old.length === 0) return;
      await mergeSegments(ctx, scope, space, old);
    }
  }
}

async function segmentsOf(ctx: Ctx, { scope, model }: Space): Promise<Segment[]> {
  const [{ rows }] = await ctx.db.batch([listSegments(ctx.tenant)] as const);
  return rows.filter((segment) => segment.scope === scope && segment.model === model);
}

/** At the bound no more segments are made: the largest tails are scanned, slower and still exact. */
async function isRoom(ctx: Ctx): Promise<boolean> {
  const there = await countAllSegments(ctx.app.database.operator);
  if (there < ctx.app.config.VECTOR_SEGMENTS_MAX) return true;
  ctx.app.metrics.vectorDrift.set({ kind: 'no_room' }, 1);
  ctx.log.warn({ segments: there }, 'VECTOR_SEGMENTS_MAX is reached: a long tail stays without an index');
  return false;
}

/** The two neighbours that are smallest together, when there are too many. */
export function toMerge(live: Segment[], most: number): Segment[] {
  if (live.length <= segmentsKept) return [];
  let best: Segment[] = [];
  const rowsOf = (some: Segment[]) => some.reduce((sum, { rows }) => sum + rows, 0);
  for (let i = 0; i + 1 < live.length; i++) {
    const some = [live[i]!, live[i + 1]!];
    if (rowsOf(some) <= most && (best.length === 0 || rowsOf(some) < rowsOf(best))) best = some;
  }
  return best;
}

/** Asks for the tending of tenants whose tail is long although nobody has said so. */
export async function nudgeTending(app: App): Promise<void> {
  const preferred = await preferredOpen(app);
  if (preferred === undefined) return;
  const tenants = await listLongTails(app.database.operator, preferred, app.config.VECTOR_INDEX_FROM);
  await app.enqueue(
    tendJob,
    tenants.map(({ tenant_id }) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}
