-- What is needed so that nothing is left of a tenant, or of an identity, that is removed for good.

-- Set when all that a tenant has is to be removed. The row goes last, when nothing more can come of what was under way.
alter table tenants add column deleted_at timestamptz;
create index tenants_deleted on tenants (deleted_at) where deleted_at is not null;

-- Whom a mail is to, where that is an identity.
alter table mails add column identity_id uuid;
create index mails_by_identity on mails (tenant_id, identity_id) where identity_id is not null;
