import type { CrashOptions } from '../crash-driver.ts';
import { createVictim, freePort, type Victim } from './processes.ts';

/** Settings of every process of a trial. */
export async function environment(
  { engine, databaseUrl, redisUrl }: Pick<CrashOptions, 'engine' | 'databaseUrl' | 'redisUrl'>,
  directory: string,
): Promise<Record<string, string>> {
  const port = await freePort();
  return {
    PORT: String(port),
    DATA_DIR: directory,
    LOG_LEVEL: 'info',
    RATE_LIMIT_ENABLED: 'false',
    ACCESS_TOKEN_TTL_S: '86400',
    ...(engine === 'postgres'
      ? {
          DATABASE_URL: databaseUrl!,
          ...(redisUrl ? { REDIS_URL: redisUrl } : {}),
          SECRET_KEY: 'a secret of the tests, forty characters.',
          ENCRYPTION_KEY: 'another secret of the tests, longer still',
        }
      : {}),
  };
}

/** The processes that are killed: on PostgreSQL server and worker apart. */
export function victimsOf(engine: string, env: Record<string, string>, address: string): Victim[] {
  const answers = () =>
    fetch(`${address}/healthz`).then(
      ({ ok }) => ok,
      () => false,
    );
  if (engine === 'embedded') return [createVictim('serve', ['serve'], env, answers)];
  return [
    createVictim('serve', ['serve', '--no-worker'], env, answers),
    createVictim('worker', ['worker'], env, (logged) => logged.includes('worker ready')),
  ];
}
