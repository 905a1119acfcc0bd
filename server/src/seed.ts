import { setTimeout as sleep } from 'node:timers/promises';
import { prepareApiKey } from '#modules/access/api-keys/service.ts';
import { ensureIdentity } from '#modules/access/identity/service.ts';
import { tenantInsert } from '#modules/access/tenants/service.ts';
import { createCorpus } from '#modules/knowledge/corpora/service.ts';
import { DEMO_CORPUS_ID, DEMO_TENANT_ID, demoDocuments } from '#modules/knowledge/documents/demo.ts';
import { isBeingRead, storeText } from '#modules/knowledge/documents/service.ts';
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
    const inside = { ...ctx, db: tx };
    const admin = await ensureIdentity(inside, 'demo-admin', 'admin');
    await createCorpus(inside, { id: DEMO_CORPUS_ID, name: 'Demo corpus' });
    // Ingested as any document is: by the jobs that follow from these facts.
    for (const document of demoDocuments) await storeText(inside, { corpus_id: DEMO_CORPUS_ID, ...document });
    const key = prepareApiKey(ctx, { identity_id: admin.id, name: 'demo-admin' }, new Date());
    await tx.batch(key.statements);
    return { key: key.text };
  });
}

const patienceMs = 10_000;

/** Waits until the demo corpus is searched, if not for ever: who is told that the server is ready asks at once. */
export async function untilDemoIsRead(app: App): Promise<void> {
  const ctx = systemCtx(app, DEMO_TENANT_ID, uuidv7());
  const until = performance.now() + patienceMs;
  while (performance.now() < until && (await isBeingRead(ctx, DEMO_CORPUS_ID))) await sleep(25);
}
