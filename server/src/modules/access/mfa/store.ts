import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import { activeHolder } from '../identity/service.ts';

export interface FactorRow {
  secret: Buffer;
  setup_at: string;
  enabled_at: string;
  codes_regenerated_at: string | null;
}

export const findFactor = (tenant: string, identityId: string): Statement<FactorRow> => sql<FactorRow>`
  select secret, setup_at, enabled_at, codes_regenerated_at
  from mfa_factors where tenant_id = ${tenant} and identity_id = ${identityId}`;

export interface NewFactor {
  tenant_id: string;
  identity_id: string;
  secret: Buffer;
  last_step: number;
  setup_at: string;
  now: Date;
}

export const insertFactor = (factor: NewFactor): Statement => sql`
  insert into mfa_factors (tenant_id, identity_id, secret, last_step, setup_at, enabled_at)
  values (${factor.tenant_id}, ${factor.identity_id}, ${factor.secret}, ${factor.last_step}, ${factor.setup_at}, ${factor.now})`;

/** Answers a row when the code's step is newer than every one that was used, which it now is. */
export const useStep = (tenant: string, identityId: string, secret: Buffer, step: number): Statement => sql`
  update mfa_factors set last_step = ${step}
  where tenant_id = ${tenant} and identity_id = ${identityId} and secret = ${secret} and last_step < ${step} returning 1`;

/** Removes the factor with its backup codes and what waits for it. */
export const deleteFactor = (tenant: string, identityId: string): Statement => sql`
  delete from mfa_factors where tenant_id = ${tenant} and identity_id = ${identityId} returning 1`;

export const markRegenerated = (tenant: string, identityId: string, now: Date): Statement => sql`
  update mfa_factors set codes_regenerated_at = ${now} where tenant_id = ${tenant} and identity_id = ${identityId}`;

export const insertBackupCodes = (tenant: string, identityId: string, hashes: Buffer[]): Statement => sql`
  insert into mfa_backup_codes (tenant_id, identity_id, code_hash)
  select ${tenant}, ${identityId}::uuid, r.code_hash from unnest(${hashes}::bytea[]) as r (code_hash) returning 1`;

export const deleteBackupCodes = (tenant: string, identityId: string): Statement => sql`
  delete from mfa_backup_codes where tenant_id = ${tenant} and identity_id = ${identityId}`;

/** Answers a row when there was such a code, which is gone now. */
export const useBackupCode = (tenant: string, identityId: string, hash: Buffer): Statement => sql`
  delete from mfa_backup_codes where tenant_id = ${tenant} and identity_id = ${identityId} and code_hash = ${hash}
  returning 1`;

export const countBackupCodes = (tenant: string, identityId: string): Statement<{ left: number }> =>
  sql<{
    left: number;
  }>`select count(*)::int as left from mfa_backup_codes where tenant_id = ${tenant} and identity_id = ${identityId}`;

export interface SetupRow {
  id: string;
  sealed: Buffer;
  created_at: string;
}

export const findSetup = (tenant: string, identityId: string): Statement<SetupRow> => sql<SetupRow>`
  select id, sealed, created_at from mfa_setups where tenant_id = ${tenant} and identity_id = ${identityId}`;

/** Use it with `whileActive`. */
export const upsertSetup = (
  tenant: string,
  identityId: string,
  id: string,
  sealed: Buffer,
  now: Date,
): Statement => sql`
  insert into mfa_setups (tenant_id, identity_id, id, sealed, created_at)
  values (${tenant}, ${activeHolder(tenant, identityId)}, ${id}, ${sealed}, ${now})
  on conflict (tenant_id, identity_id) do update
    set id = excluded.id, sealed = excluded.sealed, created_at = excluded.created_at`;

/** Answers a row when this very setup was still waiting. */
export const takeSetup = (tenant: string, identityId: string, id: string): Statement => sql`
  delete from mfa_setups where tenant_id = ${tenant} and identity_id = ${identityId} and id = ${id} returning 1`;

export const deleteSetup = (tenant: string, identityId: string): Statement => sql`
  delete from mfa_setups where tenant_id = ${tenant} and identity_id = ${identityId}`;

export interface NewChallenge {
  tenant_id: string;
  id: string;
  identity_id: string;
  token_hash: Buffer;
  first_factor: string;
  created_at: Date;
  expires_at: Date;
}

/** Use it with `whileActive`. */
export const insertChallenge = (one: NewChallenge): Statement => sql`
  insert into mfa_challenges (tenant_id, id, identity_id, token_hash, first_factor, created_at, expires_at)
  values (${one.tenant_id}, ${one.id}, ${activeHolder(one.tenant_id, one.identity_id)}, ${one.token_hash}, ${one.first_factor}, ${one.created_at}, ${one.expires_at})`;

export const findChallenge = (
  db: Db,
  id: string,
  tokenHash: Buffer,
  now: Date,
): Promise<{ identity_id: string; first_factor: string } | undefined> =>
  db.one(sql<{ identity_id: string; first_factor: string }>`
    select identity_id, first_factor from mfa_challenges
    where tenant_id = ${db.tenant} and id = ${id} and token_hash = ${tokenHash} and expires_at > ${now}`);

/** Counts one more attempt; answers no row when there were as many as are allowed. */
export const countAttempt = (db: Db, id: string, most: number): Promise<{ attempts: number } | undefined> =>
  db.one(sql<{ attempts: number }>`
    update mfa_challenges set attempts = attempts + 1
    where tenant_id = ${db.tenant} and id = ${id} and attempts < ${most} returning attempts`);

/** Answers a row when the challenge was still open. */
export const takeChallenge = (tenant: string, id: string): Statement => sql`
  delete from mfa_challenges where tenant_id = ${tenant} and id = ${id} returning 1`;

export const deleteChallenges = (tenant: string, identityId: string): Statement => sql`
  delete from mfa_challenges where tenant_id = ${tenant} and identity_id = ${identityId}`;

export const pruneChallenges = (operator: Db, now: Date): Promise<number> =>
  operator.run(sql`delete from mfa_challenges where tenant_id is not null and expires_at <= ${now}`);

export const pruneSetups = (operator: Db, before: Date): Promise<number> =>
  operator.run(sql`delete from mfa_setups where tenant_id is not null and created_at <= ${before}`);
