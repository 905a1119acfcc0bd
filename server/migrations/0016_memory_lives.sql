-- How memories live: what they were, what they are sealed with, how they come in from files, and how they go for good.

-- Keys of a tenant, wrapped by one derived from ENCRYPTION_KEY. Those that seal are rotated. The one that hashes stays as
-- long as the tenant, since what it hashed could not be compared any more; it is only wrapped anew.
create table data_keys (
  tenant_id text not null,
  id uuid not null,
  purpose text not null check (purpose in ('seal', 'hash')),
  wrapped bytea not null,
  -- Names the key it is wrapped with.
  wrapped_by text not null,
  created_at timestamptz not null,
  -- From then on it only opens. It is removed when nothing refers to it: the foreign keys below keep it that long.
  retired_at timestamptz,
  primary key (tenant_id, id)
);
select stamp_tenant_table('data_keys');
create unique index data_keys_in_use on data_keys (tenant_id, purpose) where retired_at is null;

-- Of a sensitive memory: its text, encrypted. `text` is empty then, and so are its term weights.
alter table memories add column sealed bytea;
alter table memories add column key_id uuid;
-- Of a memory that was made from others: from which, and how.
alter table memories add column derived_from jsonb;
alter table memories add column inference_status text
  check (inference_status in ('pending', 'succeeded', 'failed', 'unavailable'));
alter table memories add foreign key (tenant_id, key_id) references data_keys (tenant_id, id);
create index memories_by_key on memories (tenant_id, key_id) where key_id is not null;
create index memories_deleted on memories (tenant_id, id, deleted_at) where deleted_at is not null;

-- What a memory was before each change.
create table memory_versions (
  tenant_id text not null,
  memory_id uuid not null,
  version int not null,
  text text not null,
  sealed bytea,
  key_id uuid,
  type text not null,
  metadata jsonb not null,
  session_id text,
  role text,
  occurred_at timestamptz,
  ttl_days int,
  expires_at timestamptz,
  valid_from timestamptz not null,
  -- When it was replaced; of one that was deleted and restored, when it was deleted.
  valid_until timestamptz not null,
  -- Who replaced it, how, and in which request.
  replaced_by_type text,
  replaced_by text,
  on_behalf_of text,
  request_id text,
  change text not null,
  primary key (tenant_id, memory_id, version),
  foreign key (tenant_id, key_id) references data_keys (tenant_id, id)
);
select stamp_tenant_table('memory_versions');
create index memory_versions_by_key on memory_versions (tenant_id, key_id) where key_id is not null;

-- Which memories were made from which: whoever erases one erases what it became.
create table memory_derivations (
  tenant_id text not null,
  source_id uuid not null,
  memory_id uuid not null,
  primary key (tenant_id, source_id, memory_id)
);
select stamp_tenant_table('memory_derivations');
create index memory_derivations_of on memory_derivations (tenant_id, memory_id);

-- Texts that facts are to be inferred from: the row is the work, and gone when it is done.
create table memory_inferences (
  tenant_id text not null,
  id uuid not null,
  actor jsonb not null,
  source_ids jsonb not null,
  request_id text not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
select stamp_tenant_table('memory_inferences');
create index memory_inferences_waiting on memory_inferences (created_at);

create table memory_imports (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  -- Who acts, as it was when the file came.
  actor jsonb not null,
  options jsonb not null,
  status text not null check (status in ('uploading', 'queued', 'processing', 'succeeded', 'failed', 'canceled')),
  upload_key text,
  received_bytes bigint not null default 0,
  received_lines bigint not null default 0,
  -- Chunks stored, and the next one to be worked on.
  chunk_count int not null default 0,
  next_chunk int not null default 0,
  processed bigint not null default 0,
  created bigint not null default 0,
  updated bigint not null default 0,
  unchanged bigint not null default 0,
  failed bigint not null default 0,
  errors jsonb not null default '[]',
  failure_code text,
  request_id text not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  completed_at timestamptz,
  primary key (tenant_id, id)
);
select stamp_tenant_table('memory_imports');
create index memory_imports_by_owner on memory_imports (tenant_id, identity_id, id);
create unique index memory_imports_once on memory_imports (tenant_id, identity_id, upload_key) where upload_key is not null;
create index memory_imports_open on memory_imports (updated_at) where status in ('uploading', 'queued', 'processing');

-- The file, in pieces of whole lines, encrypted; each is gone when its lines are stored.
create table memory_import_chunks (
  tenant_id text not null,
  import_id uuid not null,
  position int not null,
  first_line bigint not null,
  lines int not null,
  sealed bytea not null,
  key_id uuid not null,
  primary key (tenant_id, import_id, position),
  foreign key (tenant_id, key_id) references data_keys (tenant_id, id)
);
select stamp_tenant_table('memory_import_chunks');
alter table memory_import_chunks alter column sealed set storage external;

-- What a line of a file was called where it came from, so that the same file makes nothing twice.
create table memory_sources (
  tenant_id text not null,
  identity_id uuid not null,
  source_id text not null,
  memory_id uuid not null,
  primary key (tenant_id, identity_id, source_id)
);
select stamp_tenant_table('memory_sources');
create index memory_sources_of on memory_sources (tenant_id, memory_id);

create table memory_erasures (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid,
  actor jsonb not null,
  -- What is to be erased; null once it is.
  criteria jsonb,
  reason text,
  status text not null check (status in ('running', 'completed')),
  -- The last memory looked at.
  position uuid,
  counts jsonb not null default '{}',
  receipt jsonb,
  request_id text not null,
  created_at timestamptz not null,
  completed_at timestamptz,
  -- When what was learned while other processes did not know yet had been erased too.
  swept_at timestamptz,
  primary key (tenant_id, id)
);
select stamp_tenant_table('memory_erasures');
create index memory_erasures_open on memory_erasures (created_at) where swept_at is null;

create table memory_erased (
  tenant_id text not null,
  erasure_id uuid not null,
  memory_id uuid not null,
  hash bytea not null,
  is_derived boolean not null,
  primary key (tenant_id, erasure_id, memory_id)
);
select stamp_tenant_table('memory_erased');

-- Texts that are not to be learned again, as keyed hashes.
create table memory_tombstones (
  tenant_id text not null,
  identity_id uuid not null,
  hash bytea not null,
  erasure_id uuid not null,
  created_at timestamptz not null,
  primary key (tenant_id, identity_id, hash)
);
select stamp_tenant_table('memory_tombstones');
