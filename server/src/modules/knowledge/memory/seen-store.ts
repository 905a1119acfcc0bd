import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql, unprepared } from '#platform/db/sql.ts';
import { type SearchFilter, type StoredMemory, visible } from './store.ts';

/** What policies see of a memory. */
export type SeenMemory = Pick<StoredMemory, 'id' | 'identity_id' | 'type' | 'metadata'>;

/** What of memories makes them of one kind. */
export interface KindOf {
  /** Whose own memories are told apart from those of everybody else. */
  parties: string[];
  owner: boolean;
  /** Names in the metadata. */
  metadata: ReadonlySet<string> | 'all';
}

const kindOf = ({ parties, owner, metadata }: KindOf): Statement => sql`array[m.type,
  case when ${owner}::boolean or m.identity_id = any(${parties}::uuid[]) then m.identity_id::text end
  ${
    metadata === 'all'
      ? sql`, m.metadata::text`
      : metadata.size === 0
        ? raw('')
        : sql`, (select jsonb_object_agg(name, m.metadata -> name) from unnest(${[...metadata]}::text[]) as name where m.metadata ? name)::text`
  }]::text`;

/** The kinds there are among what a filter lets through, each with one memory of it. */
export const listKinds = (
  db: Db,
  by: KindOf,
  filter: SearchFilter,
  now: Date,
): Promise<{ hash: string; id: string }[]> =>
  db.rows(sql<{ hash: string; id: string }>`
    select hashtextextended(kind, 0)::text as hash, min(id) as id from (
      select ${kindOf(by)} as kind, m.id::text as id from memories m
      where m.tenant_id = ${db.tenant} ${visible(filter, now)}
    ) memories group by kind`);

/** What policies see of these memories. */
export const listTargets = (db: Db, ids: string[]): Promise<SeenMemory[]> =>
  db.rows(sql<SeenMemory>`
    select id, identity_id, type, metadata from memories where tenant_id = ${db.tenant} and id = any(${ids}::uuid[])`);

/** What policies see of the memories that a filter lets through, in the order of their ids. */
export const listSeen = (
  db: Db,
  filter: SearchFilter,
  after: string | undefined,
  limit: number,
  now: Date,
): Promise<SeenMemory[]> =>
  db.rows(sql<SeenMemory>`
    select m.id, m.identity_id, m.type, m.metadata from memories m
    where m.tenant_id = ${db.tenant} ${after === undefined ? raw('') : sql`and m.id > ${after}::uuid`} ${visible(filter, now)}
    order by m.id limit ${limit}`);

/** Memories of some kinds. */
export const ofKinds = (by: KindOf, hashes: string[]): Statement =>
  sql`hashtextextended(${kindOf(by)}, 0) = any(${hashes}::bigint[])`;

// As a set, not as a list: a list may be compared one by one, for each memory.
export const ofIds = (ids: string[]): Statement => sql`m.id in (select unnest(${ids}::uuid[]))`;

/** What one condition says, and where it says nothing, another. */
export const orElse = (condition: Statement, other: Statement): Statement =>
  unprepared(sql`coalesce(${condition}, ${other})`);
