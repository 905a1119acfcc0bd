import type { Config } from '#platform/config.ts';
import { type App, systemCtx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { jobStates } from '#platform/jobs/states.ts';
import type { JobDefinition } from '#platform/jobs/worker.ts';
import { enqueued } from './accept.ts';
import { mendPurges, purgeCorpus, purgeJob } from './corpus-removal.ts';
import { endBadly, ingestDocument } from './ingest.ts';
import { listUnfinished, requeueDocument, type UnfinishedDocument } from './unfinished-store.ts';

const ingest = 'documents.ingest';

export const documentJobs = (config: Config): JobDefinition[] => [
  {
    name: ingest,
    follows: ['documents.ingest.enqueued', 'documents.reindex.enqueued'],
    per: 'fact',
    concurrency: config.INGEST_MAX_CONCURRENCY,
    timeoutS: 1_800,
    retries: 20,
    run: ingestDocument,
    failed: (ctx, payload) =>
      endBadly(
        ctx,
        payload.resource_id!,
        Number(payload.data.attempt),
        'The document could not be indexed after several attempts. Reindex it later.',
      ),
  },
  {
    name: purgeJob,
    follows: ['corpora.deleted'],
    per: 'fact',
    concurrency: 1,
    timeoutS: 3_600,
    retries: 20,
    run: purgeCorpus,
  },
];

const waitMs = 30_000;
const maxRequeues = 3;
const batch = 500;

/** Looks for documents that wait for a job which is not there any more, and gives them another. */
async function mendUnfinished(app: App): Promise<void> {
  const before = new Date(Date.now() - waitMs);
  for (let after: [string, string, string] | undefined; ; ) {
    const documents = await listUnfinished(app.database.operator, before, after, batch);
    const states = await jobStates(
      app,
      ingest,
      documents.map(({ last_job_id }) => last_job_id),
    );
    for (const document of documents) {
      const state = states.get(document.last_job_id);
      if (state === 'ended') await requeue(app, document);
      // The same id as the relay's: whichever of both comes second makes nothing.
      else if (!state) await app.enqueue(ingest, [payloadOf(document)]);
    }
    const last = documents[batch - 1];
    if (!last) return;
    after = [last.queued_at, last.tenant_id, last.id];
  }
}

const payloadOf = ({ tenant_id, last_job_id, id, attempt, corpus_id }: UnfinishedDocument) => ({
  tenant_id,
  fact_id: last_job_id,
  resource_id: id,
  data: { attempt, corpus_id },
});

/** Its job ended without a word: the process was killed too often. The document gets a few more, and then an end. */
async function requeue(
  app: App,
  { tenant_id, id, corpus_id, attempt, requeues }: UnfinishedDocument,
): Promise<void> {
  const ctx = systemCtx(app, tenant_id, uuidv7());
  if (requeues >= maxRequeues) {
    await endBadly(
      ctx,
      id,
      attempt,
      'The work on the document was broken off again and again. Split it, or reindex it later.',
    );
    return;
  }
  const job = uuidv7();
  await ctx.db.transaction(async (tx) => {
    const queued = await tx.rows(requeueDocument(tenant_id, id, attempt, job, new Date()));
    if (queued.length > 0)
      await tx.run(enqueued(ctx, 'documents.ingest.enqueued', job, { id, corpus_id, attempt: attempt + 1 }));
  });
  app.nudgeRelay();
}

export const documentSchedules: Schedule[] = [
  { name: 'documents.unfinished', pattern: '*/10 * * * * *', run: mendUnfinished },
  { name: 'corpora.unpurged', pattern: '5-59/10 * * * * *', run: mendPurges },
];
