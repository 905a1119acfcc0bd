import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { pathOf } from './request-context.ts';
import type { Route } from './route.ts';

/** What scripts of a page may send, besides what any may. */
const sent = [
  'authorization',
  'content-type',
  'x-api-key',
  'x-request-id',
  'idempotency-key',
  'if-match',
  'if-range',
  'last-event-id',
  'mcp-protocol-version',
  'mcp-session-id',
  'range',
].join(', ');

/** What scripts of a page may read of an answer, besides what any may. */
const shown = [
  'accept-ranges',
  'content-disposition',
  'content-range',
  'deprecation',
  'etag',
  'idempotency-replayed',
  'link',
  'mcp-session-id',
  'ratelimit',
  'ratelimit-policy',
  'retry-after',
  'sunset',
  'www-authenticate',
  'x-next-cursor',
  'x-ratelimit-limit',
  'x-ratelimit-remaining',
  'x-ratelimit-reset',
  'x-ratelimit-retry-after-ms',
  'x-ratelimit-route-class',
  'x-ratelimit-scope',
  'x-ratelimit-status',
  'x-request-id',
].join(', ');

/** Says which pages of browsers may call (Fetch, section 3.3). */
export function corsOf(config: Config, routes: Route[]) {
  const local = new Set(routes.filter(({ localPages }) => localPages).map(({ path }) => path));
  return (request: FastifyRequest, reply: FastifyReply): void => {
    const { origin } = request.headers;
    if (!origin) return;
    const isLocal = local.has(pathOf(request.url).replace(/\/$/, ''));
    if (!isNamed(config, origin) && !(isLocal && isOfThisServer(config, origin))) return;
    reply.header('access-control-allow-origin', origin);
    reply.header('vary', 'origin');
    reply.header('access-control-expose-headers', shown);
    if (request.method !== 'OPTIONS') return;
    reply.header('access-control-allow-methods', 'GET, POST, PUT, PATCH, DELETE');
    reply.header('access-control-allow-headers', sent);
    reply.header('access-control-max-age', '600');
  };
}

/** Whether pages of an origin may call a route with `localPages`. */
export const isOriginAllowed = (config: Config, origin: string): boolean =>
  isNamed(config, origin) || isOfThisServer(config, origin);

const isNamed = ({ CORS_ORIGINS }: Config, origin: string): boolean =>
  CORS_ORIGINS.includes(origin) || CORS_ORIGINS.includes('*');

/** To a server that is for its own machine only, that machine's pages are no strangers, whatever they call it. */
const isOfThisServer = ({ publicUrl }: Config, origin: string): boolean =>
  origin === new URL(publicUrl).origin || (isLoopback(publicUrl) && isLoopback(origin));

const isLoopback = (url: string): boolean =>
  URL.canParse(url) && ['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname);
