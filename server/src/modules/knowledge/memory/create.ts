import { checkOf } from '#platform/check.ts';
import type { App, Ctx } from '#platform/context.ts';
import { createGatherer } from '#platform/db/gather.ts';
import type { Statement } from '#platform/db/sql.ts';
import { ApiError, type FieldProblem } from '#platform/errors.ts';
import { type FactRow, fact, factRow, insertFacts } from '#platform/facts/record.ts';
import { checkTexts } from '#platform/http/json.ts';
import { firstProblem } from '#platform/http/validate.ts';
import { perApp } from '#platform/per-app.ts';
import { authorize } from '#platform/permission.ts';
import { takingTurns } from '#platform/turns.ts';
import { type View, viewOf } from '../../access/policy/service.ts';
import { findSimilar, type SimilarFound } from './duplicates.ts';
import { sealRows } from './encryption.ts';
import { inferenceOf } from './inferences.ts';
import { lanesOf } from './lanes.ts';
import { newRow, resourceOf } from './rows.ts';
import { type Memory, MemoryCreate } from './schema.ts';
import { type AlwaysSensitive, alwaysSensitive } from './sensitive-types.ts';
import { targetOf } from './target.ts';
import { erasedAmong, erasedMessage, refuseErased, relearning } from './tombstones.ts';
import { insertMemories, type MemoryRow } from './write-store.ts';

/** A memory to be stored with the fact of it, and what else its request asked for. */
interface NewMemory {
  row: MemoryRow;
  fact: FactRow;
  more: Statement[];
}

const storing = ({ app }: { app: App }, tenant: string, memories: NewMemory[]): Statement[] => [
  ...insertMemories(
    tenant,
    memories.map(({ row }) => row),
    app.vectorTypes,
  ),
  insertFacts(
    tenant,
    memories.map((memory) => memory.fact),
  ),
  ...memories.flatMap(({ more }) => more),
];

/**
 * Concurrent creates share a transaction, whatever their tenants: each still has its own row, fact and answer. On PostgreSQL those
 * that may have to wait for somebody keep to their tenant: for a key that is being replaced, or for what `more` asks for.
 */
const gatherCreates = perApp((app) => {
  const gather = createGatherer<NewMemory, void>(async (_, memories) => {
    const byTenant = Map.groupBy(memories, ({ row }) => row.tenant_id);
    await app.database.together(
      Array.from(byTenant, ([tenant, own]) => ({ tenant, statements: storing({ app }, tenant, own) })),
    );
    return [];
  }, lanesOf(app));
  const inTurn = app.database.engine === 'embedded';
  const waitsForNobody = ({ row, more }: NewMemory) => row.key_id === null && more.length === 0;
  return (memory: NewMemory) =>
    gather(inTurn || waitsForNobody(memory) ? 'all tenants' : memory.row.tenant_id, memory);
});

/**
 * Stores a memory of the caller's. It can be found by its words at once; its vector follows.
 * @throws ApiError 409 MEMORY_ERASED, 422
 */
export async function createMemory(ctx: Ctx, input: MemoryCreate): Promise<Memory> {
  const row = newRow(ctx, await alwaysSensitive(ctx), input, new Date());
  const view = await viewOf(ctx, 'memory:create');
  // The route asked without knowing what is created; a policy may look at its type or metadata.
  if (view.watched) await authorize(ctx, 'memory:create', targetOf(row));
  const more = input.relearn ? await relearning(ctx, row) : [];
  if (!input.relearn) await refuseErased(ctx, [row]);
  if (row.inference_status === 'pending') more.push(...inferenceOf(ctx, [row.id]));
  const [found] = input.check ? await findSimilar(ctx, [{ row, check: input.check }]) : [];
  const [stored] = await sealRows(ctx, [row]);
  const memory: NewMemory = {
    row: stored!,
    fact: factRow(ctx, {
      type: 'memory.created',
      resource_type: 'memory',
      resource_id: row.id,
      after: row.sensitive
        ? { type: row.type, sensitive: true, expires_at: row.expires_at }
        : { type: row.type, length: row.text.length, expires_at: row.expires_at },
    }),
    more,
  };
  if (ctx.db.inTransaction) await ctx.db.batch(storing(ctx, ctx.tenant, [memory]));
  else await gatherCreates(ctx.app)(memory);
  return found ? { ...resourceOf(row), ...found } : resourceOf(row);
}

const checkInput = checkOf(MemoryCreate);

/** One of many that are to be stored. */
interface Accepted {
  index: number;
  row: MemoryRow;
  input: MemoryCreate;
}

