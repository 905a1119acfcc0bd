import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Type as T, type TSchema } from 'typebox';
import type { App, Authenticated, Ctx } from '../context.ts';
import { ApiError, badRequest, unauthorized, unsupportedMediaType } from '../errors.ts';
import { refusalOf } from '../permission.ts';
import { credentialOf } from './credential.ts';
import { idempotencyKeyOf, idempotently } from './idempotency.ts';
import { limit } from './limits.ts';
import { describe } from './openapi.ts';
import { pathOf, RequestContext } from './request-context.ts';
import { Answer, type Route, routeClassOf, Stream, takesIdempotencyKey } from './route.ts';
import { validatorCompiler } from './validate.ts';

declare module 'fastify' {
  interface FastifyRequest {
    ctx?: Ctx;
  }
  interface FastifyContextConfig {
    /** `own`: the route has its own bulkhead and is not counted against MAX_IN_FLIGHT. */
    admission?: 'own';
    errors?: Route['errors'];
    textsLater?: true;
    /** Media type of its body. */
    consumes?: string;
    measure?: (status: number, seconds: number) => void;
  }
}

/** What is not known is refused, so that no misspelt parameter is silently dropped. */
const NoQuery = T.Object({}, { additionalProperties: false });
const Meta = T.Object({ request_id: T.String(), api_version: T.Literal('v1') });

/** Registers a route, and its unversioned alias. A route that says neither who may call it nor that all may is refused. */
export function registerRoute(app: App, server: FastifyInstance, route: Route): void {
  const { method, path } = route;
  if (!route.permission && route.forwards !== true && route.public !== true && route.public !== 'optional') {
    throw new Error(`${method} ${path} declares neither a permission nor that it is public`);
  }
  const options = {
    method: route.method,
    bodyLimit: route.bodyLimit ?? app.config.BODY_LIMIT_BYTES,
    config: {
      measure: measureOf(app, route),
      consumes: consumedBy(route),
      ...(route.errors ? { errors: route.errors } : {}),
      ...(route.textsLater ? { textsLater: route.textsLater } : {}),
      // What a forwarding route calls is counted.
      ...(route.produces === 'text/event-stream' || route.tag === 'operations' || route.forwards
        ? { admission: 'own' as const }
        : {}),
    },
    // An upload is read by its handler; the schema of its body is for the contract.
    ...(uploads.includes(route.consumes ?? '') ? { validatorCompiler: validateAllButBody } : {}),
    onRequest: (request: FastifyRequest, reply: FastifyReply) => admit(app, route, request, reply),
    // Extended by the body: naming a tenant is refused whatever else the body says.
    preValidation: (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void) => {
      // Parsers of forms and streams are registered for all routes; only those that ask for one take it.
      const form = formOf(request);
      if (form !== undefined && form !== route.consumes) return done(unsupportedMediaType(consumedBy(route)));
      if (isMissing(request.body) && route.bodyOptional) request.body = {};
      done(
        namesOtherTenant(request)
          ? badRequest('TENANT_ID_NOT_ALLOWED', 'The tenant comes from the credential. Leave tenant_id out.')
          : undefined,
      );
    },
    handler: (request: FastifyRequest, reply: FastifyReply) => handle(app, route, request, reply),
  };
  server.route({ ...options, url: route.path, schema: schemaOf(route, false) });
  for (const url of route.also ?? [])
    server.route({ ...options, url, schema: { ...schemaOf(route, false), hide: true } });
  if (route.legacy && app.config.LEGACY_ROUTES_ENABLED) {
    const url = route.path.replace(/^\/v1/, '');
    server.route({
      ...options,
      url,
      schema: { ...schemaOf(route, true), hide: true },
      preParsing: legacyHeaders(app),
    });
  }
}

const uploads = ['multipart/form-data', 'application/x-ndjson'];
const forms = [...uploads, 'application/x-www-form-urlencoded'];

const validateAllButBody: typeof validatorCompiler = (part) =>
  part.httpPart === 'body' ? () => true : validatorCompiler(part);

