-- Sessions whose refresh token changes with every use, API keys whose secret can be changed, signing keys that follow
-- one another.

alter table sessions
  -- The token before the current one. Within a few seconds of the change it is answered with the current one again, which
  -- is computed from it and the salt: neither is kept.
  add column previous_hash bytea,
  add column successor_salt bytea,
  add column rotated_at timestamptz,
  add column revoked_at timestamptz;
update sessions set last_used_at = created_at where last_used_at is null;
alter table sessions alter column last_used_at set not null;
-- Whose sessions go first: those that ended long ago.
create index sessions_expiry on sessions (expires_at);
create index sessions_revoked on sessions (revoked_at) where revoked_at is not null;

alter table api_keys
  -- Secrets that were replaced and still work for a while: [{"hash": hex, "until": time}].
  add column old_secrets jsonb not null default '[]',
  -- Made for a service of the tenant, with an identity of its own; only so many of these at once.
  add column self_serve boolean not null default false,
  -- When the ledger was told that its time is over.
  add column expired_at timestamptz;
create index api_keys_expiring on api_keys (expires_at)
  where expires_at is not null and expired_at is null and revoked_at is null;

-- Each signing key names the one it takes over from, and each has one successor at most: of processes that make one at
-- the same time, the first at an empty installation included, one succeeds.
alter table signing_keys
  add column follows text,
  add column signs_from timestamptz;
update signing_keys k set
  signs_from = k.created_at,
  follows = coalesce(
    (select p.kid from signing_keys p where (p.created_at, p.kid) < (k.created_at, k.kid) order by p.created_at desc, p.kid desc limit 1),
    '');
alter table signing_keys
  alter column follows set not null,
  alter column signs_from set not null,
  -- Forgotten when the key is retired.
  alter column private_jwk drop not null,
  add constraint signing_keys_one_successor unique (follows);
