import { createCache } from '#platform/cache.ts';
import type { App, Authenticated, Ctx, Origin, Target } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { notFound, unauthorized } from '#platform/errors.ts';
import { fact, factRow, insertFacts } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { activeHolder, activeIdentity, findIdentity, type Identity } from '../identity/service.ts';
import { createLastUse, type Used } from '../last-use/service.ts';
import { visiblePage } from '../policy/service.ts';
import { deviceOf } from './device.ts';
import { newRefreshToken, refreshHash } from './refresh-token.ts';
import type { Session, Tokens } from './schema.ts';
import {
  findSession,
  findSessionState,
  insertSession,
  listSessions,
  revokeSessionRow,
  revokeSessionRows,
  type SessionRow,
  type SessionState,
  writeSessionUses,
} from './store.ts';
import { type AccessClaims, signAccessToken } from './tokens.ts';

export { loadSigningKeys, rotateSigningKey, sealedSigningKeys } from './signing-keys.ts';
export { type AccessClaims, signAccessToken, verifyAccessToken } from './tokens.ts';

export interface StartedSession {
  /** They store the session and the fact of it, and belong in the transaction that makes or signs in the identity. */
  statements: Statement[];
  tokens: Tokens;
}

/** Prepares a session and its tokens; store it with `whileActive`, unless the identity is made or held (`holdActive`) with it. Only a keyed hash of the refresh token is stored. */
export async function startSession(ctx: Ctx, identity: Identity, now: Date): Promise<StartedSession> {
  const { app, request } = ctx;
  const { id: identity_id, tenant_id } = identity;
  const id = uuidv7();
  const refreshToken = newRefreshToken(app.keys, tenant_id, id);
  const device = deviceOf(request?.user_agent, request?.ip);
  const expires = new Date(now.getTime() + app.config.SESSION_TTL_DAYS * 86_400_000);
  const created = factRow(ctx, {
    type: 'session.created',
    resource_type: 'session',
    resource_id: id,
    data: {
      identity_id,
      platform: device.platform,
      browser: device.browser,
      expires_at: expires.toISOString(),
    },
  });
  return {
    statements: [
      insertSession({
        tenant_id,
        id,
        holder: activeHolder(tenant_id, identity_id),
        refresh_hash: refreshHash(app.keys, refreshToken),
        device_info: device,
        expires_at: expires,
        now,
      }),
      // By the identity's tenant: whoever signs in has none yet.
      insertFacts(tenant_id, [created]),
    ],
    tokens: {
      access_token: await signAccessToken(app, { tenant: tenant_id, identity: identity_id, session: id }),
      refresh_token: refreshToken,
      token_type: 'bearer',
      expires_in: app.config.ACCESS_TOKEN_TTL_S,
    },
  };
}

type CachedSession = SessionState & Used;

const cacheOf = perApp((app) => createCache<CachedSession | undefined>(app.shared, 'session', 50_000));
const lastUse = createLastUse('sessions', writeSessionUses);
/** Writes when and from where sessions were used. */
export const flushSessionUses = lastUse.flush;

async function loadSession(app: App, tenant: string, id: string): Promise<CachedSession | undefined> {
  const state = await findSessionState(app.database.tenant(tenant), id);
  return state && { ...state, usedMs: Date.parse(state.last_used_at) };
}

/** A session of this identity that is there, not revoked and not over. */
export async function livingSession(
  app: App,
  tenant: string,
  id: string,
  identity: string,
): Promise<CachedSession | undefined> {
  const cache = cacheOf(app);
  const key = `${tenant}/${id}`;
  const session = cache.peek(key) ?? (await cache.get(key, () => loadSession(app, tenant, id)));
  const holds =
    session?.is_active && session.identity_id === identity && Date.parse(session.expires_at) > Date.now();
  return holds ? session : undefined;
}

/** The actor behind the access token of a session: the session and its identity must hold now. */
export async function authenticateSession(
  app: App,
  claims: AccessClaims,
  from: Origin,
): Promise<Authenticated | undefined> {
  const { tenant, session: id } = claims;
  const session = id === undefined ? undefined : await livingSession(app, tenant, id, claims.identity);
  if (!session) return undefined;
  const identity = await activeIdentity(app, tenant, claims.identity);
  if (!identity) return undefined;
  lastUse.note(app, tenant, id!, session, from);
  return {
    tenant,
    actor: {
      type: 'identity',
      identity_id: identity.id,
      external_id: identity.external_id,
      role: identity.role,
      claims: identity.claims,
      credential: id!,
      session_id: id!,
    },
  };
}

