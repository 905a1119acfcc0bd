import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { Answer, route } from '#platform/http/route.ts';
import { TenantCreate, TenantParams, TenantResource, TenantUpdate } from './schema.ts';
import { changeTenant, createTenant, deleteTenant, getTenant, tenantPage } from './service.ts';

const tag = 'tenants';
const { limit, cursor } = pageQuery(25, 100);

// No idempotency keys: a tenant's rows are written as that tenant, and an idempotent request is one transaction of the
// caller's own. A repeated POST finds its id taken, a repeated PATCH changes nothing.
export const tenantRoutes = [
  route({
    method: 'GET',
    path: '/v1/admin/tenants',
    name: 'list_tenants',
    summary: 'Tenants of the installation; role system only',
    tag,
    permission: 'tenants:list',
    envelope: true,
    query: T.Object({ limit, cursor }, { additionalProperties: false }),
    response: { 200: T.Array(TenantResource) },
    handler: (ctx, { query }) => tenantPage(ctx, query),
  }),
  route({
    method: 'POST',
    path: '/v1/admin/tenants',
    name: 'create_tenant',
    summary: 'Make a tenant; role system only',
    tag,
    permission: 'tenants:create',
    envelope: true,
    idempotent: false,
    body: TenantCreate,
    response: { 201: TenantResource },
    handler: (ctx, { body }) => createTenant(ctx, body),
  }),
  route({
    method: 'GET',
    path: '/v1/admin/tenants/:tenant_id',
    name: 'get_tenant',
    summary: 'One tenant; role system only',
    tag,
    permission: 'tenants:read',
    envelope: true,
    params: TenantParams,
    response: { 200: TenantResource },
    handler: (ctx, { params }) => getTenant(ctx, params.tenant_id),
  }),
  route({
    method: 'PATCH',
    path: '/v1/admin/tenants/:tenant_id',
    name: 'update_tenant',
    summary: 'Change a tenant: name, plan, or whether its credentials work; role system only',
    tag,
    permission: 'tenants:update',
    envelope: true,
    idempotent: false,
    params: TenantParams,
    body: TenantUpdate,
    response: { 200: TenantResource },
    handler: (ctx, { params, body }) => changeTenant(ctx, params.tenant_id, body),
  }),
  route({
    method: 'DELETE',
    path: '/v1/admin/tenants/:tenant_id',
    name: 'delete_tenant',
    summary: 'Remove a deactivated tenant with all it has, for good; role system only',
    tag,
    permission: 'tenants:delete',
    envelope: true,
    idempotent: false,
    params: TenantParams,
    response: { 202: TenantResource },
    handler: async (ctx, { params }) => new Answer(202, await deleteTenant(ctx, params.tenant_id)),
  }),
];
