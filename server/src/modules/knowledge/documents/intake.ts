import type { FastifyRequest } from 'fastify';
import type { App, Ctx } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import { ApiError, invalid, unavailable } from '#platform/errors.ts';
import { idempotently } from '#platform/http/idempotency.ts';
import { checkText, parseJsonFile } from '#platform/http/json.ts';
import type { Answer } from '#platform/http/route.ts';
import { requireSwitchedOn } from '#platform/kill-switches.ts';
import { perApp } from '#platform/per-app.ts';
import { type Input, store } from './accept.ts';
import { type Format, Unreadable } from './formats/format.ts';
import { recognise, recogniseText } from './formats/recognise.ts';
import { checkedText, decode } from './formats/text.ts';
import type { TextIngest } from './schema.ts';
import { sizesOf } from './sizes.ts';
import { readUpload, type Upload } from './upload.ts';
import { isObject } from './visible.ts';

/** Takes a text; its chunks follow in the background. @throws ApiError 404, 409, 413, 415, 422, 503 SERVICE_BUSY */
export async function storeText(ctx: Ctx, body: TextIngest): Promise<Answer> {
  requireSwitchedOn(ctx.app, 'ingest');
  const filename = filenameOf(body.filename);
  const format = recogniseText({ content_type: body.content_type ?? undefined, filename });
  const bytes = Buffer.from(body.text);
  checkContent(format, bytes);
  return store(ctx, {
    corpus_id: body.corpus_id,
    document_id: body.document_id ?? undefined,
    overwrite: body.overwrite ?? false,
    filename,
    format,
    source: 'text',
    bytes,
    metadata_json: checkedMetadata(body.metadata_json),
    access: body.access,
    options: sizesOf({}, body),
    warnings: [],
  });
}

const uploadsOf = perApp((_app: App) => ({ reading: 0 }));

/**
 * Takes a multipart upload, once for its Idempotency-Key. What can be told from the bytes at once is; what only reading
 * them shows ends the document as failed.
 * @throws ApiError 400, 404, 409, 413, 415, 422, 503 SERVICE_BUSY
 */
export async function storeUpload(ctx: Ctx, request: FastifyRequest): Promise<Answer> {
  requireSwitchedOn(ctx.app, 'ingest');
  const uploads = uploadsOf(ctx.app);
  // Each is in memory whole until it is stored.
  if (uploads.reading >= ctx.app.config.UPLOAD_MAX_CONCURRENCY)
    throw unavailable('SERVICE_BUSY', 'The server takes as many uploads as it can. Repeat the request.', 1);
  uploads.reading += 1;
  try {
    const { file, ...fields } = await readUpload(request, ctx.tenant);
    const { filename, content_type } = file;
    const sha = sha256(file.bytes).toString('hex');
    const payload = { ...fields, file: { filename, content_type, sha256: sha } };
    return await idempotently(ctx, request, payload, async () => store(ctx, uploaded(fields, file)));
  } finally {
    uploads.reading -= 1;
  }
}

function uploaded({ metadata_json, ...fields }: Omit<Upload, 'file'>, file: Upload['file']): Input {
  const filename = filenameOf(file.filename);
  if (file.bytes.length === 0) throw ingestInvalid('The file is empty.');
  const { format, warnings } = recognise(file.bytes, { ...file, filename });
  checkContent(format, file.bytes);
  return {
    ...fields,
    filename,
    format,
    source: 'upload',
    bytes: file.bytes,
    metadata_json: checkedMetadata(metadata_json),
    options: {},
    warnings,
  };
}

/** @returns 422 INGEST_VALIDATION_ERROR: the content can not be a document */
const ingestInvalid = (message: string) => new ApiError(422, 'INGEST_VALIDATION_ERROR', message);

/** Refuses what is known without a reader to have no text. */
function checkContent(format: Format, bytes: Buffer): void {
  if (format === 'pdf' || format === 'docx') return;
  try {
    // What these are encoded in, their readers find out.
    if (format === 'html' || format === 'csv') checkedText(bytes.toString('latin1'));
    else checkedText(format === 'json' ? textOfJson(bytes) : decode(bytes));
  } catch (error) {
    if (error instanceof Unreadable) throw ingestInvalid(error.message);
    throw error;
  }
}

function textOfJson(bytes: Buffer): string {
  let value: unknown;
  try {
    value = parseJsonFile(bytes);
  } catch (error) {
    if (error instanceof ApiError)
      throw ingestInvalid(`The file is not JSON that can be taken: ${error.message}`);
    throw error;
  }
  if (!isObject(value) || typeof value.text !== 'string')
    throw ingestInvalid('A JSON file must be an object with a string named text.');
  return value.text;
}

function checkedMetadata(metadata: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  if (metadata && 'labels' in metadata && !isObject(metadata.labels))
    throw invalid([{ path: '/metadata_json/labels', message: 'must be an object' }]);
  return metadata;
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
