import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Citation, Run, RunMessage, RunWithMessages, Timings, Usage } from './schema.ts';

/** A run as it begins. */
export interface NewRun {
  tenant_id: string;
  id: string;
  identity_id: string;
  session_id: string;
  corpus_id: string | null;
  request_id: string;
  on_disconnect: 'cancel' | 'continue';
  process_id: string;
  provider: string;
  created_at: string;
}

/** Who may say that a run is lost: its lease ran out or, where one process has the database, another process began it. */
export interface LostBefore {
  now: string;
  /** Undefined where several processes share the database. */
  only_process: string | undefined;
}

/** Fails with 23505 when a run is going on in the session. The first event is stored with it. */
export const insertRun = (run: NewRun, leaseUntil: Date): Statement => sql`
  insert into runs (tenant_id, id, identity_id, session_id, corpus_id, status, request_id, on_disconnect, process_id, provider,
    last_seq, lease_until, created_at)
  values (${run.tenant_id}, ${run.id}, ${run.identity_id}, ${run.session_id}, ${run.corpus_id}, 'running',
    ${run.request_id}, ${run.on_disconnect}, ${run.process_id}, ${run.provider}, 1, ${leaseUntil}, ${run.created_at})`;

/** The run that is going on in a session. */
export const findRunning = (db: Db, run: NewRun): Promise<{ id: string } | undefined> =>
  db.one(sql<{ id: string }>`
    select id from runs where tenant_id = ${db.tenant} and identity_id = ${run.identity_id}
      and session_id = ${run.session_id} and status = 'running'`);

export const upsertSession = (run: NewRun): Statement => sql`
  insert into run_sessions (tenant_id, id, identity_id, corpus_id, created_at, updated_at)
  values (${run.tenant_id}, ${run.session_id}, ${run.identity_id}, ${run.corpus_id}, ${run.created_at}, ${run.created_at})
  on conflict (tenant_id, identity_id, id) do update set corpus_id = excluded.corpus_id, updated_at = excluded.updated_at`;

export interface NewMessage {
  id: string;
  role: 'user' | 'assistant';
  text: string;
  citations: Citation[];
  created_at: string;
}

export const insertMessage = (run: NewRun, message: NewMessage): Statement => sql`
  insert into run_messages (tenant_id, id, identity_id, session_id, run_id, role, text, citations, created_at)
  values (${run.tenant_id}, ${message.id}, ${run.identity_id}, ${run.session_id}, ${run.id}, ${message.role}, ${message.text},
    ${JSON.stringify(message.citations)}, ${message.created_at})`;

/** What is known of a run besides its answer. */
export interface RunFigures {
  model: string | null;
  finish_reason: string | null;
  usage: Usage | null;
  timings: Timings;
  disconnects: number;
  last_seq: number;
}

/** The answer is there and the run goes on to speak it. Answers no row when the run is not running any more. */
export const markAnswered = (
  run: NewRun,
  figures: RunFigures,
  now: string,
): Statement<{ id: string }> => sql<{
  id: string;
}>`
  update runs set answered_at = ${now}, model = ${figures.model}, finish_reason = ${figures.finish_reason}, usage = ${figures.usage},
    timings = ${figures.timings}, last_seq = ${figures.last_seq}
  where tenant_id = ${run.tenant_id} and id = ${run.id} and status = 'running' returning id`;

/** Answers no row when the run is not running any more: somebody else ended it. */
export const endRun = (
  run: NewRun,
  end: RunFigures & {
    status: Exclude<Run['status'], 'running'>;
    error_code: string | null;
    completed_at: string;
    events_expire_at: string;
  },
): Statement<{ id: string }> => sql<{ id: string }>`
  update runs set status = ${end.status}, model = ${end.model}, error_code = ${end.error_code}, finish_reason = ${end.finish_reason},
    usage = ${end.usage}, timings = ${end.timings}, disconnects = ${end.disconnects}, last_seq = ${end.last_seq},
    completed_at = ${end.completed_at}, events_expire_at = ${end.events_expire_at}
  where tenant_id = ${run.tenant_id} and id = ${run.id} and status = 'running' returning id`;

export interface EndedRun {
  id: string;
  session_id: string;
  corpus_id: string | null;
  created_at: string;
  last_seq: number;
  status: string;
  answered_at: string | null;
}

export interface EndFromOutside {
  id: string;
  status: 'failed' | 'canceled';
  error_code: string;
  /** How much the number of the last event grows. */
  skip: number;
  now: string;
  events_expire_at: string;
  /** Only when it is lost. */
  lost: LostBefore | undefined;
}

/**
 * Ends a run that another process works or worked on. One that had its answer and was lost while it was spoken has
 * succeeded. Answers no row when it is over, or not lost.
 */
