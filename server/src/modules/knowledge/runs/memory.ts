import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { createMemories } from '../memory/service.ts';
import { EXTRACTIVE, type RunAnswer } from './answer.ts';
import type { RunCreate } from './schema.ts';
import type { NewRun } from './store.ts';

/** What a run does with memories. */
export interface MemoryPlan {
  recall: boolean;
  remember: boolean;
}

const memoryType = 'conversation';

/**
 * Reads what a run was asked to do with memories. What was asked for by name must be allowed; `true` remembers where
 * the caller may.
 * @throws ApiError 403
 */
export async function planMemory(ctx: Ctx, memory: RunCreate['memory']): Promise<MemoryPlan> {
  if (memory === undefined || memory === false) return { recall: false, remember: false };
  const owner = { owner: ctx.actor.identity_id!, type: memoryType };
  const plan =
    memory === true
      ? { recall: true, remember: await isPermitted(ctx, 'memory:create', owner) }
      : { recall: memory.recall ?? true, remember: memory.remember ?? false };
  if (plan.recall) await authorize(ctx, 'memory:search');
  if (plan.remember) await authorize(ctx, 'memory:create', owner);
  return plan;
}

/**
 * Makes ready to store what was asked and answered as memories of the session; what it answers does that, in the
 * transaction of the answer. Policies are read before it: there a second connection would wait for the first for ever.
 */
export async function prepareToRemember(
  ctx: Ctx,
  run: NewRun,
  question: string,
  answer: RunAnswer,
): Promise<(tx: Db, now: Date) => Promise<void>> {
  const own = contextOfRun(ctx, ctx.signal);
  await ctx.app.features.prepare(own);
  // That nothing was found is nothing to remember.
  const isEmpty = answer.model === EXTRACTIVE && answer.citations.length === 0;
  const turn = (role: 'user' | 'assistant', text: string, occurred_at: string) =>
    parts(text, ctx.app.config.MAX_MEMORY_SIZE).map((part) => ({
      text: part,
      type: memoryType,
      role,
      session_id: run.session_id,
      occurred_at,
      metadata: { run_id: run.id, ...(run.corpus_id === null ? {} : { corpus_id: run.corpus_id }) },
    }));
  return async (tx, now) => {
    own.db = tx;
    const { failed } = await createMemories(own, [
      ...turn('user', question, run.created_at),
      ...(isEmpty ? [] : turn('assistant', withoutMarks(answer.text), now.toISOString())),
    ]);
    for (const { error } of failed)
      ctx.log.info({ run_id: run.id, code: error.code }, 'a turn of a run was not remembered');
  };
}

/** A context with the rights of a request that outlives it: the run goes on when its client has gone. */
export const contextOfRun = (
  { app, tenant, actor, requestId, request, log }: Ctx,
  signal: AbortSignal,
): Ctx => ({
  app,
  tenant,
  actor,
  requestId,
  request,
  signal,
  log,
  db: app.database.tenant(tenant),
});

/** What the marks of an answer point at is not remembered with it. */
const withoutMarks = (text: string): string => text.replace(/ ?\[\d{1,4}\]/g, '');

/** A text in pieces of at most `size` characters, cut at white space where there is some; none of a blank text. */
function parts(text: string, size: number): string[] {
  const pieces: string[] = [];
  for (let rest = text.trim(); rest !== ''; ) {
    let end = rest.length;
    if (end > size) {
      const space = rest.lastIndexOf(' ', size);
      end = space > size / 2 ? space : size;
      if (/[\uD800-\uDBFF]/.test(rest[end - 1]!)) end -= 1;
    }
    pieces.push(rest.slice(0, end).trim());
    rest = rest.slice(end).trim();
  }
  return pieces;
}
