-- Agents belong to somebody, and act for people by grants that can be taken back.

-- No foreign key: whoever removes an owner clears this beside it.
alter table identities add column owner_id uuid;
create index identities_by_owner on identities (tenant_id, owner_id) where owner_id is not null;

create table delegations (
  tenant_id text not null,
  id uuid not null,
  -- The person acted for, and the agent that acts.
  subject_id uuid not null,
  agent_id uuid not null,
  -- The grant by which whoever made this one acted itself.
  parent_id uuid,
  -- What it was made with; a grant never outlives that.
  session_id uuid,
  api_key_id uuid,
  scopes jsonb not null,
  reason text,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  created_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id, subject_id) references identities (tenant_id, id) on delete cascade,
  foreign key (tenant_id, agent_id) references identities (tenant_id, id) on delete cascade
);
select stamp_tenant_table('delegations');
create index delegations_by_subject on delegations (tenant_id, subject_id, created_at desc, id desc);
create index delegations_by_agent on delegations (tenant_id, agent_id);
create index delegations_expiry on delegations (expires_at);
