/** What a reader understands. `json`: an object whose `text` is the document. */
export const formats = ['plain', 'markdown', 'html', 'pdf', 'docx', 'csv', 'json'] as const;
export type Format = (typeof formats)[number];

/** The media type a format is stored and shown under. */
export const mediaTypes: Record<Format, string> = {
  plain: 'text/plain',
  markdown: 'text/markdown',
  html: 'text/html',
  pdf: 'application/pdf',
  docx: 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
  csv: 'text/csv',
  json: 'application/json',
};

/** The ending of a file of a format that came without a name. */
export const endings: Record<Format, string> = {
  plain: 'txt',
  markdown: 'md',
  html: 'html',
  pdf: 'pdf',
  docx: 'docx',
  csv: 'csv',
  json: 'json',
};

/** Something a client should know about a document that was taken all the same. `code` is permanent. */
export interface Warning {
  code: 'CONTENT_TYPE_MISMATCH' | 'CORPUS_ROUTED_ELSEWHERE' | 'PAGES_WITHOUT_TEXT' | 'ENCODING_GUESSED';
  message: string;
}

/** The text of a document and where it came from. Offsets are UTF-16 code units of `text`. */
export interface Extracted {
  text: string;
  /** Whether headings, lists and tables in `text` are marked as in Markdown. */
  markdown: boolean;
  /** Where in `text` each page begins, in order; null for formats without pages. */
  page_starts: number[] | null;
  warnings: Warning[];
}

/** The bytes can not be read, and trying again would end the same way. The message is for whoever sent them. */
export class Unreadable extends Error {
  override name = 'Unreadable';
}
