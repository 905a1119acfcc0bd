import type { Config } from '../config.ts';
import { ApiError } from '../errors.ts';
import { type OutsideCalls, outsideCalls, Permanent } from '../resilience.ts';

/** A passage as an outside engine found it. */
export interface FoundPassage {
  /** The engine's own id of it, where it has one. */
  id: string | undefined;
  text: string;
  /** Where it stands: `s3://…`, `https://…`, `gs://…`. */
  source: string;
  title: string | undefined;
  content_type: string | undefined;
  /** How relevant the engine finds it, 0..1, where it says so. */
  relevance: number | undefined;
  /** From 1. */
  page: number | undefined;
  metadata: Record<string, unknown>;
}

const failures = {
  AWS_CONFIG_MISSING: [
    409,
    'The corpus names no region of AWS, and the server has none: set region, or AWS_REGION.',
  ],
  AWS_AUTH_ERROR: [502, 'AWS did not accept the credentials of this server, or it has none.'],
  AWS_RETRIEVAL_ERROR: [
    502,
    'Bedrock did not search the knowledge base: check its id, its region and the permission bedrock:Retrieve.',
  ],
  VERTEX_RETRIEVAL_CONFIG_MISSING: [
    409,
    'The corpus names no project or location of Google Cloud, and the server has none: set them, or GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION.',
  ],
  VERTEX_RETRIEVAL_AUTH_ERROR: [502, 'Google did not accept the credentials of this server, or it has none.'],
  VERTEX_RETRIEVAL_ERROR: [
    502,
    'Vertex AI Search did not search: check project, location, resource id and the permission discoveryengine.servingConfigs.search.',
  ],
  INTEGRATION_UNAVAILABLE: [
    503,
    'The search engine of the corpus can not be reached right now. Repeat the request.',
  ],
} as const;

/** Why an outside engine found nothing; what it said itself is the cause, which clients are not shown. */
export function engineFailure(code: keyof typeof failures, cause?: unknown): ApiError {
  const [status, message] = failures[code];
  const headers: Record<string, string> = status === 503 ? { 'retry-after': '5' } : {};
  return Object.assign(new ApiError(status, code, message, undefined, headers), { cause });
}

/** Ends the attempts at once: repeating the call can not help. */
export const forGood = (failure: ApiError): Permanent => new Permanent(failure.code, { cause: failure });

/**
 * Calls an engine within the limits of its policy.
 * @throws ApiError with the permanent failure the call ended with, else INTEGRATION_UNAVAILABLE; the signal's reason when that aborts
 */
export async function callEngine<T>(
  policy: OutsideCalls,
  signal: AbortSignal,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  try {
    return await policy.execute(({ signal: attempt }) => call(attempt), signal);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (error instanceof Permanent && error.cause instanceof ApiError) throw error.cause;
    throw engineFailure('INTEGRATION_UNAVAILABLE', error);
  }
}

/** What an engine answered, read. @throws ApiError with the code where it is not what the engine promises */
export function readAnswer<T>(code: keyof typeof failures, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof ApiError ? error : engineFailure(code, error);
  }
}

/** A number from 0 to 1, or nothing. */
export const share = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? Math.min(1, Math.max(0, value)) : undefined;

/** Makes something once for each name; tenants give names, so only those that were asked for last are kept. */
export function keptFor<T>(mostKept: number, make: (name: string) => T) {
  const kept = new Map<string, T>();
  const of = (name: string): T => {
    const one = kept.get(name) ?? make(name);
    kept.delete(name);
    kept.set(name, one);
    if (kept.size > mostKept) kept.delete(kept.keys().next().value!);
    return one;
  };
  return { of, all: () => [...kept.values()] };
}

/**
 * The policy of a resource. A tenant names it, so what fails there is not held against another, though credentials and place may
 * be the same: it may be slow or broken by itself.
 */
export const policiesOf = ({ EXT_CALL_TIMEOUT_MS: timeoutMs, EXT_RETRY_MAX_ATTEMPTS: retries }: Config) =>
  keptFor(1_000, () => outsideCalls({ timeoutMs, retries })).of;
