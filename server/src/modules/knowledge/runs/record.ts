import type { App, Ctx } from '#platform/context.ts';
import { systemCtx } from '#platform/context.ts';
import { conflict } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { insertEvents } from './event-store.ts';
import type { RunEvent } from './events.ts';
import { type RunFailureCode, runFailures } from './failures.ts';
import { aheadMost } from './log.ts';
import {
  type EndedRun,
  endFromOutside,
  findRunning,
  insertMessage,
  insertRun,
  type LostBefore,
  listLostRuns,
  listTenantsWithLostRuns,
  type NewRun,
  upsertSession,
} from './store.ts';
import { leaseMsOf, lostBefore, RUN_ENDED } from './under-way.ts';

export const acceptedEvent = (run: NewRun): RunEvent => ({
  type: 'request.accepted',
  data: { accepted_at: run.created_at, run_id: run.id },
});

/** Until when the events of a run that ends now are kept. */
export const expiryOf = ({ config }: App, now: Date): string =>
  new Date(now.getTime() + config.RUN_EVENTS_TTL_HOURS * 3_600_000).toISOString();

/**
 * Commits the session, the message, the run and its first event.
 * @param once does the write unless it was done before, in its own transaction
 * @throws ApiError 409 RUN_IN_PROGRESS
 */
export async function recordBegin<T>(
  ctx: Ctx,
  run: NewRun,
  message: string,
  once: (write: () => Promise<unknown>) => Promise<T>,
): Promise<T> {
  const statements = () => [
    insertRun(run, new Date(Date.now() + leaseMsOf(ctx.app))),
    insertEvents(ctx.tenant, run.id, [
      { last_seq: 1, events: JSON.stringify([[acceptedEvent(run).type, acceptedEvent(run).data]]) },
    ]),
    upsertSession(run),
    insertMessage(run, {
      id: uuidv7(),
      role: 'user',
      text: message,
      citations: [],
      created_at: run.created_at,
    }),
    fact(ctx, {
      type: 'run.invoked',
      resource_type: 'run',
      resource_id: run.id,
      data: { session_id: run.session_id, corpus_id: run.corpus_id, length: message.length },
    }),
  ];
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(() => ctx.db.batch(statements()));
    } catch (error) {
      if ((error as { code?: string }).code !== '23505') throw error;
    }
    const going = await findRunning(ctx.db, run);
    // It ended just now, or its process is gone: then the session is free.
    if (attempt <= 3 && (!going || (await endLostRun(ctx, going.id)))) continue;
    throw conflict(
      'RUN_IN_PROGRESS',
      'A run is going on in this session. Wait until it is done, or use another session.',
      going && { run_id: going.id },
    );
  }
}

/** What has to be said of a run that ends before its readers expect it. */
const endings = (code: RunFailureCode, isAnswered: boolean): RunEvent[] => [
  { type: isAnswered ? 'audio.error' : 'error', data: { code, message: runFailures[code] } },
  { type: 'done', data: {} },
];

/**
 * Ends a run wherever it is worked on; what its process still has of it is not stored any more. The last events are
 * numbered beyond everything that process may have sent.
 * @returns the run as it ended; undefined when it was over, or is not lost
 */
async function endRunFromOutside(
  ctx: Ctx,
  id: string,
  status: 'failed' | 'canceled',
  code: RunFailureCode,
  lost: LostBefore | undefined,
): Promise<EndedRun | undefined> {
  const now = new Date();
  const ended = await ctx.db.transaction(async (tx) => {
    const [run] = await tx.rows(
      endFromOutside(ctx.tenant, {
        id,
        status,
        error_code: code,
        skip: aheadMost + 2,
        now: now.toISOString(),
        events_expire_at: expiryOf(ctx.app, now),
        lost,
      }),
    );
    if (!run) return undefined;
    const said = endings(code, run.answered_at !== null).map(({ type, data }) => [type, data]);
    await tx.batch([
      insertEvents(ctx.tenant, id, [{ last_seq: run.last_seq, events: JSON.stringify(said) }]),
      fact(ctx, {
        type: `run.${run.status}`,
        resource_type: 'run',
        resource_id: id,
        outcome: run.status === 'succeeded' ? 'success' : 'failure',
        data: { ...aboutRun(run, now), error_code: code },
      }),
    ]);
    return run;
  });
  if (ended) {
    ctx.db.afterCommit(() => {
      ctx.app.metrics.runs.inc({ outcome: ended.status });
      ctx.app.shared.invalidate(RUN_ENDED, id);
    });
  }
  return ended;
}

export const aboutRun = (run: Pick<NewRun, 'session_id' | 'corpus_id' | 'created_at'>, now: Date) => ({
  session_id: run.session_id,
  corpus_id: run.corpus_id,
  duration_ms: now.getTime() - Date.parse(run.created_at),
});

/** Cancels a run, in whatever process it is. @returns false when it was over */
export const cancelFromOutside = async (ctx: Ctx, id: string): Promise<boolean> =>
  (await endRunFromOutside(ctx, id, 'canceled', 'RUN_CANCELED', undefined)) !== undefined;

/** Ends a run whose process is gone. @returns false when it is not lost */
export async function endLostRun(ctx: Ctx, id: string): Promise<boolean> {
  // The one who finds it is not who did it.
  const system = { ...systemCtx(ctx.app, ctx.tenant, ctx.requestId), db: ctx.db };
  return (await endRunFromOutside(system, id, 'failed', 'PROCESS_LOST', lostBefore(ctx.app))) !== undefined;
}

/** Marks all runs whose process is gone as failed, and tells their readers. */
export async function endAllLostRuns(app: App): Promise<void> {
  const lost = lostBefore(app);
  for (const { tenant_id } of await listTenantsWithLostRuns(app.database.operator, lost)) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    for (const { id } of await listLostRuns(ctx.db, lost)) await endLostRun(ctx, id);
  }
  app.nudgeRelay();
}
