import { isIPv6 } from 'node:net';
import type { App, Ctx } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import { ApiError } from '#platform/errors.ts';
import {
  attemptsOf,
  type Charge,
  chargeAttempt,
  forgetAttempts,
  takeAttemptBack,
  trustUntil,
} from './store.ts';

/** The longest that failures let anybody wait: whoever guesses at an account slows its owner down, and never shuts it. */
const longestMs = 15 * 60_000;
const longestOfAddressMs = 60_000;
const trustMs = 30 * 24 * 3_600_000;

/** The row of what is counted: keyed, because names that were typed belong to nobody here. */
const keyOf = (app: App, kind: string, parts: string[]): Buffer =>
  hmac(app.keys.credential, JSON.stringify(['attempt', kind, ...parts]));

/** The address as it is counted: of IPv6 the /64 that one subscriber has, of which it may use any. */
export function addressOf(ctx: Ctx): string {
  const ip = ctx.request?.ip ?? '';
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)?.[1];
  if (mapped || !isIPv6(ip)) return mapped ?? ip;
  const [head = '', tail = ''] = ip.replace(/%.*$/, '').split('::');
  const left = head.split(':').filter(Boolean);
  const right = tail.split(':').filter(Boolean);
  const zeros = Array(Math.max(0, 8 - left.length - right.length)).fill('0');
  return [...left, ...zeros, ...right]
    .slice(0, 4)
    .map((part) => Number.parseInt(part, 16).toString(16))
    .join(':');
}

/** An attempt that was counted before it is known how it ends. */
export interface Attempt {
  /** Failures in a row, this one included, should it fail. */
  failures: number;
  /** Should it fail, the next one has to wait. */
  waitsNext: boolean;
  /** Its end was a success: forgets what it was counted as. */
  succeeded: () => Promise<void>;
}

async function charge(app: App, one: Charge): Promise<number> {
  const now = Date.now();
  const [counted, found] = await app.database.operator.batch([chargeAttempt(one, now), attemptsOf(one.key)]);
  const [row] = counted.rows;
  if (row) return row.failures;
  const waitMs = Math.max(1, (found.rows[0]?.blocked_until ?? now) - now);
  app.metrics.rateLimited.inc({ scope: 'attempts' });
  throw new ApiError(
    429,
    'TOO_MANY_ATTEMPTS',
    'Too many failed attempts. Wait as long as Retry-After says.',
    { retry_after_ms: waitMs },
    { 'retry-after': String(Math.ceil(waitMs / 1000)) },
  );
}

/**
 * Counts an attempt at something of a known identity: its password, its second factor. Never call it inside a transaction: what
 * it counts has to stay when the request fails.
 * @throws ApiError 429 TOO_MANY_ATTEMPTS with Retry-After
 */
export async function attemptOn(
  ctx: Ctx,
  kind: string,
  tenant: string,
  identityId: string,
): Promise<Attempt> {
  const { app } = ctx;
  const key = keyOf(app, kind, [tenant, identityId]);
  const free = app.config.LOGIN_FREE_FAILURES;
  const failures = await charge(app, { key, free, longest: longestMs });
  return {
    failures,
    waitsNext: failures >= free,
    succeeded: async () => void (await app.database.operator.run(forgetAttempts(key))),
  };
}

const trustKey = (ctx: Ctx, name: string) => keyOf(ctx.app, 'trusted', [name, addressOf(ctx)]);

/**
 * Counts an attempt to sign in under a name, whether or not anybody has it. From an address that somebody signed in from
 * under this name before, it is counted by itself: strangers who guess do not keep the owner out. From all others it
 * counts for the address and for the name.
 * @param name as it was asked for, in one form, with the tenant that was named
 * @throws ApiError 429 TOO_MANY_ATTEMPTS with Retry-After
 */
export async function attemptToSignIn(ctx: Ctx, name: string): Promise<Attempt> {
  const { app } = ctx;
  const { operator } = app.database;
  const address = addressOf(ctx);
  const free = app.config.LOGIN_FREE_FAILURES;
  const known = await operator.one(attemptsOf(trustKey(ctx, name)));
  if (known && known.trusted_until > Date.now()) {
    const key = keyOf(app, 'name at address', [name, address]);
    const failures = await charge(app, { key, free, longest: longestMs });
    return {
      failures,
      waitsNext: failures >= free,
      succeeded: async () => void (await operator.batch([forgetAttempts(key), trust(ctx, name)])),
    };
  }
  // The address first: one that has to wait must not make others wait as well.
  const addressKey = keyOf(app, 'address', [address]);
  await charge(app, { key: addressKey, free: 10 * free, longest: longestOfAddressMs });
  const key = keyOf(app, 'name', [name]);
  const failures = await charge(app, { key, free, longest: longestMs });
  return {
    failures,
    waitsNext: failures >= free,
    succeeded: async () =>
      void (await operator.batch([forgetAttempts(key), takeAttemptBack(addressKey), trust(ctx, name)])),
  };
}

const trust = (ctx: Ctx, name: string) => trustUntil(trustKey(ctx, name), Date.now(), Date.now() + trustMs);

/** Lets the caller's address count as one the owners of these names sign in from. */
export async function trustAddress(ctx: Ctx, names: string[]): Promise<void> {
  await ctx.app.database.operator.batch(names.map((name) => trust(ctx, name)));
}
