import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { environmentExample, readConfig } from '#platform/config.ts';
import type { App } from '#platform/context.ts';
import { generateTables } from '#platform/db/tables.ts';
import { openApiDocument } from '#platform/http/openapi.ts';
import { buildServer } from '#platform/http/server.ts';
import { createLog } from '#platform/log.ts';
import { registerAccessCommands } from './access-commands.ts';
import { openApp, routes } from './app.ts';
import { examine } from './commands/doctor.ts';
import { permissionsDocument } from './commands/permissions.ts';
import { smokeOf, smokeProvider } from './commands/provider-smoke.ts';
import { guarded, say } from './processes.ts';
import { seedDemo } from './seed.ts';

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

/** All words of the command line but those of `processes.ts`. */
export function registerCommands(program: Command): void {
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
