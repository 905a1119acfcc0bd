import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface ApiKeyRow {
  id: string;
  identity_id: string;
  name: string;
  secret_hash: Buffer;
  scopes: string[];
  is_active: boolean;
  expires_at: string | null;
}

export const findApiKey = (db: Db, id: string): Promise<ApiKeyRow | undefined> =>
  db.one(sql<ApiKeyRow>`
    select id, identity_id, name, secret_hash, scopes, is_active, expires_at
    from api_keys where tenant_id = ${db.tenant} and id = ${id}`);

export interface NewApiKey {
  tenant_id: string;
  id: string;
  identity_id: string;
  name: string;
  secret_hash: Buffer;
  scopes: string[];
  expires_at: Date | null;
  now: Date;
}

export const insertApiKey = (key: NewApiKey): Statement => sql`
  insert into api_keys (tenant_id, id, identity_id, name, secret_hash, scopes, expires_at, created_at, updated_at)
  values (${key.tenant_id}, ${key.id}, ${key.identity_id}, ${key.name}, ${key.secret_hash},
    ${JSON.stringify(key.scopes)}, ${key.expires_at}, ${key.now}, ${key.now})`;

/** Answers the id when the key was active until now. */
export const revokeApiKeyRow = (tenant: string, id: string, now: Date): Statement<{ id: string }> => sql<{
  id: string;
}>`
  update api_keys set is_active = false, revoked_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and is_active returning id`;

/** Which tenant has a key; for the operator, who is given an id alone. */
export const findKeyTenant = (operator: Db, id: string): Promise<{ tenant_id: string } | undefined> =>
  operator.one(
    sql<{ tenant_id: string }>`select tenant_id from api_keys where id = ${id} and tenant_id is not null`,
  );
