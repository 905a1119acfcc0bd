import { type Static, Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';

const Scope = T.String({
  pattern: '^(read|write|admin|\\*|[a-z_]+:([a-z_]+|\\*)|\\*:[a-z_]+)$',
  maxLength: 100,
  description: 'read, write, admin, or resource:action',
});

export const Delegate = T.Object(
  {
    scopes: T.Optional(
      T.Array(Scope, {
        minItems: 1,
        maxItems: 50,
        description: 'What the agent may do at most; default read and write',
      }),
    ),
    expires_in: T.Optional(
      T.Integer({
        minimum: 10,
        maximum: 86_400,
        description: 'Seconds; default 900, at most DELEGATION_TTL_MAX_S',
      }),
    ),
    reason: T.Optional(T.String({ maxLength: 500 })),
  },
  { additionalProperties: false },
);
export type Delegate = Static<typeof Delegate>;

export const tokenTypes = {
  access: 'urn:ietf:params:oauth:token-type:access_token',
  jwt: 'urn:ietf:params:oauth:token-type:jwt',
} as const;
export const exchangeGrant = 'urn:ietf:params:oauth:grant-type:token-exchange';

export const Delegated = T.Object({
  access_token: T.String({
    description: 'Acts for the person, within the scopes, until it expires or is revoked',
  }),
  issued_token_type: T.Literal(tokenTypes.access),
  token_type: T.Literal('Bearer'),
  expires_in: T.Integer({ description: 'Seconds' }),
  scope: T.String({ description: 'Scopes, separated by spaces' }),
  grant_id: T.String(),
});
export type Delegated = Static<typeof Delegated>;

/** RFC 8693, section 2.1. */
export const TokenExchange = T.Object(
  {
    grant_type: T.String({ maxLength: 200, description: exchangeGrant }),
    subject_token: T.Optional(
      T.String({ maxLength: 8_192, description: 'The credential of the person acted for' }),
    ),
    subject_token_type: T.Optional(T.String({ maxLength: 200 })),
    actor_token: T.Optional(
      T.String({
        maxLength: 8_192,
        description: "The agent's credential; unset: the one in the Authorization header",
      }),
    ),
    actor_token_type: T.Optional(T.String({ maxLength: 200 })),
    requested_token_type: T.Optional(T.String({ maxLength: 200 })),
    scope: T.Optional(T.String({ maxLength: 2_000 })),
    audience: T.Optional(T.String({ maxLength: 2_000 })),
    resource: T.Optional(T.String({ maxLength: 2_000 })),
  },
  { additionalProperties: false },
);
export type TokenExchange = Static<typeof TokenExchange>;

export const Grant = T.Object({
  id: T.String(),
  subject_id: T.String({ description: 'The person acted for' }),
  agent_id: T.String({ description: 'The agent that acts' }),
  parent_id: T.Union([T.String(), T.Null()], { description: 'The grant by which its maker acted itself' }),
  scopes: T.Array(T.String()),
  reason: T.Union([T.String(), T.Null()]),
  expires_at: T.String(),
  revoked_at: T.Union([T.String(), T.Null()]),
  created_at: T.String(),
  tenant_id: T.String(),
});
export type Grant = Static<typeof Grant>;

export const GrantList = T.Object(
  {
    ...pageQuery(100, 1_000),
    agent_id: T.Optional(T.String({ maxLength: 100 })),
    subject_id: T.Optional(T.String({ maxLength: 100 })),
    is_active: T.Optional(T.Boolean({ description: 'Default: active ones' })),
  },
  { additionalProperties: false },
);
export type GrantList = Static<typeof GrantList>;

export const Revoked = T.Object({ message: T.String(), revoked_count: T.Integer() });
