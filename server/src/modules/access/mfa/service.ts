import type { FastifyRequest } from 'fastify';
import type { Ctx } from '#platform/context.ts';
import { decrypt, encrypt } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import type { SealedColumn } from '#platform/db/reseal.ts';
import { conflict, forbidden, notFound } from '#platform/errors.ts';
import { recordSoon } from '#platform/facts/denials.ts';
import { fact } from '#platform/facts/record.ts';
import { idempotently } from '#platform/http/idempotency.ts';
import { Answer } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import { authorize, requireNotActing } from '#platform/permission.ts';
import { type Attempt, lockedFact } from '../attempts/service.ts';
import { activeIdentity, holdActive, whileActive } from '../identity/service.ts';
import { backupCodeHash, enrolment, newBackupCodes, newSecret, stepOf } from './codes.ts';
import { boundTo, hasFactor, mfaAttempt, oneOf, takeFactor } from './factor.ts';
import type { Factor, MfaRegenerate, MfaStatus, MfaVerify } from './schema.ts';
import {
  countBackupCodes,
  deleteBackupCodes,
  deleteFactor,
  deleteSetup,
  findFactor,
  findSetup,
  insertBackupCodes,
  insertFactor,
  markRegenerated,
  takeSetup,
  upsertSetup,
} from './store.ts';

export { prepareChallenge, signedIn } from './challenge.ts';
export { hasFactor } from './factor.ts';
export { Factor, MfaRequired } from './schema.ts';
export { deleteChallenges, deleteSetup } from './store.ts';

/** How long a setup may wait for its first code. */
export const setupMs = 15 * 60_000;

/**
 * Whose credentials are spoken of: the caller's own, who must be signed in. Neither a key nor an agent that acts for somebody
 * reaches the password or second factor of who it acts for.
 * @throws ApiError 403
 */
export async function ownCredentials(ctx: Ctx, action: 'read' | 'update'): Promise<string> {
  requireNotActing(ctx.actor);
  const { type, identity_id } = ctx.actor;
  if (type !== 'identity' || !identity_id)
    throw forbidden('AUTH_FORBIDDEN', 'Only somebody who is signed in may do this, for itself.');
  await authorize(ctx, `credentials:${action}`, { id: identity_id, owner: identity_id });
  return identity_id;
}

/**
 * A change that a code or password stands for, once for each Idempotency-Key. The attempt is counted before and outside of its
 * transaction, so that it stays counted when the change fails.
 */
export async function attempted(
  ctx: Ctx,
  raw: FastifyRequest,
  attempt: Attempt | undefined,
  work: (tx: Db) => Promise<unknown>,
): Promise<Answer> {
  let done = false;
  try {
    const store = async () => new Answer(200, await ctx.db.transaction(work));
    const answer = await idempotently(ctx, raw, [raw.body], store);
    done = true;
    if (!answer.headers['idempotency-replayed']) await attempt?.succeeded();
    return answer;
  } finally {
    if (!done && attempt?.waitsNext) recordSoon(ctx, lockedFact(ctx.actor.identity_id!, attempt));
  }
}

const setupBoundTo = (tenant: string, id: string) => `mfa setup ${tenant} ${id}`;

export const sealedFactors: SealedColumn[] = [
  {
    table: 'mfa_factors',
    column: 'secret',
    key: { tenant_id: 'text', identity_id: 'uuid' },
    context: ({ tenant_id, identity_id }) => boundTo(tenant_id, identity_id),
  },
  {
    table: 'mfa_setups',
    column: 'sealed',
    key: { tenant_id: 'text', identity_id: 'uuid' },
    context: ({ tenant_id, identity_id }) => setupBoundTo(tenant_id, identity_id),
  },
];

const wrongCode = () =>
  forbidden('MFA_CODE_INVALID', 'The code is wrong, too old or was used before. Take the next one.');
const notEnabled = () => conflict('MFA_NOT_ENABLED', 'MFA is not enabled.');

/** Begins a setup; nothing is asked for at sign-in until it is verified. Where MFA is on already, it stays until then. */
export async function setUp(ctx: Ctx, raw: FastifyRequest, given: Factor): Promise<Answer> {
  const id = await ownCredentials(ctx, 'update');
  const { keys } = ctx.app;
  // A stand-in of development is nobody who could have one.
  if (!(await activeIdentity(ctx.app, ctx.tenant, id))) throw notFound('Identity');
  const enabled = await hasFactor(ctx.db, ctx.tenant, id);
  if (enabled) oneOf(given);
  const attempt = enabled ? await mfaAttempt(ctx, ctx.tenant, id) : undefined;
  const secret = newSecret();
  const codes = newBackupCodes();
  // A long name would not fit into the picture.
  const label = [...(ctx.actor.external_id ?? id)].slice(0, 60).join('');
  const shown = { ...(await enrolment(secret, label)), backup_codes: codes };
  const hashes = codes.map((code) => backupCodeHash(keys, ctx.tenant, id, code).toString('hex'));
  const plain = JSON.stringify({ secret: secret.toString('hex'), hashes });
  const sealed = encrypt(keys.encryption, plain, setupBoundTo(ctx.tenant, id));
  return attempted(ctx, raw, attempt, async (tx) => {
    // The setup before the factor, as everybody locks them.
    const storing = tx.batch([
      upsertSetup(ctx.tenant, id, uuidv7(), sealed, new Date()),
      fact(ctx, { type: 'mfa.setup', resource_type: 'identity', resource_id: id }),
    ]);
    await whileActive(storing, () => notFound('Identity'));
    if (attempt) {
      if (!(await takeFactor(ctx, tx, ctx.tenant, id, given))) throw wrongCode();
    } else if (await hasFactor(tx, ctx.tenant, id)) throw wrongCode();
    return shown;
  });
}