const targetOf = ({ id, identity_id }: Pick<SessionRow, 'id' | 'identity_id'>): Target => ({
  id,
  owner: identity_id,
});

const shown = (ctx: Ctx, { device_info, ...row }: SessionRow): Session => ({
  ...row,
  device_info: { ...deviceOf(undefined, undefined), ...device_info },
  is_active: row.is_active && Date.parse(row.expires_at) > Date.now(),
  is_current: row.id === ctx.actor.session_id,
});

/** Living sessions of the caller, last used first; or of another identity, where policy lets the caller see them. */
export function listVisibleSessions(
  ctx: Ctx,
  { identity_id, ...query }: PageQuery & { identity_id?: string },
): Promise<Answer> {
  const of = identity_id ?? ctx.actor.identity_id ?? '';
  return visiblePage(ctx, 'sessions:list', { identity_id }, query, {
    rows: async (from) => {
      if (!isUuid(of) || (from.owner !== undefined && from.owner !== of.toLowerCase())) return [];
      const rows = await listSessions(ctx.db, of, from, new Date());
      return rows.map((row) => shown(ctx, row));
    },
    owned: true,
    target: targetOf,
    position: ({ last_used_at, id }) => [last_used_at, id],
    size: 100,
  });
}

/** @throws ApiError 404 also for what is not the caller's to see */
export async function getSession(ctx: Ctx, id: string): Promise<Session> {
  const row = isUuid(id) ? await findSession(ctx.db, id) : undefined;
  if (!row || !(await isPermitted(ctx, 'sessions:read', targetOf(row)))) throw notFound('Session');
  return shown(ctx, row);
}

/** Ends a session for every process. One that has ended stays so. @throws ApiError 404 */
export async function revokeSession(ctx: Ctx, id: string): Promise<void> {
  const row = isUuid(id) ? await findSession(ctx.db, id) : undefined;
  if (!row || !(await isPermitted(ctx, 'sessions:delete', targetOf(row)))) throw notFound('Session');
  await endSession(ctx, row.id);
}

const revokedFact = (ctx: Ctx, id: string, identityId: string): Statement =>
  fact(ctx, {
    type: 'session.revoked',
    resource_type: 'session',
    resource_id: id,
    data: { identity_id: identityId },
  });

/** Ends all sessions of the caller, the current one as well; or of another identity, where policy lets the caller. */
export async function revokeAllSessions(ctx: Ctx, identityId: string | undefined) {
  const of = identityId ?? ctx.actor.identity_id ?? '';
  await authorize(ctx, 'sessions:delete', { owner: of });
  const count = isUuid(of) ? await revokeSessions(ctx, of) : 0;
  return { message: `Revoked ${count} sessions`, revoked_count: count };
}

/**
 * Ends all sessions of an identity, or all but one, for every process; `ctx.db` may be a transaction.
 * @returns how many ended
 */
export const revokeSessions = (ctx: Ctx, identityId: string, keep?: string): Promise<number> =>
  revokeSessionsOf(ctx, [identityId], keep);

/** Ends all sessions of identities, or all but one; see `revokeSessions`. */
export async function revokeSessionsOf(ctx: Ctx, identityIds: string[], keep?: string): Promise<number> {
  return ctx.db.transaction(async (tx) => {
    const ended = await tx.rows(revokeSessionRows(ctx.tenant, identityIds, keep, new Date()));
    await tx.batch(ended.map(({ id, identity_id }) => revokedFact(ctx, id, identity_id)));
    for (const { id } of ended)
      tx.afterCommit(() => ctx.app.shared.invalidate('session', `${ctx.tenant}/${id}`));
    return ended.length;
  });
}

/** Says who is signed in. @throws ApiError 401 when the credential is not a session's access token */
export async function testSession(ctx: Ctx) {
  const { actor } = ctx;
  const identity = actor.session_id && actor.identity_id && (await findIdentity(ctx.db, actor.identity_id));
  if (!identity) throw unauthorized('The access token of a session is needed in the Authorization header.');
  return { message: 'Session authentication successful', identity };
}

/** Ends one session, for every process; `ctx.db` may be a transaction. @returns false when it had ended before */
export async function endSession(ctx: Ctx, id: string): Promise<boolean> {
  return ctx.db.transaction(async (tx) => {
    const ended = await tx.one(revokeSessionRow(ctx.tenant, id, new Date()));
    if (!ended) return false;
    await tx.run(revokedFact(ctx, id, ended.identity_id));
    tx.afterCommit(() => ctx.app.shared.invalidate('session', `${ctx.tenant}/${id}`));
    return true;
  });
}
