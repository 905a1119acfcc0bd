import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import { type MemoryFilter, type StoredMemory, shown } from './store.ts';

/** Memories up to an id, in the order of their ids. */
export const listForExport = (
  db: Db,
  filter: MemoryFilter & { owner: string | undefined; visible: Statement | undefined },
  after: string | undefined,
  last: string,
  limit: number,
  now: Date,
): Promise<StoredMemory[]> =>
  db.rows(sql<StoredMemory>`
    select ${shown} from memories m
    where m.tenant_id = ${db.tenant} and m.deleted_at is null and (m.expires_at is null or m.expires_at > ${now})
      and m.id <= ${last}::uuid
      ${filter.owner === undefined ? raw('') : sql`and m.identity_id = ${filter.owner}::uuid`}
      ${filter.visible === undefined ? raw('') : sql`and ${filter.visible}`}
      ${filter.session_id === undefined ? raw('') : sql`and m.session_id = ${filter.session_id}`}
      ${after === undefined ? raw('') : sql`and m.id > ${after}::uuid`}
      and (${filter.types}::text[] is null or m.type = any(${filter.types}::text[]))
    order by m.id limit ${limit}`);
