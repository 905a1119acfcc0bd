import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Use } from '../last-use/service.ts';
import type { DeviceInfo } from './device.ts';

export interface SessionRow {
  id: string;
  identity_id: string;
  device_info: Partial<DeviceInfo>;
  ip_address: string | null;
  user_agent: string | null;
  is_active: boolean;
  expires_at: string;
  last_used_at: string;
  created_at: string;
  updated_at: string;
  tenant_id: string;
}

const columns = sql`id, identity_id, device_info, ip_address, user_agent, is_active, expires_at, last_used_at, created_at,
  updated_at, tenant_id`;

export interface NewSession {
  tenant_id: string;
  id: string;
  /** See `activeHolder`. */
  holder: Statement;
  refresh_hash: Buffer;
  device_info: DeviceInfo;
  expires_at: Date;
  now: Date;
}

export const insertSession = (session: NewSession): Statement => sql`
  insert into sessions (tenant_id, id, identity_id, refresh_hash, device_info, ip_address, user_agent, expires_at, last_used_at,
    created_at, updated_at)
  values (${session.tenant_id}, ${session.id}, ${session.holder}, ${session.refresh_hash}, ${session.device_info},
    ${session.device_info.ip_address}, ${session.device_info.user_agent}, ${session.expires_at}, ${session.now},
    ${session.now}, ${session.now})`;

export interface SessionState {
  identity_id: string;
  is_active: boolean;
  expires_at: string;
  last_used_at: string;
}

export const findSessionState = (db: Db, id: string): Promise<SessionState | undefined> =>
  db.one(sql<SessionState>`
    select identity_id, is_active, expires_at, last_used_at from sessions where tenant_id = ${db.tenant} and id = ${id}`);

export const findSession = (db: Db, id: string): Promise<SessionRow | undefined> =>
  db.one(sql<SessionRow>`select ${columns} from sessions where tenant_id = ${db.tenant} and id = ${id}`);

/** Living sessions of an identity, last used first; one row more than `limit` when there are more. */
export const listSessions = (
  db: Db,
  identityId: string,
  { after, skip, limit }: PageFrom,
  now: Date,
): Promise<SessionRow[]> =>
  db.rows(sql<SessionRow>`
    select ${columns} from sessions
    where tenant_id = ${db.tenant} and identity_id = ${identityId} and is_active and expires_at > ${now}
      and (${after?.[0]}::timestamptz is null or (last_used_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by last_used_at desc, id desc limit ${limit + 1} offset ${skip}`);

/** All that decides about a refresh, kept from changing until the transaction ends. */
export interface RefreshState {
  identity_id: string;
  external_id: string;
  role: string;
  refresh_hash: Buffer;
  previous_hash: Buffer | null;
  successor_salt: Buffer | null;
  rotated_at: string | null;
  is_active: boolean;
  expires_at: string;
  /** Identity and tenant are active. */
  holder_is_active: boolean;
}

export const lockForRefresh = (tx: Db, id: string): Promise<RefreshState | undefined> =>
  tx.one(sql<RefreshState>`
    select s.identity_id, i.external_id, i.role, s.refresh_hash, s.previous_hash, s.successor_salt, s.rotated_at, s.is_active,
      s.expires_at, i.is_active and t.is_active as holder_is_active
    from sessions s
    join identities i on i.tenant_id = s.tenant_id and i.id = s.identity_id
    join tenants t on t.tenant_id = s.tenant_id
    where s.tenant_id = ${tx.tenant} and s.id = ${id} for update of s`);

export interface Rotation {
  tenant_id: string;
  id: string;
  refresh_hash: Buffer;
  previous_hash: Buffer;
  successor_salt: Buffer;
  ip: string | null;
  user_agent: string | null;
  now: Date;
}

export const rotateRefreshToken = (rotation: Rotation): Statement => sql`
  update sessions set refresh_hash = ${rotation.refresh_hash}, previous_hash = ${rotation.previous_hash},
    successor_salt = ${rotation.successor_salt}, rotated_at = ${rotation.now}, last_used_at = ${rotation.now},
    ip_address = ${rotation.ip}, user_agent = ${rotation.user_agent}, updated_at = ${rotation.now}
  where tenant_id = ${rotation.tenant_id} and id = ${rotation.id}`;

/** Answers the session when it ended by this. */
export const revokeSessionRow = (
  tenant: string,
  id: string,
  now: Date,
): Statement<{ id: string; identity_id: string }> => sql<{ id: string; identity_id: string }>`
  update sessions set is_active = false, revoked_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and id = ${id} and is_active returning id, identity_id`;

/** Ends the sessions of identities, except one where it is given; answers those that ended by this. */
export const revokeSessionRows = (
  tenant: string,
  identityIds: string[],
  keep: string | undefined,
  now: Date,
): Statement<{ id: string; identity_id: string }> => sql<{ id: string; identity_id: string }>`
  update sessions set is_active = false, revoked_at = ${now}, updated_at = ${now}
  where tenant_id = ${tenant} and identity_id = any(${identityIds}::uuid[]) and is_active and expires_at > ${now}
    and (${keep}::uuid is null or id <> ${keep}::uuid)
  returning id, identity_id`;

/** Rows that are being changed at this moment are passed over: this must never wait for one while it holds another. */
export const writeSessionUses = (tenant: string, uses: Use[]): Statement => sql`
  update sessions set last_used_at = r.at, ip_address = r.ip, user_agent = r.user_agent
  from unnest(${uses.map(({ id }) => id)}::uuid[], ${uses.map(({ at }) => at)}::timestamptz[],
    ${uses.map(({ ip }) => ip)}::text[], ${uses.map(({ user_agent }) => user_agent)}::text[]) as r (id, at, ip, user_agent)
  where sessions.tenant_id = ${tenant} and sessions.id = r.id and sessions.last_used_at < r.at
    and sessions.id in (
      select id from sessions where tenant_id = ${tenant} and id = any(${uses.map(({ id }) => id)}::uuid[]) for update skip locked)`;

/** Tenants with sessions that ended before `before`; for the operator. */
export const listTenantsWithEnded = (operator: Db, before: Date): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from sessions
    where (expires_at < ${before} or revoked_at < ${before}) and tenant_id is not null limit 1000`);

/** Removes sessions that ended before `before`; answers which. */
export const removeEnded = (tx: Db, before: Date, limit: number): Promise<{ id: string }[]> =>
  tx.rows(sql<{ id: string }>`
    delete from sessions where tenant_id = ${tx.tenant} and id = any(array(
      select id from sessions where tenant_id = ${tx.tenant} and (expires_at < ${before} or revoked_at < ${before})
      order by id limit ${limit} for update skip locked)) returning id`);
