import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface SigningKey {
  kid: string;
  public_jwk: unknown;
  private_jwk: Buffer;
}

/** Newest first, without retired ones. */
export const listSigningKeys = (operator: Db): Promise<SigningKey[]> =>
  operator.rows(sql<SigningKey>`
    select kid, public_jwk, private_jwk from signing_keys where retired_at is null order by created_at desc, kid`);

export const insertSigningKey = (
  kid: string,
  publicJwk: Record<string, unknown>,
  privateJwk: Buffer,
  now: Date,
): Statement => sql`
  insert into signing_keys (kid, algorithm, public_jwk, private_jwk, created_at)
  values (${kid}, 'EdDSA', ${publicJwk}, ${privateJwk}, ${now})`;

export interface NewSession {
  tenant_id: string;
  id: string;
  identity_id: string;
  refresh_hash: Buffer;
  ip_address: string | null;
  user_agent: string | null;
  expires_at: Date;
  now: Date;
}

export const insertSession = (session: NewSession): Statement => sql`
  insert into sessions (tenant_id, id, identity_id, refresh_hash, ip_address, user_agent, expires_at, created_at, updated_at)
  values (${session.tenant_id}, ${session.id}, ${session.identity_id}, ${session.refresh_hash}, ${session.ip_address},
    ${session.user_agent}, ${session.expires_at}, ${session.now}, ${session.now})`;

export interface SessionState {
  identity_id: string;
  is_active: boolean;
  expires_at: string;
}

export const findSession = (db: Db, id: string): Promise<SessionState | undefined> =>
  db.one(sql<SessionState>`
    select identity_id, is_active, expires_at from sessions where tenant_id = ${db.tenant} and id = ${id}`);

/** Ends the sessions of an identity, except one where it is given; answers those that ended by this. */
export const revokeSessionRows = (
  tenant: string,
  identityId: string,
  keep: string | undefined,
  now: Date,
): Statement<{ id: string }> => sql<{ id: string }>`
  update sessions set is_active = false, updated_at = ${now}
  where tenant_id = ${tenant} and identity_id = ${identityId} and is_active and (${keep}::uuid is null or id <> ${keep}::uuid)
  returning id`;

/** Answers a row when the session was active until now. */
export const endSessionRow = (
  tenant: string,
  id: string,
  now: Date,
): Statement<{ identity_id: string }> => sql<{ identity_id: string }>`
  update sessions set is_active = false, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and is_active returning identity_id`;
