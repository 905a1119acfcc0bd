import { type DestinationStream, type Logger, pino } from 'pino';

export type Log = Logger;

/** Structured logs on standard output. Credentials and bodies are never given to the logger; paths of known secrets are cut as well. */
export function createLog(level: string, destination?: DestinationStream): Log {
  return pino(
    {
      level,
      base: undefined,
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
