import type { Plan } from '#platform/config.ts';
import type { RouteClass } from '#platform/context.ts';
import type { Rate } from '#platform/http/limits.ts';

/** Tokens a second and burst of one credential and of a whole tenant, for the plan `free`. */
const classes: Record<RouteClass, { key: Rate; tenant: Rate }> = {
  run: { key: { rate: 1, burst: 5 }, tenant: { rate: 3, burst: 15 } },
  mutation: { key: { rate: 2, burst: 10 }, tenant: { rate: 5, burst: 25 } },
  read: { key: { rate: 5, burst: 20 }, tenant: { rate: 15, burst: 60 } },
  ops: { key: { rate: 2, burst: 10 }, tenant: { rate: 4, burst: 20 } },
};

/** Calls an hour of one operation by one tenant, for the plan `free`. */
const operations: Record<string, number> = {
  'memory:create': 1_000,
  'memory:search': 2_000,
  'memory:export': 20,
  'memory:import': 20,
  'identity:create': 100,
  'policy:test': 500,
  'oauth:token': 1_000,
  'webhook:create': 50,
  'invitation:create': 50,
  // Each looks through all buckets of the installation.
  'rate_limits:levels': 60,
};

export const routeClasses = Object.keys(classes) as RouteClass[];
export const operationNames = Object.keys(operations);

/** What a plan allows; the plans are multiples of `free`. */
export interface PlanLimits {
  key: Record<RouteClass, Rate>;
  tenant: Record<RouteClass, Rate>;
  operation: Record<string, Rate>;
}

export function planLimits(factors: Record<Plan, number>, plan: Plan): PlanLimits {
  const factor = factors[plan];
  const scaled = ({ rate, burst }: Rate): Rate => ({ rate: rate * factor, burst: burst * factor });
  const of = (which: 'key' | 'tenant') =>
    Object.fromEntries(routeClasses.map((name) => [name, scaled(classes[name][which])])) as PlanLimits['key'];
  const hourly = operationNames.map((name) => {
    const burst = operations[name]! * factor;
    return [name, { rate: burst / 3600, burst }] as const;
  });
  return { key: of('key'), tenant: of('tenant'), operation: Object.fromEntries(hourly) };
}
