import { setTimeout as sleep } from 'node:timers/promises';
import { createCache } from '#platform/cache.ts';
import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { holdTenant } from '#platform/db/hold.ts';
import { invalid } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { perApp } from '#platform/per-app.ts';
import type { Asking } from '../../access/data-keys/service.ts';
import type { SensitiveTypes, SensitiveTypesSet } from './sensitive-types-schema.ts';
import { findSettings, type MemorySettings, storeSettings } from './sensitive-types-store.ts';

/** Types of memory whose text is always stored encrypted: of the installation, and of the tenant. */
export type AlwaysSensitive = ReadonlySet<string>;

interface Demands {
  always: AlwaysSensitive;
  /** Of these the tenant's own, as long as memories of them may be in the clear that were stored before. */
  unsettled: string[];
}

const topic = 'memory_settings';
const cacheOf = perApp((app) => createCache<Demands>(app.shared, topic, 50_000));
/** Nearly every tenant demands no more than the installation: they share this. */
const ofInstallation = perApp<Demands>(({ config }) => ({
  always: new Set(config.SENSITIVE_MEMORY_TYPES),
  unsettled: [],
}));

async function load({ app }: Pick<Ctx, 'app'>, db: Db): Promise<Demands> {
  const settings = await findSettings(db);
  const demanded = ofInstallation(app);
  if (!settings || settings.sensitive_types.length === 0) return demanded;
  return {
    always: new Set([...demanded.always, ...settings.sensitive_types]),
    unsettled: settings.swept_at === null ? settings.sensitive_types : [],
  };
}

/** Inside a transaction only the transaction is asked, and what it says not kept. */
async function demandsOf(asking: Asking): Promise<Demands> {
  const { app, tenant, db } = asking;
  const cache = cacheOf(app);
  return (
    cache.peek(tenant) ??
    (db.inTransaction ? load(asking, db) : cache.get(tenant, () => load(asking, app.database.tenant(tenant))))
  );
}

/** Which types of memory are always sensitive. */
export const alwaysSensitive = async (asking: Asking): Promise<AlwaysSensitive> =>
  (await demandsOf(asking)).always;

/** Types of memory of which some are to be encrypted yet: until then no search and no model sees those either. */
export const unsettledTypes = async (asking: Asking): Promise<string[]> =>
  (await demandsOf(asking)).unsettled;

/** Tells all processes that what a tenant demands has changed, or is settled. */
export const demandsChanged = ({ app, tenant, db }: Asking): void =>
  db.afterCommit(() => app.shared.invalidate(topic, tenant));

/**
 * Whether a memory of a type is stored encrypted.
 * @throws ApiError 422 when that is refused for a type that always is
 */
export function isSensitive(always: AlwaysSensitive, type: string, wanted: boolean | undefined): boolean {
  const demanded = always.has(type);
  if (demanded && wanted === false)
    throw invalid([{ path: '/sensitive', message: `memories of the type ${type} are always sensitive` }]);
  return demanded || (wanted ?? false);
}

const resourceOf = ({ app }: Ctx, settings: MemorySettings | undefined): SensitiveTypes => ({
  types: settings?.sensitive_types ?? [],
  installation_types: [...ofInstallation(app).always],
  encryption: settings?.demanded_at
    ? {
        status: settings.completed_at === null ? 'running' : 'completed',
        found: settings.found,
        encrypted: settings.encrypted,
        started_at: settings.demanded_at,
        completed_at: settings.completed_at,
      }
    : null,
  updated_at: settings?.updated_at ?? null,
});

/** What the tenant demands, and how far what was stored before is encrypted. */
export const getSensitiveTypes = async (ctx: Ctx): Promise<SensitiveTypes> =>
  resourceOf(ctx, await findSettings(ctx.db));

/**
 * Sets which types of memory are always sensitive. When it answers every process obeys; a job encrypts what was stored before.
 * What is encrypted stays so when its type is taken away.
 */
export async function setSensitiveTypes(ctx: Ctx, input: SensitiveTypesSet): Promise<SensitiveTypes> {
  const types = [...new Set(input.types)].sort();
  const settings = await ctx.db.transaction(async (tx) => {
    await holdTenant(tx);
    const before = await findSettings(tx);
    const known = before?.sensitive_types ?? [];
    if (JSON.stringify(types) === JSON.stringify(known)) return before;
    const after = changed(before, types);
    await tx.batch([
      storeSettings(ctx.tenant, after),
      fact(ctx, {
        type: 'memory.sensitive_types_set',
        resource_type: 'memory_settings',
        before: { types: known },
        after: { types },
      }),
    ]);
    demandsChanged({ app: ctx.app, tenant: ctx.tenant, db: tx });
    return after;
  });
  // Also of a request that changes nothing: another that does may be a moment ahead of it.
  await sleep(ctx.app.shared.spreadMs());
  return resourceOf(ctx, settings);
}

/** With a type more the encryption begins anew; with fewer it goes on with those that are left. */
function changed(before: MemorySettings | undefined, types: string[]): MemorySettings {
  const now = Date.now();
  const rest = { sensitive_types: types, updated_at: new Date(now).toISOString() };
  const isMore = types.some((type) => !before?.sensitive_types.includes(type));
  if (before && !isMore) return { ...before, ...rest };
  // The time also tells one beginning from another.
  const demanded = Math.max(now, before?.demanded_at ? Date.parse(before.demanded_at) + 1 : 0);
  return {
    ...rest,
    demanded_at: new Date(demanded).toISOString(),
    found: null,
    encrypted: 0,
    completed_at: null,
    swept_at: null,
  };
}
