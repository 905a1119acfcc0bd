import { type App, type Ctx, inTenant, inTransaction, systemCtx } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import { badRequest, invalid } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { uuidv7 } from '#platform/ids.ts';
import { makeTokenText, parseTokenText } from '#platform/token-text.ts';
import { trustAddress } from '../attempts/service.ts';
import { activeIdentity, actorOf, identityInactive, whileActive } from '../identity/service.ts';
import { queueMail, requireMail } from '../mails/service.ts';
import { revokeSessions } from '../sessions/service.ts';
import { tenantOf } from '../tenants/service.ts';
import { withHasher } from './hashing.ts';
import { resetMail } from './mails.ts';
import { countedName, nameHash } from './names.ts';
import { checkPassword, passwordLength } from './rules.ts';
import type { ResetConfirm, ResetRequest } from './schema.ts';
import { endOldPassword, leastLength, notice, resetKind } from './service.ts';
import {
  type Account,
  changePassword,
  deleteResetRequest,
  findAccount,
  findAccountsByName,
  findReset,
  insertResetRequest,
  listResetRequests,
  type ResetRequestRow,
  takeReset,
  upsertReset,
} from './store.ts';

const resetMs = 3_600_000;
/** A second mail within this time would only take the first one's token away. */
const againMs = 5 * 60_000;
/** Most accounts that one address is written to about. */
const accountsOfAddress = 5;

/**
 * Takes down that a reset is asked for, and nothing else: whether there is such an account is looked at afterwards, so neither
 * words nor time of the answer tell.
 * @throws ApiError 503 MAIL_NOT_CONFIGURED, 429 RATE_LIMITED
 */
export async function requestReset(ctx: Ctx, { email, username, tenant }: ResetRequest) {
  if (email !== undefined && username !== undefined)
    throw invalid([{ path: '/username', message: 'takes the place of email; send one of them' }]);
  const name = email ?? username;
  if (name === undefined) throw invalid([{ path: '/email', message: 'is required, or username' }]);
  requireMail(ctx);
  await limitAddress(ctx, 'reset', Math.ceil(ctx.app.config.LOGINS_PER_HOUR / 10));
  const kind = email === undefined ? 'username' : 'email';
  const request = {
    id: uuidv7(),
    kind,
    name_hash: nameHash(ctx.app, kind, name),
    wanted_tenant: tenant ?? null,
    ip: ctx.request?.ip ?? null,
    user_agent: ctx.request?.user_agent?.slice(0, 400) ?? null,
    request_id: ctx.requestId,
  } as const;
  await ctx.app.database.operator.run(insertResetRequest(request, new Date()));
  return { message: 'If there is such an account and it has an e-mail address, a mail is on its way to it.' };
}

/** Sends the mails of the resets that were asked for. Killed in between, it is done again, and nobody gets a second mail. */
export async function workResetRequests(app: App): Promise<void> {
  const { operator } = app.database;
  for (let more = true; more; ) {
    const requests = await listResetRequests(operator);
    let done = 0;
    for (const request of requests) {
      // What one request runs into must not hold up the others.
      await workRequest(app, request).then(
        () => {
          done += 1;
        },
        (error) => app.log.warn({ err: error }, 'a password reset is tried again'),
      );
    }
    more = requests.length >= 100 && done > 0;
  }
}

async function workRequest(app: App, request: ResetRequestRow): Promise<void> {
  const { operator } = app.database;
  const limit = request.kind === 'email' ? accountsOfAddress : 1;
  const accounts = await findAccountsByName(operator, request.name_hash, request.wanted_tenant, limit);
  for (const account of accounts) await mailReset(app, request, account);
  await operator.run(deleteResetRequest(request.id));
}

async function mailReset(app: App, request: ResetRequestRow, account: Account): Promise<void> {
  const { tenant_id, identity_id, email } = account;
  if (!email || !(await tenantOf(app, tenant_id))?.is_active) return;
  if (!(await activeIdentity(app, tenant_id, identity_id))) return;
  const ctx = systemCtx(app, tenant_id, request.request_id);
  const now = new Date();
  const token = makeTokenText('rst', tenant_id, identity_id);
  const reset = {
    tenant_id,
    identity_id,
    token_hash: hmac(app.keys.credential, token),
    created_at: now,
    expires_at: new Date(now.getTime() + resetMs),
  };
  const storing = ctx.db.transaction(async (tx) => {
    if (!(await tx.one(upsertReset(reset, new Date(now.getTime() - againMs))))) return;
    await tx.batch([
      ...queueMail(ctx, resetKind, resetMail(app, email, tenant_id, token), identity_id),
      fact(ctx, {
        type: 'password.reset_requested',
        resource_type: 'identity',
        resource_id: identity_id,
        data: { by: request.kind, ip: request.ip, user_agent: request.user_agent },
      }),
    ]);
  });
  const inactive = identityInactive();
  await whileActive(storing, () => inactive).catch((error) => {
    // Deactivated meanwhile: nothing is stored, and nobody written to.
    if (error !== inactive) throw error;
  });
  app.nudgeRelay();
}

const tokenInvalid = () =>
  badRequest('RESET_TOKEN_INVALID', 'The token is unknown, used or too old. Ask for a new one.');

/**
 * Sets a new password by the token of a mail. All sessions end; API keys stay as they are, and so does a second factor. The address
 * counts as the owner's from now on: whoever guesses at the account does not keep it out.
 * @throws ApiError 400 RESET_TOKEN_INVALID, 422, 429, 503 SERVICE_BUSY
 */
export async function confirmReset(anonymous: Ctx, { token, new_password }: ResetConfirm) {
  const { app } = anonymous;
  await limitAddress(anonymous, 'reset-confirm', app.config.LOGINS_PER_HOUR);
  return withHasher(anonymous, async (hasher) => {
    const named = parseTokenText('rst', token);
    if (!named) throw tokenInvalid();
    const { tenant, id } = named;
    const tokenHash = hmac(app.keys.credential, token);
    const stranger = inTenant(anonymous, tenant);
    const reset = await findReset(stranger.db, id, tokenHash, new Date());
    const account = reset && (await findAccount(stranger.db, id));
    const identity = account && (await activeIdentity(app, tenant, id));
    if (!identity || !(await tenantOf(app, tenant))?.is_active) throw tokenInvalid();
    const ctx = inTenant(anonymous, tenant, actorOf(identity));
    checkPassword('/new_password', new_password, await leastLength(ctx, ctx.db, id), [
      account.username,
      account.email,
    ]);
    const hash = await hasher.hash(new_password);
    await ctx.db.transaction(async (tx) => {
      const now = new Date();
      // The account first, as everybody locks them.
      await tx.run(changePassword(tenant, id, null, hash, now));
      if (!(await tx.one(takeReset(tenant, id, tokenHash, now)))) throw tokenInvalid();
      // MFA may have been disabled since the length was looked at.
      if (passwordLength(new_password) < (await leastLength(ctx, tx, id)))
        throw invalid([{ path: '/new_password', message: 'is too short without MFA' }]);
      await tx.batch(endOldPassword(tenant, id));
      const revoked = await revokeSessions(inTransaction(ctx, tx), id);
      await tx.batch([
        fact(ctx, {
          type: 'password.reset',
          resource_type: 'identity',
          resource_id: id,
          data: { sessions_revoked: revoked },
        }),
        ...notice(ctx, account, 'reset'),
      ]);
    });
    const { username } = account;
    await trustAddress(anonymous, [countedName(username, undefined), countedName(username, tenant)]);
    return { message: 'The password was reset. Sign in with it.' };
  });
}
