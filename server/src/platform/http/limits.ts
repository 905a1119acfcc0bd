import type { FastifyReply } from 'fastify';
import type { App, Ctx, RouteClass } from '../context.ts';
import { ApiError, SharedUnavailable } from '../errors.ts';
import type { Bucket, Taken } from '../shared.ts';
import { networkOf } from './network.ts';

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
 * @throws ApiError 429 RATE_LIMITED, 413 BULK_TOO_LARGE when it is more than ever can be taken at once
 */
export async function chargeOperation(ctx: Ctx, operation: string, count: number): Promise<void> {
  if (!ctx.app.config.RATE_LIMIT_ENABLED || count <= 0) return;
  const limits = await ctx.app.features.limitsFor(ctx, 'mutation', operation);
  const buckets = bucketsOf(ctx, 'mutation', operation, 1, limits)
    .slice(2)
    .map((bucket) => ({ ...bucket, cost: count }));
  if (buckets.length === 0) return;
  const most = Math.floor(Math.min(...buckets.map(({ burst }) => burst)));
  if (count > most) {
    const message = `Your limit of ${operation} allows ${most} at once. Send fewer in one request.`;
    throw new ApiError(413, 'BULK_TOO_LARGE', message, { maximum: most });
  }
  try {
    const taken = await ctx.app.shared.take(buckets);
    if (!taken.allowed) throw refusedBy(ctx, 'operation', 'mutation', operation, buckets, taken);
  } catch (error) {
    requireDegradable(ctx.app, error);
  }
}

/**
 * Takes from what one address may do in an hour of something that needs no credential. Fails closed: without the limiter
 * nobody may.
 * @throws ApiError 429 RATE_LIMITED, 503 RATE_LIMIT_UNAVAILABLE
 */
export async function limitAddress(ctx: Ctx, operation: string, perHour: number): Promise<void> {
  if (!ctx.app.config.RATE_LIMIT_ENABLED) return;
  const bucket = {
    key: `@:${operation}:${networkOf(ctx.request?.ip ?? '')}`,
    rate: perHour / 3600,
    burst: perHour,
    cost: 1,
  };
  const taken = await ctx.app.shared.take([bucket]);
  if (!taken.allowed) throw refusedBy(ctx, 'address', ctx.request!.route_class, operation, [bucket], taken);
}

/**
 * Looks up a credential that nothing is known of, for an address that has some failures left: one that finds nothing takes
 * one from those it may have in an hour.
 * @throws ApiError 429 RATE_LIMITED, or 503 RATE_LIMIT_UNAVAILABLE when Redis is away and RL_FAIL_MODE is closed
 */
export async function limitFailures<T>(
  app: App,
  ip: string,
  lookUp: () => Promise<T | undefined>,
): Promise<T | undefined> {
  const { RATE_LIMIT_ENABLED, AUTH_FAILURES_PER_HOUR: perHour } = app.config;
  if (!RATE_LIMIT_ENABLED) return lookUp();
  const take = async (cost: 0 | 1): Promise<Taken | undefined> => {
    try {
      return await app.shared.take([
        { key: `@:failures:${networkOf(ip)}`, rate: perHour / 3600, burst: perHour, cost },
      ]);
    } catch (error) {
      requireDegradable(app, error);
    }
  };
  const left = (await take(0))?.remaining[0] ?? 1;
  if (left < 1) throw refused(app, 'address', undefined, Math.ceil(((1 - left) * 3_600_000) / perHour));
  const found = await lookUp();
  if (found === undefined) await take(1);
  return found;
}

/** Lets pass that Redis is away where limits may be left out then. @throws any other error, and this one where they may not */
function requireDegradable({ config }: App, error: unknown): void {
  if (!(error instanceof SharedUnavailable) || config.RL_FAIL_MODE === 'closed') throw error;
}

function lost(ctx: Ctx, reply: FastifyReply, error: unknown): void {
  requireDegradable(ctx.app, error);
  reply.header('x-ratelimit-status', 'degraded');
}

const scopes = ['api_key', 'tenant', 'operation', 'operation'];

/** A limit as answers tell it: how much there is, what is left of it, and when it is whole again. */
interface Told {
  limit: number;
  left: number;
  reset_s: number;
  /** Left out where a limit is of no fixed time. */
  window_s?: number;
}

/** The headers of a limit: those of draft-ietf-httpapi-ratelimit-headers, and the older ones. */
export const limitHeaders = (
  name: string,
  { limit, left, reset_s, window_s }: Told,
): Record<string, string> => ({
  'x-ratelimit-limit': String(limit),
  'x-ratelimit-remaining': String(left),
  'x-ratelimit-reset': String(Math.floor(Date.now() / 1000) + reset_s),
  'ratelimit-policy': `"${name}";q=${limit}${window_s === undefined ? '' : `;w=${window_s}`}`,
  ratelimit: `"${name}";r=${left};t=${reset_s}`,
});

const toldOf = ({ rate, burst }: Rate, left: number): Told => ({
  limit: burst,
  left: Math.max(0, Math.floor(left)),
  reset_s: Math.ceil((burst - left) / rate),
  window_s: Math.ceil(burst / rate),
});

function answer(
  ctx: Ctx,
  reply: FastifyReply,
  routeClass: RouteClass,
  buckets: Bucket[],
  taken: Taken,
): void {
  const shown = taken.allowed ? tightest(buckets, taken.remaining) : taken.scope;
  const bucket = buckets[shown]!;
  const told = limitHeaders(routeClass, toldOf(bucket, taken.remaining[shown]!));
  reply.headers(told);
  if (taken.allowed) return;
  throw refused(ctx.app, scopes[taken.scope]!, routeClass, taken.retryAfterMs);
}

/** A refusal by what no class of routes counts, which says its limit itself. */
const refusedBy = (
  ctx: Ctx,
  scope: string,
  routeClass: RouteClass,
  operation: string,
  buckets: Bucket[],
  { scope: full, remaining, retryAfterMs }: Taken,
) =>
  refused(
    ctx.app,
    scope,
    routeClass,
    retryAfterMs,
    limitHeaders(operation, toldOf(buckets[full]!, remaining[full]!)),
  );

function refused(
  app: App,
  scope: string,
  routeClass: RouteClass | undefined,
  retryAfterMs: number,
  headers: Record<string, string> = {},
): ApiError {
  app.metrics.rateLimited.inc({ scope });
  return new ApiError(
    429,
    'RATE_LIMITED',
    'Too many requests. Wait as long as Retry-After says.',
    { scope, ...(routeClass ? { route_class: routeClass } : {}), retry_after_ms: retryAfterMs },
    {
      'retry-after': String(Math.max(1, Math.ceil(retryAfterMs / 1000))),
      'x-ratelimit-scope': scope,
      ...(routeClass ? { 'x-ratelimit-route-class': routeClass } : {}),
      'x-ratelimit-retry-after-ms': String(retryAfterMs),
      ...headers,
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
