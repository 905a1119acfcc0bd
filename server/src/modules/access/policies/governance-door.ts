import type { Ctx } from '#platform/context.ts';
import { notFound } from '#platform/errors.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid } from '#platform/ids.ts';
import { visiblePage } from '../policy/service.ts';
import { targetOf } from './change.ts';
import { governanceOf, policyOfGovernance } from './governance.ts';
import type { GovernancePolicy, GovernancePolicyCreate, GovernancePolicyPatch } from './schema.ts';
import { changeOne, deletePolicy, storeNew } from './service.ts';
import { findPolicy, listGovernance, type Policy } from './store.ts';
import { warned, warningsOf } from './warnings.ts';

/** Policies written in the governance form, the highest priority first. */
export const listGovernancePolicies = (
  ctx: Ctx,
  { rule_key, ...query }: PageQuery & { rule_key?: string },
): Promise<Answer> =>
  visiblePage(ctx, 'policy:list', { rule_key, form: 'governance' }, query, {
    rows: async (from) => (await listGovernance(ctx.db, rule_key, from)).map(shown),
    owned: false,
    target: ({ id }) => targetOf({ id, role: '*' }),
    position: ({ priority, id }) => [priority, id],
    size: 25,
  });

const shown = (policy: Policy): GovernancePolicy => governanceOf(policy)!;

const written = async (ctx: Ctx, policy: Policy): Promise<GovernancePolicy> => ({
  ...shown(policy),
  ...warned(await warningsOf(ctx.db, policy)),
});

/** @throws ApiError 409 POLICY_LOCKS_OUT, 422 for what can not be honoured */
export const createGovernancePolicy = async (
  ctx: Ctx,
  input: GovernancePolicyCreate,
): Promise<GovernancePolicy> => written(ctx, await storeNew(ctx, policyOfGovernance(input), input.force));

/** @throws ApiError 404 also for policies that are not in the governance form, 409, 422 */
export const changeGovernancePolicy = async (
  ctx: Ctx,
  id: string,
  { force, ...input }: GovernancePolicyPatch,
): Promise<GovernancePolicy> => {
  const policy = await changeOne(ctx, id, force ? { force } : {}, (before) => {
    const form = governanceOf(before);
    if (!form) throw notFound('Policy');
    const { description, tests } = before;
    return { ...policyOfGovernance({ ...form, ...input }), description, tests };
  });
  return written(ctx, policy);
};

/** @throws ApiError 404 also for policies that are not in the governance form, 409 */
export async function deleteGovernancePolicy(
  ctx: Ctx,
  id: string,
  force: boolean | undefined,
): Promise<void> {
  const policy = isUuid(id) ? await findPolicy(ctx.db, id) : undefined;
  if (!policy || !governanceOf(policy)) throw notFound('Policy');
  await deletePolicy(ctx, id, force);
}
