import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface MailRow {
  kind: string;
  sealed: Buffer;
}

export const insertMail = (
  tenant: string,
  id: string,
  kind: string,
  sealed: Buffer,
  identityId: string | undefined,
  now: Date,
): Statement => sql`
  insert into mails (tenant_id, id, kind, sealed, identity_id, status, created_at)
  values (${tenant}, ${id}, ${kind}, ${sealed}, ${identityId}, 'queued', ${now})`;

export const findMail = (db: Db, id: string): Promise<MailRow | undefined> =>
  db.one(sql<MailRow>`
    select kind, sealed from mails where tenant_id = ${db.tenant} and id = ${id} and status = 'queued'`);

export const deleteMail = (tenant: string, id: string): Statement =>
  sql`delete from mails where tenant_id = ${tenant} and id = ${id}`;

export const deleteMailsOf = (tenant: string, identityId: string): Statement =>
  sql`delete from mails where tenant_id = ${tenant} and identity_id = ${identityId}`;

/** Removes mails of a kind to identities that have not left. */
export const dropMails = (tenant: string, identityIds: string[], kind: string): Statement => sql`
  delete from mails
  where tenant_id = ${tenant} and identity_id = any(${identityIds}::uuid[]) and kind = ${kind} and status = 'queued'`;

/** Keeps that there was a mail, and not what it said. Answers no row when it is not waiting any more. */
export const failMail = (tenant: string, id: string, reason: string): Statement<{ kind: string }> => sql<{
  kind: string;
}>`
  update mails set status = 'failed', sealed = null, failure_reason = ${reason}
  where tenant_id = ${tenant} and id = ${id} and status = 'queued' returning kind`;

export interface UnsentMail {
  tenant_id: string;
  id: string;
}

/** Mails that have waited since before `before`; for the operator. */
export const listUnsent = (operator: Db, before: Date): Promise<UnsentMail[]> =>
  operator.rows(sql<UnsentMail>`
    select tenant_id, id from mails where status = 'queued' and created_at < ${before} and tenant_id is not null
    order by created_at limit 500`);
