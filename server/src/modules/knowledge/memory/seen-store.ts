import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql, unprepared } from '#platform/db/sql.ts';
import { type SearchFilter, type StoredMemory, visible } from './store.ts';

/** What policies see of a memory. */
export type SeenMemory = Pick<StoredMemory, 'id' | 'identity_id' | 'type' | 'metadata'>;

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

// As a set, not as a list: a list may be compared one by one, for each memory.
export const ofIds = (ids: string[]): Statement => sql`m.id in (select unnest(${ids}::uuid[]))`;

/** What one condition says, and where it says nothing, another. */
export const orElse = (condition: Statement, other: Statement): Statement =>
  unprepared(sql`coalesce(${condition}, ${other})`);
