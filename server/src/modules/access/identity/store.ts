import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import { isUuid } from '#platform/ids.ts';
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
