import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { isSlug } from './ids.ts';
import { ConfigError, fail, type Setting } from './setting.ts';
import { settings } from './settings.ts';

export { ConfigError } from './setting.ts';

type Raw = { [K in keyof typeof settings]: (typeof settings)[K] extends Setting<infer T> ? T : never };

/** The configuration of a process: every setting, plus what follows from them. */
export interface Config extends Raw {
  production: boolean;
  dataDir: string;
  publicUrl: string;
  /** What addresses of spoken answers begin with, before `/audio/`. */
  audioUrl: string;
  secretKey: string;
  encryptionKey: string;
  encryptionKeyPrevious: string | undefined;
  openRegistration: boolean;
  defaultPlan: Plan;
  rateLimitFactors: Record<Plan, number>;
  embeddingProvider: 'openai-compatible' | 'local' | 'hashed';
  version: string;
}

export const plans = ['free', 'pro', 'enterprise'] as const;
export type Plan = (typeof plans)[number];

const unsafe = /^(changeme|secret|default|password|dev|test|your[-_].*)$/i;

/**
 * Reads and checks the environment once.
 * @throws ConfigError one line that names the variable
 */
export function readConfig(env: NodeJS.ProcessEnv): Config {
  const raw = {} as Record<string, unknown>;
  for (const [name, setting] of Object.entries(settings) as [string, Setting<unknown>][]) {
    const given = env[name]?.trim();
    try {
      raw[name] = given === undefined || given === '' ? setting.initial : setting.read(given);
    } catch (error) {
      throw error instanceof ConfigError ? new ConfigError(`${name} ${error.message}`) : error;
    }
  }
  const values = raw as Raw;
  const production = values.ENVIRONMENT === 'production';
  const dataDir = resolve(values.DATA_DIR);
  const plan = values.DEFAULT_PLAN ?? (production ? 'free' : 'enterprise');
  const embeddingProvider = embeddingProviderOf(values);
  if (production && values.AUTH_DEV_BYPASS)
    throw new ConfigError('AUTH_DEV_BYPASS must be false in production');
  for (const name of ['LLM_PROVIDER', 'TTS_PROVIDER'] as const)
    if (production && values[name] === 'fake')
      throw new ConfigError(`${name}=fake is for tests, not for production`);
  if (values.GOOGLE_CLIENT_ID && !values.GOOGLE_CLIENT_SECRET)
    throw new ConfigError('GOOGLE_CLIENT_SECRET must be set together with GOOGLE_CLIENT_ID');
  if (values.GOOGLE_TENANT_ID && !isSlug(values.GOOGLE_TENANT_ID))
    throw new ConfigError('GOOGLE_TENANT_ID must be a tenant id');
  const publicUrl = (values.PUBLIC_URL ?? `http://localhost:${values.PORT}`).replace(/\/$/, '');
  const secrets = production ? undefined : developmentSecrets(dataDir, values);
  return {
    ...values,
    ACCESS_TOKEN_TTL_S: accessTokenLife(values, Boolean(env.ACCESS_TOKEN_TTL_S?.trim())),
    production,
    dataDir,
    publicUrl,
    audioUrl: (values.AUDIO_BASE_URL ?? `${publicUrl}/v1`).replace(/\/$/, ''),
    secretKey: checkedSecret('SECRET_KEY', values.SECRET_KEY, secrets?.SECRET_KEY),
    encryptionKey: checkedSecret('ENCRYPTION_KEY', values.ENCRYPTION_KEY, secrets?.ENCRYPTION_KEY),
    encryptionKeyPrevious:
      values.ENCRYPTION_KEY_PREVIOUS &&
      checkedSecret('ENCRYPTION_KEY_PREVIOUS', values.ENCRYPTION_KEY_PREVIOUS, undefined),
    openRegistration: values.OPEN_REGISTRATION ?? !production,
    defaultPlan:
      plans.find((known) => known === plan) ?? fail(`DEFAULT_PLAN must be one of ${plans.join(', ')}`),
    rateLimitFactors: factorsOf(values.RATE_LIMIT_FACTORS),
    embeddingProvider,
    version: '0.1.0',
  };
}

