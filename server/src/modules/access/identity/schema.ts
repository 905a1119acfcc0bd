import { type Static, Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';

export const rolePattern = '^[a-z][a-z0-9_-]{0,99}$';
const Claims = T.Record(T.String({ maxLength: 200 }), T.Unknown(), { maxProperties: 100 });
const ExternalId = T.String({ minLength: 1, maxLength: 255, pattern: '\\S' });
const Role = T.String({
  pattern: rolePattern,
  description: 'admin, editor, reader, agent, user, or a role of your own',
});
const OwnerId = T.Union([T.String({ maxLength: 100 }), T.Null()], {
  description: 'The identity an agent belongs to',
});
const Name = T.String({ minLength: 1, maxLength: 255, pattern: '\\S' });
const Description = T.String({ maxLength: 2_000 });

export const Identity = T.Object({
  id: T.String(),
  external_id: T.String(),
  role: T.String(),
  name: T.Union([T.String(), T.Null()]),
  description: T.Union([T.String(), T.Null()]),
  claims: T.Record(T.String(), T.Unknown()),
  owner_id: T.Union([T.String(), T.Null()], { description: 'The identity an agent belongs to' }),
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
    name: T.Optional(Name),
    description: T.Optional(Description),
    owner_id: T.Optional(OwnerId),
    is_active: T.Optional(T.Boolean()),
  },
  { additionalProperties: false },
);
export type IdentityCreate = Static<typeof IdentityCreate>;

export const IdentityCreated = T.Union([
  T.Object({
    access_token: T.String(),
    refresh_token: T.String(),
    token_type: T.Literal('bearer'),
    expires_in: T.Integer({ description: 'Seconds' }),
    identity: Identity,
  }),
  T.Object({ identity: Identity }, { description: 'One that is not active: it has no session' }),
]);

export const IdentityUpdate = T.Object(
  {
    external_id: T.Optional(ExternalId),
    role: T.Optional(Role),
    claims: T.Optional(Claims),
    name: T.Optional(T.Union([Name, T.Null()])),
    description: T.Optional(T.Union([Description, T.Null()])),
    owner_id: T.Optional(OwnerId),
    is_active: T.Optional(T.Boolean()),
  },
  { additionalProperties: false },
);
export type IdentityUpdate = Static<typeof IdentityUpdate>;

export const IdentityList = T.Object(
  {
    ...pageQuery(100, 1_000),
    role: T.Optional(T.String({ maxLength: 100 })),
    is_active: T.Optional(T.Boolean({ description: 'Default: active ones' })),
  },
  { additionalProperties: false },
);
export type IdentityList = Static<typeof IdentityList>;

export const IdentityParams = T.Object({ identity_id: T.String() });

export const Myself = T.Object({
  ...Identity.properties,
  delegation: T.Optional(
    T.Object(
      {
        grant_id: T.String(),
        agents: T.Array(T.Object({ id: T.String(), external_id: T.String(), role: T.String() })),
        scopes: T.Array(T.Array(T.String())),
      },
      {
        description:
          'Who acts for this identity, the one that calls first; each grant allows what its scopes cover',
      },
    ),
  ),
});
export type Myself = Static<typeof Myself>;

export const IdentityBulkDelete = T.Object(
  {
    identity_ids: T.Array(T.String({ maxLength: 100 }), { minItems: 1, maxItems: 1_000 }),
    hard_delete: T.Optional(T.Boolean()),
    reason: T.Optional(T.String({ maxLength: 500 })),
  },
  { additionalProperties: false },
);
export type IdentityBulkDelete = Static<typeof IdentityBulkDelete>;

export const IdentityBulkDeleted = T.Object({
  deleted_count: T.Integer(),
  failed_count: T.Integer(),
  failed_identities: T.Array(
    T.Object({ identity_id: T.String(), error: T.String(), external_id: T.Optional(T.String()) }),
  ),
  message: T.String(),
});
export type IdentityBulkDeleted = Static<typeof IdentityBulkDeleted>;
