import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface Charge {
  key: Buffer;
  /** Failures in a row that cost nothing. */
  free: number;
  /** Longest wait, in milliseconds. */
  longest: number;
}

/** Attempts that are older than this are forgotten. */
const keptMs = 24 * 3_600_000;

/**
 * Counts one more attempt and, from the last free one on, lets the next wait: a second, and twice as long each time.
 * While one has to wait nothing is counted and no row answered. One statement, so that attempts at the same moment
 * count one after another.
 */
export const chargeAttempt = (
  { key, free, longest }: Charge,
  now: number,
): Statement<{ failures: number }> => sql<{ failures: number }>`
  insert into attempts as a (key, failures, last_at, blocked_until) values (${key}, 1, ${now}, 0)
  on conflict (key) do update set
    failures = case when a.last_at < ${now - keptMs}::bigint then 1 else a.failures + 1 end,
    last_at = excluded.last_at,
    blocked_until = case
      when a.last_at < ${now - keptMs}::bigint or a.failures + 1 < ${free}::int then 0
      else excluded.last_at + least(${longest}::bigint, 1000::bigint << least(a.failures + 1 - ${free}::int, 30)) end
  where a.blocked_until <= excluded.last_at
  returning failures`;

export const attemptsOf = (key: Buffer): Statement<{ blocked_until: number; trusted_until: number }> =>
  sql<{
    blocked_until: number;
    trusted_until: number;
  }>`select blocked_until, trusted_until from attempts where key = ${key}`;

/** Forgets all attempts and lets nobody wait. */
export const forgetAttempts = (key: Buffer): Statement => sql`delete from attempts where key = ${key}`;

/** Takes one attempt back. Whoever has to wait goes on waiting: others may have failed meanwhile. */
export const takeAttemptBack = (key: Buffer): Statement => sql`
  update attempts set failures = greatest(failures - 1, 0) where key = ${key}`;

export const trustUntil = (key: Buffer, now: number, until: number): Statement => sql`
  insert into attempts (key, failures, last_at, blocked_until, trusted_until) values (${key}, 0, ${now}, 0, ${until})
  on conflict (key) do update set last_at = excluded.last_at, trusted_until = excluded.trusted_until`;

export const pruneAttempts = (operator: Db, now: number): Promise<number> =>
  operator.run(sql`delete from attempts where last_at < ${now - keptMs} and trusted_until <= ${now}`);
