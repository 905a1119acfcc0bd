import type { App } from '#platform/context.ts';
import { isDatabaseUnavailable } from '#platform/errors.ts';
import { perApp } from '#platform/per-app.ts';
import { type Batch, type RunBatch, storeEvents } from './event-store.ts';
import type { RunLog } from './log.ts';

/** A log whose events are stored as they come. */
export interface Flushed {
  tenant: string;
  run_id: string;
  log: RunLog;
  /** The run was ended by somebody else, or its events can not be stored: nothing more will be. */
  lost: (reason: 'ended' | Error) => void;
}

interface TenantLogs {
  logs: Set<Flushed>;
  timer: NodeJS.Timeout | undefined;
  storing: Promise<void> | undefined;
  failures: number;
}

/** Word of new events for readers in other processes; the key is the run's id. */
export const MORE_EVENTS = 'run.more';

/** With many tenants each waits longer: a process stores at most this often a second, so that requests have room. */
const transactionsPerSecond = 500;
const retryMs = 250;

/** Stores the events of all runs of this process, those of one tenant together. */
export const flusherOf = perApp((app) => {
  const tenants = new Map<string, TenantLogs>();

  const intervalOf = ({ failures }: TenantLogs): number =>
    Math.max(app.config.SSE_FLUSH_INTERVAL_MS, (tenants.size * 1_000) / transactionsPerSecond) +
    Math.min(4, failures) * retryMs;

  const arm = (tenant: string): void => {
    const known = tenants.get(tenant);
    if (!known || known.timer || known.storing) return;
    known.timer = setTimeout(() => {
      known.timer = undefined;
      known.storing = storeAll(app, tenant, known).finally(() => {
        known.storing = undefined;
        if ([...known.logs].some(({ log }) => log.hasUnstored)) arm(tenant);
      });
    }, intervalOf(known));
  };

  return {
    add: (one: Flushed): void => {
      const known = tenants.get(one.tenant) ?? {
        logs: new Set(),
        timer: undefined,
        storing: undefined,
        failures: 0,
      };
      tenants.set(one.tenant, known);
      known.logs.add(one);
      one.log.onUnstored = () => arm(one.tenant);
    },
    /** From here on nothing of this log is stored, and nothing is on its way. */
    hold: async ({ tenant, log }: Flushed): Promise<void> => {
      log.hold();
      await tenants.get(tenant)?.storing;
    },
    remove: (one: Flushed): void => {
      const known = tenants.get(one.tenant);
      known?.logs.delete(one);
      if (known?.logs.size !== 0) return;
      clearTimeout(known.timer);
      tenants.delete(one.tenant);
    },
  };
});

type Waiting = Flushed & { batch: Batch };

async function storeAll(app: App, tenant: string, known: TenantLogs): Promise<void> {
  const waiting = [...known.logs].flatMap((one): Waiting[] => {
    const batch = one.log.nextBatch();
    return batch ? [{ ...one, batch }] : [];
  });
  try {
    await store(app, tenant, waiting);
    known.failures = 0;
  } catch (error) {
    if (known.failures++ === 0)
      app.log.warn({ err: error, tenant_id: tenant }, 'events of runs wait for the database');
  }
}

async function store(app: App, tenant: string, waiting: Waiting[]): Promise<void> {
  if (waiting.length === 0) return;
  const batches = waiting
    .map(({ run_id, batch }): RunBatch => ({ run_id, ...batch }))
    // In one order everywhere, so that two who lock several runs never wait for each other.
    .sort((a, b) => (a.run_id < b.run_id ? -1 : 1));
  try {
    const [going] = await app.database.tenant(tenant).batch(storeEvents(tenant, batches));
    const watched = new Map(going.rows.map(({ id, watched_until }) => [id, watched_until]));
    for (const { run_id, log, batch, lost } of waiting) {
      const until = watched.get(run_id);
      if (until === undefined) {
        lost('ended');
        continue;
      }
      log.isStored(batch);
      if (until !== null && Date.parse(until) > Date.now()) app.shared.invalidate(MORE_EVENTS, run_id);
    }
  } catch (error) {
    if (isDatabaseUnavailable(error)) throw error;
    // One that can not be stored must not keep the others from it.
    if (waiting.length > 1) for (const one of waiting) await store(app, tenant, [one]);
    else waiting[0]!.lost(error as Error);
  }
}
