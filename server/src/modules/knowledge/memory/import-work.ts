import { type App, type Ctx, systemCtx } from '#platform/context.ts';
import { ApiError } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { jobStates } from '#platform/jobs/states.ts';
import type { JobPayload } from '#platform/jobs/worker.ts';
import { isPermitted } from '#platform/permission.ts';
import { takingTurns } from '#platform/turns.ts';
import { unseal } from '../../access/data-keys/service.ts';
import { viewOf } from '../../access/policy/service.ts';
import { type LineProblem, type ParsedLine, type Reading, readLine } from './import-line.ts';
import { type MergedLines, mergeLines } from './import-merge.ts';
import {
  deleteChunk,
  endImport,
  findChunk,
  findImport,
  type ImportChunk,
  type ImportRow,
  listStalled,
  lockImport,
  moveImport,
} from './import-store.ts';
import { boundTo, giveUp } from './import-upload.ts';
import { asTheyAreNow, onBehalfOf } from './on-behalf.ts';
import { alwaysSensitive } from './sensitive-types.ts';

/** Failed lines an import names. */
const mostErrors = 100;

/**
 * Stores what a file holds, piece by piece: the memories of a piece, the count of them and the end of the piece are one
 * transaction, so a piece is stored once, however often the work is broken off.
 */
export async function runImport(jobCtx: Ctx, { resource_id }: JobPayload): Promise<void> {
  const owners: Reading['owners'] = new Map();
  for (;;) {
    jobCtx.signal.throwIfAborted();
    const work = await findImport(jobCtx.db, resource_id!);
    if (!work || !isOpen(work)) return;
    const asked = onBehalfOf(jobCtx, work.actor, work.request_id);
    const ctx = await asTheyAreNow(asked);
    if (!ctx) return giveUp(asked, work.id, 'IDENTITY_INACTIVE');
    if (work.options.preserve_ids && !(await isPermitted(ctx, 'admin:create')))
      return giveUp(ctx, work.id, 'AUTH_FORBIDDEN');
    if (work.next_chunk === work.chunk_count) return finish(ctx, work);
    const chunk = await findChunk(ctx.db, work.id, work.next_chunk);
    // Another worker has stored it meanwhile.
    if (!chunk) continue;
    const create = await viewOf(ctx, 'memory:create');
    const update = await viewOf(ctx, 'memory:update');
    const { lines, problems, read } = await readChunk(ctx, work, chunk, {
      options: work.options,
      create,
      always: await alwaysSensitive(ctx),
      owners,
    });
    await ctx.db.transaction(async (tx) => {
      const now = await lockImport(tx, work.id);
      if (!now || !isOpen(now) || now.next_chunk !== chunk.position) return;
      const merged = await mergeLines(ctx, tx, work, lines, update);
      await tx.batch([
        moveImport(ctx.tenant, work.id, progressOf(now, read, merged, problems), new Date()),
        deleteChunk(ctx.tenant, work.id, chunk.position),
      ]);
    });
    ctx.app.nudgeRelay();
  }
}

const isOpen = ({ status }: ImportRow) => status === 'queued' || status === 'processing';

async function readChunk(ctx: Ctx, work: ImportRow, chunk: ImportChunk, reading: Reading) {
  const [bytes] = await unseal(ctx, [{ sealed: chunk.sealed, context: boundTo(work.id, chunk.position) }]);
  const lines: ParsedLine[] = [];
  const problems: LineProblem[] = [];
  let from = 0;
  const others = takingTurns();
  for (let i = 0; i < chunk.lines; i++) {
    const end = bytes!.indexOf(10, from);
    const one = await readLine(ctx, bytes!.subarray(from, end), chunk.first_line + i, reading);
    from = end + 1;
    if (one && 'code' in one) problems.push(one);
    else if (one) lines.push(one);
    const turn = others();
    if (turn) await turn;
  }
  return { lines, problems, read: chunk.lines };
}

function progressOf(now: ImportRow, read: number, merged: MergedLines, problems: LineProblem[]) {
  const failed = [...problems, ...merged.problems].sort((a, b) => a.line - b.line);
  return {
    next_chunk: now.next_chunk + 1,
    processed: now.processed + read,
    created: now.created + merged.created,
    updated: now.updated + merged.updated,
    unchanged: now.unchanged + merged.unchanged,
    failed: now.failed + failed.length,
    errors: [...now.errors, ...failed].slice(0, mostErrors),
  };
}

async function finish(ctx: Ctx, { id, created, updated, unchanged, failed }: ImportRow): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    if ((await tx.rows(endImport(ctx.tenant, id, 'succeeded', null, new Date()))).length === 0) return;
    await tx.run(
      fact(ctx, {
        type: 'memory.import_completed',
        resource_type: 'memory_import',
        resource_id: id,
        data: { created, updated, unchanged, failed },
      }),
    );
  });
}

/** The permanent code of what an import ended with. */
export const failureOf = (reason: unknown): string =>
  reason instanceof ApiError ? reason.code : 'IMPORT_FAILED';

const job = 'memory.import';
const waitMs = 30_000;
/** An upload nobody goes on with is dropped. */
const abandonedMs = 24 * 3_600_000;

/** Gives imports another job where theirs is not there any more, and drops uploads that were left. */
export async function tendImports(app: App): Promise<void> {
  const stalled = await listStalled(app.database.operator, new Date(Date.now() - waitMs));
  const states = await jobStates(
    app,
    job,
    stalled.map(({ id }) => id),
  );
  for (const { tenant_id, id, status } of stalled) {
    if (status === 'uploading') {
      const ctx = systemCtx(app, tenant_id, uuidv7());
      const row = await findImport(ctx.db, id);
      if (row && Date.parse(row.updated_at) < Date.now() - abandonedMs)
        await giveUp(ctx, id, 'UPLOAD_ABANDONED');
    } else if (states.get(id) !== 'living') {
      const fact_id = states.get(id) === 'ended' ? uuidv7() : id;
      await app.enqueue(job, [{ tenant_id, fact_id, resource_id: id, data: {} }]);
    }
  }
}
