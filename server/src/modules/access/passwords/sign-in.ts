import type { FastifyRequest } from 'fastify';
import { type Ctx, inTenant, inTransaction } from '#platform/context.ts';
import { ApiError, unauthorized } from '#platform/errors.ts';
import { recordSoon } from '#platform/facts/denials.ts';
import { fact } from '#platform/facts/record.ts';
import { idempotently } from '#platform/http/idempotency.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { Answer } from '#platform/http/route.ts';
import { requireNotActing } from '#platform/permission.ts';
import { type Attempt, attemptToSignIn, lockedFact } from '../attempts/service.ts';
import { activeIdentity, actorOf, type Identity, whileActive } from '../identity/service.ts';
import { hasFactor, prepareChallenge, signedIn } from '../mfa/service.ts';
import { type Admission, admit, enrol, identityExists } from '../registration/service.ts';
import { endSession, startSession } from '../sessions/service.ts';
import { tenantOf } from '../tenants/service.ts';
import { withHasher } from './hashing.ts';
import { checkedUsername, countedName, foldName, nameHash } from './names.ts';
import { checkPassword } from './rules.ts';
import type { Login, Register } from './schema.ts';
import {
  type Account,
  findAccountsByName,
  holdPassword,
  insertAccount,
  insertLoginName,
  rehashPassword,
} from './store.ts';

/**
 * Registers somebody who signs in with a password: in a tenant of its own without a credential, so that the answer never tells
 * whether a name is known; in the caller's tenant with one.
 * @throws ApiError 401 when registration is closed, 403, 409 IDENTITY_EXISTS in the caller's own tenant, 422, 429, 503
 */
export async function register(ctx: Ctx, raw: FastifyRequest, input: Register): Promise<Answer> {
  const username = checkedUsername(input.username);
  const { config } = ctx.app;
  checkPassword('/password', input.password, config.PASSWORD_MIN_LENGTH, [username, input.email]);
  requireNotActing(ctx.actor);
  const identity = {
    external_id: username,
    role: input.role ?? (ctx.tenant ? 'user' : 'admin'),
    ...(input.name === undefined ? {} : { name: input.name }),
  };
  return withHasher(ctx, async (hasher) => {
    const admission = await admit(ctx, identity);
    const hash = await hasher.hash(input.password);
    const store = async () =>
      new Answer(
        200,
        await enrol(admission, identity, (tx, { id }) =>
          storeAccount(admission, tx, { id, username, email: input.email, hash }),
        ),
      );
    return ctx.tenant ? idempotently(ctx, raw, [raw.body], store) : store();
  });
}

async function storeAccount(
  { ctx }: Admission,
  tx: Ctx['db'],
  { id, username, email, hash }: { id: string; username: string; email: string | undefined; hash: string },
): Promise<void> {
  const now = new Date();
  const account = {
    tenant_id: ctx.tenant,
    identity_id: id,
    username,
    username_key: foldName(username),
    email: email ?? null,
    password_hash: hash,
    now,
  };
  if (!(await tx.one(insertAccount(account)))) throw identityExists();
  await tx.batch([
    insertLoginName(ctx.tenant, id, nameHash(ctx.app, 'username', username), now),
    ...(email ? [insertLoginName(ctx.tenant, id, nameHash(ctx.app, 'email', email), now)] : []),
    fact(ctx, { type: 'auth.registered', resource_type: 'identity', resource_id: id }),
  ]);
}

const wrong = () =>
  new ApiError(401, 'INVALID_CREDENTIALS', 'The user name or the password is wrong.', undefined, {
    'www-authenticate': 'Bearer',
  });

/**
 * Signs in by name and password. Without a tenant the oldest account of the name is meant, so nobody takes a name over by registering
 * it again. Whatever is wrong, it is answered in the same words after the same work.
 * @returns a session, or what awaits the second factor
 * @throws ApiError 401 INVALID_CREDENTIALS, 429 TOO_MANY_ATTEMPTS or RATE_LIMITED, 503 SERVICE_BUSY
 */
