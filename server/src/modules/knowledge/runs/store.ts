import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Citation, Run, RunMessage, RunWithMessages } from './schema.ts';

/** A run as it begins. */
export interface NewRun {
  tenant_id: string;
  id: string;
  identity_id: string;
  session_id: string;
  corpus_id: string;
  request_id: string;
  created_at: string;
}

/** Ends what a dead process left running in the session: its lease ran out. */
export const endLostRun = (run: NewRun): Statement<{ id: string }> => sql<{ id: string }>`
  update runs set status = 'failed', error_code = 'PROCESS_LOST', completed_at = ${run.created_at}
  where tenant_id = ${run.tenant_id} and identity_id = ${run.identity_id} and session_id = ${run.session_id}
    and status = 'running' and lease_until < ${run.created_at}
  returning id`;

/** Answers no row when a run is going on in the session. */
export const insertRun = (run: NewRun, leaseUntil: Date): Statement<{ id: string }> => sql<{ id: string }>`
  insert into runs (tenant_id, id, identity_id, session_id, corpus_id, status, request_id, lease_until, created_at)
  values (${run.tenant_id}, ${run.id}, ${run.identity_id}, ${run.session_id}, ${run.corpus_id}, 'running',
    ${run.request_id}, ${leaseUntil}, ${run.created_at})
  on conflict (tenant_id, identity_id, session_id) where status = 'running' do nothing
  returning id`;

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

/** Answers no row when the run is no longer running: it was declared lost. */
export const endRun = (
  run: NewRun,
  status: Exclude<Run['status'], 'running'>,
  model: string | null,
  errorCode: string | null,
  now: string,
): Statement<{ id: string }> => sql<{ id: string }>`
  update runs set status = ${status}, model = ${model}, error_code = ${errorCode}, completed_at = ${now}
  where tenant_id = ${run.tenant_id} and id = ${run.id} and status = 'running' returning id`;

/** Moves the lease on; answers no row when the run is no longer running. */
export const renewLease = (run: NewRun, until: Date): Statement<{ id: string }> => sql<{ id: string }>`
  update runs set lease_until = ${until} where tenant_id = ${run.tenant_id} and id = ${run.id} and status = 'running' returning id`;

export interface PastMessage {
  id: string;
  role: 'user' | 'assistant';
  text: string;
}

/** The last messages of the session before this run, oldest first. */
export async function listHistory(db: Db, run: NewRun, limit: number): Promise<PastMessage[]> {
  const rows = await db.rows(sql<PastMessage>`
    select id, role, text from run_messages
    where tenant_id = ${db.tenant} and identity_id = ${run.identity_id} and session_id = ${run.session_id} and run_id <> ${run.id}
    order by created_at desc, id desc limit ${limit}`);
  return rows.reverse();
}

export interface RunFilter {
  session_id?: string | undefined;
  status?: string | undefined;
}

/** Newest first; one row more than `limit` when there are more. */
export const listRuns = (
  db: Db,
  filter: RunFilter,
  { owner, after, skip, limit }: PageFrom,
): Promise<Run[]> =>
  db.rows(sql<Run>`
    select id, session_id, corpus_id, identity_id, status, model, error_code, request_id, created_at, completed_at from runs
    where tenant_id = ${db.tenant} and (${owner}::uuid is null or identity_id = ${owner}::uuid)
      and (${filter.session_id}::text is null or session_id = ${filter.session_id}::text)
      and (${filter.status}::text is null or status = ${filter.status}::text)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export async function findRun(db: Db, id: string): Promise<RunWithMessages | undefined> {
  const [runs, messages] = await db.batch([
    sql<Run>`
      select id, session_id, corpus_id, identity_id, status, model, error_code, request_id, created_at, completed_at from runs
      where tenant_id = ${db.tenant} and id = ${id}`,
    sql<RunMessage>`
      select id, role, text, citations, created_at from run_messages
      where tenant_id = ${db.tenant} and run_id = ${id} order by created_at, id`,
  ]);
  const run = runs.rows[0];
  return run && { ...run, messages: messages.rows };
}

/** Tenants with runs whose process is gone; for the operator. */
export const listTenantsWithLostRuns = (operator: Db, now: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from runs where status = 'running' and lease_until < ${now} and tenant_id is not null limit 1000`);

/** Ends a tenant's lost runs and answers which. */
export const endLostRuns = (tx: Db, now: Date): Promise<{ id: string }[]> =>
  tx.rows(sql<{ id: string }>`
    update runs set status = 'failed', error_code = 'PROCESS_LOST', completed_at = ${now}
    where tenant_id = ${tx.tenant} and status = 'running' and lease_until < ${now} returning id`);
