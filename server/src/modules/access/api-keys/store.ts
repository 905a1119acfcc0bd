import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import { activeHolder } from '../identity/service.ts';
import type { Use } from '../last-use/service.ts';

/** A secret that was replaced and works until a time. */
export interface OldSecret {
  /** Hexadecimal. */
  hash: string;
  until: string;
}

export interface ApiKeyRow {
  id: string;
  identity_id: string;
  name: string;
  scopes: string[];
  is_active: boolean;
  expires_at: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
  created_at: string;
  updated_at: string;
  tenant_id: string;
  self_serve: boolean;
}

const columns = sql`id, identity_id, name, scopes, is_active, expires_at, last_used_at, revoked_at, created_at, updated_at,
  tenant_id, self_serve`;

/** What authenticating by a key needs to know. */
export interface KeyState {
  id: string;
  identity_id: string;
  secret_hash: Buffer;
  old_secrets: OldSecret[];
  scopes: string[];
  is_active: boolean;
  expires_at: string | null;
  last_used_at: string | null;
  updated_at: string;
}

export const findKeyState = (db: Db, id: string): Promise<KeyState | undefined> =>
  db.one(sql<KeyState>`
    select id, identity_id, secret_hash, old_secrets, scopes, is_active, expires_at, last_used_at, updated_at
    from api_keys where tenant_id = ${db.tenant} and id = ${id}`);

export const findApiKey = (db: Db, id: string): Promise<ApiKeyRow | undefined> =>
  db.one(sql<ApiKeyRow>`select ${columns} from api_keys where tenant_id = ${db.tenant} and id = ${id}`);

/** Kept from changing until the transaction ends. */
export const lockApiKey = (
  tx: Db,
  id: string,
): Promise<(ApiKeyRow & Pick<KeyState, 'secret_hash' | 'old_secrets'>) | undefined> =>
  tx.one(sql<ApiKeyRow & Pick<KeyState, 'secret_hash' | 'old_secrets'>>`
    select ${columns}, secret_hash, old_secrets from api_keys where tenant_id = ${tx.tenant} and id = ${id} for update`);

export interface KeyFilter {
  is_active?: boolean | undefined;
  /** Not used, and not made, since then. */
  unused_since?: Date | undefined;
}

/** Newest first; one row more than `limit` when there are more. */
export const listApiKeys = (
  db: Db,
  { is_active, unused_since }: KeyFilter,
  { owner, after, skip, limit }: PageFrom,
  now: Date,
): Promise<ApiKeyRow[]> =>
  // Put together from what is asked: the plan of a statement is made once.
  db.rows(sql<ApiKeyRow>`
    select ${columns} from api_keys
    where tenant_id = ${db.tenant}
      ${owner === undefined ? raw('') : sql`and identity_id = ${owner}::uuid`}
      ${is_active === undefined ? raw('') : sql`and (is_active and (expires_at is null or expires_at > ${now})) = ${is_active}`}
      ${unused_since === undefined ? raw('') : sql`and coalesce(last_used_at, created_at) < ${unused_since}`}
      ${after === undefined ? raw('') : sql`and id < ${after[0]}::uuid`}
    order by id desc limit ${limit + 1} offset ${skip}`);

export interface NewApiKey {
  tenant_id: string;
  id: string;
  identity_id: string;
  name: string;
  secret_hash: Buffer;
  scopes: string[];
  expires_at: Date | null;
  self_serve: boolean;
  now: Date;
}

/** Use it with `whileActive`. */
export const insertApiKey = (key: NewApiKey): Statement<ApiKeyRow> => sql<ApiKeyRow>`
  insert into api_keys (tenant_id, id, identity_id, name, secret_hash, scopes, expires_at, self_serve, created_at, updated_at)
  values (${key.tenant_id}, ${key.id}, ${activeHolder(key.tenant_id, key.identity_id)}, ${key.name}, ${key.secret_hash},
    ${JSON.stringify(key.scopes)}, ${key.expires_at}, ${key.self_serve}, ${key.now}, ${key.now}) returning ${columns}`;

/** A key whose time changed may pass it again, and is then told again. */
export const updateApiKey = (key: ApiKeyRow): Statement => sql`
  update api_keys set name = ${key.name}, scopes = ${JSON.stringify(key.scopes)}, is_active = ${key.is_active},
    expired_at = case when expires_at is not distinct from ${key.expires_at}::timestamptz then expired_at end,
    expires_at = ${key.expires_at}, updated_at = ${key.updated_at}
  where tenant_id = ${key.tenant_id} and id = ${key.id}`;

