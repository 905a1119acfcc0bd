import {
  type Asking,
  type DataKeys,
  dataKeysOf,
  type Sealed,
  seal,
  unseal,
} from '../../access/data-keys/service.ts';
import type { Memory } from './schema.ts';
import type { StoredMemory } from './store.ts';
import type { MemoryRow } from './write-store.ts';

// Only the text is encrypted. Metadata, type and times stay readable: policies decide by them, and they are all by which
// such a memory can be found without opening every one. What must not be read belongs into the text.

const boundTo = (id: string, version: number) => `memory ${id} ${version} text`;

/** Seals the sensitive ones of these rows; the others stay as they are. */
export async function sealRows(asking: Asking, rows: MemoryRow[]): Promise<MemoryRow[]> {
  if (!rows.some(({ sensitive }) => sensitive)) return rows;
  const keys = await dataKeysOf(asking);
  return rows.map((row) =>
    row.sensitive ? { ...row, ...seal(keys, row.text, boundTo(row.id, row.version)), text: '' } : row,
  );
}

/** The text of a version in sealed form. */
export const sealText = (keys: DataKeys, id: string, version: number, text: string): Sealed =>
  seal(keys, text, boundTo(id, version));

/** Texts of what may be sealed, in the clear and in order. */
export async function openTexts(
  asking: Asking,
  rows: { id: string; version: number; text: string; sealed: Buffer | null }[],
): Promise<string[]> {
  const closed = rows.filter((row) => row.sealed !== null);
  if (closed.length === 0) return rows.map(({ text }) => text);
  const plain = await unseal(
    asking,
    closed.map(({ id, version, sealed }) => ({ sealed: sealed!, context: boundTo(id, version) })),
  );
  let next = 0;
  return rows.map((row) => (row.sealed === null ? row.text : plain[next++]!.toString()));
}

/** Memories as they were read from the database, with their texts in the clear. */
export async function openMemories<M extends StoredMemory>(
  asking: Asking,
  rows: M[],
): Promise<(Omit<M, 'sealed'> & Memory)[]> {
  if (!rows.some(({ sealed }) => sealed !== null)) return rows;
  const texts = await openTexts(asking, rows);
  return rows.map(({ sealed: _, ...row }, i) => ({ ...row, text: texts[i]! }));
}
