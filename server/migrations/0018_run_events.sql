-- Runs whose events can be read again: by a reader that lost its connection, from any process, after any of them died.

alter table runs
  -- A run that answers from memories needs no corpus.
  alter column corpus_id drop not null,
  add column on_disconnect text not null default 'cancel' check (on_disconnect in ('cancel', 'continue')),
  -- Which process works on it. The embedded database has one process: what another one left there is lost at once.
  add column process_id uuid,
  -- Number of the last stored event. Written with the events, so whoever ends a run knows how far it has come.
  add column last_seq int not null default 0,
  -- A reader follows in another process until then.
  add column watched_until timestamptz,
  -- The answer is committed; what still follows is its speech.
  add column answered_at timestamptz,
  add column provider text,
  add column finish_reason text,
  add column usage jsonb,
  add column timings jsonb,
  add column disconnects int not null default 0,
  -- Until when the events of a run that is over are kept; null when there are none (any more).
  add column events_expire_at timestamptz;
create index runs_events_expiring on runs (events_expire_at) where events_expire_at is not null;
-- The row of a run is written again with each batch of events: room on its page keeps that out of the indexes.
alter table runs set (fillfactor = 70);
alter table run_sessions alter column corpus_id drop not null;

-- Events in the batches they were stored in. `last_seq` is the number of a batch's last event; numbers within a batch
-- have no gaps. As `json`, not `jsonb`: a frame that is sent again is the same, byte for byte.
create table run_events (
  tenant_id text not null,
  run_id uuid not null,
  last_seq int not null,
  events json not null,
  primary key (tenant_id, run_id, last_seq)
);
select stamp_tenant_table('run_events');

-- Spoken answers. The row is there before its file is written and after it is removed, so that no file is forgotten.
create table run_audio (
  tenant_id text not null,
  id uuid not null,
  run_id uuid not null,
  identity_id uuid not null,
  mime text not null,
  bytes bigint,
  -- Set when the file is whole; nobody is given another.
  ready_at timestamptz,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (tenant_id, id)
);
select stamp_tenant_table('run_audio');
create index run_audio_of_run on run_audio (tenant_id, run_id);
create index run_audio_expiring on run_audio (expires_at);
