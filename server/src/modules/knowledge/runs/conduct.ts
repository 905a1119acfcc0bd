import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { isDatabaseUnavailable } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { type Passage, type RunAnswer, writeAnswer } from './answer.ts';
import type { CommitCheckpoint } from './checkpoints.ts';
import { insertEvents } from './event-store.ts';
import type { RunEvent } from './events.ts';
import { type Failure, failureOf, runFailure } from './failures.ts';
import { flusherOf } from './flush.ts';
import { type MemoryPlan, prepareToRemember } from './memory.ts';
import { findPassages } from './passages.ts';
import { searchTextOf } from './prompt.ts';
import { aboutRun, expiryOf } from './record.ts';
import type { RunCreate, Timings } from './schema.ts';
import { type Spoken, speakAnswer } from './speak.ts';
import {
  endRun,
  insertMessage,
  listHistory,
  markAnswered,
  type PastMessage,
  type RunFigures,
} from './store.ts';
import { EndedElsewhere, type RunUnderWay } from './under-way.ts';

const historyMessages = 10;
const retryMs = 250;

/** What a run comes to know of itself. */
interface Course {
  began: number;
  answer?: RunAnswer;
  timings: Timings;
  /** The answer being stored. */
  recording?: Promise<void>;
}

/**
 * Does a run's work. Its readers are told by its log, whatever happens; whether there are any makes no difference.
 * Resolves when the run is over; never rejects.
 */
export async function conductRun(
  ctx: Ctx,
  one: RunUnderWay,
  input: RunCreate,
  memory: MemoryPlan,
): Promise<void> {
  const course: Course = { began: Date.parse(one.run.created_at), timings: {} };
  const late = setTimeout(
    () => one.cancel.abort(runFailure('RUN_TIMEOUT')),
    ctx.app.config.RUN_TIMEOUT_S * 1_000,
  );
  try {
    try {
      await answerRun(ctx, one, input, memory, course);
    } catch (error) {
      // The graph gives up at once when it is stopped; what it was storing then may be stored all the same.
      if (!course.recording) throw error;
      await course.recording;
    }
    if (input.audio) await speak(ctx, one, course);
    ctx.app.metrics.runs.inc({ outcome: 'succeeded' });
  } catch (error) {
    await endBadly(ctx, one, course, error);
  } finally {
    clearTimeout(late);
    ctx.app.nudgeRelay();
  }
}

const since = (course: Course): number => Date.now() - course.began;

/** LangGraph is a third of all that a process would load before it does anything, and many never answer a run. */
export const loadGraph = () => import('./graph.ts');

/** Takes the run through its graph. When this returns, answer, checkpoint and last events are committed, in one transaction. */
async function answerRun(
  ctx: Ctx,
  one: RunUnderWay,
  input: RunCreate,
  memory: MemoryPlan,
  course: Course,
): Promise<void> {
  const { run, log, cancel } = one;
  let history: PastMessage[] = [];
  let searchText = input.message;
  let passages: Passage[] = [];
  let answerId: string | undefined;
  const commit: CommitCheckpoint = async (statements) => {
    // Without an answer there is nothing to go on from: the thread stays where its last finished run left it.
    if (!course.answer || !answerId || cancel.signal.aborted) return;
    course.recording = recordAnswer(ctx, one, course, { input, memory, answerId, checkpoint: statements });
    // Its failure is told below: the graph may not listen any more.
    await course.recording.catch(() => {});
  };
  const steps = {
    load: async () => {
      history = await listHistory(ctx.db, run, historyMessages);
      searchText = searchTextOf(input.message, history);
      return history.map(({ id }) => id);
    },
    retrieve: async () => {
      const began = performance.now();
      const found = await findPassages(ctx, run, { query: searchText, top_k: input.top_k, history, memory });
      passages = found.passages;
      course.timings.retrieval_ms = Math.round(performance.now() - began);
      if (ctx.app.config.DEBUG_EVENTS) await log.append({ type: 'debug.retrieval', data: found.debug });
      return passages.map(({ id }) => id);
    },
    generate: async (signal: AbortSignal) => {
      const emit = (delta: string) => {
        if (course.timings.first_token_ms === undefined) {
          course.timings.first_token_ms = since(course);
          ctx.app.metrics.runFirstToken.observe(since(course) / 1_000);
        }
        return log.append({ type: 'token.delta', data: { delta } });
      };
      course.answer = await writeAnswer(
        ctx.app.models.answers,
        {
          message: input.message,
          search_text: searchText,
          passages,
          history,
          has_corpus: run.corpus_id !== null,
        },
        emit,
        signal,
      );
    },
    persist: async (signal: AbortSignal) => {
      signal.throwIfAborted();
      answerId = uuidv7();
      return answerId;
    },
  };
  const { walkGraph } = await loadGraph();
  await walkGraph(steps, `${run.identity_id}:${run.session_id}`, run.id, ctx.db, commit, cancel.signal);
  cancel.signal.throwIfAborted();
  if (!course.recording) throw new Error('the graph of a run ended without an answer');
  await course.recording;
}

