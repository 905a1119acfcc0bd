import type { ServerResponse } from 'node:http';
import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { fact } from '#platform/facts/record.ts';
import { openEventStream } from '#platform/http/sse.ts';
import { uuidv7 } from '#platform/ids.ts';
import { retrieveChunks } from '../documents/service.ts';
import { type Chunk, type RunAnswer, writeAnswer } from './answer.ts';
import { TenantCheckpoints } from './checkpoints.ts';
import { type RunEvents, runEvents } from './events.ts';
import { type Failure, failureOf, retrievalFailure, runFailure } from './failures.ts';
import { walkGraph } from './graph.ts';
import { searchTextOf } from './prompt.ts';
import type { RunCreate } from './schema.ts';
import { endRun, insertMessage, listHistory, type NewRun, type PastMessage, renewLease } from './store.ts';

/** A run belongs to its process for so long after each sign of life; then anybody may declare it lost. */
export const leaseMs = 30_000;
const renewMs = 10_000;
const shutDownLingerMs = 1_000;
const historyMessages = 10;
const passagesMost = 20;

/** Does the run's work and tells its client, whatever happens. Resolves when the stream is closed; never rejects. */
export async function conductRun(
  ctx: Ctx,
  run: NewRun,
  input: RunCreate,
  response: ServerResponse,
  cancel: AbortController,
): Promise<void> {
  const { config } = ctx.app;
  const { id: run_id, request_id, session_id } = run;
  const stream = openEventStream(response);
  const events = runEvents(stream, {
    run_id,
    request_id,
    session_id,
    heartbeatMs: config.RUN_SSE_HEARTBEAT_S * 1000,
  });
  let isDone = false;
  let grace: NodeJS.Timeout | undefined;
  stream.onClose(() => {
    if (!isDone)
      grace = setTimeout(
        () => cancel.abort(runFailure('CLIENT_DISCONNECTED')),
        config.RUN_DISCONNECT_GRACE_MS,
      );
  });
  const lease = keepLease(ctx, run, cancel);
  try {
    await events.send('request.accepted', { accepted_at: run.created_at, run_id });
    const { text, citations, model } = await answerRun(ctx, run, input, events, cancel.signal, lease);
    await events.send('message.final', { text, citations, model, run_id });
    if (input.audio)
      await events.send('audio.error', {
        code: 'TTS_CONFIG_MISSING',
        message: 'No speech provider is configured; the answer is in message.final.',
      });
    events.close(['done', {}]);
    ctx.app.metrics.runs.inc({ outcome: 'succeeded' });
  } catch (error) {
    const failure = failureOf(error, cancel.signal);
    ctx.log[failure.unforeseen ? 'error' : 'info'](
      { err: error, run_id, code: failure.code },
      'a run ended without an answer',
    );
    await recordFailure(ctx, run, failure);
    events.close(['error', { code: failure.code, message: failure.message }], ['done', {}]);
    ctx.app.metrics.runs.inc({ outcome: failure.status });
  } finally {
    isDone = true;
    lease.end();
    clearTimeout(grace);
    ctx.app.nudgeRelay();
  }
  await new Promise<void>((resolve) => {
    stream.onClose(resolve);
    // A reader that does not take the rest may not keep a process from ending.
    const drop = () => setTimeout(() => response.destroy(), shutDownLingerMs).unref();
    if (cancel.signal.aborted) drop();
    else cancel.signal.addEventListener('abort', drop, { once: true });
  });
}

