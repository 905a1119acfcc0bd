create table memories (
  tenant_id text not null,
  id uuid not null,
  identity_id uuid not null,
  text text not null,
  type text not null,
  metadata jsonb not null default '{}',
  session_id text,
  role text check (role in ('user', 'assistant', 'system', 'tool')),
  occurred_at timestamptz,
  ttl_days int,
  expires_at timestamptz,
  version int not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  deleted_at timestamptz,
  -- Term weights for text search, written with the row (dimensions are hashes; no statistics inside).
  words sparsevec not null,
  trigrams sparsevec not null,
  primary key (tenant_id, id)
);
select stamp_tenant_table('memories');
-- Words stay inline, trigrams go out of line first when a row is long: text search scans words only.
alter table memories alter column words set storage external;
alter table memories alter column trigrams set storage external;
alter table memories set (toast_tuple_target = 4080);
-- Ids grow with time (UUIDv7), so the key is the order of the tenant's list, and this the order of an identity's.
create index memories_by_owner on memories (tenant_id, identity_id, id);
-- In the order of the conversation: search looks at the turns around a hit.
create index memories_by_session on memories (tenant_id, session_id, (case when occurred_at is null then created_at else occurred_at end), id)
  where session_id is not null;
create index memories_expiry on memories (expires_at) where expires_at is not null and deleted_at is null;

-- Memories whose text is not yet counted and embedded: the row is the queue, the job only a nudge.
create table memory_queue (
  tenant_id text not null,
  memory_id uuid not null,
  created_at timestamptz not null,
  primary key (tenant_id, memory_id)
);
select stamp_tenant_table('memory_queue');

-- No foreign key: its check costs more than the row, and whoever removes a memory removes its vectors beside it.
-- Dense vectors in a narrow table of their own, stored inline: vectors over 450 dimensions would be moved out of line
-- and make exact scans five to ten times slower.
create table memory_vectors (
  tenant_id text not null,
  memory_id uuid not null,
  model text not null,
  embedding vector not null,
  primary key (tenant_id, memory_id, model)
);
select stamp_tenant_table('memory_vectors');
alter table memory_vectors alter column embedding set storage external;
alter table memory_vectors set (toast_tuple_target = 8160);
