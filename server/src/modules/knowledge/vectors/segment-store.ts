import type { Db } from '#platform/db/database.ts';
import { segmentTableName, trigramTableName, wordTableName } from '#platform/db/segment-tables.ts';
import { identifier, isIn, raw, type Statement, sql } from '#platform/db/sql.ts';
import type { VectorCollection, VectorScope } from './collection.ts';

export interface Segment {
  scope: string;
  model: string;
  id: string;
  first: number;
  last: number;
  state: 'building' | 'live' | 'retired';
  rows: number;
  /** The last text it has a copy of; null where that is not known. */
  until: string | null;
  joined: boolean;
  lease_until: string;
}

const nil = '00000000-0000-0000-0000-000000000000';
const tableOf = (id: string) => identifier(segmentTableName(id));
const wordsOf = (id: string) => identifier(wordTableName(id));
const trigramsOf = (id: string) => identifier(trigramTableName(id));
const castTo = (kind: 'vector' | 'halfvec') => (kind === 'vector' ? raw('::vector') : raw('::halfvec'));

export const listSegments = (tenant: string): Statement<Segment> => sql<Segment>`
  select scope, model, id, first, last, state, rows, until, joined, lease_until from vector_segments
  where tenant_id = ${tenant} order by scope, model, first`;

export const insertSegment = (
  tenant: string,
  { scope, model, id, first, last }: Pick<Segment, 'scope' | 'model' | 'id' | 'first' | 'last'>,
  now: Date,
  leaseUntil: Date,
): Statement => sql`
  insert into vector_segments (tenant_id, scope, model, id, first, last, state, created_at, lease_until)
  values (${tenant}, ${scope}, ${model}, ${id}, ${first}, ${last}, 'building', ${now}, ${leaseUntil})`;

/** @returns a row unless the segment belongs to somebody else by now */
export const extendLease = (tenant: string, segment: Segment, until: Date): Statement<{ id: string }> => sql<{
  id: string;
}>`
  update vector_segments set lease_until = ${until}
  where tenant_id = ${tenant} and scope = ${segment.scope} and model = ${segment.model} and id = ${segment.id}
    and state = 'building' returning id`;

/** Lets searches see a segment. */
export const publish = (
  tenant: string,
  segment: Segment,
  { rows, until, joined }: Pick<Segment, 'rows' | 'until' | 'joined'>,
): Statement<{ id: string }> =>
  sql<{ id: string }>`
    update vector_segments set state = 'live', rows = ${rows}, until = ${until}, joined = ${joined}
    where tenant_id = ${tenant} and scope = ${segment.scope} and model = ${segment.model} and id = ${segment.id}
      and state = 'building' returning id`;

export const markJoined = (tenant: string, segment: Segment): Statement => sql`
  update vector_segments set joined = true
  where tenant_id = ${tenant} and scope = ${segment.scope} and model = ${segment.model} and id = ${segment.id}`;

export const retire = (tenant: string, segments: Segment[], now: Date): Statement => sql`
  update vector_segments set state = 'retired', retired_at = ${now}
  where tenant_id = ${tenant} and id = any(${segments.map(({ id }) => id)}::uuid[])`;

export const deleteSegment = (tenant: string, id: string): Statement =>
  sql`delete from vector_segments where tenant_id = ${tenant} and id = ${id}`;

// Row by row through the keys, and not by joins: of how many rows a slice has the planner knows nothing, and would read
// whole tables for each.
const theText = (tenant: string, c: VectorCollection, columns: Statement): Statement => sql`
  cross join lateral (
    select ${columns} from ${c.rows} where ${c.rowTenant} = ${tenant} and ${c.rowId} = copy.id offset 0
  ) text`;
const theVector = (
  tenant: string,
  c: VectorCollection,
  model: string,
  condition: Statement,
): Statement => sql`
  cross join lateral (
    select v.embedding as current from ${c.vectors}
    where v.tenant_id = ${tenant} and ${c.key} = copy.id and v.model = ${model} and ${condition} offset 0
  ) vector`;
/** Vectors of a slice that begins after a text. */
const amongSlice = (c: VectorCollection, after: string | undefined, slice: Statement): Statement =>
  isIn(c.key, sql`${after ?? nil}::uuid`, sql`(select id from part order by id desc limit 1)`, slice);
const among = ({ first, last }: Segment): Statement => sql`v.segment between ${first} and ${last}`;

