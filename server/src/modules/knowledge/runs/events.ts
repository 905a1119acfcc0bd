import type { EventStream } from '#platform/http/sse.ts';

export type RunEventType =
  | 'request.accepted'
  | 'debug.retrieval'
  | 'token.delta'
  | 'message.final'
  | 'audio.error'
  | 'error'
  | 'resume.unsupported'
  | 'done';

/** The events of one run on one stream, numbered from 1, with heartbeats where nothing else is said. */
export interface RunEvents {
  /** Resolves when the reader has room for more. */
  send(type: RunEventType, data: Record<string, unknown>): Promise<void>;
  /** Says the last events without waiting for the reader, and ends the stream. */
  close(...events: [type: RunEventType, data: Record<string, unknown>][]): void;
}

export interface RunEventsOptions {
  /** Frames carry `<run_id>:<seq>` as id; undefined where there is no run to come back to. */
  run_id: string | undefined;
  request_id: string;
  session_id: string;
  heartbeatMs: number;
}

/** Numbers and frames the events of a run. Heartbeats count in `seq` and carry no id, so nobody resumes from one. */
export function runEvents(
  stream: EventStream,
  { run_id, request_id, session_id, heartbeatMs }: RunEventsOptions,
): RunEvents {
  let seq = 0;
  let waiting = 0;
  const heartbeat = () => {
    // A reader with a full buffer gets no heartbeat on top of it.
    if (waiting === 0) {
      seq += 1;
      void stream.send({ event: 'heartbeat', data: { ts: new Date().toISOString(), request_id, seq } });
    }
    idle.refresh();
  };
  const idle = setTimeout(heartbeat, heartbeatMs);
  const write = (type: RunEventType, data: Record<string, unknown>) => {
    seq += 1;
    return stream.send({
      event: 'message',
      ...(run_id === undefined ? {} : { id: `${run_id}:${seq}` }),
      data: { type, request_id, session_id, data, seq },
    });
  };
  return {
    send: async (type, data) => {
      waiting += 1;
      try {
        await write(type, data);
      } finally {
        waiting -= 1;
        idle.refresh();
      }
    },
    close: (...events) => {
      clearTimeout(idle);
      for (const [type, data] of events) void write(type, data);
      stream.end();
    },
  };
}
