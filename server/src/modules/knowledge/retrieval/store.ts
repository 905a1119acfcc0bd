import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { type Counts, countOf, packCounts, unpackCounts } from './counts.ts';

/** What was counted into or out of a scope. */
export interface Change {
  texts: number;
  words: Counts;
  trigrams: Counts;
}

interface StoredChange {
  texts: number;
  words: Buffer;
  trigrams: Buffer;
}

const changeOf = ({ texts, words, trigrams }: StoredChange): Change => ({
  texts,
  words: unpackCounts(words),
  trigrams: unpackCounts(trigrams),
});

/** A row of its own each time: those that write into one scope at once never wait for each other. */
export const addChange = (
  tenant: string,
  scope: string,
  { texts, words, trigrams }: Change,
): Statement => sql`
  insert into term_changes (tenant_id, scope, id, texts, words, trigrams)
  values (${tenant}, ${scope}, ${uuidv7()}, ${texts}, ${packCounts(words)}, ${packCounts(trigrams)})`;

/** Takes all changes of a scope out. */
export async function takeChanges(tx: Db, tenant: string, scope: string): Promise<Change[]> {
  const taken = await tx.rows(sql<StoredChange>`
    delete from term_changes where tenant_id = ${tenant} and scope = ${scope} returning texts, words, trigrams`);
  return taken.map(changeOf);
}

interface Changes {
  changes: number;
  bytes: number;
  /** Texts whose terms have settled. */
  settled: number;
}

/** How many changes a scope has, and how large they are together. */
export async function measureChanges(db: Db, scope: string): Promise<Changes> {
  const found = await db.one(sql<Changes>`
    select count(*)::int as changes, coalesce(sum(octet_length(words) + octet_length(trigrams)), 0)::int as bytes,
      coalesce((select texts from text_counts where tenant_id = ${db.tenant} and scope = ${scope}), 0) as settled
    from term_changes where tenant_id = ${db.tenant} and scope = ${scope}`);
  return found!;
}

interface ScopeOf {
  tenant_id: string;
  scope: string;
}

/** Scopes with that many changes; for the operator. */
export const listChanged = (operator: Db, least: number): Promise<ScopeOf[]> =>
  operator.rows(sql<ScopeOf>`
    select tenant_id, scope from term_changes where tenant_id is not null
    group by tenant_id, scope having count(*) >= ${least}`);

/** Adds to the counts of terms; those that no text has any more are removed. */
export function addTermCounts(
  tenant: string,
  scope: string,
  field: 'w' | 'g',
  { dimensions, texts }: Counts,
): Statement[] {
  if (dimensions.length === 0) return [];
  const fewer = dimensions.filter((_, i) => texts[i]! < 0);
  return [
    sql`
      insert into term_counts as known (tenant_id, scope, field, dimension, texts)
      select ${tenant}, ${scope}, ${field}, added.dimension, added.texts
      from unnest(${[...dimensions]}::int[], ${[...texts]}::int[]) as added (dimension, texts)
      on conflict (tenant_id, scope, field, dimension) do update set texts = known.texts + excluded.texts`,
    ...(fewer.length === 0
      ? []
      : [
          sql`
      delete from term_counts where tenant_id = ${tenant} and scope = ${scope} and field = ${field}
        and dimension = any(${[...fewer]}::int[]) and texts = 0`,
        ]),
  ];
}

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

export const deleteChanges = (tenant: string, scope: string): Statement =>
  sql`delete from term_changes where tenant_id = ${tenant} and scope = ${scope}`;

export interface TermCounts {
  texts: number;
  words: Map<number, number>;
  trigrams: Map<number, number>;
  /** What is counted in above, and in terms that are looked up later. */
  changes: Change[];
}

/** A count that was asked for (`w`, `g`), how many texts there are (`n`), or a change (`c`). */
type Found =
  | { field: 'w' | 'g'; dimension: number; texts: number | null }
  | { field: 'n'; texts: number | null }
  | ({ field: 'c' } & StoredChange);

/**
 * How many texts of a scope hold each of the dimensions, and how many there are.
 * @param changes of the scope, where they were read a moment ago
 */
export async function findTermCounts(
  db: Db,
  scope: string,
  words: number[],
  trigrams: number[],
  changes?: Change[],
): Promise<TermCounts> {
  // One look-up a dimension: `= any(...)` reads the whole scope where the table has no statistics yet.
  const rows = await db.rows(sql<Found>`
    select wanted.field, wanted.dimension, (
      select texts from term_counts
      where tenant_id = ${db.tenant} and scope = ${scope} and field = wanted.field and dimension = wanted.dimension
    )::bigint as texts, null::bytea as words, null::bytea as trigrams
    from (
      select 'w' as field, unnest(${words}::int[]) as dimension union all
      select 'g', unnest(${trigrams}::int[])
    ) as wanted
    union all
    select 'n', 0, (select texts from text_counts where tenant_id = ${db.tenant} and scope = ${scope}), null, null
    ${
      changes
        ? raw('')
        : sql`union all
    select 'c', 0, texts, words, trigrams from term_changes where tenant_id = ${db.tenant} and scope = ${scope}`
    }`);
  const known = changes ?? rows.flatMap((row) => (row.field === 'c' ? changeOf(row) : []));
  const found: TermCounts = { texts: 0, words: new Map(), trigrams: new Map(), changes: known };
  for (const { texts } of known) found.texts += texts;
  for (const row of rows) {
    if (row.field === 'n') found.texts += row.texts ?? 0;
    if (row.field === 'w' || row.field === 'g') {
      const space = row.field === 'w' ? 'words' : 'trigrams';
      let texts = row.texts ?? 0;
      for (const change of known) texts += countOf(change[space], row.dimension);
      found[space].set(row.dimension, texts);
    }
  }
  return found;
}