/** Takes the run through its graph. When this returns, answer, status and checkpoint are committed, in one transaction. */
async function answerRun(
  ctx: Ctx,
  run: NewRun,
  input: RunCreate,
  events: RunEvents,
  cancel: AbortSignal,
  lease: Lease,
): Promise<RunAnswer> {
  let history: PastMessage[] = [];
  let searchText = input.message;
  let chunks: Chunk[] = [];
  let answer: RunAnswer | undefined;
  let answerId: string | undefined;
  const checkpoints = new TenantCheckpoints(ctx.db, async (statements) => {
    // Without an answer there is nothing to go on from: the thread stays where its last finished run left it.
    if (!answer || !answerId) return;
    // From here on the run is no longer 'running': a renewal that finds none must not take it for lost.
    lease.end();
    await recordAnswer(ctx, run, answer, answerId, statements);
  });
  const steps = {
    load: async () => {
      history = await listHistory(ctx.db, run, historyMessages);
      searchText = searchTextOf(input.message, history);
      return history.map(({ id }) => id);
    },
    retrieve: async () => {
      chunks = await retrieve(ctx, run.corpus_id, searchText, input.top_k);
      if (ctx.app.config.DEBUG_EVENTS)
        await events.send('debug.retrieval', { provider: 'local_pgvector', num_chunks: chunks.length });
      return chunks.map(({ id }) => id);
    },
    generate: async (signal: AbortSignal) => {
      const emit = (delta: string) => events.send('token.delta', { delta });
      answer = await writeAnswer(
        ctx.app.models.answers,
        { message: input.message, search_text: searchText, chunks, history },
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
  await walkGraph(steps, `${run.identity_id}:${run.session_id}`, run.id, checkpoints, cancel);
  return answer!;
}

async function retrieve(
  ctx: Ctx,
  corpusId: string,
  query: string,
  topK: number | undefined,
): Promise<Chunk[]> {
  try {
    return (await retrieveChunks(ctx, { corpus_id: corpusId, query, limit: topK })).slice(0, passagesMost);
  } catch (error) {
    throw retrievalFailure(error);
  }
}

async function recordAnswer(
  ctx: Ctx,
  run: NewRun,
  answer: RunAnswer,
  answerId: string,
  checkpoint: Statement[],
): Promise<void> {
  const now = new Date();
  await ctx.db.transaction(async (tx) => {
    const [ended] = await tx.batch([
      endRun(run, 'succeeded', answer.model, null, now.toISOString()),
      insertMessage(run, {
        id: answerId,
        role: 'assistant',
        text: answer.text,
        citations: answer.citations,
        created_at: now.toISOString(),
      }),
      ...checkpoint,
      fact(ctx, {
        type: 'run.succeeded',
        resource_type: 'run',
        resource_id: run.id,
        data: {
          ...aboutRun(run, now),
          model: answer.model,
          citation_count: answer.citations.length,
          length: answer.text.length,
        },
      }),
    ]);
    if (ended.rows.length !== 1) throw runFailure('PROCESS_LOST');
  });
}

async function recordFailure(ctx: Ctx, run: NewRun, { status, code }: Failure): Promise<void> {
  const now = new Date();
  try {
    await ctx.db.transaction(async (tx) => {
      const ended = await tx.rows(
        endRun(run, status, ctx.app.models.answers?.name ?? null, code, now.toISOString()),
      );
      // Declared lost already, with a fact of its own.
      if (ended.length === 0) return;
      await tx.run(
        fact(ctx, {
          type: `run.${status}`,
          resource_type: 'run',
          resource_id: run.id,
          outcome: 'failure',
          data: { ...aboutRun(run, now), error_code: code },
        }),
      );
    });
  } catch (error) {
    ctx.log.warn(
      { err: error, run_id: run.id },
      'the end of a run could not be recorded; it counts as lost when its lease runs out',
    );
  }
}

const aboutRun = (run: NewRun, now: Date) => ({
  session_id: run.session_id,
  corpus_id: run.corpus_id,
  duration_ms: now.getTime() - Date.parse(run.created_at),
});

/** Says at intervals that the run's process lives. A run that was declared lost meanwhile is stopped. */
function keepLease(ctx: Ctx, run: NewRun, cancel: AbortController): Lease {
  let ended = false;
  const timer = setInterval(async () => {
    try {
      const renewed = await ctx.db.rows(renewLease(run, new Date(Date.now() + leaseMs)));
      if (renewed.length === 0 && !ended) cancel.abort(runFailure('PROCESS_LOST'));
    } catch (error) {
      ctx.log.warn(
        { err: error, run_id: run.id },
        'the lease of a run could not be renewed and will be tried again',
      );
    }
  }, renewMs);
  return {
    end: () => {
      ended = true;
      clearInterval(timer);
    },
  };
}

interface Lease {
  end: () => void;
}
