import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export const addTermCounts = (
  tenant: string,
  scope: string,
  field: 'w' | 'g',
  dimensions: number[],
  texts: number[],
): Statement => sql`
  insert into term_counts as known (tenant_id, scope, field, dimension, texts)
  select ${tenant}, ${scope}, ${field}, added.dimension, added.texts
  from unnest(${dimensions}::int[], ${texts}::int[]) as added (dimension, texts)
  on conflict (tenant_id, scope, field, dimension) do update set texts = known.texts + excluded.texts`;

export const addTextCount = (tenant: string, scope: string, texts: number): Statement => sql`
  insert into text_counts as known (tenant_id, scope, texts) values (${tenant}, ${scope}, ${texts})
  on conflict (tenant_id, scope) do update set texts = known.texts + excluded.texts`;

/** Takes out some of a scope's term counts; answers a row for each. */
export const deleteTermCounts = (tenant: string, scope: string, limit: number): Statement => sql`
  delete from term_counts where tenant_id = ${tenant} and scope = ${scope}
    and (field, dimension) in (
      select field, dimension from term_counts where tenant_id = ${tenant} and scope = ${scope} limit ${limit})
  returning 1`;

export const deleteTextCount = (tenant: string, scope: string): Statement =>
  sql`delete from text_counts where tenant_id = ${tenant} and scope = ${scope}`;

export interface TermCounts {
  texts: number;
  words: Map<number, number>;
  trigrams: Map<number, number>;
}

interface Counted {
  field: 'w' | 'g' | null;
  dimension: number;
  texts: number | null;
}

/** How many texts of a scope hold each of the dimensions, and how many there are. */
export async function findTermCounts(
  db: Db,
  scope: string,
  words: number[],
  trigrams: number[],
): Promise<TermCounts> {
  // One look-up a dimension: `= any(...)` reads the whole scope where the table has no statistics yet.
  const rows = await db.rows(sql<Counted>`
    select wanted.field, wanted.dimension, (
      select texts from term_counts
      where tenant_id = ${db.tenant} and scope = ${scope} and field = wanted.field and dimension = wanted.dimension
    ) as texts
    from (
      select 'w' as field, unnest(${words}::int[]) as dimension union all
      select 'g', unnest(${trigrams}::int[])
    ) as wanted
    union all
    select null, 0, (select texts from text_counts where tenant_id = ${db.tenant} and scope = ${scope})`);
  const found: TermCounts = { texts: 0, words: new Map(), trigrams: new Map() };
  for (const { field, dimension, texts } of rows) {
    if (field === null) found.texts = texts ?? 0;
    else (field === 'w' ? found.words : found.trigrams).set(dimension, texts ?? 0);
  }
  return found;
}
