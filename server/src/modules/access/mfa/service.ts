import type { FastifyRequest } from 'fastify';
import { type Ctx, inTenant } from '#platform/context.ts';
import { decrypt, encrypt, hmac } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';
import { ApiError, conflict, forbidden, invalid } from '#platform/errors.ts';
import { recordSoon } from '#platform/facts/denials.ts';
import { fact } from '#platform/facts/record.ts';
import { idempotently } from '#platform/http/idempotency.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { Answer } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import { authorize } from '#platform/permission.ts';
import { makeTokenText, parseTokenText } from '#platform/token-text.ts';
import { type Attempt, attemptOn } from '../attempts/service.ts';
import { activeIdentity, actorOf } from '../identity/service.ts';
import { startSession } from '../sessions/service.ts';
import { tenantOf } from '../tenants/service.ts';
import { backupCodeHash, enrolment, newBackupCodes, newSecret, stepOf } from './codes.ts';
import type { Factor, MfaChallenge, MfaRegenerate, MfaRequired, MfaStatus, MfaVerify } from './schema.ts';
import {
  countAttempt,
  countBackupCodes,
  deleteBackupCodes,
  deleteFactor,
  deleteSetup,
  findChallenge,
  findFactor,
  findSetup,
  insertBackupCodes,
  insertChallenge,
  insertFactor,
  markRegenerated,
  takeChallenge,
  takeSetup,
  upsertSetup,
  useBackupCode,
  useStep,
} from './store.ts';

export { Factor, MfaRequired } from './schema.ts';
export { deleteChallenges } from './store.ts';

/** How long a setup may wait for its first code. */
export const setupMs = 15 * 60_000;
const challengeS = 300;
const challengeAttempts = 5;

/**
 * Whose credentials are spoken of: the caller's own, who must be signed in. Neither a key nor an agent that acts for somebody
 * reaches the password or second factor of who it acts for.
 * @throws ApiError 403
 */
export async function ownCredentials(ctx: Ctx, action: 'read' | 'update'): Promise<string> {
  const { type, identity_id, delegation } = ctx.actor;
  if (type !== 'identity' || delegation || !identity_id)
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
  const answer = await idempotently(
    ctx,
    raw,
    [raw.body],
    async () => new Answer(200, await ctx.db.transaction(work)),
  );
  if (!answer.headers['idempotency-replayed']) await attempt?.succeeded();
  return answer;
}

const mfaAttempt = (ctx: Ctx, tenant: string, id: string): Promise<Attempt> =>
  attemptOn(ctx, 'mfa', tenant, id);

const boundTo = (tenant: string, id: string) => `mfa secret ${tenant} ${id}`;
const setupBoundTo = (tenant: string, id: string) => `mfa setup ${tenant} ${id}`;

const wrongCode = () =>
  forbidden('MFA_CODE_INVALID', 'The code is wrong, too old or was used before. Take the next one.');
const notEnabled = () => conflict('MFA_NOT_ENABLED', 'MFA is not enabled.');

/** True when sign-ins with a password have to be completed by a second factor. */
export const hasFactor = async (db: Db, tenant: string, id: string): Promise<boolean> =>
  (await db.one(findFactor(tenant, id))) !== undefined;

