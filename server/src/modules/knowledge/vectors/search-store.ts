import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { VectorScope, VectorView } from './collection.ts';

export interface NearQuery {
  model: string;
  /** The query in pgvector's binary form. */
  vector: Buffer;
}

export type Near<Row> = Row & {
  cosine: number;
  /** How many vectors the search looked at before it left out texts that may not be seen. */
  considered: number;
};

/** A segment that is searched, and the values of `segment` it covers. */
export interface LiveSegment {
  model: string;
  id: string;
  first: number;
  last: number;
  /** The last text it has a copy of; null where that is not known. */
  until: string | null;
}

/** Models a scope has vectors of. */
export const findModels = (tenant: string, scope: string): Statement<{ model: string }> =>
  sql<{ model: string }>`
    select model from vector_spaces where tenant_id = ${tenant} and scope = ${scope} and drained_at is null`;

/** The live segments of a scope, of all its models. */
export const findLiveSegments = (tenant: string, scope: string): Statement<LiveSegment> => sql<LiveSegment>`
  select model, id, first, last, until from vector_segments
  where tenant_id = ${tenant} and scope = ${scope} and state = 'live' order by first`;

/**
 * The nearest vectors first, then what of their texts may be seen. The tail is scanned exactly; each segment is asked
 * by a function that only its index can answer. What a segment finds counts only while the vector still belongs to
 * it, and is compared by the vector itself: in one statement, so at one moment.
 * @param segments undefined: the model has no indexes, and all its vectors are scanned
 * @param kind type of the copies in segments
 * @param take how many vectors are looked at; `limit` how many rows come back
 */
export function nearestVectors<Row>(
  tenant: string,
  { collection: c, within }: VectorScope,
  { model, vector }: NearQuery,
  segments: LiveSegment[] | undefined,
  kind: string,
  view: VectorView,
  take: number,
  limit: number,
): Statement<Near<Row>> {
  const tail = sql`
    select ${c.key} as id, v.embedding <=> ${vector}::vector as distance from ${c.vectors}
    where v.tenant_id = ${tenant} and v.model = ${model} ${within}
      ${segments === undefined ? raw('') : raw('and v.segment is null')}
    order by distance limit ${take}`;
  const found =
    segments === undefined || segments.length === 0
      ? tail
      : sql`
    select id, distance from (${tail}) tail
    union all
    select sealed.id, current.distance from (
      select near.id, s.model, s.first, s.last
      from ${asTable(segments)} as s (id, model, first, last)
      cross join lateral near_in_segment(${tenant}, s.id, ${kind}::regtype, ${vector}::vector, ${take}::int) near
    ) sealed
    ${belonging(tenant, c, sql`v.embedding <=> ${vector}::vector as distance`)}
    order by distance limit ${take}`;
  return sql<Near<Row>>`
    with nearest as materialized (${found})
    select ${view.columns}, 1 - nearest.distance as cosine, (select count(*) from nearest)::int as considered
    -- By a list of keys: of how many there are the planner knows nothing, and would read all texts to join them.
    from ${c.rows} join nearest on nearest.id = ${c.rowId} ${view.joins}
    where ${c.rowTenant} = ${tenant} and ${c.rowId} = any(array(select id from nearest)) ${view.visible}
    order by nearest.distance limit ${limit}`;
}

/** Only what still belongs to its segment. Row by row: a plan made for any number of segments would read all vectors. */
const belonging = (tenant: string, c: VectorScope['collection'], columns: Statement): Statement => sql`
    cross join lateral (
      select ${columns} from ${c.vectors}
      where v.tenant_id = ${tenant} and ${c.key} = sealed.id and v.model = sealed.model
        and v.segment between sealed.first and sealed.last offset 0
    ) current`;

function asTable(segments: LiveSegment[]): Statement {
  const column = <K extends keyof LiveSegment>(name: K) => segments.map((segment) => segment[name]);
  return sql`unnest(${column('id')}::uuid[], ${column('model')}::text[], ${column('first')}::int[], ${column('last')}::int[])`;
}

/** What a text is searched by: weights of words, and of trigrams where likeness of spelling is looked for too. */
export interface TermQuery {
  words: Buffer;
  /** Dimensions of which a text must have one to be looked at. */
  wordDimensions: number[];
  trigrams: Buffer;
  trigramDimensions: number[];
  /** Best by words, and by trigrams. */
  byWords: number;
  byTrigrams: number;
}

/**
 * Ids of the best texts by words, and by trigrams, of a scope with segments: from their inverted indexes, from the
 * tail, and from texts that have no vector yet. Whether a text may be seen is asked afterwards.
 * @param visible which of those that are newer than all segments may be found
 */
