import multipart from '@fastify/multipart';
import fastJson from 'fast-json-stringify';
import {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifySerializerCompiler,
  fastify,
} from 'fastify';
import type { TSchema } from 'typebox';
import type { App } from '../context.ts';
import { ApiError, badRequest, notFound, toApiError, unavailable, unsupportedMediaType } from '../errors.ts';
import { uuidv7 } from '../ids.ts';
import { corsOf } from './cors.ts';
import { refuseWhileDraining } from './draining.ts';
import { parseForm, parseJson, tooLarge } from './json.ts';
import { allowedMethods, methodNotAllowed, refuseOtherMethods, servedBy } from './methods.ts';
import { registerOpenApi } from './openapi.ts';
import { registerRoute } from './register.ts';
import type { Route } from './route.ts';
import { validatorCompiler } from './validate.ts';
import { refuseOnTheWire } from './wire-errors.ts';

const safeId = /^[\w.:/+=@-]{1,128}$/;

/** Builds the HTTP server with all routes. It does not listen yet. */
export async function buildServer(app: App, routes: Route[]): Promise<FastifyInstance> {
  const { config } = app;
  const server = fastify({
    logger: false,
    trustProxy: trusted(config.TRUST_PROXY),
    bodyLimit: config.BODY_LIMIT_BYTES,
    requestTimeout: 60_000,
    keepAliveTimeout: 65_000,
    forceCloseConnections: 'idle',
    genReqId: ({ headers }) => {
      const given = headers['x-request-id'];
      return typeof given === 'string' && safeId.test(given) ? given : uuidv7();
    },
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 1_000 },
    clientErrorHandler: refuseOnTheWire,
    frameworkErrors: (error, request, reply) => sendError(app, error, request, reply as FastifyReply),
  });
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    if (body.length === 0) return done(null, undefined);
    try {
      done(null, parseJson(body as Buffer, request.routeOptions.config.textsLater));
    } catch (error) {
      done(error as Error, undefined);
    }
  });
  server.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'buffer' },
    (_request, body, done) => {
      try {
        done(null, parseForm(body as Buffer));
      } catch (error) {
        done(error as Error, undefined);
      }
    },
  );
  // Read by its handler as it comes, line by line.
  server.addContentTypeParser('application/x-ndjson', (_request, payload, done) => done(null, payload));
  await server.register(multipart, {
    limits: {
      fileSize: config.UPLOAD_LIMIT_BYTES,
      files: 1,
      fields: 20,
      fieldSize: 65_536,
      fieldNameSize: 100,
      parts: 25,
      headerPairs: 100,
    },
  });
  server.setValidatorCompiler(validatorCompiler);
  server.setSerializerCompiler(serializerCompiler);
  server.setSchemaErrorFormatter((errors) => errors[0] as unknown as Error);
  server.setErrorHandler((error: FastifyError, request, reply) => sendError(app, error, request, reply));
  hooks(app, server, routes);
  refuseWhileDraining(app, server);
  await registerOpenApi(app, server);
  for (const route of routes) registerRoute(app, server, route);
  const paths = servedBy(app, routes);
  refuseOtherMethods(server, paths);
  server.setNotFoundHandler((request) => {
    const allowed = allowedMethods(paths, request.url);
    throw allowed.length === 0 ? notFound('Route') : methodNotAllowed(allowed);
  });
  await server.ready();
  return server;
}

const writers = new WeakMap<TSchema, (value: unknown) => string>();

/** Writes of an answer what its schema says, and nothing else; compiled when it is first used, as the validators are. */
const serializerCompiler: FastifySerializerCompiler<TSchema> =
  ({ schema }) =>
  (value) => {
    const write = writers.get(schema) ?? fastJson(schema);
    writers.set(schema, write);
    return write(value);
  };

/** So many hops from the server outwards, or the named addresses, may say who called them. */
const trusted = (proxies: number | string[] | undefined) =>
  typeof proxies === 'number' ? (_address: string, hop: number) => hop < proxies : (proxies ?? false);

/**
 * What browsers and caches on the way are told about every answer: not to guess what it is, not to run, frame or keep it, not
 * to pass its address on. A route that means otherwise says so.
 */
const protectionsOf = ({ config }: App): Record<string, string> => ({
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  // A browser that came by https once never comes by http again, where somebody might listen.
  ...(config.publicUrl.startsWith('https:')
    ? { 'strict-transport-security': 'max-age=31536000; includeSubDomains' }
    : {}),
});

/** The router finds it in a path, and nobody else in a query. */
const badlyEncoded = () => badRequest('INVALID_URL', 'The address is not validly encoded.');

function isDecodable(url: string): boolean {
  try {
    decodeURIComponent(url);
    return true;
  } catch {
    return false;
  }
}

/** RFC 9110, section 15.5.16: `Accept-Encoding` says which encodings of a body would be taken. */
const compressed = () =>
  new ApiError(
    415,
    'UNSUPPORTED_MEDIA_TYPE',
    'A compressed body is not read here. Send it without Content-Encoding.',
    undefined,
    { 'accept-encoding': 'identity' },
  );

const otherCharset = /;\s*charset\s*=\s*["']?(?!utf-?8["']?\s*(?:;|$))[^\s;"']/i;

/** Whether a body is said to be in another encoding than UTF-8, in which every one is read (RFC 8259, section 8.1). */
const isForeignText = ({ headers }: FastifyRequest): boolean =>
  otherCharset.test(headers['content-type']!) &&
  (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0);

