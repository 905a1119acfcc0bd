import { type App, systemCtx } from '#platform/context.ts';
import { forgetTenantRows } from '#platform/db/forget.ts';
import { whileAlone } from '#platform/db/hold.ts';
import { factRow, insertFacts } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { SYSTEM_TENANT, tenantChanged } from './service.ts';
import { deleteTenantRow, findTenantResource, listDeletedTenants } from './store.ts';

/** Removes what a tenant has outside the database. */
export type ForgetTenant = (app: App, tenant: string) => Promise<void>;

/** As long as anything that was under way when a tenant was deleted might still write: uploads, runs, jobs. */
const underWayMs = 15 * 60_000;

/**
 * Removes all that deleted tenants have, again and again until nothing can come any more; then the tenant itself, and its
 * id may be given again. Of the deletion only the operators' ledger tells. One that fails does not hold up the others.
 * @returns those that no other process was at work on
 */
export async function purgeTenants(
  app: App,
  outside: ForgetTenant[],
  now = Date.now(),
): Promise<{ purged: string[] }> {
  const purged: string[] = [];
  for (const { id } of await listDeletedTenants(app.database.operator)) {
    app.closing.throwIfAborted();
    try {
      // What another has not committed yet can not be seen, and would be taken for nothing.
      if (await whileAlone(app.database, `tenants.purge ${id}`, () => purge(app, id, outside, now)))
        purged.push(id);
    } catch (error) {
      app.closing.throwIfAborted();
      app.log.error(
        { err: error, tenant_id: id },
        'a deleted tenant could not be removed; it is tried again',
      );
    }
  }
  return { purged };
}

async function purge(app: App, id: string, outside: ForgetTenant[], now: number): Promise<void> {
  // Asked again: another may have removed it meanwhile, and somebody taken its id.
  const deletedAt = (await findTenantResource(app.database.tenant(id)))?.deleted_at;
  if (!deletedAt) return;
  for (const forget of outside) await forget(app, id);
  const rows = await forgetTenantRows(app.database, id, app.closing);
  await app.shared.clear(`${id}:`);
  if (rows > 0) app.log.info({ tenant_id: id, rows }, 'a deleted tenant had rows still, or jobs at work');
  if (rows > 0 || now - Date.parse(deletedAt) <= underWayMs) return;
  const gone = factRow(systemCtx(app, SYSTEM_TENANT, uuidv7()), {
    type: 'tenant.deleted',
    resource_type: 'tenant',
    resource_id: id,
  });
  await app.database.operator.transaction(async (tx) => {
    const [deleted] = await tx.rows(deleteTenantRow(id));
    if (deleted) await tx.run(insertFacts(SYSTEM_TENANT, [gone]));
  });
  tenantChanged(app, id);
}

/** @param outside what is to be removed besides rows */
export const tenantSchedules = (outside: ForgetTenant[]): Schedule[] => [
  {
    name: 'tenants.purge',
    pattern: '*/15 * * * * *',
    run: async (app) => void (await purgeTenants(app, outside)),
  },
];
