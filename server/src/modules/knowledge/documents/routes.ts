import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { route } from '#platform/http/route.ts';
import { storeUpload } from './accept.ts';
import {
  ChunkSearch,
  Document,
  DocumentAccepted,
  Reindex,
  RetrievedChunk,
  Status,
  TextIngest,
  UploadForm,
} from './schema.ts';
import {
  getDocument,
  listVisibleDocuments,
  reindexDocument,
  removeDocument,
  retrieveChunks,
  storeText,
} from './service.ts';

const tag = 'documents';
const params = T.Object({ document_id: T.String() });
const family = { tag, envelope: true, legacy: true } as const;

export const documentRoutes = [
  route({
    ...family,
    method: 'POST',
    path: '/v1/documents',
    name: 'upload_document',
    summary: 'Upload a document ; its chunks follow',
    permission: 'documents:create',
    decidesRows: true,
    consumes: 'multipart/form-data',
    body: UploadForm,
    idempotent: 'manual',
    response: { 202: DocumentAccepted, 200: DocumentAccepted },
    handler: (ctx, { raw }) => storeUpload(ctx, raw),
  }),
  route({
    ...family,
    method: 'POST',
    path: '/v1/documents/text',
    name: 'ingest_text',
    summary: 'Store a text as a document; its chunks follow',
    permission: 'documents:create',
    decidesRows: true,
    bodyLimit: 33_554_432,
    body: TextIngest,
    response: { 202: DocumentAccepted, 200: DocumentAccepted },
    handler: (ctx, { body }) => storeText(ctx, body),
  }),
  route({
    ...family,
    method: 'GET',
    path: '/v1/documents',
    name: 'list_documents',
    summary: 'Documents the caller may see, newest first',
    permission: 'documents:list',
    decidesRows: true,
    query: T.Object(
      {
        ...pageQuery(25, 100),
        corpus_id: T.Optional(T.String({ maxLength: 200 })),
        status: T.Optional(Status),
      },
      { additionalProperties: false },
    ),
    response: { 200: T.Array(Document) },
    handler: (ctx, { query }) => listVisibleDocuments(ctx, query),
  }),
  route({
    ...family,
    method: 'GET',
    path: '/v1/documents/:document_id',
    name: 'get_document',
    summary: 'One document and how far its ingestion is',
    permission: 'documents:read',
    decidesRows: true,
    params,
    response: { 200: Document },
    handler: (ctx, { params }) => getDocument(ctx, params.document_id),
  }),
  route({
    ...family,
    method: 'DELETE',
    path: '/v1/documents/:document_id',
    name: 'delete_document',
    summary: 'Remove a document and all that was made from it',
    permission: 'documents:delete',
    decidesRows: true,
    params,
    response: { 204: null },
    handler: (ctx, { params }) => removeDocument(ctx, params.document_id),
  }),
  route({
    ...family,
    method: 'POST',
    path: '/v1/documents/:document_id/reindex',
    name: 'reindex_document',
    summary: 'Cut and index a document anew',
    permission: 'documents:reindex',
    decidesRows: true,
    params,
    body: Reindex,
    bodyOptional: true,
    response: { 202: DocumentAccepted },
    handler: (ctx, { params, body }) => reindexDocument(ctx, params.document_id, body),
  }),
  route({
    ...family,
    method: 'POST',
    path: '/v1/corpora/:corpus_id/search',
    name: 'search_corpus',
    summary: 'Find the passages of a corpus that answer a query',
    permission: 'documents:read',
    decidesRows: true,
    routeClass: 'read',
    idempotent: false,
    params: T.Object({ corpus_id: T.String() }),
    body: ChunkSearch,
    response: { 200: T.Array(RetrievedChunk) },
    handler: (ctx, { params, body: { top_k, ...search } }) =>
      retrieveChunks(ctx, { corpus_id: params.corpus_id, limit: top_k, ...search }),
  }),
];