export const hitsInSegments = (
  tenant: string,
  { collection: c, within }: VectorScope,
  segments: LiveSegment[],
  visible: Statement,
  query: TermQuery,
): Statement => sql`
    select id from (${bestOf(tenant, c, within, segments, visible, {
      call: sql`words_in_segment(s.id, ${query.words}::sparsevec, ${query.wordDimensions}::int[], ${query.byWords}::int)`,
      distance: sql`${c.rowWords} <#> ${query.words}::sparsevec`,
      take: query.byWords,
    })}) by_words
    ${
      query.byTrigrams === 0
        ? raw('')
        : sql`union select id from (${bestOf(tenant, c, within, segments, visible, {
            call: sql`trigrams_in_segment(s.id, ${query.trigrams}::sparsevec, ${query.trigramDimensions}::int[], ${query.byTrigrams}::int)`,
            distance: sql`${c.rowTrigrams} <#> ${query.trigrams}::sparsevec`,
            take: query.byTrigrams,
          })}) by_trigrams`
    }`;

/** The last text that any of the segments has; beyond all where that is not known of one. */
const lastOf = (segments: LiveSegment[]): string =>
  segments.reduce((last, { until }) => (until === null || until > last ? (until ?? noneLater) : last), '');
const noneLater = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

const bestOf = (
  tenant: string,
  c: VectorScope['collection'],
  within: Statement,
  segments: LiveSegment[],
  visible: Statement,
  { call, distance, take }: { call: Statement; distance: Statement; take: number },
): Statement => {
  const last = lastOf(segments);
  // Row by row through the key: the planner takes a tail for most of the table, and would read all texts.
  const keyed = (key: Statement): Statement => sql`
        cross join lateral (
          select ${c.rowId} as id, ${distance} as distance from ${c.rows}
          where ${c.rowTenant} = ${tenant} and ${c.rowId} = ${key} offset 0
        )`;
  return sql`
      select id from (
        select sealed.id, sealed.distance from (
          select best.id, best.distance, s.model, s.first, s.last
          from ${asTable(segments)} as s (id, model, first, last) cross join lateral ${call} best
        ) sealed
        ${belonging(tenant, c, sql`1 as there`)}
        union all
        select tail.id, tail.distance from ${c.vectors} ${keyed(c.key)} tail
        where v.tenant_id = ${tenant} and v.segment is null ${within}
        ${
          c.unembedded === undefined
            ? raw('')
            : sql`
          and ${c.key} <= ${last}::uuid
        union all select waiting.id, waiting.distance from ${c.unembedded.queue} ${keyed(c.unembedded.key)} waiting
        where ${c.unembedded.tenant} = ${tenant} and ${c.unembedded.key} <= ${last}::uuid
        -- As they came, one after another: under a quarter of what it costs to look each up.
        union all select ${c.rowId}, ${distance} from ${c.rows}
        where ${c.rowTenant} = ${tenant} and ${c.rowId} > ${last}::uuid ${visible}`
        }
      ) found where distance < 0 group by id order by min(distance) limit ${take}`;
};

/** The texts that may be seen first, then the nearest of them: exact, and costs as much as there are such texts. */
export const nearestRows = <Row>(
  tenant: string,
  { collection: c, within }: VectorScope,
  { model, vector }: NearQuery,
  view: VectorView,
  limit: number,
): Statement<Near<Row>> => sql<Near<Row>>`
  with nearest as materialized (
    select ${c.rowId} as id, v.embedding <=> ${vector}::vector as distance
    from ${c.rows} join ${c.vectors} on v.tenant_id = ${c.rowTenant} and ${c.key} = ${c.rowId}
    where ${c.rowTenant} = ${tenant} and v.tenant_id = ${tenant} and v.model = ${model} ${within} ${view.visible}
    order by distance limit ${limit}
  )
  select ${view.columns}, 1 - nearest.distance as cosine, (select count(*) from nearest)::int as considered
  from nearest join ${c.rows} on ${c.rowTenant} = ${tenant} and ${c.rowId} = nearest.id ${view.joins}
  order by nearest.distance`;

/** How many texts may be seen, counted no further than to `most`. */
export async function countVisible(
  db: Db,
  { collection: c }: VectorScope,
  view: VectorView,
  most: number,
): Promise<number> {
  const found = await db.one(sql<{ count: number }>`
    select count(*)::int as count from (
      select 1 from ${c.rows} where ${c.rowTenant} = ${db.tenant} ${view.visible} limit ${most}
    ) seen`);
  return found?.count ?? 0;
}
