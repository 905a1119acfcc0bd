import type { ServerResponse } from 'node:http';

export interface Frame {
  event: string;
  /** Left out for heartbeats, so that a reader never resumes from one. */
  id?: string;
  data: unknown;
}

/** One event of a stream (WHATWG HTML, Server-sent events): one line of compact JSON as data. */
export const frame = ({ event, id, data }: Frame): string =>
  `event: ${event}\n${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;

/** A stream to one client: waits for slow readers, notices when the client is gone. */
export interface EventStream {
  /** Resolves when there is room for more. Does nothing once the client is gone. */
  send(event: Frame): Promise<void>;
  /** The same for frames that are text already. Answers a promise only when there is no room. */
  write(frames: string): Promise<void> | void;
  /** Ends the answer. What the reader has not taken after `lingerMs` is dropped with its connection. */
  end(lingerMs?: number): void;
  readonly closed: boolean;
  onClose(listener: () => void): void;
}

export interface EventStreamOptions {
  headers?: Record<string, string>;
  /** A reader that takes nothing for so long is taken for gone. */
  stallMs?: number;
}

/** Begins the answer. From here on failures are events, not statuses. */
export function openEventStream(
  response: ServerResponse,
  { headers = {}, stallMs = 60_000 }: EventStreamOptions = {},
): EventStream {
  const listeners: (() => void)[] = [];
  // The client may have left while the work was prepared: then `close` has been and will not come again.
  let closed = response.closed || response.destroyed;
  response.once('close', () => {
    closed = true;
    for (const listener of listeners) listener();
  });
  // `close` follows and says the same.
  response.on('error', () => {});
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    connection: response.shouldKeepAlive ? 'keep-alive' : 'close',
    'x-accel-buffering': 'no',
    ...headers,
  });
  response.flushHeaders();
  const write = (frames: string): Promise<void> | void => {
    if (closed || response.writableEnded || response.write(frames)) return;
    // The reader is slower than we are: hold back instead of buffering without bound.
    return roomIn(response, stallMs);
  };
  return {
    send: async (event) => write(frame(event)),
    write,
    end: (lingerMs = stallMs) => {
      if (closed || response.writableEnded) return;
      response.end();
      const linger = setTimeout(() => response.destroy(), lingerMs).unref();
      response.once('close', () => clearTimeout(linger));
    },
    get closed() {
      return closed;
    },
    onClose: (listener) => {
      if (closed) listener();
      else listeners.push(listener);
    },
  };
}

function roomIn(response: ServerResponse, stallMs: number): Promise<void> {
  return new Promise((resolve) => {
    const stall = setTimeout(() => response.destroy(), stallMs);
    const go = () => {
      clearTimeout(stall);
      response.off('drain', go);
      response.off('close', go);
      resolve();
    };
    response.once('drain', go);
    response.once('close', go);
  });
}
