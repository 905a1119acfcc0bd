import { Type as T } from 'typebox';
import { notFound } from '#platform/errors.ts';
import { type AlsoNeeded, route } from '#platform/http/route.ts';
import { changeIdentity } from './change.ts';
import { bulkDelete, removeIdentity } from './remove.ts';
import {
  Identity,
  IdentityBulkDelete,
  IdentityBulkDeleted,
  IdentityList,
  IdentityParams,
  IdentityUpdate,
  Myself,
} from './schema.ts';
import { type EndCredentials, getIdentity, getMyself, listVisibleIdentities } from './service.ts';

const tag = 'identity';
const toChange: AlsoNeeded[] = [
  { permission: 'identity:read' },
  { permission: 'identity:assign', when: 'to change role, claims, owner or activity' },
];

/** @param endings what ends with the activity of an identity */
export const identityRoutes = (endings: EndCredentials[]) => [
  route({
    method: 'GET',
    path: '/v1/identity/me',
    name: 'get_current_identity',
    summary: 'The identity behind the credential, and who acts for it',
    tag,
    permission: 'identity:read',
    response: { 200: Myself },
    handler: (ctx) => getMyself(ctx),
  }),
  route({
    method: 'PUT',
    path: '/v1/identity/me',
    name: 'update_current_identity',
    summary: 'Change the identity behind the credential',
    tag,
    permission: 'identity:update',
    alsoNeeds: toChange,
    decidesRows: true,
    body: IdentityUpdate,
    response: { 200: Identity },
    handler: async (ctx, { body }) => {
      if (!ctx.actor.identity_id) throw notFound('Identity');
      return changeIdentity(ctx, ctx.actor.identity_id, body, endings);
    },
  }),
  route({
    method: 'POST',
    path: '/v1/identity/bulk-delete',
    name: 'bulk_delete_identities',
    summary: 'Delete many identities',
    tag,
    permission: 'identity:delete',
    alsoNeeds: [{ permission: 'identity:read' }],
    decidesRows: true,
    body: IdentityBulkDelete,
    response: { 200: IdentityBulkDeleted },
    handler: (ctx, { body }) => bulkDelete(ctx, body, endings),
  }),
  route({
    method: 'GET',
    path: '/v1/identity/:identity_id',
    name: 'get_identity',
    summary: 'One identity',
    tag,
    permission: 'identity:read',
    decidesRows: true,
    params: IdentityParams,
    response: { 200: Identity },
    handler: (ctx, { params }) => getIdentity(ctx, params.identity_id),
  }),
  route({
    method: 'PUT',
    path: '/v1/identity/:identity_id',
    name: 'update_identity',
    summary: 'Change an identity',
    tag,
    permission: 'identity:update',
    alsoNeeds: toChange,
    decidesRows: true,
    params: IdentityParams,
    body: IdentityUpdate,
    response: { 200: Identity },
    handler: (ctx, { params, body }) => changeIdentity(ctx, params.identity_id, body, endings),
  }),
  route({
    method: 'DELETE',
    path: '/v1/identity/:identity_id',
    name: 'delete_identity',
    summary: 'Delete an identity: it stops working at once; hard_delete removes it and what it remembered',
    tag,
    permission: 'identity:delete',
    alsoNeeds: [{ permission: 'identity:read' }],
    decidesRows: true,
    params: IdentityParams,
    query: T.Object({ hard_delete: T.Optional(T.Boolean()) }, { additionalProperties: false }),
    response: { 200: T.Object({ message: T.String() }) },
    handler: (ctx, { params, query }) =>
      removeIdentity(ctx, params.identity_id, query.hard_delete ?? false, endings),
  }),
  route({
    method: 'GET',
    path: '/v1/identity/',
    name: 'list_identities',
    summary: 'Identities the caller may see, newest first',
    tag,
    permission: 'identity:list',
    decidesRows: true,
    query: IdentityList,
    response: { 200: T.Array(Identity) },
    handler: (ctx, { query }) => listVisibleIdentities(ctx, query),
  }),
];