function accessTokenLife({ ACCESS_TOKEN_TTL_S, JWT_EXPIRATION_MINUTES }: Raw, given: boolean): number {
  if (JWT_EXPIRATION_MINUTES === undefined) return ACCESS_TOKEN_TTL_S;
  const seconds = JWT_EXPIRATION_MINUTES * 60;
  if (given && seconds !== ACCESS_TOKEN_TTL_S)
    throw new ConfigError(
      `JWT_EXPIRATION_MINUTES=${JWT_EXPIRATION_MINUTES} and ACCESS_TOKEN_TTL_S=${ACCESS_TOKEN_TTL_S} say different lives of an access token: set one`,
    );
  return seconds;
}

/** What is set and does nothing, one sentence each. */
export const withoutEffect = ({ JWT_SECRET_KEY }: Config): string[] =>
  JWT_SECRET_KEY
    ? ['JWT_SECRET_KEY is not used: access tokens are signed by keys that the server makes and rotates']
    : [];

function factorsOf(given: string): Record<Plan, number> {
  const factors: Record<Plan, number> = { free: 1, pro: 10, enterprise: 100 };
  for (const part of given.split(',')) {
    const [name = '', factor = ''] = part.split('=').map((text) => text.trim());
    const plan = plans.find((known) => known === name);
    const value = Number(factor);
    if (!plan || !(value > 0 && value <= 1_000_000))
      return fail(`RATE_LIMIT_FACTORS must be like free=1,pro=10,enterprise=100, with numbers above 0`);
    factors[plan] = value;
  }
  return factors;
}

function embeddingProviderOf(values: Raw): Config['embeddingProvider'] {
  const known = ['openai-compatible', 'local', 'hashed'] as const;
  const fallback = values.EMBEDDING_LOCAL_MODEL ? 'local' : 'hashed';
  const wanted =
    values.EMBEDDING_PROVIDER ??
    (values.EMBEDDING_BASE_URL || values.OPENAI_API_KEY ? 'openai-compatible' : fallback);
  const provider =
    known.find((one) => one === wanted) ?? fail(`EMBEDDING_PROVIDER must be one of ${known.join(', ')}`);
  if (provider === 'local' && !values.EMBEDDING_LOCAL_MODEL)
    throw new ConfigError('EMBEDDING_LOCAL_MODEL must name a model when EMBEDDING_PROVIDER is local');
  return provider;
}

function checkedSecret(name: string, given: string | undefined, fallback: string | undefined): string {
  const secret = given ?? fallback;
  if (!secret) throw new ConfigError(`${name} must be set in production (for example: openssl rand -hex 32)`);
  if (secret.length < 32 || unsafe.test(secret)) {
    throw new ConfigError(
      `${name} must be at least 32 random characters (for example: openssl rand -hex 32)`,
    );
  }
  return secret;
}

/** Development secrets are made once and kept, readable by the owner only, so that keys outlive a restart. */
function developmentSecrets(
  dataDir: string,
  values: Raw,
): { SECRET_KEY: string; ENCRYPTION_KEY: string } | undefined {
  if (values.SECRET_KEY && values.ENCRYPTION_KEY) return undefined;
  const file = join(dataDir, 'secrets.json');
  if (!existsSync(file)) {
    mkdirSync(dirname(file), { recursive: true });
    const made = {
      SECRET_KEY: randomBytes(32).toString('hex'),
      ENCRYPTION_KEY: randomBytes(32).toString('hex'),
    };
    // Whole or not at all, whenever the process is killed; of two first starts at once the first one's secrets count.
    const whole = `${file}.${process.pid}`;
    writeFileSync(whole, `${JSON.stringify(made, null, 2)}\n`, { mode: 0o600 });
    try {
      linkSync(whole, file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    } finally {
      unlinkSync(whole);
    }
  }
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    throw new ConfigError(
      `SECRET_KEY and ENCRYPTION_KEY can not be read from ${file}: mend or remove that file`,
    );
  }
}

/** The text of `.env.example`, made from the settings themselves. */
export function environmentExample(): string {
  const lines = Object.entries(settings).map(([name, { initial, about }]) => {
    const shown = Array.isArray(initial) ? initial.join(',') : (initial ?? '');
    return `# ${about}\n#${name}=${shown}\n`;
  });
  return `# Manushya reads these environment variables at start. All have defaults for development.\n# Production must set ENVIRONMENT, SECRET_KEY and ENCRYPTION_KEY.\n\n${lines.join('\n')}`;
}
