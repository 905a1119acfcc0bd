import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import { activeHolder } from '../identity/service.ts';

export interface NewState {
  /** Where its provider's states are kept. */
  tenant: string;
  stateHash: Buffer;
  browserHash: Buffer;
  providerId: string;
  sealed: Buffer;
  expiresAt: Date;
}

export const insertState = (state: NewState): Statement => sql`
  insert into sso_states (tenant_id, state_hash, browser_hash, provider_id, sealed, expires_at)
  values (${state.tenant}, ${state.stateHash}, ${state.browserHash}, ${state.providerId}, ${state.sealed}, ${state.expiresAt})`;

/** Takes a state, for one caller only: it is gone from here on. Another browser's stays where it is. */
export const claimState = (
  { tenant, stateHash, browserHash, providerId }: Omit<NewState, 'sealed' | 'expiresAt'>,
  now: Date,
): Statement<{ sealed: Buffer }> => sql<{ sealed: Buffer }>`
  delete from sso_states
  where tenant_id = ${tenant} and state_hash = ${stateHash} and browser_hash = ${browserHash}
    and provider_id = ${providerId} and expires_at > ${now}
  returning sealed`;

export interface CodeRow {
  identity_id: string;
  sealed: Buffer;
}

/** Use it with `whileActive`. */
export const insertCode = (
  tenant: string,
  codeHash: Buffer,
  challenge: string,
  { identity_id, sealed }: CodeRow,
  expiresAt: Date,
): Statement => sql`
  insert into sso_codes (tenant_id, code_hash, identity_id, code_challenge, sealed, expires_at)
  values (${tenant}, ${codeHash}, ${activeHolder(tenant, identity_id)}, ${challenge}, ${sealed}, ${expiresAt})`;

export const deleteCodesOf = (tenant: string, identityIds: string[]): Statement => sql`
  delete from sso_codes where tenant_id = ${tenant} and identity_id = any(${identityIds}::uuid[])`;

/** The code, unless its time is over or it was made for another verifier. */
export const findCode = (
  db: Db,
  codeHash: Buffer,
  challenge: string,
  now: Date,
): Promise<CodeRow | undefined> =>
  db.one(sql<CodeRow>`
    select identity_id, sealed from sso_codes
    where tenant_id = ${db.tenant} and code_hash = ${codeHash} and code_challenge = ${challenge} and expires_at > ${now}`);

/** Takes a code, for one caller only. */
export const claimCode = (tenant: string, codeHash: Buffer): Statement<{ taken: number }> =>
  sql<{
    taken: number;
  }>`delete from sso_codes where tenant_id = ${tenant} and code_hash = ${codeHash} returning 1 as taken`;

export const findLink = (
  db: Db,
  issuer: string,
  subject: string,
): Promise<{ identity_id: string } | undefined> =>
  db.one(sql<{ identity_id: string }>`
    select identity_id from sso_links
    where tenant_id = ${db.tenant} and issuer = ${issuer} and subject = ${subject}`);

/** Somebody the issuer knows as this identity, whoever it is. */
export const findLinkOf = (
  db: Db,
  issuer: string,
  identityId: string,
): Promise<{ subject: string } | undefined> =>
  db.one(sql<{ subject: string }>`
    select subject from sso_links
    where tenant_id = ${db.tenant} and identity_id = ${identityId} and issuer = ${issuer} limit 1`);

export interface NewLink {
  tenant: string;
  issuer: string;
  subject: string;
  identityId: string;
  providerId: string;
  now: Date;
}

/** Answers a row, or nothing when the subject has an identity already. */
export const insertLink = (link: NewLink): Statement<{ made: number }> => sql<{ made: number }>`
  insert into sso_links (tenant_id, issuer, subject, identity_id, provider_id, created_at)
  values (${link.tenant}, ${link.issuer}, ${link.subject}, ${link.identityId}, ${link.providerId}, ${link.now})
  on conflict (tenant_id, issuer, subject) do nothing returning 1 as made`;

/** Removes states and codes past their time; for the operator. */
export const pruneStates = (operator: Db, now: Date): Promise<number> =>
  operator.run(sql`delete from sso_states where tenant_id is not null and expires_at <= ${now}`);

export const pruneCodes = (operator: Db, now: Date): Promise<number> =>
  operator.run(sql`delete from sso_codes where tenant_id is not null and expires_at <= ${now}`);
