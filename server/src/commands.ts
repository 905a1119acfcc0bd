import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { keyIdOf, prepareApiKey, revokeApiKey, tenantOfKey } from '#modules/access/api-keys/service.ts';
import { listDataKeys, rewrapDataKeys, rotateDataKey } from '#modules/access/data-keys/service.ts';
import { ensureIdentity, rolePattern } from '#modules/access/identity/service.ts';
import { listTenants, tenantInsert } from '#modules/access/tenants/service.ts';
import { ConfigError, environmentExample, readConfig } from '#platform/config.ts';
import { type App, type Ctx, systemActor, systemCtx } from '#platform/context.ts';
import { generateTables } from '#platform/db/tables.ts';
import { fact } from '#platform/facts/record.ts';
import { openApiDocument } from '#platform/http/openapi.ts';
import { buildServer } from '#platform/http/server.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';
import { createLog } from '#platform/log.ts';
import { openApp, routes, start } from './app.ts';
import { seedDemo } from './seed.ts';

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
  const { app, close } = await openApp(
    config,
    createLog(config.LOG_LEVEL === 'info' ? 'warn' : config.LOG_LEVEL),
  );
  try {
    await work(app);
  } finally {
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
  registerKeys(program.command('keys').description('API keys, and the keys that encrypt'));
  registerTenants(program.command('tenants').description('tenants of the installation'));
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

async function runProcess(parts: { serve: boolean; work: boolean }): Promise<void> {
  const config = readConfig(process.env);
  if (!config.DATABASE_URL && !(parts.serve && parts.work)) {
    throw new ConfigError(
      'the embedded database has one process: set DATABASE_URL to run server and worker apart',
    );
  }
  const log = createLog(config.LOG_LEVEL);
  const running = await start(config, log, parts);
  let stopping = false;
  const stop = (signal: string) => {
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, 'shutting down');
    const late = setTimeout(() => {
      log.error('shutdown took too long');
      process.exit(1);
    }, config.SHUTDOWN_GRACE_MS + 5_000);
    late.unref();
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
  if (parts.serve) await greet(running.app);
  else log.info('worker ready');
  // Written now: a process that is killed later would keep nothing.
  flushCompileCache();
}

async function greet(app: App): Promise<void> {
  const { config, log } = app;
  const seeded = config.production ? undefined : await seedDemo(app);
  app.nudgeRelay();
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

function registerKeys(keys: Command): void {
  keys
    .command('create')
    .description('make an API key and print it once')
    .requiredOption('--tenant <id>', 'tenant it is for')
    .requiredOption('--name <name>', 'name of the key, and of the identity it acts as')
    .option('--role <role>', 'role of that identity, when it is new', 'admin')
    .option('--scopes <scopes>', 'comma separated; none: all that the role may')
    .option('--expires-in-days <days>', 'days until it stops working')
    .action(guarded(async (options: Record<string, string>) => withApp((app) => createKey(app, options))));
  keys
    .command('revoke <key>')
    .description('revoke an API key, by its id or the key itself, on every process at once')
    .action(
      guarded(async (given: string) =>
        withApp(async (app) => {
          const id = keyIdOf(given);
          const tenant = id && (await tenantOfKey(app, id));
          if (!tenant || !(await revokeApiKey(systemCtx(app, tenant, uuidv7()), id)))
            throw new Error('no active key is known by this');
          say(`Revoked ${id}.`);
        }),
      ),
    );
  registerDataKeys(keys);
}

function registerDataKeys(keys: Command): void {
  keys
    .command('rotate-data')
    .description('encrypt what is sensitive with a new key; a worker encrypts anew what there is')
    .option('--tenant <id>', 'tenant it is for; none: every tenant')
    .action(
      guarded(async ({ tenant }: { tenant?: string }) =>
        withApp(async (app) => {
          const known = (await listTenants(app)).map(({ tenant_id }) => tenant_id);
          if (tenant !== undefined && !known.includes(tenant))
            throw new Error(`no tenant has the id ${tenant}`);
          for (const id of tenant === undefined ? known : [tenant]) {
            const ctx = systemCtx(app, id, uuidv7());
            // Of most tenants nothing was ever encrypted.
            if (tenant === undefined && (await listDataKeys(ctx)).length === 0) continue;
            say(`${id}\t${(await rotateDataKey(ctx)).key_id}`);
          }
        }),
      ),
    );
  keys
    .command('rewrap-data')
    .description('wrap with ENCRYPTION_KEY the data keys that ENCRYPTION_KEY_PREVIOUS wrapped')
    .action(
      guarded(async () =>
        withApp(async (app) => {
          const { rewrapped, unopened } = await rewrapDataKeys(app);
          say(`Wrapped ${rewrapped} keys anew.`);
          if (unopened > 0) throw new Error(`${unopened} keys open with neither of the two`);
        }),
      ),
    );
}

async function createKey(app: App, options: Record<string, string>): Promise<void> {
  const { tenant, name, role = 'admin', scopes, expiresInDays } = options;
  if (!tenant || !isSlug(tenant)) throw new ConfigError('--tenant must be a tenant id');
  if (!new RegExp(rolePattern).test(role))
    throw new ConfigError('--role must be a role: a-z 0-9 _ -, beginning with a letter');
  for (const scope of scopes?.split(',') ?? []) {
    if (!/^(admin|read|write|\*|[a-z_]+:([a-z_]+|\*)|\*:[a-z_]+)$/.test(scope))
      throw new ConfigError(`--scopes: ${scope} is none; there are admin, read, write, and resource:action`);
  }
  const days = expiresInDays === undefined ? undefined : Number(expiresInDays);
  if (days !== undefined && !(Number.isInteger(days) && days > 0))
    throw new ConfigError('--expires-in-days must be a whole number of days');
  const known = (await listTenants(app)).some(({ tenant_id }) => tenant_id === tenant);
  if (!known)
    throw new Error(`no tenant has the id ${tenant}; make it with: manushya tenants create ${tenant}`);
  const ctx: Ctx = { ...systemCtx(app, tenant, uuidv7()), actor: systemActor };
  const key = await ctx.db.transaction(async (tx) => {
    const identity = await ensureIdentity({ ...ctx, db: tx }, name!, role);
    if (identity.role !== role) {
      throw new Error(
        `${name} is an identity with the role ${identity.role}; choose another --name, or that --role`,
      );
    }
    const prepared = prepareApiKey(
      ctx,
      {
        identity_id: identity.id,
        name: name!,
        ...(scopes ? { scopes: scopes.split(',') } : {}),
        ...(days ? { expires_in_days: days } : {}),
      },
      new Date(),
    );
    await tx.batch(prepared.statements);
    return prepared;
  });
  process.stderr.write(`Key ${key.id} for tenant ${tenant}; it is shown only now:\n`);
  say(key.text);
}

function registerTenants(tenants: Command): void {
  tenants
    .command('create <tenant-id>')
    .description('make a tenant')
    .option('--name <name>', 'its name')
    .action(
      guarded(async (id: string, { name }: { name?: string }) =>
        withApp(async (app) => {
          if (!isSlug(id))
            throw new ConfigError(
              'a tenant id has 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit',
            );
          const ctx = systemCtx(app, id, uuidv7());
          await ctx.db.transaction(async (tx) => {
            const made = await tx.rows(tenantInsert(id, name ?? id, new Date()));
            if (made.length === 0) throw new Error(`the tenant ${id} exists`);
            await tx.run(fact(ctx, { type: 'tenant.created', resource_type: 'tenant', resource_id: id }));
          });
          say(`Made tenant ${id}.`);
        }),
      ),
    );
  tenants
    .command('list')
    .description('list the tenants')
    .action(
      guarded(async () =>
        withApp(async (app) => {
          for (const { tenant_id, name, plan } of await listTenants(app))
            say(`${tenant_id}\t${plan ?? app.config.defaultPlan}\t${name}`);
        }),
      ),
    );
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
