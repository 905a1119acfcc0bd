import { createCache } from '#platform/cache.ts';
import { plans } from '#platform/config.ts';
import type { Actor, App, Ctx, RouteClass } from '#platform/context.ts';
import type { Limits, Rate } from '#platform/http/limits.ts';
import { perApp } from '#platform/per-app.ts';
import { listRules, type RuleRow } from './store.ts';
import { type PlanLimits, planLimits } from './table.ts';

/** Most rules of a tenant; all of them are read at once. */
export const mostRules = 200;

const plansOf = perApp(
  ({ config }) =>
    Object.fromEntries(plans.map((plan) => [plan, planLimits(config.rateLimitFactors, plan)])) as Record<
      (typeof plans)[number],
      PlanLimits
    >,
);

/** What the plan of a tenant allows, before any rule. */
export const planLimitsOf = async (app: App, tenant: string): Promise<PlanLimits> =>
  plansOf(app)[await app.features.planOf(app, tenant)];

/** Rates by `scope subject endpoint`: those of the operator, and those of the tenant itself. */
interface RuleIndex {
  operator: ReadonlyMap<string, Rate>;
  own: ReadonlyMap<string, Rate>;
}

const cacheOf = perApp((app) => createCache<RuleIndex>(app.shared, 'rate_limits', 10_000));

async function rulesOf(app: App, tenant: string): Promise<RuleIndex> {
  const cache = cacheOf(app);
  return (
    cache.peek(tenant) ??
    cache.get(tenant, async () => {
      const rows = await listRules(app.database.tenant(tenant), 2 * mostRules);
      const index = (isOperator: boolean) =>
        new Map(
          rows.filter((row) => row.is_operator === isOperator).map((row) => [nameOf(row), rateOf(row)]),
        );
      return { operator: index(true), own: index(false) };
    })
  );
}

const nameOf = ({ scope, subject, endpoint }: Pick<RuleRow, 'scope' | 'subject' | 'endpoint'>): string =>
  `${scope} ${subject} ${endpoint}`;

export const rateOf = ({ burst, window_seconds }: Pick<RuleRow, 'burst' | 'window_seconds'>): Rate => ({
  rate: burst / window_seconds,
  burst,
});

/** Whom a rule may be about, the most particular first; the agent that acts before the person it acts for. */
function subjectsOf({
  credential,
  identity_id,
  role,
  delegation,
}: Actor): Pick<RuleRow, 'scope' | 'subject'>[] {
  const agent = delegation?.agents[0];
  const identities = [agent?.identity_id, identity_id].filter((id) => id !== undefined);
  const roles = [agent?.role, role].filter((name) => name !== undefined);
  return [
    { scope: 'credential', subject: credential },
    ...identities.map((subject) => ({ scope: 'identity' as const, subject })),
    ...roles.map((subject) => ({ scope: 'role' as const, subject })),
  ];
}

const everybody = [{ scope: 'tenant' as const, subject: '' }];

/** The first rule that is about one of these. */
function ruleFor(
  rules: ReadonlyMap<string, Rate>,
  subjects: Pick<RuleRow, 'scope' | 'subject'>[],
  endpoint: string,
): Rate | undefined {
  for (const subject of subjects) {
    const rate = rules.get(nameOf({ ...subject, endpoint }));
    if (rate) return rate;
  }
  return undefined;
}

/** A tenant's own rule makes a limit narrower than its plan, never wider; the operator's stands in the plan's place. */
function narrowed(
  planned: Rate | undefined,
  operator: Rate | undefined,
  own: Rate | undefined,
): Rate | undefined {
  const base = operator ?? planned;
  if (!base || !own) return base ?? own;
  return { rate: Math.min(base.rate, own.rate), burst: Math.min(base.burst, own.burst) };
}

/** What a request of this actor counts against. */
export async function limitsFor(
  { app, tenant, actor }: Pick<Ctx, 'app' | 'tenant' | 'actor'>,
  routeClass: RouteClass,
  operation: string | undefined,
): Promise<Limits> {
  const plan = await planLimitsOf(app, tenant);
  const { operator, own } = await rulesOf(app, tenant);
  if (operator.size + own.size === 0) {
    const hourly = operation === undefined ? undefined : plan.operation[operation];
    return {
      key: plan.key[routeClass],
      tenant: plan.tenant[routeClass],
      operation: hourly,
      keyOperation: undefined,
    };
  }
  const subjects = subjectsOf(actor);
  const of = (planned: Rate | undefined, whom: typeof subjects, endpoint: string) =>
    narrowed(planned, ruleFor(operator, whom, endpoint), ruleFor(own, whom, endpoint));
  return {
    key: of(plan.key[routeClass], subjects, routeClass)!,
    tenant: of(plan.tenant[routeClass], everybody, routeClass)!,
    operation: operation === undefined ? undefined : of(plan.operation[operation], everybody, operation),
    keyOperation: operation === undefined ? undefined : of(undefined, subjects, operation),
  };
}
