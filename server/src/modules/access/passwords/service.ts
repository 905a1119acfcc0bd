import type { FastifyRequest } from 'fastify';
import { type Ctx, inTransaction } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';
import { type ApiError, conflict, forbidden, invalid } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { Answer } from '#platform/http/route.ts';
import { attemptOn } from '../attempts/service.ts';
import { dropMails, queueMail } from '../mails/service.ts';
import {
  attempted,
  attemptToDisable,
  deleteChallenges,
  deleteSetup,
  hasFactor,
  ownCredentials,
  removeFactor,
} from '../mfa/service.ts';
import { revokeSessions } from '../sessions/service.ts';
import { withHasher } from './hashing.ts';
import { noticeMail } from './mails.ts';
import { checkPassword, leastWithMfa, passwordLength } from './rules.ts';
import type { MfaDisable, PasswordChange } from './schema.ts';
import { type Account, changePassword, deleteReset, findAccount, holdPassword } from './store.ts';

/** Characters the password of an identity needs. */
export async function leastLength(ctx: Ctx, db: Db, identityId: string): Promise<number> {
  const alone = ctx.app.config.PASSWORD_MIN_LENGTH;
  return (await hasFactor(db, ctx.tenant, identityId)) ? Math.min(leastWithMfa, alone) : alone;
}

/** The statements of a notice, where there is an address and a way to send mail. */
export const notice = (
  ctx: Ctx,
  { email, tenant_id, identity_id }: Account,
  what: Parameters<typeof noticeMail>[2],
): Statement[] =>
  email && ctx.app.mail
    ? queueMail(ctx, `notice.${what}`, noticeMail(email, tenant_id, what), identity_id)
    : [];

/**
 * What a new password ends, besides sessions: resets that were asked for, and sign-ins that wait for a second factor. Before the
 * sessions: a sign-in that is being completed is waited for here, and its session is there to be ended then.
 */
export const endOldPassword = (tenant: string, identityId: string): Statement[] => [
  deleteReset(tenant, identityId),
  deleteChallenges(tenant, identityId),
];

/** What mails with a reset's token are. */
export const resetKind = 'password_reset';

/** Ends the resets, sign-ins and setups of a second factor of identities that are under way, and mails of them that have not left. */
export async function endSignInsOf(ctx: Ctx, identityIds: string[]): Promise<void> {
  await ctx.db.batch([
    ...identityIds.flatMap((id) => [...endOldPassword(ctx.tenant, id), deleteSetup(ctx.tenant, id)]),
    dropMails(ctx.tenant, identityIds, resetKind),
  ]);
}

const wrongPassword = () => forbidden('PASSWORD_INVALID', 'The password is wrong.');

async function accountOf(ctx: Ctx, identityId: string): Promise<Account & { password_hash: string }> {
  const account = await findAccount(ctx.db, identityId);
  if (!account?.password_hash)
    throw conflict('NO_PASSWORD', 'This identity does not sign in with a password.');
  return { ...account, password_hash: account.password_hash };
}

/**
 * Changes the caller's own password. Its session stays, all others end; API keys stay as they are.
 * @throws ApiError 403 PASSWORD_INVALID, 409 NO_PASSWORD, 422, 429, 503 SERVICE_BUSY
 */
export async function changeOwnPassword(
  ctx: Ctx,
  raw: FastifyRequest,
  { old_password, new_password }: PasswordChange,
): Promise<Answer> {
  const id = await ownCredentials(ctx, 'update');
  return withHasher(ctx, async (hasher) => {
    const account = await accountOf(ctx, id);
    const least = await leastLength(ctx, ctx.db, id);
    checkPassword('/new_password', new_password, least, [account.username, account.email]);
    const attempt = await attemptOn(ctx, 'password', ctx.tenant, id);
    const { matches } = await hasher.verify(account.password_hash, old_password);
    const hash = matches ? await hasher.hash(new_password) : '';
    return attempted(ctx, raw, attempt, async (tx) => {
      if (!matches) throw wrongPassword();
      if (old_password.normalize('NFC') === new_password.normalize('NFC'))
        throw invalid([{ path: '/new_password', message: 'is the old password' }]);
      const now = new Date();
      if (!(await tx.one(changePassword(ctx.tenant, id, account.password_hash, hash, now))))
        throw wrongPassword();
      // MFA may have been disabled since the length was looked at.
      if (passwordLength(new_password) < (await leastLength(ctx, tx, id)))
        throw tooShort('/new_password', ctx);
      await tx.batch(endOldPassword(ctx.tenant, id));
      const revoked = await revokeSessions(inTransaction(ctx, tx), id, ctx.actor.session_id);
      await tx.batch([
        fact(ctx, {
          type: 'password.changed',
          resource_type: 'identity',
          resource_id: id,
          data: { sessions_revoked: revoked },
        }),
        ...notice(ctx, account, 'changed'),
      ]);
      return { message: 'The password was changed.', sessions_revoked: revoked };
    });
  });
}

const tooShort = (field: string, ctx: Ctx): ApiError =>
  invalid([
    {
      path: field,
      message: `has fewer than the ${ctx.app.config.PASSWORD_MIN_LENGTH} characters it needs without MFA: change it first`,
    },
  ]);

/**
 * Disables MFA by password and code. A password that is long enough only beside a second factor has to be changed first.
 * @throws ApiError 403 PASSWORD_INVALID or MFA_CODE_INVALID, 409 MFA_NOT_ENABLED, 422, 429, 503 SERVICE_BUSY
 */
export async function disableMfa(
  ctx: Ctx,
  raw: FastifyRequest,
  { password, ...given }: MfaDisable,
): Promise<Answer> {
  const id = await ownCredentials(ctx, 'update');
  const account = await findAccount(ctx.db, id);
  const disable = async (tx: Db, matches: boolean) => {
    if (!matches) throw wrongPassword();
    // The account before the factor, as sign-ins lock them; and held, so that nobody shortens the password meanwhile.
    if (account?.password_hash && !(await tx.one(holdPassword(ctx.tenant, id, account.password_hash))))
      throw wrongPassword();
    await removeFactor(ctx, tx, id, given);
    if (account?.password_hash) {
      if (passwordLength(password!) < ctx.app.config.PASSWORD_MIN_LENGTH) throw tooShort('/password', ctx);
      await tx.batch(notice(ctx, account, 'mfa_disabled'));
    }
    return { message: 'MFA was disabled.' };
  };
  // Somebody who never signs in with a password has none to give.
  if (!account?.password_hash) {
    const attempt = await attemptToDisable(ctx, id, given);
    return attempted(ctx, raw, attempt, (tx) => disable(tx, true));
  }
  if (password === undefined) throw invalid([{ path: '/password', message: 'is required' }]);
  return withHasher(ctx, async (hasher) => {
    const attempt = await attemptToDisable(ctx, id, given);
    const { matches } = await hasher.verify(account.password_hash, password);
    return attempted(ctx, raw, attempt, (tx) => disable(tx, matches));
  });
}
