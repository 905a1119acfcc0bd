import { setTimeout as sleep } from 'node:timers/promises';
import {
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
  isBrokenCircuitError,
  TimeoutStrategy,
  timeout,
} from 'cockatiel';

/** Thrown to say that repeating the call can not help. */
export class Permanent extends Error {
  override name = 'Permanent';
}

/** The caller no longer wants the answer: whatever broke because of that says nothing about the service. */
class GivenUp extends Error {
  override name = 'GivenUp';
}

/** What a failure of an outside service means for the calls that follow. */
export interface Verdict {
  /** The same call may go well a moment later. */
  repeat: boolean;
  /** The service itself is at fault, so others need not ask it either. */
  outage: boolean;
  /** When the service said to come back. */
  afterMs?: number | undefined;
}

export type Judge = (error: Error) => Verdict;

export const judgedByKind: Judge = (error) => {
  const passing = !(error instanceof Permanent);
  return { repeat: passing, outage: passing };
};

const failuresInARow = 5;
const closedAgainAfterMs = 30_000;
const firstWaitMs = 200;
const longestWaitMs = 5_000;

/** When a breaker that is open lets the next call through. */
const triesAgainAt = new WeakMap<CircuitBreakerPolicy, number>();

/**
 * Stops calling a service after five outages in a row and lets one call try it again 30 s later. All tenants share it, so
 * nothing that one of them alone can bring about may count as an outage.
 */
export function createBreaker(
  judge: Judge = judgedByKind,
  halfOpenAfter = closedAgainAfterMs,
): CircuitBreakerPolicy {
  // A try that nobody waited for has not shown that the service is back: the library would take it for a success.
  const isOutage = (error: unknown): boolean =>
    error instanceof GivenUp ? breaker.state === CircuitState.HalfOpen : judge(error as Error).outage;
  // Who leaves while it is tried again keeps the others waiting no longer than that: the next call tries it.
  const restAfter = (reason: unknown): number =>
    (reason as { error?: unknown }).error instanceof GivenUp ? 0 : halfOpenAfter;
  const rest = { next: ({ result }: { result: unknown }) => ({ ...rest, duration: restAfter(result) }) };
  const breaker: CircuitBreakerPolicy = circuitBreaker(handleWhen(isOutage), {
    halfOpenAfter: rest,
    breaker: new ConsecutiveBreaker(failuresInARow),
  });
  breaker.onBreak((reason) => triesAgainAt.set(breaker, performance.now() + restAfter(reason)));
  return breaker;
}

/** The library says half open only once somebody calls; who asks whether to call must know before. */
export function stateOf(breaker: CircuitBreakerPolicy): 'closed' | 'open' | 'half_open' {
  if (breaker.state === CircuitState.Closed) return 'closed';
  const isDue = performance.now() >= (triesAgainAt.get(breaker) ?? 0);
  return breaker.state === CircuitState.HalfOpen || isDue ? 'half_open' : 'open';
}

export interface OutsideCalls {
  execute<T>(call: (attempt: { signal: AbortSignal }) => Promise<T>, signal?: AbortSignal): Promise<T>;
}

export interface OutsideOptions {
  timeoutMs: number;
  retries: number;
  judge?: Judge;
  /** Shared by several kinds of calls to one service. */
  breaker?: CircuitBreakerPolicy;
  /** A service that says to come back later than this is not waited for. */
  patienceMs?: number;
}

/**
 * The policy round calls to one outside service: a time limit for each attempt, retries with jitter for what may
 * pass, when the service says so or else with growing waits, and a breaker. A wait ends when the caller's signal does.
 */
export function outsideCalls(options: OutsideOptions): OutsideCalls {
  const { timeoutMs, retries, judge = judgedByKind, patienceMs = longestWaitMs } = options;
  const { breaker = createBreaker(judge) } = options;
  const limit = timeout(timeoutMs, TimeoutStrategy.Aggressive);
  const attempt = <T>(call: (attempt: { signal: AbortSignal }) => Promise<T>, signal?: AbortSignal) =>
    breaker.execute(async () => {
      try {
        return await limit.execute((context) => call({ signal: context.signal }), signal);
      } catch (error) {
        throw signal?.aborted ? new GivenUp('the caller left', { cause: error }) : error;
      }
    });
  return {
    execute: async (call, signal) => {
      let before: unknown;
      for (let tried = 0; ; tried++) {
        try {
          return await attempt(call, signal);
        } catch (error) {
          signal?.throwIfAborted();
          // What opened the breaker says more than that it is open.
          if (isBrokenCircuitError(error)) throw before ?? error;
          before = error;
          const { repeat, afterMs = 0 } = judge(error as Error);
          if (!repeat || tried >= retries || afterMs > patienceMs) throw error;
          const growing = Math.min(longestWaitMs, firstWaitMs * 2 ** tried) * (0.5 + Math.random());
          // Not all at the very moment that was named.
          await sleep(afterMs > 0 ? afterMs + growing / 4 : growing, undefined, signal ? { signal } : {});
        }
      }
    },
  };
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
