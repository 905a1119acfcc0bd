import type { FastifyRequest } from 'fastify';
import type { Ctx } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { conflict, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { idempotently } from '#platform/http/idempotency.ts';
import { checkText, tooLarge } from '#platform/http/json.ts';
import { Answer } from '#platform/http/route.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { getCorpus, holdCorpus, slugProblem } from '../corpora/service.ts';
import { checkedText, mediaTypeOf, textOf } from './content.ts';
import type { DocumentAccepted, TextIngest } from './schema.ts';
import { sizesOf } from './sizes.ts';
import {
  type ChunkSizes,
  type DocumentContent,
  type DocumentRow,
  insertDocument,
  lockDocument,
  queueDocument,
  replaceContent,
} from './store.ts';
import { readUpload, type Upload } from './upload.ts';
import { isObject, targetOf } from './visible.ts';

/** What there is to store; what is undefined keeps its value where a document is overwritten. */
interface Input {
  corpus_id: string;
  document_id: string | undefined;
  overwrite: boolean;
  filename: string | undefined;
  content_type: string;
  source: 'upload' | 'text';
  text: string;
  metadata_json: Record<string, unknown> | undefined;
  options: ChunkSizes;
}

const jsonText = ['text/plain', 'text/markdown'];

/** Takes a text; its chunks follow in the background. @throws ApiError 404, 409, 413, 415, 422 */
export function storeText(ctx: Ctx, body: TextIngest): Promise<Answer> {
  if (body.metadata_json && 'labels' in body.metadata_json && !isObject(body.metadata_json.labels)) {
    throw invalid([{ path: '/metadata_json/labels', message: 'must be an object' }]);
  }
  const filename = filenameOf(body.filename);
  const known =
    body.content_type ?? (/\.(md|markdown)$/i.test(filename ?? '') ? 'text/markdown' : 'text/plain');
  return store(ctx, {
    corpus_id: body.corpus_id,
    document_id: body.document_id ?? undefined,
    overwrite: body.overwrite ?? false,
    filename,
    content_type: mediaTypeOf(known, filename, jsonText),
    source: 'text',
    text: checkedText(body.text),
    metadata_json: body.metadata_json,
    options: sizesOf({}, body),
  });
}

/** Takes a multipart upload, once for its Idempotency-Key. @throws ApiError 400, 404, 409, 413, 415, 422 */
export async function storeUpload(ctx: Ctx, request: FastifyRequest): Promise<Answer> {
  const { file, ...fields } = await readUpload(request, ctx.tenant);
  const { filename, content_type } = file;
  const payload = { ...fields, file: { filename, content_type, sha256: sha256(file.bytes).toString('hex') } };
  return idempotently(ctx, request, payload, () => store(ctx, uploaded(fields, file)));
}

function uploaded(fields: Omit<Upload, 'file'>, file: Upload['file']): Input {
  const filename = filenameOf(file.filename);
  const content_type = mediaTypeOf(file.content_type, filename);
  return {
    ...fields,
    filename,
    content_type,
    source: 'upload',
    text: textOf(file.bytes, content_type),
    metadata_json: undefined,
    options: {},
  };
}

/** A name to show, never a path to open: what stands before the last slash is dropped. */
function filenameOf(given: string | null | undefined): string | undefined {
  const name = (given ?? '').split(/[/\\]/).at(-1)!.trim();
  if (name === '') return undefined;
  checkText(name, '/filename');
  if (name.length > 255 || /\p{Cc}/u.test(name))
    throw invalid([{ path: '/filename', message: 'must be a file name of at most 255 characters' }]);
  return name;
}

async function store(ctx: Ctx, input: Input): Promise<Answer> {
  if (input.document_id !== undefined && !isSlug(input.document_id))
    throw invalid([{ path: '/document_id', message: slugProblem }]);
  const content = Buffer.from(input.text);
  if (content.length > ctx.app.config.UPLOAD_LIMIT_BYTES) throw tooLarge(ctx.app.config.UPLOAD_LIMIT_BYTES);
  await getCorpus(ctx, input.corpus_id);
  const id = input.document_id ?? `doc-${uuidv7().replaceAll('-', '')}`;
  return ctx.db.transaction(async (tx) => {
    const [held, locked] = await tx.batch([
      holdCorpus(ctx.tenant, input.corpus_id),
      lockDocument(ctx.tenant, id),
    ]);
    if (held.rows.length === 0) throw notFound('Corpus');
    const before = locked.rows[0];
    if (before) return storeAgain(ctx, tx, before, input, content);
    const row = rowOf(input, id, content, undefined);
    const job = uuidv7();
    const key = { tenant_id: ctx.tenant, id, corpus_id: input.corpus_id, created_by: ctx.actor.identity_id };
    await authorize(ctx, 'documents:create', targetOf({ ...row, id, created_by: key.created_by ?? null }));
    const made = await tx.rows(insertDocument(key, row, job, new Date()));
    if (made.length === 0) {
      // Somebody else made it between the two statements; it is there to be locked now.
      const [twin] = await tx.rows(lockDocument(ctx.tenant, id));
      if (!twin)
        throw conflict(
          'DOCUMENT_CHANGED',
          'The document was changed by another request just now. Repeat the request.',
        );
      return storeAgain(ctx, tx, twin, input, content);
    }
    await tx.run(
      enqueued(ctx, 'documents.ingest.enqueued', job, { id, corpus_id: input.corpus_id, attempt: 1 }, row),
    );
    return accepted(202, { id, status: 'queued', last_job_id: job });
  });
}

/** A document of this id exists: tells what it is, or puts the new content in its place. */
async function storeAgain(
  ctx: Ctx,
  tx: Db,
  before: DocumentRow,
  input: Input,
  content: Buffer,
): Promise<Answer> {
  // Decided on the row that is locked, not on one that was read before: it may have come or changed meanwhile.
  if (!(await isPermitted(ctx, 'documents:read', targetOf(before)))) throw notFound('Document');
  if (input.overwrite) await authorize(ctx, 'documents:create', targetOf(before));
  if (before.corpus_id !== input.corpus_id) {
    throw conflict(
      'DOCUMENT_IN_OTHER_CORPUS',
      'A document with this id is in another corpus. Choose another id.',
    );
  }
  const inFlight = before.status === 'queued' || before.status === 'processing';
  if (inFlight || !input.overwrite) return accepted(200, before);
  const row = rowOf(input, before.id, content, before);
  const job = uuidv7();
  const attempt = before.attempt + 1;
  await tx.batch([
    replaceContent(ctx.tenant, before.id, row),
    queueDocument(ctx.tenant, before.id, attempt, row.options, job, new Date()),
    enqueued(
      ctx,
      'documents.ingest.enqueued',
      job,
      { id: before.id, corpus_id: before.corpus_id, attempt },
      row,
    ),
  ]);
  return accepted(202, { id: before.id, status: 'queued', last_job_id: job });
}

function rowOf(input: Input, id: string, content: Buffer, before: DocumentRow | undefined): DocumentContent {
  const ending =
    input.content_type === 'text/markdown'
      ? 'md'
      : input.content_type === 'application/json'
        ? 'json'
        : 'txt';
  return {
    filename: input.filename ?? before?.filename ?? `${id}.${ending}`,
    content_type: input.content_type,
    source: input.source,
    ingest_source: input.source === 'upload' ? 'upload_file' : 'raw_text',
    // Kept where nothing is said: labels that close a document must not be lost with an upload that has none.
    metadata_json: input.metadata_json ?? before?.metadata_json ?? {},
    content,
    content_hash: sha256(content),
    options: input.options,
  };
}

type Enqueued = { id: string; corpus_id: string; attempt: number };

/** The fact that a document waits for an attempt; its id is the job's. */
export const enqueued = (
  ctx: Ctx,
  type: 'documents.ingest.enqueued' | 'documents.reindex.enqueued',
  job: string,
  { id, corpus_id, attempt }: Enqueued,
  about: Partial<DocumentContent> = {},
) =>
  fact(ctx, {
    id: job,
    type,
    resource_type: 'document',
    resource_id: id,
    data: {
      attempt,
      corpus_id,
      ...(about.filename === undefined ? {} : { filename: about.filename }),
      ...(about.content_type === undefined ? {} : { content_type: about.content_type }),
      ...(about.content === undefined ? {} : { size_bytes: about.content.length }),
      ...(about.options === undefined ? {} : { options: about.options }),
    },
  });

/** The answer to whoever stores or reindexes. */
export const accepted = (
  status: number,
  { id, status: state, last_job_id }: Pick<DocumentRow, 'id' | 'status' | 'last_job_id'>,
): Answer => {
  const body: DocumentAccepted = {
    document_id: id,
    status: state,
    job_id: last_job_id,
    status_url: `/v1/documents/${id}`,
  };
  return new Answer(status, body);
};