export const replaceSecret = (
  tenant: string,
  id: string,
  hash: Buffer,
  old: OldSecret[],
  now: Date,
): Statement<ApiKeyRow> => sql<ApiKeyRow>`
  update api_keys set secret_hash = ${hash}, old_secrets = ${JSON.stringify(old)}, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} returning ${columns}`;

/** Answers the row when the key was not revoked until now. */
export const revokeApiKeyRow = (
  tenant: string,
  id: string,
  now: Date,
): Statement<ApiKeyRow> => sql<ApiKeyRow>`
  update api_keys set is_active = false, old_secrets = '[]', revoked_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and revoked_at is null returning ${columns}`;

/** Revokes the keys of identities; answers those that were not revoked until now. */
export const revokeApiKeyRows = (
  tenant: string,
  identityIds: string[],
  now: Date,
): Statement<{ id: string; identity_id: string }> => sql<{ id: string; identity_id: string }>`
  update api_keys set is_active = false, old_secrets = '[]', revoked_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and identity_id = any(${identityIds}::uuid[]) and revoked_at is null returning id, identity_id`;

/** How many keys of the tenant's services work. */
export const countServiceKeys = (tx: Db, now: Date): Promise<{ keys: number } | undefined> =>
  tx.one(sql<{ keys: number }>`
    select count(*) as keys from api_keys
    where tenant_id = ${tx.tenant} and self_serve and is_active and (expires_at is null or expires_at > ${now})`);

/** Which tenant has a key; for the operator, who is given an id alone. */
export const findKeyTenant = (operator: Db, id: string): Promise<{ tenant_id: string } | undefined> =>
  operator.one(
    sql<{ tenant_id: string }>`select tenant_id from api_keys where id = ${id} and tenant_id is not null`,
  );

/** Rows that are being changed at this moment are passed over: this must never wait for one while it holds another. */
export const writeKeyUses = (tenant: string, uses: Use[]): Statement => sql`
  update api_keys set last_used_at = r.at
  from unnest(${uses.map(({ id }) => id)}::uuid[], ${uses.map(({ at }) => at)}::timestamptz[]) as r (id, at)
  where api_keys.tenant_id = ${tenant} and api_keys.id = r.id
    and (api_keys.last_used_at is null or api_keys.last_used_at < r.at)
    and api_keys.id in (
      select id from api_keys where tenant_id = ${tenant} and id = any(${uses.map(({ id }) => id)}::uuid[]) for update skip locked)`;

/** Tenants with keys whose time is over and not yet told; for the operator. */
export const listTenantsWithExpired = (operator: Db, now: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from api_keys
    where expires_at <= ${now} and expired_at is null and revoked_at is null and tenant_id is not null limit 1000`);

/** Marks keys whose time is over as told; answers which were not. */
export const markExpired = (
  tx: Db,
  now: Date,
  limit: number,
): Promise<{ id: string; identity_id: string; name: string; expires_at: string }[]> =>
  tx.rows(sql<{ id: string; identity_id: string; name: string; expires_at: string }>`
    update api_keys set expired_at = ${now} where tenant_id = ${tx.tenant} and id = any(array(
      select id from api_keys where tenant_id = ${tx.tenant} and expires_at <= ${now} and expired_at is null and revoked_at is null
      order by id limit ${limit} for update skip locked)) returning id, identity_id, name, expires_at`);

/** A key with the role of its identity. */
export type KeyWithRole = ApiKeyRow & { role: string };

const columnsWithRole = sql`k.id, k.identity_id, k.name, k.scopes, k.is_active, k.expires_at, k.last_used_at, k.revoked_at,
  k.created_at, k.updated_at, k.tenant_id, k.self_serve, i.role`;

export const findKeyWithRole = (db: Db, id: string): Promise<KeyWithRole | undefined> =>
  db.one(sql<KeyWithRole>`
    select ${columnsWithRole} from api_keys k join identities i on i.tenant_id = k.tenant_id and i.id = k.identity_id
    where k.tenant_id = ${db.tenant} and k.id = ${id}`);

/** Keys of the tenant, newest first; one row more than `limit` when there are more. */
export const listKeysWithRole = (
  db: Db,
  { unused_since }: Pick<KeyFilter, 'unused_since'>,
  { after, skip, limit }: PageFrom,
): Promise<KeyWithRole[]> =>
  db.rows(sql<KeyWithRole>`
    select ${columnsWithRole} from api_keys k join identities i on i.tenant_id = k.tenant_id and i.id = k.identity_id
    where k.tenant_id = ${db.tenant}
      ${unused_since === undefined ? raw('') : sql`and k.is_active and coalesce(k.last_used_at, k.created_at) < ${unused_since}`}
      ${after === undefined ? raw('') : sql`and k.id < ${after[0]}::uuid`}
    order by k.id desc limit ${limit + 1} offset ${skip}`);
