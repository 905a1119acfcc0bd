-- ANALYZE keeps samples of what columns hold. Of what people say these would outlive its erasure, and no plan is better for
-- them: content is asked for by keys and by indexes of its own kind. It also takes most of the time of an ANALYZE.
create function keep_no_samples(name regclass) returns void language plpgsql as $$
declare content record;
begin
  for content in
    select a.attname, format_type(a.atttypid, a.atttypmod) as type from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = name and a.attnum > 0 and not a.attisdropped and (
      t.typname in ('jsonb', 'bytea', 'vector', 'halfvec', 'sparsevec')
      or a.attname in ('text', 'above', 'extracted_text', 'filename', 'source', 'name', 'description', 'reason', 'failure_reason',
        'username', 'username_key', 'email', 'email_key', 'external_id', 'ip', 'ip_address', 'user_agent'))
  loop
    -- Given its own type again, a column loses the samples of before.
    execute format('alter table %s alter column %I type %s', name, content.attname, content.type);
    execute format('alter table %s alter column %I set statistics 0', name, content.attname);
  end loop;
end $$;

revoke all on function keep_no_samples(regclass) from public;

create or replace function stamp_tenant_table(name regclass, privileges text default 'select, insert, update, delete') returns void
language plpgsql as $$
begin
  execute format('alter table %s enable row level security', name);
  execute format('alter table %s force row level security', name);
  execute format(
    'create policy tenant_isolation on %s to :app_role using (tenant_id = current_setting(''app.tenant_id'', true)) with check (tenant_id = current_setting(''app.tenant_id'', true))',
    name);
  execute format('create policy operator on %s to current_user using (true) with check (true)', name);
  execute format('grant %s on %s to :app_role', privileges, name);
  perform keep_no_samples(name);
end $$;

create or replace function index_segment_table(name text, kind regtype, near boolean) returns void language plpgsql as $$
begin
  if near then
    execute format('create index if not exists %I on %I using hnsw (embedding %s)', name || '_near', name, kind || '_cosine_ops');
  end if;
  execute format('create index if not exists %I on %I using gin (dimensions_of(words))', name || '_w_terms', name || '_w');
  execute format('alter index %I alter column 1 set statistics 0', name || '_w_terms');
  execute format('create index if not exists %I on %I using gin (dimensions_of(trigrams))', name || '_t_terms', name || '_t');
  execute format('alter index %I alter column 1 set statistics 0', name || '_t_terms');
end $$;

select keep_no_samples(c.oid::regclass)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and a.attnum > 0
where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
order by c.relname;
