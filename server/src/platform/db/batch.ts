import pg from 'pg';
import { serialize } from 'pg-protocol';
import type { Statement } from './sql.ts';

/** What a statement answered. `count` is the number of rows it changed or returned. */
export interface Result<Row> {
  rows: Row[];
  count: number;
}

interface WireConnection {
  stream: { write(bytes: Buffer): void };
  parsedStatements: Record<string, string>;
  /** Ours: how rows of this connection's named statements are read; null for statements without rows. */
  describedStatements?: Map<string, Column[] | null>;
}

interface Column {
  name: string;
  parse: (text: string) => unknown;
}

interface Field {
  name: string;
  dataTypeID: number;
  format: string;
}

/** How values come back, by type; see `types` in database.ts. */
interface Types {
  getTypeParser(type: number, format: string): (text: string) => unknown;
}

/** As node-postgres maps values, with the two additions we use: plain objects as JSON, and Buffers and arrays untouched. */
export function wireValue(value: unknown): unknown {
  if (value === undefined || value === null) return null;
  if (typeof value === 'string' || Buffer.isBuffer(value)) return value;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint')
    return String(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return arrayLiteral(value);
  return JSON.stringify(value);
}

function arrayLiteral(values: unknown[]): string {
  const items = values.map((value) => {
    if (value === null || value === undefined) return 'NULL';
    if (Buffer.isBuffer(value)) return `"\\\\x${value.toString('hex')}"`;
    const text =
      typeof value === 'object' && !(value instanceof Date)
        ? JSON.stringify(value)
        : String(wireValue(value));
    return typeof value === 'number' || typeof value === 'boolean'
      ? text
      : `"${text.replace(/\\/g, '\\\\').replace(/"/g, '\\"')}"`;
  });
  return `{${items.join(',')}}`;
}

const describePortal = serialize.describe({ type: 'P', name: '' });
const executePortal = serialize.execute({ portal: '' });
const sync = serialize.sync();

/**
 * Several statements in one round trip and one transaction: their Parse, Bind and Execute messages are sent with a
 * single Sync at the end, which PostgreSQL runs as one implicit transaction (Frontend/Backend Protocol, Pipelining).
 * All take effect or none.
 */
class Batch {
  // node-postgres reads `name` to keep its own list of parsed statements; a batch keeps it itself.
  name = undefined;
  text = '';
  callback: (error: Error | null) => void = () => {};
  readonly results: Result<unknown>[];
  /** Set when a failure leaves it unknown which statements the server has parsed. */
  uncertain = false;
  private readonly statements: readonly Statement<unknown>[];
  private readonly types: Types;
  private readonly parsed: Statement<unknown>[] = [];
  /** How to read the rows of each statement; undefined until its description has come. */
  private readonly columns: (Column[] | null | undefined)[] = [];
  private described: Map<string, Column[] | null> = new Map();
  private current = 0;
  private failure: Error | undefined;

  constructor(statements: readonly Statement<unknown>[], types: Types) {
    this.statements = statements;
    this.types = types;
    this.results = statements.map(() => ({ rows: [], count: 0 }));
  }

  submit(connection: WireConnection): Error | null {
    for (const { name, text } of this.statements) {
      const known = name === undefined ? undefined : connection.parsedStatements[name];
      if (known !== undefined && known !== text) return new Error(`statement ${name} has two texts`);
    }
    connection.describedStatements ??= this.described;
    this.described = connection.describedStatements;
    const messages: Buffer[] = [];
    // Anything that can not be put on the wire throws here, before a byte was sent.
    const binds = this.statements.map(({ name, values }) =>
      serialize.bind({ statement: name ?? '', portal: '', values: values.map(wireValue) as string[] }),
    );
    this.statements.forEach((statement, index) => {
      const name = statement.name ?? '';
      if (!name || connection.parsedStatements[name] === undefined) {
        messages.push(serialize.parse({ text: statement.text, name, types: [] }));
        if (name) {
          // Marked at once: the same statement may occur again in this very batch.
          connection.parsedStatements[name] = statement.text;
          this.parsed.push(statement);
        }
      }
      messages.push(binds[index]!);
      this.columns[index] = name ? this.described.get(name) : undefined;
      if (this.columns[index] === undefined) messages.push(describePortal);
      messages.push(executePortal);
    });
    messages.push(sync);
    // One buffer, so one system call: corked writes of the parts cost a third of a request's time.
    connection.stream.write(Buffer.concat(messages));
    return null;
  }

  private learn(columns: Column[] | null): void {
    const { name } = this.statements[this.current]!;
    this.columns[this.current] = columns;
    if (name) this.described.set(name, columns);
  }

  handleRowDescription({ fields }: { fields: Field[] }): void {
    this.learn(
      fields.map(({ name, dataTypeID }) => ({ name, parse: this.types.getTypeParser(dataTypeID, 'text') })),
    );
  }

  handleDataRow({ fields }: { fields: (string | null)[] }): void {
    if (this.failure) return;
    const columns = this.columns[this.current]!;
    const row: Record<string, unknown> = {};
    try {
      for (let i = 0; i < fields.length; i++) {
        const value = fields[i]!;
        const { name, parse } = columns[i]!;
        row[name] = value === null ? null : parse(value);
      }
      this.results[this.current]!.rows.push(row);
    } catch (error) {
      this.failure = error as Error;
    }
  }

  handleCommandComplete({ text }: { text: string }): void {
    if (this.columns[this.current] === undefined) this.learn(null);
    this.results[this.current]!.count = Number(/\d+$/.exec(text)?.[0] ?? 0);
    this.current += 1;
  }

  handleEmptyQuery(): void {
    this.current += 1;
  }

  handleError(error: Error): void {
    this.uncertain = this.parsed.length > 0;
    this.callback(error);
  }

  handleReadyForQuery(): void {
    this.callback(this.failure ?? null);
  }
}

// node-postgres takes only queries of its own class on a pipelined connection. Its constructor, and the event emitter
// under it, are of no use here and cost more than the whole batch.
Object.setPrototypeOf(Batch.prototype, (pg as unknown as { Query: { prototype: object } }).Query.prototype);

/** Sends statements over one connection as one batch. On error the connection may have to be given up: see `uncertain`. */
export function sendBatch(
  client: pg.PoolClient,
  statements: readonly Statement<unknown>[],
): Promise<Result<unknown>[]> {
  return new Promise((resolve, reject) => {
    const batch = new Batch(statements, (client as unknown as { _types: Types })._types);
    batch.callback = (error) => {
      if (!error) resolve(batch.results);
      else reject(batch.uncertain ? Object.assign(error, { connectionUnusable: true }) : error);
    };
    client.query(batch as unknown as pg.Submittable);
  });
}

/** Whether a connection can not be used any more after this error. */
export function isBroken(error: unknown): boolean {
  // An error the server reported leaves the connection usable, unless it is unknown which statements were parsed.
  const { code, connectionUnusable } = error as { code?: string; connectionUnusable?: boolean };
  const reported = error instanceof pg.DatabaseError && !code?.startsWith('57P') && !code?.startsWith('08');
  return connectionUnusable || (error instanceof Error && isConnectionError(error) && !reported);
}

const isConnectionError = (error: Error): boolean =>
  error instanceof pg.DatabaseError ||
  /connection|socket|ECONN|EPIPE|terminated/i.test(`${error.message} ${(error as { code?: string }).code}`);
