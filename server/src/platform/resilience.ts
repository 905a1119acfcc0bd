import {
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
  type IPolicy,
  retry,
  TimeoutStrategy,
  timeout,
  wrap,
} from 'cockatiel';

/** Thrown to say that repeating the call can not help. */
export class Permanent extends Error {
  override name = 'Permanent';
}

/**
 * The policy round calls to one outside service: a time limit for each attempt, retries with jitter for what may
 * pass, and a breaker that stops calling after five failures in a row and tries again after 30 s.
 */
export function outsideCalls(options: { timeoutMs: number; retries: number }): IPolicy {
  const passing = handleWhen((error) => !(error instanceof Permanent));
  return wrap(
    retry(passing, {
      maxAttempts: options.retries,
      backoff: new ExponentialBackoff({ initialDelay: 200, maxDelay: 5_000 }),
    }),
    circuitBreaker(passing, { halfOpenAfter: 30_000, breaker: new ConsecutiveBreaker(5) }),
    timeout(options.timeoutMs, TimeoutStrategy.Aggressive),
  );
}
