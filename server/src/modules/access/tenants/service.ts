import { createCache } from '#platform/cache.ts';
import type { Plan } from '#platform/config.ts';
import { type Actor, type App, type Ctx, inTenant } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';
import { conflict, forbidden, notFound } from '#platform/errors.ts';
import { recordDenial } from '#platform/facts/denials.ts';
import { factRow, insertFacts } from '#platform/facts/record.ts';
import { page, positionOf } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import type { TenantCreate, TenantResource, TenantUpdate } from './schema.ts';
import {
  findTenant,
  findTenantResource,
  insertTenant,
  listAllTenants,
  listTenantsAfter,
  lockTenantRow,
  markTenantDeleted,
  type Tenant,
  updateTenant,
} from './store.ts';

/**
 * Where the operators of the installation live: identities with the role `system`, made on the command line. It holds
 * nothing else, and nobody with another role; no tenant is made, listed or changed under this name.
 */
export const SYSTEM_TENANT = 'system';

/** Makes the operators' tenant, unless it is there; in the transaction that makes an operator. */
export async function ensureOperators(ctx: Ctx, tx: Db): Promise<void> {
  const made = await tx.one(insertTenant(SYSTEM_TENANT, 'Operators of the installation', null, new Date()));
  if (!made) return;
  const type = 'tenant.created';
  const created = factRow(ctx, { type, resource_type: 'tenant', resource_id: SYSTEM_TENANT });
  await tx.run(insertFacts(SYSTEM_TENANT, [created]));
}

/** True unless an identity has the role `system` outside the operators' tenant, or another role inside it. */
export const isAtHome = (tenantId: string, { role }: Actor): boolean =>
  (role === 'system') === (tenantId === SYSTEM_TENANT);

const cacheOf = perApp((app) => createCache<Tenant | undefined>(app.shared, 'tenant', 10_000));

/** The tenant, or undefined when there is none. May be as old as the shared cache allows. */
export async function tenantOf(app: App, tenantId: string): Promise<Tenant | undefined> {
  const cache = cacheOf(app);
  return (
    cache.peek(tenantId) ?? cache.get(tenantId, () => findTenant(app.database.tenant(tenantId), tenantId))
  );
}

export async function planOf(app: App, tenantId: string): Promise<Plan> {
  return (await tenantOf(app, tenantId))?.plan ?? app.config.defaultPlan;
}

/** An id nobody chose, for tenants that come from sign-ups. */
export const newTenantId = (): string => `ten-${uuidv7().replaceAll('-', '')}`;

/** The statement that makes a tenant; `created_at` as RFC 3339. */
export const tenantInsert = (tenantId: string, name: string, now: Date): Statement =>
  insertTenant(tenantId, name, null, now);

/** Every tenant of the installation, for the operator. */
export const listTenants = (app: App): Promise<Tenant[]> => listAllTenants(app.database.operator);

/** Tells all processes that a tenant changed. */
export const tenantChanged = (app: App, tenantId: string): void => app.shared.invalidate('tenant', tenantId);

/**
 * Tenants belong to the installation: no policy that a tenant writes for itself reaches them.
 * @throws ApiError 403
 */
function requireOperator(ctx: Ctx): void {
  if (ctx.tenant === SYSTEM_TENANT && ctx.actor.role === 'system') return;
  recordDenial(ctx, 'tenants:read', undefined, { policy_id: null, reason: 'operators_only' });
  throw forbidden('AUTH_FORBIDDEN', 'Tenants are managed by operators of the installation only.');
}

/** A page of the tenants, by id. @throws ApiError 403, 400 INVALID_CURSOR */
export async function tenantPage(ctx: Ctx, query: { limit?: number; cursor?: string }): Promise<Answer> {
  requireOperator(ctx);
  const limit = query.limit ?? 25;
  const [after = ''] = (positionOf(ctx, 'tenants', {}, query.cursor) ?? []) as [string?];
  const rows = await listTenantsAfter(ctx.app.database.operator, after, SYSTEM_TENANT, limit);
  return page(ctx, 'tenants', {}, rows, limit, ({ id }) => [id]);
}

/** @throws ApiError 403, 404 */
export async function getTenant(ctx: Ctx, id: string): Promise<TenantResource> {
  requireOperator(ctx);
  const found = isTenantId(id) ? await findTenantResource(ctx.app.database.tenant(id)) : undefined;
  if (!found) throw notFound('Tenant');
  return found;
}

