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
  end(): void;
  readonly closed: boolean;
  onClose(listener: () => void): void;
}

/** Begins the answer. From here on failures are events, not statuses. */
export function openEventStream(response: ServerResponse, headers: Record<string, string> = {}): EventStream {
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    connection: 'keep-alive',
    'x-accel-buffering': 'no',
    ...headers,
  });
  response.flushHeaders();
  let closed = false;
  const listeners: (() => void)[] = [];
  response.once('close', () => {
    closed = true;
    for (const listener of listeners) listener();
  });
  response.on('error', () => {
    closed = true;
  });
  return {
    send: (event) => {
      if (closed || response.writableEnded) return Promise.resolve();
      if (response.write(frame(event))) return Promise.resolve();
      // The reader is slower than we are: hold back instead of buffering without bound.
      return new Promise((resolve) => {
        const go = () => {
          response.off('drain', go);
          response.off('close', go);
          resolve();
        };
        response.once('drain', go);
        response.once('close', go);
      });
    },
    end: () => {
      if (!response.writableEnded) response.end();
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
