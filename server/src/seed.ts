import { prepareApiKey } from '#modules/access/api-keys/service.ts';
import { ensureIdentity } from '#modules/access/identity/service.ts';
import { tenantInsert } from '#modules/access/tenants/service.ts';
import { DEMO_TENANT_ID } from '#modules/knowledge/documents/demo.ts';
import type { App } from '#platform/context.ts';
import { systemCtx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';

/**
 * Makes the demo tenant with its corpus and an admin key, unless the tenant is there.
 * @returns the key, shown only now; undefined when there was nothing to do
 */
export async function seedDemo(app: App): Promise<{ key: string } | undefined> {
  const tenant = DEMO_TENANT_ID;
  const ctx = systemCtx(app, tenant, uuidv7());
  return ctx.db.transaction(async (tx) => {
    const made = await tx.rows(tenantInsert(tenant, 'Demo tenant', new Date()));
    if (made.length === 0) return undefined;
    await tx.run(fact(ctx, { type: 'tenant.created', resource_type: 'tenant', resource_id: tenant }));
    const admin = await ensureIdentity({ ...ctx, db: tx }, 'demo-admin', 'admin');
    const key = prepareApiKey(ctx, { identity_id: admin.id, name: 'demo-admin' }, new Date());
    await tx.batch(key.statements);
    return { key: key.text };
  });
}