const formOf = ({ headers }: FastifyRequest): string | undefined => {
  const type = headers['content-type']?.toLowerCase() ?? '';
  return forms.find((form) => type.startsWith(form));
};

const consumedBy = ({ consumes }: Route): string => consumes ?? 'application/json';

const isMissing = (body: unknown) => body === undefined || body === null;

function schemaOf(route: Route, bare: boolean): Record<string, unknown> {
  const response: Record<string, unknown> = {};
  for (const [status, body] of Object.entries(route.response)) {
    if (body === null) response[status] = { type: 'null', description: 'Done' };
    else if (route.produces)
      response[status] = { description: 'Done', content: { [route.produces]: { schema: body } } };
    else response[status] = route.envelope && !bare ? T.Object({ data: body as TSchema, meta: Meta }) : body;
  }
  return {
    ...describe(route),
    ...(route.params ? { params: route.params } : {}),
    querystring: route.query ?? NoQuery,
    ...(route.body ? { body: route.body } : {}),
    response,
  };
}

/** Authenticates, authorises and takes from the limits, in this order, before a byte of the body is read. */
async function admit(app: App, route: Route, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const routeClass = routeClassOf(route);
  const identified = await authenticate(app, route, request);
  const ctx = new RequestContext(app, identified.tenant, identified.actor, request, reply, route);
  request.ctx = ctx;
  if (!ctx.tenant) return;
  await app.features.prepare(ctx);
  const refusal = route.permission
    ? await refusalOf(ctx, route.permission, undefined, route.decidesRows)
    : undefined;
  // Refused requests count as well: a flood of them would fill the ledger.
  if (app.config.RATE_LIMIT_ENABLED) {
    const limits = await app.features.limitsFor(ctx, routeClass, route.operation);
    const cost = route.costOf?.(request) ?? route.cost ?? 1;
    await limit(ctx, reply, routeClass, route.operation, cost, limits);
  }
  if (refusal) throw refusal();
}

async function authenticate(app: App, route: Route, request: FastifyRequest): Promise<Authenticated> {
  const credential = route.public === true ? undefined : credentialOf(request, route.tokenScheme);
  const refusal = () => unauthorized(undefined, route.challenge?.(app.config));
  const anonymous: Authenticated = {
    tenant: '',
    actor: {
      type: 'anonymous',
      identity_id: undefined,
      external_id: undefined,
      role: 'anonymous',
      claims: {},
      credential: `ip:${request.ip}`,
    },
  };
  if (credential !== undefined) {
    const identified = credential && (await app.features.authenticate(app, credential, request));
    if (!identified) throw refusal();
    return identified;
  }
  if (route.public) return anonymous;
  const bypass = app.config.AUTH_DEV_BYPASS ? developmentActor(request) : undefined;
  if (!bypass || !(await app.features.isActive(app, bypass.tenant))) throw refusal();
  return bypass;
}

/** Development only (AUTH_DEV_BYPASS): `X-Tenant-Id` and `X-Role` stand in for a credential. */
function developmentActor({ headers }: FastifyRequest): Authenticated | undefined {
  const tenant = headers['x-tenant-id'];
  const role = headers['x-role'] ?? 'admin';
  if (typeof tenant !== 'string' || !/^[a-z0-9][a-z0-9._-]{0,63}$/.test(tenant)) return undefined;
  if (typeof role !== 'string' || !['admin', 'editor', 'reader', 'agent', 'user'].includes(role)) {
    throw badRequest('AUTH_INVALID_ROLE', 'X-Role must be admin, editor, reader, agent or user.');
  }
  const id = '00000000-0000-7000-8000-000000000000';
  return {
    tenant,
    actor: {
      type: 'identity',
      identity_id: id,
      external_id: 'development',
      role,
      claims: {},
      credential: 'development',
    },
  };
}

/**
 * The tenant comes from the credential and nothing else: naming another one is refused, naming one's own means nothing.
 * @returns true when a body or query names a tenant that is not the caller's
 */
