import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { Type as T } from 'typebox';
import type { App, Permission } from '../context.ts';
import { type AlsoNeeded, operationIdOf, type Route, takesIdempotencyKey } from './route.ts';

/** Shape of every error answer. */
export const ErrorBody = T.Object({
  error: T.Object({
    code: T.String(),
    message: T.String(),
    details: T.Optional(T.Record(T.String(), T.Unknown())),
  }),
  meta: T.Object({ request_id: T.String(), api_version: T.String() }),
});

/** What the published contract says of a route beyond its schemas. */
export function describe(route: Route): Record<string, unknown> {
  return {
    operationId: operationIdOf(route),
    summary: route.summary,
    ...(route.permission ? { description: needsOf(route.permission, route.alsoNeeds) } : {}),
    tags: [route.tag],
    ...(route.hidden ? { hide: true } : {}),
    ...(route.public ? { security: securityOf(route) } : {}),
    ...(route.consumes ? { consumes: [route.consumes] } : {}),
    ...(route.headers ? { 'x-headers': route.headers } : {}),
    ...(route.permission ? { 'x-permission': route.permission } : {}),
    ...(route.alsoNeeds ? { 'x-also-permissions': route.alsoNeeds } : {}),
    ...(takesIdempotencyKey(route) ? { 'x-idempotent': true } : {}),
  };
}

function needsOf(permission: Permission, others: AlsoNeeded[] = []): string {
  const always = [permission, ...others.filter(({ when }) => !when).map((other) => other.permission)];
  const named = always.map((one) => `\`${one}\``).join(' and ');
  const sometimes = others.flatMap((other) =>
    other.when ? [`; ${other.when} also \`${other.permission}\``] : [],
  );
  return `Needs the permission${always.length > 1 ? 's' : ''} ${named}${sometimes.join('')}.`;
}

/** What a public route takes, of which nothing is needed. */
function securityOf({ public: isPublic, readsBearer }: Route): Record<string, string[]>[] {
  if (isPublic === 'optional') return [{}, { bearer: [] }, { apiKey: [] }];
  return readsBearer ? [{}, { bearer: [] }] : [];
}

/** Serves the contract at /v1/openapi.json and its pages at /v1/docs. Register before the routes. */
export async function registerOpenApi(app: App, server: FastifyInstance): Promise<void> {
  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Manushya',
        version: app.config.version,
        description:
          'Identity, memory and knowledge for AI agents and the people behind them, under one set of rules.',
        license: { name: 'MIT' },
      },
      servers: [{ url: '/' }],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer', description: 'An access token (JWT) or an API key' },
          apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
        },
      },
      security: [{ bearer: [] }, { apiKey: [] }],
    },
  });
  await server.register(swaggerUi, {
    routePrefix: '/v1/docs',
    uiConfig: { persistAuthorization: true },
    staticCSP: true,
    // Over http its own scripts would be asked for over https.
    transformStaticCSP: (policy) =>
      policy
        .replace(' upgrade-insecure-requests;', '')
        .replace("frame-ancestors 'self'", "frame-ancestors 'none'"),
  });
  server.get('/v1/openapi.json', { schema: { hide: true } }, () => openApiDocument(server));
}

interface Operation {
  parameters?: { name: string; in: string }[];
  responses?: Record<string, unknown>;
  requestBody?: unknown;
  'x-idempotent'?: boolean;
  'x-headers'?: Record<string, string>;
}

const documents = new WeakMap<FastifyInstance, object>();

/** The contract as one object: the routes' own schemas, plus what holds for all of them. */
export function openApiDocument(server: FastifyInstance): object {
  const known = documents.get(server);
  if (known) return known;
  const document = JSON.parse(JSON.stringify(server.swagger())) as {
    paths: Record<string, Record<string, Operation>>;
    components: { schemas?: Record<string, unknown> };
  };
  document.components.schemas = {
    ...document.components.schemas,
    Error: JSON.parse(JSON.stringify(ErrorBody)),
  };
  const error = {
    description: 'Refused',
    content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
  };
  for (const operations of Object.values(document.paths)) {
    for (const operation of Object.values(operations)) {
      operation.responses = { ...operation.responses, '4XX': error, '5XX': error };
      for (const [name, description] of Object.entries(operation['x-headers'] ?? {})) {
        const parameter = { name, in: 'header', required: false, description, schema: { type: 'string' } };
        operation.parameters = [...(operation.parameters ?? []), parameter];
      }
      delete operation['x-headers'];
      if (operation['x-idempotent']) {
        operation.parameters = [
          ...(operation.parameters ?? []),
          {
            name: 'Idempotency-Key',
            in: 'header',
            required: false,
            description:
              'Names the request for 24 hours: sent again it is not done again. Needs a credential',
            schema: { type: 'string', maxLength: 128 },
          } as never,
        ];
      }
    }
  }
  documents.set(server, document);
  return document;
}