export async function login(anonymous: Ctx, { username, password, tenant }: Login) {
  const { app } = anonymous;
  await limitAddress(anonymous, 'login', app.config.LOGINS_PER_HOUR);
  return withHasher(anonymous, async (hasher) => {
    const attempt = await attemptToSignIn(anonymous, countedName(username, tenant));
    const hash = nameHash(app, 'username', username);
    const [account] = await findAccountsByName(app.database.operator, hash, tenant ?? null, 1);
    const { matches, outdated } = await hasher.verify(account?.password_hash ?? null, password);
    const identity = account && matches ? await mayEnter(anonymous, account) : undefined;
    if (!account || !identity) {
      loginFailed(anonymous, account, hash, attempt);
      throw wrong();
    }
    const ctx = inTenant(anonymous, account.tenant_id, actorOf(identity));
    const fresh = outdated ? await hasher.hash(password) : undefined;
    const answer = await enter(ctx, identity, account.password_hash!, fresh);
    await attempt.succeeded();
    return answer;
  });
}

/** The identity of an account, while it and its tenant are active. */
async function mayEnter(ctx: Ctx, { tenant_id, identity_id }: Account): Promise<Identity | undefined> {
  const tenant = await tenantOf(ctx.app, tenant_id);
  return tenant?.is_active ? activeIdentity(ctx.app, tenant_id, identity_id) : undefined;
}

async function enter(ctx: Ctx, identity: Identity, seen: string, fresh: string | undefined) {
  const { tenant } = ctx;
  const now = new Date();
  const session = await startSession(ctx, identity, now);
  return ctx.db.transaction(async (tx) => {
    const held = fresh
      ? rehashPassword(tenant, identity.id, seen, fresh, now)
      : holdPassword(tenant, identity.id, seen);
    if (!(await tx.one(held))) throw wrong();
    if (await hasFactor(tx, tenant, identity.id)) {
      const challenge = prepareChallenge(ctx, identity.id, 'password');
      await whileActive(tx.run(challenge.statement), wrong);
      return challenge.answer;
    }
    await whileActive(tx.batch([...session.statements, signedIn(ctx, identity.id, ['password'])]), wrong);
    return { ...session.tokens, identity };
  });
}

/**
 * Records it off the request path: its writing must not show in the time of the answer. A name that nobody has belongs to no
 * tenant's ledger; the log has it, by its hash.
 */
function loginFailed(anonymous: Ctx, account: Account | undefined, hash: Buffer, attempt: Attempt): void {
  const { failures } = attempt;
  if (!account) {
    const name = hash.toString('hex').slice(0, 16);
    anonymous.log.info(
      { name, ip: anonymous.request?.ip, failures },
      'a sign-in under an unknown name failed',
    );
    return;
  }
  const ctx = inTenant(anonymous, account.tenant_id);
  recordSoon(ctx, {
    type: 'auth.login.failed',
    resource_type: 'identity',
    resource_id: account.identity_id,
    outcome: 'failure',
    data: { failures },
  });
  if (attempt.waitsNext) recordSoon(ctx, lockedFact(account.identity_id, attempt));
}

/**
 * Ends the session of the caller.
 * @throws ApiError 401 for whoever has none: strangers, API keys, agents that act for somebody
 */
export async function logout(ctx: Ctx): Promise<{ message: string }> {
  const { session_id, identity_id, delegation } = ctx.actor;
  if (!session_id || !identity_id || delegation) throw unauthorized('Only a session can be signed out of.');
  await ctx.db.transaction(async (tx) => {
    await endSession(inTransaction(ctx, tx), session_id);
    await tx.run(fact(ctx, { type: 'auth.logout', resource_type: 'session', resource_id: session_id }));
  });
  return { message: 'Signed out.' };
}
