-- What a person signs in with: a name and a password, and a second factor.
create table accounts (
  tenant_id text not null,
  identity_id uuid not null,
  username text not null,
  -- The name in one case and one Unicode form: what is compared.
  username_key text not null,
  email text,
  -- Argon2id, or bcrypt from elsewhere until its owner signs in; null: nobody can sign in with a password.
  password_hash text,
  password_changed_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, identity_id),
  unique (tenant_id, username_key),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('accounts');

-- Keyed hashes of user names and e-mail addresses, to find an account by its name when nobody says the tenant.
create table login_names (
  tenant_id text not null,
  name_hash bytea not null,
  identity_id uuid not null,
  created_at timestamptz not null,
  primary key (tenant_id, name_hash, identity_id),
  foreign key (tenant_id, identity_id) references accounts (tenant_id, identity_id) on delete cascade
);
select stamp_tenant_table('login_names');
create index login_names_by_hash on login_names (name_hash, created_at, tenant_id);
create index login_names_by_identity on login_names (tenant_id, identity_id);

-- One live reset an account; a new one takes the place of the old one.
create table password_resets (
  tenant_id text not null,
  identity_id uuid not null,
  token_hash bytea not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (tenant_id, identity_id),
  foreign key (tenant_id, identity_id) references accounts (tenant_id, identity_id) on delete cascade
);
select stamp_tenant_table('password_resets');
create index password_resets_expiry on password_resets (tenant_id, expires_at);

-- What somebody asked to have reset, before it is known whether there is such an account. Of the whole installation: a
-- name that nobody has belongs to no tenant.
create table password_reset_requests (
  id uuid primary key,
  kind text not null check (kind in ('username', 'email')),
  name_hash bytea not null,
  wanted_tenant text,
  ip text,
  user_agent text,
  request_id text not null,
  created_at timestamptz not null
);

-- Attempts to sign in and the like, by a keyed hash of what they were made at: a name, an address, a second factor. Names
-- are counted whether or not anybody has them, so they belong to no tenant. Times are milliseconds since 1970, because
-- a distributed database computes only with what is immutable where rows conflict.
create table attempts (
  key bytea primary key,
  failures int not null,
  last_at bigint not null,
  blocked_until bigint not null,
  -- Until when an address counts as one that its owner signs in from.
  trusted_until bigint not null default 0
);
create index attempts_by_time on attempts (last_at);

-- The second factor of an identity, once it has been verified.
create table mfa_factors (
  tenant_id text not null,
  identity_id uuid not null,
  secret bytea not null,
  -- The newest time step a code was accepted of: neither it nor an older one is accepted again.
  last_step bigint not null,
  setup_at timestamptz not null,
  enabled_at timestamptz not null,
  codes_regenerated_at timestamptz,
  primary key (tenant_id, identity_id),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('mfa_factors');

create table mfa_backup_codes (
  tenant_id text not null,
  identity_id uuid not null,
  code_hash bytea not null,
  primary key (tenant_id, identity_id, code_hash),
  foreign key (tenant_id, identity_id) references mfa_factors (tenant_id, identity_id) on delete cascade
);
select stamp_tenant_table('mfa_backup_codes');

-- A factor that was set up and is not verified yet: its secret and the hashes of its backup codes, sealed.
create table mfa_setups (
  tenant_id text not null,
  identity_id uuid not null,
  id uuid not null,
  sealed bytea not null,
  created_at timestamptz not null,
  primary key (tenant_id, identity_id),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('mfa_setups');
create index mfa_setups_by_time on mfa_setups (tenant_id, created_at);

-- Sign-ins whose second factor is awaited.
create table mfa_challenges (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  token_hash bytea not null,
  first_factor text not null,
  attempts int not null default 0,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id, identity_id) references mfa_factors (tenant_id, identity_id) on delete cascade
);
select stamp_tenant_table('mfa_challenges');
create index mfa_challenges_by_identity on mfa_challenges (tenant_id, identity_id);
create index mfa_challenges_expiry on mfa_challenges (tenant_id, expires_at);
