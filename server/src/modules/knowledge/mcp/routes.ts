import { route } from '#platform/http/route.ts';
import { JsonRpc, ProtectedResource } from './schema.ts';
import { answerMcp, challengeOf, resourceMetadata } from './service.ts';

const tag = 'mcp';

const metadata = (path: string, name: string) =>
  route({
    method: 'GET',
    path,
    name,
    summary: 'What a client of /mcp must know about credentials (RFC 9728)',
    tag,
    public: true,
    localPages: true,
    response: { 200: ProtectedResource },
    handler: async ({ app }) => resourceMetadata(app.config),
  });

/** The Model Context Protocol: memory and knowledge as tools of any client that speaks it. */
export const mcpRoutes = [
  route({
    method: 'POST',
    path: '/mcp',
    name: 'mcp',
    summary: 'Memory and knowledge as tools (Model Context Protocol, streamable HTTP without sessions)',
    tag,
    forwards: true,
    localPages: true,
    routeClass: 'read',
    idempotent: false,
    errors: 'json-rpc',
    challenge: challengeOf,
    textsLater: true,
    produces: 'application/json',
    body: JsonRpc,
    response: { 200: JsonRpc, 202: null },
    handler: (ctx, { raw }) => answerMcp(ctx, raw),
  }),
  metadata('/.well-known/oauth-protected-resource/mcp', 'mcp_protected_resource'),
  metadata('/.well-known/oauth-protected-resource', 'protected_resource'),
];
