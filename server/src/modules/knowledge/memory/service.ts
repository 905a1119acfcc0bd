import { setImmediate as breathe } from 'node:timers/promises';
import { Compile } from 'typebox/compile';
import type { App, Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { createGatherer } from '#platform/db/gather.ts';
import { invalid, notFound } from '#platform/errors.ts';
import { type FactRow, fact, factRow, insertFacts } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { viewOf, visiblePage } from '../../access/policy/service.ts';
import { analyzeDocument, countTexts, encodeSparse } from '../retrieval/service.ts';
import { type Memory, MemoryCreate, type MemoryUpdate } from './schema.ts';
import {
  type DeletableMemory,
  deleteVectors,
  dequeueMemories,
  enqueueMemory,
  findMemories,
  insertMemories,
  listMemories,
  lockMemories,
  lockMemory,
  type MemoryRow,
  removeMemories,
  updateMemory,
} from './store.ts';
import { memoryScope, targetOf } from './target.ts';

export type { Memory } from './schema.ts';
export { searchMemories } from './search.ts';

/** Term weights of a text in the form they are stored. */
export function weightsOf(text: string) {
  const { words, trigrams } = analyzeDocument(text);
  return { words: encodeSparse(words), trigrams: encodeSparse(trigrams) };
}

const dayMs = 86_400_000;

function expiryOf(
  input: Pick<MemoryCreate, 'ttl_days' | 'expires_at'>,
  created: Date,
): { ttl_days: number | null; expires_at: string | null } {
  if (input.ttl_days != null && input.expires_at != null) {
    throw invalid([{ path: '/expires_at', message: 'can not be given together with ttl_days' }]);
  }
  if (input.ttl_days != null) {
    return {
      ttl_days: input.ttl_days,
      expires_at: new Date(created.getTime() + input.ttl_days * dayMs).toISOString(),
    };
  }
  return {
    ttl_days: null,
    expires_at: input.expires_at == null ? null : storedTimestamp(input.expires_at, '/expires_at'),
  };
}

function checkText(ctx: Ctx, text: string): void {
  const maximum = ctx.app.config.MAX_MEMORY_SIZE;
  if (text.length > maximum)
    throw invalid([{ path: '/text', message: `must not be longer than ${maximum} characters` }]);
  if (!/\S/.test(text)) throw invalid([{ path: '/text', message: 'must not be blank' }]);
}

function newRow(ctx: Ctx, input: MemoryCreate, now: Date): MemoryRow {
  checkText(ctx, input.text);
  return {
    id: uuidv7(),
    identity_id: ctx.actor.identity_id!,
    text: input.text,
    type: input.type,
    metadata: input.metadata ?? input.meta_data ?? {},
    session_id: input.session_id ?? null,
    role: input.role ?? null,
    occurred_at: input.occurred_at === undefined ? null : storedTimestamp(input.occurred_at, '/occurred_at'),
    version: 1,
    ...expiryOf(input, now),
    created_at: now.toISOString(),
    updated_at: now.toISOString(),
    tenant_id: ctx.tenant,
    ...weightsOf(input.text),
  };
}

const resourceOf = ({ words: _w, trigrams: _t, ...row }: MemoryRow): Memory => ({
  ...row,
  meta_data: row.metadata,
  score: null,
  embedding_status: 'pending',
});

/** A memory to be stored with the fact of it. */
interface NewMemory {
  row: MemoryRow;
  fact: FactRow;
}

const storeMemories = (ctx: { app: App }, db: Db, memories: NewMemory[]) =>
  db.batch([
    ...insertMemories(
      db.tenant!,
      memories.map(({ row }) => row),
      ctx.app.vectorTypes,
    ),
    insertFacts(
      db.tenant!,
      memories.map((memory) => memory.fact),
    ),
  ]);

/** Groups under way at once: the embedded database does one thing at a time, so there two would only be smaller. */
const lanesOf = (app: App): number => (app.database.engine === 'embedded' ? 1 : 2);

// Concurrent creates of a tenant share a transaction: each still has its own row, fact and answer.
const gatherCreates = perApp((app) =>
  createGatherer<NewMemory, void>(async (tenant, memories) => {
    await storeMemories({ app }, app.database.tenant(tenant), memories);
    return [];
  }, lanesOf(app)),
);

/** Stores a memory of the caller's. It can be found by its words at once; its vector follows. */
export async function createMemory(ctx: Ctx, input: MemoryCreate): Promise<Memory> {
  const row = newRow(ctx, input, new Date());
  const view = await viewOf(ctx, 'memory:create');
  // The route asked without knowing what is created; a policy may look at its type or metadata.
  if (view.rows === 'each') await authorize(ctx, 'memory:create', targetOf(row));
  const memory: NewMemory = {
    row,
    fact: factRow(ctx, {
      type: 'memory.created',
      resource_type: 'memory',
      resource_id: row.id,
      after: { type: row.type, length: row.text.length, expires_at: row.expires_at },
    }),
  };
  if (ctx.db.inTransaction) await storeMemories(ctx, ctx.db, [memory]);
  else await gatherCreates(ctx.app)(ctx.tenant, memory);
  return resourceOf(row);
}

const checkInput = Compile(MemoryCreate);

/** Stores up to 1,000 memories in one transaction; those that are invalid are told and the others stored. */
export async function createMemories(ctx: Ctx, inputs: unknown[]) {
  const now = new Date();
  const rows: MemoryRow[] = [];
  const created: { index: number; id: string }[] = [];
  const failed: { index: number; error: { code: string; message: string } }[] = [];
  const view = await viewOf(ctx, 'memory:create');
  for (const [index, input] of inputs.entries()) {
    // A thousand long texts are seconds of work: others have their turn in between.
    if (index % 64 === 63) await breathe();
    const row = rowOrProblem(ctx, input, now);
    if (typeof row === 'string') {
      failed.push({ index, error: { code: 'VALIDATION_ERROR', message: row } });
    } else if (view.rows === 'each' && !view.sees(targetOf(row))) {
      failed.push({
        index,
        error: { code: 'POLICY_DENIED', message: 'A policy of your tenant does not allow this.' },
      });
    } else {
      rows.push(row);
      created.push({ index, id: row.id });
    }
  }
  if (rows.length > 0) {
    await ctx.db.batch([
      ...insertMemories(ctx.tenant, rows, ctx.app.vectorTypes),
      fact(ctx, {
        type: 'memory.bulk_created',
        resource_type: 'memory',
        data: { created_count: rows.length, memory_ids: rows.map(({ id }) => id) },
      }),
    ]);
  }
  return { created, failed };
}

function rowOrProblem(ctx: Ctx, input: unknown, now: Date): MemoryRow | string {
  // Telling what is wrong with thousands of unknown fields takes longer than all the rest.
  if (typeof input === 'object' && input !== null && Object.keys(input).length > 50)
    return '/ has too many fields';
  if (!checkInput.Check(input)) {
    const [first] = checkInput.Errors(input);
    return first ? `${first.instancePath || '/'} ${first.message}` : 'is not a memory';
  }
  try {
    return newRow(ctx, input, now);
  } catch (error) {
    const [problem] =
      (error as { details?: { errors?: { path: string; message: string }[] } }).details?.errors ?? [];
    if (!problem) throw error;
    return `${problem.path} ${problem.message}`;
  }
}

const gatherReads = perApp((app) =>
  createGatherer<string, Memory | undefined>(async (tenant, ids) => {
    const found = await findMemories(app.database.tenant(tenant), ids, new Date());
    const byId = new Map(found.map((memory) => [memory.id, memory]));
    return ids.map((id) => byId.get(id.toLowerCase()));
  }, 2 * lanesOf(app)),
);

/** @throws ApiError 404 also for what is deleted, expired, or not the caller's to see */
export async function getMemory(ctx: Ctx, id: string): Promise<Memory> {
  const memory = isUuid(id) ? await gatherReads(ctx.app)(ctx.tenant, id) : undefined;
  if (!memory || !(await isPermitted(ctx, 'memory:read', targetOf(memory)))) throw notFound('Memory');
  return memory;
}

/** Memories the caller may see, newest first: its own, or the tenant's where policy says so. */
export const listVisible = (
  ctx: Ctx,
  { memory_type, session_id, ...query }: PageQuery & { memory_type?: string; session_id?: string },
): Promise<Answer> => {
  const filter = { types: memory_type === undefined ? undefined : [memory_type], session_id };
  return visiblePage(ctx, 'memory:list', { memory_type, session_id }, query, {
    rows: (from) => listMemories(ctx.db, filter, from, new Date()),
    owned: true,
    target: targetOf,
    position: ({ id }) => [id],
    size: 100,
  });
};

/** Changes a memory; its version grows. A changed text is searched by its words at once and embedded anew. */
export async function changeMemory(ctx: Ctx, id: string, input: MemoryUpdate): Promise<Memory> {
  if (input.text !== undefined) checkText(ctx, input.text);
  const view = await viewOf(ctx, 'memory:update');
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const before = isUuid(id) ? await lockMemory(tx, id, now) : undefined;
    if (!before || !view.sees(targetOf(before))) throw notFound('Memory');
    if (Object.keys(input).length === 0) return before;
    const expiry =
      input.ttl_days === undefined && input.expires_at === undefined
        ? { ttl_days: before.ttl_days, expires_at: before.expires_at }
        : expiryOf(input, new Date(before.created_at));
    const text = input.text ?? before.text;
    const row: MemoryRow = {
      ...before,
      ...expiry,
      text,
      type: input.type ?? before.type,
      metadata: input.metadata ?? input.meta_data ?? before.metadata,
      version: before.version + 1,
      updated_at: now.toISOString(),
      ...weightsOf(text),
    };
    const changed = text !== before.text;
    if (changed) await recount(tx, ctx.tenant, before, row.updated_at);
    await tx.batch([
      updateMemory(row),
      fact(ctx, {
        type: 'memory.updated',
        resource_type: 'memory',
        resource_id: id,
        before: {
          type: before.type,
          version: before.version,
          length: before.text.length,
          expires_at: before.expires_at,
        },
        after: { type: row.type, version: row.version, length: text.length, expires_at: row.expires_at },
      }),
    ]);
    return { ...resourceOf(row), embedding_status: changed ? 'pending' : before.embedding_status };
  });
}

