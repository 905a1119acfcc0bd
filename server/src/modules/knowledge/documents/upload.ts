import type { MultipartFile } from '@fastify/multipart';
import type { FastifyRequest } from 'fastify';
import { ApiError, badRequest, type FieldProblem, invalid } from '#platform/errors.ts';
import { checkText, parseJsonField } from '#platform/http/json.ts';
import type { Access } from './schema.ts';
import { isObject } from './visible.ts';

/** An upload form as it came: nothing of the file is trusted yet. */
export interface Upload {
  corpus_id: string;
  document_id: string | undefined;
  overwrite: boolean;
  access: Access | undefined;
  metadata_json: Record<string, unknown> | undefined;
  file: { filename: string | undefined; content_type: string; bytes: Buffer };
}

const known = ['corpus_id', 'document_id', 'overwrite', 'access', 'metadata_json'];
const booleans: Record<string, boolean> = {
  true: true,
  '1': true,
  yes: true,
  on: true,
  false: false,
  '0': false,
  no: false,
  off: false,
  '': false,
};

/**
 * Reads `corpus_id`, `file`, `document_id`, `overwrite`, `access` and `metadata_json` from a multipart form; the file is
 * read whole, up to UPLOAD_LIMIT_BYTES.
 * @throws ApiError 400 (malformed, or another tenant is named), 413, 415 (not multipart), 422 (fields missing, unknown or wrong)
 */
export async function readUpload(request: FastifyRequest, tenant: string): Promise<Upload> {
  if (!request.isMultipart())
    throw new ApiError(415, 'UNSUPPORTED_MEDIA_TYPE', 'Send the document as multipart/form-data.');
  const fields = new Map<string, string>();
  const problems: FieldProblem[] = [];
  let file: Upload['file'] | undefined;
  try {
    for await (const part of request.parts()) {
      if (part.type === 'file') {
        const bytes = await part.toBuffer();
        if (part.fieldname === 'file') file = fileOf(part, bytes);
        else problems.push({ path: `/${part.fieldname}`, message: 'is not a known field' });
      } else if (part.fieldname === 'tenant_id') {
        if (part.value === tenant) continue;
        throw badRequest(
          'TENANT_ID_NOT_ALLOWED',
          'The tenant comes from the credential. Leave tenant_id out.',
        );
      } else if (!known.includes(part.fieldname)) {
        problems.push({
          path: `/${part.fieldname}`,
          message: part.fieldname === 'file' ? 'must be sent as a file' : 'is not a known field',
        });
      } else if (typeof part.value !== 'string' || part.valueTruncated || fields.has(part.fieldname)) {
        problems.push({ path: `/${part.fieldname}`, message: 'must be one text' });
      } else {
        checkText(part.value, `/${part.fieldname}`);
        fields.set(part.fieldname, part.value);
      }
    }
  } catch (error) {
    throw formError(error);
  }
  const corpus_id = fields.get('corpus_id');
  const overwrite = booleans[(fields.get('overwrite') ?? '').toLowerCase()];
  const access = fields.get('access') || undefined;
  if (access !== undefined && access !== 'open' && access !== 'restricted')
    problems.push({ path: '/access', message: 'must be open or restricted' });
  const metadata = metadataOf(fields.get('metadata_json'), problems);
  if (corpus_id === undefined) problems.push({ path: '/corpus_id', message: 'is required' });
  if (overwrite === undefined) problems.push({ path: '/overwrite', message: 'must be true or false' });
  if (!file && !problems.some(({ path }) => path === '/file'))
    problems.push({ path: '/file', message: 'is required' });
  if (problems.length || !file) throw invalid(problems);
  return {
    corpus_id: corpus_id!,
    document_id: fields.get('document_id') || undefined,
    overwrite: overwrite!,
    access: access as Access | undefined,
    metadata_json: metadata,
    file,
  };
}

function metadataOf(text: string | undefined, problems: FieldProblem[]): Record<string, unknown> | undefined {
  if (!text) return undefined;
  const value = parseJsonField(text, '/metadata_json');
  if (isObject(value) && Object.keys(value).length <= 200) return value;
  problems.push({ path: '/metadata_json', message: 'must be a JSON object of at most 200 fields' });
  return undefined;
}

function fileOf({ filename, mimetype }: MultipartFile, bytes: Buffer): Upload['file'] {
  return { filename: filename ? unescaped(filename) : undefined, content_type: mimetype, bytes };
}

const escapes: Record<string, string> = { '%22': '"', '%0D': '\r', '%0A': '\n' };

/** A file's name as it was before a form was made of it (WHATWG HTML, multipart/form-data): nothing else is escaped there. */
const unescaped = (name: string): string => name.replace(/%22|%0D|%0A/g, (found) => escapes[found]!);

const limits = ['FST_PARTS_LIMIT', 'FST_FILES_LIMIT', 'FST_FIELDS_LIMIT'];

/** What the form parser throws, as an error that says what to do; the size limit is told by the server itself. */
function formError(error: unknown): unknown {
  const { code } = error as { code?: string };
  if (error instanceof ApiError || code === 'FST_REQ_FILE_TOO_LARGE') return error;
  if (code && limits.includes(code))
    return invalid([{ path: '', message: 'has more files or fields than this form takes' }]);
  return badRequest('MALFORMED_MULTIPART', 'The body is not a complete multipart/form-data form.');
}
