import { isUtf8 } from 'node:buffer';
import { isBlank } from '#platform/blank.ts';
import { Unreadable } from './format.ts';

/**
 * Decodes the bytes of a text: by its byte order mark, by the encoding it names itself, or as UTF-8.
 * @throws Unreadable when the bytes are not of that encoding
 */
export function decode(bytes: Buffer, charset?: string): string {
  const marked = markOf(bytes);
  const label = marked ?? charset ?? 'utf-8';
  if (/^utf-?8$/.test(label)) {
    if (!isUtf8(bytes))
      throw new Unreadable('The document is not valid UTF-8. Save it in that encoding and send it again.');
    return bytes.toString('utf8').replace(/^\uFEFF/, '');
  }
  const decoder = decoderOf(label);
  if (!decoder) throw new Unreadable(`The encoding ${label.slice(0, 40)} is not known.`);
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Unreadable(`The document is not valid ${label.slice(0, 40)}.`);
  }
}

const markOf = (bytes: Buffer): string | undefined => {
  if (bytes[0] === 0xff && bytes[1] === 0xfe && bytes.length % 2 === 0) return 'utf-16le';
  if (bytes[0] === 0xfe && bytes[1] === 0xff && bytes.length % 2 === 0) return 'utf-16be';
  return undefined;
};

/** @returns undefined for an encoding the Encoding Standard does not name */
export function decoderOf(label: string): InstanceType<typeof TextDecoder> | undefined {
  try {
    return new TextDecoder(label, { fatal: true });
  } catch {
    return undefined;
  }
}

/** @throws Unreadable for a text that is blank or holds what PostgreSQL can not store */
export function checkedText(text: string): string {
  if (isBlank(text)) throw new Unreadable('The document has no text.');
  if (text.includes('\u0000')) throw new Unreadable('The document contains a NUL character.');
  return text;
}
