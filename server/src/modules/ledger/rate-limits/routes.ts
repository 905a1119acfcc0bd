import { Type as T } from 'typebox';
import { route } from '#platform/http/route.ts';
import { Level, OwnLevels, Rule, RuleSet } from './schema.ts';
import { clearLevels, levelsOfTenant, ownLevels, removeRule, rulesOfTenant, setRule } from './service.ts';

const tag = 'rate-limits';

export const rateLimitRoutes = [
  route({
    method: 'GET',
    path: '/v1/admin/rate-limits',
    name: 'list_rate_limits',
    summary: 'How full the buckets of the tenant are, the emptiest first',
    tag,
    permission: 'rate_limits:list',
    operation: 'rate_limits:levels',
    response: { 200: T.Array(Level) },
    handler: (ctx) => levelsOfTenant(ctx),
  }),
  route({
    method: 'DELETE',
    path: '/v1/admin/rate-limits',
    name: 'clear_rate_limits',
    summary: "Fill the buckets of the tenant's credentials again",
    tag,
    permission: 'rate_limits:delete',
    operation: 'rate_limits:levels',
    response: { 200: T.Object({ message: T.String(), deleted_count: T.Integer() }) },
    handler: (ctx) => clearLevels(ctx),
  }),
  route({
    method: 'GET',
    path: '/v1/admin/rate-limits/rules',
    name: 'list_rate_limit_rules',
    summary: "Limits that differ from the plan's",
    tag,
    permission: 'rate_limits:list',
    response: { 200: T.Array(Rule) },
    handler: (ctx) => rulesOfTenant(ctx),
  }),
  route({
    method: 'PUT',
    path: '/v1/admin/rate-limits/rules',
    name: 'set_rate_limit_rule',
    summary: 'Limit the tenant, a role, an identity or a credential, more strictly than the plan',
    tag,
    permission: 'rate_limits:update',
    body: RuleSet,
    response: { 200: Rule },
    handler: (ctx, { body }) => setRule(ctx, body),
  }),
  route({
    method: 'DELETE',
    path: '/v1/admin/rate-limits/rules/:rule_id',
    name: 'delete_rate_limit_rule',
    summary: "Go back to the plan's limit",
    tag,
    permission: 'rate_limits:delete',
    decidesRows: true,
    params: T.Object({ rule_id: T.String() }),
    response: { 204: null },
    handler: (ctx, { params }) => removeRule(ctx, params.rule_id),
  }),
  route({
    method: 'GET',
    path: '/v1/monitoring/rate-limits',
    name: 'get_own_rate_limits',
    summary: "The caller's own limits, and what is left of them",
    tag,
    permission: 'monitoring:read',
    query: T.Object(
      {
        endpoint: T.Optional(
          T.Union([T.Literal('read'), T.Literal('mutation'), T.Literal('run'), T.Literal('ops')], {
            description: 'Class of routes to show first; default read',
          }),
        ),
      },
      { additionalProperties: false },
    ),
    response: { 200: OwnLevels },
    handler: (ctx, { query }) => ownLevels(ctx, query.endpoint ?? 'read'),
  }),
];
