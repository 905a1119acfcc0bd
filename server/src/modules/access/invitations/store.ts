import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Invitation } from './schema.ts';

const columns = sql`id, email, role, claims, status, status = 'accepted' as is_accepted, accepted_at, expires_at, created_at,
  updated_at, tenant_id, invited_by`;

export interface NewInvitation {
  tenant_id: string;
  id: string;
  email: string;
  email_key: string;
  role: string;
  claims: Record<string, unknown>;
  token_hash: Buffer;
  expires_in_days: number;
  expires_at: Date;
  invited_by: string | undefined;
  now: Date;
}

/** Answers the row, or nothing when one for this address is pending. */
export const insertInvitation = (row: NewInvitation): Statement<Invitation> => sql<Invitation>`
  insert into invitations (tenant_id, id, email, email_key, role, claims, status, token_hash, expires_in_days, expires_at,
    invited_by, mails_from, mails, created_at, updated_at)
  values (${row.tenant_id}, ${row.id}, ${row.email}, ${row.email_key}, ${row.role}, ${row.claims}, 'pending', ${row.token_hash},
    ${row.expires_in_days}, ${row.expires_at}, ${row.invited_by}, ${row.now}, 1, ${row.now}, ${row.now})
  on conflict (tenant_id, email_key) where status = 'pending' do nothing returning ${columns}`;

export const findInvitation = (db: Db, id: string): Promise<Invitation | undefined> =>
  db.one(sql<Invitation>`select ${columns} from invitations where tenant_id = ${db.tenant} and id = ${id}`);

/** Newest first, of one inviter where it is given; one row more than `limit` when there are more. */
export const listInvitations = (
  db: Db,
  includeAccepted: boolean,
  { after, owner, skip, limit }: PageFrom,
): Promise<Invitation[]> =>
  db.rows(sql<Invitation>`
    select ${columns} from invitations
    where tenant_id = ${db.tenant} and (${includeAccepted} or status <> 'accepted')
      and (${owner}::uuid is null or invited_by = ${owner}::uuid)
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export const findTenantName = (db: Db): Promise<{ name: string } | undefined> =>
  db.one(sql<{ name: string }>`select name from tenants where tenant_id = ${db.tenant}`);

/** What stands behind a token, whether it still holds or not. */
export interface Offered {
  id: string;
  email: string;
  email_key: string;
  role: string;
  claims: Record<string, unknown>;
  status: Invitation['status'];
  token_hash: Buffer | null;
  expires_at: string;
  tenant_name: string;
  tenant_is_active: boolean;
  /** Who answers for it; null for operators. */
  invited_by: string | null;
}

export const findOffered = (db: Db, id: string): Promise<Offered | undefined> =>
  db.one(sql<Offered>`
    select i.id, i.email, i.email_key, i.role, i.claims, i.status, i.token_hash, i.expires_at, i.invited_by,
      t.name as tenant_name, t.is_active as tenant_is_active
    from invitations i join tenants t on t.tenant_id = i.tenant_id
    where i.tenant_id = ${db.tenant} and i.id = ${id}`);

/** Answers the id when the invitation could be accepted with this token until now; nobody else can from here on. */
export const acceptRow = (
  tenant: string,
  id: string,
  tokenHash: Buffer,
  now: Date,
): Statement<{ id: string }> => sql<{
  id: string;
}>`
  update invitations set status = 'accepted', token_hash = null, accepted_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and status = 'pending' and token_hash = ${tokenHash} and expires_at > ${now}
  returning id`;

/** Invitations nobody answers for any more end; of the others it is forgotten who did. Those it accepted go with the identity itself. */
export const forgetInviter = (tenant: string, identityId: string): Statement[] => [
  sql`delete from invitations where tenant_id = ${tenant} and invited_by = ${identityId} and status = 'pending'`,
  sql`update invitations set invited_by = null where tenant_id = ${tenant} and invited_by = ${identityId}`,
];

export const setAcceptedBy = (tenant: string, id: string, identityId: string): Statement =>
  sql`update invitations set identity_id = ${identityId} where tenant_id = ${tenant} and id = ${id}`;

export interface Renewal {
  token_hash: Buffer;
  invited_by: string | undefined;
  now: Date;
  /** Mails since then count. */
  hourAgo: Date;
  mostMails: number;
}

/** Gives a pending invitation another token and its full time again, unless too many mails went out this hour. */
export const renewRow = (
  tenant: string,
  id: string,
  { token_hash, invited_by, now, hourAgo, mostMails }: Renewal,
): Statement<Invitation> => sql<Invitation>`
  update invitations set token_hash = ${token_hash}, invited_by = ${invited_by}, updated_at = ${now},
    expires_at = ${now}::timestamptz + make_interval(days => expires_in_days),
    mails = case when mails_from <= ${hourAgo} then 1 else mails + 1 end,
    mails_from = case when mails_from <= ${hourAgo} then ${now} else mails_from end
  where tenant_id = ${tenant} and id = ${id} and status = 'pending' and expires_at > ${now}
    and (mails_from <= ${hourAgo} or mails < ${mostMails})
  returning ${columns}`;

export const deleteInvitation = (tenant: string, id: string): Statement<{ id: string }> => sql<{
  id: string;
}>`
  delete from invitations where tenant_id = ${tenant} and id = ${id} and status <> 'accepted' returning id`;

/** Ends pending invitations past their time, all or those for one address; answers those that ended by this. */
export const expireRows = (
  tenant: string,
  emailKey: string | undefined,
  now: Date,
): Statement<{ id: string; role: string }> => sql<{ id: string; role: string }>`
  update invitations set status = 'expired', token_hash = null, updated_at = ${now}
  where tenant_id = ${tenant} and status = 'pending' and expires_at <= ${now}
    and (${emailKey}::text is null or email_key = ${emailKey}::text)
  returning id, role`;

/** Tenants with pending invitations past their time; for the operator. */
export const listTenantsWithExpired = (operator: Db, now: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from invitations
    where status = 'pending' and expires_at <= ${now} and tenant_id is not null limit 500`);