export const endFromOutside = (tenant: string, end: EndFromOutside): Statement<EndedRun> => sql<EndedRun>`
  update runs set
    status = case when ${end.status}::text = 'failed' and answered_at is not null then 'succeeded' else ${end.status}::text end,
    error_code = case when ${end.status}::text = 'failed' and answered_at is not null then null else ${end.error_code}::text end,
    last_seq = last_seq + ${end.skip}::int, completed_at = ${end.now}, events_expire_at = ${end.events_expire_at}
  where tenant_id = ${tenant} and id = ${end.id} and status = 'running'
    and (${end.lost === undefined}::boolean or lease_until < ${end.lost?.now}::timestamptz
      or (${end.lost?.only_process}::uuid is not null and process_id is distinct from ${end.lost?.only_process}::uuid))
  returning id, session_id, corpus_id, created_at, last_seq, status, answered_at`;

export interface PastMessage {
  id: string;
  run_id: string;
  role: 'user' | 'assistant';
  text: string;
}

/** The last messages of the session before this run, oldest first. */
export async function listHistory(db: Db, run: NewRun, limit: number): Promise<PastMessage[]> {
  const rows = await db.rows(sql<PastMessage>`
    select id, run_id, role, text from run_messages
    where tenant_id = ${db.tenant} and identity_id = ${run.identity_id} and session_id = ${run.session_id} and run_id <> ${run.id}
    order by created_at desc, id desc limit ${limit}`);
  return rows.reverse();
}

export interface RunFilter {
  session_id?: string | undefined;
  status?: string | undefined;
}

const columns = raw(
  `id, session_id, corpus_id, identity_id, status, provider, model, finish_reason, usage, timings, error_code, on_disconnect,
   disconnects, request_id, created_at, completed_at, events_expire_at`,
);

/** Newest first; one row more than `limit` when there are more. */
export const listRuns = (
  db: Db,
  filter: RunFilter,
  { owner, after, skip, limit }: PageFrom,
): Promise<Run[]> =>
  db.rows(sql<Run>`
    select ${columns} from runs
    where tenant_id = ${db.tenant} and (${owner}::uuid is null or identity_id = ${owner}::uuid)
      and (${filter.session_id}::text is null or session_id = ${filter.session_id}::text)
      and (${filter.status}::text is null or status = ${filter.status}::text)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export async function findRun(db: Db, id: string): Promise<RunWithMessages | undefined> {
  const [runs, messages] = await db.batch([
    sql<Run>`
      select ${columns} from runs
      where tenant_id = ${db.tenant} and id = ${id}`,
    sql<RunMessage>`
      select id, role, text, citations, created_at from run_messages
      where tenant_id = ${db.tenant} and run_id = ${id} order by created_at, id`,
  ]);
  const run = runs.rows[0];
  return run && { ...run, messages: messages.rows };
}

/** Tenants with runs that may be lost; for the operator. */
export const listTenantsWithLostRuns = (
  operator: Db,
  { now, only_process }: LostBefore,
): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from runs
    where status = 'running' and tenant_id is not null
      and (lease_until < ${now} or (${only_process}::uuid is not null and process_id is distinct from ${only_process}::uuid))
    limit 1000`);

export const listLostRuns = (db: Db, { now, only_process }: LostBefore): Promise<{ id: string }[]> =>
  db.rows(sql<{ id: string }>`
    select id from runs where tenant_id = ${db.tenant} and status = 'running'
      and (lease_until < ${now} or (${only_process}::uuid is not null and process_id is distinct from ${only_process}::uuid))
    order by lease_until limit 500`);

/** A run by its whole key. */
export interface RunKey {
  tenant_id: string;
  id: string;
}

/** Moves the leases of a process's runs on; answers those that are still running. For the operator. */
export const renewLeases = (operator: Db, runs: RunKey[], until: Date): Promise<{ id: string }[]> =>
  operator.rows(sql<{ id: string }>`
    update runs r set lease_until = ${until}
    from unnest(${runs.map(({ tenant_id }) => tenant_id)}::text[], ${runs.map(({ id }) => id)}::uuid[]) as k (tenant_id, id)
    where r.tenant_id = k.tenant_id and r.id = k.id and r.status = 'running' returning r.id`);

/** Which of some runs are still running. For the operator. */
export const listRunning = (operator: Db, runs: RunKey[]): Promise<{ id: string }[]> =>
  operator.rows(sql<{ id: string }>`
    select r.id from runs r
      join unnest(${runs.map(({ tenant_id }) => tenant_id)}::text[], ${runs.map(({ id }) => id)}::uuid[]) as k (tenant_id, id)
        on r.tenant_id = k.tenant_id and r.id = k.id
    where r.status = 'running'`);
