import { type Static, Type as T } from 'typebox';
import { operationNames, routeClasses } from './table.ts';

const Scope = T.Union(
  [T.Literal('tenant'), T.Literal('role'), T.Literal('identity'), T.Literal('credential')],
  {
    description:
      'Who is limited: the tenant as a whole, or each credential of a role or identity, or one credential',
  },
);
const Endpoint = T.Union(
  [...routeClasses, ...operationNames].map((name) => T.Literal(name)),
  { description: 'A class of routes, or an operation' },
);

export const RuleSet = T.Object(
  {
    scope: Scope,
    subject: T.Optional(T.String({ maxLength: 100, description: 'Role, identity id or credential id' })),
    endpoint: Endpoint,
    limit: T.Integer({ minimum: 0, maximum: 10_000_000, description: 'Requests at once' }),
    window_seconds: T.Integer({
      minimum: 1,
      maximum: 86_400,
      description: 'Time after which an empty bucket is full again',
    }),
  },
  { additionalProperties: false },
);
export type RuleSet = Static<typeof RuleSet>;

export const Rule = T.Object({
  id: T.String(),
  scope: Scope,
  subject: T.Union([T.String(), T.Null()]),
  endpoint: T.String(),
  limit: T.Integer(),
  window_seconds: T.Integer(),
  is_operator: T.Boolean({ description: 'Set by the operator of the installation' }),
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
});
export type Rule = Static<typeof Rule>;

/** How full one bucket is. */
export const Level = T.Object({
  client_key: T.String({ description: 'The credential, or the tenant' }),
  scope: T.Union([T.Literal('api_key'), T.Literal('tenant'), T.Literal('operation')]),
  endpoint: T.String({ description: 'A class of routes, or an operation' }),
  limit: T.Integer(),
  remaining: T.Integer(),
  used: T.Integer(),
  reset_time: T.Integer({ description: 'When it is full again, seconds since 1970' }),
  window_seconds: T.Integer(),
});
export type Level = Static<typeof Level>;

export const OwnLevels = T.Object({ ...Level.properties, limits: T.Array(Level) });
