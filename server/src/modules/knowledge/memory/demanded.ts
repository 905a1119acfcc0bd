import type { App, Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { dataKeysOf } from '../../access/data-keys/service.ts';
import { forgetTerms } from '../retrieval/service.ts';
import { sealText } from './encryption.ts';
import { sealVersions } from './history-store.ts';
import { knownAfterMs } from './lanes.ts';
import { takeOut } from './remove.ts';
import { demandsChanged } from './sensitive-types.ts';
import {
  completeEncryption,
  countEncrypted,
  findSettings,
  listTenantsEncrypting,
  lockPlainMemories,
  lockPlainVersions,
  lookAtMemories,
  lookAtVersions,
  type MemorySettings,
  type Plain,
  setFound,
  sweptEncryption,
  type VersionKey,
} from './sensitive-types-store.ts';
import { memoryScope } from './vectors.ts';
import { sealMemories } from './write-store.ts';

/** Rows looked at in one statement, and texts encrypted in one transaction: few, for others have their turn in between. */
const looked = 1_000;
const batch = 50;
const first: VersionKey = { id: '00000000-0000-0000-0000-000000000000', version: 0 };

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
    const isCounted = demand.found !== null || (await count(ctx, since));
    // A type was added meanwhile: from the beginning.
    if (!isCounted || !(await encryptAll(ctx, since))) continue;
    await complete(ctx, since);
    if (isSweep) await settle(ctx, since);
  }
}

type Look = (db: Db, types: string[], after: VersionKey, rows: number) => Promise<Plain>;

/** @returns false when it was not the last demand any more */
async function eachPlain(
  ctx: Ctx,
  since: string,
  look: Look,
  work: (types: string[], found: VersionKey[]) => Promise<void>,
): Promise<boolean> {
  for (let after: VersionKey | null = first; after; ) {
    ctx.signal.throwIfAborted();
    const demand = await findDemand(ctx.db, since);
    if (!demand) return false;
    const { found, last }: Plain = await look(ctx.db, demand.sensitive_types, after, looked);
    for (let i = 0; i < found.length; i += batch) {
      ctx.signal.throwIfAborted();
      await work(demand.sensitive_types, found.slice(i, i + batch));
    }
    after = last;
  }
  return true;
}

async function count(ctx: Ctx, since: string): Promise<boolean> {
  let texts = 0;
  const add = async (_: string[], found: VersionKey[]) => {
    texts += found.length;
  };
  for (const look of [lookAtMemories, lookAtVersions])
    if (!(await eachPlain(ctx, since, look, add))) return false;
  await ctx.db.run(setFound(ctx.tenant, since, texts));
  return true;
}

/** What a memory is before what it was: a change of it meanwhile puts what is not encrypted yet among its versions. */
const encryptAll = async (ctx: Ctx, since: string): Promise<boolean> =>
  (await eachPlain(ctx, since, lookAtMemories, (types, found) =>
    ctx.db.transaction((tx) => encryptMemories(ctx, tx, since, types, found)),
  )) &&
  (await eachPlain(ctx, since, lookAtVersions, (_, found) =>
    ctx.db.transaction((tx) => encryptVersions(ctx, tx, since, found)),
  ));

/** As they are, in the same version: nothing of them has changed. */
async function encryptMemories(
  ctx: Ctx,
  tx: Db,
  since: string,
  types: string[],
  found: VersionKey[],
): Promise<void> {
  // Some were encrypted, changed or removed since they were found.
  const memories = await lockPlainMemories(tx, types, found);
  if (memories.length === 0) return;
  const keys = await dataKeysOf({ app: ctx.app, tenant: ctx.tenant, db: tx });
  // Those that were deleted left statistics and vectors then.
  const counted = memories.filter(({ deleted_at }) => deleted_at === null);
  await takeOut(
    tx,
    ctx.tenant,
    counted.map(({ id, text }) => ({ id, text, sensitive: false })),
  );
  await forgetTerms(tx, ctx.tenant, memoryScope);
  await tx.batch([
    sealMemories(
      ctx.tenant,
      memories.map(({ id, version, text }) => ({ id, ...sealText(keys, id, version, text) })),
    ),
    countEncrypted(ctx.tenant, since, memories.length),
    fact(ctx, {
      type: 'memory.encrypted',
      resource_type: 'memory',
      data: { encrypted_count: memories.length, memory_ids: memories.map(({ id }) => id) },
    }),
  ]);
}

async function encryptVersions(ctx: Ctx, tx: Db, since: string, found: VersionKey[]): Promise<void> {
  const versions = await lockPlainVersions(tx, found);
  if (versions.length === 0) return;
  const keys = await dataKeysOf({ app: ctx.app, tenant: ctx.tenant, db: tx });
  await tx.batch([
    sealVersions(
      ctx.tenant,
      versions.map(({ id, version, text }) => ({ id, version, ...sealText(keys, id, version, text) })),
    ),
    countEncrypted(ctx.tenant, since, versions.length),
  ]);
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

/** From now on nothing of these types can be in the clear, and nobody needs to look. */
async function settle(ctx: Ctx, since: string): Promise<void> {
  await ctx.db.run(sweptEncryption(ctx.tenant, since, new Date()));
  demandsChanged(ctx);
}

/** Gives tenants another job whose own was lost, and one more to those where all processes must know by now. */
export async function tendEncryption(app: App): Promise<void> {
  const tenants = await listTenantsEncrypting(app.database.operator);
  await app.enqueue(
    'memory.encrypt',
    tenants.map(({ tenant_id }) => ({ tenant_id, fact_id: uuidv7(), resource_id: null, data: {} })),
  );
}
