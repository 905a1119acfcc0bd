-- A tail is read in the order of its keys, and a vector of it is looked up by its key. Without the key the planner, of a tenant
-- newer than the last ANALYZE, may take this index for one vector and read the whole tail.
drop index memory_vectors_tail;
create index memory_vectors_tail on memory_vectors (tenant_id, model, memory_id) where segment is null;

drop index chunk_vectors_tail;
create index chunk_vectors_tail on chunk_vectors (tenant_id, corpus_id, model, chunk_id) where segment is null;
