import type { Extracted, Format } from './format.ts';
import { checkedText, decode } from './text.ts';

/** Bytes and what is known of them. */
export interface Source {
  format: Format;
  bytes: Buffer;
}

/**
 * Reads the text of a document. Takes time and memory as its bytes demand: strangers' bytes are read in a process of
 * their own.
 * @throws Unreadable with what is wrong, for whoever sent it
 */
export async function readSource(source: Source, maxChars: number): Promise<Extracted> {
  const extracted = await extract(source, maxChars);
  return { ...extracted, text: checkedText(extracted.text) };
}

async function extract({ format, bytes }: Source, maxChars: number): Promise<Extracted> {
  const marked = (text: string): Extracted => ({ text, markdown: true, page_starts: null, warnings: [] });
  // Their libraries are loaded when they are needed: a process reads documents of few kinds.
  switch (format) {
    case 'plain':
      return { ...marked(decode(bytes)), markdown: false };
    case 'markdown':
      return marked(decode(bytes));
    case 'json':
      return { ...marked(textOfJson(bytes)), markdown: false };
    case 'csv':
      return { ...(await import('./csv.ts')).readCsv(bytes, maxChars), markdown: true, page_starts: null };
    case 'html':
      return marked((await import('./html.ts')).readHtml(bytes, maxChars));
    case 'docx':
      return marked(await (await import('./docx.ts')).readDocx(bytes, maxChars));
    case 'pdf':
      return (await import('./pdf.ts')).readPdf(bytes, maxChars);
  }
}

/** It was checked when it was taken. */
const textOfJson = (bytes: Buffer): string =>
  String((JSON.parse(bytes.toString('utf8').replace(/^\uFEFF/, '')) as { text: unknown }).text);
