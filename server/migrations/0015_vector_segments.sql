-- Indexes of large spaces. A segment is a table of its own: copies of a range of a space's vectors with an HNSW index,
-- built in bulk. The vectors' own table stays the truth: what a segment finds counts only while the vector's row says
-- that it belongs to it.
create table vector_segments (
  tenant_id text not null,
  scope text not null,
  model text not null,
  id uuid not null,
  -- The values of `segment` that it covers; merging joins neighbours and changes no row of theirs.
  first int not null,
  last int not null,
  -- building: nobody searches it yet. live: searched. retired: its rows are covered by another one, or in the tail.
  state text not null check (state in ('building', 'live', 'retired')),
  -- Rows copied into it when it was built.
  rows int not null default 0,
  -- Whether all rows it was built of have been told that they belong to it.
  joined boolean not null default false,
  created_at timestamptz not null,
  -- Who builds keeps this ahead of the clock; a segment left building after it belongs to nobody.
  lease_until timestamptz not null,
  retired_at timestamptz,
  primary key (tenant_id, scope, model, id)
);
select stamp_tenant_table('vector_segments');

-- The table of a segment. A distributed database gets another body, which places it beside the tenant's vectors.
-- `kind`: vector or halfvec.
create function make_segment_table(name text, kind regtype, dimensions int) returns void language plpgsql as $$
begin
  execute format(
    'create table %I (tenant_id text not null, id uuid not null, embedding %s(%s) not null)',
    name, kind, dimensions);
  -- Not by tenant, though there is only one in it: nothing but the graph may offer itself to a search.
  execute format('create index %I on %I (id)', name || '_id', name);
  execute format('alter table %I alter column embedding set storage external', name);
  execute format('alter table %I set (toast_tuple_target = 8160)', name);
  perform stamp_tenant_table(name::regclass);
end $$;

create function index_segment_table(name text, kind regtype) returns void language plpgsql as $$
begin
  execute format('create index if not exists %I on %I using hnsw (embedding %s)', name || '_near', name, kind || '_cosine_ops');
end $$;

create function drop_segment_table(name text) returns void language plpgsql as $$
begin
  execute format('drop table if exists %I', name);
end $$;

revoke all on function make_segment_table(text, regtype, int) from public;
revoke all on function index_segment_table(text, regtype) from public;
revoke all on function drop_segment_table(text) from public;

-- Names of these tables are ours and of one length.
create function segment_table(id uuid) returns text language sql immutable as $$
  select 'segment_' || replace(id::text, '-', '')
$$;

-- Removes copies of vectors that are deleted. Searches would pass them over anyway; but what is erased must be gone.
create function forget_in_segments(tenant text, scopes text, ids uuid[]) returns void language plpgsql as $$
declare known record;
begin
  for known in
    select s.id from vector_segments s where s.tenant_id = tenant and s.scope = scopes and s.state <> 'retired'
  loop
    begin
      execute format('delete from %I where tenant_id = $1 and id = any($2)', segment_table(known.id)) using tenant, ids;
    exception when undefined_table then
      -- Given up meanwhile, copies and all.
      null;
    end;
  end loop;
end $$;

-- The copies nearest to a query, nearest first. Its settings leave the planner no way but the graph, which goes on
-- looking where what it found first is not enough.
select '[1]'::vector <=> '[1]'::vector as loads_the_settings_of_pgvector;
create function near_in_segment(tenant text, segment uuid, kind regtype, query vector, take int)
returns table (id uuid) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set hnsw.ef_search = 160 set hnsw.iterative_scan = relaxed_order as $$
begin
  return query execute format(
    'select s.id from %I s where s.tenant_id = $1 order by s.embedding <=> $2::%s limit $3', segment_table(segment), kind)
    using tenant, query, take;
end $$;
