import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { conflict, forbidden, invalid, unauthorized } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { authorize } from '#platform/permission.ts';
import {
  checkOwner,
  type Identity,
  type IdentityCreate,
  insertIdentity,
  newIdentity,
} from '../identity/service.ts';
import { mayGiveRole } from '../policy/service.ts';
import { startSession } from '../sessions/service.ts';
import { newTenantId, tenantInsert } from '../tenants/service.ts';

/**
 * Makes an identity and signs it in. With a credential it joins the caller's tenant; without one it becomes the first
 * of a tenant of its own, so that whatever role it asks for gains nothing over anybody.
 * @throws ApiError 401 when registration is closed, 403 for a role above the caller's, 409 IDENTITY_EXISTS, 429
 */
export async function registerIdentity(ctx: Ctx, input: IdentityCreate) {
  if (input.role === 'system')
    throw forbidden('AUTH_FORBIDDEN', 'The role system is made on the command line only.');
  return ctx.tenant ? joinTenant(ctx, input) : signUp(ctx, input);
}

async function joinTenant(ctx: Ctx, input: IdentityCreate) {
  await authorize(ctx, 'identity:create');
  const { scopes, delegation, identity_id } = ctx.actor;
  if (delegation || (scopes && !scopes.includes('admin'))) {
    // The answer is a session, which no scope would bind.
    throw forbidden('AUTH_FORBIDDEN', 'A credential that is limited by scopes can not make identities.');
  }
  if (!mayGiveRole(ctx.actor, input.role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not give a role above your own.');
  await checkOwner(ctx, input.owner_id);
  // An agent belongs to whoever made it, unless told otherwise.
  const owner_id = input.owner_id ?? (input.role === 'agent' && input.owner_id !== null ? identity_id : null);
  return store(ctx, ctx.db, newIdentity(ctx.tenant, { ...input, owner_id: owner_id ?? null }, new Date()));
}

async function signUp(ctx: Ctx, input: IdentityCreate) {
  if (!ctx.app.config.openRegistration)
    throw unauthorized('Registration is closed. Ask an administrator for an identity.');
  if (input.owner_id != null)
    throw invalid([{ path: '/owner_id', message: 'is not an identity of your tenant' }]);
  await limitAddress(ctx, 'signup', ctx.app.config.SIGN_UPS_PER_HOUR);
  const tenant = newTenantId();
  const now = new Date();
  const db = ctx.app.database.tenant(tenant);
  const inTenant: Ctx = Object.create(ctx, { tenant: { value: tenant }, db: { value: db } });
  return store(inTenant, db, newIdentity(tenant, input, now), [
    tenantInsert(tenant, `Tenant for ${input.external_id}`, now),
    fact(inTenant, { type: 'tenant.created', resource_type: 'tenant', resource_id: tenant }),
  ]);
}

async function store(ctx: Ctx, db: Db, identity: Identity, before: Parameters<Db['batch']>[0] = []) {
  const session = await startSession(ctx, identity, new Date(identity.created_at));
  const { role, external_id, is_active } = identity;
  // The session refers to the identity: when the external id is taken nothing is stored at all.
  const stored = await db.transaction(async (tx) => {
    await tx.batch(before);
    const row = await tx.one(insertIdentity(identity));
    if (!row) throw conflict('IDENTITY_EXISTS', 'An identity with this external_id exists in your tenant.');
    await tx.batch([
      ...session.statements,
      fact(ctx, {
        type: 'identity.created',
        resource_type: 'identity',
        resource_id: identity.id,
        after: { role, external_id, is_active },
      }),
    ]);
    return row;
  });
  return { ...session.tokens, identity: stored };
}
