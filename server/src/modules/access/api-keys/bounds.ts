import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { holdTenant } from '#platform/db/hold.ts';
import { conflict, forbidden } from '#platform/errors.ts';
import type { Identity } from '../identity/service.ts';
import { mayGiveRole } from '../policy/service.ts';
import { countServiceKeys, findApiKey } from './store.ts';

/** When the credential of the caller ends by itself, if it is a key that does. */
async function makersEnd(ctx: Ctx, db: Db): Promise<Date | undefined> {
  if (ctx.actor.type !== 'api_key') return undefined;
  const maker = await findApiKey(db, ctx.actor.credential);
  return maker?.expires_at ? new Date(maker.expires_at) : undefined;
}

const outlives = (end: Date) =>
  forbidden(
    'AUTH_FORBIDDEN',
    `Your API key expires at ${end.toISOString()}. It can not give a key a longer life than its own.`,
  );

/**
 * When a key ends that is given so many days: never later than the key that gives them.
 * @param days null and undefined: no end, or that of the caller's key
 * @throws ApiError 403
 */
export async function endAfter(
  ctx: Ctx,
  db: Db,
  days: number | null | undefined,
  now: Date,
): Promise<Date | null> {
  const end = await makersEnd(ctx, db);
  if (days == null) return end ?? null;
  const wanted = new Date(now.getTime() + days * 86_400_000);
  if (end && wanted > end) throw outlives(end);
  return wanted;
}

/** @throws ApiError 403 when a key lives longer than that of the caller */
export async function requireAsLong(ctx: Ctx, db: Db, expiresAt: string | null): Promise<void> {
  const end = await makersEnd(ctx, db);
  if (end && (expiresAt === null || new Date(expiresAt) > end)) throw outlives(end);
}

/** @throws ApiError 403 when an identity stands above the caller, or beside it where `below` is asked for */
export function requireRank({ actor }: Ctx, { id, role }: Identity, below: boolean): void {
  if (id === actor.identity_id) return;
  if (mayGiveRole(actor, role) && !(below && role === actor.role)) return;
  const of = below ? 'a lower role' : 'your own or a lower role';
  throw forbidden('AUTH_FORBIDDEN', `You may do this for identities of ${of} only.`);
}

const mostServiceKeys = 20;

/** Takes room for one more service key; the tenant's row is the lock. @throws ApiError 409 KEY_LIMIT_REACHED */
export async function requireRoom(tx: Db, now: Date): Promise<void> {
  await holdTenant(tx);
  const counted = await countServiceKeys(tx, now);
  if ((counted?.keys ?? 0) >= mostServiceKeys)
    throw conflict(
      'KEY_LIMIT_REACHED',
      `Your tenant has ${mostServiceKeys} active keys of services. Revoke one first.`,
      { max_active: mostServiceKeys },
    );
}
