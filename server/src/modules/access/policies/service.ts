import type { Ctx } from '#platform/context.ts';
import { type ApiError, conflict, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { type PageQuery, page, positionOf } from '#platform/http/pages.ts';
import { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize } from '#platform/permission.ts';
import { BUILTIN_POLICIES, viewOf, visiblePage } from '../policy/service.ts';
import { changePolicies, contentOf, type Exchange, targetOf } from './change.ts';
import { formAfter } from './governance.ts';
import { checkedRule } from './rules.ts';
import type { PolicyBulkDelete, PolicyCreate, PolicyRollback, PolicyUpdate } from './schema.ts';
import { isStatement } from './statement.ts';
import {
  type Content,
  findPolicies,
  findPolicy,
  findVersion,
  type ListedPolicy,
  listVersions,
  listWithBuiltin,
  type Policy,
  type PolicyFilter,
  type Version,
} from './store.ts';
import { checkTestNames, warned, warningsOf } from './warnings.ts';

export { unnamedRole } from './warnings.ts';

const builtinPolicies: ReadonlyMap<string, ListedPolicy> = new Map(
  BUILTIN_POLICIES.map((row) => [
    row.id,
    {
      ...row,
      tenant_id: null,
      description: null,
      code: null,
      message: null,
      rule_key: null,
      tests: [],
      written_as: null,
      version: 1,
      builtin: true,
      created_at: null,
      updated_at: null,
    },
  ]),
);

const shown = (policy: Policy): ListedPolicy => ({ ...policy, builtin: false });

/** A policy as it was written, with what is probably not meant so. */
const written = async (ctx: Ctx, policy: Policy) => ({
  ...shown(policy),
  ...warned(await warningsOf(ctx.db, policy)),
});

/** The tenant's policies and the built-in ones: by role, the highest priority first. */
export const listVisiblePolicies = (
  ctx: Ctx,
  { role, is_active, ...query }: PageQuery & Partial<PolicyFilter>,
): Promise<Answer> =>
  visiblePage(ctx, 'policy:list', { role, is_active }, query, {
    rows: (from) => listWithBuiltin(ctx.db, { role, is_active }, from),
    owned: false,
    target: targetOf,
    position: (policy) => [policy.role, policy.priority, policy.id],
    size: 100,
  });

/** @throws ApiError 404 also for a policy the caller may not see */
export async function getPolicy(ctx: Ctx, id: string): Promise<ListedPolicy> {
  const stored = isUuid(id) ? await findPolicy(ctx.db, id) : undefined;
  const policy = stored ? shown(stored) : builtinPolicies.get(id);
  const view = await viewOf(ctx, 'policy:read');
  if (!policy || !view.reaches(targetOf(policy))) throw notFound('Policy');
  return policy;
}

/** The fields of a new policy, checked. */
export function contentFrom(input: PolicyCreate, at = ''): Content {
  const { role, rule, effect, force: _, ...rest } = input;
  checkTestNames(rest.tests ?? [], rule, `${at}/tests`);
  return {
    role,
    ...checkedRule(rule, effect, `${at}/rule`),
    priority: rest.priority ?? 0,
    is_active: rest.is_active ?? true,
    description: rest.description ?? null,
    code: rest.code ?? null,
    message: rest.message ?? null,
    rule_key: rest.rule_key ?? null,
    tests: rest.tests ?? [],
  };
}

/** A policy with some fields changed, checked. */
export function contentWith(before: Content, input: PolicyUpdate, at = ''): Content {
  const { rule, version: _v, reason: _r, force: _f, ...rest } = input;
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  const next: Content = { ...before, ...given };
  checkTestNames(input.tests ?? [], rule ?? before.rule, `${at}/tests`);
  if (rule !== undefined)
    return { ...next, ...checkedRule(rule, input.effect ?? effectUnlessStated(rule, before), `${at}/rule`) };
  // A statement that was written with its own effect no longer says what the policy does.
  const stated = before.written_as?.form === 'statement' && next.effect === before.effect;
  return { ...next, written_as: stated ? before.written_as : formAfter(before, next) };
}

/** A statement says its effect itself; of JSON Logic the policy's stays. */
const effectUnlessStated = (rule: unknown, before: Content): Content['effect'] | undefined =>
  isStatement(rule) ? undefined : before.effect;

/** @throws ApiError 409 POLICY_LOCKS_OUT, 422 also for stored tests that fail (POLICY_TESTS_FAILED) */
export const createPolicy = async (ctx: Ctx, input: PolicyCreate) =>
  written(ctx, await storeNew(ctx, contentFrom(input), input.force));

/** Stores a policy of either door. */
export async function storeNew(ctx: Ctx, content: Content, force: boolean | undefined): Promise<Policy> {
  const view = await viewOf(ctx, 'policy:create');
  // The route asked without knowing what is created; a policy may look at its role.
  if (view.watched) await authorize(ctx, 'policy:create', { role: content.role });
  const id = uuidv7();
  return changePolicies(ctx, force, async () => ({
    exchanges: [{ id, before: undefined, after: content, version: 1, change: 'created' }],
    answer: (stored) => stored.get(id)!,
  }));
}

/** @throws ApiError 404, 409 POLICY_BUILTIN, POLICY_CHANGED, POLICY_LOCKS_OUT, 422 */
export const updatePolicy = async (ctx: Ctx, id: string, input: PolicyUpdate) =>
  written(ctx, await changeOne(ctx, id, input, (before) => contentWith(contentOf(before), input)));

/** Changes a policy of either door. */
export async function changeOne(
  ctx: Ctx,
  id: string,
  { version, reason, force }: Pick<PolicyUpdate, 'version' | 'reason' | 'force'>,
  next: (before: Policy) => Content,
): Promise<Policy> {
  refuseBuiltin(id);
  const view = await viewOf(ctx, 'policy:update');
  return changePolicies(ctx, force, async (tx) => {
    const before = isUuid(id) ? await findPolicy(tx, id) : undefined;
    if (!before || !view.reaches(targetOf(before))) throw notFound('Policy');
    if (version !== undefined && version !== before.version) {
      const message = `The policy is at version ${before.version} by now. Read it again before you change it.`;
      throw conflict('POLICY_CHANGED', message, { version: before.version });
    }
    const after = next(before);
    if (after.role !== before.role) await authorize(ctx, 'policy:update', targetOf({ id, role: after.role }));
    const exchange: Exchange = {
      id: before.id,
      before,
      after,
      version: before.version + 1,
      change: 'updated',
      reason,
    };
    return { exchanges: [exchange], answer: (stored) => stored.get(before.id)! };
  });
}

const protectedFrom = 100;
/** Deleting what the people with most rights stand on is a slip more often than a wish. */
const isProtected = ({ role, priority }: Content): boolean =>
  (role === 'admin' || role === 'system') && priority >= protectedFrom;
const protectedMessage = 'Cannot delete critical system policy';

/** @throws ApiError 404, 409 POLICY_BUILTIN, POLICY_PROTECTED, POLICY_LOCKS_OUT */
export async function deletePolicy(ctx: Ctx, id: string, force: boolean | undefined): Promise<void> {
  const { failures } = await deleteAll(ctx, [id], force, undefined, false);
  if (failures[0]) throw failures[0].refusal;
}

/** Deletes policies, all but those that are not there, built in, or protected by their role and priority. */
export async function bulkDeletePolicies(ctx: Ctx, { policy_ids, reason, force }: PolicyBulkDelete) {
  const { deleted, failures } = await deleteAll(ctx, policy_ids, force, reason, true);
  return {
    deleted_count: deleted,
    failed_count: failures.length,
    failed_policies: failures.map(({ refusal: _, ...failure }) => failure),
    message: `Bulk delete completed: ${deleted} deleted, ${failures.length} failed`,
  };
}

interface Failure {
  policy_id: string;
  error: string;
  role?: string;
  priority?: number;
  refusal: ApiError;
}

async function deleteAll(
  ctx: Ctx,
  policyIds: string[],
  force: boolean | undefined,
  reason: string | undefined,
  bulk: boolean,
): Promise<{ deleted: number; failures: Failure[] }> {
  const view = await viewOf(ctx, 'policy:delete');
  const ids = [...new Set(policyIds.map((id) => id.toLowerCase()))];
  return changePolicies(ctx, force, async (tx) => {
    const found = new Map((await findPolicies(tx, ids.filter(isUuid))).map((policy) => [policy.id, policy]));
    const failures: Failure[] = [];
    const exchanges: Exchange[] = [];
    for (const id of ids) {
      const policy = found.get(id);
      const before = policy && view.reaches(targetOf(policy)) ? policy : undefined;
      const failure = deletionRefusal(id, before);
      if (failure) failures.push(failure);
      else
        exchanges.push({
          id,
          before,
          after: undefined,
          version: before!.version + 1,
          change: 'deleted',
          reason,
        });
    }
    if (bulk && exchanges.length > 0) {
      await tx.run(
        fact(ctx, {
          type: 'policy.bulk_deleted',
          resource_type: 'policy',
          data: { policy_ids: exchanges.map(({ id }) => id), ...(reason ? { reason } : {}) },
        }),
      );
    }
    return { exchanges, answer: () => ({ deleted: exchanges.length, failures }) };
  });
}

function deletionRefusal(id: string, policy: Policy | undefined): Failure | undefined {
  if (builtinPolicies.has(id)) return failureOf(id, builtinRefusal());
  if (!policy) return failureOf(id, notFound('Policy'), 'Policy not found');
  if (!isProtected(policy)) return undefined;
  const { role, priority } = policy;
  const message = `${protectedMessage}: lower its priority below ${protectedFrom} first.`;
  return { ...failureOf(id, conflict('POLICY_PROTECTED', message), protectedMessage), role, priority };
}

const failureOf = (policy_id: string, refusal: ApiError, error = refusal.message): Failure => ({
  policy_id,
  error,
  refusal,
});

const builtinRefusal = () =>
  conflict(
    'POLICY_BUILTIN',
    'Built-in policies can not be changed. Write a policy of your own: it is asked before them.',
  );

function refuseBuiltin(id: string): void {
  if (builtinPolicies.has(id)) throw builtinRefusal();
}

export const versionShown = ({ content, actor_type, actor_id, on_behalf_of, ...version }: Version) => ({
  ...version,
  changed_by: { type: actor_type, id: actor_id, on_behalf_of },
  policy: content,
});

/** A page of the states a policy had, the latest first; also of one that was deleted. @throws ApiError 404, 400 INVALID_CURSOR */
export async function policyVersions(ctx: Ctx, id: string, query: PageQuery): Promise<Answer> {
  if (builtinPolicies.has(id)) return new Answer(200, []);
  const view = await viewOf(ctx, 'policy:read');
  const [latest] = isUuid(id) ? await listVersions(ctx.db, id, { skip: 0, limit: 1 }) : [];
  if (!latest || !view.reaches(targetOf({ id, role: latest.content.role }))) throw notFound('Policy');
  const list = `policy versions ${id}`;
  const after = positionOf(ctx, list, {}, query.cursor);
  const limit = query.limit ?? 100;
  const rows = await listVersions(ctx.db, id, {
    limit,
    ...(after ? { after } : {}),
    skip: query.skip ?? 0,
  });
  return page(ctx, list, {}, rows, limit, ({ version }) => [version], versionShown);
}

export async function policyVersion(ctx: Ctx, id: string, version: string) {
  const number = /^[1-9]\d{0,8}$/.test(version) ? Number(version) : undefined;
  const found = number !== undefined && isUuid(id) ? await findVersion(ctx.db, id, number) : undefined;
  const view = await viewOf(ctx, 'policy:read');
  if (!found || !view.reaches(targetOf({ id, role: found.content.role }))) throw notFound('Policy version');
  return versionShown(found);
}

/** Makes a policy what it was at a version, as a new version. A deleted policy comes back. */
export async function rollBackPolicy(ctx: Ctx, id: string, input: PolicyRollback) {
  refuseBuiltin(id);
  const view = await viewOf(ctx, 'policy:update');
  const policy = await changePolicies(ctx, input.force, async (tx) => {
    const [latest] = isUuid(id) ? await listVersions(tx, id, { skip: 0, limit: 1 }) : [];
    if (!latest || !view.reaches(targetOf({ id, role: latest.content.role }))) throw notFound('Policy');
    const wanted = await findVersion(tx, id, input.version);
    if (!wanted || !view.reaches(targetOf({ id, role: wanted.content.role })))
      throw notFound('Policy version');
    const exchange: Exchange = {
      id: latest.policy_id,
      before: await findPolicy(tx, id),
      after: wanted.content,
      version: latest.version + 1,
      change: 'rolled_back',
      reason: input.reason,
      data: { rolled_back_to: input.version },
    };
    return { exchanges: [exchange], answer: (stored) => stored.get(latest.policy_id)! };
  });
  return written(ctx, policy);
}
