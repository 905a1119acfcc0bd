import { createCache } from '#platform/cache.ts';
import type { Plan } from '#platform/config.ts';
import type { App } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { findTenant, insertTenant, listAllTenants, type Tenant } from './store.ts';

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
  insertTenant(tenantId, name, now);

/** Every tenant of the installation, for the operator. */
export const listTenants = (app: App): Promise<Tenant[]> => listAllTenants(app.database.operator);

/** Tells all processes that a tenant changed. */
export const tenantChanged = (app: App, tenantId: string): void => app.shared.invalidate('tenant', tenantId);
