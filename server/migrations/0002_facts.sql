-- The ledger: one append-only row for each change, written in the transaction of the change.
create table facts (
  tenant_id text not null,
  id uuid not null,
  -- Order within the tenant, given by the relay after commit; null until then.
  seq bigint,
  type text not null,
  actor_type text not null,
  actor_id text,
  on_behalf_of text,
  resource_type text not null,
  resource_id text,
  outcome text not null default 'success',
  before jsonb,
  after jsonb,
  data jsonb not null default '{}',
  request_id text,
  ip text,
  user_agent text,
  created_at timestamptz not null,
  -- No foreign key to tenants: it would cost each change a third of what its fact costs, and a ledger outlives what it
  -- speaks of.
  primary key (tenant_id, id)
);
-- Append-only: the restricted role can neither change nor delete a fact.
select stamp_tenant_table('facts', 'select, insert');
create index facts_waiting on facts (tenant_id, id) where seq is null;
create unique index facts_in_order on facts (tenant_id, seq) where seq is not null;

-- Per tenant: the last number given, and up to which one jobs have been made.
create table fact_positions (
  tenant_id text not null,
  numbered bigint not null default 0,
  relayed bigint not null default 0,
  primary key (tenant_id)
);
select stamp_tenant_table('fact_positions', 'select');
create index fact_positions_behind on fact_positions (tenant_id) where relayed < numbered;

-- One row for each request that carried an Idempotency-Key.
create table idempotency_keys (
  tenant_id text not null,
  credential text not null,
  method text not null,
  path text not null,
  key text not null,
  request_hash bytea not null,
  -- Who works on it; a claim that ran out belongs to a process that died.
  claim uuid not null,
  claimed_until timestamptz not null,
  status int,
  response bytea,
  headers jsonb,
  request_id text,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (tenant_id, credential, method, path, key)
);
select stamp_tenant_table('idempotency_keys');
create index idempotency_keys_expiry on idempotency_keys (tenant_id, expires_at);
