import type { FastifyReply } from 'fastify';
import type { Plan } from '../config.ts';
import type { Ctx, RouteClass } from '../context.ts';
import { ApiError, unavailable } from '../errors.ts';
import { type Bucket, SharedUnavailable, type Taken } from '../shared.ts';

interface Rate {
  rate: number;
  burst: number;
}

/** Tokens a second and burst of one credential and of a whole tenant, for the plan `free`. */
const classLimits: Record<RouteClass, { key: Rate; tenant: Rate }> = {
  run: { key: { rate: 1, burst: 5 }, tenant: { rate: 3, burst: 15 } },
  mutation: { key: { rate: 2, burst: 10 }, tenant: { rate: 5, burst: 25 } },
  read: { key: { rate: 5, burst: 20 }, tenant: { rate: 15, burst: 60 } },
  ops: { key: { rate: 2, burst: 10 }, tenant: { rate: 4, burst: 20 } },
};

/** Calls an hour of one operation by one tenant, for the plan `free`. */
const operationLimits: Record<string, number> = {
  'memory:create': 1_000,
  'memory:search': 2_000,
  'identity:create': 100,
  'policy:test': 500,
  'webhook:create': 50,
  'invitation:create': 50,
};

const planFactor: Record<Plan, number> = { free: 1, pro: 10, enterprise: 100 };

/**
 * Takes the cost of a request from the buckets of its credential, its tenant and its operation: all have room or none is charged.
 * @throws ApiError 429 RATE_LIMITED, or 503 RATE_LIMIT_UNAVAILABLE when Redis is away and RL_FAIL_MODE is closed
 */
export function limit(
  ctx: Ctx,
  reply: FastifyReply,
  routeClass: RouteClass,
  operation: string | undefined,
  cost: number,
  plan: Plan,
): Promise<void> | void {
  const factor = planFactor[plan];
  const limits = classLimits[routeClass];
  const buckets: Bucket[] = [
    { key: `k:${ctx.tenant}:${ctx.actor.credential}:${routeClass}`, ...scaled(limits.key, factor), cost },
    { key: `t:${ctx.tenant}:${routeClass}`, ...scaled(limits.tenant, factor), cost },
  ];
  const hourly = operation === undefined ? undefined : operationLimits[operation];
  if (hourly !== undefined) {
    buckets.push({
      key: `o:${ctx.tenant}:${operation}`,
      rate: (hourly * factor) / 3600,
      burst: hourly * factor,
      cost: 1,
    });
  }
  let taken: Promise<Taken> | Taken;
  try {
    taken = ctx.app.shared.take(buckets);
  } catch (error) {
    return lost(ctx, reply, error);
  }
  if (!(taken instanceof Promise)) return answer(ctx, reply, routeClass, buckets, taken);
  return taken.then(
    (outcome) => answer(ctx, reply, routeClass, buckets, outcome),
    (error) => lost(ctx, reply, error),
  );
}

/**
 * Takes what a request did of an operation beyond the one call it was counted as: the items of a bulk request.
 * @throws ApiError 429 RATE_LIMITED
 */
export async function chargeOperation(ctx: Ctx, operation: string, count: number): Promise<void> {
  const hourly = operationLimits[operation];
  if (!ctx.app.config.RATE_LIMIT_ENABLED || hourly === undefined || count <= 0) return;
  const burst = hourly * planFactor[await ctx.app.features.planOf(ctx.app, ctx.tenant)];
  const bucket = { key: `o:${ctx.tenant}:${operation}`, rate: burst / 3600, burst, cost: count };
  try {
    const taken = await ctx.app.shared.take([bucket]);
    if (!taken.allowed) throw refused(ctx, 'operation', 'mutation', taken.retryAfterMs);
  } catch (error) {
    if (!(error instanceof SharedUnavailable)) throw error;
    if (ctx.app.config.RL_FAIL_MODE === 'closed') throw limitsUnavailable();
  }
}

/**
 * Takes from what one address may do in an hour of something that needs no credential. Fails closed: without the limiter
 * nobody may.
 * @throws ApiError 429 RATE_LIMITED, 503 RATE_LIMIT_UNAVAILABLE
 */
export async function limitAddress(ctx: Ctx, operation: string, perHour: number): Promise<void> {
  if (!ctx.app.config.RATE_LIMIT_ENABLED) return;
  const bucket = { key: `a:${operation}:${ctx.request?.ip}`, rate: perHour / 3600, burst: perHour, cost: 1 };
  let taken: Taken;
  try {
    taken = await ctx.app.shared.take([bucket]);
  } catch (error) {
    throw error instanceof SharedUnavailable ? limitsUnavailable() : error;
  }
  if (!taken.allowed) throw refused(ctx, 'address', ctx.request!.route_class, taken.retryAfterMs);
}

const scaled = ({ rate, burst }: Rate, factor: number): Rate => ({
  rate: rate * factor,
  burst: burst * factor,
});

function lost(ctx: Ctx, reply: FastifyReply, error: unknown): void {
  if (!(error instanceof SharedUnavailable)) throw error;
  if (ctx.app.config.RL_FAIL_MODE === 'closed') {
    throw limitsUnavailable();
  }
  reply.header('x-ratelimit-status', 'degraded');
}

const scopes = ['api_key', 'tenant', 'operation'];

function answer(
  ctx: Ctx,
  reply: FastifyReply,
  routeClass: RouteClass,
  buckets: Bucket[],
  taken: Taken,
): void {
  const shown = taken.allowed ? tightest(buckets, taken.remaining) : taken.scope;
  const bucket = buckets[shown]!;
  const left = Math.max(0, Math.floor(taken.remaining[shown]!));
  const resetS = Math.ceil((bucket.burst - taken.remaining[shown]!) / bucket.rate);
  reply.raw.setHeader('x-ratelimit-limit', bucket.burst);
  reply.raw.setHeader('x-ratelimit-remaining', left);
  reply.raw.setHeader('x-ratelimit-reset', Math.floor(Date.now() / 1000) + resetS);
  reply.raw.setHeader(
    'ratelimit-policy',
    `"${routeClass}";q=${bucket.burst};w=${Math.ceil(bucket.burst / bucket.rate)}`,
  );
  reply.raw.setHeader('ratelimit', `"${routeClass}";r=${left};t=${resetS}`);
  if (taken.allowed) return;
  throw refused(ctx, scopes[taken.scope]!, routeClass, taken.retryAfterMs);
}

const limitsUnavailable = () =>
  unavailable('RATE_LIMIT_UNAVAILABLE', 'Limits can not be checked right now. Repeat the request.', 1);

function refused(ctx: Ctx, scope: string, routeClass: RouteClass, retryAfterMs: number): ApiError {
  ctx.app.metrics.rateLimited.inc({ scope });
  return new ApiError(
    429,
    'RATE_LIMITED',
    'Too many requests. Wait as long as Retry-After says.',
    { scope, route_class: routeClass, retry_after_ms: retryAfterMs },
    {
      'retry-after': String(Math.max(1, Math.ceil(retryAfterMs / 1000))),
      'x-ratelimit-scope': scope,
      'x-ratelimit-route-class': routeClass,
      'x-ratelimit-retry-after-ms': String(retryAfterMs),
    },
  );
}

const tightest = (buckets: Bucket[], remaining: number[]): number => {
  let least = 0;
  for (let i = 1; i < buckets.length; i++) {
    if (remaining[i]! / buckets[i]!.burst < remaining[least]! / buckets[least]!.burst) least = i;
  }
  return least;
};