interface Problem {
  code: string;
  message: string;
}

export interface BulkCreated {
  created: ({ index: number; id: string } & SimilarFound)[];
  failed: { index: number; error: Problem }[];
}

/** Memories of one request that others are looked for. */
const mostChecked = 100;

/**
 * Stores up to 1,000 memories in one transaction; those that are invalid are told and the others stored.
 * @param areUnchecked their texts may hold what can not be stored
 */
export async function createMemories(
  ctx: Ctx,
  inputs: unknown[],
  areUnchecked = false,
): Promise<BulkCreated> {
  const now = new Date();
  const accepted: Accepted[] = [];
  const failed: BulkCreated['failed'] = [];
  const view = await viewOf(ctx, 'memory:create');
  const always = await alwaysSensitive(ctx);
  let checked = 0;
  // A thousand long texts are seconds of work.
  const others = takingTurns();
  for (const [index, input] of inputs.entries()) {
    const turn = others();
    if (turn) await turn;
    const row = rowOrProblem(ctx, always, input, now, view, areUnchecked);
    if ('code' in row) {
      failed.push({ index, error: row });
    } else if ((input as MemoryCreate).check && ++checked > mostChecked) {
      const message = `/check can be asked of ${mostChecked} memories in one request`;
      failed.push({ index, error: { code: 'VALIDATION_ERROR', message } });
    } else {
      accepted.push({ index, row, input: input as MemoryCreate });
    }
  }
  const { kept, more } = await withoutErased(ctx, accepted, failed);
  const checks = kept.filter(({ input }) => input.check);
  const found = await findSimilar(
    ctx,
    checks.map(({ row, input }) => ({ row, check: input.check! })),
  );
  const similar = new Map(checks.map(({ index }, i) => [index, found[i]!]));
  if (kept.length > 0) {
    const rows = await sealRows(
      ctx,
      kept.map(({ row }) => row),
    );
    await ctx.db.batch([
      ...insertMemories(ctx.tenant, rows, ctx.app.vectorTypes),
      fact(ctx, {
        type: 'memory.bulk_created',
        resource_type: 'memory',
        data: { created_count: rows.length, memory_ids: rows.map(({ id }) => id) },
      }),
      ...more,
    ]);
  }
  return {
    created: kept.map(({ index, row }) => ({ index, id: row.id, ...similar.get(index) })),
    failed: failed.sort((a, b) => a.index - b.index),
  };
}

/** Puts what was erased among the failed; answers the others, and the statements they need besides their rows. */
async function withoutErased(
  ctx: Ctx,
  accepted: Accepted[],
  failed: BulkCreated['failed'],
): Promise<{ kept: Accepted[]; more: Statement[] }> {
  const erased = await erasedAmong(
    ctx,
    accepted.map(({ row }) => row),
  );
  const kept: Accepted[] = [];
  const more: Statement[] = [];
  for (const [i, one] of accepted.entries()) {
    try {
      if (one.input.relearn) more.push(...(await relearning(ctx, one.row)));
      else if (erased.has(i)) throw new ApiError(409, 'MEMORY_ERASED', erasedMessage);
      kept.push(one);
      if (one.row.inference_status === 'pending') more.push(...inferenceOf(ctx, [one.row.id]));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      failed.push({ index: one.index, error: { code: error.code, message: error.message } });
    }
  }
  return { kept, more };
}

function rowOrProblem(
  ctx: Ctx,
  always: AlwaysSensitive,
  input: unknown,
  now: Date,
  view: View,
  isUnchecked: boolean,
): MemoryRow | Problem {
  const problem = (message: string): Problem => ({ code: 'VALIDATION_ERROR', message });
  // Telling what is wrong with thousands of unknown fields takes longer than all the rest.
  if (typeof input === 'object' && input !== null && Object.keys(input).length > 50)
    return problem('/ has too many fields');
  if (!checkInput.Check(input)) {
    const first = firstProblem(MemoryCreate, checkInput.Errors(input));
    return problem(first ? `${first.path || '/'} ${first.message}` : 'is not a memory');
  }
  try {
    if (isUnchecked) checkTexts(input);
    const row = newRow(ctx, always, input, now);
    if (!view.watched || view.reaches(targetOf(row))) return row;
    return { code: 'POLICY_DENIED', message: 'A policy of your tenant does not allow this.' };
  } catch (error) {
    const [first] = ((error as ApiError).details?.errors as FieldProblem[] | undefined) ?? [];
    if (!first) throw error;
    return problem(`${first.path} ${first.message}`);
  }
}
