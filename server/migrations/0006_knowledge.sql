create table corpora (
  tenant_id text not null,
  id text not null check (id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  name text not null,
  provider_config_json jsonb not null default '{}',
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id) references tenants (tenant_id)
);
select stamp_tenant_table('corpora');

create table documents (
  tenant_id text not null,
  id text not null check (id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  corpus_id text not null,
  filename text not null,
  content_type text not null,
  source text not null,
  ingest_source text not null,
  metadata_json jsonb not null default '{}',
  content bytea not null,
  content_hash bytea not null,
  options jsonb not null default '{}',
  -- The identity that stored it; policies see it as the owner.
  created_by uuid,
  status text not null check (status in ('queued', 'processing', 'succeeded', 'failed')),
  -- Grows with each time it is queued; a job works only on the attempt it was made for.
  attempt int not null default 1,
  -- How often it was queued again because its job had died; a document that kills its worker must not do so for ever.
  requeues int not null default 0,
  failure_reason text,
  num_chunks int,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  queued_at timestamptz,
  processing_started_at timestamptz,
  completed_at timestamptz,
  last_reindexed_at timestamptz,
  last_job_id uuid,
  primary key (tenant_id, id),
  foreign key (tenant_id, corpus_id) references corpora (tenant_id, id)
);
select stamp_tenant_table('documents');
create index documents_by_time on documents (tenant_id, created_at desc, id desc);
create index documents_by_corpus on documents (tenant_id, corpus_id, created_at desc, id desc);
create index documents_unfinished on documents (queued_at) where status in ('queued', 'processing');

create table chunks (
  tenant_id text not null,
  id uuid not null,
  document_id text not null,
  corpus_id text not null,
  position int not null,
  text text not null,
  -- Title and headings that search reads before the text; words, trigrams and vectors are made of both.
  above text not null default '',
  heading_path jsonb not null default '[]',
  offset_start int not null,
  offset_end int not null,
  words sparsevec not null,
  trigrams sparsevec not null,
  primary key (tenant_id, id),
  unique (tenant_id, document_id, position),
  -- No cascade: chunks, vectors and statistics leave together, by name.
  foreign key (tenant_id, document_id) references documents (tenant_id, id)
);
select stamp_tenant_table('chunks');
alter table chunks alter column words set storage external;
alter table chunks alter column trigrams set storage external;
alter table chunks set (toast_tuple_target = 4080);
create index chunks_by_corpus on chunks (tenant_id, corpus_id);

create table chunk_vectors (
  tenant_id text not null,
  chunk_id uuid not null,
  corpus_id text not null,
  model text not null,
  embedding vector not null,
  -- No foreign key to chunks: its check keeps the plan it made when chunks was small, a scan, so that 5,000 rows in one
  -- transaction took ten times as long.
  primary key (tenant_id, chunk_id, model)
);
select stamp_tenant_table('chunk_vectors');
alter table chunk_vectors alter column embedding set storage external;
alter table chunk_vectors set (toast_tuple_target = 8160);
create index chunk_vectors_by_corpus on chunk_vectors (tenant_id, corpus_id, model);
