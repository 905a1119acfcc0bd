import { Type as T } from 'typebox';
import { notFound } from '#platform/errors.ts';
import { page, pageQuery, positionOf } from '#platform/http/pages.ts';
import { route } from '#platform/http/route.ts';
import { Identity, IdentityParams } from './schema.ts';
import { getIdentity } from './service.ts';
import { findIdentity, listIdentities } from './store.ts';

export const identityRoutes = [
  route({
    method: 'GET',
    path: '/v1/identity/me',
    name: 'get_current_identity',
    summary: 'The identity behind the credential',
    tag: 'identity',
    permission: 'identity:read',
    response: { 200: Identity },
    handler: async (ctx) => {
      const identity = ctx.actor.identity_id ? await findIdentity(ctx.db, ctx.actor.identity_id) : undefined;
      if (!identity) throw notFound('Identity');
      return identity;
    },
  }),
  route({
    method: 'GET',
    path: '/v1/identity/:identity_id',
    name: 'get_identity',
    summary: 'One identity',
    tag: 'identity',
    permission: 'identity:read',
    params: IdentityParams,
    response: { 200: Identity },
    handler: async (ctx, { params }) => getIdentity(ctx, params.identity_id),
  }),
  route({
    method: 'GET',
    path: '/v1/identity/',
    name: 'list_identities',
    summary: 'Identities of the tenant, newest first',
    tag: 'identity',
    permission: 'identity:list',
    query: T.Object(
      {
        ...pageQuery(100, 1_000),
        role: T.Optional(T.String({ maxLength: 100 })),
        is_active: T.Optional(T.Boolean({ description: 'Default: active ones' })),
      },
      { additionalProperties: false },
    ),
    response: { 200: T.Array(Identity) },
    handler: async (ctx, { query }) => {
      const { limit = 100, skip = 0, cursor } = query;
      const filter = { role: query.role, is_active: query.is_active ?? true };
      const after = positionOf(ctx, 'identities', filter, cursor) as [string, string] | undefined;
      const rows = await listIdentities(ctx.db, filter, after, skip, limit);
      return page(ctx, 'identities', filter, rows, limit, (row) => [row.created_at, row.id]);
    },
  }),
];
