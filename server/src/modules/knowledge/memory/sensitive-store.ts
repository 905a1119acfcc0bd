import type { Db } from '#platform/db/database.ts';
import { raw, sql } from '#platform/db/sql.ts';
import { happened, narrowed, type SearchFilter } from './store.ts';

export interface SensitiveRow {
  id: string;
  version: number;
  text: string;
  /** Null of one that is to be encrypted yet. */
  sealed: Buffer | null;
  session_id: string | null;
  role: string | null;
  at: number;
}

/** The newest sensitive memories that a filter lets through. */
export const listSensitive = (
  db: Db,
  filter: SearchFilter,
  limit: number,
  now: Date,
): Promise<SensitiveRow[]> =>
  db.rows(sql<SensitiveRow>`
    select m.id, m.version, m.text, m.sealed, m.session_id, m.role, extract(epoch from ${happened})::float8 * 1000 as at
    from memories m
    where m.tenant_id = ${db.tenant} and m.deleted_at is null
      and (m.key_id is not null ${filter.unsettled === undefined ? raw('') : sql`or m.type = any(${filter.unsettled}::text[])`})
      and (m.expires_at is null or m.expires_at > ${now}) ${narrowed(filter)}
    order by m.id desc limit ${limit}`);

/** Whether an identity has sensitive memories of a type. */
export const hasSensitive = async (db: Db, owner: string, type: string): Promise<boolean> =>
  (await db.one(sql<{ id: string }>`
    select id from memories
    where tenant_id = ${db.tenant} and identity_id = ${owner} and type = ${type} and key_id is not null and deleted_at is null
    limit 1`)) !== undefined;
