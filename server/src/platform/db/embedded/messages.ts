/**
 * What travels between the main thread and the database worker.
 *
 * Protocol bytes travel as one Uint8Array per batch, packed as frames, so that a batch costs one message and
 * one copy whatever the number of connections in it. Everything rare travels as a small object.
 *
 * A frame: connection (u32 BE), flags (u32 BE), length (u32 BE), then `length` bytes.
 */
export const FRAME_HEADER_BYTES = 12;

/** The unit ends with Sync, Query or FunctionCall: the backend answers it with ReadyForQuery. */
export const ENDS_READY = 1;
/** A statement of the unit may change a setting of the session (as opposed to `SET LOCAL`). */
export const MAY_SET_SESSION = 2;

/** From this size on a batch is moved to the other thread; below it copying is cheaper than detaching. */
const TRANSFER_FROM_BYTES = 16 * 1024;

export type ToWorker =
  | { kind: 'open'; connection: number; role: string | undefined }
  | { kind: 'end'; connection: number; statements: string[] }
  | { kind: 'close' };

export type FromWorker =
  | { kind: 'ready'; parameters: Record<string, string> }
  | { kind: 'closed' }
  | { kind: 'failed'; message: string };

export interface WorkerSettings {
  /** A directory of PGlite's own, or `memory://`. */
  data: string;
  /** How long a unit may wait while another connection's transaction is open, milliseconds. */
  ownerWaitMs: number;
}

export function writeFrameHeader(
  target: Uint8Array,
  at: number,
  connection: number,
  flags: number,
  length: number,
): void {
  writeUint32(target, at, connection);
  writeUint32(target, at + 4, flags);
  writeUint32(target, at + 8, length);
}

/** Calls `visit` for every frame of a batch; `bytes` is a view into the batch. */
export function readFrames(
  batch: Uint8Array,
  visit: (connection: number, flags: number, bytes: Uint8Array) => void,
): void {
  let at = 0;
  while (at < batch.length) {
    const connection = readUint32(batch, at);
    const flags = readUint32(batch, at + 4);
    const start = at + FRAME_HEADER_BYTES;
    at = start + readUint32(batch, at + 8);
    visit(connection, flags, batch.subarray(start, at));
  }
}

/** The transfer list for a batch that owns its whole ArrayBuffer. */
export function transferOf(batch: Uint8Array): ArrayBuffer[] {
  return batch.length >= TRANSFER_FROM_BYTES ? [batch.buffer as ArrayBuffer] : [];
}

export function readUint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = (value >>> 16) & 0xff;
  bytes[at + 2] = (value >>> 8) & 0xff;
  bytes[at + 3] = value & 0xff;
}
