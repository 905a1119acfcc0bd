-- Policies as they are managed: versions, stored tests, the form they were written in; and the decisions they took.
alter table policies add column version int not null default 1;
alter table policies add column tests jsonb not null default '[]';
-- The originals' forms are kept as they were written: {form: governance, condition_json, action_json} | {form: statement, rule}.
alter table policies add column written_as jsonb;
create index policies_in_order on policies (tenant_id, role, priority desc, id);

-- One row for each change. A deleted policy keeps its versions, so that it can be brought back.
create table policy_versions (
  tenant_id text not null,
  policy_id uuid not null,
  version int not null,
  change text not null check (change in ('created', 'updated', 'deleted', 'rolled_back')),
  content jsonb not null,
  reason text,
  actor_type text not null,
  actor_id text not null,
  on_behalf_of text,
  request_id text,
  created_at timestamptz not null,
  primary key (tenant_id, policy_id, version)
);
select stamp_tenant_table('policy_versions', 'select, insert');
insert into policy_versions (tenant_id, policy_id, version, change, content, actor_type, actor_id, created_at)
  select tenant_id, id, 1, 'created',
    jsonb_build_object('role', role, 'rule', rule, 'effect', effect, 'priority', priority, 'is_active', is_active,
      'description', description, 'code', code, 'message', message, 'rule_key', rule_key, 'tests', '[]'::jsonb,
      'written_as', null),
    'system', 'system', created_at
  from policies;

-- Distinct questions of a tenant and how they were decided last. No reference to tenants: it is written off the request
-- path, and may be about a tenant that is gone by then.
create table policy_decisions (
  tenant_id text not null,
  hash bytea not null,
  question jsonb not null,
  allowed boolean not null,
  policy_id text,
  reason text not null,
  count bigint not null,
  ip text,
  first_seen timestamptz not null,
  last_seen timestamptz not null,
  primary key (tenant_id, hash)
);
select stamp_tenant_table('policy_decisions');
create index policy_decisions_by_time on policy_decisions (tenant_id, last_seen desc);