/** The term weights of the texts whose vectors are copied. */
const copyTerms = (tenant: string, c: VectorCollection, id: string, from: Statement): Statement => sql`
    worded as (
      insert into ${wordsOf(id)} (tenant_id, id, words)
      select ${tenant}, copy.id, text.words from ${from} copy ${theText(tenant, c, sql`${c.rowWords} as words`)} returning 1
    ), spelled as (
      insert into ${trigramsOf(id)} (tenant_id, id, trigrams)
      select ${tenant}, copy.id, text.trigrams
      from ${from} copy ${theText(tenant, c, sql`${c.rowTrigrams} as trigrams`)} returning 1
    )`;

/** Copies a slice of the tail. @returns the last id copied and how many; none when the tail has no more */
export const copyTail = (
  db: Db,
  { collection: c, within }: VectorScope,
  segment: Segment,
  kind: 'vector' | 'halfvec',
  after: string | undefined,
  limit: number,
): Promise<{ last: string; count: number } | undefined> =>
  db.one(sql<{ last: string; count: number }>`
    with part as materialized (
      select ${c.key} as id, v.embedding from ${c.vectors}
      where v.tenant_id = ${db.tenant} and v.model = ${segment.model} and v.segment is null ${within}
        and ${c.key} > ${after ?? nil}::uuid
      order by ${c.key} limit ${limit}
    ), copied as (
      insert into ${tableOf(segment.id)} (tenant_id, id, embedding)
      select ${db.tenant}, id, embedding${castTo(kind)} from part returning id
    ), ${copyTerms(db.tenant!, c, segment.id, raw('part'))}
    select id as last, (select count(*) from copied)::int as count from copied order by id desc limit 1`);

/** Copies a slice of what still belongs to an older segment. */
export const copySegment = (
  db: Db,
  { collection: c }: VectorScope,
  from: Segment,
  into: Segment,
  kind: 'vector' | 'halfvec',
  after: string | undefined,
  limit: number,
): Promise<{ last: string; count: number } | undefined> =>
  db.one(sql<{ last: string; count: number }>`
    with part as materialized (
      select id from ${tableOf(from.id)} where tenant_id = ${db.tenant} and id > ${after ?? nil}::uuid order by id limit ${limit}
    ), copied as (
      insert into ${tableOf(into.id)} (tenant_id, id, embedding)
      select ${db.tenant}, copy.id, vector.current${castTo(kind)}
      from part copy ${theVector(db.tenant!, c, from.model, among(from))}
      returning id
    ), ${copyTerms(db.tenant!, c, into.id, raw('copied'))}
    select id as last, (select count(*) from copied)::int as count from part order by id desc limit 1`);

/**
 * Tells a slice of vectors that they belong to the segment that has copied them: those that are still in the tail and
 * still what was copied. Rows that somebody else holds stay in the tail, so nobody waits for anybody in a circle.
 */
export const joinSegment = (
  db: Db,
  { collection: c }: VectorScope,
  segment: Segment,
  kind: 'vector' | 'halfvec',
  after: string | undefined,
  limit: number,
): Promise<{ last: string } | undefined> =>
  db.one(sql<{ last: string }>`
    with part as materialized (
      select id, embedding from ${tableOf(segment.id)}
      where tenant_id = ${db.tenant} and id > ${after ?? nil}::uuid order by id limit ${limit}
    ), mine as materialized (
      select copy.id from part copy ${theText(db.tenant!, c, sql`${c.rowWords} as words`)}
      cross join lateral (
        select words from ${wordsOf(segment.id)} w where w.tenant_id = ${db.tenant} and w.id = copy.id offset 0
      ) copied
      cross join lateral (
        select v.embedding as current from ${c.vectors}
        where v.tenant_id = ${db.tenant} and ${c.key} = copy.id and v.model = ${segment.model} and v.segment is null
        for update of v skip locked
      ) vector
      where vector.current${castTo(kind)} = copy.embedding and text.words = copied.words
    ), joined as (
      update ${c.vectors} set segment = ${segment.first}
      where v.tenant_id = ${db.tenant} and ${amongSlice(c, after, sql`select id from mine`)} and v.model = ${segment.model} returning 1
    )
    select id as last, (select count(*) from joined) as joined from part order by id desc limit 1`);

/** Gives a slice of a segment's vectors back to the tail. */
export const leaveSegment = (
  db: Db,
  { collection: c }: VectorScope,
  segment: Segment,
  after: string | undefined,
  limit: number,
): Promise<{ last: string } | undefined> =>
  db.one(sql<{ last: string }>`
    with part as materialized (
      select id from ${tableOf(segment.id)}
      where tenant_id = ${db.tenant} and id > ${after ?? nil}::uuid order by id limit ${limit}
    ), gone as (
      update ${c.vectors} set segment = null
      where v.tenant_id = ${db.tenant} and ${amongSlice(c, after, sql`select id from part`)} and v.model = ${segment.model}
        and ${among(segment)} returning 1
    )
    select id as last, (select count(*) from gone) as gone from part order by id desc limit 1`);