function namesOtherTenant({ body, query, ctx }: FastifyRequest): boolean {
  for (const part of [body, query] as (Record<string, unknown> | undefined)[]) {
    if (typeof part !== 'object' || part === null || !Object.hasOwn(part, 'tenant_id')) continue;
    if (!ctx?.tenant || part.tenant_id !== ctx.tenant) return true;
    delete part.tenant_id;
  }
  return false;
}

async function handle(
  app: App,
  route: Route,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const ctx = request.ctx!;
  const input = { params: request.params, query: request.query, body: request.body, raw: request };
  const work = async () => asAnswer(route, await route.handler(ctx, input as never));
  let answer: Answer | Stream;
  // Where the handler works before it claims the key, a bad one is told first all the same.
  const key = takesIdempotencyKey(route) ? idempotencyKeyOf(request) : undefined;
  if (key !== undefined && !ctx.tenant) throw keyNeedsCredential();
  if (key === undefined || route.idempotent === 'manual') answer = await work();
  else
    answer = await idempotently(ctx, request, [request.body, request.query], work as () => Promise<Answer>);
  if (route.method !== 'GET') app.nudgeRelay();
  if (answer instanceof Stream) {
    // A stream is written past Fastify, which would drop what was set on its reply: deprecation of aliases, limits.
    for (const [name, value] of Object.entries(reply.getHeaders()))
      if (value !== undefined) reply.raw.setHeader(name, value);
    reply.hijack();
    await answer.write(request, reply.raw);
    return reply;
  }
  const { link, ...headers } = answer.headers;
  reply.code(answer.status).headers(headers);
  // An alias says where its successor is, a page where the next one is: both are links of one answer (RFC 8288, section 3).
  if (link !== undefined) reply.header('link', [reply.getHeader('link'), link].filter(Boolean).join(', '));
  if (answer.body === undefined || answer.status === 204) return reply.send();
  if (route.produces) return reply.serializer((text: string) => text).send(answer.body);
  const bare = !route.envelope || !request.url.startsWith('/v1');
  return reply.send(
    bare ? answer.body : { data: answer.body, meta: { request_id: request.id, api_version: 'v1' } },
  );
}

/** A key belongs to a credential: taken from a stranger it would do nothing, and be believed. */
const keyNeedsCredential = () =>
  badRequest(
    'IDEMPOTENCY_KEY_NEEDS_CREDENTIAL',
    'Idempotency-Key works together with a credential only. Send the request without it.',
  );

function asAnswer(route: Route, result: unknown): Answer | Stream {
  if (result instanceof Answer || result instanceof Stream) return result;
  return new Answer(Number(Object.keys(route.response)[0]), result);
}

const legacyHeaders =
  (app: App) =>
  (request: FastifyRequest, reply: FastifyReply, _payload: unknown, done: (error?: Error | null) => void) => {
    const sunset = new Date(`${app.config.LEGACY_ROUTES_SUNSET}T00:00:00Z`);
    reply.header('deprecation', 'true');
    reply.header('sunset', sunset.toUTCString());
    reply.header('link', `</v1${pathOf(request.url)}>; rel="successor-version"`);
    done(Date.now() >= sunset.getTime() ? gone() : null);
  };

const gone = () => new ApiError(410, 'ROUTE_SUNSET', 'This unversioned route is gone. Call it under /v1.');

/** A route's counters, resolved once: label lookups cost more than the counting. */
function measureOf(app: App, route: Route): (status: number, seconds: number) => void {
  const duration = app.metrics.duration.labels({ method: route.method, route: route.path });
  const byStatus = new Map<number, { inc: () => void }>();
  return (status, seconds) => {
    let counter = byStatus.get(status);
    if (!counter) {
      counter = app.metrics.requests.labels({
        method: route.method,
        route: route.path,
        status: String(status),
      });
      byStatus.set(status, counter);
    }
    counter.inc();
    duration.observe(seconds);
  };
}
