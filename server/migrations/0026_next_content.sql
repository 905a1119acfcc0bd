-- What a document that is found will be once the content that was sent for it is read; until then, and where that fails, it is
-- what it was. `next` has columns by their names.
alter table documents
  add column next jsonb,
  add column next_content bytea;
