import type { App, Ctx } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import type { Statement } from '#platform/db/sql.ts';
import { ApiError } from '#platform/errors.ts';
import type { FactInput } from '#platform/facts/record.ts';
import { limitHeaders } from '#platform/http/limits.ts';
import { networkOf } from '#platform/http/network.ts';
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

/** The address as it is counted. */
const addressOf = (ctx: Ctx): string => networkOf(ctx.request?.ip ?? '');

/** An attempt that was counted before it is known how it ends. */
export interface Attempt {
  /** What was tried: `sign-in`, `password` or `mfa`. */
  at: string;
  /** Failures in a row, this one included, should it fail. */
  failures: number;
  /** Should it fail, the next one has to wait. */
  waitsNext: boolean;
  /** Its end was a success: forgets what it was counted as. */
  succeeded: () => Promise<void>;
}

/** The fact that an attempt failed after which an identity's next one has to wait. */
export const lockedFact = (identityId: string, { at, failures }: Attempt): FactInput => ({
  type: 'auth.locked',
  resource_type: 'identity',
  resource_id: identityId,
  outcome: 'failure',
  data: { at, failures },
});

/** @returns how many failures in a row there are with this one, or for how long there may be none: then it is not counted */
async function count(app: App, one: Charge): Promise<{ failures: number } | { waitMs: number }> {
  const now = Date.now();
  const [counted, found] = await app.database.operator.batch([chargeAttempt(one, now), attemptsOf(one.key)]);
  return counted.rows[0] ?? { waitMs: Math.max(1, (found.rows[0]?.blocked_until ?? now) - now) };
}

async function charge(app: App, one: Charge): Promise<number> {
  const counted = await count(app, one);
  if ('failures' in counted) return counted.failures;
  const { waitMs } = counted;
  const waitS = Math.ceil(waitMs / 1000);
  app.metrics.rateLimited.inc({ scope: 'attempts' });
  throw new ApiError(
    429,
    'TOO_MANY_ATTEMPTS',
    'Too many failed attempts. Wait as long as Retry-After says.',
    { retry_after_ms: waitMs },
    {
      'retry-after': String(waitS),
      'x-ratelimit-scope': 'attempts',
      'x-ratelimit-retry-after-ms': String(waitMs),
      ...limitHeaders('attempts', { limit: one.free, left: 0, reset_s: waitS }),
    },
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
    at: kind,
    failures,
    waitsNext: failures >= free,
    succeeded: async () => void (await app.database.operator.run(forgetAttempts(key))),
  };
}

const trustKey = (ctx: Ctx, name: string) => keyOf(ctx.app, 'trusted', [name, addressOf(ctx)]);
const pairKey = (ctx: Ctx, name: string) => keyOf(ctx.app, 'name at address', [name, addressOf(ctx)]);

/**
 * Counts an attempt to sign in under a name, for the address and for the name, whether or not anybody has it. From an address that
 * somebody signed in from under this name before, neither makes anybody wait, but a count of its own: strangers who guess
 * do not keep the owner out. It is counted for the others all the same, so that nothing tells such an address from another.
 * @param name as it was asked for, in one form, with the tenant that was named
 * @throws ApiError 429 TOO_MANY_ATTEMPTS with Retry-After
 */
export async function attemptToSignIn(ctx: Ctx, name: string): Promise<Attempt> {
  const { app } = ctx;
  const { operator } = app.database;
  const free = app.config.LOGIN_FREE_FAILURES;
  const ofAddress = {
    key: keyOf(app, 'address', [addressOf(ctx)]),
    free: 10 * free,
    longest: longestOfAddressMs,
  };
  const ofName = { key: keyOf(app, 'name', [name]), free, longest: longestMs };
  const known = await operator.one(attemptsOf(trustKey(ctx, name)));
  const attempt = (failures: number, ended: Statement[]): Attempt => ({
    at: 'sign-in',
    failures,
    waitsNext: failures >= free,
    succeeded: async () => void (await operator.batch([...ended, trust(ctx, name)])),
  });
  if (known && known.trusted_until > Date.now()) {
    const key = pairKey(ctx, name);
    const failures = await charge(app, { key, free, longest: longestMs });
    const taken: Statement[] = [];
    for (const other of [ofName, ofAddress])
      if ('failures' in (await count(app, other))) taken.push(takeAttemptBack(other.key));
    return attempt(failures, [forgetAttempts(key), ...taken]);
  }
  // The address first: one that has to wait must not make others wait as well.
  await charge(app, ofAddress);
  const failures = await charge(app, ofName);
  return attempt(failures, [forgetAttempts(ofName.key), takeAttemptBack(ofAddress.key)]);
}

const trust = (ctx: Ctx, name: string) => trustUntil(trustKey(ctx, name), Date.now(), Date.now() + trustMs);

/** Lets the caller's address count as one the owner of these names signs in from, whatever was tried from there before. */
export async function trustAddress(ctx: Ctx, names: string[]): Promise<void> {
  await ctx.app.database.operator.batch(
    names.flatMap((name) => [forgetAttempts(pairKey(ctx, name)), trust(ctx, name)]),
  );
}
