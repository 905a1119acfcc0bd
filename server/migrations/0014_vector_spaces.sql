-- Which models' vectors a scope has ('memory', or 'corpus:' and its id): a space is what can be compared with one
-- another. Searches ask it which models to embed a query with; renewal asks it what is left of former models.
create table vector_spaces (
  tenant_id text not null,
  scope text not null,
  model text not null,
  dimensions int not null,
  created_at timestamptz not null,
  -- Set when its last vector is gone; null again as soon as one is stored.
  drained_at timestamptz,
  -- The preferred model for which all was done that can be: what is left of this space's vectors it does not take.
  settled_for text,
  -- Vectors of it that were replaced by those of a better model, and when last.
  renewed bigint not null default 0,
  renewed_at timestamptz,
  -- Who renews it keeps this ahead of the clock, so that no two workers embed the same texts.
  renewing_until timestamptz,
  primary key (tenant_id, scope, model)
);
select stamp_tenant_table('vector_spaces');
create index vector_spaces_in_use on vector_spaces (model, tenant_id) where drained_at is null;

-- `refused_by`: the better model that does not take the text. `segment`: the sealed segment whose index has the vector;
-- null: none, the vector is in the tail, which is scanned. New rows always are, so no write ever waits for an index.
alter table memory_vectors add column refused_by text, add column segment int;
create index memory_vectors_tail on memory_vectors (tenant_id, model) where segment is null;

alter table chunk_vectors add column refused_by text, add column segment int;
create index chunk_vectors_tail on chunk_vectors (tenant_id, corpus_id, model) where segment is null;
drop index chunk_vectors_by_corpus;

insert into vector_spaces (tenant_id, scope, model, dimensions, created_at)
select tenant_id, 'memory', model, max(vector_dims(embedding)), timestamptz 'epoch' from memory_vectors group by tenant_id, model
union all
select tenant_id, 'corpus:' || corpus_id, model, max(vector_dims(embedding)), timestamptz 'epoch' from chunk_vectors
group by tenant_id, corpus_id, model;