const figuresOf = (ctx: Ctx, one: RunUnderWay, course: Course, last_seq: number): RunFigures => ({
  model: course.answer?.model ?? ctx.app.models.answers?.name ?? null,
  finish_reason: course.answer?.finish_reason ?? null,
  usage: course.answer?.usage ?? null,
  timings: course.timings,
  disconnects: one.disconnects,
  last_seq,
});

interface AnswerToRecord {
  input: RunCreate;
  memory: MemoryPlan;
  answerId: string;
  checkpoint: Statement[];
}

/** Commits the answer with its events, before any reader sees that it is final. */
async function recordAnswer(
  ctx: Ctx,
  one: RunUnderWay,
  course: Course,
  { input, memory, answerId, checkpoint }: AnswerToRecord,
): Promise<void> {
  const { run, log } = one;
  const answer = course.answer!;
  const final: RunEvent = {
    type: 'message.final',
    data: { text: answer.text, citations: answer.citations, model: answer.model, run_id: run.id },
  };
  const isLast = !input.audio;
  const events = isLast ? [final, done] : [final];
  const remember = memory.remember ? await prepareToRemember(ctx, run, input.message, answer) : undefined;
  await flusherOf(ctx.app).hold(one);
  const { batches, last_seq } = log.closing(events);
  await whileTheLeaseHolds(one, async () => {
    const now = new Date();
    course.timings.answer_ms = since(course);
    const figures = figuresOf(ctx, one, course, last_seq);
    await ctx.db.transaction(async (tx) => {
      const [ended] = await tx.batch([
        isLast ? endRun(run, succeeded(ctx, figures, now)) : markAnswered(run, figures, now.toISOString()),
        insertEvents(ctx.tenant, run.id, batches),
        insertMessage(run, {
          id: answerId,
          role: 'assistant',
          text: answer.text,
          citations: answer.citations,
          created_at: now.toISOString(),
        }),
        ...checkpoint,
        ...(isLast ? [succeededFact(ctx, one, answer, now)] : []),
      ]);
      if (ended.rows.length !== 1) throw new EndedElsewhere();
      await remember?.(tx, now);
    });
  });
  if (isLast) one.isOver = true;
  log.publish(events);
}

const done: RunEvent = { type: 'done', data: {} };

const succeeded = (ctx: Ctx, figures: RunFigures, now: Date) => ({
  ...figures,
  status: 'succeeded' as const,
  error_code: null,
  completed_at: now.toISOString(),
  events_expire_at: expiryOf(ctx.app, now),
});

const succeededFact = (ctx: Ctx, { run }: RunUnderWay, answer: RunAnswer, now: Date, more: object = {}) =>
  fact(ctx, {
    type: 'run.succeeded',
    resource_type: 'run',
    resource_id: run.id,
    data: {
      ...aboutRun(run, now),
      model: answer.model,
      citation_count: answer.citations.length,
      length: answer.text.length,
      ...more,
    },
  });

