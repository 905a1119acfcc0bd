// Files as people have them and as attackers make them, written by code.
import { constants, crc32, deflateRawSync } from 'node:zlib';
import { PDFDocument, PDFHexString, PDFName, PDFNumber, StandardFonts } from 'pdf-lib';

export interface Entry {
  name: string;
  data: string | Buffer;
  /** What the archive says instead of the truth. */
  claimedSize?: number;
  /** `data` is deflated already. */
  deflated?: boolean;
}

/** A zip archive (APPNOTE 4.3): local headers with their data, then the directory. */
export function zip(entries: Entry[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name, data, claimedSize, deflated } of entries) {
    const bytes = Buffer.from(data);
    const body = deflated ? bytes : deflateRawSync(bytes);
    const size = claimedSize ?? bytes.length;
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(deflated ? 0 : crc32(bytes), 10);
    common.writeUInt32LE(body.length, 14);
    common.writeUInt32LE(size, 18);
    common.writeUInt16LE(Buffer.byteLength(name), 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, Buffer.from(name), body]);
    const entry = Buffer.alloc(14);
    entry.writeUInt32LE(at, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x00', 'latin1'), common, entry, Buffer.from(name));
    parts.push(local);
    at += local.length;
  }
  const list = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(list.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, list, end]);
}

const escaped = (text: string) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;');

/** A block of a Word document: a paragraph (with a style) or a table. */
export type Block = { text: string; style?: string } | { rows: string[][] };

const run = (text: string) => `<w:r><w:t xml:space="preserve">${escaped(text)}</w:t></w:r>`;
const blockXml = (block: Block): string => {
  if ('rows' in block) {
    const rows = block.rows.map(
      (cells) => `<w:tr>${cells.map((cell) => `<w:tc><w:p>${run(cell)}</w:p></w:tc>`).join('')}</w:tr>`,
    );
    return `<w:tbl>${rows.join('')}</w:tbl>`;
  }
  const style = block.style ? `<w:pPr><w:pStyle w:val="${block.style.replace(/ /g, '')}"/></w:pPr>` : '';
  return `<w:p>${style}${run(block.text)}</w:p>`;
};

const word = 'http://schemas.openxmlformats.org/wordprocessingml/2006/main';
export const documentXml = (body: string, doctype = ''): string =>
  `<?xml version="1.0" encoding="UTF-8"?>${doctype}<w:document xmlns:w="${word}"><w:body>${body}</w:body></w:document>`;

const relationships = 'http://schemas.openxmlformats.org/package/2006/relationships';
const office = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships';

/** A Word document around a `word/document.xml`. */
export function docxAround(documentPart: Entry, more: Entry[] = []): Buffer {
  const styles = ['heading 1', 'heading 2', 'heading 3', 'Title'].map(
    (name) =>
      `<w:style w:type="paragraph" w:styleId="${name.replace(/ /g, '')}"><w:name w:val="${name}"/></w:style>`,
  );
  return zip([
    {
      name: '[Content_Types].xml',
      data: `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" ContentType="application/xml"/><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>`,
    },
    {
      name: '_rels/.rels',
      data: `<?xml version="1.0"?><Relationships xmlns="${relationships}"><Relationship Id="r1" Type="${office}/officeDocument" Target="word/document.xml"/></Relationships>`,
    },
    {
      name: 'word/_rels/document.xml.rels',
      data: `<?xml version="1.0"?><Relationships xmlns="${relationships}"><Relationship Id="r1" Type="${office}/styles" Target="styles.xml"/></Relationships>`,
    },
    {
      name: 'word/styles.xml',
      data: `<?xml version="1.0"?><w:styles xmlns:w="${word}">${styles.join('')}</w:styles>`,
    },
    documentPart,
    ...more,
  ]);
}

export const docx = (blocks: Block[]): Buffer =>
  docxAround({ name: 'word/document.xml', data: documentXml(blocks.map(blockXml).join('')) });

/** Deflated spaces: `megabytes` of them in a thousandth of that. */
export function bomb(megabytes: number): Buffer {
  // Flushed to a byte's end and not final: copies of it stand after one another.
  const block = deflateRawSync(Buffer.alloc(1024 * 1024, 0x20), { finishFlush: constants.Z_FULL_FLUSH });
  return Buffer.concat([...Array.from({ length: megabytes }, () => block), Buffer.from([0x03, 0x00])]);
}

/** One printed line: text, size and how far below the top of the page. */
export interface Printed {
  text: string;
  size?: number;
  top: number;
}

/** A PDF of these pages, with an outline when its titles and their pages (from 0) are given. */
export async function pdf(
  pages: Printed[][],
  outline: { title: string; page: number }[] = [],
): Promise<Buffer> {
  const document = await PDFDocument.create();
  const font = await document.embedFont(StandardFonts.Helvetica);
  for (const lines of pages) {
    const page = document.addPage([600, 800]);
    for (const { text, size = 11, top } of lines) page.drawText(text, { x: 60, y: 800 - top, size, font });
  }
  if (outline.length > 0) addOutline(document, outline);
  return Buffer.from(await document.save());
}

function addOutline(document: PDFDocument, outline: { title: string; page: number }[]): void {
  const { context } = document;
  const root = context.nextRef();
  const refs = outline.map(() => context.nextRef());
  outline.forEach(({ title, page }, i) => {
    const item = context.obj({
      Title: PDFHexString.fromText(title),
      Parent: root,
      Dest: [document.getPage(page).ref, PDFName.of('Fit')],
      ...(i > 0 ? { Prev: refs[i - 1]! } : {}),
      ...(i + 1 < refs.length ? { Next: refs[i + 1]! } : {}),
    });
    context.assign(refs[i]!, item);
  });
  const list = { Type: 'Outlines', First: refs[0]!, Last: refs.at(-1)!, Count: PDFNumber.of(refs.length) };
  context.assign(root, context.obj(list));
  document.catalog.set(PDFName.of('Outlines'), root);
}

/** A PDF that asks for a password: nobody knows one that fits these bytes. */
export function encryptedPdf(): Buffer {
  const bytes = (fill: string) => `<${fill.repeat(32)}>`;
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] >>',
    `<< /Filter /Standard /V 1 /R 2 /O ${bytes('a1')} /U ${bytes('b2')} /P -4 >>`,
  ];
  let text = '%PDF-1.4\n';
  const offsets = objects.map((object, i) => {
    const at = text.length;
    text += `${i + 1} 0 obj\n${object}\nendobj\n`;
    return at;
  });
  const xref = text.length;
  const rows = offsets.map((at) => `${String(at).padStart(10, '0')} 00000 n \n`).join('');
  text += `xref\n0 5\n0000000000 65535 f \n${rows}`;
  text += `trailer\n<< /Size 5 /Root 1 0 R /Encrypt 4 0 R /ID [<00><00>] >>\nstartxref\n${xref}\n%%EOF\n`;
  return Buffer.from(text, 'latin1');
}