/** Enables the second factor that was set up, by the first code it makes. */
export async function verifySetup(ctx: Ctx, raw: FastifyRequest, { token }: MfaVerify): Promise<Answer> {
  const id = await ownCredentials(ctx, 'update');
  const attempt = await mfaAttempt(ctx, ctx.tenant, id);
  const { keys } = ctx.app;
  return attempted(ctx, raw, attempt, async (tx) => {
    const now = new Date();
    if (!(await holdActive(tx, id))) throw notFound('Identity');
    const setup = await tx.one(findSetup(ctx.tenant, id));
    if (!setup || Date.parse(setup.created_at) + setupMs <= now.getTime())
      throw conflict('MFA_NOT_SET_UP', 'There is no setup to verify. Call POST /v1/auth/mfa/setup first.');
    const { secret, hashes } = JSON.parse(
      decrypt(keys.encryption, setup.sealed, setupBoundTo(ctx.tenant, id)).toString(),
    ) as { secret: string; hashes: string[] };
    const bytes = Buffer.from(secret, 'hex');
    const step = stepOf(bytes, token, now.getTime());
    if (step === undefined || !(await tx.one(takeSetup(ctx.tenant, id, setup.id)))) throw wrongCode();
    await tx.batch([
      // With the old factor go its backup codes and the sign-ins that wait for it.
      deleteFactor(ctx.tenant, id),
      insertFactor({
        tenant_id: ctx.tenant,
        identity_id: id,
        secret: encrypt(keys.encryption, bytes, boundTo(ctx.tenant, id)),
        last_step: step,
        setup_at: setup.created_at,
        now,
      }),
      insertBackupCodes(
        ctx.tenant,
        id,
        hashes.map((hash) => Buffer.from(hash, 'hex')),
      ),
      fact(ctx, { type: 'mfa.enabled', resource_type: 'identity', resource_id: id }),
    ]);
    return statusOf(ctx, tx, id);
  });
}

export async function regenerateBackupCodes(
  ctx: Ctx,
  raw: FastifyRequest,
  { code }: MfaRegenerate,
): Promise<Answer> {
  const id = await ownCredentials(ctx, 'update');
  const attempt = await mfaAttempt(ctx, ctx.tenant, id);
  return attempted(ctx, raw, attempt, async (tx) => {
    if (!(await hasFactor(tx, ctx.tenant, id))) throw notEnabled();
    if (!(await takeFactor(ctx, tx, ctx.tenant, id, { code }))) throw wrongCode();
    const codes = newBackupCodes();
    const hashes = codes.map((one) => backupCodeHash(ctx.app.keys, ctx.tenant, id, one));
    await tx.batch([
      deleteBackupCodes(ctx.tenant, id),
      insertBackupCodes(ctx.tenant, id, hashes),
      markRegenerated(ctx.tenant, id, new Date()),
      fact(ctx, { type: 'mfa.backup_codes_regenerated', resource_type: 'identity', resource_id: id }),
    ]);
    return { backup_codes: codes };
  });
}

export async function mfaStatus(ctx: Ctx): Promise<MfaStatus> {
  return statusOf(ctx, ctx.db, await ownCredentials(ctx, 'read'));
}

async function statusOf(ctx: Ctx, db: Db, id: string): Promise<MfaStatus> {
  const [factors, setups, codes] = await db.batch([
    findFactor(ctx.tenant, id),
    findSetup(ctx.tenant, id),
    countBackupCodes(ctx.tenant, id),
  ]);
  const [factor] = factors.rows;
  return {
    enabled: factor !== undefined,
    setup_time: factor?.setup_at ?? setups.rows[0]?.created_at ?? null,
    enabled_time: factor?.enabled_at ?? null,
    backup_codes_remaining: codes.rows[0]?.left ?? 0,
    backup_codes_regenerated: factor?.codes_regenerated_at ?? null,
  };
}

/** Counts an attempt to disable; see `removeFactor`. */
export const attemptToDisable = (ctx: Ctx, id: string, given: Factor): Promise<Attempt> => {
  oneOf(given);
  return mfaAttempt(ctx, ctx.tenant, id);
};

/**
 * Disables the second factor, in the transaction of the caller, who has checked the password.
 * @throws ApiError 409 MFA_NOT_ENABLED, 403 MFA_CODE_INVALID
 */
export async function removeFactor(ctx: Ctx, tx: Db, id: string, given: Factor): Promise<void> {
  if (!(await hasFactor(tx, ctx.tenant, id))) throw notEnabled();
  await tx.run(deleteSetup(ctx.tenant, id));
  if (!(await takeFactor(ctx, tx, ctx.tenant, id, given))) throw wrongCode();
  await tx.batch([
    deleteFactor(ctx.tenant, id),
    fact(ctx, { type: 'mfa.disabled', resource_type: 'identity', resource_id: id }),
  ]);
}
