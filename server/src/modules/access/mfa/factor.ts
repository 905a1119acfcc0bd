import type { Ctx } from '#platform/context.ts';
import { decrypt } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { invalid } from '#platform/errors.ts';
import { type Attempt, attemptOn } from '../attempts/service.ts';
import { backupCodeHash, stepOf } from './codes.ts';
import type { Factor } from './schema.ts';
import { findFactor, useBackupCode, useStep } from './store.ts';

/** What the secret of an identity is sealed with, so that it can not be moved to another one. */
export const boundTo = (tenant: string, id: string) => `mfa secret ${tenant} ${id}`;

/** Counts an attempt at the second factor of an identity, wherever it is asked for. */
export const mfaAttempt = (ctx: Ctx, tenant: string, id: string): Promise<Attempt> =>
  attemptOn(ctx, 'mfa', tenant, id);

/** True when sign-ins with a password have to be completed by a second factor. */
export const hasFactor = async (db: Db, tenant: string, id: string): Promise<boolean> =>
  (await db.one(findFactor(tenant, id))) !== undefined;

/** Where neither or both ways to prove the second factor are given there is nothing to check. */
export function oneOf({ code, backup_code }: Factor): void {
  if (code !== undefined && backup_code !== undefined)
    throw invalid([{ path: '/backup_code', message: 'takes the place of code; send one of them' }]);
  if (code === undefined && backup_code === undefined)
    throw invalid([{ path: '/code', message: 'is required, or backup_code' }]);
}

/**
 * Takes the second factor: of the code its time step, of a backup code the code itself. What was taken is not taken again, however
 * many ask at once.
 * @returns false when there is nothing to be taken
 */
export async function takeFactor(
  ctx: Ctx,
  tx: Db,
  tenant: string,
  id: string,
  given: Factor,
): Promise<boolean> {
  const { keys } = ctx.app;
  const factor = await tx.one(findFactor(tenant, id));
  if (!factor) return false;
  if (given.backup_code !== undefined) {
    const hash = backupCodeHash(keys, tenant, id, given.backup_code);
    return (await tx.one(useBackupCode(tenant, id, hash))) !== undefined;
  }
  const secret = decrypt(keys.encryption, factor.secret, boundTo(tenant, id));
  const step = stepOf(secret, given.code ?? '', Date.now());
  return step !== undefined && (await tx.one(useStep(tenant, id, factor.secret, step))) !== undefined;
}
