import type { Command } from 'commander';
import {
  allKeys,
  keyIdOf,
  prepareApiKey,
  revokeApiKey,
  scopeProblem,
  tenantOfKey,
} from '#modules/access/api-keys/service.ts';
import { listDataKeys, rotateDataKey } from '#modules/access/data-keys/service.ts';
import {
  ensureIdentity,
  identityInactive,
  rolePattern,
  whileActive,
} from '#modules/access/identity/service.ts';
import { listVisiblePolicies, unnamedRole, updatePolicy } from '#modules/access/policies/service.ts';
import { rotateSigningKey } from '#modules/access/sessions/service.ts';
import {
  ensureOperators,
  listTenants,
  makeTenant,
  removeTenant,
  SYSTEM_TENANT,
  setTenant,
  tenantOf,
} from '#modules/access/tenants/service.ts';
import { isBlank } from '#platform/blank.ts';
import { ConfigError } from '#platform/config.ts';
import { type App, systemCtx } from '#platform/context.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';
import { purgeDeletedTenants, rewrapAll } from './app.ts';

/** What a command is given: it opens the App, tells what went wrong in one line, and speaks to whoever called it. */
export interface Tools {
  guarded: <A extends unknown[]>(work: (...args: A) => Promise<void>) => (...args: A) => Promise<void>;
  withApp: (work: (app: App) => Promise<void>) => Promise<void>;
  say: (text: string) => void;
}

/** The commands `keys`, `tenants` and `policies`. */
export function registerAccessCommands(program: Command, tools: Tools): void {
  const keys = program.command('keys').description('API keys, and the keys that sign and encrypt');
  registerKeys(keys, tools);
  registerDataKeys(keys, tools);
  const tenants = program.command('tenants').description('tenants of the installation');
  registerTenants(tenants, tools);
  registerDeletion(tenants, tools);
  registerPolicies(program.command('policies').description('policies of a tenant'), tools);
}

function registerKeys(keys: Command, { guarded, withApp, say }: Tools): void {
  keys
    .command('create')
    .description('make an API key and print it once')
    .option('--tenant <id>', 'tenant it is for; none for the role system')
    .requiredOption('--name <name>', 'name of the key, and of the identity it acts as')
    .option(
      '--role <role>',
      'role of that identity, when it is new; system: an operator of all tenants',
      'admin',
    )
    .option('--scopes <scopes>', 'comma separated; none: all that the role may')
    .option('--expires-in-days <days>', 'days until it stops working')
    .action(
      guarded(async (options: Record<string, string>) => {
        const wanted = wantedKey(options);
        await withApp(async (app) => {
          const key = await makeKey(app, wanted);
          const doubt = await unnamedRole(app.database.tenant(wanted.tenant), wanted.role);
          if (doubt) process.stderr.write(`Warning: ${doubt}.\n`);
          process.stderr.write(`Key ${key.id} for tenant ${wanted.tenant}; it is shown only now:\n`);
          say(key.text);
        });
      }),
    );
  keys
    .command('list')
    .description('list the API keys of a tenant')
    .requiredOption('--tenant <id>', 'tenant they are of')
    .action(guarded(async ({ tenant }: { tenant: string }) => withApp((app) => listKeys(app, tenant, say))));
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
  keys
    .command('rotate-signing')
    .description('make a new key that signs access tokens; nobody is logged out')
    .option('--compromised', 'trust the old ones no more: access tokens end now and have to be refreshed')
    .action(
      guarded(async (options: { compromised?: boolean }) =>
        withApp(async (app) => {
          const { kid, signs_from, made } = await rotateSigningKey(app, options);
          say(
            `${made ? 'Made the key' : 'A rotation is under way:'} ${kid}; it signs from ${signs_from} on.`,
          );
        }),
      ),
    );
}

const slugRule = 'a tenant id has 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit';
const rolePatternOf = new RegExp(rolePattern);

interface WantedKey {
  tenant: string;
  name: string;
  role: string;
  scopes: string[] | undefined;
  days: number | undefined;
}

function wantedKey(options: Record<string, string>): WantedKey {
  const { name, role = 'admin', scopes: listed, expiresInDays } = options;
  if (isBlank(name!)) throw new ConfigError('--name must not be blank');
  if (!rolePatternOf.test(role))
    throw new ConfigError('--role must be a role: a-z 0-9 _ -, beginning with a letter');
  const scopes = listed?.split(',');
  for (const scope of scopes ?? []) {
    const problem = scopeProblem(scope);
    if (problem) throw new ConfigError(`--scopes: ${scope} ${problem}`);
  }
  const days = expiresInDays === undefined ? undefined : Number(expiresInDays);
  if (days !== undefined && !(Number.isInteger(days) && days > 0))
    throw new ConfigError('--expires-in-days must be a whole number of days');
  return { tenant: tenantFor(role, options.tenant), name: name!, role, scopes, days };
}

/** Operators live in a tenant of their own, and nobody else does. */
function tenantFor(role: string, given: string | undefined): string {
  if (role === 'system') {
    if (given !== undefined && given !== SYSTEM_TENANT)
      throw new ConfigError('--role system is of no tenant: leave --tenant out');
    return SYSTEM_TENANT;
  }
  if (given === SYSTEM_TENANT)
    throw new ConfigError(`the tenant ${SYSTEM_TENANT} is for --role system alone`);
  if (!given || !isSlug(given)) throw new ConfigError('--tenant must be a tenant id');
  return given;
}

