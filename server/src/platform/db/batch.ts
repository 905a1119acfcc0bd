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
  /** Ours: what named statements of this connection answer with; null for those without rows. */
  describedStatements?: Map<string, unknown>;
}
interface WireResult {
  rows: unknown[];
  rowCount: number | null;
  addFields(fields: unknown): void;
  parseRow(fields: unknown): unknown;
  addRow(row: unknown): void;
  addCommandComplete(message: unknown): void;
  _types: unknown;
}

const { Query } = pg as unknown as { Query: new (config: object) => object };
const { Result: ResultBuilder } = pg as unknown as {
  Result: new (mode: undefined, types: unknown) => WireResult;
};

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
class Batch extends Query {
  // node-postgres reads `name` to keep its own list of parsed statements; a batch keeps it itself.
  name = undefined;
  text = '';
  callback: (error: Error | null) => void = () => {};
  readonly results: WireResult[] = [];
  /** Set when a failure leaves it unknown which statements the server has parsed. */
  uncertain = false;
  private readonly statements: readonly Statement<unknown>[];
  private readonly parsed: Statement<unknown>[] = [];
  /** What to do with the description of a statement that was asked for; a statement without rows has none. */
  private readonly learn: (((fields: unknown) => void) | undefined)[] = [];
  private current = 0;
  private failure: Error | undefined;

  constructor(statements: readonly Statement<unknown>[], types: unknown) {
    super({ text: '' });
    this.statements = statements;
    for (const _ of statements) this.results.push(new ResultBuilder(undefined, types));
  }

  submit(connection: WireConnection): Error | null {
    for (const { name, text } of this.statements) {
      const known = name === undefined ? undefined : connection.parsedStatements[name];
      if (known !== undefined && known !== text) return new Error(`statement ${name} has two texts`);
    }
    connection.describedStatements ??= new Map();
    const described = connection.describedStatements;
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
      if (name && described.has(name)) {
        this.describe(index, described.get(name));
      } else {
        messages.push(describePortal);
        if (name) this.learn[index] = (fields) => described.set(name, fields);
      }
      messages.push(executePortal);
    });
    messages.push(sync);
    // One buffer, so one system call: corked writes of the parts cost a third of a request's time.
    connection.stream.write(Buffer.concat(messages));
    return null;
  }

  private describe(index: number, fields: unknown): void {
    if (fields !== null) this.results[index]!.addFields(fields);
  }

  handleRowDescription(message: { fields: unknown }): void {
    this.describe(this.current, message.fields);
    this.learn[this.current]?.(message.fields);
    this.learn[this.current] = undefined;
  }

  handleDataRow(message: { fields: unknown }): void {
    if (this.failure) return;
    const result = this.results[this.current]!;
    try {
      result.addRow(result.parseRow(message.fields));
    } catch (error) {
      this.failure = error as Error;
    }
  }

  handleCommandComplete(message: unknown): void {
    this.results[this.current]!.addCommandComplete(message);
    this.learn[this.current]?.(null);
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

/** Sends statements over one connection as one batch. On error the connection may have to be given up: see `uncertain`. */
export function sendBatch(
  client: pg.PoolClient,
  statements: readonly Statement<unknown>[],
): Promise<Result<unknown>[]> {
  return new Promise((resolve, reject) => {
    const batch = new Batch(statements, (client as unknown as { _types: unknown })._types);
    batch.callback = (error) => {
      if (!error) resolve(batch.results.map(({ rows, rowCount }) => ({ rows, count: rowCount ?? 0 })));
      else reject(batch.uncertain ? Object.assign(error, { connectionUnusable: true }) : error);
    };
    client.query(batch as unknown as pg.Submittable);
  });
}
