import type { Ctx, RouteClass } from '#platform/context.ts';
import { holdTenant } from '#platform/db/hold.ts';
import { conflict, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { bucketsOf } from '#platform/http/limits.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { isPermitted } from '#platform/permission.ts';
import type { FilledBucket } from '#platform/shared.ts';
import { limitsFor, mostRules, planLimitsOf, rateOf } from './effective.ts';
import type { Level, Rule, RuleSet } from './schema.ts';
import {
  countRules,
  deleteRule,
  deleteRulesAbout,
  findRule,
  listRules,
  type RuleRow,
  upsertRule,
} from './store.ts';
import { operationNames, routeClasses } from './table.ts';

export { limitsFor } from './effective.ts';
export { Rule, RuleSet } from './schema.ts';

const resourceOf = ({ burst, subject, ...rule }: RuleRow): Rule => ({
  ...rule,
  subject: subject || null,
  limit: burst,
});

/** Limits of the tenant that differ from its plan's. */
export const rulesOfTenant = async (ctx: Ctx): Promise<Rule[]> =>
  (await listRules(ctx.db, 2 * mostRules)).map(resourceOf);

/** An operator of the installation, who is let into a tenant's limits by the routes about tenants alone. */
const byOperator = ({ actor }: Ctx): boolean => actor.role === 'system';

/** A run takes three tokens at once: a smaller bucket would never let one through. */
const leastOf: Partial<Record<string, number>> = { run: 3 };

/**
 * Sets the limit of a tenant, role, identity or credential for a class of routes or an operation, in the place of an
 * earlier one. A tenant may only be stricter than its plan; the operator's rule stands in the plan's place.
 * @throws ApiError 409 RULE_LIMIT_REACHED, 422
 */
export async function setRule(ctx: Ctx, input: RuleSet): Promise<Rule> {
  const { scope, subject = '', endpoint, limit, window_seconds } = input;
  if ((scope === 'tenant') !== (subject === ''))
    throw invalid([
      { path: '/subject', message: scope === 'tenant' ? 'must be left out for a tenant' : 'is required' },
    ]);
  const least = leastOf[endpoint] ?? 1;
  if (limit < least) throw invalid([{ path: '/limit', message: `must be ${least} or more for ${endpoint}` }]);
  const isOperator = byOperator(ctx);
  if (!isOperator) await checkWithinPlan(ctx, input);
  const at = new Date().toISOString();
  const row: RuleRow = {
    id: uuidv7(),
    tenant_id: ctx.tenant,
    scope,
    subject,
    endpoint,
    burst: limit,
    window_seconds,
    is_operator: isOperator,
    created_at: at,
    updated_at: at,
  };
  return ctx.db.transaction(async (tx) => {
    await holdTenant(tx);
    const stored = (await tx.one(upsertRule(row)))!;
    if (((await countRules(tx, isOperator))?.rules ?? 0) > mostRules)
      throw conflict('RULE_LIMIT_REACHED', `A tenant has at most ${mostRules} rules. Delete one first.`);
    await tx.run(
      fact(ctx, {
        type: 'rate_limit.rule_set',
        resource_type: 'rate_limit',
        resource_id: stored.id,
        after: { scope, subject, endpoint, limit, window_seconds },
      }),
    );
    tx.afterCommit(() => ctx.app.shared.invalidate('rate_limits', ctx.tenant));
    return resourceOf(stored);
  });
}

async function checkWithinPlan({ app, tenant }: Ctx, input: RuleSet): Promise<void> {
  const plan = await planLimitsOf(app, tenant);
  const { endpoint, scope } = input;
  const table: Record<string, { rate: number; burst: number }> = {
    ...plan.operation,
    ...(scope === 'tenant' ? plan.tenant : plan.key),
  };
  const allowed = table[endpoint]!;
  const wanted = rateOf({ burst: input.limit, window_seconds: input.window_seconds });
  if (wanted.burst > allowed.burst)
    throw invalid([{ path: '/limit', message: `must not be more than the ${allowed.burst} of your plan` }]);
  if (wanted.rate > allowed.rate * 1.000_001) {
    const least = Math.ceil(input.limit / allowed.rate);
    throw invalid([
      { path: '/window_seconds', message: `must be ${least} or more to stay within your plan` },
    ]);
  }
}

/** @throws ApiError 404 also, for a tenant, for a rule of the operator's, and the other way round */
export async function removeRule(ctx: Ctx, id: string): Promise<void> {
  const rule = isUuid(id) ? await findRule(ctx.db, id) : undefined;
  const isOperator = byOperator(ctx);
  const mayBe = rule?.is_operator === isOperator;
  if (!rule || !mayBe || !(isOperator || (await isPermitted(ctx, 'rate_limits:delete', { id: rule.id }))))
    throw notFound('Rule');
  const { scope, subject, endpoint, burst, window_seconds } = rule;
  await ctx.db.batch([
    deleteRule(ctx.tenant, rule.id),
    fact(ctx, {
      type: 'rate_limit.rule_deleted',
      resource_type: 'rate_limit',
      resource_id: rule.id,
      before: { scope, subject, endpoint, limit: burst, window_seconds },
    }),
  ]);
  ctx.db.afterCommit(() => ctx.app.shared.invalidate('rate_limits', ctx.tenant));
}

/** Removes the rules about an identity. */
export async function forgetRulesOf(ctx: Ctx, identityId: string): Promise<void> {
  await ctx.db.run(deleteRulesAbout(ctx.tenant, identityId));
  ctx.app.shared.invalidate('rate_limits', ctx.tenant);
}

const scopes: Record<string, Level['scope']> = { k: 'api_key', c: 'operation', t: 'tenant', o: 'operation' };

function levelOf(tenant: string, { key, burst, rate, tokens }: FilledBucket): Level {
  const [, kind = 't', ...rest] = key.split(':');
  // Operations have a colon in their name, credentials none.
  const named = kind === 'k' || kind === 'c';
  const remaining = Math.max(0, Math.floor(tokens));
  return {
    client_key: named ? rest[0]! : tenant,
    scope: scopes[kind] ?? 'tenant',
    endpoint: (named ? rest.slice(1) : rest).join(':'),
    limit: burst,
    remaining,
    used: burst - remaining,
    reset_time: Math.floor(Date.now() / 1000 + (burst - tokens) / rate),
    window_seconds: Math.ceil(burst / rate),
  };
}

const mostShown = 1_000;

/** How full the buckets of the tenant are that were asked lately, the emptiest first; at most 1,000. */
export async function levelsOfTenant(ctx: Ctx): Promise<Level[]> {
  const buckets = await ctx.app.shared.levels(`${ctx.tenant}:`, mostShown);
  const levels = buckets.map((bucket) => levelOf(ctx.tenant, bucket));
  return levels.sort((a, b) => a.remaining / a.limit - b.remaining / b.limit);
}

/**
 * Fills the buckets of the tenant's credentials again. Those of the tenant as a whole stay as they are: a tenant can not
 * lift its own plan.
 */
export async function clearLevels(ctx: Ctx): Promise<{ message: string; deleted_count: number }> {
  const kinds = byOperator(ctx) ? ['k', 'c', 't', 'o'] : ['k', 'c'];
  let deleted = 0;
  for (const kind of kinds) deleted += await ctx.app.shared.clear(`${ctx.tenant}:${kind}:`);
  await ctx.db.run(
    fact(ctx, {
      type: 'rate_limit.cleared',
      resource_type: 'rate_limit',
      data: { deleted_count: deleted },
    }),
  );
  return { message: 'All rate limit records deleted', deleted_count: deleted };
}

/** The caller's own limits and what is left of them; asking takes nothing from them beyond the request itself. */
export async function ownLevels(ctx: Ctx, endpoint: RouteClass): Promise<Level & { limits: Level[] }> {
  const buckets = [];
  for (const routeClass of routeClasses)
    buckets.push(...bucketsOf(ctx, routeClass, undefined, 0, await limitsFor(ctx, routeClass, undefined)));
  for (const operation of operationNames)
    buckets.push(...bucketsOf(ctx, 'read', operation, 0, await limitsFor(ctx, 'read', operation)).slice(2));
  const { remaining } = await ctx.app.shared.take(buckets);
  const limits = buckets.map((bucket, i) => levelOf(ctx.tenant, { ...bucket, tokens: remaining[i]! }));
  const own = limits.find((level) => level.scope === 'api_key' && level.endpoint === endpoint)!;
  return { ...own, limits };
}