async function makeKey(app: App, { tenant, name, role, scopes, days }: WantedKey) {
  const ctx = systemCtx(app, tenant, uuidv7());
  const now = new Date();
  if (tenant !== SYSTEM_TENANT && !(await tenantOf(app, tenant)))
    throw new Error(`no tenant has the id ${tenant}; make it with: manushya tenants create ${tenant}`);
  return ctx.db.transaction(async (tx) => {
    if (tenant === SYSTEM_TENANT) await ensureOperators(ctx, tx);
    const identity = await ensureIdentity({ ...ctx, db: tx }, name, role);
    if (identity.role !== role) {
      throw new Error(
        `${name} is an identity with the role ${identity.role}; choose another --name, or that --role`,
      );
    }
    const key = prepareApiKey(
      ctx,
      {
        identity_id: identity.id,
        name,
        ...(scopes ? { scopes } : {}),
        ...(days ? { expires_in_days: days } : {}),
      },
      now,
    );
    await whileActive(tx.batch(key.statements), identityInactive);
    return key;
  });
}

/** A name that somebody chose, without what a terminal would obey. */
const plain = (name: string): string => name.replace(/\p{C}/gu, ' ');

async function listKeys(app: App, tenant: string, say: Tools['say']): Promise<void> {
  if (!(await tenantOf(app, tenant))) throw new Error(`no tenant has the id ${tenant}`);
  for await (const key of allKeys(systemCtx(app, tenant, uuidv7()))) {
    const state = key.revoked_at ? 'revoked' : key.is_active ? 'active' : 'inactive';
    const used = key.last_used_at ? `used ${key.last_used_at}` : 'never used';
    say([key.id, state, used, key.scopes.join(',') || '*', plain(key.name)].join('\t'));
  }
}

function registerTenants(tenants: Command, { guarded, withApp, say }: Tools): void {
  tenants
    .command('create <tenant-id>')
    .description('make a tenant')
    .option('--name <name>', 'its name')
    .action(
      guarded(async (id: string, { name }: { name?: string }) =>
        withApp(async (app) => {
          if (!isSlug(id)) throw new ConfigError(slugRule);
          if (name && isBlank(name)) throw new ConfigError('--name must not be blank');
          await makeTenant(systemCtx(app, id, uuidv7()), { id, ...(name ? { name } : {}) });
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
          for (const { tenant_id, name, plan, is_active } of await listTenants(app))
            say(
              [
                tenant_id,
                plan ?? app.config.defaultPlan,
                plain(name),
                ...(is_active ? [] : ['deactivated']),
              ].join('\t'),
            );
        }),
      ),
    );
  for (const [word, is_active, about] of [
    ['deactivate', false, 'refuse every credential of a tenant, on every process at once'],
    ['activate', true, 'let the credentials of a tenant work again'],
  ] as const) {
    tenants
      .command(`${word} <tenant-id>`)
      .description(about)
      .action(
        guarded(async (id: string) =>
          withApp(async (app) => {
            await setTenant(systemCtx(app, id, uuidv7()), id, { is_active });
            say(`Tenant ${id} is ${is_active ? 'active' : 'deactivated'}.`);
          }),
        ),
      );
  }
}

function registerDeletion(tenants: Command, { guarded, withApp, say }: Tools): void {
  tenants
    .command('delete <tenant-id>')
    .description('remove a deactivated tenant with all it has, for good')
    .action(
      guarded(async (id: string) =>
        withApp(async (app) => {
          await removeTenant(systemCtx(app, SYSTEM_TENANT, uuidv7()), id);
          const { purged } = await purgeDeletedTenants(app);
          say(
            purged.includes(id)
              ? `Removed all that ${id} had. For a while workers look for what was still under way.`
              : `${id} is deleted. A worker removes what it has.`,
          );
        }),
      ),
    );
}

/** What the operator can do when no policy lets anybody of a tenant change its policies. */
function registerPolicies(policies: Command, { guarded, withApp, say }: Tools): void {
  policies
    .command('list')
    .description('list the policies of a tenant: id, role, effect, priority, whether in force')
    .requiredOption('--tenant <id>', 'tenant they are of')
    .action(
      guarded(async ({ tenant }: { tenant: string }) =>
        withApp(async (app) => {
          const ctx = systemCtx(app, tenant, uuidv7());
          const { body } = await listVisiblePolicies(ctx, { limit: 5_000 });
          for (const policy of body as Record<string, unknown>[]) {
            const { id, role, effect, priority, is_active } = policy;
            say([id, role, effect, priority, is_active ? 'active' : 'inactive'].join('\t'));
          }
        }),
      ),
    );
  policies
    .command('deactivate <policy-id>')
    .description('put a policy out of force, whatever policies say')
    .requiredOption('--tenant <id>', 'tenant it is of')
    .action(
      guarded(async (id: string, { tenant }: { tenant: string }) =>
        withApp(async (app) => {
          const ctx = systemCtx(app, tenant, uuidv7());
          const reason = 'put out of force on the command line';
          await updatePolicy(ctx, id, { is_active: false, force: true, reason });
          say(`Deactivated ${id}.`);
        }),
      ),
    );
}

function registerDataKeys(keys: Command, { guarded, withApp, say }: Tools): void {
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
    .command('rewrap')
    .description(
      'encrypt with ENCRYPTION_KEY all that ENCRYPTION_KEY_PREVIOUS encrypted, which can then be dropped',
    )
    .action(
      guarded(async () =>
        withApp(async (app) => {
          const done = await rewrapAll(app);
          for (const { table, resealed, unopened } of done) say([table, resealed, unopened].join('\t'));
          const lost = done.reduce((sum, { unopened }) => sum + unopened, 0);
          if (lost > 0) throw new Error(`${lost} values open with neither of the two keys`);
        }),
      ),
    );
}
