import { type Static, Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { Identity, IdentityCreate, rolePattern } from '../identity/service.ts';

const Email = T.String({ format: 'email', maxLength: 254 });

export const Invitation = T.Object({
  id: T.String(),
  email: T.String(),
  role: T.String(),
  claims: T.Record(T.String(), T.Unknown()),
  status: T.Union([T.Literal('pending'), T.Literal('accepted'), T.Literal('expired')]),
  is_accepted: T.Boolean(),
  accepted_at: T.Union([T.String(), T.Null()]),
  expires_at: T.String(),
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
  invited_by: T.Union([T.String(), T.Null()]),
});
export type Invitation = Static<typeof Invitation>;

export const InvitationCreate = T.Object(
  {
    email: Email,
    role: T.String({ pattern: rolePattern, description: 'Not above your own' }),
    claims: IdentityCreate.properties.claims,
    expires_in_days: T.Optional(T.Integer({ minimum: 1, maximum: 30, default: 7 })),
  },
  { additionalProperties: false },
);
export type InvitationCreate = Static<typeof InvitationCreate>;

export const InvitationQuery = T.Object(
  { ...pageQuery(100, 1_000), include_accepted: T.Optional(T.Boolean({ default: false })) },
  { additionalProperties: false },
);
export type InvitationQuery = Static<typeof InvitationQuery>;

export const InvitationParams = T.Object({ invitation_id: T.String() });
export const TokenParams = T.Object({ token: T.String() });

export const Done = T.Object({ message: T.String() });

export const ValidInvitation = T.Object({
  valid: T.Literal(true),
  email: T.String(),
  role: T.String(),
  tenant_name: T.String(),
  expires_at: T.String(),
});

export const InvitationAccept = T.Object(
  {
    external_id: T.Optional({
      ...IdentityCreate.properties.external_id,
      description: 'Default: the e-mail address',
    }),
    name: IdentityCreate.properties.name,
  },
  { additionalProperties: false },
);
export type InvitationAccept = Static<typeof InvitationAccept>;

export const InvitationAccepted = T.Object({
  identity: Identity,
  token: T.String({ description: 'The access token, under the name early clients read' }),
  access_token: T.String(),
  refresh_token: T.String(),
  token_type: T.Literal('bearer'),
  expires_in: T.Integer({ description: 'Seconds' }),
});
