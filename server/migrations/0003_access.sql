-- Who may do what: identities, their sessions and keys, and policies.
create table identities (
  tenant_id text not null,
  id uuid not null,
  external_id text not null,
  role text not null,
  name text,
  description text,
  claims jsonb not null default '{}',
  is_active boolean not null default true,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  unique (tenant_id, external_id),
  foreign key (tenant_id) references tenants (tenant_id)
);
select stamp_tenant_table('identities');
create index identities_by_time on identities (tenant_id, created_at desc, id desc);

create table sessions (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  refresh_hash bytea not null,
  device_info jsonb not null default '{}',
  ip_address text,
  user_agent text,
  is_active boolean not null default true,
  expires_at timestamptz not null,
  last_used_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('sessions');
create index sessions_by_identity on sessions (tenant_id, identity_id);

create table api_keys (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  name text not null,
  secret_hash bytea not null,
  scopes jsonb not null default '[]',
  is_active boolean not null default true,
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id, identity_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('api_keys');
create index api_keys_by_identity on api_keys (tenant_id, identity_id);

create table policies (
  tenant_id text not null,
  id uuid not null,
  role text not null,
  rule jsonb not null,
  effect text not null default 'allow' check (effect in ('allow', 'deny')),
  priority int not null default 0,
  is_active boolean not null default true,
  description text,
  code text,
  message text,
  rule_key text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id) references tenants (tenant_id)
);
select stamp_tenant_table('policies');
