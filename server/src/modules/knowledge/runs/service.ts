import type { App, Ctx, Target } from '#platform/context.ts';
import { systemCtx } from '#platform/context.ts';
import { conflict, notFound, unavailable } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { Stream } from '#platform/http/route.ts';
import { openEventStream } from '#platform/http/sse.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { isPermitted } from '#platform/permission.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { conductRun, leaseMs } from './conduct.ts';
import { runEvents } from './events.ts';
import { runFailure } from './failures.ts';
import type { Run, RunCreate, RunWithMessages } from './schema.ts';
import {
  endLostRun,
  endLostRuns,
  findRun,
  insertMessage,
  insertRun,
  listRuns,
  listTenantsWithLostRuns,
  type NewRun,
  type RunFilter,
  upsertSession,
} from './store.ts';

/** A run of this process: over when its work is done and its stream closed. */
interface RunUnderWay {
  ended: Promise<void>;
  cancel: AbortController;
}

const underWay = new WeakMap<App, Set<RunUnderWay>>();

function runsOf(app: App): Set<RunUnderWay> {
  const known = underWay.get(app);
  if (known) return known;
  const runs = new Set<RunUnderWay>();
  underWay.set(app, runs);
  // One listener for all: an AbortSignal warns of a leak when each run brings its own.
  app.closing.addEventListener('abort', () => {
    for (const { cancel } of runs) cancel.abort(runFailure('SERVICE_SHUTTING_DOWN'));
  });
  return runs;
}

/** Resolves when no run is under way in this process any more. */
export async function runsEnded(app: App): Promise<void> {
  await Promise.all([...runsOf(app)].map(({ ended }) => ended));
}

/**
 * Begins a run: session, message and run are committed when this returns; the stream does the work. The run goes on
 * for RUN_DISCONNECT_GRACE_MS after its client left, and is then canceled.
 * @throws ApiError 503 SERVICE_BUSY when the process has RUN_MAX_CONCURRENCY runs, 409 RUN_IN_PROGRESS when the session has one
 */
export async function startRun(ctx: Ctx, input: RunCreate): Promise<Stream> {
  const { app } = ctx;
  const runs = runsOf(app);
  if (runs.size >= app.config.RUN_MAX_CONCURRENCY) {
    throw unavailable(
      'SERVICE_BUSY',
      'The server has as many runs as it can work on. Repeat the request.',
      1,
    );
  }
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const underWay = { ended, cancel: new AbortController() };
  runs.add(underWay);
  const leave = () => {
    runs.delete(underWay);
    resolve();
  };
  try {
    const run = await beginRun(ctx, input);
    if (app.closing.aborted) underWay.cancel.abort(runFailure('SERVICE_SHUTTING_DOWN'));
    return new Stream((_request, response) =>
      conductRun(ctx, run, input, response, underWay.cancel).finally(leave),
    );
  } catch (error) {
    leave();
    throw error;
  }
}

async function beginRun(ctx: Ctx, input: RunCreate): Promise<NewRun> {
  const now = new Date();
  const run: NewRun = {
    tenant_id: ctx.tenant,
    id: uuidv7(),
    identity_id: ctx.actor.identity_id!,
    session_id: input.session_id,
    corpus_id: input.corpus_id,
    request_id: ctx.requestId,
    created_at: now.toISOString(),
  };
  const message = {
    id: uuidv7(),
    role: 'user' as const,
    text: input.message,
    citations: [],
    created_at: run.created_at,
  };
  await ctx.db.transaction(async (tx) => {
    const [, begun] = await tx.batch([
      endLostRun(run),
      insertRun(run, new Date(now.getTime() + leaseMs)),
      upsertSession(run),
      insertMessage(run, message),
      fact(ctx, {
        type: 'run.invoked',
        resource_type: 'run',
        resource_id: run.id,
        data: { session_id: run.session_id, corpus_id: run.corpus_id, length: input.message.length },
      }),
    ]);
    if (begun.rows.length !== 1) {
      throw conflict(
        'RUN_IN_PROGRESS',
        'A run is going on in this session. Wait until it is done, or use another session.',
      );
    }
  });
  return run;
}

/** Answers a reconnect: runs are not replayed. */
export const refuseResume = (ctx: Ctx, sessionId: string): Stream =>
  new Stream(async (_request, response) => {
    const events = runEvents(openEventStream(response), {
      run_id: undefined,
      request_id: ctx.requestId,
      session_id: sessionId,
      heartbeatMs: 60_000,
    });
    events.close(
      [
        'resume.unsupported',
        { message: 'A stream can not be taken up again. Start a new run without Last-Event-ID.' },
      ],
      ['done', {}],
    );
  });

const targetOf = (run: Pick<Run, 'id' | 'identity_id'>): Target => ({ id: run.id, owner: run.identity_id });

/** @throws ApiError 404 also for a run that is not the caller's to see */
export async function getRun(ctx: Ctx, id: string): Promise<RunWithMessages> {
  const run = isUuid(id) ? await findRun(ctx.db, id) : undefined;
  if (!run || !(await isPermitted(ctx, 'runs:read', targetOf(run)))) throw notFound('Run');
  return run;
}

/** Runs the caller may see, newest first: its own, or the tenant's where policy says so. */
export const listVisibleRuns = (
  ctx: Ctx,
  { session_id, status, ...query }: PageQuery & Partial<RunFilter>,
): Promise<Answer> => {
  const filter = { session_id, status };
  return visiblePage(ctx, 'runs:list', filter, query, {
    rows: (from) => listRuns(ctx.db, filter, from),
    owned: true,
    target: targetOf,
    position: (run) => [run.created_at, run.id],
    size: 25,
  });
};

/** Marks runs whose process is gone as failed. */
export async function endAllLostRuns(app: App): Promise<void> {
  const now = new Date();
  for (const { tenant_id } of await listTenantsWithLostRuns(app.database.operator, now)) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    await ctx.db.transaction(async (tx) => {
      const lost = await endLostRuns(tx, now);
      await tx.batch(
        lost.map(({ id }) =>
          fact(ctx, {
            type: 'run.failed',
            resource_type: 'run',
            resource_id: id,
            outcome: 'failure',
            data: { error_code: 'PROCESS_LOST' },
          }),
        ),
      );
    });
  }
}
