import { Worker } from 'node:worker_threads';
import {
  FRAME_HEADER_BYTES,
  type FromWorker,
  readFrames,
  type ToWorker,
  transferOf,
  type WorkerSettings,
  writeFrameHeader,
} from './messages.ts';
import { BackendStream } from './stream.ts';
import type { Unit } from './units.ts';

/** The main thread's end of the database worker. */
export interface Bridge {
  /** Rejects when the database cannot be opened; so does then whatever was asked of it meanwhile. */
  opened: Promise<void>;
  /** A stream for one connection; its `connect()` fails when the worker is gone. */
  createStream(role: string | undefined): BackendStream;
  /** Ends all connections, closes the database, ends the thread. */
  close(): Promise<void>;
}

interface Outgoing {
  connection: number;
  unit: Unit;
}

/** Starts the worker, in which the database opens meanwhile: what is asked of it waits for that. */
export function startBridge(settings: WorkerSettings): Bridge {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    workerData: settings,
    name: 'embedded-database',
    // Not this process's own options: `--input-type` and the like would keep the thread from starting.
    execArgv: [],
  });
  const streams = new Map<number, BackendStream>();
  const opened = Promise.withResolvers<void>();
  // Whoever asks something hears of it in any case.
  opened.promise.catch(() => {});
  const closed = Promise.withResolvers<void>();
  let outgoing: Outgoing[] = [];
  let failure: Error | undefined;
  let parameters: Record<string, string> = {};
  let lastConnection = 0;

  function fail(error: Error): void {
    failure ??= error;
    opened.reject(failure);
    closed.resolve();
    for (const stream of streams.values()) stream.destroy(failure);
    outgoing = [];
  }

  function receive(message: Uint8Array | FromWorker): void {
    if (message instanceof Uint8Array) readFrames(message, deliver);
    else if (message.kind === 'ready') {
      parameters = message.parameters;
      opened.resolve();
    } else if (message.kind === 'closed') closed.resolve();
    else fail(new Error(`The embedded database failed: ${message.message}`));
  }

  function deliver(connection: number, _flags: number, bytes: Uint8Array): void {
    const stream = streams.get(connection);
    stream?.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  worker.on('message', receive);
  worker.on('error', (error) =>
    fail(new Error(`The embedded database failed: ${error.message}`, { cause: error })),
  );
  worker.on('exit', (code) =>
    fail(new Error(`The embedded database's thread has ended (exit code ${code})`)),
  );

  function post(message: ToWorker): void {
    flush();
    worker.postMessage(message);
  }

  function flush(): void {
    if (outgoing.length === 0) return;
    const batch = pack(outgoing);
    outgoing = [];
    worker.postMessage(batch, transferOf(batch));
  }

  const link = {
    failure: () => failure,
    opened: opened.promise,
    parameters: () => parameters,
    open(stream: BackendStream, role: string | undefined): number {
      const connection = ++lastConnection;
      streams.set(connection, stream);
      post({ kind: 'open', connection, role });
      return connection;
    },
    send(connection: number, unit: Unit): void {
      if (failure) return;
      // What all connections write within one turn travels as one message.
      if (outgoing.length === 0) process.nextTick(flush);
      outgoing.push({ connection, unit });
    },
    end(connection: number, statements: string[]): void {
      streams.delete(connection);
      if (!failure) post({ kind: 'end', connection, statements });
    },
  };

  async function close(): Promise<void> {
    const alive = failure === undefined;
    const reason = new Error('The embedded database was closed');
    for (const stream of streams.values()) stream.destroy(reason);
    // The streams send their `end` while they are destroyed; only then comes `close`.
    await new Promise(setImmediate);
    failure ??= reason;
    if (alive) {
      worker.postMessage({ kind: 'close' } satisfies ToWorker);
      await closed.promise;
    }
    await worker.terminate();
  }

  return { opened: opened.promise, createStream: (role) => new BackendStream(link, role), close };
}

function pack(outgoing: Outgoing[]): Uint8Array {
  let length = 0;
  for (const { unit } of outgoing) length += FRAME_HEADER_BYTES + unit.length;
  const batch = new Uint8Array(length);
  let at = 0;
  for (const { connection, unit } of outgoing) {
    writeFrameHeader(batch, at, connection, unit.flags, unit.length);
    at += FRAME_HEADER_BYTES;
    for (const part of unit.parts) {
      batch.set(part, at);
      at += part.length;
    }
  }
  return batch;
}
