-- What text search knows of a tenant's words: in how many texts of a scope ('memory', or 'corpus:' and its id) each occurs.
create table term_counts (
  tenant_id text not null,
  scope text not null,
  -- 'w' words, 'g' trigrams
  field text not null,
  dimension int not null,
  texts int not null,
  primary key (tenant_id, scope, field, dimension)
);
select stamp_tenant_table('term_counts');
-- Counted up again and again: with room in each page a change stays on it and touches no index.
alter table term_counts set (fillfactor = 60);

create table text_counts (
  tenant_id text not null,
  scope text not null,
  texts bigint not null,
  primary key (tenant_id, scope)
);
select stamp_tenant_table('text_counts');
