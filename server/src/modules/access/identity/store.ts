import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import { isUuid } from '#platform/ids.ts';
import type { Identity } from './schema.ts';

const columns = sql`id, external_id, role, name, description, claims, owner_id, is_active, created_at, updated_at, tenant_id`;

/** Answers the row, or nothing when the external id is taken. */
export const insertIdentity = (identity: Identity): Statement<Identity> => sql<Identity>`
  insert into identities (tenant_id, id, external_id, role, name, description, claims, owner_id, is_active, created_at, updated_at)
  values (${identity.tenant_id}, ${identity.id}, ${identity.external_id}, ${identity.role}, ${identity.name},
    ${identity.description}, ${identity.claims}, ${identity.owner_id}, ${identity.is_active}, ${identity.created_at}, ${identity.updated_at})
  on conflict (tenant_id, external_id) do nothing returning ${columns}`;

export const findIdentity = (db: Db, id: string): Promise<Identity | undefined> =>
  db.one(sql<Identity>`select ${columns} from identities where tenant_id = ${db.tenant} and id = ${id}`);

/** Those of these ids that are there, kept from changing until the transaction ends. */
export const lockIdentities = (tx: Db, ids: string[]): Promise<Identity[]> =>
  tx.rows(sql<Identity>`
    select ${columns} from identities where tenant_id = ${tx.tenant} and id = any(${ids}::uuid[]) order by id for update`);

/** The active identities of a role, kept from changing until the transaction ends. */
export const lockActiveOfRole = (tx: Db, role: string): Promise<{ id: string }[]> =>
  tx.rows(sql<{ id: string }>`
    select id from identities where tenant_id = ${tx.tenant} and role = ${role} and is_active order by id for update`);

/**
 * The id of an identity, as a value of what stores a credential of its: null, which no credential takes, when it is not
 * active. Whoever deactivates it locks the row, and ends only the credentials that are there then: so this waits for that.
 */
export const activeHolder = (tenant: string, id: string): Statement => sql`(
  select id from identities where tenant_id = ${tenant} and id = ${id} and is_active for key share)`;

/**
 * True for an active identity, which stays so until the transaction ends. Whoever deactivates one locks it before what goes with
 * it; so does, by this, whoever takes such a thing to make another of it.
 */
export const holdActive = async (tx: Db, id: string): Promise<boolean> =>
  (await tx.one(sql`
    select 1 from identities where tenant_id = ${tx.tenant} and id = ${id} and is_active for key share`)) !==
  undefined;

export interface IdentityFilter {
  role: string | undefined;
  is_active: boolean;
}

/** Newest first. What is an identity's own: itself, and the agents that belong to it. */
export const listIdentities = (
  db: Db,
  filter: IdentityFilter,
  { owner, after, skip, limit }: PageFrom,
): Promise<Identity[]> =>
  db.rows(sql<Identity>`
    select ${columns} from identities
    where tenant_id = ${db.tenant} and is_active = ${filter.is_active}
      and (${filter.role}::text is null or role = ${filter.role})
      and (${owner}::uuid is null or id = ${owner}::uuid or owner_id = ${owner}::uuid)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export const findByExternalId = (db: Db, externalId: string): Promise<Identity | undefined> =>
  db.one(
    sql<Identity>`select ${columns} from identities where tenant_id = ${db.tenant} and external_id = ${externalId}`,
  );

/** Answers the row as it is now. @throws 23505 when the external id is taken */
export const updateIdentity = (row: Identity): Statement<Identity> => sql<Identity>`
  update identities set external_id = ${row.external_id}, role = ${row.role}, name = ${row.name},
    description = ${row.description}, claims = ${row.claims}, owner_id = ${row.owner_id}, is_active = ${row.is_active},
    updated_at = ${row.updated_at}
  where tenant_id = ${row.tenant_id} and id = ${row.id} returning ${columns}`;

export const deactivateIdentities = (tenant: string, ids: string[], now: Date): Statement => sql`
  update identities set is_active = false, updated_at = ${now} where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;

/** Removes identities; agents that belonged to them belong to nobody. Sessions, keys and grants go with them. */
export const deleteIdentities = (tenant: string, ids: string[], now: Date): Statement[] => [
  sql`
    update identities set owner_id = null, updated_at = ${now}
    where tenant_id = ${tenant} and owner_id = any(${ids}::uuid[])`,
  sql`delete from identities where tenant_id = ${tenant} and id = any(${ids}::uuid[])`,
];
/** Up to two identities whose e-mail, in its canonical form, was proved to be this one; who else has it matters to nobody. */
export const listByVerifiedEmail = (db: Db, email: string): Promise<Identity[]> =>
  db.rows(sql<Identity>`
    select ${columns} from identities
    where tenant_id = ${db.tenant} and lower(claims ->> 'email') = ${email} and claims -> 'email_verified' = 'true'
    order by created_at, id limit 2`);
/** The roles that identities have, active or not. */
export const listRoles = (db: Db): Promise<{ role: string }[]> =>
  db.rows(sql<{ role: string }>`select distinct role from identities where tenant_id = ${db.tenant}`);

/** Those that may sign in, admins first. */
export const listActiveIdentities = (db: Db, limit: number): Promise<Identity[]> =>
  db.rows(sql<Identity>`
    select ${columns} from identities where tenant_id = ${db.tenant} and is_active
    order by role <> 'admin', created_at, id limit ${limit}`);

/** Active ones by their id or external id. */
export const findActiveIdentities = (db: Db, names: string[]): Promise<Identity[]> =>
  db.rows(sql<Identity>`
    select ${columns} from identities
    where tenant_id = ${db.tenant} and is_active
      and (id = any(${names.filter(isUuid)}::uuid[]) or external_id = any(${names}::text[]))`);
