import { type DestinationStream, type Logger, type LoggerOptions, pino } from 'pino';
import { ApiError, isDatabaseAway } from './errors.ts';

export type Log = Logger;

/** The same is said again after so long, while it comes again and again. */
const repeatedAfterMs = 10_000;
const mostRemembered = 1_000;

/** While the database is away all that asks it fails, and while the server is full, or another is away, whatever is refused. */
const comesInHundreds = (error: unknown): error is Error =>
  isDatabaseAway(error) || (error instanceof ApiError && error.status === 503);

/**
 * What comes in hundreds is said once, and then at most every ten seconds with how often it was left out since. Whom it met (a
 * request, a tenant, a schedule) makes it no other thing.
 */
function sparing(now: () => number): NonNullable<LoggerOptions['hooks']>['logMethod'] {
  const said = new Map<string, { at: number; leftOut: number }>();
  return function (args, method) {
    const [entry, message] = args as unknown as [{ err?: unknown } | undefined, unknown];
    if (!comesInHundreds(entry?.err)) return method.apply(this, args);
    const { err, request_id: _r, tenant_id: _t, schedule: _s, ...others } = entry as Record<string, unknown>;
    const key = JSON.stringify([message, (err as Error).message, others]);
    const last = said.get(key);
    if (last && now() - last.at < repeatedAfterMs) {
      last.leftOut += 1;
      return;
    }
    if (said.size >= mostRemembered) said.clear();
    said.set(key, { at: now(), leftOut: 0 });
    method.apply(this, last?.leftOut ? [{ ...entry, left_out: last.leftOut }, message as string] : args);
  };
}

/** Structured logs on standard output. Credentials and bodies are never given to the logger; paths of known secrets are cut as well. */
export function createLog(
  level: string,
  destination?: DestinationStream,
  now = () => performance.now(),
): Log {
  return pino(
    {
      level,
      base: undefined,
      hooks: { logMethod: sparing(now) },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: [
          'authorization',
          'password',
          'secret',
          'token',
          'api_key',
          '*.authorization',
          '*.password',
          '*.secret',
          '*.token',
          '*.api_key',
          'headers["x-api-key"]',
          'err.config',
          'err.parameters',
        ],
        censor: '[redacted]',
      },
      serializers: {
        err: (error) => ({
          type: error?.name,
          code: error?.code,
          message: error?.message,
          stack: error?.stack,
        }),
      },
    },
    destination ?? pino.destination({ fd: 1, sync: false }),
  );
}
