import { randomBytes } from 'node:crypto';
import { createCache } from '#platform/cache.ts';
import type { App, Authenticated, Ctx } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import type { Statement } from '#platform/db/sql.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { activeIdentity, type Identity } from '../identity/service.ts';
import { endSessionRow, findSession, insertSession, revokeSessionRows, type SessionState } from './store.ts';
import { signAccessToken, verifyAccessToken } from './tokens.ts';

export { loadSigningKeys } from './tokens.ts';

export interface StartedSession {
  /** Belongs in the transaction that makes or signs in the identity. */
  statement: Statement;
  tokens: { access_token: string; refresh_token: string; token_type: 'bearer'; expires_in: number };
}

/** Prepares a session and its tokens. Only a keyed hash of the refresh token is stored. */
export async function startSession(ctx: Ctx, identity: Identity, now: Date): Promise<StartedSession> {
  const { app } = ctx;
  const id = uuidv7();
  // The tenant travels in the token, so that it is found without knowing the tenant first.
  const refreshToken = `rt_${identity.tenant_id}_${id.replaceAll('-', '')}_${randomBytes(32).toString('base64url')}`;
  const statement = insertSession({
    tenant_id: identity.tenant_id,
    id,
    identity_id: identity.id,
    refresh_hash: hmac(app.keys.credential, refreshToken),
    ip_address: ctx.request?.ip ?? null,
    user_agent: ctx.request?.user_agent?.slice(0, 400) ?? null,
    expires_at: new Date(now.getTime() + app.config.SESSION_TTL_DAYS * 86_400_000),
    now,
  });
  const accessToken = await signAccessToken(app, {
    tenant: identity.tenant_id,
    identity: identity.id,
    session: id,
  });
  return {
    statement,
    tokens: {
      access_token: accessToken,
      refresh_token: refreshToken,
      token_type: 'bearer',
      expires_in: app.config.ACCESS_TOKEN_TTL_S,
    },
  };
}

const cacheOf = perApp((app) => createCache<SessionState | undefined>(app.shared, 'session', 50_000));

/** The actor behind an access token: the token, its session and its identity must all hold now. */
export async function authenticateToken(app: App, token: string): Promise<Authenticated | undefined> {
  const claims = await verifyAccessToken(app, token);
  if (!claims) return undefined;
  const cache = cacheOf(app);
  const key = `${claims.tenant}/${claims.session}`;
  const session =
    cache.peek(key) ??
    (await cache.get(key, () => findSession(app.database.tenant(claims.tenant), claims.session)));
  if (
    !session?.is_active ||
    session.identity_id !== claims.identity ||
    Date.parse(session.expires_at) <= Date.now()
  )
    return undefined;
  const identity = await activeIdentity(app, claims.tenant, claims.identity);
  if (!identity) return undefined;
  return {
    tenant: claims.tenant,
    actor: {
      type: 'identity',
      identity_id: identity.id,
      external_id: identity.external_id,
      role: identity.role,
      claims: identity.claims,
      credential: claims.session,
      session_id: claims.session,
    },
  };
}

/**
 * Ends all sessions of an identity, or all but one, for every process; `ctx.db` may be a transaction.
 * @returns how many ended
 */
export async function revokeSessions(ctx: Ctx, identityId: string, keep?: string): Promise<number> {
  return ctx.db.transaction(async (tx) => {
    const ended = await tx.rows(revokeSessionRows(ctx.tenant, identityId, keep, new Date()));
    await tx.batch(
      ended.map(({ id }) =>
        fact(ctx, {
          type: 'session.revoked',
          resource_type: 'session',
          resource_id: id,
          data: { identity_id: identityId },
        }),
      ),
    );
    for (const { id } of ended)
      tx.afterCommit(() => ctx.app.shared.invalidate('session', `${ctx.tenant}/${id}`));
    return ended.length;
  });
}

/** Ends one session, for every process; `ctx.db` may be a transaction. @returns false when it had ended before */
export async function endSession(ctx: Ctx, id: string): Promise<boolean> {
  return ctx.db.transaction(async (tx) => {
    const ended = await tx.one(endSessionRow(ctx.tenant, id, new Date()));
    if (!ended) return false;
    await tx.run(
      fact(ctx, {
        type: 'session.revoked',
        resource_type: 'session',
        resource_id: id,
        data: { identity_id: ended.identity_id },
      }),
    );
    tx.afterCommit(() => ctx.app.shared.invalidate('session', `${ctx.tenant}/${id}`));
    return true;
  });
}
