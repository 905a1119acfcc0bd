import type { App, Ctx } from '#platform/context.ts';
import {
  dropSegmentTable,
  indexSegmentTable,
  makeSegmentTable,
  maxIndexedDimensions,
  type SegmentTable,
  segmentKind,
  segmentTableName,
} from '#platform/db/segment-tables.ts';
import { uuidv7 } from '#platform/ids.ts';
import { HASHED_MODEL } from '../embeddings/service.ts';
import type { VectorScope } from './collection.ts';
import { lockSpace } from './renew-store.ts';
import {
  copySegment,
  copyTail,
  deleteSegment,
  extendLease,
  insertSegment,
  joinSegment,
  leaveSegment,
  listSegments,
  markJoined,
  publish,
  retire,
  type Segment,
} from './segment-store.ts';
import { segmentsChanged } from './segments-known.ts';
import type { Space } from './space-store.ts';

const leaseMs = 60_000;
const leaseStepMs = 15_000;
/** Rows of one statement. The embedded database puts each row into the graph at once, and others wait meanwhile. */
const sliceRows = { postgresql: 5_000, embedded: 20 };
/** Rows that one statement tells where they belong. */
const rowsTold = { postgresql: 1_000, embedded: 250 };
/** What one row of the graph takes beside its vector, generously. */
const graphBytes = 600;

export const isAbandoned = ({ state, lease_until }: Segment): boolean =>
  state === 'building' && Date.parse(lease_until) < Date.now();

/**
 * Whether a model's vectors get an index. Those of the built-in one do not: no ranking uses them, so the graph would
 * cost every tenant without a model what only a search by `mode: vector` could win. Their words are indexed all the same.
 */
export const isIndexed = (app: App, model: string, dimensions: number): boolean =>
  model !== HASHED_MODEL && dimensions <= maxIndexedDimensions(app.database);

const soon = () => new Date(Date.now() + leaseMs);

/** The name of a segment of one's own, unless somebody else is building one for this space. */
async function claim(ctx: Ctx, space: Space, first: number, last: number): Promise<Segment | undefined> {
  return ctx.db.transaction(async (tx) => {
    await tx.run(lockSpace(ctx.tenant, space.scope, space.model));
    const [{ rows }] = await tx.batch([listSegments(ctx.tenant)] as const);
    const own = rows.filter(({ scope, model }) => scope === space.scope && model === space.model);
    if (own.some(({ state }) => state === 'building')) return undefined;
    const segment: Segment = {
      scope: space.scope,
      model: space.model,
      id: uuidv7(),
      first,
      last,
      state: 'building',
      rows: 0,
      until: null,
      joined: false,
      lease_until: soon().toISOString(),
    };
    await tx.run(insertSegment(ctx.tenant, segment, new Date(), soon()));
    return segment;
  });
}

type CopySlice = (
  after: string | undefined,
  limit: number,
) => Promise<{ last: string; count: number } | undefined>;

/**
 * Makes the table, fills it and builds its index, in the order that suits the engine.
 * @returns how many rows were copied, and the last of them
 */
async function build(
  ctx: Ctx,
  segment: Segment,
  dimensions: number,
  sources: CopySlice[],
  most: number,
): Promise<{ rows: number; until: string | null }> {
  const { database } = ctx.app;
  const table: SegmentTable = {
    name: segmentTableName(segment.id),
    kind: segmentKind(database),
    dimensions,
    near: isIndexed(ctx.app, segment.model, dimensions),
  };
  const embedded = database.engine === 'embedded';
  await makeSegmentTable(database, table);
  // In bulk an index costs a fifth; but the embedded database could do nothing else meanwhile.
  if (embedded) await indexSegmentTable(database, table, 0, ctx.signal);
  const limit = sliceRows[database.engine];
  let rows = 0;
  let until: string | null = null;
  for (const copy of sources) {
    for (let after: string | undefined; rows < most; ) {
      ctx.signal.throwIfAborted();
      const copied = await copy(after, Math.min(limit, most - rows));
      if (!copied) break;
      rows += copied.count;
      after = copied.last;
      if (until === null || after > until) until = after;
      await keepLease(ctx, segment);
    }
  }
  if (!embedded && rows > 0)
    await whileLeased(ctx, segment, () => {
      const bytes = table.near ? rows * (2 * dimensions + graphBytes) : 0;
      const memoryMb = Math.min(ctx.app.config.VECTOR_BUILD_MB, 64 + Math.ceil((1.2 * bytes) / 2 ** 20));
      return indexSegmentTable(database, table, memoryMb, ctx.signal);
    });
  return { rows, until };
}

