import { ApiError } from '#platform/errors.ts';
import { type Format, mediaTypes, type Warning } from './format.ts';
import { zipEntries } from './zip.ts';

/** What a client says of a file. Neither is believed where the content itself can tell. */
export interface Hints {
  content_type: string | undefined;
  filename: string | undefined;
}

export interface Recognised {
  format: Format;
  warnings: Warning[];
}

const byMediaType: Record<string, Format> = {
  ...Object.fromEntries(Object.entries(mediaTypes).map(([format, type]) => [type, format as Format])),
  'text/x-markdown': 'markdown',
  'application/xhtml+xml': 'html',
  'application/x-pdf': 'pdf',
  'application/csv': 'csv',
  'text/tab-separated-values': 'csv',
};

const byEnding: Record<string, Format> = {
  txt: 'plain',
  text: 'plain',
  log: 'plain',
  md: 'markdown',
  markdown: 'markdown',
  html: 'html',
  htm: 'html',
  xhtml: 'html',
  pdf: 'pdf',
  docx: 'docx',
  csv: 'csv',
  tsv: 'csv',
  json: 'json',
};

/** What clients send when they do not know: curl does for `.md`. */
const unknown = ['', 'application/octet-stream', 'binary/octet-stream'];

const names: Record<Format, string> = {
  plain: 'plain text',
  markdown: 'Markdown',
  html: 'HTML',
  pdf: 'a PDF',
  docx: 'a Word document',
  csv: 'CSV',
  json: 'JSON',
};

/** Formats that are told by their first bytes; any text may be one of the others. */
const signed: Format[] = ['pdf', 'docx'];

const unsupported = (what: string): ApiError =>
  new ApiError(
    415,
    'UNSUPPORTED_MEDIA_TYPE',
    `${what} Documents are taken as plain text, Markdown, HTML, PDF, DOCX, CSV and JSON.`,
  );

/**
 * Says what a file is: by its content where that can tell (PDF, DOCX, HTML), else by the declared type, else by the
 * ending of its name.
 * @throws ApiError 415 UNSUPPORTED_MEDIA_TYPE
 */
export function recognise(bytes: Buffer, hints: Hints): Recognised {
  const type = mediaTypeOf(hints.content_type);
  const named = byEnding[/\.([a-z]{1,10})$/i.exec(hints.filename ?? '')?.[1]?.toLowerCase() ?? ''];
  // A part that says no type is plain text (RFC 7578, section 4.4): then its name says more.
  const isUnsaid = unknown.includes(type) || (type === 'text/plain' && named !== undefined);
  const declared = isUnsaid ? undefined : (byMediaType[type] ?? null);
  const hint = declared ?? named;
  const found = bySignature(bytes, hint);
  if (!found) {
    if (declared === null) throw unsupported(`${type.slice(0, 100)} is not a type that can be read.`);
    if (!hint) throw unsupported('What kind of file this is can not be told from its content, type or name.');
    if (signed.includes(hint))
      throw unsupported(`The file is said to be ${names[hint]}, which its content is not.`);
    return { format: hint, warnings: [] };
  }
  const said = declared === undefined ? named : declared;
  const warnings: Warning[] = [];
  if (said !== undefined && said !== found) {
    const claim = declared === undefined ? `named ${hints.filename}` : `declared as ${type.slice(0, 100)}`;
    warnings.push({
      code: 'CONTENT_TYPE_MISMATCH',
      message: `The file is ${claim}; by its content it is ${names[found]}, and was taken as that.`,
    });
  }
  return { format: found, warnings };
}

/** Formats a text that is sent as text may be in. */
const textual: Format[] = ['plain', 'markdown', 'html', 'csv'];

/**
 * What a text is that is sent as such: what it is said to be, else by the ending of its name, else plain text.
 * @throws ApiError 415 UNSUPPORTED_MEDIA_TYPE
 */
export function recogniseText(hints: Hints): Format {
  const ending = /\.([a-z]{1,10})$/i.exec(hints.filename ?? '')?.[1]?.toLowerCase() ?? '';
  const named = textual.find((format) => format === byEnding[ending]) ?? 'plain';
  const type = mediaTypeOf(hints.content_type);
  if (type === '') return named;
  const declared = textual.find((format) => format === byMediaType[type]);
  if (declared) return declared;
  throw new ApiError(
    415,
    'UNSUPPORTED_MEDIA_TYPE',
    'A text is taken as text/plain, text/markdown, text/html or text/csv. Upload other documents as files.',
  );
}

const mediaTypeOf = (given: string | undefined): string =>
  (given ?? '').split(';', 1)[0]!.trim().toLowerCase();

const starts = (bytes: Buffer, ...signature: number[]): boolean =>
  signature.every((byte, i) => bytes[i] === byte);

/** Other files people send, for an answer that names what came. */
const others: [what: string, signature: number[]][] = [
  ['a PNG image', [0x89, 0x50, 0x4e, 0x47]],
  ['a JPEG image', [0xff, 0xd8, 0xff]],
  ['a GIF image', [0x47, 0x49, 0x46, 0x38]],
  ['a gzip archive', [0x1f, 0x8b, 0x08]],
  ['a 7z archive', [0x37, 0x7a, 0xbc, 0xaf]],
  ['a program', [0x7f, 0x45, 0x4c, 0x46]],
  ['a sound or video file', [0x49, 0x44, 0x33]],
];

const htmlStart =
  /^\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--[\s\S]{0,2000}?-->\s*)?<(?:!doctype\s+html|html)[\s>]/i;

/** @throws ApiError 415 for a content that is known not to be a document we read */
function bySignature(bytes: Buffer, hint: Format | null | undefined): Format | undefined {
  if (starts(bytes, 0x50, 0x4b, 0x03, 0x04)) return archiveOf(bytes, hint);
  if (starts(bytes, 0xd0, 0xcf, 0x11, 0xe0)) {
    throw unsupported(
      'The file is an old or an encrypted Office document. Save it as DOCX without a password.',
    );
  }
  const other = others.find(([, signature]) => starts(bytes, ...signature));
  if (other) throw unsupported(`The file is ${other[0]}.`);
  const head = bytes.toString('latin1', 0, 4_096);
  // Readers look for it in the first 1,024 bytes; a text about PDF may have it there as well.
  if (/^(?:\xef\xbb\xbf)?\s*%PDF-/.test(head)) return 'pdf';
  if (hint === 'pdf' && head.slice(0, 1_024).includes('%PDF-')) return 'pdf';
  return htmlStart.test(head.replace(/^\xef\xbb\xbf/, '')) ? 'html' : undefined;
}

function archiveOf(bytes: Buffer, hint: Format | null | undefined): Format {
  const entries = zipEntries(bytes);
  // Broken: its reader will say how, if it is meant to be one.
  if (!entries) {
    if (hint === 'docx') return 'docx';
    throw unsupported('The file is a zip archive, or what is left of one.');
  }
  const has = (folder: string) => entries.some(({ name }) => name.startsWith(folder));
  if (has('word/')) return 'docx';
  if (has('xl/')) throw unsupported('The file is an Excel workbook. Save its sheets as CSV.');
  if (has('ppt/')) throw unsupported('The file is a PowerPoint presentation. Save it as PDF.');
  throw unsupported('The file is an archive. Send what it holds, one file a request.');
}
