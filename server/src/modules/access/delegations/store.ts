import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Grant } from './schema.ts';

/** A grant with what it hangs on. */
export interface GrantRow extends Grant {
  session_id: string | null;
  api_key_id: string | null;
}

const columns = sql`id, subject_id, agent_id, parent_id, scopes, reason, expires_at, revoked_at, created_at, tenant_id`;

/** As `activeHolder` of both; use it with `whileActive`. */
export const insertGrant = (grant: GrantRow): Statement => sql`
  with held as (
    select id from identities
    where tenant_id = ${grant.tenant_id} and id = any(${[grant.subject_id, grant.agent_id]}::uuid[]) and is_active
    order by id for key share)
  insert into delegations (tenant_id, id, subject_id, agent_id, parent_id, session_id, api_key_id, scopes, reason, expires_at, created_at)
  values (${grant.tenant_id}, ${grant.id}, (select id from held where id = ${grant.subject_id}),
    (select id from held where id = ${grant.agent_id}), ${grant.parent_id}, ${grant.session_id},
    ${grant.api_key_id}, ${JSON.stringify(grant.scopes)}, ${grant.reason}, ${grant.expires_at}, ${grant.created_at})`;

export const findGrant = (db: Db, id: string): Promise<GrantRow | undefined> =>
  db.one(sql<GrantRow>`
    select ${columns}, session_id, api_key_id from delegations where tenant_id = ${db.tenant} and id = ${id}`);

export interface GrantFilter {
  agent_id: string | undefined;
  subject_id: string | undefined;
  is_active: boolean;
}

/** Newest first. */
export const listGrants = (
  db: Db,
  filter: GrantFilter,
  { owner, after, skip, limit }: PageFrom,
  now: Date,
): Promise<Grant[]> =>
  db.rows(sql<Grant>`
    select ${columns} from delegations
    where tenant_id = ${db.tenant} and (revoked_at is null and expires_at > ${now}) = ${filter.is_active}
      and (${owner}::uuid is null or subject_id = ${owner}::uuid)
      and (${filter.agent_id}::uuid is null or agent_id = ${filter.agent_id}::uuid)
      and (${filter.subject_id}::uuid is null or subject_id = ${filter.subject_id}::uuid)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export type RevokedGrant = Pick<Grant, 'id' | 'agent_id' | 'subject_id'>;

/** Answers the grant when it was in force until now. */
export const revokeGrant = (
  tenant: string,
  id: string,
  now: Date,
): Statement<RevokedGrant> => sql<RevokedGrant>`
  update delegations set revoked_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and revoked_at is null and expires_at > ${now}
  returning id, agent_id, subject_id`;

/** Those in force that agents were given or people gave; `owner`: given by this person only. */
export const lockGrantsOf = (
  tx: Db,
  identityIds: string[],
  owner: string | undefined,
  now: Date,
): Promise<RevokedGrant[]> =>
  tx.rows(sql<RevokedGrant>`
    select id, agent_id, subject_id from delegations
    where tenant_id = ${tx.tenant} and (agent_id = any(${identityIds}::uuid[]) or subject_id = any(${identityIds}::uuid[]))
      and (${owner}::uuid is null or subject_id = ${owner}::uuid) and revoked_at is null and expires_at > ${now}
    order by id for update`);

export const revokeGrants = (tenant: string, ids: string[], now: Date): Statement =>
  sql`update delegations set revoked_at = ${now} where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;

/** Forgets grants that ended long ago; for the operator. */
export const pruneGrants = (operator: Db, before: Date): Promise<number> =>
  operator.run(sql`delete from delegations where tenant_id is not null and expires_at < ${before}`);
