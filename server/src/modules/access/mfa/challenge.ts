import { type Ctx, inTenant } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import type { Statement } from '#platform/db/sql.ts';
import { ApiError } from '#platform/errors.ts';
import { recordSoon } from '#platform/facts/denials.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { uuidv7 } from '#platform/ids.ts';
import { makeTokenText, parseTokenText } from '#platform/token-text.ts';
import { type Attempt, lockedFact } from '../attempts/service.ts';
import { activeIdentity, actorOf, holdActive } from '../identity/service.ts';
import { startSession } from '../sessions/service.ts';
import { tenantOf } from '../tenants/service.ts';
import { mfaAttempt, oneOf, takeFactor } from './factor.ts';
import type { MfaChallenge, MfaRequired } from './schema.ts';
import { countAttempt, findChallenge, insertChallenge, takeChallenge } from './store.ts';

const challengeS = 300;
const challengeAttempts = 5;

/**
 * What a sign-in answers where a second factor is asked for: its statement, to be stored with `whileActive`, and its answer.
 * @param first what was shown so far, e.g. `password`
 */
export function prepareChallenge(
  ctx: Ctx,
  id: string,
  first: string,
): { statement: Statement; answer: MfaRequired } {
  const now = Date.now();
  const challenge = uuidv7();
  const token = makeTokenText('mfa', ctx.tenant, challenge);
  const statement = insertChallenge({
    tenant_id: ctx.tenant,
    id: challenge,
    identity_id: id,
    token_hash: hmac(ctx.app.keys.credential, token),
    first_factor: first,
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
    if (!(await holdActive(tx, id))) throw challengeOver();
    if (!(await takeFactor(ctx, tx, named.tenant, id, given))) return false;
    // The same code may have been sent with the same token twice at once.
    if (!(await tx.one(takeChallenge(named.tenant, named.id)))) throw challengeOver();
    const signIn = signedIn(ctx, id, [found.first_factor, method]);
    await tx.batch([...session.statements, signIn]);
    return true;
  });
  if (!passed) {
    const left = challengeAttempts - counted.attempts;
    challengeFailed(stranger, id, method, attempt);
    if (left <= 0) throw challengeOver();
    const message = 'The code is wrong, too old or was used before.';
    throw unauthorizedAs('MFA_CODE_INVALID', message, { attempts_left: left });
  }
  await attempt.succeeded();
  return { ...session.tokens, identity };
}

function challengeFailed(ctx: Ctx, id: string, method: string, attempt: Attempt): void {
  recordSoon(ctx, {
    type: 'mfa.challenge_failed',
    resource_type: 'identity',
    resource_id: id,
    outcome: 'failure',
    data: { method },
  });
  if (attempt.waitsNext) recordSoon(ctx, lockedFact(id, attempt));
}

/** The fact that somebody signed in, and by what. */
export const signedIn = (ctx: Ctx, id: string, methods: string[]): Statement =>
  fact(ctx, {
    type: 'auth.login.succeeded',
    resource_type: 'identity',
    resource_id: id,
    data: { methods },
  });
