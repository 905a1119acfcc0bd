-- Mails on their way. What they say is sealed, since it may hold a token that is shown once; a mail that was sent is gone.
create table mails (
  tenant_id text not null,
  id uuid not null,
  kind text not null,
  sealed bytea,
  status text not null check (status in ('queued', 'failed')),
  failure_reason text,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
select stamp_tenant_table('mails');
create index mails_unsent on mails (created_at) where status = 'queued';
