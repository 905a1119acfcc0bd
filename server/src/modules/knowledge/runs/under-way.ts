import type { App } from '#platform/context.ts';
import { unavailable } from '#platform/errors.ts';
import { uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { findWatch } from './event-store.ts';
import { runFailure } from './failures.ts';
import { type Flushed, flusherOf } from './flush.ts';
import type { RunLog } from './log.ts';
import { type LostBefore, listRunning, type NewRun, renewLeases } from './store.ts';

/** A run belongs to its process for so long after each sign of life; then anybody may declare it lost. */
export const leaseMsOf = ({ config }: App): number => config.RUN_LEASE_S * 1_000;
/** How often a process looks whether its runs were ended by others, where it gets no word of that. */
const lookMs = 1_000;

/** Word that a run was ended by another than the process that works on it; the key is the run's id. */
export const RUN_ENDED = 'run.ended';

/** Why a run is stopped that was ended by others: there is nothing left to end. */
export class EndedElsewhere extends Error {
  override name = 'EndedElsewhere';
}

/** A run this process works on. */
export interface RunUnderWay extends Flushed {
  run: NewRun;
  /** Stops it. */
  cancel: AbortController;
  /** Readers of its events in this process. */
  readers: number;
  /** How often one left before the end. */
  disconnects: number;
  /** The process may take it for its own until then, by its own clock. */
  leaseUntil: number;
  isOver: boolean;
  grace: NodeJS.Timeout | undefined;
}

/** The runs a process works on. */
export const runsHere = perApp((app) => {
  const processId = uuidv7();
  const runs = new Map<string, RunUnderWay>();
  const places = new Map<string, number>();
  const free: (() => void)[] = [];
  let taken = 0;
  let clock: NodeJS.Timeout | undefined;
  let renewedAt = 0;

  const leaseMs = leaseMsOf(app);
  const renewMs = leaseMs / 4;
  const most = app.config.RUN_MAX_CONCURRENCY;
  // The rest is for others: a tenant that takes all it can get does not shut them out.
  const mostOfTenant = app.config.RUN_MAX_CONCURRENCY_PER_TENANT || Math.ceil(most * 0.8);

  const keep = async (): Promise<void> => {
    const all = [...runs.values()].filter(({ isOver }) => !isOver);
    if (all.length === 0) return;
    const keys = all.map(({ run }) => ({ tenant_id: run.tenant_id, id: run.id }));
    const isDue = Date.now() - renewedAt >= renewMs;
    // Where one process has the database nobody else ends its runs.
    if (!isDue && app.database.engine === 'embedded') return;
    const until = Date.now() + leaseMs;
    const { operator } = app.database;
    const going = await (isDue ? renewLeases(operator, keys, new Date(until)) : listRunning(operator, keys));
    const ids = new Set(going.map(({ id }) => id));
    for (const one of all) {
      if (!ids.has(one.run_id)) one.lost('ended');
      else if (isDue) one.leaseUntil = until;
    }
    if (isDue) renewedAt = Date.now();
  };
  const keepOrWarn = () =>
    keep().catch((error) => {
      app.log.warn({ err: error }, 'the leases of runs could not be renewed and will be tried again');
      for (const { cancel, leaseUntil } of runs.values())
        if (Date.now() > leaseUntil) cancel.abort(runFailure('DB_ERROR', error));
    });

  // One listener for all: an AbortSignal warns of a leak when each run brings its own.
  app.closing.addEventListener('abort', () => {
    for (const { cancel } of runs.values()) cancel.abort(runFailure('SERVICE_SHUTTING_DOWN'));
  });
  app.shared.onInvalidate((topic, id) => {
    const one = topic === RUN_ENDED ? runs.get(id) : undefined;
    if (!one || one.isOver) return;
    const { operator } = app.database;
    listRunning(operator, [{ tenant_id: one.run.tenant_id, id }]).then(
      (going) => {
        if (going.length === 0) one.lost('ended');
      },
      () => {
        // It is looked for again, at the latest with the next lease.
      },
    );
  });

  return {
    processId,
    get: (id: string): RunUnderWay | undefined => runs.get(id),
    /**
     * Takes one of the places of the process; answers how to give it back.
     * @throws ApiError 503 SERVICE_BUSY
     */
    takePlace: (tenant: string): (() => void) => {
      const its = places.get(tenant) ?? 0;
      if (taken >= most || its >= mostOfTenant) {
        throw unavailable(
          'SERVICE_BUSY',
          taken >= most
            ? 'The server has as many runs as it can work on. Repeat the request.'
            : 'The tenant has as many runs as it may have on this server. Repeat the request.',
          1,
        );
      }
      app.metrics.runsInFlight.set(++taken);
      places.set(tenant, its + 1);
      return () => {
        app.metrics.runsInFlight.set(--taken);
        const left = places.get(tenant)! - 1;
        if (left > 0) places.set(tenant, left);
        else places.delete(tenant);
        if (taken === 0) for (const resolve of free.splice(0)) resolve();
      };
    },
    add: (run: NewRun, log: RunLog): RunUnderWay => {
      const cancel = new AbortController();
      const one: RunUnderWay = {
        tenant: run.tenant_id,
        run_id: run.id,
        run,
        log,
        cancel,
        readers: 0,
        disconnects: 0,
        leaseUntil: Date.parse(run.created_at) + leaseMs,
        isOver: false,
        grace: undefined,
        lost: (reason) => cancel.abort(reason === 'ended' ? new EndedElsewhere() : reason),
      };
      cancel.signal.addEventListener('abort', () => log.makeRoom(), { once: true });
      runs.set(run.id, one);
      flusherOf(app).add(one);
      clock ??= setInterval(keepOrWarn, Math.min(lookMs, renewMs));
      if (app.closing.aborted) cancel.abort(runFailure('SERVICE_SHUTTING_DOWN'));
      return one;
    },
    remove: (one: RunUnderWay): void => {
      one.isOver = true;
      clearTimeout(one.grace);
      flusherOf(app).remove(one);
      runs.delete(one.run_id);
      if (runs.size > 0) return;
      clearInterval(clock);
      clock = undefined;
    },
    /** Resolves when no run is under way any more. */
    ended: (): Promise<void> =>
      taken === 0 ? Promise.resolve() : new Promise((resolve) => free.push(resolve)),
  };
});

/** Which runs count as lost now. The embedded database has one process: what another one left running is lost at once. */
export const lostBefore = (app: App): LostBefore => ({
  now: new Date().toISOString(),
  only_process: app.database.engine === 'embedded' ? runsHere(app).processId : undefined,
});

/** Somebody reads the run here; answers what to call when it does not any more. */
export function attachReader(
  app: App,
  one: RunUnderWay,
): (sawEnd: boolean, abandoned?: 'left' | 'cancelled') => void {
  one.readers += 1;
  clearTimeout(one.grace);
  return (sawEnd, abandoned) => {
    one.readers -= 1;
    if (sawEnd) return;
    one.disconnects += 1;
    if (abandoned === 'cancelled') one.cancel.abort(runFailure('RUN_CANCELED'));
    // Who left by a door can not come back: there is nothing to wait for.
    else if (one.readers === 0)
      cancelAfterGrace(app, one, abandoned ? 0 : app.config.RUN_DISCONNECT_GRACE_MS);
  };
}

function cancelAfterGrace(app: App, one: RunUnderWay, graceMs: number): void {
  if (one.isOver || one.run.on_disconnect === 'continue') return;
  const again = (ms: number) => cancelAfterGrace(app, one, ms);
  one.grace = setTimeout(async () => {
    try {
      const watch = await findWatch(app.database.tenant(one.tenant), one.run_id);
      if (one.readers > 0 || one.isOver) return;
      const left = Date.parse(watch?.watched_until ?? '') - Date.now();
      if (left > 0) again(left);
      else one.cancel.abort(runFailure('CLIENT_DISCONNECTED'));
    } catch {
      again(lookMs);
    }
  }, graceMs);
}
