import { ApiError, isDatabaseUnavailable } from '#platform/errors.ts';
import { AnswerModelError } from '#platform/models/answers.ts';

/**
 * Why a run ended without an answer: `code` of its `error` event and `error_code` of the run, with what is said to
 * the client. Model failures (`LLM_…`) bring their own codes and sentences, see `AnswerModelError`.
 */
export const runFailures = {
  RETRIEVAL_CONFIG_INVALID: 'Corpus not found.',
  RETRIEVAL_ERROR: 'The corpus could not be searched. Repeat the run.',
  DB_ERROR: 'The database can not be reached right now. Repeat the run.',
  CLIENT_DISCONNECTED: 'The client went away, and the run was canceled.',
  SERVICE_SHUTTING_DOWN: 'The server is shutting down. Repeat the run.',
  RUN_CANCELED: 'The run was canceled.',
  RUN_TIMEOUT: 'The run took longer than a run may. Ask for less, or repeat it.',
  PROCESS_LOST: 'The process that worked on the run is gone. Repeat the run.',
  UNKNOWN_ERROR: 'Something went wrong on our side. Quote the request id when you report it.',
} as const;

export type RunFailureCode = keyof typeof runFailures;

/** Ends a run; the message is for the client. */
export class RunFailure extends Error {
  override name = 'RunFailure';
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export const runFailure = (code: RunFailureCode, cause?: unknown) =>
  new RunFailure(code, runFailures[code], { cause });

export interface Failure {
  status: 'failed' | 'canceled';
  code: string;
  message: string;
  /** Nobody foresaw it: worth an error in the log. */
  unforeseen: boolean;
}

const canceling = new Set<string>(['CLIENT_DISCONNECTED', 'RUN_CANCELED', 'SERVICE_SHUTTING_DOWN']);

/** What to tell of whatever ended a run. When it was aborted the abort's reason counts, not what broke because of it. */
export function failureOf(thrown: unknown, signal: AbortSignal): Failure {
  const error = signal.aborted ? signal.reason : thrown;
  if (error instanceof RunFailure || error instanceof AnswerModelError) {
    return {
      status: canceling.has(error.code) ? 'canceled' : 'failed',
      code: error.code,
      message: error.message,
      unforeseen: false,
    };
  }
  const code = isDatabaseUnavailable(error) ? 'DB_ERROR' : 'UNKNOWN_ERROR';
  return { status: 'failed', code, message: runFailures[code], unforeseen: code === 'UNKNOWN_ERROR' };
}

/** What a failed retrieval means for the run. Errors made for clients keep their code. */
export function retrievalFailure(error: unknown): RunFailure {
  if (error instanceof ApiError && error.status === 404) return runFailure('RETRIEVAL_CONFIG_INVALID', error);
  if (isDatabaseUnavailable(error)) return runFailure('DB_ERROR', error);
  if (error instanceof ApiError && error.code !== 'INTERNAL_ERROR')
    return new RunFailure(error.code, error.message, { cause: error });
  return runFailure('RETRIEVAL_ERROR', error);
}
