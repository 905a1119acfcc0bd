import type { Ctx, Target } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { ApiError, conflict, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { compilePolicies, type PolicyRow, policiesChanged } from '../policy/service.ts';
import { mayLockOut, refuseLockOut } from './lock-out.ts';
import {
  type Change,
  type Content,
  countPolicies,
  deletePolicies,
  insertVersion,
  listRules,
  lockPolicies,
  type Policy,
  storePolicy,
} from './store.ts';
import { checkTests, rowOf, runTests, type TestResult } from './stored-tests.ts';

/** What a tenant may have: all of it is compiled when one policy changes, and kept in memory while it is used. */
const most = { policies: 5_000, bytes: 4 * 1024 * 1024 };

/** One policy exchanged for another, or for nothing. */
export interface Exchange {
  id: string;
  before: Policy | undefined;
  after: Content | undefined;
  version: number;
  change: Change;
  reason?: string | undefined;
  /** What the fact says besides. */
  data?: Record<string, unknown>;
}

export const targetOf = ({ id, role }: { id: string; role: string }): Target => ({ id, role });

/**
 * Changes policies as one: refuses what its stored tests, the number of policies, or the tenant's way back forbid, and
 * writes the policies, their versions and the facts. Changes of a tenant come one after another.
 * @param find reads what is there under the lock and says what becomes of it
 */
export async function changePolicies<T>(
  ctx: Ctx,
  force: boolean | undefined,
  find: (tx: Db) => Promise<{ exchanges: Exchange[]; answer: (stored: Map<string, Policy>) => T }>,
): Promise<T> {
  const answer = await ctx.db.transaction(async (tx) => {
    const locked = await tx.rows(lockPolicies(ctx.tenant));
    if (locked.length === 0) throw notFound('Tenant');
    const { exchanges, answer } = await find(tx);
    await check(ctx, tx, exchanges, force ?? false);
    return answer(await write(ctx, tx, exchanges));
  });
  policiesChanged(ctx);
  return answer;
}

async function check(ctx: Ctx, tx: Db, exchanges: Exchange[], force: boolean): Promise<void> {
  let known: Promise<PolicyRow[]> | undefined;
  const rows = () => (known ??= listRules(tx));
  const rowsAfter = async () => exchanged(await rows(), exchanges);
  if (exchanges.some(({ after }) => after)) await checkRoom(ctx, tx, exchanges);
  for (const { id, after } of exchanges) {
    if (!after) continue;
    checkTests(after);
    if (after.is_active && after.tests.length > 0) passed(await runTests(ctx.tenant, id, after, rowsAfter));
  }
  if (force || !exchanges.some(({ before, after }) => mayLockOut(before, after))) return;
  const targets = exchanges.flatMap(({ id, after }) => (after ? [targetOf({ id, role: after.role })] : []));
  const [before, after] = [compilePolicies(await rows()), compilePolicies(await rowsAfter())];
  await refuseLockOut(ctx, tx, before, after, targets);
}

async function checkRoom(ctx: Ctx, tx: Db, exchanges: Exchange[]): Promise<void> {
  const has = (await tx.one(countPolicies(ctx.tenant)))!;
  const size = (content: Content | undefined) =>
    content ? Buffer.byteLength(JSON.stringify(content.rule)) : 0;
  const made = exchanges.filter(({ before, after }) => after && !before).length;
  const grown = exchanges.reduce((sum, { before, after }) => sum + size(after) - size(before), 0);
  if (made > 0 && has.count + made > most.policies)
    throw conflict('POLICY_LIMIT_REACHED', `A tenant may have ${most.policies} policies. Delete some first.`);
  if (grown > 0 && has.bytes + grown > most.bytes)
    throw conflict(
      'POLICY_LIMIT_REACHED',
      `A tenant's rules may have ${most.bytes} bytes. Delete some first.`,
    );
}

/** The tenant's policies with some exchanged. */
export function exchanged(
  rows: PolicyRow[],
  exchanges: { id: string; after: Content | undefined }[],
): PolicyRow[] {
  const ids = new Set(exchanges.map(({ id }) => id));
  return [
    ...rows.filter(({ id }) => !ids.has(id)),
    ...exchanges.flatMap(({ id, after }) => (after ? [rowOf(id, after, after.is_active)] : [])),
  ];
}

function passed(results: TestResult[]): void {
  const failed = results.filter((result) => !result.passed).map(({ passed: _, ...result }) => result);
  if (failed.length === 0) return;
  throw new ApiError(
    422,
    'POLICY_TESTS_FAILED',
    'The policy does not do what its tests say; see details.failed. Correct it, or keep it with is_active false.',
    { failed },
  );
}

async function write(ctx: Ctx, tx: Db, exchanges: Exchange[]): Promise<Map<string, Policy>> {
  const now = new Date().toISOString();
  const stored = new Map<string, Policy>();
  const gone = exchanges.filter(({ after }) => !after).map(({ id }) => id);
  const statements = exchanges.flatMap(({ id, before, after, version, change, reason, data }) => {
    const content = after ?? contentOf(before!);
    const created_at = before?.created_at ?? now;
    const policy = { ...content, id, tenant_id: ctx.tenant, version, created_at, updated_at: now };
    if (after) stored.set(id, policy);
    return [
      ...(after ? [storePolicy(ctx.tenant, policy)] : []),
      insertVersion(ctx, {
        policy_id: id,
        version,
        change,
        content,
        reason: reason ?? null,
        created_at: now,
      }),
      fact(ctx, {
        type: `policy.${change === 'rolled_back' ? 'updated' : change}`,
        resource_type: 'policy',
        resource_id: id,
        ...(before ? { before: summaryOf(before, before.version) } : {}),
        ...(after ? { after: summaryOf(after, version) } : {}),
        data: { ...(reason ? { reason } : {}), ...data },
      }),
    ];
  });
  await tx.batch([...(gone.length > 0 ? [deletePolicies(ctx.tenant, gone)] : []), ...statements]);
  return stored;
}

const summaryOf = ({ role, effect, priority, is_active, rule_key }: Content, version: number) => ({
  role,
  effect,
  priority,
  is_active,
  rule_key,
  version,
});

/** A policy without its id and times. */
export function contentOf(policy: Policy): Content {
  const { role, rule, effect, priority, is_active, description, code, message, rule_key, tests, written_as } =
    policy;
  return { role, rule, effect, priority, is_active, description, code, message, rule_key, tests, written_as };
}
