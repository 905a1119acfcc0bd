import type { Actor, Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import { BUILTIN_POLICIES, type PolicyRow } from '../policy/service.ts';
import type { StoredTest } from './schema.ts';

/** A policy as it was written, where that was not JSON Logic. */
export type WrittenAs =
  | { form: 'governance'; condition_json: Record<string, unknown>; action_json: Record<string, unknown> }
  | { form: 'statement'; rule: Record<string, unknown> };

/** What a version keeps of a policy: all of it but its id and times. */
export interface Content {
  role: string;
  rule: unknown;
  effect: 'allow' | 'deny';
  priority: number;
  is_active: boolean;
  description: string | null;
  code: string | null;
  message: string | null;
  rule_key: string | null;
  tests: StoredTest[];
  written_as: WrittenAs | null;
}

export interface Policy extends Content {
  id: string;
  tenant_id: string;
  version: number;
  created_at: string;
  updated_at: string;
}

export type Change = 'created' | 'updated' | 'deleted' | 'rolled_back';

export interface Version {
  policy_id: string;
  version: number;
  change: Change;
  content: Content;
  reason: string | null;
  actor_type: string;
  actor_id: string;
  on_behalf_of: string | null;
  created_at: string;
}

const columns = sql`id, tenant_id, role, rule, effect, priority, is_active, description, code, message, rule_key, tests,
  written_as, version, created_at, updated_at`;

/** Lets changes of a tenant's policies wait for one another: each is judged by what all of them together allow. */
export const lockPolicies = (tenant: string) => sql<{ tenant_id: string }>`
  select tenant_id from tenants where tenant_id = ${tenant} for no key update`;

/** How many, and how much their rules are. */
export const countPolicies = (tenant: string) => sql<{ count: number; bytes: number }>`
  select count(*) as count, coalesce(sum(octet_length(rule::text)), 0) as bytes from policies where tenant_id = ${tenant}`;

export const findPolicy = (db: Db, id: string): Promise<Policy | undefined> =>
  db.one(sql<Policy>`select ${columns} from policies where tenant_id = ${db.tenant} and id = ${id}`);

export const findPolicies = (db: Db, ids: string[]): Promise<Policy[]> =>
  db.rows(
    sql<Policy>`select ${columns} from policies where tenant_id = ${db.tenant} and id = any(${ids}::uuid[])`,
  );

/** As deciding needs them. */
export const listRules = (db: Db): Promise<PolicyRow[]> =>
  db.rows(sql<PolicyRow>`
    select id, role, rule, effect, priority, is_active, code, message from policies where tenant_id = ${db.tenant}`);

export interface PolicyFilter {
  role: string | undefined;
  is_active: boolean | undefined;
}

export type ListedPolicy = Omit<Policy, 'tenant_id' | 'created_at' | 'updated_at'> & {
  tenant_id: string | null;
  created_at: string | null;
  updated_at: string | null;
  builtin: boolean;
};

/** The tenant's and the built-in ones; by role, the highest priority first. One row more than `limit` when there are more. */
export const listWithBuiltin = (
  db: Db,
  filter: PolicyFilter,
  { after, skip, limit }: PageFrom,
): Promise<ListedPolicy[]> =>
  db.rows(sql<ListedPolicy>`
    select * from (
      select id::text, tenant_id, role, rule, effect, priority, is_active, description, code, message, rule_key, tests,
        written_as, version, false as builtin, created_at, updated_at
      from policies where tenant_id = ${db.tenant}
      union all
      select b.id, null, b.role, b.rule::jsonb, 'allow', 0, true, null, null, null, null, '[]'::jsonb, null, 1, true, null, null
      from unnest(${BUILTIN_POLICIES.map(({ id }) => id)}::text[], ${BUILTIN_POLICIES.map(({ role }) => role)}::text[],
        ${BUILTIN_POLICIES.map(({ rule }) => JSON.stringify(rule))}::text[]) as b (id, role, rule)
    ) listed
    where (${filter.role}::text is null or role = ${filter.role})
      and (${filter.is_active}::boolean is null or is_active = ${filter.is_active})
      and (${after?.[0]}::text is null
        or (role collate "C", -priority, id collate "C") > (${after?.[0]}::text, -(${after?.[1]}::int), ${after?.[2]}::text))
    order by role collate "C", -priority, id collate "C" limit ${limit + 1} offset ${skip}`);

/** Those written in the governance form; the highest priority first, as they decide. */
export const listGovernance = (
  db: Db,
  ruleKey: string | undefined,
  { after, skip, limit }: PageFrom,
): Promise<Policy[]> =>
  db.rows(sql<Policy>`
    select ${columns} from policies
    where tenant_id = ${db.tenant} and written_as ->> 'form' = 'governance'
      and (${ruleKey}::text is null or rule_key = ${ruleKey})
      and (${after?.[0]}::int is null or (-priority, id) > (-(${after?.[0]}::int), ${after?.[1]}::uuid))
    order by -priority, id limit ${limit + 1} offset ${skip}`);

export const storePolicy = (tenant: string, p: Policy): Statement => sql`
  insert into policies (tenant_id, id, role, rule, effect, priority, is_active, description, code, message, rule_key,
    tests, written_as, version, created_at, updated_at)
  values (${tenant}, ${p.id}, ${p.role}, ${JSON.stringify(p.rule)}, ${p.effect}, ${p.priority}, ${p.is_active},
    ${p.description}, ${p.code}, ${p.message}, ${p.rule_key}, ${JSON.stringify(p.tests)}, ${p.written_as}, ${p.version},
    ${p.created_at}, ${p.updated_at})
  on conflict (tenant_id, id) do update set role = excluded.role, rule = excluded.rule, effect = excluded.effect,
    priority = excluded.priority, is_active = excluded.is_active, description = excluded.description,
    code = excluded.code, message = excluded.message, rule_key = excluded.rule_key, tests = excluded.tests,
    written_as = excluded.written_as, version = excluded.version, updated_at = excluded.updated_at`;

export const deletePolicies = (tenant: string, ids: string[]): Statement => sql`
  delete from policies where tenant_id = ${tenant} and id = any(${ids}::uuid[])`;

/** Who changes something, as its version keeps it; for an agent that acts for somebody, the agent first. */
function authorOf({ type, identity_id, credential, delegation }: Actor) {
  const agent = delegation?.agents[0];
  return {
    actor_type: type,
    actor_id: agent?.identity_id ?? identity_id ?? credential,
    on_behalf_of: agent && identity_id,
  };
}

export function insertVersion(
  ctx: Ctx,
  version: Pick<Version, 'policy_id' | 'version' | 'change' | 'content' | 'reason' | 'created_at'>,
): Statement {
  const by = authorOf(ctx.actor);
  return sql`
    insert into policy_versions (tenant_id, policy_id, version, change, content, reason, actor_type, actor_id,
      on_behalf_of, request_id, created_at)
    values (${ctx.tenant}, ${version.policy_id}, ${version.version}, ${version.change}, ${version.content},
      ${version.reason}, ${by.actor_type}, ${by.actor_id}, ${by.on_behalf_of}, ${ctx.requestId}, ${version.created_at})`;
}

/** The latest first. */
export const listVersions = (db: Db, id: string, { after, skip, limit }: PageFrom): Promise<Version[]> =>
  db.rows(sql<Version>`
    select policy_id, version, change, content, reason, actor_type, actor_id, on_behalf_of, created_at
    from policy_versions
    where tenant_id = ${db.tenant} and policy_id = ${id} 
      and (${after?.[0]}::int is null or version < ${after?.[0]}::int)
    order by version desc limit ${limit + 1} offset ${skip}`);

export const findVersion = (db: Db, id: string, version: number): Promise<Version | undefined> =>
  db.one(sql<Version>`
    select policy_id, version, change, content, reason, actor_type, actor_id, on_behalf_of, created_at
    from policy_versions where tenant_id = ${db.tenant} and policy_id = ${id} and version = ${version}`);