/** Speaks the answer, which is there whatever becomes of this, and ends the run. */
async function speak(ctx: Ctx, one: RunUnderWay, course: Course): Promise<void> {
  const { run, log, cancel } = one;
  const began = performance.now();
  const spoken: Spoken = await speakAnswer(ctx, run, course.answer!.text, cancel.signal);
  if (cancel.signal.reason instanceof EndedElsewhere) throw cancel.signal.reason;
  course.timings.speech_ms = Math.round(performance.now() - began);
  const events = [spoken.event, done];
  await flusherOf(ctx.app).hold(one);
  const { batches, last_seq } = log.closing(events);
  await whileTheLeaseHolds(one, async () => {
    const now = new Date();
    const figures = figuresOf(ctx, one, course, last_seq);
    await ctx.db.transaction(async (tx) => {
      const [ended] = await tx.batch([
        endRun(run, succeeded(ctx, figures, now)),
        insertEvents(ctx.tenant, run.id, batches),
        succeededFact(ctx, one, course.answer!, now, spoken.about),
        ...spoken.statements,
      ]);
      if (ended.rows.length !== 1) throw new EndedElsewhere();
    });
  });
  one.isOver = true;
  log.publish(events);
}

async function endBadly(ctx: Ctx, one: RunUnderWay, course: Course, error: unknown): Promise<void> {
  const { run, log, cancel } = one;
  await flusherOf(ctx.app).hold(one);
  if (error instanceof EndedElsewhere || cancel.signal.reason instanceof EndedElsewhere) {
    one.isOver = true;
    log.leaveToRows();
    return;
  }
  const failure = failureOf(error, cancel.signal);
  ctx.log[failure.unforeseen ? 'error' : 'info'](
    { err: error, run_id: run.id, code: failure.code },
    'a run ended without an answer',
  );
  const events: RunEvent[] = [
    { type: 'error', data: { code: failure.code, message: failure.message } },
    done,
  ];
  const { batches, last_seq } = log.closing(events);
  try {
    const isEnded = await whileTheLeaseHolds(one, () =>
      recordFailure(ctx, one, figuresOf(ctx, one, course, last_seq), failure, batches),
    );
    one.isOver = true;
    if (isEnded) {
      log.publish(events);
      ctx.app.metrics.runs.inc({ outcome: failure.status });
    } else log.leaveToRows();
  } catch (lost) {
    one.isOver = true;
    ctx.log.warn(
      { err: lost, run_id: run.id },
      'the end of a run could not be recorded; it counts as lost when its lease runs out',
    );
    log.publish(events);
  }
}

/** @returns false when the run was over: how it ended stands in the rows */
async function recordFailure(
  ctx: Ctx,
  { run }: RunUnderWay,
  figures: RunFigures,
  { status, code }: Failure,
  batches: Parameters<typeof insertEvents>[2],
): Promise<boolean> {
  const now = new Date();
  return ctx.db.transaction(async (tx) => {
    const ended = await tx.rows(
      endRun(run, {
        ...figures,
        status,
        error_code: code,
        completed_at: now.toISOString(),
        events_expire_at: expiryOf(ctx.app, now),
      }),
    );
    if (ended.length === 0) return false;
    await tx.batch([
      insertEvents(ctx.tenant, run.id, batches),
      fact(ctx, {
        type: `run.${status}`,
        resource_type: 'run',
        resource_id: run.id,
        outcome: 'failure',
        data: { ...aboutRun(run, now), error_code: code },
      }),
    ]);
    return true;
  });
}

/**
 * Tries again while the database is away, as long as nobody else may end the run. Repeating is safe: what was committed
 * although nobody heard of it has made the run no longer running, and the next try finds that.
 */
async function whileTheLeaseHolds<T>(one: RunUnderWay, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isDatabaseUnavailable(error) || Date.now() + retryMs > one.leaseUntil) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, retryMs));
  }
}
