import { Duplex } from 'node:stream';
import { errorReply, NO_ENCRYPTION, startupReply } from './replies.ts';
import { createUnitReader, type Unit, type UnitReader } from './units.ts';

/** What a stream needs from the bridge. */
export interface Link {
  /** Why no connection can be opened any more. */
  failure(): Error | undefined;
  opened: Promise<void>;
  /** Known once it is open. */
  parameters(): Record<string, string>;
  open(stream: BackendStream, role: string | undefined): number;
  send(connection: number, unit: Unit): void;
  end(connection: number, statements: string[]): void;
}

/** One connection as `pg` sees it: the part of net.Socket it uses, over the bridge instead of a network. */
export class BackendStream extends Duplex {
  readonly #link: Link;
  readonly #role: string | undefined;
  #connection = 0;
  #reader: UnitReader | undefined;

  constructor(link: Link, role: string | undefined) {
    super();
    this.#link = link;
    this.#role = role;
  }

  connect(): this {
    const failure = this.#link.failure();
    if (failure) {
      process.nextTick(() => this.destroy(failure));
      return this;
    }
    this.#connection = this.#link.open(this, this.#role);
    this.#reader = createUnitReader(this.#connection, {
      onStartup: (asked) => this.#start(asked),
      onEncryptionRequest: () => this.push(NO_ENCRYPTION),
      onUnit: (unit) => this.#link.send(this.#connection, unit),
      onRefused: (reason) => this.#refuse(reason),
    });
    this.#link.opened.then(
      () => this.destroyed || this.emit('connect'),
      (error) => this.destroy(error),
    );
    return this;
  }

  /** Settings in the startup message are not applied: they would belong to the one session of all connections. */
  #start(asked: Map<string, string>): void {
    const parameters = {
      ...this.#link.parameters(),
      application_name: asked.get('application_name') ?? '',
      session_authorization: asked.get('user') ?? '',
    };
    this.push(startupReply(this.#connection, parameters));
  }

  #refuse(reason: string): void {
    this.push(errorReply('08P01', `The embedded database refused a message: ${reason}`, 'FATAL'));
    this.push(null);
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    this.#reader?.write(chunk);
    done();
  }

  override _writev(chunks: Array<{ chunk: Buffer }>, done: (error?: Error) => void): void {
    for (const { chunk } of chunks) this.#reader?.write(chunk);
    done();
  }

  override _final(done: (error?: Error) => void): void {
    this.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#reader) this.#link.end(this.#connection, this.#reader.statements());
    this.#reader = undefined;
    done(error);
  }
}
