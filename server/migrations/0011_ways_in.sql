-- Ways into a tenant: invitations by mail, and sign-in by OpenID providers.

-- One row for each invitation. Of its token a keyed hash is kept, and that only as long as it can be used.
create table invitations (
  tenant_id text not null,
  id uuid not null,
  -- As it was written, and in the one form that addresses are compared in.
  email text not null,
  email_key text not null,
  role text not null,
  claims jsonb not null default '{}',
  status text not null check (status in ('pending', 'accepted', 'expired')),
  token_hash bytea,
  expires_in_days int not null,
  expires_at timestamptz not null,
  accepted_at timestamptz,
  -- Who accepted it.
  identity_id uuid,
  invited_by uuid,
  -- Mails of the hour that began then.
  mails_from timestamptz not null,
  mails int not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id) references tenants (tenant_id),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('invitations');
create unique index invitations_pending on invitations (tenant_id, email_key) where status = 'pending';
create index invitations_by_time on invitations (tenant_id, created_at desc, id desc);
create index invitations_by_identity on invitations (tenant_id, identity_id) where identity_id is not null;
create index invitations_expiring on invitations (expires_at) where status = 'pending';

-- OpenID providers a tenant trusts to say who somebody is.
create table identity_providers (
  tenant_id text not null,
  id text not null,
  name text not null,
  issuer text not null,
  client_id text not null,
  -- Sealed; null for a client without one.
  client_secret bytea,
  scopes jsonb not null,
  default_role text not null,
  allowed_email_domains jsonb not null,
  jit_enabled boolean not null,
  role_claim text,
  -- A list, since the first entry that fits counts.
  role_mapping jsonb not null,
  enabled boolean not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id) references tenants (tenant_id)
);
select stamp_tenant_table('identity_providers');

-- Sign-ins under way. The tenant is the provider's; sign-ins by a provider of the installation have none yet and are
-- kept under a name that no tenant can have, so there is no reference to tenants.
create table sso_states (
  tenant_id text not null,
  state_hash bytea not null,
  browser_hash bytea not null,
  provider_id text not null,
  -- Nonce, code verifier and where to return, sealed.
  sealed bytea not null,
  expires_at timestamptz not null,
  primary key (tenant_id, state_hash)
);
select stamp_tenant_table('sso_states');
create index sso_states_expiry on sso_states (expires_at);

-- Codes that a front end turns into tokens once.
create table sso_codes (
  tenant_id text not null,
  code_hash bytea not null,
  identity_id uuid not null,
  -- BASE64URL(SHA256(verifier)), RFC 7636.
  code_challenge text not null,
  -- What is shown of the person, sealed.
  sealed bytea not null,
  expires_at timestamptz not null,
  primary key (tenant_id, code_hash),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('sso_codes');
create index sso_codes_by_identity on sso_codes (tenant_id, identity_id);
create index sso_codes_expiry on sso_codes (expires_at);

-- Which identity somebody is, in the words of an issuer.
create table sso_links (
  tenant_id text not null,
  issuer text not null,
  subject text not null,
  identity_id uuid not null,
  provider_id text not null,
  created_at timestamptz not null,
  primary key (tenant_id, issuer, subject),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('sso_links');
create index sso_links_by_identity on sso_links (tenant_id, identity_id);

-- Identities by the e-mail that was proved to be theirs.
create index identities_by_verified_email on identities (tenant_id, lower(claims ->> 'email'))
  where claims -> 'email_verified' = 'true';
