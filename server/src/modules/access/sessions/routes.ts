import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { Answer, route } from '#platform/http/route.ts';
import { cleanUpSessions } from './cleanup.ts';
import { refreshSession } from './refresh.ts';
import {
  RefreshRequest,
  Session,
  SessionParams,
  SessionsCleaned,
  SessionsRevoked,
  SessionTested,
  Tokens,
} from './schema.ts';
import { getSession, listVisibleSessions, revokeAllSessions, revokeSession, testSession } from './service.ts';
import { publishedForS, publishedKeys } from './signing-keys.ts';

const tag = 'sessions';
const IdentityOf = T.Optional(T.String({ description: 'Of this identity; default: of the caller' }));

export const sessionRoutes = [
  route({
    method: 'POST',
    path: '/v1/sessions/refresh',
    name: 'refresh_session',
    summary: 'Spend a refresh token for a new one and an access token',
    tag,
    public: true,
    // A repeat within ten seconds gets the same token; later it is a replay, whatever key it carries.
    idempotent: false,
    body: RefreshRequest,
    response: { 200: Tokens },
    handler: (ctx, { body }) => refreshSession(ctx, body.refresh_token),
  }),
  route({
    method: 'GET',
    path: '/v1/sessions/',
    name: 'list_sessions',
    summary: 'Living sessions, last used first',
    tag,
    permission: 'sessions:list',
    decidesRows: true,
    query: T.Object({ ...pageQuery(100, 1_000), identity_id: IdentityOf }, { additionalProperties: false }),
    response: { 200: T.Array(Session) },
    handler: (ctx, { query }) => listVisibleSessions(ctx, query),
  }),
  route({
    method: 'GET',
    path: '/v1/sessions/:session_id',
    name: 'get_session',
    summary: 'One session',
    tag,
    permission: 'sessions:read',
    decidesRows: true,
    params: SessionParams,
    response: { 200: Session },
    handler: (ctx, { params }) => getSession(ctx, params.session_id),
  }),
  route({
    method: 'DELETE',
    path: '/v1/sessions/:session_id',
    name: 'revoke_session',
    summary: 'End a session: its tokens are refused at once, everywhere',
    tag,
    permission: 'sessions:delete',
    decidesRows: true,
    params: SessionParams,
    response: { 204: null },
    handler: (ctx, { params }) => revokeSession(ctx, params.session_id),
  }),
  route({
    method: 'DELETE',
    path: '/v1/sessions/',
    name: 'revoke_all_sessions',
    summary: 'End all sessions of the caller, the current one as well',
    tag,
    permission: 'sessions:delete',
    decidesRows: true,
    query: T.Object({ identity_id: IdentityOf }, { additionalProperties: false }),
    response: { 200: SessionsRevoked },
    handler: (ctx, { query }) => revokeAllSessions(ctx, query.identity_id),
  }),
  route({
    method: 'POST',
    path: '/v1/sessions/cleanup',
    name: 'cleanup_sessions',
    summary: 'Remove sessions of the tenant that ended long ago',
    tag,
    permission: 'sessions:delete',
    response: { 200: SessionsCleaned },
    handler: (ctx) => cleanUpSessions(ctx),
  }),
  route({
    method: 'POST',
    path: '/v1/sessions/test',
    name: 'test_session',
    summary: 'Who is signed in',
    tag,
    // Any session may ask, whatever its role may do else; without one the answer is 401.
    public: 'optional',
    routeClass: 'read',
    idempotent: false,
    response: { 200: SessionTested },
    handler: (ctx) => testSession(ctx),
  }),
  route({
    method: 'GET',
    path: '/.well-known/jwks.json',
    name: 'jwks',
    summary: 'Public keys of access tokens (RFC 7517), with the one that signs next',
    tag,
    public: true,
    response: { 200: T.Object({ keys: T.Array(T.Record(T.String(), T.Unknown())) }) },
    handler: async ({ app }) =>
      new Answer(200, await publishedKeys(app), {
        'cache-control': `public, max-age=${publishedForS(app)}`,
      }),
  }),
];
