import type { Db } from './database.ts';
import { sql } from './sql.ts';

/** Object ids of pgvector's types in this database; needed to send arrays of them in binary. */
export interface VectorTypes {
  vector: number;
  sparsevec: number;
}

export async function vectorTypes(operator: Db): Promise<VectorTypes> {
  const rows = await operator.rows<{ typname: 'vector' | 'sparsevec'; oid: string }>(
    sql`select typname, oid from pg_type where typname in ('vector', 'sparsevec')`,
  );
  const oid = (name: string) => Number(rows.find((row) => row.typname === name)?.oid);
  return { vector: oid('vector'), sparsevec: oid('sparsevec') };
}

/**
 * A one-dimensional array in PostgreSQL's binary form (array_recv): dimensions, null flag, element type, length,
 * lower bound, then each element with its length. Saves formatting and parsing megabytes of text.
 */
export function binaryArray(elementType: number, elements: Buffer[]): Buffer {
  const size = elements.reduce((sum, element) => sum + 4 + element.length, 20);
  const out = Buffer.allocUnsafe(size);
  out.writeInt32BE(1, 0);
  out.writeInt32BE(0, 4);
  out.writeUInt32BE(elementType, 8);
  out.writeInt32BE(elements.length, 12);
  out.writeInt32BE(1, 16);
  let at = 20;
  for (const element of elements) {
    out.writeInt32BE(element.length, at);
    element.copy(out, at + 4);
    at += 4 + element.length;
  }
  return out;
}
