import { randomBytes } from 'node:crypto';
import { type Ctx, inTenant } from '#platform/context.ts';
import { sameBytes } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { unauthorized } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { parseRefreshToken, type RefreshTokenText, refreshHash, successorOf } from './refresh-token.ts';
import type { Tokens } from './schema.ts';
import { lockForRefresh, type RefreshState, revokeSessionRow, rotateRefreshToken } from './store.ts';
import { signAccessToken } from './tokens.ts';

/**
 * How long the token before the current one is answered with the current one: two calls of one client that came
 * together, or its second attempt when the first answer was lost with the connection or the process.
 */
const graceMs = 10_000;

/**
 * Gives new tokens for a refresh token, which is then spent (RFC 9700, section 4.14.2). Whoever comes with a spent one
 * later has a copy that nobody should have: the session ends, for both.
 * @throws ApiError 401 with the same words whatever was wrong, 429, 503
 */
export async function refreshSession(ctx: Ctx, token: string): Promise<Tokens> {
  const { app } = ctx;
  await limitAddress(ctx, 'refresh', app.config.REFRESHES_PER_HOUR);
  const named = parseRefreshToken(app.keys, token);
  const refreshed =
    named && (await app.database.tenant(named.tenant).transaction((tx) => spend(ctx, tx, named, token)));
  app.nudgeRelay();
  if (!refreshed) throw unauthorized('The refresh token is not valid any more. Sign in again.');
  const { tenant, session } = named;
  return {
    access_token: await signAccessToken(app, { tenant, session, identity: refreshed.identity_id }),
    refresh_token: refreshed.token,
    token_type: 'bearer',
    expires_in: app.config.ACCESS_TOKEN_TTL_S,
  };
}

type Verdict = 'rotate' | 'repeat' | 'replayed' | 'refuse';

function judge(session: RefreshState, hash: Buffer, now: Date): Verdict {
  if (!session.is_active || !session.holder_is_active || Date.parse(session.expires_at) <= now.getTime())
    return 'refuse';
  if (sameBytes(hash, session.refresh_hash)) return 'rotate';
  // Only while its successor is unused: a client that already came with the successor has had this answer.
  const spentNow = session.previous_hash !== null && sameBytes(hash, session.previous_hash);
  return spentNow && now.getTime() - Date.parse(session.rotated_at!) < graceMs ? 'repeat' : 'replayed';
}

/** Decides and acts under the lock of the session's row, so that of any number of calls one is the first. */
async function spend(
  ctx: Ctx,
  tx: Db,
  named: RefreshTokenText,
  token: string,
): Promise<{ token: string; identity_id: string } | undefined> {
  const { keys } = ctx.app;
  const session = await lockForRefresh(tx, named.session);
  if (!session) return undefined;
  const { identity_id } = session;
  // After the wait for the lock: what counts is the order in which calls are decided.
  const now = new Date();
  const hash = refreshHash(keys, token);
  switch (judge(session, hash, now)) {
    case 'refuse':
      return undefined;
    case 'repeat':
      return { identity_id, token: successorOf(keys, named, token, session.successor_salt!) };
    case 'replayed':
      await endReplayed(ctx, tx, named, session, now);
      return undefined;
    case 'rotate': {
      const salt = randomBytes(32);
      const next = successorOf(keys, named, token, salt);
      await tx.batch([
        rotateRefreshToken({
          tenant_id: named.tenant,
          id: named.session,
          refresh_hash: refreshHash(keys, next),
          previous_hash: hash,
          successor_salt: salt,
          ip: ctx.request?.ip ?? null,
          user_agent: ctx.request?.user_agent?.slice(0, 400) ?? null,
          now,
        }),
        fact(asHolder(ctx, named, session), {
          type: 'session.refreshed',
          resource_type: 'session',
          resource_id: named.session,
          data: { identity_id },
        }),
      ]);
      return { identity_id, token: next };
    }
  }
}

/** Ends a session one of whose spent tokens came again. Who sent it is not known: the fact names the address only. */
async function endReplayed(
  ctx: Ctx,
  tx: Db,
  { tenant, session: id }: RefreshTokenText,
  { identity_id, rotated_at }: RefreshState,
  now: Date,
): Promise<void> {
  const inside = inTenant(ctx, tenant);
  const about = { resource_type: 'session', resource_id: id };
  await tx.batch([
    revokeSessionRow(tenant, id, now),
    fact(inside, {
      ...about,
      type: 'session.replayed',
      outcome: 'failure',
      data: { identity_id, last_refreshed_at: rotated_at },
    }),
    fact(inside, { ...about, type: 'session.revoked', data: { identity_id, reason: 'replayed' } }),
  ]);
  tx.afterCommit(() => {
    ctx.app.shared.invalidate('session', `${tenant}/${id}`);
    ctx.log.warn(
      { tenant_id: tenant, session_id: id },
      'a spent refresh token came again; its session was ended',
    );
  });
}

/** The request as that of the session's own identity, for the fact. */
const asHolder = (ctx: Ctx, { tenant, session }: RefreshTokenText, holder: RefreshState): Ctx =>
  inTenant(ctx, tenant, {
    type: 'identity',
    identity_id: holder.identity_id,
    external_id: holder.external_id,
    role: holder.role,
    claims: {},
    credential: session,
    session_id: session,
  });
