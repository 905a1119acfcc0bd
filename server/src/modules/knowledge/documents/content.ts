import { isUtf8 } from 'node:buffer';
import { ApiError } from '#platform/errors.ts';
import { parseJson } from '#platform/http/json.ts';

/** @returns 422 INGEST_VALIDATION_ERROR: the content can not be a document */
export const ingestInvalid = (message: string) => new ApiError(422, 'INGEST_VALIDATION_ERROR', message);

const supported = ['text/plain', 'text/markdown', 'application/json'] as const;
const byEnding: Record<string, (typeof supported)[number]> = {
  txt: 'text/plain',
  text: 'text/plain',
  md: 'text/markdown',
  markdown: 'text/markdown',
  json: 'application/json',
};
// What clients send when they do not know: curl does for `.md`.
const unknown = ['', 'application/octet-stream'];

/**
 * The media type a document is stored under, without parameters; the ending of the file name stands in for one the
 * client did not know.
 * @throws ApiError 415 UNSUPPORTED_MEDIA_TYPE
 */
export function mediaTypeOf(
  given: string | undefined,
  filename: string | undefined,
  allowed: readonly string[] = supported,
): string {
  const type = (given ?? '').split(';', 1)[0]!.trim().toLowerCase();
  const ending = /\.([a-z]{1,8})$/i.exec(filename ?? '')?.[1]?.toLowerCase() ?? '';
  const found = unknown.includes(type)
    ? byEnding[ending]
    : type === 'text/x-markdown'
      ? 'text/markdown'
      : type;
  if (found && allowed.includes(found)) return found;
  throw new ApiError(415, 'UNSUPPORTED_MEDIA_TYPE', `Documents are taken as ${allowed.join(', ')}.`);
}

/**
 * The text of an uploaded file: itself, or the `text` of a JSON object; without a byte order mark.
 * @throws ApiError 422 INGEST_VALIDATION_ERROR
 */
export function textOf(bytes: Buffer, type: string): string {
  const text = decode(bytes);
  if (type !== 'application/json') return checkedText(text);
  let value: unknown;
  try {
    value = parseJson(bytes);
  } catch (error) {
    if (error instanceof ApiError)
      throw ingestInvalid(`The file is not JSON that can be taken: ${error.message}`);
    throw error;
  }
  const inner =
    typeof value === 'object' && value !== null ? (value as Record<string, unknown>).text : undefined;
  if (typeof inner !== 'string')
    throw ingestInvalid('A JSON file must be an object with a string named text.');
  return checkedText(inner);
}

/** @throws ApiError 422 INGEST_VALIDATION_ERROR when the bytes are not UTF-8 */
export function decode(bytes: Buffer): string {
  if (!isUtf8(bytes)) throw ingestInvalid('The document is not valid UTF-8.');
  return bytes.toString('utf8').replace(/^\uFEFF/, '');
}

/** @throws ApiError 422 INGEST_VALIDATION_ERROR for a text that is blank or holds a NUL, which PostgreSQL can not store */
export function checkedText(text: string): string {
  if (!/\S/.test(text)) throw ingestInvalid('The document has no text.');
  if (text.includes('\u0000')) throw ingestInvalid('The document contains a NUL character.');
  return text;
}