/** Where neither or both ways to prove the second factor are given there is nothing to check. */
function oneOf({ code, backup_code }: Factor): void {
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
async function takeFactor(ctx: Ctx, tx: Db, tenant: string, id: string, given: Factor): Promise<boolean> {
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

/** Begins a setup; nothing is asked for at sign-in until it is verified. Where MFA is on already, it stays until then. */
export async function setUp(ctx: Ctx, raw: FastifyRequest, given: Factor): Promise<Answer> {
  const id = await ownCredentials(ctx, 'update');
  const { keys } = ctx.app;
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
    if (attempt) {
      if (!(await takeFactor(ctx, tx, ctx.tenant, id, given))) throw wrongCode();
    } else if (await hasFactor(tx, ctx.tenant, id)) throw wrongCode();
    await tx.batch([
      upsertSetup(ctx.tenant, id, uuidv7(), sealed, new Date()),
      fact(ctx, { type: 'mfa.setup', resource_type: 'identity', resource_id: id }),
    ]);
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
  if (!(await takeFactor(ctx, tx, ctx.tenant, id, given))) throw wrongCode();
  await tx.batch([
    deleteFactor(ctx.tenant, id),
    deleteSetup(ctx.tenant, id),
    fact(ctx, { type: 'mfa.disabled', resource_type: 'identity', resource_id: id }),
  ]);
}

/** What a sign-in whose password was right answers where a second factor is asked for: its statement and its answer. */
export function prepareChallenge(ctx: Ctx, id: string): { statement: Statement; answer: MfaRequired } {
  const now = Date.now();
  const challenge = uuidv7();
  const token = makeTokenText('mfa', ctx.tenant, challenge);
  const statement = insertChallenge({
    tenant_id: ctx.tenant,
    id: challenge,
    identity_id: id,
    token_hash: hmac(ctx.app.keys.credential, token),
    created_at: new Date(now),
    expires_at: new Date(now + challengeS * 1000),
  });
  return { statement, answer: { mfa_required: true, mfa_token: token, expires_in: challengeS } };
}

const unauthorizedAs = (code: string, message: string, details?: Record<string, unknown>) =>
  new ApiError(401, code, message, details, { 'www-authenticate': 'Bearer' });

const challengeOver = () =>
  unauthorizedAs('MFA_TOKEN_INVALID', 'The mfa_token is unknown, used or too old. Sign in again.');

/**
 * Completes a sign-in by its second factor. A token takes five attempts and lives five minutes; over all tokens the
 * attempts at one identity wait longer each time.
 * @throws ApiError 401 MFA_TOKEN_INVALID, 401 MFA_CODE_INVALID, 429
 */
export async function passChallenge(anonymous: Ctx, { mfa_token, ...given }: MfaChallenge) {
  const { app } = anonymous;
  oneOf(given);
  await limitAddress(anonymous, 'mfa', app.config.LOGINS_PER_HOUR);
  const named = parseTokenText('mfa', mfa_token);
  if (!named) throw challengeOver();
  const stranger = inTenant(anonymous, named.tenant);
  const found = await findChallenge(stranger.db, named.id, hmac(app.keys.credential, mfa_token), new Date());
  if (!found) throw challengeOver();
  const id = found.identity_id;
  const attempt = await mfaAttempt(stranger, named.tenant, id);
  const counted = await countAttempt(stranger.db, named.id, challengeAttempts);
  if (!counted) throw challengeOver();
  const identity = await activeIdentity(app, named.tenant, id);
  if (!identity || !(await tenantOf(app, named.tenant))?.is_active) throw challengeOver();
  const ctx = inTenant(anonymous, named.tenant, actorOf(identity));
  const session = await startSession(ctx, identity, new Date());
  const method = given.backup_code === undefined ? 'totp' : 'backup_code';
  const passed = await ctx.db.transaction(async (tx) => {
    if (!(await takeFactor(ctx, tx, named.tenant, id, given))) return false;
    // The same code may have been sent with the same token twice at once.
    if (!(await tx.one(takeChallenge(named.tenant, named.id)))) throw challengeOver();
    await tx.batch([session.statement, signedIn(ctx, id, ['password', method])]);
    return true;
  });
  if (!passed) {
    const left = challengeAttempts - counted.attempts;
    challengeFailed(stranger, id, method, attempt);
    if (left > 0)
      throw unauthorizedAs('MFA_CODE_INVALID', 'The code is wrong, too old or was used before.', {
        attempts_left: left,
      });
    await ctx.db.run(takeChallenge(named.tenant, named.id));
    throw challengeOver();
  }
  await attempt.succeeded();
  return { ...session.tokens, identity };
}

function challengeFailed(ctx: Ctx, id: string, method: string, attempt: Attempt): void {
  const about = { resource_type: 'identity', resource_id: id, outcome: 'failure' } as const;
  recordSoon(ctx, { ...about, type: 'mfa.challenge_failed', data: { method } });
  if (attempt.waitsNext)
    recordSoon(ctx, { ...about, type: 'auth.locked', data: { of: 'mfa', failures: attempt.failures } });
}

/** The fact that somebody signed in, and by what. */
export const signedIn = (ctx: Ctx, id: string, methods: string[]): Statement =>
  fact(ctx, {
    type: 'auth.login.succeeded',
    resource_type: 'identity',
    resource_id: id,
    data: { methods },
  });
