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

export interface TermCounts {
  texts: number;
  words: Map<number, number>;
  trigrams: Map<number, number>;
}

/** How many texts of a scope hold each of the dimensions, and how many there are. */
export async function findTermCounts(
  db: Db,
  scope: string,
  words: number[],
  trigrams: number[],
): Promise<TermCounts> {
  const [total, w, g] = await db.batch([
    sql<{ texts: number }>`select texts from text_counts where tenant_id = ${db.tenant} and scope = ${scope}`,
    sql<{ dimension: number; texts: number }>`
      select dimension, texts from term_counts
      where tenant_id = ${db.tenant} and scope = ${scope} and field = 'w' and dimension = any(${words}::int[])`,
    sql<{ dimension: number; texts: number }>`
      select dimension, texts from term_counts
      where tenant_id = ${db.tenant} and scope = ${scope} and field = 'g' and dimension = any(${trigrams}::int[])`,
  ]);
  const map = (rows: { dimension: number; texts: number }[]) =>
    new Map(rows.map(({ dimension, texts }) => [dimension, texts]));
  return { texts: total.rows[0]?.texts ?? 0, words: map(w.rows), trigrams: map(g.rows) };
}
