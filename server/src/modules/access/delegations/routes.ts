import { Type as T } from 'typebox';
import { bearerOf } from '#platform/http/credential.ts';
import { Answer, route } from '#platform/http/route.ts';
import { IdentityParams } from '../identity/service.ts';
import { exchangeToken } from './exchange.ts';
import { Delegate, Delegated, Grant, GrantList, Revoked, TokenExchange } from './schema.ts';
import { delegate, getGrant, listVisibleGrants, revokeDelegation, revokeDelegationsOf } from './service.ts';

const tag = 'delegations';
const params = T.Object({ grant_id: T.String() });
/** RFC 6749, section 5.1. */
const notKept = { 'cache-control': 'no-store' };

export const delegationRoutes = [
  route({
    method: 'POST',
    path: '/v1/identity/:identity_id/delegate',
    name: 'delegate',
    summary: 'Let an agent act for you for a while, within scopes; the token is handed to the agent',
    tag,
    permission: 'delegations:create',
    decidesRows: true,
    params: IdentityParams,
    body: Delegate,
    bodyOptional: true,
    response: { 200: Delegated },
    handler: async (ctx, { params, body }) =>
      new Answer(200, await delegate(ctx, params.identity_id, body), notKept),
  }),
  route({
    method: 'POST',
    path: '/v1/oauth/token',
    name: 'exchange_token',
    summary: "An agent exchanges a person's token and its own for one that acts for the person (RFC 8693)",
    tag,
    public: true,
    readsBearer: true,
    errors: 'oauth',
    consumes: 'application/x-www-form-urlencoded',
    body: TokenExchange,
    response: { 200: Delegated },
    handler: async (ctx, { body, raw }) =>
      new Answer(200, await exchangeToken(ctx, body, bearerOf(raw) ?? ''), notKept),
  }),
  route({
    method: 'GET',
    path: '/v1/delegations',
    name: 'list_delegations',
    summary: 'By which agents act for you (for admins: for anybody), newest first',
    tag,
    permission: 'delegations:list',
    decidesRows: true,
    query: GrantList,
    response: { 200: T.Array(Grant) },
    handler: (ctx, { query }) => listVisibleGrants(ctx, query),
  }),
  route({
    method: 'GET',
    path: '/v1/delegations/:grant_id',
    name: 'get_delegation',
    summary: 'One delegation',
    tag,
    permission: 'delegations:read',
    decidesRows: true,
    params,
    response: { 200: Grant },
    handler: (ctx, { params }) => getGrant(ctx, params.grant_id),
  }),
  route({
    method: 'DELETE',
    path: '/v1/delegations/:grant_id',
    name: 'revoke_delegation',
    summary: 'Take a delegation back, and all that were made from it; in force at once',
    tag,
    permission: 'delegations:delete',
    decidesRows: true,
    params,
    response: { 204: null },
    handler: (ctx, { params }) => revokeDelegation(ctx, params.grant_id),
  }),
  route({
    method: 'DELETE',
    path: '/v1/identity/:identity_id/delegations',
    name: 'revoke_delegations_of',
    summary: 'Take back every delegation that an identity gave, or was given as an agent',
    tag,
    permission: 'delegations:delete',
    decidesRows: true,
    params: IdentityParams,
    response: { 200: Revoked },
    handler: async (ctx, { params }) => {
      const count = await revokeDelegationsOf(ctx, params.identity_id);
      return { message: `Revoked ${count} delegations`, revoked_count: count };
    },
  }),
];
