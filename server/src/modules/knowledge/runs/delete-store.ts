import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import { expireAudio } from './audio-store.ts';

export interface LockedRun {
  id: string;
  status: string;
}

/** Locks one run, or all of a session. */
export const lockRuns = (
  tx: Db,
  of: { id: string } | { identity_id: string; session_id: string },
): Promise<LockedRun[]> =>
  'id' in of
    ? tx.rows(
        sql<LockedRun>`select id, status from runs where tenant_id = ${tx.tenant} and id = ${of.id} for update`,
      )
    : tx.rows(sql<LockedRun>`
        select id, status from runs
        where tenant_id = ${tx.tenant} and identity_id = ${of.identity_id} and session_id = ${of.session_id}
        order by id for update`);

/** Removes runs and what was made from them. Their audio is past its time from now on, and a schedule removes the files. */
export const deleteRuns = (tenant: string, ids: string[], now: Date): Statement[] => [
  expireAudio(tenant, ids, now),
  sql`delete from run_events where tenant_id = ${tenant} and run_id = any(${ids}::uuid[])`,
  sql`delete from run_messages where tenant_id = ${tenant} and run_id = any(${ids}::uuid[])`,
  sql`delete from runs where tenant_id = ${tenant} and id = any(${ids}::uuid[])`,
];

/** Some runs of an identity. */
export const listRunsOf = (db: Db, identityId: string, limit: number): Promise<LockedRun[]> =>
  db.rows(sql<LockedRun>`
    select id, status from runs where tenant_id = ${db.tenant} and identity_id = ${identityId} limit ${limit}`);

/** Some sessions of an identity. */
export const listSessionsOf = (db: Db, identityId: string, limit: number): Promise<{ id: string }[]> =>
  db.rows(sql<{ id: string }>`
    select id from run_sessions where tenant_id = ${db.tenant} and identity_id = ${identityId} order by id limit ${limit}`);

/** Some of what else of an identity hangs on no run: each changes or removes rows, and says how many. */
export const restOf = (tenant: string, identityId: string, now: Date, limit: number): Statement[] => [
  sql`
    delete from run_messages where tenant_id = ${tenant} and id = any(array(
      select id from run_messages where tenant_id = ${tenant} and identity_id = ${identityId} limit ${limit}))`,
  // Left by a run that ended after its session was gone; no index leads to them.
  sql`
    delete from run_checkpoint_writes
    where tenant_id = ${tenant} and (thread_id, namespace, checkpoint_id, task_id, position) in (
      select thread_id, namespace, checkpoint_id, task_id, position from run_checkpoint_writes
      where tenant_id = ${tenant} and starts_with(thread_id, ${`${identityId}:`}) limit ${limit})`,
  sql`
    delete from run_checkpoints where tenant_id = ${tenant} and (thread_id, namespace, id) in (
      select thread_id, namespace, id from run_checkpoints
      where tenant_id = ${tenant} and starts_with(thread_id, ${`${identityId}:`}) limit ${limit})`,
  sql`
    update run_audio set expires_at = ${now} where tenant_id = ${tenant} and id = any(array(
      select id from run_audio where tenant_id = ${tenant} and identity_id = ${identityId} and expires_at > ${now} limit ${limit}))`,
];

export const findSession = (db: Db, owner: string, id: string): Promise<{ id: string } | undefined> =>
  db.one(sql<{ id: string }>`
    select id from run_sessions where tenant_id = ${db.tenant} and identity_id = ${owner} and id = ${id} for update`);

export function deleteSession(tenant: string, owner: string, id: string): Statement[] {
  const thread = `${owner}:${id}`;
  return [
    sql`delete from run_sessions where tenant_id = ${tenant} and identity_id = ${owner} and id = ${id}`,
    sql`delete from run_checkpoint_writes where tenant_id = ${tenant} and thread_id = ${thread}`,
    sql`delete from run_checkpoints where tenant_id = ${tenant} and thread_id = ${thread}`,
  ];
}
