import { isBrokenCircuitError, isTaskCancelledError } from 'cockatiel';
import type { Verdict } from '../resilience.ts';

/** Why a model gave no vectors. A closed set: metrics and operators count by it. */
export const embeddingFailures = [
  /** No connection, or it was lost. */
  'unreachable',
  'timeout',
  /** 429: not now. */
  'rate_limited',
  /** 5xx. */
  'server_error',
  /** 401, 403. */
  'unauthorized',
  /** Another number of dimensions than was said, a model that is not there, a package that is not installed. */
  'misconfigured',
  /** An answer that is not what was asked for. */
  'garbage',
  /** These texts are not taken; others are. */
  'refused',
  /** Not called: it failed too often just now. */
  'breaker_open',
] as const;

export type EmbeddingFailure = (typeof embeddingFailures)[number];

export class EmbeddingError extends Error {
  override name = 'EmbeddingError';
  readonly kind: EmbeddingFailure;
  /** When the server said to come back. */
  readonly afterMs: number | undefined;

  constructor(kind: EmbeddingFailure, message: string, options: { afterMs?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.kind = kind;
    this.afterMs = options.afterMs;
  }
}

/** Which kind of failure an error of a call is. */
export function failureOf(error: unknown): EmbeddingFailure {
  if (error instanceof EmbeddingError) return error.kind;
  if (isBrokenCircuitError(error)) return 'breaker_open';
  if (isTaskCancelledError(error)) return 'timeout';
  return /timeout/i.test((error as Error | undefined)?.name ?? '') ? 'timeout' : 'unreachable';
}

const passing: EmbeddingFailure[] = ['unreachable', 'timeout', 'rate_limited', 'server_error', 'garbage'];

/** Texts that are refused and limits that are met say nothing about the health of the server. */
export function judgeEmbedding(error: Error): Verdict {
  const kind = failureOf(error);
  return {
    repeat: passing.includes(kind),
    outage: !['refused', 'rate_limited', 'breaker_open'].includes(kind),
    afterMs: error instanceof EmbeddingError ? error.afterMs : undefined,
  };
}
