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
  wrap,
} from 'cockatiel';

/** Thrown to say that repeating the call can not help. */
export class Permanent extends Error {
  override name = 'Permanent';
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

const judgedByKind: Judge = (error) => {
  const passing = !(error instanceof Permanent);
  return { repeat: passing, outage: passing };
};

const failuresInARow = 5;
const closedAgainAfterMs = 30_000;
const firstWaitMs = 200;
const longestWaitMs = 5_000;

/** Stops calling a service after five outages in a row and lets one call try it again 30 s later. */
export const createBreaker = (
  judge: Judge = judgedByKind,
  halfOpenAfter = closedAgainAfterMs,
): CircuitBreakerPolicy =>
  circuitBreaker(
    handleWhen((error) => judge(error as Error).outage),
    { halfOpenAfter, breaker: new ConsecutiveBreaker(failuresInARow) },
  );

export const stateOf = ({ state }: CircuitBreakerPolicy): 'closed' | 'open' | 'half_open' =>
  state === CircuitState.Closed ? 'closed' : state === CircuitState.HalfOpen ? 'half_open' : 'open';

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
  const attempt = wrap(breaker, timeout(timeoutMs, TimeoutStrategy.Aggressive));
  return {
    execute: async (call, signal) => {
      for (let tried = 0; ; tried++) {
        try {
          return await attempt.execute((context) => call({ signal: context.signal }), signal);
        } catch (error) {
          signal?.throwIfAborted();
          const { repeat, afterMs = 0 } = judge(error as Error);
          if (isBrokenCircuitError(error) || !repeat || tried >= retries || afterMs > patienceMs) throw error;
          const growing = Math.min(longestWaitMs, firstWaitMs * 2 ** tried) * (0.5 + Math.random());
          // Not all at the very moment that was named.
          await sleep(afterMs > 0 ? afterMs + growing / 4 : growing, undefined, signal ? { signal } : {});
        }
      }
    },
  };
}
