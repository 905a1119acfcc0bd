import type { Ctx } from '#platform/context.ts';
import { conflict, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import { Answer } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import { requireSwitchedOn } from '#platform/kill-switches.ts';
import { authorize, requireScope } from '#platform/permission.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { corpusScope, lockCorpusContent } from '../corpora/service.ts';
import { countTexts } from '../retrieval/service.ts';
import { accepted, enqueued } from './accept.ts';
import { maySee, principalsOf, requireGrant, requireOwner } from './access.ts';
import { deleteChunks } from './chunk-store.ts';
import { countedTexts } from './ingest.ts';
import { deletePermissions, forgetGrantee } from './permission-store.ts';
import type { DocumentUpdate, Reindex } from './schema.ts';
import { sizesOf } from './sizes.ts';
import {
  type DocumentFilter,
  type DocumentRow,
  deleteDocument,
  documentColumns,
  findContent,
  findDocument,
  findInFlight,
  forgetCreator,
  listDocuments,
  lockDocument,
  queueDocument,
  updateDocumentRow,
} from './store.ts';
import { isObject, targetOf } from './visible.ts';

export { storeText } from './intake.ts';
export { ChunkSearch, DocumentAccepted, RetrievedChunk, TextIngest } from './schema.ts';
export { retrieveChunks } from './search.ts';
export { chunkVectors } from './vectors.ts';

/** Takes an identity that was removed out of documents and their grants. Its documents are the tenant's, and stay. */
export const forgetInDocuments = async (ctx: Ctx, identityId: string): Promise<void> =>
  void (await ctx.db.batch([
    forgetCreator(ctx.tenant, identityId),
    ...forgetGrantee(ctx.tenant, identityId),
  ]));

/** Whether a corpus has documents that are not searched yet. */
export const isBeingRead = async (
  { db, tenant }: Pick<Ctx, 'db' | 'tenant'>,
  corpusId: string,
): Promise<boolean> => (await db.one(findInFlight(tenant, corpusId))) !== undefined;

/** @throws ApiError 404 also for a document the caller may not see */
export async function getDocument(ctx: Ctx, id: string): Promise<DocumentRow> {
  requireScope(ctx, 'documents:read');
  const document = await findDocument(ctx.db, id, principalsOf(ctx));
  if (!document || !(await maySee(ctx, document))) throw notFound('Document');
  return document;
}

/**
 * The text that the chunks of a document are cut from, or the bytes as they were sent.
 * @throws ApiError 404, 409 DOCUMENT_NOT_EXTRACTED while there is no text yet
 */
export async function getContent(ctx: Ctx, id: string, original: boolean): Promise<Answer> {
  const { filename, content_type } = await getDocument(ctx, id);
  const found = await findContent(ctx.db, id, original);
  if (!found) throw notFound('Document');
  const body = original ? found.content : found.extracted_text;
  if (body === null) {
    throw conflict(
      'DOCUMENT_NOT_EXTRACTED',
      'The document has no text yet: its ingestion has not succeeded. See its status and failure_reason.',
    );
  }
  return new Answer(200, body, {
    ...(original ? savedAs(filename, content_type) : { 'content-type': 'text/plain; charset=utf-8' }),
    'content-security-policy': "sandbox; default-src 'none'",
    'cache-control': 'private, no-store',
  });
}

/** A stranger's file: it is saved, never shown or run under the address of this server (RFC 6266, RFC 8187). */
function savedAs(filename: string, content_type: string): Record<string, string> {
  const name = encodeURIComponent(filename).replace(
    /['()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16)}`,
  );
  return { 'content-type': content_type, 'content-disposition': `attachment; filename*=UTF-8''${name}` };
}

/** Changes who may see a document, or its metadata. @throws ApiError 403 AUTHZ_DENIED, 404, 422 */
export async function updateDocument(ctx: Ctx, id: string, input: DocumentUpdate): Promise<DocumentRow> {
  const { access, metadata_json } = input;
  if (metadata_json && 'labels' in metadata_json && !isObject(metadata_json.labels))
    throw invalid([{ path: '/metadata_json/labels', message: 'must be an object' }]);
  requireScope(ctx, 'documents:read');
  return ctx.db.transaction(async (tx) => {
    const [before] = await tx.rows(lockDocument(ctx.tenant, id, principalsOf(ctx)));
    if (!before || !(await maySee(ctx, before))) throw notFound('Document');
    await authorize(ctx, 'documents:update', targetOf(before));
    requireGrant(ctx, before, 'write');
    if (access === undefined && metadata_json === undefined) return before;
    if (access && access !== before.access) requireOwner(ctx, before);
    const after = {
      access: access ?? before.access,
      metadata_json: metadata_json ?? before.metadata_json,
    };
    // What the change makes of the document must be allowed as well: labels say who may see it.
    await authorize(ctx, 'documents:update', targetOf({ ...before, ...after }));
    const updated_at = new Date().toISOString();
    await tx.batch([
      updateDocumentRow(ctx.tenant, id, { ...after, updated_at }, Object.keys(input)),
      fact(ctx, {
        type: 'documents.updated',
        resource_type: 'document',
        resource_id: id,
        before: { access: before.access, metadata_json: before.metadata_json },
        after,
      }),
    ]);
    return { ...before, ...after, updated_at };
  });
}

/** Documents the caller may see, newest first. */
export const listVisibleDocuments = (
  ctx: Ctx,
  { corpus_id, status, ...query }: PageQuery & Partial<DocumentFilter>,
): Promise<Answer> => {
  const filter = { corpus_id, status };
  const who = principalsOf(ctx);
  return visiblePage(ctx, 'documents:list', filter, query, {
    rows: (from) => listDocuments(ctx.db, filter, who, from),
    owned: false,
    columns: documentColumns,
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
  requireSwitchedOn(ctx.app, 'ingest');
  return ctx.db.transaction(async (tx) => {
    const [document] = await tx.rows(lockDocument(ctx.tenant, id, principalsOf(ctx)));
    if (!document) throw notFound('Document');
    requireGrant(ctx, document, 'reindex');
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
    requireGrant(ctx, found, 'delete');
    if (inFlight(found)) throw inProgress();
    // Counted before the locks are taken: no chunk changes while the attempt stays the same and has ended.
    const counted = await countedTexts(ctx.db, id, ctx.signal);
    const removed = await ctx.db.transaction(async (tx) => {
      const [, locked] = await tx.batch([
        lockCorpusContent(ctx.tenant, found.corpus_id),
        lockDocument(ctx.tenant, id, principalsOf(ctx)),
      ]);
      const document = locked.rows[0];
      if (!document) throw notFound('Document');
      requireGrant(ctx, document, 'delete');
      if (inFlight(document)) throw inProgress();
      if (document.attempt !== found.attempt) return false;
      const { corpus_id, filename, content_type, status, ingest_source } = document;
      await tx.batch([
        ...deleteChunks(ctx.tenant, corpusScope(corpus_id), id),
        deletePermissions(ctx.tenant, id),
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
