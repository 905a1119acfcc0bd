-- Limits of a tenant that differ from its plan's.
create table rate_limit_rules (
  tenant_id text not null,
  id uuid not null,
  scope text not null check (scope in ('tenant', 'role', 'identity', 'credential')),
  -- Role, identity or credential; empty for the tenant as a whole.
  subject text not null,
  -- A class of routes, or an operation.
  endpoint text not null,
  burst int not null check (burst >= 0),
  window_seconds int not null check (window_seconds > 0),
  -- Made by the operator of the installation: may be wider than the plan, and a tenant can not take it away.
  is_operator boolean not null default false,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  unique (tenant_id, scope, subject, endpoint, is_operator)
);
select stamp_tenant_table('rate_limit_rules');
