import { createCache } from '#platform/cache.ts';
import type { App, Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { authorize } from '#platform/permission.ts';
import type { Identity, IdentityCreate } from './schema.ts';
import { findByExternalId, findIdentity, insertIdentity } from './store.ts';

export { Identity, IdentityCreate, IdentityCreated, rolePattern } from './schema.ts';
export { insertIdentity } from './store.ts';

const cacheOf = perApp((app) => createCache<Identity | undefined>(app.shared, 'identity', 50_000));

/** The identity behind a credential, or undefined when there is none or it is not active. May be as old as the shared cache allows. */
export async function activeIdentity(app: App, tenant: string, id: string): Promise<Identity | undefined> {
  const cache = cacheOf(app);
  const key = `${tenant}/${id}`;
  const identity =
    cache.peek(key) ?? (await cache.get(key, () => findIdentity(app.database.tenant(tenant), id)));
  return identity?.is_active ? identity : undefined;
}

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
    is_active: input.is_active ?? true,
    created_at: at,
    updated_at: at,
    tenant_id: tenant,
  };
}

/** @throws ApiError 404, also for what another tenant has */
export async function getIdentity(ctx: Ctx, id: string): Promise<Identity> {
  const identity = isUuid(id) ? await findIdentity(ctx.db, id) : undefined;
  if (!identity) throw notFound('Identity');
  await authorize(ctx, 'identity:read', { id: identity.id, owner: identity.id, role: identity.role });
  return identity;
}

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
