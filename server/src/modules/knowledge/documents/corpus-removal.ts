import { type App, type Ctx, systemCtx } from '#platform/context.ts';
import { conflict, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { jobStates } from '#platform/jobs/states.ts';
import type { JobPayload } from '#platform/jobs/worker.ts';
import { authorize } from '#platform/permission.ts';
import {
  corpusScope,
  type DeletedCorpus,
  deleteCorpusRow,
  getCorpus,
  isBeingDeleted,
  listDeletedCorpora,
  lockCorpus,
  markCorpusDeleted,
  moveToPurgeJob,
} from '../corpora/service.ts';
import { removeCounts } from '../retrieval/service.ts';
import { deleteChunks } from './chunk-store.ts';
import { deletePermissions } from './permission-store.ts';
import { deleteDocument, findInFlight, listStored } from './store.ts';

export const purgeJob = 'corpora.purge';

/**
 * Deletes a corpus with all it holds. It is gone for everybody when this returns; what it holds is removed by a job.
 * @throws ApiError 404, 409 INGEST_IN_PROGRESS while documents of it are worked on
 */
export async function removeCorpus(ctx: Ctx, id: string): Promise<void> {
  await getCorpus(ctx, id);
  await authorize(ctx, 'corpora:delete', { id });
  const job = uuidv7();
  await ctx.db.transaction(async (tx) => {
    // Whoever stores a document holds the corpus: from here on none can come.
    const [corpus] = await tx.rows(lockCorpus(ctx.tenant, id));
    if (!corpus) throw notFound('Corpus');
    const [busy] = await tx.rows(findInFlight(ctx.tenant, id));
    if (busy) {
      throw conflict(
        'INGEST_IN_PROGRESS',
        'Documents of the corpus are being worked on. Wait until none is queued or processing.',
      );
    }
    const { name, provider_config_json } = corpus;
    await tx.batch([
      markCorpusDeleted(ctx.tenant, id, job, new Date()),
      fact(ctx, {
        id: job,
        type: 'corpora.deleted',
        resource_type: 'corpus',
        resource_id: id,
        before: { name, provider_config_json },
      }),
    ]);
  });
}

/** Documents removed in one transaction, and the chunks they have together: on the embedded engine others wait for it. */
const batch = 50;
const mostChunks = 500;

/**
 * Removes what a deleted corpus holds, a few documents at a time, then its statistics, then itself. Killed anywhere it
 * goes on where it was; nobody sees what is half done, since the corpus is hidden.
 */
export async function purgeCorpus(ctx: Ctx, { resource_id }: JobPayload): Promise<void> {
  const id = resource_id!;
  if (!(await isBeingDeleted(ctx.db, id))) return;
  let documents = 0;
  for (;;) {
    ctx.signal.throwIfAborted();
    const stored = await listStored(ctx.db, id, batch);
    if (stored.length === 0) break;
    let chunks = 0;
    const part = stored.filter(({ num_chunks }, i) => {
      chunks += num_chunks ?? 0;
      return i === 0 || chunks <= mostChunks;
    });
    await ctx.db.batch(
      part.flatMap((document) => [
        ...deleteChunks(ctx.tenant, corpusScope(id), document.id),
        deletePermissions(ctx.tenant, document.id),
        deleteDocument(ctx.tenant, document.id),
      ]),
    );
    documents += part.length;
  }
  await removeCounts(ctx, corpusScope(id));
  await ctx.db.transaction(async (tx) => {
    const gone = await tx.rows(deleteCorpusRow(ctx.tenant, id));
    if (gone.length === 0) return;
    await tx.run(
      fact(ctx, { type: 'corpora.purged', resource_type: 'corpus', resource_id: id, data: { documents } }),
    );
  });
}

const waitMs = 30_000;

/** Looks for deletions that wait for a job which is not there any more, and gives them another. */
export async function mendPurges(app: App): Promise<void> {
  const corpora = await listDeletedCorpora(app.database.operator, new Date(Date.now() - waitMs));
  const states = await jobStates(
    app,
    purgeJob,
    corpora.map(({ purge_job }) => purge_job),
  );
  for (const corpus of corpora) {
    const state = states.get(corpus.purge_job);
    if (state === 'living') continue;
    // The same id as the relay's, where no job was made yet: whichever of both comes second makes nothing.
    const job = state === 'ended' ? await anotherJob(app, corpus) : corpus.purge_job;
    if (job)
      await app.enqueue(purgeJob, [
        { tenant_id: corpus.tenant_id, fact_id: job, resource_id: corpus.id, data: {} },
      ]);
  }
}

async function anotherJob(
  app: App,
  { tenant_id, id, purge_job }: DeletedCorpus,
): Promise<string | undefined> {
  const job = uuidv7();
  const { db } = systemCtx(app, tenant_id, job);
  const moved = await db.rows(moveToPurgeJob(tenant_id, id, purge_job, job));
  return moved.length > 0 ? job : undefined;
}
