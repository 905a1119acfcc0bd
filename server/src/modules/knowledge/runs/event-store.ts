import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { RunEvent } from './events.ts';

/** Events of one run as they are stored: `[type, data]` each, in order, without gaps up to `last_seq`. */
export interface Batch {
  last_seq: number;
  /** JSON. */
  events: string;
}

/** Stores batches of a run whose row the caller has locked. A batch that is there already stays as it is. */
export const insertEvents = (tenant: string, runId: string, batches: Batch[]): Statement => sql`
  insert into run_events (tenant_id, run_id, last_seq, events)
  select ${tenant}, ${runId}::uuid, b.last_seq, b.events::json
  from unnest(${batches.map(({ last_seq }) => last_seq)}::int[], ${batches.map(({ events }) => events)}::text[]) as b (last_seq, events)
  on conflict (tenant_id, run_id, last_seq) do nothing`;

export interface RunBatch extends Batch {
  run_id: string;
}

/**
 * Says how far some runs have come, and stores their events. The rows of the runs are locked before the second
 * statement looks: one that was ended by somebody else takes no more events. The first answers those that go on.
 */
export const storeEvents = (
  tenant: string,
  batches: RunBatch[],
): readonly [Statement<{ id: string; watched_until: string | null }>, Statement] => {
  const ids = batches.map(({ run_id }) => run_id);
  const numbers = batches.map(({ last_seq }) => last_seq);
  const texts = batches.map(({ events }) => events);
  return [
    sql<{ id: string; watched_until: string | null }>`
      update runs r set last_seq = greatest(r.last_seq, b.last_seq)
      from unnest(${ids}::uuid[], ${numbers}::int[]) as b (run_id, last_seq)
      where r.tenant_id = ${tenant} and r.id = b.run_id and r.status = 'running'
      returning r.id, r.watched_until`,
    sql`
      insert into run_events (tenant_id, run_id, last_seq, events)
      select ${tenant}, r.id, b.last_seq, b.events::json
      from unnest(${ids}::uuid[], ${numbers}::int[], ${texts}::text[]) as b (run_id, last_seq, events)
        join runs r on r.tenant_id = ${tenant} and r.id = b.run_id and r.status = 'running'
      on conflict (tenant_id, run_id, last_seq) do nothing`,
  ];
};

/** A run as one that reads its events must know it. */
export interface ReadableRun {
  id: string;
  identity_id: string;
  session_id: string;
  request_id: string | null;
  status: string;
  last_seq: number;
  lease_until: string;
  process_id: string | null;
  events_expire_at: string | null;
}

const selectReadable = (db: Db, id: string): Statement<ReadableRun> => sql<ReadableRun>`
  select id, identity_id, session_id, request_id, status, last_seq, lease_until, process_id, events_expire_at
  from runs where tenant_id = ${db.tenant} and id = ${id}`;

export const findReadableRun = (db: Db, id: string): Promise<ReadableRun | undefined> =>
  db.one(selectReadable(db, id));

export interface StoredEvents {
  last_seq: number;
  events: [type: RunEvent['type'], data: RunEvent['data']][];
}

/** A run, and up to `limit` batches with events after `after`, in order; the first may begin before it. */
export async function readEvents(
  db: Db,
  id: string,
  after: number,
  limit: number,
): Promise<{ run: ReadableRun | undefined; batches: StoredEvents[] }> {
  const [batches, runs] = await db.batch([
    sql<StoredEvents>`
      select last_seq, events from run_events
      where tenant_id = ${db.tenant} and run_id = ${id} and last_seq > ${after} order by last_seq limit ${limit}`,
    selectReadable(db, id),
  ]);
  return { run: runs.rows[0], batches: batches.rows };
}

/** Says that somebody follows a run in another process than its own. */
export const watchRun = (tenant: string, runId: string, until: Date): Statement => sql`
  update runs set watched_until = ${until}
  where tenant_id = ${tenant} and id = ${runId} and status = 'running'
    and (watched_until is null or watched_until < ${until})`;

export const findWatch = (db: Db, runId: string): Promise<{ watched_until: string | null } | undefined> =>
  db.one(sql<{ watched_until: string | null }>`
    select watched_until from runs where tenant_id = ${db.tenant} and id = ${runId}`);

/** Tenants with events past their time; for the operator. */
export const listTenantsWithOldEvents = (operator: Db, now: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from runs where events_expire_at < ${now} and tenant_id is not null limit 1000`);

/** Removes the events of up to `limit` runs whose events are past their time; answers of how many runs. */
export async function deleteOldEvents(tx: Db, now: Date, limit: number): Promise<number> {
  const old = await tx.rows(sql<{ id: string }>`
    select id from runs where tenant_id = ${tx.tenant} and events_expire_at < ${now}
    order by events_expire_at limit ${limit} for update`);
  const ids = old.map(({ id }) => id);
  if (ids.length === 0) return 0;
  await tx.batch([
    sql`delete from run_events where tenant_id = ${tx.tenant} and run_id = any(${ids}::uuid[])`,
    sql`update runs set events_expire_at = null where tenant_id = ${tx.tenant} and id = any(${ids}::uuid[])`,
  ]);
  return ids.length;
}
