import type { FastifyRequest } from 'fastify';
import type { App, Ctx, Target } from '#platform/context.ts';
import { conflict, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { idempotently } from '#platform/http/idempotency.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import { Answer, Stream } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { requireSwitchedOn } from '#platform/kill-switches.ts';
import { authorize, isPermitted, refusalOf } from '#platform/permission.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { EXTRACTIVE } from './answer.ts';
import { conductRun, loadGraph } from './conduct.ts';
import { deleteRuns, deleteSession, findSession, lockRuns } from './delete-store.ts';
import { findReadableRun } from './event-store.ts';
import { placeOf, refusalFrames } from './events.ts';
import { type Asked, followHere, followRows, readersHere } from './follow.ts';
import { aheadMost, RunLog } from './log.ts';
import { contextOfRun, planMemory } from './memory.ts';
import { acceptedEvent, cancelFromOutside, recordBegin } from './record.ts';
import type { Run, RunCreate, RunWithMessages } from './schema.ts';
import { findRun, listRuns, type NewRun, type RunFilter } from './store.ts';
import { runsHere } from './under-way.ts';

export { removeAudioOf } from './audio.ts';
export { forgetRunsOf } from './forget.ts';
export { Citation, RunCreate } from './schema.ts';

/** Loads what the first run would wait for, when a server has been there for a moment. */
export function prepareForRuns(app: App): void {
  setTimeout(() => {
    loadGraph().catch((error) => app.log.warn({ err: error }, 'what answers runs can not be loaded'));
  }, 3_000).unref();
}

/** Resolves when no run is under way in this process any more. */
export const runsEnded = (app: App): Promise<void> => runsHere(app).ended();

/**
 * Begins a run: session, message and run are committed when this returns. The run is worked on whether the answer is
 * read or not; the stream is its first reader. With the Idempotency-Key of an earlier request it begins none, and reads
 * the run of that one.
 * @throws ApiError 503 SERVICE_BUSY, 409 RUN_IN_PROGRESS when the session has a run, 409 IDEMPOTENCY_KEY_CONFLICT, 403, 422
 */
export async function startRun(ctx: Ctx, raw: FastifyRequest, input: RunCreate): Promise<Stream | Answer> {
  const { app } = ctx;
  requireSwitchedOn(app, 'run');
  if (input.audio) requireSwitchedOn(app, 'tts');
  const here = runsHere(app);
  const memory = await planMemory(ctx, input.memory);
  // Its passages are read as by a search of the corpus.
  const refusal = input.corpus_id && (await refusalOf(ctx, 'documents:read', undefined, true));
  if (refusal) throw refusal();
  if (input.corpus_id === undefined && !memory.recall)
    throw invalid([{ path: '/corpus_id', message: 'is required unless memories are recalled' }]);
  const run = newRun(ctx, input, here.processId);
  let leave: (() => void) | undefined;
  try {
    const { body } = await recordBegin(ctx, run, input.message, (write) =>
      idempotently(ctx, raw, [raw.body, raw.query], async () => {
        // Not before: to read an earlier run takes no place.
        leave ??= here.takePlace(ctx.tenant);
        await write();
        return new Answer(200, { run_id: run.id });
      }),
    );
    const { run_id } = body as { run_id: string };
    if (run_id !== run.id) {
      leave?.();
      leave = undefined;
      return await replayRun(ctx, run_id, input.session_id);
    }
    const log = new RunLog(run);
    log.publish([acceptedEvent(run)]);
    const one = here.add(run, log);
    void conductRun(contextOfRun(ctx, one.cancel.signal), one, input, memory).finally(() => {
      here.remove(one);
      leave?.();
    });
    return new Stream((_request, response) => followHere(ctx, one, toBegin, 0, response));
  } catch (error) {
    leave?.();
    throw error;
  }
}

/** What `POST /v1/run` asks of whoever begins a run or goes on with one. */
const toBegin: Asked = [['runs:create']];

const newRun = ({ app, tenant, actor, requestId }: Ctx, input: RunCreate, process_id: string): NewRun => ({
  tenant_id: tenant,
  id: uuidv7(),
  identity_id: actor.identity_id!,
  session_id: input.session_id,
  corpus_id: input.corpus_id ?? null,
  request_id: requestId,
  on_disconnect: input.on_disconnect ?? 'cancel',
  process_id,
  provider: app.models.answers ? app.config.LLM_PROVIDER : EXTRACTIVE,
  created_at: new Date().toISOString(),
});

/** The run that an earlier request with the same Idempotency-Key began, from its first event on. */
async function replayRun(ctx: Ctx, id: string, sessionId: string): Promise<Stream | Answer> {
  const answer = await readRun(ctx, toBegin, id, 0, sessionId);
  if (answer instanceof Answer) return answer;
  return new Stream((request, response) => {
    response.setHeader('idempotency-replayed', 'true');
    return answer.write(request, response);
  });
}

/** Goes on with a run of the caller's own session after the event a `Last-Event-ID` names. */
export async function resumeRun(ctx: Ctx, lastEventId: string, sessionId: string): Promise<Stream | Answer> {
  const place = placeOf(lastEventId);
  const run = place && (await findReadableRun(ctx.db, place.run_id));
  const isOwn = run?.session_id === sessionId && run.identity_id === ctx.actor.identity_id;
  return isOwn ? readRun(ctx, toBegin, place!.run_id, place!.seq, sessionId) : refusal(ctx, sessionId);
}

/** The events of a run the caller may see, after the one that `Last-Event-ID` or `after` names. */
export function readRunEvents(
  ctx: Ctx,
  id: string,
  lastEventId: string | undefined,
  after: number,
): Promise<Stream | Answer> {
  if (lastEventId === undefined) return readRun(ctx, [], id, after, null);
  const place = placeOf(lastEventId);
  return place?.run_id === id.toLowerCase()
    ? readRun(ctx, [], id, place.seq, null)
    : Promise.resolve(refusal(ctx, null));
}

/** @param before what the route asked besides reading the run */
async function readRun(
  ctx: Ctx,
  before: Asked,
  id: string,
  after: number,
  sessionId: string | null,
): Promise<Stream | Answer> {
  readersHere(ctx.app).checkRoom();
  const run = isUuid(id) ? await findReadableRun(ctx.db, id) : undefined;
  if (!run || !(await isPermitted(ctx, 'runs:read', targetOf(run)))) return refusal(ctx, sessionId);
  const isRunning = run.status === 'running';
  const isKept = run.events_expire_at !== null && Date.parse(run.events_expire_at) > Date.now();
  // A number no event can have was not given by us.
  const most = run.last_seq + (isRunning ? aheadMost : 0);
  if (!(isRunning || isKept) || after > most) return refusal(ctx, sessionId);
  // All of it has been read. 204 tells a reader not to come back (WHATWG HTML, Server-sent events).
  if (!isRunning && after === run.last_seq) return new Answer(204);
  return new Stream(async (request, response) => {
    if (request.method === 'HEAD') {
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' }).end();
      return;
    }
    const one = runsHere(ctx.app).get(run.id);
    const asked: Asked = [...before, ['runs:read', targetOf(run)]];
    if (one) await followHere(ctx, one, asked, after, response);
    else await followRows(ctx, run, asked, after, response);
  });
}

/** The same answer for what is unknown, somebody else's, malformed or past its time. */
const refusal = (ctx: Ctx, sessionId: string | null): Stream =>
  new Stream(async (_request, response) => {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    response.end(refusalFrames(ctx.requestId, sessionId));
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

/** Cancels a run, in whatever process it is; when this returns it is canceled. @throws ApiError 404, 403, 409 RUN_OVER */
export async function cancelRun(ctx: Ctx, id: string): Promise<RunWithMessages> {
  const run = await getRun(ctx, id);
  await authorize(ctx, 'runs:cancel', targetOf(run));
  if (!(await cancelFromOutside(ctx, run.id)))
    throw conflict('RUN_OVER', 'The run is over. There is nothing to cancel.');
  return getRun(ctx, id);
}

const inProgress = () =>
  conflict('RUN_IN_PROGRESS', 'The run is going on. Wait until it is done, or cancel it first.');

/** Removes a run with its messages, events and audio. @throws ApiError 404, 403, 409 RUN_IN_PROGRESS */
export async function removeRun(ctx: Ctx, id: string): Promise<void> {
  const run = await getRun(ctx, id);
  await authorize(ctx, 'runs:delete', targetOf(run));
  await ctx.db.transaction(async (tx) => {
    const [locked] = await lockRuns(tx, { id: run.id });
    if (!locked) throw notFound('Run');
    if (locked.status === 'running') throw inProgress();
    await tx.batch([
      ...deleteRuns(ctx.tenant, [run.id], new Date()),
      fact(ctx, {
        type: 'run.deleted',
        resource_type: 'run',
        resource_id: run.id,
        before: { session_id: run.session_id, corpus_id: run.corpus_id, status: run.status },
      }),
    ]);
  });
}

/** Removes a session of the caller's own: all its runs, and what the next one would know. @throws ApiError 404, 403, 409 RUN_IN_PROGRESS */
export async function removeSession(ctx: Ctx, sessionId: string): Promise<void> {
  const owner = ctx.actor.identity_id!;
  await ctx.db.transaction(async (tx) => {
    if (!(await findSession(tx, owner, sessionId))) throw notFound('Session');
    await authorize(ctx, 'runs:delete', { owner });
    const runs = await lockRuns(tx, { identity_id: owner, session_id: sessionId });
    if (runs.some(({ status }) => status === 'running')) throw inProgress();
    const ids = runs.map(({ id }) => id);
    await tx.batch([
      ...deleteRuns(ctx.tenant, ids, new Date()),
      ...deleteSession(ctx.tenant, owner, sessionId),
      fact(ctx, {
        type: 'run.session_deleted',
        resource_type: 'run_session',
        resource_id: sessionId,
        data: { run_count: ids.length },
      }),
    ]);
  });
}
