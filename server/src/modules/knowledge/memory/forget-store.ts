import { type Statement, sql } from '#platform/db/sql.ts';

/** What names an identity besides its memories. Erasures that are not quite done need to know on whose behalf they work. */
export const deleteTracesOf = (tenant: string, identityId: string): Statement[] => [
  sql`delete from memory_sources where tenant_id = ${tenant} and identity_id = ${identityId}`,
  sql`delete from memory_imports where tenant_id = ${tenant} and identity_id = ${identityId}`,
  sql`delete from memory_inferences where tenant_id = ${tenant} and actor ->> 'identity_id' = ${identityId}`,
  sql`delete from memory_tombstones where tenant_id = ${tenant} and identity_id = ${identityId}`,
  sql`
    update memory_erasures set identity_id = null, actor = '{}'
    where tenant_id = ${tenant} and identity_id = ${identityId} and swept_at is not null`,
  sql`
    update memory_versions
    set replaced_by = nullif(replaced_by, ${identityId}), on_behalf_of = nullif(on_behalf_of, ${identityId})
    where tenant_id = ${tenant} and (replaced_by = ${identityId} or on_behalf_of = ${identityId})`,
];
