-- What a document's bytes are, the text that was read from them, and who may see a document that is not for everybody.
alter table documents
  -- Which reader understands `content`; `content_type` is what clients are told.
  add column format text not null default 'plain'
    check (format in ('plain', 'markdown', 'html', 'pdf', 'docx', 'csv', 'json')),
  -- The text the present chunks are cut from; their offsets count in it. Null until an ingestion has succeeded.
  add column extracted_text text,
  -- Where in that text each page begins, for formats that have pages.
  add column page_starts int[],
  -- What was noticed when the document was taken, and when it was read: [{"code", "message"}].
  add column intake_warnings jsonb not null default '[]',
  add column parse_warnings jsonb not null default '[]',
  -- open: whom policy lets. restricted: of those, only who holds a grant.
  add column access text not null default 'open' check (access in ('open', 'restricted'));

-- Until now a document's bytes were its text, those of JSON files included.
update documents set format = case content_type when 'text/markdown' then 'markdown' else 'plain' end;
update documents set extracted_text = convert_from(content, 'UTF8') where status = 'succeeded';

create index documents_by_hash on documents (tenant_id, corpus_id, content_hash);
create index documents_in_flight on documents (tenant_id, corpus_id) where status in ('queued', 'processing');
create index documents_restricted on documents (tenant_id, corpus_id, id) where access = 'restricted';

alter table chunks add column page_start int, add column page_end int;

create table document_permissions (
  tenant_id text not null,
  document_id text not null,
  id uuid not null,
  principal_type text not null check (principal_type in ('user', 'role', 'api_key')),
  principal_id text not null,
  permission text not null check (permission in ('read', 'write', 'delete', 'reindex', 'owner')),
  granted_by text,
  expires_at timestamptz,
  created_at timestamptz not null,
  primary key (tenant_id, document_id, id),
  unique (tenant_id, document_id, principal_type, principal_id, permission),
  foreign key (tenant_id, document_id) references documents (tenant_id, id)
);
select stamp_tenant_table('document_permissions');

insert into document_permissions (tenant_id, document_id, id, principal_type, principal_id, permission, created_at)
select tenant_id, id, gen_random_uuid(), 'user', created_by::text, 'owner', created_at from documents where created_by is not null;

-- A corpus that is being deleted is gone for everybody at once; what it holds is removed step by step.
alter table corpora add column deleted_at timestamptz, add column purge_job uuid;
create index corpora_deleted on corpora (deleted_at) where deleted_at is not null;
