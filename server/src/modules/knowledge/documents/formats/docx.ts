import mammoth from 'mammoth';
import { Unreadable } from './format.ts';
import { htmlText } from './html.ts';
import { zipEntries } from './zip.ts';

/** Text of a document part may be so large unpacked; a heavy handbook of 1,000 pages has about 20 MB. */
const maxUnpacked = 128 * 1024 * 1024;

const styles = [
  "p[style-name='Title'] => h1:fresh",
  "p[style-name='Subtitle'] => p:fresh",
  "p[style-name='Code'] => pre:separator('\n')",
];

/**
 * The text of a Word document: headings by their styles, lists, and tables as rows with the names of their columns.
 * Pictures are left out.
 * @throws Unreadable
 */
export async function readDocx(bytes: Buffer, maxChars: number): Promise<string> {
  const entries = zipEntries(bytes);
  if (!entries) throw new Unreadable('The Word document is damaged: its archive can not be opened.');
  // What an archive says of itself may be a lie; then the limit of memory ends it.
  const unpacked = entries
    .filter(({ name }) => /\.(xml|rels)$/i.test(name))
    .reduce((sum, { size }) => sum + size, 0);
  if (unpacked > maxUnpacked)
    throw new Unreadable(`The Word document unpacks to ${unpacked} bytes of text, more than can be read.`);
  let html: string;
  try {
    const picture = mammoth.images.imgElement(async () => ({ src: '' }));
    const result = await mammoth.convertToHtml(
      { buffer: bytes },
      { styleMap: styles, convertImage: picture, externalFileAccess: false },
    );
    html = result.value;
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Unreadable('The Word document is damaged, or is not one: its parts can not be read.', {
      cause: error,
    });
  }
  return htmlText(html, maxChars);
}
