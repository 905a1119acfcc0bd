import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

/** What somebody asked to do, with what policies look at and nothing else; what it leaves out can not be replayed. */
export interface RecordedQuestion {
  role: string;
  action: string;
  resource: string;
  identity_id: string;
  /** The agent that acted, when one acted for somebody. */
  agent_id?: string;
  /** `own`: the question of a route before a row is known. */
  target: RecordedTarget | 'own' | null;
  request: { method?: string; path?: string; route_class?: string };
}

export interface RecordedTarget {
  /** Whether it belonged to who asked; absent when it belonged to nobody. */
  own?: boolean;
  /** It was the one who asked. */
  itself?: true;
  id?: string;
  owner?: string;
  type?: string;
  role?: string;
  labels?: Record<string, unknown> | unknown[];
  metadata?: Record<string, unknown>;
}

export interface RecordedDecision {
  question: RecordedQuestion;
  allowed: boolean;
  policy_id: string | null;
  reason: string;
  count: number;
  /** Of the last time. */
  ip: string | null;
  first_seen: string;
  last_seen: string;
}

/** Adds to what is known of these questions. */
export function upsertDecisions(
  tenant: string,
  rows: (RecordedDecision & { hash: Buffer })[],
): Statement<{ hash: Buffer }> {
  // In one order everywhere, so that two processes do not wait for each other in a circle.
  const sorted = rows.toSorted((a, b) => Buffer.compare(a.hash, b.hash));
  const column = <K extends keyof (typeof rows)[number]>(name: K) => sorted.map((row) => row[name]);
  return sql`
    insert into policy_decisions as d (tenant_id, hash, question, allowed, policy_id, reason, count, ip, first_seen, last_seen)
    select ${tenant}, r.hash, r.question::jsonb, r.allowed, r.policy_id, r.reason, r.count, r.ip, r.first_seen, r.last_seen
    from unnest(${column('hash')}::bytea[], ${sorted.map(({ question }) => JSON.stringify(question))}::text[],
      ${column('allowed')}::boolean[], ${column('policy_id')}::text[], ${column('reason')}::text[],
      ${column('count')}::bigint[], ${column('ip')}::text[], ${column('first_seen')}::timestamptz[],
      ${column('last_seen')}::timestamptz[])
      as r (hash, question, allowed, policy_id, reason, count, ip, first_seen, last_seen)
    on conflict (tenant_id, hash) do update set allowed = excluded.allowed, policy_id = excluded.policy_id,
      reason = excluded.reason, count = d.count + excluded.count, ip = coalesce(excluded.ip, d.ip),
      last_seen = greatest(d.last_seen, excluded.last_seen)
    returning hash`;
}

/** Leaves a tenant its latest questions. Many are asked in one millisecond, so time alone does not say which those are. */
export const trimDecisions = (tenant: string, kept: number): Statement => sql`
  delete from policy_decisions where tenant_id = ${tenant} and (last_seen, hash) <= (
    select last_seen, hash from policy_decisions where tenant_id = ${tenant}
    order by last_seen desc, hash desc offset ${kept} limit 1)`;

/** A tenant's recorded decisions, the latest first. */
export const listDecisions = (db: Db, since: Date, limit: number): Promise<RecordedDecision[]> =>
  db.rows(sql<RecordedDecision>`
    select question, allowed, policy_id, reason, count, ip, first_seen, last_seen from policy_decisions
    where tenant_id = ${db.tenant} and last_seen >= ${since} order by last_seen desc, hash limit ${limit}`);

/** Those that somebody asked, or an agent for somebody, or that were about somebody or what is somebody's. */
export const deleteDecisionsOf = (tenant: string, identityId: string): Statement => sql`
  delete from policy_decisions where tenant_id = ${tenant} and (
    question ->> 'identity_id' = ${identityId} or question ->> 'agent_id' = ${identityId}
    or question -> 'target' ->> 'id' = ${identityId} or question -> 'target' ->> 'owner' = ${identityId})`;

/** Of all tenants. */
export async function deleteOldDecisions(operator: Db, before: Date): Promise<void> {
  await operator.run(sql`delete from policy_decisions where tenant_id is not null and last_seen < ${before}`);
}
