import { type App, systemCtx } from '#platform/context.ts';
import { forgetTenantRows } from '#platform/db/forget.ts';
import { factRow, insertFacts } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { SYSTEM_TENANT, tenantChanged } from './service.ts';
import { deleteTenantRow, listDeletedTenants } from './store.ts';

/** Removes what a tenant has outside the database. */
export type ForgetTenant = (app: App, tenant: string) => Promise<void>;

/** As long as anything that was under way when a tenant was deleted might still write: uploads, runs, jobs. */
const underWayMs = 15 * 60_000;

/**
 * Removes all that deleted tenants have, again and again until nothing can come any more; then the tenant itself, and its
 * id may be given again. Of the deletion only the operators' ledger tells.
 */
export async function purgeTenants(app: App, outside: ForgetTenant[], now = Date.now()): Promise<void> {
  const { operator } = app.database;
  for (const { id, deleted_at } of await listDeletedTenants(operator)) {
    const isQuiet = now - Date.parse(deleted_at) > underWayMs;
    for (const forget of outside) await forget(app, id);
    const rows = await forgetTenantRows(app.database, id, app.closing);
    await app.shared.clear(`${id}:`);
    if (rows > 0) app.log.info({ tenant_id: id, rows }, 'rows of a deleted tenant were removed');
    if (rows > 0 || !isQuiet) continue;
    const gone = factRow(systemCtx(app, SYSTEM_TENANT, uuidv7()), {
      type: 'tenant.deleted',
      resource_type: 'tenant',
      resource_id: id,
    });
    await operator.transaction(async (tx) => {
      const [deleted] = await tx.rows(deleteTenantRow(id));
      if (deleted) await tx.run(insertFacts(SYSTEM_TENANT, [gone]));
    });
    tenantChanged(app, id);
  }
}

/** @param outside what is to be removed besides rows */
export const tenantSchedules = (outside: ForgetTenant[]): Schedule[] => [
  { name: 'tenants.purge', pattern: '*/15 * * * * *', run: (app) => purgeTenants(app, outside) },
];
