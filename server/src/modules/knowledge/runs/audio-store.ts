import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { NewRun } from './store.ts';

/** Written before the file is: what an interrupted process leaves is found by its row. */
export const insertAudio = (
  run: NewRun,
  id: string,
  mime: string,
  now: Date,
  expires: Date,
): Statement => sql`
  insert into run_audio (tenant_id, id, run_id, identity_id, mime, created_at, expires_at)
  values (${run.tenant_id}, ${id}, ${run.id}, ${run.identity_id}, ${mime}, ${now}, ${expires})`;

export const finishAudio = (
  tenant: string,
  id: string,
  bytes: number,
  now: Date,
  expires: Date,
): Statement => sql`
  update run_audio set bytes = ${bytes}, ready_at = ${now}, expires_at = ${expires}
  where tenant_id = ${tenant} and id = ${id}`;

export interface Audio {
  id: string;
  run_id: string;
  identity_id: string;
  mime: string;
  bytes: number;
}

/** A spoken answer that is whole and not past its time. */
export const findAudio = (db: Db, id: string, now: Date): Promise<Audio | undefined> =>
  db.one(sql<Audio>`
    select id, run_id, identity_id, mime, bytes from run_audio
    where tenant_id = ${db.tenant} and id = ${id} and ready_at is not null and expires_at > ${now}`);

/** Ends the time of what was spoken in some runs; a schedule removes it. */
export const expireAudio = (tenant: string, runIds: string[], now: Date): Statement => sql`
  update run_audio set expires_at = ${now}
  where tenant_id = ${tenant} and run_id = any(${runIds}::uuid[]) and expires_at > ${now}`;

/** Tenants with audio past its time; for the operator. */
export const listTenantsWithOldAudio = (operator: Db, now: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from run_audio where expires_at <= ${now} and tenant_id is not null limit 1000`);

export const listOldAudio = (db: Db, now: Date, limit: number): Promise<{ id: string }[]> =>
  db.rows(sql<{ id: string }>`
    select id from run_audio where tenant_id = ${db.tenant} and expires_at <= ${now} order by expires_at limit ${limit}`);

export const deleteAudio = (tenant: string, ids: string[]): Statement => sql`
  delete from run_audio where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;
