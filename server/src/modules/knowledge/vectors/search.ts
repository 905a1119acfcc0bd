import type { Ctx } from '#platform/context.ts';
import { segmentKind } from '#platform/db/segment-tables.ts';
import { embedQuery, type QueryVector } from '../embeddings/service.ts';
import { encodeVector } from '../retrieval/service.ts';
import type { VectorScope, VectorView } from './collection.ts';
import { isIndexed } from './seal.ts';
import {
  countVisible,
  findLiveSegments,
  findModels,
  type LiveSegment,
  type Near,
  type NearQuery,
  nearestRows,
  nearestVectors,
} from './search-store.ts';
import { isGone, isSame, noteSegments, repeats, segmentsKnown } from './segments-known.ts';

/** The nearest rows under one model. */
export interface NearRows<Row> {
  query: QueryVector;
  /** Nearest first. */
  rows: (Row & { cosine: number })[];
  /** How many were asked for; fewer rows are all there are. */
  wanted: number;
}

/** Up to so many texts are compared one by one: about as dear as asking an index of many more for their nearest. */
export const comparedAtMost = 5_000;
/** Vectors an index is asked for beyond those wanted, because texts may be deleted or expired meanwhile. */
const spare = 0.2;
/** And where a condition leaves out more. */
const spareUnderConditions = 4;

/** The vectors of a query under each model the scope has vectors of and that can be reached. */
export async function vectorsOfQuery(ctx: Ctx, scope: VectorScope, query: string): Promise<QueryVector[]> {
  const models = await ctx.db.rows(findModels(ctx.tenant, scope.name));
  return embedQuery(ctx, query, new Set(models.map(({ model }) => model)));
}

/** Of these only the models that know meaning: the built-in vectors repeat what the words say. */
export async function meaningOfQuery(ctx: Ctx, scope: VectorScope, query: string): Promise<QueryVector[]> {
  const { length: models } = ctx.app.models.embeddings;
  if (models === 0) return [];
  // The preferred model is always asked, so that where there is no other nobody need look which are there.
  const vectors = models === 1 ? embedQuery(ctx, query, new Set()) : vectorsOfQuery(ctx, scope, query);
  return (await vectors).filter(({ weight }) => weight > 0);
}

/**
 * The nearest `limit` texts of a scope under each model, among those a view lets be seen: as many as there are, however
 * few it leaves. The ways are named: exact among few texts, else the indexes of segments and the exact tail.
 */
export async function findNearest<Row extends { id: string }>(
  ctx: Ctx,
  scope: VectorScope,
  queries: QueryVector[],
  view: VectorView,
  limit: number,
): Promise<NearRows<Row>[]> {
  if (queries.length === 0) return [];
  let known = await segmentsKnown(ctx, scope);
  for (let tried = 0; ; tried++) {
    const exact = tried === repeats;
    try {
      const { found, segments } = await attempt<Row>(ctx, scope, queries, view, limit, known, exact);
      if (found) return found;
      known = segments;
    } catch (error) {
      // A segment that was given up since: its rows are elsewhere, and known by now. What should be there and is not
      // is for the repair; comparing all needs no segment.
      if (!isGone(error) || exact) throw error;
      known = await segmentsKnown(ctx, scope);
    }
  }
}

async function attempt<Row extends { id: string }>(
  ctx: Ctx,
  scope: VectorScope,
  queries: QueryVector[],
  view: VectorView,
  limit: number,
  known: LiveSegment[],
  exact: boolean,
): Promise<{ found: NearRows<Row>[] | undefined; segments: LiveSegment[] }> {
  const few =
    exact ||
    (view.narrow &&
      (known.length === 0 ||
        (await countVisible(ctx.db, scope, view, comparedAtMost + 1)) <= comparedAtMost));
  const take = Math.ceil(limit * (1 + (view.narrow ? spareUnderConditions : spare)));
  const kind = segmentKind(ctx.app.database);
  const asked = queries.map(({ model, vector }): NearQuery => ({ model, vector: encodeVector(vector) }));
  /** Undefined where some of its vectors are in segments without an index for them: all are scanned then. */
  const segmentsOf = ({ model, vector }: QueryVector): LiveSegment[] | undefined => {
    const own = known.filter((segment) => segment.model === model);
    return own.length === 0 || isIndexed(ctx.app, model, vector.length) ? own : undefined;
  };
  // Texts move from the models asked first to those asked later: one that moves meanwhile is seen by one of both.
  const statements = asked.map((query, i) =>
    few
      ? nearestRows<Row>(ctx.tenant, scope, query, view, limit)
      : nearestVectors<Row>(ctx.tenant, scope, query, segmentsOf(queries[i]!), kind, view, take, limit),
  );
  const results = await ctx.db.batch([...statements, findLiveSegments(ctx.tenant, scope.name)] as const);
  const segments = noteSegments(ctx, scope, results.at(-1)!.rows as LiveSegment[]);
  if (!few && !isSame(known, segments)) return { found: undefined, segments };
  const found: NearRows<Row>[] = [];
  for (const [i, query] of queries.entries()) {
    let rows = results[i]!.rows as Near<Row>[];
    const wasCut = !few && rows.length < limit && (rows[0]?.considered ?? take) >= take;
    const indexed = (segmentsOf(query) ?? []).length > 0;
    ctx.app.metrics.vectorSearches.inc({
      path: few ? 'exact' : wasCut ? 'repeated' : indexed ? 'indexed' : 'scanned',
    });
    // Too few of the nearest may be seen: all that may be seen are compared instead.
    if (wasCut) rows = await ctx.db.rows(nearestRows<Row>(ctx.tenant, scope, asked[i]!, view, limit));
    found.push({ query, rows, wanted: limit });
  }
  return { found, segments };
}
