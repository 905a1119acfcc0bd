import type { Ctx } from '#platform/context.ts';
import { conflict, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { corpusScope, lockCorpusContent } from '../corpora/service.ts';
import { countTexts } from '../retrieval/service.ts';
import { accepted, enqueued } from './accept.ts';
import { deleteChunks } from './chunk-store.ts';
import { countedTexts } from './ingest.ts';
import type { Reindex } from './schema.ts';
import { sizesOf } from './sizes.ts';
import {
  type DocumentFilter,
  type DocumentRow,
  deleteDocument,
  findDocument,
  listDocuments,
  lockDocument,
  queueDocument,
} from './store.ts';
import { targetOf } from './visible.ts';

export { storeText } from './accept.ts';
export type { RetrievedChunk } from './schema.ts';
export { retrieveChunks } from './search.ts';
export { chunkVectors } from './vectors.ts';

/** @throws ApiError 404 also for a document the caller may not see */
export async function getDocument(ctx: Ctx, id: string): Promise<DocumentRow> {
  const document = await findDocument(ctx.db, id);
  if (!document || !(await isPermitted(ctx, 'documents:read', targetOf(document))))
    throw notFound('Document');
  return document;
}

/** Documents the caller may see, newest first. */
export const listVisibleDocuments = (
  ctx: Ctx,
  { corpus_id, status, ...query }: PageQuery & Partial<DocumentFilter>,
): Promise<Answer> => {
  const filter = { corpus_id, status };
  return visiblePage(ctx, 'documents:list', filter, query, {
    rows: (from) => listDocuments(ctx.db, filter, from),
    owned: false,
    target: targetOf,
    position: (row) => [row.created_at, row.id],
    size: 25,
  });
};

const inProgress = () =>
  conflict(
    'INGEST_IN_PROGRESS',
    'The document is being worked on. Wait until its status is succeeded or failed.',
  );

const inFlight = ({ status }: DocumentRow): boolean => status === 'queued' || status === 'processing';

/** Cuts and indexes a document anew; what was found before is found until then. @throws ApiError 404, 409 INGEST_IN_PROGRESS, 422 */
export async function reindexDocument(ctx: Ctx, id: string, input: Reindex): Promise<Answer> {
  const found = await getDocument(ctx, id);
  await authorize(ctx, 'documents:reindex', targetOf(found));
  return ctx.db.transaction(async (tx) => {
    const [document] = await tx.rows(lockDocument(ctx.tenant, id));
    if (!document) throw notFound('Document');
    const options = { ...sizesOf(document.options, input), reindex: true as const };
    if (inFlight(document)) throw inProgress();
    const job = uuidv7();
    const attempt = document.attempt + 1;
    await tx.batch([
      queueDocument(ctx.tenant, id, attempt, options, job, new Date()),
      enqueued(
        ctx,
        'documents.reindex.enqueued',
        job,
        { id, corpus_id: document.corpus_id, attempt },
        { options },
      ),
    ]);
    return accepted(202, { id, status: 'queued', last_job_id: job });
  });
}

/** Removes a document and all that was made from it. @throws ApiError 404, 409 INGEST_IN_PROGRESS */
export async function removeDocument(ctx: Ctx, id: string): Promise<void> {
  for (;;) {
    const found = await getDocument(ctx, id);
    await authorize(ctx, 'documents:delete', targetOf(found));
    if (inFlight(found)) throw inProgress();
    // Counted before the locks are taken: no chunk changes while the attempt stays the same and has ended.
    const counted = await countedTexts(ctx.db, id, ctx.signal);
    const removed = await ctx.db.transaction(async (tx) => {
      const [, locked] = await tx.batch([
        lockCorpusContent(ctx.tenant, found.corpus_id),
        lockDocument(ctx.tenant, id),
      ]);
      const document = locked.rows[0];
      if (!document) throw notFound('Document');
      if (inFlight(document)) throw inProgress();
      if (document.attempt !== found.attempt) return false;
      const { corpus_id, filename, content_type, status, ingest_source } = document;
      await tx.batch([
        ...deleteChunks(ctx.tenant, corpusScope(corpus_id), id),
        deleteDocument(ctx.tenant, id),
        ...countTexts(ctx.tenant, corpusScope(corpus_id), counted, -1),
        fact(ctx, {
          type: 'documents.deleted',
          resource_type: 'document',
          resource_id: id,
          before: { corpus_id, filename, content_type, status, ingest_source },
        }),
      ]);
      return true;
    });
    if (removed) return;
  }
}
