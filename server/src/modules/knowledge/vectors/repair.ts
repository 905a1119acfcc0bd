import type { App, Ctx } from '#platform/context.ts';
import { dropSegmentTable, listSegmentTables, segmentTableName } from '#platform/db/segment-tables.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { VectorCollection } from './collection.ts';
import { isIndexed, joinRows } from './seal.ts';
import {
  countCopies,
  deleteGhosts,
  deleteSegment,
  leaveAll,
  listAllSegments,
  listSegments,
  retire,
  returnStrays,
  returnUncopied,
  setRows,
} from './segment-store.ts';
import { listSpaces } from './space-store.ts';
import { scopeOf } from './tend.ts';

export const repairJob = 'vectors.repair';

/** A segment that was given up stays this long for searches that have begun before. */
const keepRetiredMs = 60_000;

/** What a repair has found to be off, and put right. */
export interface Drift {
  /** Rows that said they belong to a segment nobody searches. */
  rows_without_segment: number;
  /** Rows whose segment has no copy of them. */
  rows_without_copy: number;
  /** Copies whose row is gone, or belongs elsewhere. */
  ghosts: number;
  /** Segments without a table, or without an index that can be used. */
  segments_without_index: number;
}

/** Compares the segments of a tenant with its vectors, and puts right what differs. */
export async function repairTenant(ctx: Ctx, collections: VectorCollection[]): Promise<Drift> {
  const drift: Drift = {
    rows_without_segment: 0,
    rows_without_copy: 0,
    ghosts: 0,
    segments_without_index: 0,
  };
  const tables = new Map((await listSegmentTables(ctx.app.database)).map((table) => [table.name, table]));
  const spaces = await listSpaces(ctx.db);
  const [{ rows: segments }] = await ctx.db.batch([listSegments(ctx.tenant)] as const);
  for (const segment of segments.filter(({ state }) => state === 'live')) {
    ctx.signal.throwIfAborted();
    const scope = scopeOf(collections, segment.scope);
    if (!scope) continue;
    const table = tables.get(segmentTableName(segment.id));
    const space = spaces.find(({ scope: name, model }) => name === segment.scope && model === segment.model);
    const near = space !== undefined && isIndexed(ctx.app, space.model, space.dimensions);
    if (!table?.terms || (near && !table.near)) {
      drift.segments_without_index += 1;
      await leaveAll(ctx.db, scope, segment);
      await ctx.db.run(retire(ctx.tenant, [segment], new Date()));
      continue;
    }
    // Broken off while its rows were being told.
    if (!segment.joined) await joinRows(ctx, scope, segment);
    drift.rows_without_copy += await returnUncopied(ctx.db, scope, segment);
    drift.ghosts += await deleteGhosts(ctx.db, scope, segment);
    await ctx.db.run(setRows(ctx.tenant, segment, await countCopies(ctx.db, segment.id)));
  }
  for (const { scope: name, model } of spaces) {
    const scope = scopeOf(collections, name);
    if (scope && segments.some((segment) => segment.scope === name && segment.model === model))
      drift.rows_without_segment += await returnStrays(ctx.db, scope, model);
  }
  for (const [kind, count] of Object.entries(drift)) {
    ctx.app.metrics.vectorDrift.set({ kind }, count);
    if (count > 0) ctx.log.warn({ kind, count }, 'the vector index was repaired');
  }
  return drift;
}

/** Removes segments that were given up, and tables nobody knows. */
export async function sweepSegments(app: App): Promise<void> {
  const segments = await listAllSegments(app.database.operator);
  const states = new Map<string, number>(['building', 'live', 'retired'].map((state) => [state, 0]));
  for (const { state } of segments) states.set(state, states.get(state)! + 1);
  for (const [state, count] of states) app.metrics.vectorSegments.set({ state }, count);
  const before = Date.now() - keepRetiredMs;
  for (const { tenant_id, id, retired_at } of segments) {
    if (retired_at === null || Date.parse(retired_at) > before) continue;
    await dropSegmentTable(app.database, segmentTableName(id));
    await app.database.tenant(tenant_id).run(deleteSegment(tenant_id, id));
  }
  const known = new Set(segments.map(({ id }) => segmentTableName(id)));
  // Made before its segment was read is possible only for tables that are known; the others belong to nobody.
  for (const { name } of await listSegmentTables(app.database)) {
    if (known.has(name)) continue;
    const still = (await listAllSegments(app.database.operator)).some(
      ({ id }) => segmentTableName(id) === name,
    );
    if (!still) await dropSegmentTable(app.database, name);
  }
}

/** Asks for the repair of every tenant that has segments. */
export async function nudgeRepair(app: App): Promise<void> {
  const tenants = new Set((await listAllSegments(app.database.operator)).map(({ tenant_id }) => tenant_id));
  await app.enqueue(
    repairJob,
    [...tenants].map((tenant_id) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}
