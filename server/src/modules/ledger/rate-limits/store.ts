import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface RuleRow {
  id: string;
  scope: 'tenant' | 'role' | 'identity' | 'credential';
  subject: string;
  endpoint: string;
  burst: number;
  window_seconds: number;
  is_operator: boolean;
  created_at: string;
  updated_at: string;
  tenant_id: string;
}

const columns = sql`id, scope, subject, endpoint, burst, window_seconds, is_operator, created_at, updated_at, tenant_id`;

/** A tenant has at most `limit` of them, so a list is one page. */
export const listRules = (db: Db, limit: number): Promise<RuleRow[]> =>
  db.rows(sql<RuleRow>`
    select ${columns} from rate_limit_rules where tenant_id = ${db.tenant}
    order by scope, subject, endpoint, is_operator limit ${limit}`);

export const findRule = (db: Db, id: string): Promise<RuleRow | undefined> =>
  db.one(sql<RuleRow>`select ${columns} from rate_limit_rules where tenant_id = ${db.tenant} and id = ${id}`);

/** Answers the rule as it is now; its id is that of the first time. */
export const upsertRule = (rule: RuleRow): Statement<RuleRow> => sql<RuleRow>`
  insert into rate_limit_rules (tenant_id, id, scope, subject, endpoint, burst, window_seconds, is_operator, created_at, updated_at)
  values (${rule.tenant_id}, ${rule.id}, ${rule.scope}, ${rule.subject}, ${rule.endpoint}, ${rule.burst},
    ${rule.window_seconds}, ${rule.is_operator}, ${rule.created_at}, ${rule.updated_at})
  on conflict (tenant_id, scope, subject, endpoint, is_operator) do update
    set burst = excluded.burst, window_seconds = excluded.window_seconds, updated_at = excluded.updated_at
  returning ${columns}`;

export const deleteRule = (tenant: string, id: string): Statement =>
  sql`delete from rate_limit_rules where tenant_id = ${tenant} and id = ${id}`;

export const deleteRulesAbout = (tenant: string, identityId: string): Statement => sql`
  delete from rate_limit_rules where tenant_id = ${tenant} and scope = 'identity' and subject = ${identityId}`;

/** Of the operator's, or of the tenant's own. */
export const countRules = (tx: Db, isOperator: boolean): Promise<{ rules: number } | undefined> =>
  tx.one(sql<{ rules: number }>`
    select count(*)::int as rules from rate_limit_rules
    where tenant_id = ${tx.tenant} and is_operator = ${isOperator}`);
