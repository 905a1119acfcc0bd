import { type Statement, sql } from '#platform/db/sql.ts';
import type { MemoryRow } from './write-store.ts';

export interface AlikeMemory {
  id: string;
  identity_id: string;
  type: string;
  metadata: Record<string, unknown>;
  text: string;
}

/** Memories of the same owner and type that share most words with one. Sensitive ones have no words to share. */
export const selectAlike = (
  row: MemoryRow,
  limit: number,
  now: Date,
): Statement<AlikeMemory> => sql<AlikeMemory>`
  select m.id, m.identity_id, m.type, m.metadata, m.text from (
    select id, words <#> ${row.words}::sparsevec as distance from memories
    where tenant_id = ${row.tenant_id} and identity_id = ${row.identity_id} and type = ${row.type} and deleted_at is null
      and (expires_at is null or expires_at > ${now}) and sealed is null
    order by distance limit ${limit}
  ) alike join memories m on m.tenant_id = ${row.tenant_id} and m.id = alike.id
  where alike.distance < 0 order by alike.distance, m.id`;
