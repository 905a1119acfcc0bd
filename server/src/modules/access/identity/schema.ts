import { type Static, Type as T } from 'typebox';

export const rolePattern = '^[a-z][a-z0-9_-]{0,99}$';
const Claims = T.Record(T.String({ maxLength: 200 }), T.Unknown(), { maxProperties: 100 });
const ExternalId = T.String({ minLength: 1, maxLength: 255 });
const Role = T.String({
  pattern: rolePattern,
  description: 'admin, editor, reader, agent, user, or a role of your own',
});

export const Identity = T.Object({
  id: T.String(),
  external_id: T.String(),
  role: T.String(),
  name: T.Union([T.String(), T.Null()]),
  description: T.Union([T.String(), T.Null()]),
  claims: T.Record(T.String(), T.Unknown()),
  is_active: T.Boolean(),
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
});
export type Identity = Static<typeof Identity>;

export const IdentityCreate = T.Object(
  {
    external_id: ExternalId,
    role: Role,
    claims: T.Optional(Claims),
    name: T.Optional(T.String({ maxLength: 255 })),
    description: T.Optional(T.String({ maxLength: 2_000 })),
    is_active: T.Optional(T.Boolean()),
  },
  { additionalProperties: false },
);
export type IdentityCreate = Static<typeof IdentityCreate>;

export const IdentityCreated = T.Object({
  access_token: T.String(),
  refresh_token: T.String(),
  token_type: T.Literal('bearer'),
  expires_in: T.Integer({ description: 'Seconds' }),
  identity: Identity,
});

export const IdentityParams = T.Object({ identity_id: T.String() });
