-- Answers that show a memory are looked for by its id whenever memories are removed.
create index idempotency_keys_shows on idempotency_keys using gin (shows) where shows is not null;
