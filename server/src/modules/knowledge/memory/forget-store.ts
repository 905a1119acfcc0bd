import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

/** Some of what names an identity besides its memories, as long as there is any: each changes or removes rows, and says how many. */
export const tracesOf = (tenant: string, identityId: string, limit: number): Statement[] => [
  sql`
    delete from memory_sources where tenant_id = ${tenant} and identity_id = ${identityId} and source_id = any(array(
      select source_id from memory_sources where tenant_id = ${tenant} and identity_id = ${identityId} limit ${limit}))`,
  sql`
    delete from memory_imports where tenant_id = ${tenant} and id = any(array(
      select id from memory_imports where tenant_id = ${tenant} and identity_id = ${identityId} limit ${limit}))`,
  sql`
    delete from memory_inferences where tenant_id = ${tenant} and id = any(array(
      select id from memory_inferences where tenant_id = ${tenant} and actor ->> 'identity_id' = ${identityId} limit ${limit}))`,
  sql`
    delete from memory_tombstones where tenant_id = ${tenant} and identity_id = ${identityId} and hash = any(array(
      select hash from memory_tombstones where tenant_id = ${tenant} and identity_id = ${identityId} limit ${limit}))`,
  // Erasures that are not quite done need to know on whose behalf they work; they forget it themselves.
  sql`
    update memory_erasures set identity_id = null, actor = '{}' where tenant_id = ${tenant} and id = any(array(
      select id from memory_erasures
      where tenant_id = ${tenant} and identity_id = ${identityId} and swept_at is not null limit ${limit}))`,
];

export interface VersionKey {
  memory_id: string;
  version: number;
}

/** Forgets an identity in the versions that follow this one, so many; answers the last of them. */
export const forgetInVersions = async (
  db: Db,
  identityId: string,
  { memory_id, version }: VersionKey,
  limit: number,
): Promise<VersionKey | undefined> =>
  db.one(sql<VersionKey>`
    with step as (
      select memory_id, version, replaced_by, on_behalf_of from memory_versions
      where tenant_id = ${db.tenant} and (memory_id, version) > (${memory_id}::uuid, ${version}::int)
      order by memory_id, version limit ${limit}),
    forgotten as (
      update memory_versions v
      set replaced_by = nullif(v.replaced_by, ${identityId}), on_behalf_of = nullif(v.on_behalf_of, ${identityId})
      from step
      where v.tenant_id = ${db.tenant} and v.memory_id = step.memory_id and v.version = step.version
        and (step.replaced_by = ${identityId} or step.on_behalf_of = ${identityId}))
    select memory_id, version from step order by memory_id desc, version desc limit 1`);