async function keepLease(ctx: Ctx, segment: Segment): Promise<void> {
  const kept = await ctx.db.rows(extendLease(ctx.tenant, segment, soon()));
  if (kept.length === 0) throw new Error('the segment was taken over');
}

async function whileLeased(ctx: Ctx, segment: Segment, work: () => Promise<void>): Promise<void> {
  const timer = setInterval(() => {
    keepLease(ctx, segment).catch((error) => ctx.log.warn({ err: error }, 'a lease could not be kept'));
  }, leaseStepMs);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
}

/** Runs work on a claimed segment; what fails leaves nothing behind. */
async function making(ctx: Ctx, segment: Segment, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    await undo(ctx, segment).catch((late) => ctx.log.warn({ err: late }, 'a segment is removed later'));
    throw error;
  }
}

/** Removes a segment nobody searches. */
export async function undo(ctx: Ctx, segment: Segment): Promise<void> {
  await dropSegmentTable(ctx.app.database, segmentTableName(segment.id));
  await ctx.db.run(deleteSegment(ctx.tenant, segment.id));
}

/**
 * Seals the tail of a space: copies it, builds the index over the copies, lets searches see the segment, and only then
 * tells the rows that they belong to it. At each moment a row is either in the tail or in a segment that is searched.
 */
export async function sealTail(ctx: Ctx, scope: VectorScope, space: Space, known: Segment[]): Promise<void> {
  const number = 1 + Math.max(0, ...known.map(({ last }) => last));
  const segment = await claim(ctx, space, number, number);
  if (!segment) return;
  const kind = segmentKind(ctx.app.database);
  await making(ctx, segment, async () => {
    const copy: CopySlice = (after, limit) => copyTail(ctx.db, scope, segment, kind, after, limit);
    const built = await build(ctx, segment, space.dimensions, [copy], ctx.app.config.VECTOR_SEGMENT_ROWS);
    if (built.rows === 0) return undo(ctx, segment);
    if ((await ctx.db.rows(publish(ctx.tenant, segment, { ...built, joined: false }))).length === 0)
      throw new Error('the segment was taken over');
  });
  segmentsChanged(ctx, scope);
  await joinRows(ctx, scope, segment);
}

/** Tells the rows of a segment that they belong to it; again where it was broken off. */
export async function joinRows(ctx: Ctx, scope: VectorScope, segment: Segment): Promise<void> {
  const kind = segmentKind(ctx.app.database);
  for (let after: string | undefined; ; ) {
    ctx.signal.throwIfAborted();
    const part = await joinSegment(ctx.db, scope, segment, kind, after, rowsTold[ctx.app.database.engine]);
    if (!part) break;
    after = part.last;
  }
  await ctx.db.run(markJoined(ctx.tenant, segment));
}

/** Makes one segment of neighbours, of what still belongs to them. Their rows are not touched. */
export async function mergeSegments(
  ctx: Ctx,
  scope: VectorScope,
  space: Space,
  old: Segment[],
): Promise<void> {
  const segment = await claim(ctx, space, old[0]!.first, old.at(-1)!.last);
  if (!segment) return;
  const kind = segmentKind(ctx.app.database);
  await making(ctx, segment, async () => {
    const sources = old.map(
      (from): CopySlice =>
        (after, limit) =>
          copySegment(ctx.db, scope, from, segment, kind, after, limit),
    );
    const built = await build(ctx, segment, space.dimensions, sources, Number.POSITIVE_INFINITY);
    await ctx.db.transaction(async (tx) => {
      const [{ rows: published }] = await tx.batch([
        publish(ctx.tenant, segment, { ...built, joined: true }),
      ] as const);
      if (published.length === 0) throw new Error('the segment was taken over');
      await tx.run(retire(ctx.tenant, old, new Date()));
    });
    segmentsChanged(ctx, scope);
  });
}

/** Gives the rows of segments back to the tail. */
export async function dissolve(ctx: Ctx, scope: VectorScope, segments: Segment[]): Promise<void> {
  for (const segment of segments) {
    for (let after: string | undefined; ; ) {
      ctx.signal.throwIfAborted();
      const part = await leaveSegment(ctx.db, scope, segment, after, rowsTold[ctx.app.database.engine]);
      if (!part) break;
      after = part.last;
    }
    await ctx.db.run(retire(ctx.tenant, [segment], new Date()));
    segmentsChanged(ctx, scope);
  }
}
