import { type Ctx, inTenant } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';
import { conflict, forbidden, invalid, unauthorized } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { authorize, isNarrowed, requireNotActing } from '#platform/permission.ts';
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

/** Where an identity may be made: the context of its tenant, and what has to be stored before it. */
export interface Admission {
  ctx: Ctx;
  before: Statement[];
  owner_id: string | null;
}

/**
 * Makes an identity and signs it in. With a credential it joins the caller's tenant; without one it becomes the first
 * of a tenant of its own, so that whatever role it asks for gains nothing over anybody.
 * @throws ApiError 401 when registration is closed, 403 for a role above the caller's, 409 IDENTITY_EXISTS, 429
 */
export async function registerIdentity(ctx: Ctx, input: IdentityCreate) {
  return enrol(await admit(ctx, input), input);
}

/**
 * Decides whether an identity may be made, before anything is.
 * @throws ApiError 401 when registration is closed, 403 for a role above the caller's, 429
 */
export async function admit(ctx: Ctx, input: IdentityCreate): Promise<Admission> {
  if (input.role === 'system')
    throw forbidden('AUTH_FORBIDDEN', 'The role system is made on the command line only.');
  return ctx.tenant ? joinTenant(ctx, input) : signUp(ctx, input);
}

async function joinTenant(ctx: Ctx, input: IdentityCreate): Promise<Admission> {
  await authorize(ctx, 'identity:create');
  requireNotActing(ctx.actor);
  if (isNarrowed(ctx.actor)) {
    // The answer is a session, which no scope would bind.
    throw forbidden('AUTH_FORBIDDEN', 'A credential that is limited by scopes can not make identities.');
  }
  if (!mayGiveRole(ctx.actor, input.role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not give a role above your own.');
  await checkOwner(ctx, input.owner_id);
  // An agent belongs to whoever made it, unless told otherwise.
  const isMine = input.role === 'agent' && input.owner_id === undefined;
  return { ctx, before: [], owner_id: (isMine ? ctx.actor.identity_id : input.owner_id) ?? null };
}

async function signUp(ctx: Ctx, input: IdentityCreate): Promise<Admission> {
  if (!ctx.app.config.openRegistration)
    throw unauthorized('Registration is closed. Ask an administrator for an identity.');
  if (input.is_active === false)
    throw invalid([{ path: '/is_active', message: 'must be true: nobody else could activate who signs up' }]);
  if (input.owner_id != null)
    throw invalid([{ path: '/owner_id', message: 'is not an identity of your tenant' }]);
  await limitAddress(ctx, 'signup', ctx.app.config.SIGN_UPS_PER_HOUR);
  const tenant = newTenantId();
  const own = inTenant(ctx, tenant);
  return {
    ctx: own,
    owner_id: null,
    before: [
      tenantInsert(tenant, `Tenant for ${input.external_id}`, new Date()),
      fact(own, { type: 'tenant.created', resource_type: 'tenant', resource_id: tenant }),
    ],
  };
}

/**
 * Stores an identity that was admitted, with its session. One that is not active yet has none: it signs in, or gets a key,
 * once it is.
 * @param more stores what belongs to it in the same transaction
 * @throws ApiError 409 IDENTITY_EXISTS
 */
export async function enrol(
  { ctx, before, owner_id }: Admission,
  input: IdentityCreate,
  more?: (tx: Db, identity: Identity) => Promise<void>,
) {
  const identity = newIdentity(ctx.tenant, { ...input, owner_id }, new Date());
  const session = identity.is_active
    ? await startSession(ctx, identity, new Date(identity.created_at))
    : undefined;
  const { role, external_id, is_active } = identity;
  // The session refers to the identity: when the external id is taken nothing is stored at all.
  const stored = await ctx.db.transaction(async (tx) => {
    await tx.batch(before);
    const row = await tx.one(insertIdentity(identity));
    if (!row) throw identityExists();
    await tx.batch([
      ...(session?.statements ?? []),
      fact(ctx, {
        type: 'identity.created',
        resource_type: 'identity',
        resource_id: identity.id,
        after: { role, external_id, is_active },
      }),
    ]);
    await more?.(tx, row);
    return row;
  });
  return { ...session?.tokens, identity: stored };
}

export const identityExists = () =>
  conflict('IDENTITY_EXISTS', 'An identity with this external_id exists in your tenant.');
