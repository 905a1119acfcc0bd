import type { FastifyReply } from 'fastify';
import type { Ctx, RouteClass } from '../context.ts';
import { ApiError, SharedUnavailable } from '../errors.ts';
import type { Bucket, Taken } from '../shared.ts';

/** Tokens a second up to a burst. */
export interface Rate {
  rate: number;
  burst: number;
}

/** What a request counts against: its credential and its tenant by class of route, and the operation by both. */
export interface Limits {
  key: Rate;
  tenant: Rate;
  operation: Rate | undefined;
  keyOperation: Rate | undefined;
}

/** The buckets of a request, those of its class first. Their keys begin with the tenant, whose id holds no colon. */
export function bucketsOf(
  { tenant, actor }: Pick<Ctx, 'tenant' | 'actor'>,
  routeClass: RouteClass,
  operation: string | undefined,
  cost: number,
  limits: Limits,
): Bucket[] {
  const buckets: Bucket[] = [
    { key: `${tenant}:k:${actor.credential}:${routeClass}`, ...limits.key, cost },
    { key: `${tenant}:t:${routeClass}`, ...limits.tenant, cost },
  ];
  const calls = Math.min(cost, 1);
  if (limits.operation) buckets.push({ key: `${tenant}:o:${operation}`, ...limits.operation, cost: calls });
  if (limits.keyOperation)
    buckets.push({
      key: `${tenant}:c:${actor.credential}:${operation}`,
      ...limits.keyOperation,
      cost: calls,
    });
  return buckets;
}

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
  limits: Limits,
): Promise<void> | void {
  const buckets = bucketsOf(ctx, routeClass, operation, cost, limits);
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
  if (!ctx.app.config.RATE_LIMIT_ENABLED || count <= 0) return;
  const limits = await ctx.app.features.limitsFor(ctx, 'mutation', operation);
  const buckets = bucketsOf(ctx, 'mutation', operation, 1, limits)
    .slice(2)
    .map((bucket) => ({ ...bucket, cost: count }));
  if (buckets.length === 0) return;
  try {
    const taken = await ctx.app.shared.take(buckets);
    if (!taken.allowed) throw refused(ctx, 'operation', 'mutation', taken.retryAfterMs);
  } catch (error) {
    if (!(error instanceof SharedUnavailable)) throw error;
    if (ctx.app.config.RL_FAIL_MODE === 'closed') throw error;
  }
}

/**
 * Takes from what one address may do in an hour of something that needs no credential. Fails closed: without the limiter
 * nobody may.
 * @throws ApiError 429 RATE_LIMITED, 503 RATE_LIMIT_UNAVAILABLE
 */
export async function limitAddress(ctx: Ctx, operation: string, perHour: number): Promise<void> {
  if (!ctx.app.config.RATE_LIMIT_ENABLED) return;
  const bucket = { key: `@:${operation}:${ctx.request?.ip}`, rate: perHour / 3600, burst: perHour, cost: 1 };
  const taken = await ctx.app.shared.take([bucket]);
  if (!taken.allowed) throw refused(ctx, 'address', ctx.request!.route_class, taken.retryAfterMs);
}

function lost(ctx: Ctx, reply: FastifyReply, error: unknown): void {
  if (!(error instanceof SharedUnavailable)) throw error;
  if (ctx.app.config.RL_FAIL_MODE === 'closed') throw error;
  reply.header('x-ratelimit-status', 'degraded');
}

const scopes = ['api_key', 'tenant', 'operation', 'operation'];

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
