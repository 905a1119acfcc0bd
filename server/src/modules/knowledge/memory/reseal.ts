import type { App, Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { dataKeysNow, dropRetiredKeys, tenantsWithRetiredKeys } from '../../access/data-keys/service.ts';
import { openTexts, sealText } from './encryption.ts';
import { sealVersions } from './history-store.ts';
import {
  lockSealedOtherwise,
  lockVersionsSealedOtherwise,
  type Resealed,
  resealMemories,
  type SealedRow,
} from './reseal-store.ts';

const batch = 200;

/** Seals with the tenant's new key what older ones sealed, a batch at a time, and drops keys that nothing needs any more. */
export async function resealAll(ctx: Ctx): Promise<void> {
  await resealEach(ctx, lockSealedOtherwise, resealMemories);
  await resealEach(ctx, lockVersionsSealedOtherwise, sealVersions);
  await dropRetiredKeys(ctx);
}

async function resealEach(
  ctx: Ctx,
  lock: (tx: Db, key: string, limit: number) => Promise<SealedRow[]>,
  store: (tenant: string, rows: Resealed[]) => Statement,
): Promise<void> {
  for (let count = batch; count === batch; ) {
    ctx.signal.throwIfAborted();
    count = await ctx.db.transaction(async (tx) => {
      const asking = { app: ctx.app, tenant: ctx.tenant, db: tx };
      // Not what a cache says: with a key that is older than that the work would be undone.
      const keys = await dataKeysNow(asking);
      const rows = await lock(tx, keys.seals.id, batch);
      const texts = await openTexts(
        asking,
        rows.map((row) => ({ ...row, text: '' })),
      );
      const resealed = rows.map(({ id, version }, i) => ({
        id,
        version,
        ...sealText(keys, id, version, texts[i]!),
      }));
      if (rows.length > 0) await tx.run(store(ctx.tenant, resealed));
      return rows.length;
    });
  }
}

/** Looks again at tenants whose former keys are still there: something may have been sealed with one until a moment ago. */
export async function tendRetiredKeys(app: App): Promise<void> {
  const tenants = await tenantsWithRetiredKeys(app);
  await app.enqueue(
    'memory.reseal',
    tenants.map((tenant_id) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}
