import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { VectorScope } from './collection.ts';

/**
 * Says that a scope has vectors of a model. It belongs in the transaction that stores them: the row is written each
 * time, so that whoever finds a space empty and says so waits for those who are just filling it.
 */
export const touchSpace = (
  tenant: string,
  scope: string,
  model: string,
  dimensions: number,
  now: Date,
): Statement => sql`
  insert into vector_spaces (tenant_id, scope, model, dimensions, created_at)
  values (${tenant}, ${scope}, ${model}, ${dimensions}, ${now})
  on conflict (tenant_id, scope, model) do update set drained_at = null, settled_for = null`;

/** Removes what segments have copied of vectors that are deleted; to be sent after the statement that deletes them. */
export const forgetInSegments = (tenant: string, scope: string, ids: string[]): Statement =>
  sql`select forget_in_segments(${tenant}, ${scope}, ${ids}::uuid[])`;

export interface Space {
  scope: string;
  model: string;
  dimensions: number;
  created_at: string;
  settled_for: string | null;
  renewed: number;
  renewed_at: string | null;
}

/** Spaces that have vectors, or may have. */
export const listSpaces = (db: Db): Promise<Space[]> =>
  db.rows(sql<Space>`
    select scope, model, dimensions, created_at, settled_for, renewed, renewed_at from vector_spaces
    where tenant_id = ${db.tenant} and drained_at is null order by scope, model`);

export interface SpaceCount {
  vectors: number;
  /** Not in any segment: scanned. */
  tail: number;
  /** That a better model does not take. */
  refused: number;
}

export async function countSpace(
  db: Db,
  { collection: c, within }: VectorScope,
  model: string,
  preferred: string | undefined,
): Promise<SpaceCount> {
  const found = await db.one(sql<SpaceCount>`
    select count(*)::int as vectors, count(*) filter (where v.segment is null)::int as tail,
      count(*) filter (where v.refused_by = ${preferred}::text)::int as refused
    from ${c.vectors} where v.tenant_id = ${db.tenant} and v.model = ${model} ${within}`);
  return found!;
}

/** How many vectors are in the tail, counted no further than to `most`. */
export async function countTail(
  db: Db,
  { collection: c, within }: VectorScope,
  model: string,
  most: number,
): Promise<number> {
  const found = await db.one(sql<{ count: number }>`
    select count(*)::int as count from (
      select 1 from ${c.vectors} where v.tenant_id = ${db.tenant} and v.model = ${model} and v.segment is null ${within}
      limit ${most}
    ) tail`);
  return found!.count;
}
