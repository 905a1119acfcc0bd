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

/**
 * Begins a call that answers a stream: `attempt`, the signal of the policy round it, counts until it is answered, and
 * `stop` to the end of the stream. The policy aborts its signal when it returns, which would end the stream at once.
 */
export function beginStream<T>(
  attempt: AbortSignal,
  stop: AbortSignal,
  begin: (signal: AbortSignal) => PromiseLike<T>,
): Promise<T> {
  const early = new AbortController();
  const give = () => early.abort(attempt.reason);
  attempt.addEventListener('abort', give, { once: true });
  return Promise.resolve(begin(AbortSignal.any([early.signal, stop]))).finally(() =>
    attempt.removeEventListener('abort', give),
  );
}