/** Gives all vectors of a segment back to the tail, whether it has copies of them or not. */
export const leaveAll = (db: Db, { collection: c, within }: VectorScope, segment: Segment): Promise<number> =>
  db.run(sql`
    update ${c.vectors} set segment = null
    where v.tenant_id = ${db.tenant} and v.model = ${segment.model} ${within}
      and v.segment between ${segment.first} and ${segment.last}`);

export async function countCopies(db: Db, id: string): Promise<number> {
  const found = await db.one(sql<{ count: number }>`
    select count(*)::int as count from ${tableOf(id)} where tenant_id = ${db.tenant}`);
  return found!.count;
}

/** Vectors that say they belong to a segment that is not live go back to the tail. @returns how many */
export const returnStrays = (
  db: Db,
  { collection: c, within, name }: VectorScope,
  model: string,
): Promise<number> =>
  db.run(sql`
    update ${c.vectors} set segment = null
    where v.tenant_id = ${db.tenant} and v.model = ${model} and v.segment is not null ${within}
      and not exists (
        select 1 from vector_segments g
        where g.tenant_id = ${db.tenant} and g.scope = ${name} and g.model = ${model} and g.state = 'live'
          and v.segment between g.first and g.last
      )`);

/** Vectors whose segment has no copy of them go back to the tail. @returns how many */
export const returnUncopied = (
  db: Db,
  { collection: c, within }: VectorScope,
  segment: Segment,
): Promise<number> =>
  db.run(sql`
    update ${c.vectors} set segment = null
    where v.tenant_id = ${db.tenant} and v.model = ${segment.model} ${within}
      and v.segment between ${segment.first} and ${segment.last}
      and not (
        exists (select 1 from ${tableOf(segment.id)} s where s.tenant_id = ${db.tenant} and s.id = ${c.key})
        and exists (select 1 from ${wordsOf(segment.id)} s where s.tenant_id = ${db.tenant} and s.id = ${c.key})
      )`);

/** Copies whose vector is gone or belongs elsewhere. @returns how many were removed */
export async function deleteGhosts(
  db: Db,
  { collection: c }: VectorScope,
  segment: Segment,
): Promise<number> {
  const belongs = sql`exists (
      select 1 from ${c.vectors} where v.tenant_id = ${db.tenant} and ${c.key} = s.id and v.model = ${segment.model}
        and v.segment between ${segment.first} and ${segment.last}
    )`;
  const [near, words, trigrams] = await db.batch([
    sql`delete from ${tableOf(segment.id)} s where s.tenant_id = ${db.tenant} and not ${belongs}`,
    sql`delete from ${wordsOf(segment.id)} s where s.tenant_id = ${db.tenant} and not ${belongs}`,
    sql`delete from ${trigramsOf(segment.id)} s where s.tenant_id = ${db.tenant} and not ${belongs}`,
  ]);
  return Math.max(near.count, words.count, trigrams.count);
}

export interface SegmentOf {
  tenant_id: string;
  id: string;
  state: Segment['state'];
  retired_at: string | null;
}

/** All segments of the installation; for the operator. */
export const listAllSegments = (operator: Db): Promise<SegmentOf[]> =>
  operator.rows(sql<SegmentOf>`
    select tenant_id, id, state, retired_at from vector_segments where tenant_id is not null`);

/** How many segments the installation has; for the operator. */
export async function countAllSegments(operator: Db): Promise<number> {
  const found = await operator.one(sql<{ count: number }>`
    select count(*)::int as count from vector_segments where state <> 'retired' and tenant_id is not null`);
  return found!.count;
}

/** Tenants with memories in a long tail; for the operator. */
export const listLongTails = (operator: Db, model: string, from: number): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select tenant_id from memory_vectors where segment is null and model = ${model} and tenant_id is not null
    group by tenant_id having count(*) >= ${from}
    union select tenant_id from chunk_vectors where segment is null and model = ${model} and tenant_id is not null
    group by tenant_id, corpus_id having count(*) >= ${from}`);

export const setRows = (tenant: string, segment: Segment, rows: number): Statement => sql`
  update vector_segments set rows = ${rows}
  where tenant_id = ${tenant} and scope = ${segment.scope} and model = ${segment.model} and id = ${segment.id}`;
