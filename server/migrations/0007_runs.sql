-- A conversation; bound to the identity that began it.
create table run_sessions (
  tenant_id text not null,
  id text not null,
  identity_id uuid not null,
  corpus_id text not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, identity_id, id)
);
select stamp_tenant_table('run_sessions');

create table runs (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  session_id text not null,
  corpus_id text not null,
  status text not null check (status in ('running', 'succeeded', 'failed', 'canceled')),
  model text,
  error_code text,
  request_id text,
  -- Moved on while its process lives; a run left 'running' after it belongs to nobody.
  lease_until timestamptz not null,
  created_at timestamptz not null,
  completed_at timestamptz,
  primary key (tenant_id, id)
);
select stamp_tenant_table('runs');
create index runs_by_time on runs (tenant_id, created_at desc, id desc);
create index runs_by_identity on runs (tenant_id, identity_id, created_at desc, id desc);
create index runs_unfinished on runs (lease_until) where status = 'running';
-- One run at a time in a session.
create unique index runs_one_at_a_time on runs (tenant_id, identity_id, session_id) where status = 'running';

create table run_messages (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  session_id text not null,
  run_id uuid not null,
  role text not null check (role in ('user', 'assistant')),
  text text not null,
  citations jsonb not null default '[]',
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
select stamp_tenant_table('run_messages');
create index run_messages_of_run on run_messages (tenant_id, run_id);
create index run_messages_in_session on run_messages (tenant_id, identity_id, session_id, created_at, id);

-- State of the run graph, for our checkpoint saver.
create table run_checkpoints (
  tenant_id text not null,
  thread_id text not null,
  namespace text not null default '',
  id text not null,
  parent_id text,
  checkpoint bytea not null,
  metadata bytea not null,
  created_at timestamptz not null,
  primary key (tenant_id, thread_id, namespace, id)
);
select stamp_tenant_table('run_checkpoints');

create table run_checkpoint_writes (
  tenant_id text not null,
  thread_id text not null,
  namespace text not null default '',
  checkpoint_id text not null,
  task_id text not null,
  position int not null,
  channel text not null,
  value bytea not null,
  primary key (tenant_id, thread_id, namespace, checkpoint_id, task_id, position)
);
select stamp_tenant_table('run_checkpoint_writes');
