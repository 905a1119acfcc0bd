-- For a memory by its id there is one index. While the table is small the planner thinks that this one is as good, of which it
-- would have to read all of the tenant. Whoever asks for an owner's can still use it.
drop index memories_by_owner;
create index memories_by_owner on memories (tenant_id, identity_id, id) where identity_id is not null;
