/** An entry as the directory at the end of an archive describes it; sizes may be lies. */
export interface ZipEntry {
  name: string;
  size: number;
}

const endSignature = 0x06054b50;
const entrySignature = 0x02014b50;
const endLength = 22;
const longestComment = 65_535;
const mostEntries = 20_000;

/** Entries of a zip archive (APPNOTE 4.3.12), without unpacking any; undefined when its directory can not be read. */
export function zipEntries(bytes: Buffer): ZipEntry[] | undefined {
  const end = endOf(bytes);
  if (end === undefined) return undefined;
  const count = bytes.readUInt16LE(end + 10);
  const entries: ZipEntry[] = [];
  for (let at = bytes.readUInt32LE(end + 16); entries.length < count; ) {
    if (at + 46 > bytes.length || bytes.readUInt32LE(at) !== entrySignature || entries.length >= mostEntries)
      return undefined;
    const size = bytes.readUInt32LE(at + 24);
    const nameLength = bytes.readUInt16LE(at + 28);
    const next = at + 46 + nameLength + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
    entries.push({ name: bytes.toString('utf8', at + 46, at + 46 + nameLength), size });
    at = next;
  }
  return entries;
}

function endOf(bytes: Buffer): number | undefined {
  const first = Math.max(0, bytes.length - endLength - longestComment);
  for (let at = bytes.length - endLength; at >= first; at--)
    if (bytes.readUInt32LE(at) === endSignature) return at;
  return undefined;
}
