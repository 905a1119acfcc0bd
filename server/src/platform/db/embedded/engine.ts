import { setFlagsFromString } from 'node:v8';
import { PGlite } from '@electric-sql/pglite';
import { vector } from '@electric-sql/pglite-pgvector';
import { readUint32 } from './messages.ts';

/** The parts of PGlite's module that the wire protocol needs; the version of PGlite is pinned exactly. */
interface Module {
  HEAPU8: Uint8Array;
  addFunction(callback: (pointer: number, length: number) => number, signature: 'ipi'): number;
  stackSave(): number;
  stackRestore(pointer: number): void;
  _pgl_set_rw_cbs(read: number, write: number): void;
  _pgl_pq_flush(): void;
  _pq_buffer_remaining_data(): number;
  _PostgresMainLoopOnce(): void;
  _PostgresMainLongJmp(): void;
  _PostgresSendReadyForQueryIfNecessary(): void;
  _GetUserId(): number;
}

export interface Engine {
  /**
   * Runs frontend messages to their end. `output` is given views into the backend's memory, valid only during
   * the call. Throws when the backend itself has died; SQL errors are ordinary output.
   */
  run(messages: Uint8Array, output: (bytes: Uint8Array) => void): void;
  /** Oid of the role that statements run as at this moment. */
  currentRoleOid(): number;
  /** The role that owns the database. */
  owner: string;
  /** Server settings that a client is told at startup. */
  parameters: Record<string, string>;
  close(): Promise<void>;
}

// Where a call out of WebAssembly is made often V8 puts a faster wrapper in the place of the first, frees that one, and ends the
// process when another thread has just freed the same (nodejs/node#64500). Few calls of ours go that way.
setFlagsFromString(`--wasm-wrapper-tiering-budget=${2 ** 31 - 1}`);

// The status with which PGlite leaves its main loop after an SQL error, to be continued in _PostgresMainLongJmp.
const SQL_ERROR_EXIT = 100;

const COPY_FAIL = (() => {
  const reason = Buffer.from('COPY FROM STDIN is not available in the embedded database\0');
  const message = Buffer.alloc(5 + reason.length);
  message[0] = 0x66;
  message.writeUInt32BE(4 + reason.length, 1);
  message.set(reason, 5);
  return message;
})();

// Code is optimised after so many bytes of it have run, 23 times V8's default: what an opening database does a few times otherwise
// keeps other threads busier than opening does, a second with the interpreter of expressions alone.
setFlagsFromString(`--wasm-tiering-budget=${300_000_000}`);

/** Opens or creates the database in `data` (a directory, or `memory://`) with the extension `vector`. */
export async function startEngine(data: string): Promise<Engine> {
  const database = await PGlite.create({
    dataDir: data,
    extensions: { vector },
    postgresqlconf: [
      'plan_cache_mode = force_generic_plan',
      'enable_seqscan = off',
      // Nothing waits for the disk here, so a log made of zeros beforehand is only written twice.
      'wal_init_zero = off',
      'wal_recycle = off',
    ],
  });
  await database.exec('CREATE EXTENSION IF NOT EXISTS vector');
  const parameters = await readParameters(database);
  const module = database.Module as unknown as Module;
  const owner = await database.query<{ name: string }>('SELECT current_user::text AS name');
  return { ...createRunner(module), owner: owner.rows[0]!.name, parameters, close: () => database.close() };
}

async function readParameters(database: PGlite): Promise<Record<string, string>> {
  const names = [
    'server_version',
    'server_encoding',
    'client_encoding',
    'DateStyle',
    'IntervalStyle',
    'TimeZone',
    'integer_datetimes',
    'standard_conforming_strings',
  ];
  const { rows } = await database.query<{ name: string; setting: string }>(
    'SELECT name, setting FROM pg_settings WHERE name = ANY($1)',
    [names],
  );
  return Object.fromEntries(rows.map((row) => [row.name, row.setting]));
}

/**
 * Drives the backend's message loop directly. PGlite's own `execProtocolRaw` would also do, but it swallows the
 * death of the backend, and a COPY FROM STDIN that finds no data ends the whole process.
 */
function createRunner(module: Module): Pick<Engine, 'run' | 'currentRoleOid'> {
  let input: Uint8Array = new Uint8Array(0);
  let readAt = 0;
  let messageEnd = 0;
  let messageTaken = false;
  let write: (bytes: Uint8Array) => void = () => {};

  // The backend is fed one message at a time, never further than the end of a message. So a second message asked
  // for within one turn of the loop can only be the data of a COPY FROM STDIN: it gets CopyFail, and the client's
  // next message stays where it was. (Outside a COPY the backend ignores CopyFail.)
  function onRead(pointer: number, capacity: number): number {
    if (readAt === messageEnd) {
      if (messageTaken) {
        messageTaken = false;
        module.HEAPU8.set(COPY_FAIL, pointer);
        return COPY_FAIL.length;
      }
      if (readAt === input.length) throw new Error('the backend asked for more than it was sent');
      messageEnd = readAt + 1 + readUint32(input, readAt + 1);
    }
    const length = Math.min(capacity, messageEnd - readAt);
    module.HEAPU8.set(input.subarray(readAt, readAt + length), pointer);
    readAt += length;
    messageTaken = readAt === messageEnd;
    return length;
  }

  function onWrite(pointer: number, length: number): number {
    write(module.HEAPU8.subarray(pointer, pointer + length));
    return length;
  }

  module._pgl_set_rw_cbs(module.addFunction(onRead, 'ipi'), module.addFunction(onWrite, 'ipi'));

  function turn(): void {
    const stack = module.stackSave();
    messageTaken = false;
    try {
      module._PostgresMainLoopOnce();
    } catch (error) {
      if ((error as { status?: number }).status !== SQL_ERROR_EXIT) throw error;
      module.stackRestore(stack);
      module._PostgresMainLongJmp();
    }
  }

  function run(messages: Uint8Array, output: (bytes: Uint8Array) => void): void {
    input = messages;
    readAt = 0;
    messageEnd = 0;
    write = output;
    while (readAt < input.length || module._pq_buffer_remaining_data() > 0) turn();
    module._PostgresSendReadyForQueryIfNecessary();
    module._pgl_pq_flush();
  }

  return { run, currentRoleOid: () => module._GetUserId() };
}
