-- The mechanism of tenancy: who a statement runs for, and the stamp that every tenant table gets.

-- Enters a tenant for the rest of the transaction. The only way a tenant is set; a distributed database gets another body.
-- In SQL, so that it is inlined. What is not a tenant id matches no row, because no row has such a one.
create function enter(tenant text) returns text language sql as $$ select set_config('app.tenant_id', tenant, true) $$;

-- Stamps a tenant table: forced row-level security that shows the restricted role the entered tenant only, the
-- operator's own policy (the owner need not be able to bypass row-level security), and the grants.
create function stamp_tenant_table(name regclass, privileges text default 'select, insert, update, delete') returns void
language plpgsql as $$
begin
  execute format('alter table %s enable row level security', name);
  execute format('alter table %s force row level security', name);
  execute format(
    'create policy tenant_isolation on %s to :app_role using (tenant_id = current_setting(''app.tenant_id'', true)) with check (tenant_id = current_setting(''app.tenant_id'', true))',
    name);
  execute format('create policy operator on %s to current_user using (true) with check (true)', name);
  execute format('grant %s on %s to :app_role', privileges, name);
end $$;

revoke all on function stamp_tenant_table(regclass, text) from public;

create table tenants (
  tenant_id text not null check (tenant_id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  name text not null,
  plan text check (plan in ('free', 'pro', 'enterprise')),
  is_active boolean not null default true,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id)
);
select stamp_tenant_table('tenants');

-- Keys that sign access tokens, for the whole installation; the private half is encrypted. Only the operator reads them.
create table signing_keys (
  kid text primary key,
  algorithm text not null,
  public_jwk jsonb not null,
  private_jwk bytea not null,
  created_at timestamptz not null,
  retired_at timestamptz
);
