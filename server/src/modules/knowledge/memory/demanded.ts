import type { App, Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { dataKeysOf } from '../../access/data-keys/service.ts';
import { sealText } from './encryption.ts';
import { sealVersions } from './history-store.ts';
import { knownAfterMs } from './lanes.ts';
import { takeOut } from './remove.ts';
import {
  completeEncryption,
  countEncrypted,
  countPlain,
  findSettings,
  listPlainMemories,
  listPlainVersions,
  listTenantsEncrypting,
  lockPlainMemories,
  lockPlainVersions,
  type MemorySettings,
  setFound,
  sweptEncryption,
} from './sensitive-types-store.ts';
import { sealMemories } from './write-store.ts';

const batch = 200;
const noId = '00000000-0000-0000-0000-000000000000';

/** Something a tenant began to demand, as long as it demands nothing more. */
type Demand = MemorySettings & { demanded_at: string };

async function findDemand(db: Db, since?: string): Promise<Demand | undefined> {
  const found = await findSettings(db);
  if (!found?.demanded_at || (since !== undefined && found.demanded_at !== since)) return undefined;
  return found as Demand;
}

/**
 * Encrypts what a tenant stored before it demanded that of its type: memories, deleted ones too, and what they were. Once more
 * when all processes must know of the demand: what was asked for before may have been written after. It can be broken off
 * anywhere and begun again.
 */
export async function encryptDemanded(ctx: Ctx): Promise<void> {
  for (;;) {
    const demand = await findDemand(ctx.db);
    if (!demand || demand.swept_at !== null) return;
    const since = demand.demanded_at;
    const isSweep = Date.parse(since) + knownAfterMs(ctx.app) < Date.now();
    if (demand.completed_at !== null && !isSweep) return;
    if (demand.found === null)
      await ctx.db.run(setFound(ctx.tenant, since, await countPlain(ctx.db, demand.sensitive_types)));
    // A type was added meanwhile: from the beginning.
    if (!(await encryptMemories(ctx, since)) || !(await encryptVersions(ctx, since))) continue;
    await complete(ctx, since);
    if (isSweep) await ctx.db.run(sweptEncryption(ctx.tenant, since, new Date()));
  }
}

/** @returns false when it was not the last demand any more */
async function encryptMemories(ctx: Ctx, since: string): Promise<boolean> {
  for (let after = noId; ; ) {
    ctx.signal.throwIfAborted();
    const demand = await findDemand(ctx.db, since);
    if (!demand) return false;
    const ids = (await listPlainMemories(ctx.db, demand.sensitive_types, after, batch)).map(({ id }) => id);
    if (ids.length === 0) return true;
    await ctx.db.transaction((tx) => sealThese(ctx, tx, demand, ids));
    after = ids.at(-1)!;
  }
}

/** As they are, in the same version: nothing of them has changed. */
async function sealThese(ctx: Ctx, tx: Db, demand: Demand, ids: string[]): Promise<void> {
  // Some were encrypted, changed or removed since they were listed.
  const memories = await lockPlainMemories(tx, demand.sensitive_types, ids);
  if (memories.length === 0) return;
  const keys = await dataKeysOf({ app: ctx.app, tenant: ctx.tenant, db: tx });
  // Those that were deleted left statistics and vectors then.
  const counted = memories.filter(({ deleted_at }) => deleted_at === null);
  await takeOut(
    tx,
    ctx.tenant,
    counted.map(({ id, text }) => ({ id, text, sensitive: false })),
  );
  await tx.batch([
    sealMemories(
      ctx.tenant,
      memories.map(({ id, version, text }) => ({ id, ...sealText(keys, id, version, text) })),
    ),
    countEncrypted(ctx.tenant, demand.demanded_at, memories.length),
    fact(ctx, {
      type: 'memory.encrypted',
      resource_type: 'memory',
      data: { encrypted_count: memories.length, memory_ids: memories.map(({ id }) => id) },
    }),
  ]);
}

/** @returns false when it was not the last demand any more */
async function encryptVersions(ctx: Ctx, since: string): Promise<boolean> {
  for (let after = { id: noId, version: 0 }; ; ) {
    ctx.signal.throwIfAborted();
    const demand = await findDemand(ctx.db, since);
    if (!demand) return false;
    const keys = await listPlainVersions(ctx.db, demand.sensitive_types, after, batch);
    if (keys.length === 0) return true;
    await ctx.db.transaction(async (tx) => {
      const versions = await lockPlainVersions(tx, keys);
      if (versions.length === 0) return;
      const sealing = await dataKeysOf({ app: ctx.app, tenant: ctx.tenant, db: tx });
      await tx.batch([
        sealVersions(
          ctx.tenant,
          versions.map(({ id, version, text }) => ({ id, version, ...sealText(sealing, id, version, text) })),
        ),
        countEncrypted(ctx.tenant, since, versions.length),
      ]);
    });
    after = keys.at(-1)!;
  }
}

async function complete(ctx: Ctx, since: string): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const [ended] = await tx.rows(completeEncryption(ctx.tenant, since, new Date()));
    if (!ended) return;
    await tx.run(
      fact(ctx, {
        type: 'memory.encryption_completed',
        resource_type: 'memory_settings',
        data: { encrypted_count: ended.encrypted },
      }),
    );
  });
}

/** Gives tenants another job whose own was lost, and one more to those where all processes must know by now. */
export async function tendEncryption(app: App): Promise<void> {
  const tenants = await listTenantsEncrypting(app.database.operator);
  await app.enqueue(
    'memory.encrypt',
    tenants.map(({ tenant_id }) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}
