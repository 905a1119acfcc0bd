import { FRAME_HEADER_BYTES, writeFrameHeader } from './messages.ts';

/** Collects answers as frames of one batch, so that many answers cost one message to the main thread. */
export interface Outbox {
  begin(connection: number): void;
  write(bytes: Uint8Array): void;
  /** Ends the frame that `begin` opened; without one it does nothing. */
  end(): void;
  /** Sends what is there. */
  flush(): void;
}

// A large result leaves in parts, so that the main thread parses one part while the backend makes the next.
const PART_BYTES = 256 * 1024;

export function createOutbox(post: (batch: Uint8Array) => void): Outbox {
  let scratch = new Uint8Array(PART_BYTES);
  let length = 0;
  let frameAt = 0;
  let connection = 0;
  let inFrame = false;

  function reserve(bytes: number): void {
    if (length + bytes <= scratch.length) return;
    const larger = new Uint8Array(Math.max(scratch.length * 2, length + bytes));
    larger.set(scratch.subarray(0, length));
    scratch = larger;
  }

  function begin(of: number): void {
    connection = of;
    inFrame = true;
    reserve(FRAME_HEADER_BYTES);
    frameAt = length;
    length += FRAME_HEADER_BYTES;
  }

  function end(): void {
    if (!inFrame) return;
    inFrame = false;
    const frameBytes = length - frameAt - FRAME_HEADER_BYTES;
    if (frameBytes === 0) length = frameAt;
    else writeFrameHeader(scratch, frameAt, connection, 0, frameBytes);
  }

  function flush(): void {
    if (length === 0) return;
    post(scratch.slice(0, length));
    length = 0;
    if (scratch.length > 4 * PART_BYTES) scratch = new Uint8Array(PART_BYTES);
  }

  function write(bytes: Uint8Array): void {
    if (length + bytes.length > PART_BYTES && length > frameAt + FRAME_HEADER_BYTES) {
      end();
      flush();
      begin(connection);
    }
    reserve(bytes.length);
    scratch.set(bytes, length);
    length += bytes.length;
  }

  return { begin, write, end, flush };
}
