import type { Ctx } from '#platform/context.ts';
import { segmentKind } from '#platform/db/segment-tables.ts';
import { perApp } from '#platform/per-app.ts';
import { embedQuery, type QueryVector } from '../embeddings/service.ts';
import { newBoundedCache } from '../retrieval/bounded-cache.ts';
import { encodeVector } from '../retrieval/service.ts';
import type { VectorScope, VectorView } from './collection.ts';
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

/** The nearest rows under one model. */
export interface NearRows<Row> {
  query: QueryVector;
  rows: (Row & { cosine: number })[];
}

/** Up to so many texts are compared one by one: about as dear as asking an index of many more for their nearest. */
const comparedAtMost = 5_000;
/** Vectors an index is asked for beyond those wanted, because texts may be deleted or expired meanwhile. */
const spare = 0.2;
/** And where a condition leaves out more. */
const spareUnderConditions = 4;
const repeats = 3;

type Segments = Map<string, LiveSegment[]>;
/** What a search found a moment ago; each search asks again beside its own question, and repeats it when that was old. */
const knownSegments = perApp(() => newBoundedCache<string, Segments>(5_000));

/** The vectors of a query under each model the scope has vectors of and that can be reached. */
export async function vectorsOfQuery(ctx: Ctx, scope: VectorScope, query: string): Promise<QueryVector[]> {
  const models = await ctx.db.rows(findModels(ctx.tenant, scope.name));
  return embedQuery(ctx, query, new Set(models.map(({ model }) => model)));
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
  const key = `${ctx.tenant}/${scope.name}`;
  let known = knownSegments(ctx.app).get(key);
  for (let tried = 0; ; tried++) {
    const current = known ?? (await readSegments(ctx, scope));
    const exact = tried === repeats;
    const { found, segments } = await attempt<Row>(ctx, scope, queries, view, limit, current, exact).catch(
      (error) => {
        // A segment that was given up since: its rows are elsewhere, and known by now. What should be there and is not
        // is for the repair; comparing all needs no segment.
        if ((error as { code?: string }).code !== '42P01' || exact) throw error;
        return { found: undefined, segments: undefined };
      },
    );
    if (segments) knownSegments(ctx.app).set(key, segments);
    if (found) return found;
    known = segments;
  }
}

async function attempt<Row extends { id: string }>(
  ctx: Ctx,
  scope: VectorScope,
  queries: QueryVector[],
  view: VectorView,
  limit: number,
  known: Segments,
  exact: boolean,
): Promise<{ found: NearRows<Row>[] | undefined; segments: Segments | undefined }> {
  const indexed = queries.some(({ model }) => known.has(model));
  const few =
    exact ||
    (view.narrow &&
      (!indexed || (await countVisible(ctx.db, scope, view, comparedAtMost + 1)) <= comparedAtMost));
  const take = Math.ceil(limit * (1 + (view.narrow ? spareUnderConditions : spare)));
  const kind = segmentKind(ctx.app.database);
  const asked = queries.map(({ model, vector }): NearQuery => ({ model, vector: encodeVector(vector) }));
  // Texts move from the models asked first to those asked later: one that moves meanwhile is seen by one of both.
  const statements = asked.map((query) =>
    few
      ? nearestRows<Row>(ctx.tenant, scope, query, view, limit)
      : nearestVectors<Row>(ctx.tenant, scope, query, known.get(query.model) ?? [], kind, view, take, limit),
  );
  const results = await ctx.db.batch([...statements, findLiveSegments(ctx.tenant, scope.name)] as const);
  const segments = segmentsOf(results.at(-1)!.rows as LiveSegment[]);
  if (!few && !isSame(known, segments)) return { found: undefined, segments };
  const found: NearRows<Row>[] = [];
  for (const [i, query] of queries.entries()) {
    let rows = results[i]!.rows as Near<Row>[];
    const wasCut = rows.length < limit && (rows[0]?.considered ?? take) >= take;
    ctx.app.metrics.vectorSearches.inc({
      path: few ? 'exact' : wasCut ? 'repeated' : known.has(query.model) ? 'indexed' : 'scanned',
    });
    // Too few of the nearest may be seen: all that may be seen are compared instead.
    if (!few && wasCut) rows = await ctx.db.rows(nearestRows<Row>(ctx.tenant, scope, asked[i]!, view, limit));
    found.push({ query, rows });
  }
  return { found, segments };
}

function segmentsOf(rows: LiveSegment[]): Segments {
  const segments: Segments = new Map();
  for (const segment of rows) {
    const list = segments.get(segment.model);
    if (list) list.push(segment);
    else segments.set(segment.model, [segment]);
  }
  return segments;
}

const readSegments = async (ctx: Ctx, scope: VectorScope): Promise<Segments> =>
  segmentsOf(await ctx.db.rows(findLiveSegments(ctx.tenant, scope.name)));

const isSame = (a: Segments, b: Segments): boolean =>
  a.size === b.size &&
  [...a].every(([model, list]) => {
    const other = b.get(model);
    return other?.length === list.length && list.every(({ id }, i) => id === other[i]!.id);
  });
