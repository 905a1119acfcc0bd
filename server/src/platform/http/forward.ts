import type { ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import type { Ctx } from '../context.ts';
import { ApiError, notFound, unavailable } from '../errors.ts';
import { credentialOf } from './credential.ts';

/** A request of a route of ours, made for a caller by another route. */
export interface ForwardedRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  query?: Record<string, unknown>;
  body?: unknown;
  headers?: Record<string, string>;
}

/** Told of each piece of an answer as it comes. */
export type OnPiece = (text: string) => void;

interface ForwardOptions {
  onPiece?: OnPiece | undefined;
  /** Aborted when the caller does not want the answer any more, although it is still there. */
  cancelled?: AbortSignal;
}

export interface ForwardedReply {
  status: number;
  /** As JSON, where it is. */
  body: unknown;
  text: string;
  headers: Record<string, unknown>;
}

/** Headers that say who calls, and from where. */
const passedOn = ['x-api-key', 'x-tenant-id', 'x-role', 'user-agent'];

/** Answers of forwarded requests that nobody waits for any more, and why. */
const abandoned = new WeakMap<ServerResponse, 'left' | 'cancelled'>();

/**
 * Whether whoever asked by a door left, or cancelled its request. Unlike a reader of a stream it has no way to come back
 * to this answer.
 */
export const abandonmentOf = (response: ServerResponse) => abandoned.get(response);

/**
 * Calls a route of this server in process, as the caller of this request: the same credential, address and request id. So
 * whatever guards that route guards it here. Ends when the caller goes away, or cancels.
 * @throws ApiError 404 for a part that is `.` or `..`
 */
export async function forward(
  ctx: Ctx,
  raw: FastifyRequest,
  { method, path, query = {}, body, headers = {} }: ForwardedRequest,
  { onPiece, cancelled }: ForwardOptions = {},
): Promise<ForwardedReply> {
  // A URL is resolved: an id of dots would lead to another route.
  if (path.split('/').some((part) => part === '.' || part === '..')) throw notFound('Resource');
  const known: Record<string, string> = { ...headers, 'x-request-id': ctx.requestId };
  for (const name of passedOn) {
    const value = raw.headers[name];
    if (typeof value === 'string') known[name] = value;
  }
  if (raw.headers.authorization !== undefined) known.authorization = `Bearer ${credentialOf(raw, true)}`;
  if (body !== undefined) known['content-type'] = 'application/json';
  const { reply, text } = await whileCallerWaits(ctx, cancelled, async (signal) => {
    const reply = await raw.server.inject({
      method,
      url: path,
      query: searchOf(query),
      headers: known,
      remoteAddress: raw.ip,
      payloadAsStream: true,
      ...(body === undefined ? {} : { payload: body as object }),
    });
    // The signal that `inject` takes ends nothing once the body has been read.
    const end = () => {
      abandoned.set(reply.raw.res, cancelled?.aborted ? 'cancelled' : 'left');
      reply.raw.res.destroy();
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
    return { reply, text: await textOf(reply.stream(), onPiece) };
  });
  const json = String(reply.headers['content-type']).startsWith('application/json');
  return {
    status: reply.statusCode,
    body: json ? JSON.parse(text) : undefined,
    text,
    headers: reply.headers,
  };
}

async function textOf(stream: Readable, onPiece?: OnPiece): Promise<string> {
  let text = '';
  for await (const piece of stream.setEncoding('utf8')) {
    text += piece;
    onPiece?.(piece);
  }
  return text;
}

/** A caller that goes away ends what was begun for it; a server that shuts down ends what it began. */
async function whileCallerWaits<T>(
  ctx: Ctx,
  cancelled: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const left = new AbortController();
  const signal = cancelled ? AbortSignal.any([ctx.signal, cancelled]) : ctx.signal;
  const leave = () => {
    if (!ctx.app.closing.aborted) left.abort();
  };
  signal.addEventListener('abort', leave, { once: true });
  if (signal.aborted) leave();
  try {
    return await work(left.signal);
  } catch (error) {
    throw left.signal.aborted ? unavailable('REQUEST_ABANDONED', 'The caller did not wait.') : error;
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

const searchOf = (query: Record<string, unknown>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(query)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => [name, String(value)]),
  );

/** The refusal that a forwarded request was answered with, to be given to the caller as it is. */
export function refusalIn({ status, body, headers }: ForwardedReply): ApiError | undefined {
  if (status < 400) return undefined;
  const { code, message, details } = (
    body as { error: { code: string; message: string; details?: Record<string, unknown> } }
  ).error;
  const kept = [
    'retry-after',
    'www-authenticate',
    'x-ratelimit-scope',
    'x-ratelimit-route-class',
    'x-ratelimit-retry-after-ms',
  ];
  const shown = Object.fromEntries(
    kept.flatMap((name) => (headers[name] === undefined ? [] : [[name, String(headers[name])]])),
  );
  return new ApiError(status, code, message, details, shown);
}
