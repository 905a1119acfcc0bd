-- Whose texts a kept answer shows: when they are erased, it is given out no more.
alter table idempotency_keys add column shows uuid[];
