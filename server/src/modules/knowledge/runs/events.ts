import { frame } from '#platform/http/sse.ts';

export type RunEventType =
  | 'request.accepted'
  | 'debug.retrieval'
  | 'token.delta'
  | 'message.final'
  | 'audio.ready'
  | 'audio.error'
  | 'error'
  | 'resume.unsupported'
  | 'done';

export interface RunEvent {
  type: RunEventType;
  data: Record<string, unknown>;
}

/** What every event of a run says of it. */
export interface RunNames {
  id: string;
  request_id: string | null;
  session_id: string;
}

/**
 * Makes frames of a run's events. Made from what is stored a frame is the same, byte for byte, whoever sends it.
 * @returns a function of the number, the type, and the data as JSON
 */
export function eventFramer({ id, request_id, session_id }: RunNames) {
  // Put together from parts: what is the same in every token's frame is written once.
  const names = `"request_id":${JSON.stringify(request_id)},"session_id":${JSON.stringify(session_id)},"data":`;
  return (seq: number, type: RunEventType, json: string): string =>
    `event: message\nid: ${id}:${seq}\ndata: {"type":"${type}",${names}${json},"seq":${seq}}\n\n`;
}

/** Says that nothing has happened. It repeats the last number and carries no id: nobody resumes from it. */
export const heartbeatFrame = ({ request_id }: RunNames, seq: number): string =>
  frame({ event: 'heartbeat', data: { ts: new Date().toISOString(), request_id, seq } });

/** The whole answer to a reader that can not be given what it asks for; the same whatever the reason. */
export const refusalFrames = (requestId: string, sessionId: string | null): string =>
  (
    [
      [
        'resume.unsupported',
        { message: 'There are no events to go on with. Start a new run without Last-Event-ID.' },
      ],
      ['done', {}],
    ] as const
  )
    .map(([type, data], index) =>
      frame({
        event: 'message',
        data: { type, request_id: requestId, session_id: sessionId, data, seq: index + 1 },
      }),
    )
    .join('');

/** Where a reader has come to, as its `Last-Event-ID` says; undefined for what no event of ours has. */
export function placeOf(lastEventId: string): { run_id: string; seq: number } | undefined {
  const [, run_id, seq] = /^([0-9a-f-]{36}):(\d{1,9})$/.exec(lastEventId) ?? [];
  return run_id && seq ? { run_id, seq: Number(seq) } : undefined;
}
