import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import { activeHolder } from '../identity/service.ts';
import type { NameKind } from './names.ts';

export interface Account {
  tenant_id: string;
  identity_id: string;
  username: string;
  email: string | null;
  password_hash: string | null;
}

export interface NewAccount {
  tenant_id: string;
  identity_id: string;
  username: string;
  username_key: string;
  email: string | null;
  password_hash: string;
  now: Date;
}

/** Answers no row when the name is taken. */
export const insertAccount = (account: NewAccount): Statement => sql`
  insert into accounts (tenant_id, identity_id, username, username_key, email, password_hash, password_changed_at,
    created_at, updated_at)
  values (${account.tenant_id}, ${account.identity_id}, ${account.username}, ${account.username_key}, ${account.email},
    ${account.password_hash}, ${account.now}, ${account.now}, ${account.now})
  on conflict (tenant_id, username_key) do nothing returning 1`;

export const insertLoginName = (
  tenant: string,
  identityId: string,
  hash: Buffer,
  now: Date,
): Statement => sql`
  insert into login_names (tenant_id, name_hash, identity_id, created_at)
  values (${tenant}, ${hash}, ${identityId}, ${now})`;

/** Accounts of a name, the oldest first, of one tenant where it is given; for the operator. */
export const findAccountsByName = (
  operator: Db,
  hash: Buffer,
  tenant: string | null,
  limit: number,
): Promise<Account[]> =>
  operator.rows(sql<Account>`
    select a.tenant_id, a.identity_id, a.username, a.email, a.password_hash
    from login_names n join accounts a on a.tenant_id = n.tenant_id and a.identity_id = n.identity_id
    where n.name_hash = ${hash} and (${tenant}::text is null or n.tenant_id = ${tenant})
    order by n.created_at, n.tenant_id, n.identity_id limit ${limit}`);

export const findAccount = (db: Db, identityId: string): Promise<Account | undefined> =>
  db.one(sql<Account>`
    select tenant_id, identity_id, username, email, password_hash
    from accounts where tenant_id = ${db.tenant} and identity_id = ${identityId}`);

/**
 * Answers a row while the password is still the one that was verified, and keeps it so until the transaction ends: a change that
 * ends all sessions comes either before this or after the session that follows.
 */
export const holdPassword = (tenant: string, identityId: string, seen: string): Statement => sql`
  select 1 from accounts where tenant_id = ${tenant} and identity_id = ${identityId} and password_hash = ${seen}
  for no key update`;

/** Answers a row while the password is still the one that was verified: the same password, hashed anew. */
export const rehashPassword = (
  tenant: string,
  identityId: string,
  seen: string,
  hash: string,
  now: Date,
): Statement => sql`
  update accounts set password_hash = ${hash}, updated_at = ${now}
  where tenant_id = ${tenant} and identity_id = ${identityId} and password_hash = ${seen} returning 1`;

/** Sets another password where it is still the one that was seen; null sees any. */
export const changePassword = (
  tenant: string,
  identityId: string,
  seen: string | null,
  hash: string,
  now: Date,
): Statement => sql`
  update accounts set password_hash = ${hash}, password_changed_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and identity_id = ${identityId} and (${seen}::text is null or password_hash = ${seen})
  returning 1`;

export interface NewResetRequest {
  id: string;
  kind: NameKind;
  name_hash: Buffer;
  wanted_tenant: string | null;
  ip: string | null;
  user_agent: string | null;
  request_id: string;
}

export interface ResetRequestRow extends NewResetRequest {
  created_at: string;
}

export const insertResetRequest = (request: NewResetRequest, now: Date): Statement => sql`
  insert into password_reset_requests (id, kind, name_hash, wanted_tenant, ip, user_agent, request_id, created_at)
  values (${request.id}, ${request.kind}, ${request.name_hash}, ${request.wanted_tenant}, ${request.ip},
    ${request.user_agent}, ${request.request_id}, ${now})`;

export const listResetRequests = (operator: Db): Promise<ResetRequestRow[]> =>
  operator.rows(sql<ResetRequestRow>`
    select id, kind, name_hash, wanted_tenant, ip, user_agent, request_id, created_at
    from password_reset_requests order by created_at, id limit 100`);

export const deleteResetRequest = (id: string): Statement =>
  sql`delete from password_reset_requests where id = ${id}`;

/** Those that could not be worked on for an hour. */
export const pruneResetRequests = (operator: Db, before: Date): Promise<number> =>
  operator.run(sql`delete from password_reset_requests where created_at <= ${before}`);

export interface NewReset {
  tenant_id: string;
  identity_id: string;
  token_hash: Buffer;
  created_at: Date;
  expires_at: Date;
}

/** Takes the place of a reset that was made before `before`; answers no row when there is a younger one. Use it with `whileActive`. */
export const upsertReset = (reset: NewReset, before: Date): Statement => sql`
  insert into password_resets as r (tenant_id, identity_id, token_hash, created_at, expires_at)
  values (${reset.tenant_id}, ${activeHolder(reset.tenant_id, reset.identity_id)}, ${reset.token_hash}, ${reset.created_at}, ${reset.expires_at})
  on conflict (tenant_id, identity_id) do update set token_hash = excluded.token_hash,
    created_at = excluded.created_at, expires_at = excluded.expires_at
  where r.created_at < ${before} returning 1`;

export const findReset = (
  db: Db,
  identityId: string,
  tokenHash: Buffer,
  now: Date,
): Promise<{ identity_id: string } | undefined> =>
  db.one(sql<{ identity_id: string }>`
    select identity_id from password_resets
    where tenant_id = ${db.tenant} and identity_id = ${identityId} and token_hash = ${tokenHash} and expires_at > ${now}`);

/** Answers a row when the token was still good; it is gone now. */
export const takeReset = (tenant: string, identityId: string, tokenHash: Buffer, now: Date): Statement => sql`
  delete from password_resets
  where tenant_id = ${tenant} and identity_id = ${identityId} and token_hash = ${tokenHash} and expires_at > ${now}
  returning 1`;

export const deleteReset = (tenant: string, identityId: string): Statement =>
  sql`delete from password_resets where tenant_id = ${tenant} and identity_id = ${identityId}`;

export const pruneResets = (operator: Db, now: Date): Promise<number> =>
  operator.run(sql`delete from password_resets where tenant_id is not null and expires_at <= ${now}`);
