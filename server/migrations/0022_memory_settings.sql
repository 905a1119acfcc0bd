-- What a tenant demands of its memories; no row: nothing.
create table memory_settings (
  tenant_id text not null,
  -- Types of memory whose text is always stored encrypted.
  sensitive_types jsonb not null default '[]',
  updated_at timestamptz not null,
  -- When a type was added last: what was stored before is encrypted by a job.
  demanded_at timestamptz,
  -- Texts of such types that were in the clear when the job began, and those it has encrypted.
  found int,
  encrypted int not null default 0,
  completed_at timestamptz,
  -- When what was stored while other processes did not know yet had been encrypted too.
  swept_at timestamptz,
  primary key (tenant_id)
);
select stamp_tenant_table('memory_settings');
create index memory_settings_open on memory_settings (demanded_at) where demanded_at is not null and swept_at is null;
