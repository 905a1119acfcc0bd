-- Answers that show a memory are looked for by its id whenever memories are removed.
create index idempotency_keys_shows on idempotency_keys using gin (shows) where shows is not null;

-- The last text a segment has a copy of: what came later is in none, and is read as a range. Null in segments of before.
alter table vector_segments add column until uuid;
