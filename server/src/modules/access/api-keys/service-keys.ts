import type { Ctx, Target } from '#platform/context.ts';
import { forbidden, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize, isPermitted, requireNotActing } from '#platform/permission.ts';
import { insertIdentity, newIdentity } from '../identity/service.ts';
import { mayGiveRole, visiblePage } from '../policy/service.ts';
import { endAfter, requireRoom } from './bounds.ts';
import { prepareApiKey } from './prepare.ts';
import type { ServiceKey, ServiceKeyCreate } from './schema.ts';
import { scopesFrom } from './scopes.ts';
import { keyPrefix } from './secret.ts';
import { daysBefore, inactiveDays, revokeApiKey } from './service.ts';
import { findKeyWithRole, type KeyWithRole, listKeysWithRole } from './store.ts';

// The door by which those who administer a tenant give keys to services. Same table and rules as the other one; each
// key gets an identity of its own, so that what services do can be told apart.

const shown = (row: KeyWithRole): ServiceKey => ({
  key_id: row.id,
  key_prefix: keyPrefix(row.tenant_id, row.id),
  name: row.name,
  role: row.role,
  created_at: row.created_at,
  last_used_at: row.last_used_at,
  expires_at: row.expires_at,
  revoked_at: row.revoked_at,
  is_active: row.is_active && (row.expires_at === null || Date.parse(row.expires_at) > Date.now()),
});

/**
 * Makes a key with an identity of its own of the given role.
 * @throws ApiError 403 for who may not make keys for others, or not give the role; 409 KEY_LIMIT_REACHED
 */
export async function createServiceKey(ctx: Ctx, { name, role, expires_in_days }: ServiceKeyCreate) {
  requireNotActing(ctx.actor);
  await authorize(ctx, 'api_keys:create', {});
  if (!mayGiveRole(ctx.actor, role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not give a role above your own.');
  const scopes = scopesFrom(ctx.actor, []);
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    await requireRoom(tx, now);
    const expires_at = await endAfter(ctx, tx, expires_in_days, now);
    const called = name ?? `${role} service`;
    const identity = newIdentity(ctx.tenant, { external_id: `service:${uuidv7()}`, role, name: called }, now);
    const { external_id } = identity;
    const key = prepareApiKey(
      ctx,
      { identity_id: identity.id, name: called, scopes, expires_at, self_serve: true },
      now,
    );
    const [, , made] = await tx.batch([
      insertIdentity(identity),
      fact(ctx, {
        type: 'identity.created',
        resource_type: 'identity',
        resource_id: identity.id,
        after: { role, external_id, is_active: true },
      }),
      ...key.statements,
    ]);
    return { ...shown({ ...made.rows[0]!, role }), api_key: key.text };
  });
}

const targetOf = ({ id, identity_id }: KeyWithRole): Target => ({ id, owner: identity_id });

/** A page of the tenant's keys, newest first; without those that a policy hides. */
const pageOfKeys = (ctx: Ctx, asked: object, query: PageQuery, unused_since?: Date): Promise<Answer> =>
  visiblePage(ctx, 'api_keys:list', asked, query, {
    rows: (from) => listKeysWithRole(ctx.db, { unused_since }, from),
    owned: false,
    target: targetOf,
    position: ({ id }) => [id],
    size: 100,
  });

/**
 * The tenant's keys, whichever way they were made.
 * @throws ApiError 403 for who may not see the tenant's, 400 INVALID_CURSOR
 */
export async function listServiceKeys(ctx: Ctx, query: PageQuery): Promise<Answer> {
  await authorize(ctx, 'api_keys:list', {});
  const { status, body, headers } = await pageOfKeys(ctx, {}, query);
  return new Answer(status, { items: (body as KeyWithRole[]).map(shown) }, headers);
}

/**
 * The tenant's keys that nobody used for so many days and nobody revoked or paused; those past their time among them.
 * @throws ApiError 403 for who may not see the tenant's, 400 INVALID_CURSOR
 */
export async function reportInactiveKeys(
  ctx: Ctx,
  { inactive_days: days = 90, ...query }: PageQuery & { inactive_days?: number },
): Promise<Answer> {
  await authorize(ctx, 'api_keys:list', {});
  const now = Date.now();
  const { status, body, headers } = await pageOfKeys(ctx, { days }, query, daysBefore(now, days));
  const items = (body as KeyWithRole[]).map((row) => {
    const { revoked_at: _, is_active, ...key } = shown(row);
    return { ...key, inactive_days: inactiveDays(row, now), is_expired: !is_active };
  });
  return new Answer(status, { inactive_days_threshold: days, items }, headers);
}

/** Revokes a key; again and again, if need be. @throws ApiError 403, 404 */
export async function revokeServiceKey(ctx: Ctx, id: string): Promise<ServiceKey> {
  await authorize(ctx, 'api_keys:delete', {});
  const row = isUuid(id) ? await findKeyWithRole(ctx.db, id) : undefined;
  if (!row || !(await isPermitted(ctx, 'api_keys:delete', targetOf(row)))) throw notFound('API key');
  await revokeApiKey(ctx, id);
  return shown((await findKeyWithRole(ctx.db, id))!);
}