/** Takes the old text out of statistics and vectors, and queues the memory. */
async function recount(tx: Db, tenant: string, before: Memory, now: string): Promise<void> {
  const wasCounted = (await tx.rows(enqueueMemory(tenant, before.id, now))).length === 1;
  await tx.batch([
    deleteVectors(tenant, [before.id]),
    ...(wasCounted ? countTexts(tenant, memoryScope, [analyzeDocument(before.text)], -1) : []),
  ]);
}

/** Deletes one memory: hidden at once, or with `hard` removed with all that was made from it. */
export async function deleteMemory(ctx: Ctx, id: string, hard: boolean): Promise<void> {
  const { missing } = await deleteMemories(ctx, [id], hard);
  if (missing.length > 0) throw notFound('Memory');
}

/** @returns the ids that were not there for the caller */
export async function deleteMemories(
  ctx: Ctx,
  ids: string[],
  hard: boolean,
  reason?: string,
): Promise<{ deleted: string[]; missing: string[] }> {
  const view = await viewOf(ctx, 'memory:delete');
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const found = (await lockMemories(tx, ids.filter(isUuid), now)).filter((memory) =>
      view.sees(targetOf(memory)),
    );
    const deleted = found.map(({ id }) => id);
    const missing = ids.filter((id) => !deleted.includes(id.toLowerCase()));
    if (deleted.length === 0) return { deleted, missing };
    await takeOut(tx, ctx.tenant, found);
    const kind = hard ? 'hard_deleted' : 'soft_deleted';
    await tx.batch([
      removeMemories(ctx.tenant, deleted, hard, now),
      ...found.map(({ id, type, version }) =>
        fact(ctx, {
          type: 'memory.deleted',
          resource_type: 'memory',
          resource_id: id,
          before: { type, version },
          data: { kind, ...(reason ? { reason } : {}) },
        }),
      ),
    ]);
    return { deleted, missing };
  });
}

/** Takes texts out of queue, vectors and statistics; those that still waited were never counted. */
export async function takeOut(tx: Db, tenant: string, memories: DeletableMemory[]): Promise<void> {
  const ids = memories.map(({ id }) => id);
  const waiting = new Set((await tx.rows(dequeueMemories(tenant, ids))).map(({ memory_id }) => memory_id));
  const counted = memories.filter(({ id }) => !waiting.has(id)).map(({ text }) => analyzeDocument(text));
  await tx.batch([deleteVectors(tenant, ids), ...countTexts(tenant, memoryScope, counted, -1)]);
}
