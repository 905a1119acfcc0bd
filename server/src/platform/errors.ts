/** One entry of a validation error: where (JSON pointer) and what is wrong. */
export interface FieldProblem {
  path: string;
  message: string;
}

/**
 * An error a client may see. `code` is permanent and upper case, `message` says what to do.
 * Anything else that is thrown is shown as 500 INTERNAL_ERROR and logged.
 */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: number;
  readonly code: string;
  readonly details: Record<string, unknown> | undefined;
  readonly headers: Record<string, string>;

  constructor(
    status: number,
    code: string,
    message: string,
    details?: Record<string, unknown>,
    headers: Record<string, string> = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.headers = headers;
  }
}

export const badRequest = (code: string, message: string, details?: Record<string, unknown>) =>
  new ApiError(400, code, message, details);
/** @param challenge parameters of `WWW-Authenticate` (RFC 9110, section 11.6.1) */
export const unauthorized = (
  message = 'A valid access token or API key is needed in the Authorization or X-API-Key header.',
  challenge?: string,
) =>
  new ApiError(401, 'AUTH_UNAUTHORIZED', message, undefined, {
    'www-authenticate': challenge ? `Bearer ${challenge}` : 'Bearer',
  });
export const forbidden = (code = 'AUTH_FORBIDDEN', message = 'Your role may not do this.') =>
  new ApiError(403, code, message);
export const notFound = (what: string) => new ApiError(404, 'NOT_FOUND', `${what} not found.`);
/** @param taken the media types of bodies the route takes */
export const unsupportedMediaType = (...taken: string[]) =>
  new ApiError(
    415,
    'UNSUPPORTED_MEDIA_TYPE',
    `This route does not take that Content-Type. Send the body as ${taken.join(' or ')}.`,
    { allowed: taken },
  );
export const conflict = (code: string, message: string, details?: Record<string, unknown>) =>
  new ApiError(409, code, message, details);
export const invalid = (errors: FieldProblem[]) =>
  new ApiError(422, 'VALIDATION_ERROR', 'The request has invalid fields; see details.errors.', { errors });
export const unavailable = (code: string, message: string, retryAfterS = 1) =>
  new ApiError(503, code, message, undefined, { 'retry-after': String(retryAfterS) });

/** Redis can not be reached. A request that can not do without is answered so. */
export class SharedUnavailable extends ApiError {
  constructor(cause: unknown) {
    const message = 'Limits can not be checked right now. Repeat the request.';
    super(503, 'RATE_LIMIT_UNAVAILABLE', message, undefined, { 'retry-after': '1' });
    this.cause = cause;
  }
}

/** It stops or starts, has no connection left, or only reads. */
const awayStates = new Set(['57P01', '57P02', '57P03', '53300', '25006']);
// The last two: given up for the sake of another transaction that wanted the same.
const busyStates = new Set(['55P03', '57014', '40P01', '40001']);
const connectionCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'EAI_AGAIN',
  'ENOENT',
  'EMBEDDED_CLOSED',
]);

/** True when the database can not be reached: whatever asks it fails alike. */
export function isDatabaseAway(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  if (
    typeof code === 'string' &&
    (awayStates.has(code) || connectionCodes.has(code) || code.startsWith('08'))
  )
    return true;
  return /Connection terminated|connection timeout|timeout exceeded when trying to connect|Client has encountered a connection error|not queryable|embedded database/i.test(
    error.message,
  );
}

/** True when the database is away, overloaded, or let another go first: the request may be repeated, nothing is wrong with it. */
export const isDatabaseUnavailable = (error: unknown): boolean =>
  isDatabaseAway(error) ||
  (error instanceof Error && busyStates.has((error as { code?: string }).code ?? ''));

/** Turns whatever was thrown into what a client may see. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (isDatabaseUnavailable(error)) {
    return unavailable(
      'DATABASE_UNAVAILABLE',
      'The database can not be reached right now. Repeat the request.',
      2,
    );
  }
  return new ApiError(
    500,
    'INTERNAL_ERROR',
    'Something went wrong on our side. Quote the request id when you report it.',
  );
}