/** @throws ApiError 403, 409 TENANT_EXISTS */
export async function createTenant(ctx: Ctx, input: TenantCreate): Promise<TenantResource> {
  requireOperator(ctx);
  return makeTenant(ctx, input);
}

/** @throws ApiError 403, 404 */
export async function changeTenant(ctx: Ctx, id: string, change: TenantUpdate): Promise<TenantResource> {
  requireOperator(ctx);
  return setTenant(ctx, id, change);
}

const isTenantId = (id: string): boolean => isSlug(id) && id !== SYSTEM_TENANT;

/**
 * The request of an operator inside a tenant: what it does there stands in that tenant's ledger, under the operator's name.
 * @throws ApiError 403, 404
 */
export async function insideTenant(ctx: Ctx, id: string): Promise<Ctx> {
  await getTenant(ctx, id);
  return inTenant(ctx, id);
}

/** Makes a tenant, for whoever may; the fact stands in the new tenant's ledger. @throws ApiError 409 TENANT_EXISTS */
export async function makeTenant(ctx: Ctx, { id, name, plan }: TenantCreate): Promise<TenantResource> {
  const taken = () => conflict('TENANT_EXISTS', 'A tenant with this id exists. Choose another id.');
  if (!isTenantId(id)) throw taken();
  const tenant = await ctx.app.database.tenant(id).transaction(async (tx) => {
    const made = await tx.one(insertTenant(id, name ?? id, plan ?? null, new Date()));
    if (!made) throw taken();
    const created = factRow(ctx, {
      type: 'tenant.created',
      resource_type: 'tenant',
      resource_id: id,
      after: stateOf(made),
    });
    await tx.run(insertFacts(id, [created]));
    return made;
  });
  tenantChanged(ctx.app, id);
  return tenant;
}

/** Changes a tenant, for whoever may. Deactivated, its credentials are refused by every process. @throws ApiError 404, 409 TENANT_DELETED */
export async function setTenant(ctx: Ctx, id: string, change: TenantUpdate): Promise<TenantResource> {
  if (!isTenantId(id)) throw notFound('Tenant');
  const tenant = await ctx.app.database.tenant(id).transaction(async (tx) => {
    const before = await lockTenantRow(tx);
    if (!before) throw notFound('Tenant');
    if (before.deleted_at) throw beingDeleted();
    const wanted: TenantResource = { ...before, ...change };
    if (JSON.stringify(stateOf(wanted)) === JSON.stringify(stateOf(before))) return before;
    const after = { ...wanted, updated_at: new Date().toISOString() };
    const updated = factRow(ctx, {
      type: 'tenant.updated',
      resource_type: 'tenant',
      resource_id: id,
      before: stateOf(before),
      after: stateOf(after),
    });
    await tx.batch([updateTenant(after), insertFacts(id, [updated])]);
    return after;
  });
  tenantChanged(ctx.app, id);
  return tenant;
}

const beingDeleted = () =>
  conflict('TENANT_DELETED', 'This tenant is being removed with all it has. There is no way back.');

/** @throws ApiError 403, 404, 409 TENANT_ACTIVE */
export async function deleteTenant(ctx: Ctx, id: string): Promise<TenantResource> {
  requireOperator(ctx);
  return removeTenant(ctx, id);
}

/**
 * Removes a tenant with all it has, for whoever may: a schedule does it, from this moment on. It must have been
 * deactivated before, so that nothing comes while its things go, and nobody removes a tenant by a slip.
 * @throws ApiError 404, 409 TENANT_ACTIVE
 */
export async function removeTenant(ctx: Ctx, id: string): Promise<TenantResource> {
  const { database } = ctx.app;
  const before = isTenantId(id) ? await findTenantResource(database.tenant(id)) : undefined;
  if (!before) throw notFound('Tenant');
  // In the operators' ledger: the tenant's own goes with it.
  const requested = factRow(ctx, {
    type: 'tenant.deletion_requested',
    resource_type: 'tenant',
    resource_id: id,
    before: stateOf(before),
  });
  return database.operator.transaction(async (tx) => {
    const [marked] = await tx.rows(markTenantDeleted(id, new Date()));
    if (!marked)
      throw conflict('TENANT_ACTIVE', 'This tenant is active. Deactivate it first, then delete it.');
    if (!before.deleted_at) await tx.run(insertFacts(SYSTEM_TENANT, [requested]));
    return marked;
  });
}

const stateOf = ({ name, plan, is_active }: TenantResource) => ({ name, plan, is_active });
