-- Indexes of large spaces. A segment is three tables of its own: copies of a range of a space's vectors with an HNSW index,
-- and of the term weights of their texts with inverted ones, built in bulk. The vectors' own table stays the truth:
-- what a segment finds counts only while the vector's row says that it belongs to it.
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

-- The dimensions that a sparse vector has, for inverted indexes.
create function dimensions_of(weights sparsevec) returns int[] language sql immutable strict parallel safe as $$
  select array(
    select split_part(entry, ':', 1)::int - 1
    from unnest(string_to_array(nullif(substr(split_part(weights::text, '}', 1), 2), ''), ',')) entry)
$$;

-- The tables of a segment. A distributed database gets another body, which places them beside the tenant's vectors.
-- `kind`: vector or halfvec.
create function make_segment_table(name text, kind regtype, dimensions int) returns void language plpgsql as $$
begin
  execute format(
    'create table %I (tenant_id text not null, id uuid not null, embedding %s(%s) not null)', name, kind, dimensions);
  -- Not by tenant, though there is only one in it: nothing but the graph may offer itself to a search.
  execute format('create index %I on %I (id)', name || '_id', name);
  execute format('alter table %I alter column embedding set storage external', name);
  execute format('alter table %I set (toast_tuple_target = 8160)', name);
  perform stamp_tenant_table(name::regclass);
  -- Apart, since few searches look at trigrams, which take five times the room.
  execute format('create table %I (tenant_id text not null, id uuid not null, words sparsevec not null)', name || '_w');
  execute format('create index %I on %I (id)', name || '_w_id', name || '_w');
  execute format('alter table %I alter column words set storage external', name || '_w');
  perform stamp_tenant_table((name || '_w')::regclass);
  execute format('create table %I (tenant_id text not null, id uuid not null, trigrams sparsevec not null)', name || '_t');
  execute format('create index %I on %I (id)', name || '_t_id', name || '_t');
  execute format('alter table %I alter column trigrams set storage external', name || '_t');
  perform stamp_tenant_table((name || '_t')::regclass);
end $$;

-- `near`: with the graph too.
create function index_segment_table(name text, kind regtype, near boolean) returns void language plpgsql as $$
begin
  if near then
    execute format('create index if not exists %I on %I using hnsw (embedding %s)', name || '_near', name, kind || '_cosine_ops');
  end if;
  execute format('create index if not exists %I on %I using gin (dimensions_of(words))', name || '_w_terms', name || '_w');
  execute format('create index if not exists %I on %I using gin (dimensions_of(trigrams))', name || '_t_terms', name || '_t');
end $$;

create function drop_segment_table(name text) returns void language plpgsql as $$
begin
  execute format('drop table if exists %I', name);
  execute format('drop table if exists %I', name || '_w');
  execute format('drop table if exists %I', name || '_t');
end $$;

revoke all on function make_segment_table(text, regtype, int) from public;
revoke all on function index_segment_table(text, regtype, boolean) from public;
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
      execute format('delete from %I where tenant_id = $1 and id = any($2)', segment_table(known.id) || '_w')
        using tenant, ids;
      execute format('delete from %I where tenant_id = $1 and id = any($2)', segment_table(known.id) || '_t')
        using tenant, ids;
    exception when undefined_table then
      -- Given up meanwhile, copies and all.
      null;
    end;
  end loop;
end $$;

-- The copies nearest to a query, nearest first. Its settings leave the planner no way but the graph, which goes on
-- looking where what it found first is not enough. Ways that are closed count as endlessly dear, for which PostgreSQL
-- would compile each call.
select '[1]'::vector <=> '[1]'::vector as loads_the_settings_of_pgvector;
create function near_in_segment(tenant text, segment uuid, kind regtype, query vector, take int)
returns table (id uuid) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
set hnsw.ef_search = 160 set hnsw.iterative_scan = relaxed_order as $$
begin
  return query execute format(
    'select s.id from %I s where s.tenant_id = $1 order by s.embedding <=> $2::%s limit $3', segment_table(segment), kind)
    using tenant, query, take;
end $$;

-- The copies with the greatest inner products by words, or by trigrams, among those that have one of the dimensions.
-- They run as the owner: under row-level security an operator that is not leakproof, as that of arrays, can not use an
-- index. So they take the tenant from where the policy takes it, and nobody can ask them for another.
create function words_in_segment(segment uuid, query sparsevec, wanted int[], take int)
returns table (id uuid, distance float8) language plpgsql stable security definer
set search_path from current set enable_seqscan = off set jit = off as $$
begin
  return query execute format(
    'select t.id, t.words <#> $2 from %I t where t.tenant_id = $1 and dimensions_of(t.words) && $3 order by 2 limit $4',
    segment_table(segment) || '_w') using current_setting('app.tenant_id', true), query, wanted, take;
end $$;

create function trigrams_in_segment(segment uuid, query sparsevec, wanted int[], take int)
returns table (id uuid, distance float8) language plpgsql stable security definer
set search_path from current set enable_seqscan = off set jit = off as $$
begin
  return query execute format(
    'select t.id, t.trigrams <#> $2 from %I t where t.tenant_id = $1 and dimensions_of(t.trigrams) && $3 order by 2 limit $4',
    segment_table(segment) || '_t') using current_setting('app.tenant_id', true), query, wanted, take;
end $$;
