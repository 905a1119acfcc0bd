import { createCache } from '#platform/cache.ts';
import type { Actor, App, Ctx, Target } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { type ApiError, conflict, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { isPermitted } from '#platform/permission.ts';
import { visiblePage } from '../policy/service.ts';
import type { Identity, IdentityCreate, IdentityList, Myself } from './schema.ts';
import { findByExternalId, findIdentity, insertIdentity, listIdentities } from './store.ts';

export { canonicalEmail } from './email.ts';
export { Identity, IdentityCreate, IdentityCreated, IdentityParams, Myself, rolePattern } from './schema.ts';
export {
  activeHolder,
  findActiveIdentities,
  findIdentity,
  holdActive,
  insertIdentity,
  listActiveIdentities,
  listByVerifiedEmail,
  listRoles,
} from './store.ts';

const cacheOf = perApp((app) => createCache<Identity | undefined>(app.shared, 'identity', 50_000));

/** The identity behind a credential, or undefined when there is none or it is not active. May be as old as the shared cache allows. */
export async function activeIdentity(app: App, tenant: string, id: string): Promise<Identity | undefined> {
  const cache = cacheOf(app);
  const key = `${tenant}/${id}`;
  const identity =
    cache.peek(key) ?? (await cache.get(key, () => findIdentity(app.database.tenant(tenant), id)));
  return identity?.is_active ? identity : undefined;
}

/** An identity as policies see it: an agent belongs to its owner. */
export const targetOf = ({ id, owner_id, role }: Pick<Identity, 'id' | 'owner_id' | 'role'>): Target => ({
  id,
  role,
  ...(owner_id === null ? {} : { owner: owner_id }),
});
/** True when a tenant has this identity now; for checks inside a transaction. */
export const isActiveIdentity = async (tx: Db, id: string): Promise<boolean> =>
  (await findIdentity(tx, id))?.is_active ?? false;

/** A new identity as a row; nothing is stored yet. */
export function newIdentity(tenant: string, input: IdentityCreate, now: Date): Identity {
  const at = now.toISOString();
  return {
    id: uuidv7(),
    external_id: input.external_id,
    role: input.role,
    name: input.name ?? null,
    description: input.description ?? null,
    claims: input.claims ?? {},
    owner_id: input.owner_id ?? null,
    is_active: input.is_active ?? true,
    created_at: at,
    updated_at: at,
    tenant_id: tenant,
  };
}

/** @throws ApiError 422 for an owner that is no identity of the tenant */
export async function checkOwner(ctx: Ctx, ownerId: string | null | undefined): Promise<void> {
  if (ownerId == null) return;
  if (!isUuid(ownerId) || !(await findIdentity(ctx.db, ownerId)))
    throw invalid([{ path: '/owner_id', message: 'is not an identity of your tenant' }]);
}

/** @throws ApiError 404 also for one that the caller may not see */
export async function getIdentity(ctx: Ctx, id: string): Promise<Identity> {
  const identity = isUuid(id) ? await findIdentity(ctx.db, id) : undefined;
  if (!identity || !(await isPermitted(ctx, 'identity:read', targetOf(identity)))) throw notFound('Identity');
  return identity;
}

/** The identity behind the credential, and who acts for it. @throws ApiError 404 for a credential without one */
export async function getMyself(ctx: Ctx): Promise<Myself> {
  const { identity_id, delegation } = ctx.actor;
  const identity = identity_id ? await findIdentity(ctx.db, identity_id) : undefined;
  if (!identity) throw notFound('Identity');
  if (!delegation) return identity;
  const { grant_id, scopes, agents } = delegation;
  return {
    ...identity,
    delegation: {
      grant_id,
      agents: agents.map(({ identity_id: id, external_id, role }) => ({ id, external_id, role })),
      scopes,
    },
  };
}

/** Identities the caller may see, newest first: all of the tenant, or itself and the agents that belong to it. */
export const listVisibleIdentities = (
  ctx: Ctx,
  { role, is_active = true, ...query }: IdentityList,
): Promise<Answer> => {
  const filter = { role, is_active };
  return visiblePage(ctx, 'identity:list', filter, query, {
    rows: (from) => listIdentities(ctx.db, filter, from),
    owned: true,
    target: targetOf,
    position: (row) => [row.created_at, row.id],
    size: 100,
  });
};

/**
 * Ends what identities can act by, in the transaction of `ctx.db` that deactivates or removes them. The modules of those
 * credentials stand above this one: whoever makes the routes says which there are.
 */
export type EndCredentials = (ctx: Ctx, identityIds: string[]) => Promise<void>;

export const identityInactive = () =>
  conflict('IDENTITY_INACTIVE', 'This identity is not active: a key of its would not work.');

/**
 * Waits for what stores a credential, whose identity may be deactivated or removed at this moment; see `activeHolder`.
 * @throws ApiError `refusal` when it was
 */
export async function whileActive<T>(storing: Promise<T>, refusal: () => ApiError): Promise<T> {
  try {
    return await storing;
  } catch (error) {
    const { code, column } = error as { code?: string; column?: string };
    throw code === '23502' && ['identity_id', 'subject_id', 'agent_id'].includes(column!) ? refusal() : error;
  }
}

/** Tells all processes that identities changed, once they have. */
export const identitiesChanged = (ctx: Ctx, ids: string[]): void =>
  ctx.db.afterCommit(() => {
    for (const id of ids) ctx.app.shared.invalidate('identity', `${ctx.tenant}/${id}`);
  });

/** The identity with this external id, made when it is not there. For the command line and seeds. */
export async function ensureIdentity(ctx: Ctx, externalId: string, role: string): Promise<Identity> {
  const found = await findByExternalId(ctx.db, externalId);
  if (found) return found;
  const identity = newIdentity(ctx.tenant, { external_id: externalId, role }, new Date());
  await ctx.db.batch([
    insertIdentity(identity),
    fact(ctx, {
      type: 'identity.created',
      resource_type: 'identity',
      resource_id: identity.id,
      after: { role, external_id: externalId },
    }),
  ]);
  return identity;
}

/** Who acts when an identity signs in, before there is a session. */
export const actorOf = (identity: Identity): Actor => ({
  type: 'identity',
  identity_id: identity.id,
  external_id: identity.external_id,
  role: identity.role,
  claims: identity.claims,
  credential: identity.id,
});