const foreignText = () =>
  new ApiError(
    415,
    'UNSUPPORTED_MEDIA_TYPE',
    'A body is read as UTF-8 here. Send it in UTF-8, without a charset or with charset=utf-8.',
  );

function hooks(app: App, server: FastifyInstance, routes: Route[]): void {
  const cors = corsOf(app.config, routes);
  const protections = protectionsOf(app);
  let inFlight = 0;
  let admitted = 0;
  server.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id).headers(protections);
    cors(request, reply);
    if (request.url.includes('%00'))
      return done(badRequest('INVALID_URL', 'The address contains a NUL character.'));
    if (request.url.includes('%') && !isDecodable(request.url)) return done(badlyEncoded());
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding.toLowerCase() !== 'identity') return done(compressed());
    if (request.headers['content-type']?.includes(';') && isForeignText(request)) return done(foreignText());
    done();
  });
  // Counted when the body is there: clients that only begin to send one take no room from others.
  server.addHook('preHandler', (request, reply, done) => {
    const counts = request.routeOptions.config.admission === 'own' ? 0 : 1;
    inFlight += 1;
    admitted += counts;
    // Not onResponse: that never comes for a client that left before the end.
    reply.raw.once('close', () => {
      admitted -= counts;
      app.metrics.inFlight.set(--inFlight);
    });
    if (admitted > app.config.MAX_IN_FLIGHT && counts > 0) {
      const busy = 'The server has more requests than it can work on. Repeat the request.';
      return done(unavailable('SERVICE_BUSY', busy, 1));
    }
    done();
  });
  server.addHook('onResponse', (request, reply, done) => {
    const { measure } = request.routeOptions.config;
    if (measure) measure(reply.statusCode, reply.elapsedTime / 1000);
    if (app.log.isLevelEnabled('debug')) {
      app.log.debug(
        {
          request_id: request.id,
          tenant_id: request.ctx?.tenant || undefined,
          method: request.method,
          route: request.routeOptions.url,
          status: reply.statusCode,
          ms: Math.round(reply.elapsedTime * 10) / 10,
        },
        'request',
      );
    }
    done();
  });
  server.options('/*', { schema: { hide: true } }, (_request, reply) => reply.code(204).send());
}

/** What Fastify and its parsers throw, as errors of ours. */
function translate(app: App, error: FastifyError, request: FastifyRequest): ApiError {
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return tooLarge(app.config.BODY_LIMIT_BYTES);
    case 'FST_REQ_FILE_TOO_LARGE':
      return tooLarge(app.config.UPLOAD_LIMIT_BYTES);
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
    case 'FST_INVALID_MULTIPART_CONTENT_TYPE':
      return unsupportedMediaType(request.routeOptions.config.consumes ?? 'application/json');
    case 'FST_ERR_BAD_URL':
      return badlyEncoded();
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return notFound('Route');
    default:
  }
  const own = toApiError(error);
  if (own.code !== 'INTERNAL_ERROR' || !error.statusCode || error.statusCode >= 500) return own;
  if (error.statusCode === 413) return tooLarge(app.config.BODY_LIMIT_BYTES);
  return badRequest('BAD_REQUEST', 'The request is malformed.');
}

function sendError(app: App, error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const shown = translate(app, error, request);
  if (shown.status >= 500) {
    const level = shown.status === 500 ? 'error' : 'warn';
    app.log[level](
      { err: error, request_id: request.id, route: request.routeOptions?.url, method: request.method },
      shown.code,
    );
  }
  // Addresses that can not be decoded are refused before any hook has run.
  reply.header('x-request-id', request.id);
  const form = request.routeOptions?.config?.errors;
  const meta = { request_id: request.id, api_version: 'v1' };
  const { code, message, details } = shown;
  const body =
    form === 'json-rpc'
      ? jsonRpcError(shown, request.id)
      : form === 'oauth'
        ? { ...oauthError(shown), meta }
        : { error: { code, message, ...(details ? { details } : {}) }, meta };
  reply
    // OAuth and JSON-RPC know one status for whatever is wrong with a request.
    .code(form && shown.status === 422 ? 400 : shown.status)
    .headers(shown.headers)
    .type('application/json; charset=utf-8')
    .serializer((value: unknown) => JSON.stringify(value))
    .send(body);
}

/** JSON-RPC 2.0, section 5.1, of a request whose id is not known yet. Ours is told as `data`. */
function jsonRpcError({ status, code, message, details }: ApiError, requestId: string): object {
  const malformed = status >= 400 && status < 500 && ![401, 403, 404, 429].includes(status);
  const number =
    code === 'MALFORMED_JSON' ? -32_700 : status === 500 ? -32_603 : malformed ? -32_600 : -32_000;
  const data = { code, ...(details ? { details } : {}), request_id: requestId };
  return { jsonrpc: '2.0', id: null, error: { code: number, message, data } };
}

const oauthCodes = new Set([
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'invalid_scope',
  'invalid_target',
  'unauthorized_client',
  'unsupported_grant_type',
  'access_denied',
]);

/** RFC 6749, section 5.2; what has no code there is told by its status. */
function oauthError({ code, status, message }: ApiError): { error: string; error_description: string } {
  const known = code.toLowerCase();
  const byStatus =
    status === 401
      ? 'invalid_client'
      : status === 403
        ? 'access_denied'
        : status === 429 || status === 503
          ? 'temporarily_unavailable'
          : status >= 500
            ? 'server_error'
            : 'invalid_request';
  return { error: oauthCodes.has(known) ? known : byStatus, error_description: message };
}
