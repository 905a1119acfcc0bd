import type { App } from '../context.ts';
import { decrypt, encrypt } from '../crypto.ts';

/** A column sealed with the installation's own key (`keys.encryption`), and what each of its values is bound to. */
export interface SealedColumn {
  table: string;
  column: string;
  /** Columns of the primary key, in order, and their types. */
  key: Record<string, 'text' | 'uuid' | 'bytea'>;
  /** Rebuilds the context a value was sealed in from the key of its row. */
  // biome-ignore lint/suspicious/noExplicitAny: the columns named above, as the driver gives them
  context: (key: Record<string, any>) => string;
}

export interface Resealed {
  table: string;
  resealed: number;
  /** Values that open with neither key. */
  unopened: number;
}

const batch = 500;

/**
 * Seals with ENCRYPTION_KEY what ENCRYPTION_KEY_PREVIOUS sealed. A value that is changed in the same moment is left as it
 * is: whoever changes it seals with the current key. Killed anywhere, it is begun again.
 */
export async function resealColumn(app: App, sealed: SealedColumn): Promise<Resealed> {
  const { operatorPool } = app.database;
  const { table, column, key, context } = sealed;
  const names = Object.keys(key);
  const casts = Object.values(key).map((type, i) => `$${i + 1}::${type}`);
  const select = (from: string) =>
    `select ${names.join(', ')}, ${column} as sealed from ${table} where ${column} is not null ${from}
     order by ${names.join(', ')} limit ${batch}`;
  const update = `update ${table} set ${column} = $${names.length + 1}
    where ${names.map((name, i) => `${name} = ${casts[i]}`).join(' and ')} and ${column} = $${names.length + 2}`;
  const done: Resealed = { table, resealed: 0, unopened: 0 };
  for (let after: unknown[] = []; ; ) {
    app.closing.throwIfAborted();
    const from = after.length === 0 ? '' : `and (${names.join(', ')}) > (${casts.join(', ')})`;
    const { rows } = await operatorPool.query(select(from), after);
    for (const row of rows) {
      const at = names.map((name) => row[name]);
      const anew = resealed(app, row.sealed, context(row));
      if (anew === 'current') continue;
      if (anew === 'unopened') done.unopened += 1;
      else done.resealed += (await operatorPool.query(update, [...at, anew, row.sealed])).rowCount ?? 0;
    }
    const last = rows[batch - 1];
    if (!last) return done;
    after = names.map((name) => last[name]);
  }
}

function resealed({ keys }: App, sealed: Buffer, context: string): Buffer | 'current' | 'unopened' {
  const { current, previous } = keys.encryption;
  if (opens(current, sealed, context)) return 'current';
  if (!previous || !opens(previous, sealed, context)) return 'unopened';
  return encrypt(current, decrypt(previous, sealed, context), context);
}

function opens(key: Buffer, sealed: Buffer, context: string): boolean {
  try {
    decrypt(key, sealed, context);
    return true;
  } catch {
    return false;
  }
}
