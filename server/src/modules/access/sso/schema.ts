import { type Static, Type as T } from 'typebox';
import { rolePattern } from '../identity/service.ts';

const Role = T.String({ pattern: rolePattern });
const Name = T.String({ minLength: 1, maxLength: 128, pattern: '\\S' });
const Issuer = T.String({
  minLength: 1,
  maxLength: 500,
  description: 'https address, as the provider publishes it',
});
const ClientId = T.String({ minLength: 1, maxLength: 500 });
const ClientSecret = T.Union([T.String({ minLength: 1, maxLength: 2_000 }), T.Null()], {
  description: 'Stored encrypted and never shown; left out or null for a public client',
});
// scope-token of RFC 6749, section 3.3
const Scopes = T.Array(T.String({ pattern: '^[!#-\\[\\]-~]{1,200}$' }), { maxItems: 50 });
const Domains = T.Array(T.String({ minLength: 1, maxLength: 253 }), {
  maxItems: 100,
  description: 'Only people with a verified e-mail of one of these; none: everybody the provider knows',
});
const RoleClaim = T.Union([T.String({ minLength: 1, maxLength: 200 }), T.Null()], {
  description: 'Claim of the id token that role_mapping looks at: a text or a list of texts',
});
const RoleMapping = T.Array(
  T.Object(
    { value: T.String({ minLength: 1, maxLength: 300 }), role: Role },
    { additionalProperties: false },
  ),
  { maxItems: 100, description: 'The first entry whose value the claim has gives a new identity its role' },
);

/** What NexusRAG's clients call some fields, and send besides. */
const RoleMappingJson = T.Record(T.String({ maxLength: 300 }), Role, {
  maxProperties: 100,
  description:
    'role_mapping as an object, value: role; looks at the claim `groups` unless role_claim says other',
});
const ByDiscovery = T.Optional(
  T.String({ maxLength: 2_000, description: 'Taken and not used: the issuer publishes its endpoints' }),
);
const namesOfNexusRag = {
  type: T.Optional(
    T.Union([T.Literal('oidc'), T.Literal('saml')], { description: 'oidc; saml is answered with 422' }),
  ),
  client_secret_ref: T.Optional(
    T.String({
      maxLength: 2_000,
      description:
        'Taken and not used: a reference is not resolved. The secret itself is `client_secret`; has_client_secret says whether there is one',
    }),
  ),
  auth_url: ByDiscovery,
  token_url: ByDiscovery,
  jwks_url: ByDiscovery,
  scopes_json: T.Optional(T.Union([Scopes, T.Null()], { description: 'Another name of scopes' })),
  role_mapping_json: T.Optional(T.Union([RoleMappingJson, T.Null()])),
};

export const IdentityProvider = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  type: T.Literal('oidc'),
  name: T.String(),
  issuer: T.String(),
  client_id: T.String(),
  has_client_secret: T.Boolean(),
  scopes: T.Array(T.String()),
  scopes_json: T.Array(T.String()),
  default_role: T.String(),
  allowed_email_domains: T.Array(T.String()),
  jit_enabled: T.Boolean(),
  role_claim: T.Union([T.String(), T.Null()]),
  role_mapping: RoleMapping,
  role_mapping_json: RoleMappingJson,
  enabled: T.Boolean(),
  login_url: T.String({ description: 'Where a sign-in begins' }),
  redirect_uri: T.String({ description: 'To be registered at the provider' }),
  created_at: T.String(),
  updated_at: T.String(),
});
export type IdentityProvider = Static<typeof IdentityProvider>;
export const IdentityProviderList = T.Object({ items: T.Array(IdentityProvider) });

export const IdentityProviderCreate = T.Object(
  {
    id: T.Optional(
      T.String({ minLength: 1, maxLength: 200, description: '1 to 63 of a-z 0-9 -; made when left out' }),
    ),
    name: Name,
    issuer: Issuer,
    client_id: ClientId,
    client_secret: T.Optional(ClientSecret),
    scopes: T.Optional(Scopes),
    default_role: T.Optional(Role),
    allowed_email_domains: T.Optional(Domains),
    jit_enabled: T.Optional(
      T.Boolean({ default: false, description: 'Make identities for people who have none' }),
    ),
    role_claim: T.Optional(RoleClaim),
    role_mapping: T.Optional(RoleMapping),
    enabled: T.Optional(T.Boolean({ default: true })),
    ...namesOfNexusRag,
  },
  { additionalProperties: false },
);
export type IdentityProviderCreate = Static<typeof IdentityProviderCreate>;

const { id: _id, ...changeable } = IdentityProviderCreate.properties;
export const IdentityProviderUpdate = T.Object(
  {
    ...changeable,
    name: T.Optional(Name),
    issuer: T.Optional(Issuer),
    client_id: T.Optional(ClientId),
  },
  { additionalProperties: false },
);
export type IdentityProviderUpdate = Static<typeof IdentityProviderUpdate>;

export const IdentityProviderSecret = T.Object(
  {
    client_secret: T.Optional(T.String({ minLength: 1, maxLength: 2_000 })),
    client_secret_ref: namesOfNexusRag.client_secret_ref,
  },
  { additionalProperties: false },
);
export type IdentityProviderSecret = Static<typeof IdentityProviderSecret>;

export const ProviderIdParams = T.Object({ provider_id: T.String() });

export const ProviderParams = T.Object({
  provider: T.String({ description: '`<tenant>.<provider id>`, or `google` for the installation’s own' }),
});

export const LoginQuery = T.Object(
  {
    return_to: T.Optional(
      T.String({
        maxLength: 2_000,
        description:
          'Page of a front end (SSO_RETURN_TO_ORIGINS) that gets a one-time code instead of tokens',
      }),
    ),
    code_challenge: T.Optional(
      T.String({
        pattern: '^[A-Za-z0-9_-]{43}$',
        description: 'With return_to: BASE64URL(SHA256(code_verifier)), RFC 7636',
      }),
    ),
  },
  { additionalProperties: false },
);
export type LoginQuery = Static<typeof LoginQuery>;

/** What a provider adds of its own is ignored (RFC 6749, section 4.1.2). */
export const CallbackQuery = T.Object(
  {
    state: T.Optional(T.String({ maxLength: 2_000 })),
    code: T.Optional(T.String({ maxLength: 4_000 })),
    error: T.Optional(T.String({ maxLength: 2_000 })),
    iss: T.Optional(T.String({ maxLength: 2_000 })),
  },
  { additionalProperties: true },
);
export type CallbackQuery = Static<typeof CallbackQuery>;

export const SsoExchange = T.Object(
  {
    code: T.String({ maxLength: 500 }),
    code_verifier: T.String({ maxLength: 200, description: '43 to 128 of A-Z a-z 0-9 - . _ ~' }),
  },
  { additionalProperties: false },
);
export type SsoExchange = Static<typeof SsoExchange>;

export const SsoUser = T.Object({
  id: T.String(),
  email: T.Union([T.String(), T.Null()]),
  name: T.Union([T.String(), T.Null()]),
  provider: T.String(),
});
export type SsoUser = Static<typeof SsoUser>;

export const SsoTokens = T.Object({
  access_token: T.String(),
  refresh_token: T.String(),
  token_type: T.Literal('bearer'),
  expires_in: T.Integer({ description: 'Seconds' }),
  user: SsoUser,
});
