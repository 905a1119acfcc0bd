import type { Socket } from 'node:net';
import { uuidv7 } from '../ids.ts';

const refusals: Record<string, [status: number, phrase: string, code: string, message: string]> = {
  HPE_HEADER_OVERFLOW: [
    431,
    'Request Header Fields Too Large',
    'HEADERS_TOO_LARGE',
    'The address and headers are longer than this server reads.',
  ],
  ERR_HTTP_REQUEST_TIMEOUT: [
    408,
    'Request Timeout',
    'REQUEST_TIMEOUT',
    'The request did not arrive in time. Send it again.',
  ],
};

/** Answers what could not be read as HTTP, where no request exists yet, in the shape of every other error, and hangs up. */
export function refuseOnTheWire(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  const [status, phrase, code, message] = refusals[error.code ?? ''] ?? [
    400,
    'Bad Request',
    'BAD_REQUEST',
    'The request is malformed.',
  ];
  const id = uuidv7();
  const body = JSON.stringify({ error: { code, message }, meta: { request_id: id, api_version: 'v1' } });
  if (socket.writable) {
    socket.write(
      [
        `HTTP/1.1 ${status} ${phrase}`,
        'connection: close',
        'content-type: application/json; charset=utf-8',
        `content-length: ${Buffer.byteLength(body)}`,
        `x-request-id: ${id}`,
        '',
        body,
      ].join('\r\n'),
    );
  }
  socket.destroySoon();
}
