import { isBrokenCircuitError, isTaskCancelledError } from 'cockatiel';
import type { Verdict } from '../resilience.ts';

/** Why a model gave no answer. A closed set: metrics and operators count by it. */
export const modelFailures = [
  /** No connection, or it was lost. */
  'unreachable',
  'timeout',
  /** 429: not now. */
  'rate_limited',
  /** 5xx. */
  'server_error',
  /** 401, 403. */
  'unauthorized',
  /** Another number of dimensions than was said, a model or address that is not there or leads elsewhere, a package that is not installed. */
  'misconfigured',
  /** An answer that is not what was asked for. */
  'garbage',
  /** These texts are not taken; others are. */
  'refused',
  /** Not called: it failed too often just now. */
  'breaker_open',
] as const;

export type ModelFailure = (typeof modelFailures)[number];

/** Its message is shown to those who may see how the models do. */
export class ModelError extends Error {
  override name = 'ModelError';
  readonly kind: ModelFailure;
  /** When the server said to come back. */
  readonly afterMs: number | undefined;

  constructor(kind: ModelFailure, message: string, options: { afterMs?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.kind = kind;
    this.afterMs = options.afterMs;
  }
}

/** Which kind of failure an error of a call is. */
export function failureOf(error: unknown): ModelFailure {
  if (error instanceof ModelError) return error.kind;
  if (isBrokenCircuitError(error)) return 'breaker_open';
  if (isTaskCancelledError(error)) return 'timeout';
  return /timeout/i.test((error as Error | undefined)?.name ?? '') ? 'timeout' : 'unreachable';
}

const passing: ModelFailure[] = ['unreachable', 'timeout', 'rate_limited', 'server_error', 'garbage'];

/** What may be about the server and not about what it was given; of a key it refuses and of nonsense nobody can tell. */
const outages: ModelFailure[] = ['unreachable', 'timeout', 'server_error', 'misconfigured'];

export function judgeModel(error: Error): Verdict {
  const kind = failureOf(error);
  return {
    repeat: passing.includes(kind),
    outage: outages.includes(kind),
    afterMs: error instanceof ModelError ? error.afterMs : undefined,
  };
}

/**
 * Whether a server that answers 5xx says that it was given too much, as llama.cpp, Ollama and others do: that is about the
 * text, and another goes well.
 */
export const saysTooLong = (answer: string | undefined): boolean =>
  /too (large|long|many tokens)|(context|maximum) (length|size|window)|exceeds? .{0,40}(context|tokens|limit)/i.test(
    answer?.slice(0, 4_000) ?? '',
  );

/** What an answer other than 2xx means. `who` answered `said`: `the embeddings server`. */
export function refusalOf(who: string, status: number, retryAfter: string | null, said: string): ModelError {
  const message = `${who} answered ${status}`;
  const afterMs = waitOf(retryAfter);
  const options = afterMs === undefined ? {} : { afterMs };
  if (status === 429) return new ModelError('rate_limited', message, options);
  if (status === 401 || status === 403) return new ModelError('unauthorized', message);
  if (status === 404 || status === 405) return new ModelError('misconfigured', message);
  if (status === 408) return new ModelError('timeout', message);
  if (status >= 500 && !saysTooLong(said)) return new ModelError('server_error', message, options);
  return new ModelError('refused', message);
}

/** `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3). */
function waitOf(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
