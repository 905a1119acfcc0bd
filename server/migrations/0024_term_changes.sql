-- What was counted into or out of a scope's statistics and is not in term_counts and text_counts yet: one row for many texts, where
-- a row for each term was most of what storing them cost. Statistics are both together; a small scope has nothing but these.
create table term_changes (
  tenant_id text not null,
  scope text not null,
  id uuid not null,
  -- Fewer than none where texts went.
  texts bigint not null,
  -- Dimensions ascending, then as many counts: 32 bits each, little-endian.
  words bytea not null,
  trigrams bytea not null,
  primary key (tenant_id, scope, id)
);
select stamp_tenant_table('term_changes');
-- Read often and for a short time: in line as far as a page goes, and not compressed.
alter table term_changes alter column words set storage external;
alter table term_changes alter column trigrams set storage external;
alter table term_changes set (toast_tuple_target = 8160);
