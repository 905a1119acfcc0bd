import { flushCompileCache } from 'node:module';
import { setPriority } from 'node:os';
import type { Command } from 'commander';
import { ConfigError, readConfig, withoutEffect } from '#platform/config.ts';
import type { App } from '#platform/context.ts';
import { openDatabase } from '#platform/db/open.ts';
import { createLog } from '#platform/log.ts';

/** Says one line on standard error and ends with a code scripts can use: 1 failed, 2 misused. */
function fail(message: string, code = 1): never {
  process.stderr.write(`manushya: ${message}\n`);
  process.exit(code);
}

export const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** Runs a command's work, telling what went wrong in one line. */
export const guarded =
  <A extends unknown[]>(work: (...args: A) => Promise<void>) =>
  async (...args: A): Promise<void> => {
    try {
      await work(...args);
    } catch (error) {
      const { name } = error as Error;
      fail(
        explained(error as Error),
        error instanceof ConfigError || name === 'DirectoryLockedError' ? 2 : 1,
      );
    }
  };

/** Names the setting behind a failure of the system, where there is one. */
function explained({ message, code, syscall }: NodeJS.ErrnoException): string {
  if (code === 'EADDRINUSE') return `${message}: set PORT to a free one, or stop what listens there`;
  if (syscall === 'connect' || code === '28P01' || code === '3D000')
    return `the database of DATABASE_URL: ${message}`;
  if (syscall === 'mkdir') return `the directory of DATA_DIR can not be made: ${message}`;
  return message;
}

/** The words `serve` and `worker`. What they need is loaded while the database opens, which takes as long. */
export function registerProcesses(program: Command): void {
  program
    .command('serve')
    .description('serve the API, with a worker in the same process')
    .option(
      '--no-worker',
      'leave background work to separate `manushya worker` processes (needs DATABASE_URL)',
    )
    .action(guarded(async ({ worker }: { worker: boolean }) => runProcess({ serve: true, work: worker })));
  program
    .command('worker')
    .description('do background work only (needs DATABASE_URL)')
    .action(guarded(async () => runProcess({ serve: false, work: true })));
}

const workerNiceness = 10;
/** What a process that was told twice has to say goodbye: to the readers of runs, to its database. */
const hurriedMs = 5_000;

async function runProcess(parts: { serve: boolean; work: boolean }): Promise<void> {
  const config = readConfig(process.env);
  if (!config.DATABASE_URL && !(parts.serve && parts.work)) {
    throw new ConfigError(
      'the embedded database has one process: set DATABASE_URL to run server and worker apart',
    );
  }
  const log = createLog(config.LOG_LEVEL);
  // Where both share a machine, whoever waits for an answer comes first.
  if (!parts.serve) setPriority(workerNiceness);
  for (const sentence of withoutEffect(config)) log.warn(sentence);
  const database = await openDatabase(config, log);
  const { start } = await import('./app.ts');
  const running = await start(config, log, parts, database);
  let signals = 0;
  const stop = (signal: string) => {
    if (++signals > 2) process.exit(1);
    const isRepeated = signals === 2;
    log.info(
      { signal },
      isRepeated ? 'shutting down at once' : 'shutting down; a second signal ends it at once',
    );
    // Requests have one such time to close, and jobs another.
    const patienceMs = config.SHUTDOWN_DRAIN_MS + 2 * config.SHUTDOWN_GRACE_MS + 3_000;
    setTimeout(
      () => {
        log.error('shutdown took too long');
        process.exit(1);
      },
      isRepeated ? hurriedMs : patienceMs,
    ).unref();
    running.stop().then(
      () => process.exit(0),
      (error) => {
        log.error({ err: error }, 'shutdown failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => stop('SIGINT'));
  if (parts.serve) await greet(running.app, parts.work);
  else log.info('worker ready');
  // Written now: a process that is killed later would keep nothing.
  flushCompileCache();
}

async function greet(app: App, works: boolean): Promise<void> {
  const { config, log } = app;
  const { seedDemo, untilDemoIsRead } = await import('./seed.ts');
  const seeded = config.production ? undefined : await seedDemo(app);
  app.nudgeRelay();
  if (seeded && works) await untilDemoIsRead(app);
  log.info({ address: `http://${config.HOST}:${config.PORT}`, engine: app.database.engine }, 'ready');
  if (config.production) return;
  const lines = [
    '',
    `  Manushya is ready at ${config.publicUrl}`,
    `  API pages        ${config.publicUrl}/v1/docs`,
  ];
  if (seeded) {
    const another = 'npm run manushya -- keys create --tenant t1 --role admin --name NAME';
    const when = app.database.engine === 'embedded' ? ', with the server stopped' : '';
    lines.push(
      '  Demo tenant      t1, with corpus c1',
      `  Admin API key    ${seeded.key}`,
      `                   shown only now; for another one${when}:`,
      `                   ${another}`,
    );
  }
  say([...lines, ''].join('\n'));
}
