import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { Identity } from './schema.ts';

const columns = sql`id, external_id, role, name, description, claims, is_active, created_at, updated_at, tenant_id`;

/** Answers the row, or nothing when the external id is taken. */
export const insertIdentity = (identity: Identity): Statement<Identity> => sql<Identity>`
  insert into identities (tenant_id, id, external_id, role, name, description, claims, is_active, created_at, updated_at)
  values (${identity.tenant_id}, ${identity.id}, ${identity.external_id}, ${identity.role}, ${identity.name},
    ${identity.description}, ${identity.claims}, ${identity.is_active}, ${identity.created_at}, ${identity.updated_at})
  on conflict (tenant_id, external_id) do nothing returning ${columns}`;

export const findIdentity = (db: Db, id: string): Promise<Identity | undefined> =>
  db.one(sql<Identity>`select ${columns} from identities where tenant_id = ${db.tenant} and id = ${id}`);

export interface IdentityFilter {
  role: string | undefined;
  is_active: boolean;
}

/** Newest first; one row more than `limit` when there are more. */
export const listIdentities = (
  db: Db,
  filter: IdentityFilter,
  after: [string, string] | undefined,
  skip: number,
  limit: number,
): Promise<Identity[]> =>
  db.rows(sql<Identity>`
    select ${columns} from identities
    where tenant_id = ${db.tenant} and is_active = ${filter.is_active}
      and (${filter.role}::text is null or role = ${filter.role})
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export const findByExternalId = (db: Db, externalId: string): Promise<Identity | undefined> =>
  db.one(
    sql<Identity>`select ${columns} from identities where tenant_id = ${db.tenant} and external_id = ${externalId}`,
  );

/** Up to two identities whose e-mail, in its canonical form, was proved to be this one; who else has it matters to nobody. */
export const listByVerifiedEmail = (db: Db, email: string): Promise<Identity[]> =>
  db.rows(sql<Identity>`
    select ${columns} from identities
    where tenant_id = ${db.tenant} and lower(claims ->> 'email') = ${email} and claims -> 'email_verified' = 'true'
    order by created_at, id limit 2`);
