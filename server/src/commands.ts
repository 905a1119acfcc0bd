import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { ConfigError, environmentExample, readConfig, withoutEffect } from '#platform/config.ts';
import type { App } from '#platform/context.ts';
import { generateTables } from '#platform/db/tables.ts';
import { openApiDocument } from '#platform/http/openapi.ts';
import { buildServer } from '#platform/http/server.ts';
import { createLog } from '#platform/log.ts';
import { registerAccessCommands } from './access-commands.ts';
import { openApp, routes, start } from './app.ts';
import { examine } from './commands/doctor.ts';
import { permissionsDocument } from './commands/permissions.ts';
import { smokeOf, smokeProvider } from './commands/provider-smoke.ts';
import { seedDemo, untilDemoIsRead } from './seed.ts';

/** Says one line on standard error and ends with a code scripts can use: 1 failed, 2 misused. */
function fail(message: string, code = 1): never {
  process.stderr.write(`manushya: ${message}\n`);
  process.exit(code);
}

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** Runs a command's work, telling what went wrong in one line. */
const guarded =
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

/** Opens the App for a command that ends: quiet, without server and worker. */
async function withApp(work: (app: App) => Promise<void>): Promise<void> {
  const config = readConfig(process.env);
  const { app, close, closing } = await openApp(
    config,
    createLog(config.LOG_LEVEL === 'info' ? 'warn' : config.LOG_LEVEL),
  );
  try {
    await work(app);
  } finally {
    closing.abort(new Error('the command is done'));
    await close();
  }
}

export function registerCommands(program: Command): void {
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
  program
    .command('migrate')
    .description('bring the schema up to date')
    .action(guarded(async () => withApp(async () => say('The schema is up to date.'))));
  program
    .command('seed')
    .description('make the demo tenant t1 with corpus c1, unless it is there')
    .action(
      guarded(async () =>
        withApp(async (app) => say((await seedDemo(app)) ? 'Seeded t1 with corpus c1.' : 'Already seeded.')),
      ),
    );
  registerAccessCommands(program, { guarded, withApp, say });
  program
    .command('provider-smoke')
    .description('search a corpus by the route it has, without a language model, and print what is found')
    .requiredOption('--tenant <id>', 'tenant of the corpus')
    .requiredOption('--corpus <id>', 'corpus to search')
    .requiredOption('--query <text>', 'what to look for')
    .option('--top-k <number>', 'most rows to print', '5')
    .addHelpText('after', '\nEnds with 0 when the provider answered, 1 when it did not, 2 when misused.')
    .action(
      guarded(async (options: Record<string, string>) => {
        const smoke = smokeOf(options);
        await withApp((app) => smokeProvider(app, smoke, say));
      }),
    );
  program
    .command('doctor')
    .description('ask all that a server needs whether it is there: one line each, nothing is changed')
    .addHelpText('after', '\nEnds with 0 when all is well, with 1 when something is not.')
    .action(
      guarded(async () => {
        if (!(await examine(process.env, say))) process.exitCode = 1;
      }),
    );
  program
    .command('openapi')
    .description('write the published contract')
    .option('--check', 'only say whether openapi.json is up to date')
    .action(guarded(async ({ check }: { check?: boolean }) => writeContract(check ?? false)));
  program
    .command('tables')
    .description('write the types of the tables from the schema')
    .option('--check', 'only say whether they are up to date')
    .action(guarded(async ({ check }: { check?: boolean }) => writeTables(check ?? false)));
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
  const running = await start(config, log, parts);
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

/** Writes a generated file, or says that it is not what it would be. */
async function generated(path: string, text: string, check: boolean): Promise<void> {
  const url = new URL(`../../${path}`, import.meta.url);
  const before = await readFile(url, 'utf8').catch(() => '');
  if (before === text) return say(`${path} is up to date.`);
  if (check)
    throw new Error(`${path} is not up to date: run the same command without --check and commit the result`);
  await writeFile(url, text);
  say(`Wrote ${path}.`);
}

async function writeContract(check: boolean): Promise<void> {
  const env = { DATA_DIR: process.env.DATA_DIR, ENVIRONMENT: 'development', LOG_LEVEL: 'silent' };
  const config = { ...readConfig(env), publicUrl: 'http://localhost:8000' };
  // The contract follows from the routes alone: nothing is opened.
  const app = {
    config,
    metrics: (await import('#platform/metrics.ts')).createMetrics(),
    log: createLog('silent'),
  } as unknown as App;
  const server = await buildServer(app, routes);
  await generated('openapi.json', `${JSON.stringify(openApiDocument(server), null, 2)}\n`, check);
  await generated('.env.example', environmentExample(), check);
  await generated('docs/guides/permissions.md', permissionsDocument(routes), check);
  await server.close();
}

/** The types follow from the migrations alone: a new database is made for the question and thrown away. */
async function writeTables(check: boolean): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'manushya-tables-'));
  try {
    const { app, close } = await openApp(readConfig({ DATA_DIR: directory }), createLog('warn'));
    const text = await generateTables(app.database.operator);
    await close();
    await generated('server/src/platform/db/tables.gen.ts', text, check);
  } finally {
    await rm(directory, { recursive: true });
  }
}
