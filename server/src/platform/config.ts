import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname, join, resolve } from 'node:path';

/** A bad or missing environment variable. The message names the variable and says what it must be. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

interface Setting<T> {
  initial: T;
  read: (raw: string) => T;
  about: string;
}

const fail = (message: string): never => {
  throw new ConfigError(message);
};

const text = (initial: string, about: string): Setting<string> => ({ initial, about, read: (raw) => raw });
const optional = (about: string): Setting<string | undefined> => ({
  initial: undefined,
  about,
  read: (raw) => raw,
});
const integer = (initial: number, min: number, max: number, about: string): Setting<number> => ({
  initial,
  about,
  read: (raw) => {
    const value = Number(raw);
    return Number.isInteger(value) && value >= min && value <= max
      ? value
      : fail(`must be a whole number from ${min} to ${max}`);
  },
});
const choice = <const V extends string>(initial: V, values: readonly V[], about: string): Setting<V> => ({
  initial,
  about,
  read: (raw) => values.find((value) => value === raw) ?? fail(`must be one of ${values.join(', ')}`),
});
const boolean = (initial: boolean, about: string): Setting<boolean> => ({
  initial,
  about,
  read: (raw) => {
    if (/^(true|1|yes|on)$/i.test(raw)) return true;
    return /^(false|0|no|off)$/i.test(raw) ? false : fail('must be true or false');
  },
});
/** `undefined` until decided by the environment (development or production). */
const decided = (about: string): Setting<boolean | undefined> => ({
  ...boolean(false, about),
  initial: undefined,
});
const url = (protocols: string[], about: string): Setting<string | undefined> => ({
  initial: undefined,
  about,
  read: (raw) => {
    const parsed = URL.canParse(raw)
      ? new URL(raw)
      : fail(`must be a URL starting with ${protocols.join(' or ')}`);
    return protocols.includes(`${parsed.protocol}//`)
      ? raw
      : fail(`must be a URL starting with ${protocols.join(' or ')}`);
  },
});
const list = (about: string): Setting<string[]> => ({
  initial: [],
  about,
  read: (raw) =>
    raw
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean),
});

/** Never `true`: that would believe what the client itself wrote into the header. */
const proxies = (about: string): Setting<number | string[] | undefined> => ({
  initial: undefined,
  about,
  read: (raw) => {
    if (/^(false|0)$/i.test(raw)) return undefined;
    if (/^\d{1,2}$/.test(raw)) return Number(raw);
    const addresses = raw.split(',').map((item) => item.trim());
    return addresses.every((item) => isIP(item.replace(/\/\d{1,3}$/, '')) > 0)
      ? addresses
      : fail('must be a number of proxies, or their addresses (CIDR), comma separated');
  },
});

/** Every environment variable the server reads, in the order of `.env.example`. */
export const settings = {
  ENVIRONMENT: choice(
    'development',
    ['development', 'production'],
    'production refuses missing secrets and development shortcuts',
  ),
  HOST: text('127.0.0.1', 'address to listen on'),
  PORT: integer(8000, 0, 65535, 'port to listen on'),
  LOG_LEVEL: choice(
    'info',
    ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
    'least severity that is logged',
  ),
  DATA_DIR: text('var', 'directory of the embedded database, development secrets and files'),
  DATABASE_URL: url(
    ['postgres://', 'postgresql://'],
    'PostgreSQL 15 or newer with pgvector, as the owner of the schema; unset: embedded database under DATA_DIR',
  ),
  DATABASE_APP_URL: url(
    ['postgres://', 'postgresql://'],
    'the same database as the restricted role; unset: a role <database>_app is made and kept by the migrations',
  ),
  DATABASE_POOL_SIZE: integer(10, 1, 200, 'connections of a process to the database for requests'),
  REDIS_URL: url(
    ['redis://', 'rediss://'],
    'limiter, cache and revocations shared by all processes; unset: in process',
  ),
  SECRET_KEY: optional('at least 32 characters; signs cursors and hashes API keys'),
  ENCRYPTION_KEY: optional('at least 32 characters; wraps signing keys and stored secrets'),
  PUBLIC_URL: url(
    ['http://', 'https://'],
    'address clients use; issuer of tokens; unset: http://localhost:PORT',
  ),
  ACCESS_TOKEN_TTL_S: integer(900, 30, 86_400, 'life of an access token'),
  SESSION_TTL_DAYS: integer(30, 1, 365, 'life of a session'),
  OPEN_REGISTRATION: decided(
    'POST /v1/identity/ without a credential makes a new tenant; unset: on in development, off in production',
  ),
  SIGN_UPS_PER_HOUR: integer(60, 1, 1_000_000, 'sign-ups allowed to one address in an hour'),
  AUTH_DEV_BYPASS: boolean(false, 'development only: X-Tenant-Id and X-Role stand in for a credential'),
  TRUST_PROXY: proxies(
    'whose X-Forwarded-For is believed: how many proxies stand before the server, or their addresses',
  ),
  CORS_ORIGINS: list('origins that browsers may call from, comma separated'),
  BODY_LIMIT_BYTES: integer(4_194_304, 1024, 104_857_600, 'largest JSON body'),
  UPLOAD_LIMIT_BYTES: integer(26_214_400, 1024, 1_073_741_824, 'largest uploaded file'),
  MAX_IN_FLIGHT: integer(400, 1, 100_000, 'requests worked on at once before 503 SERVICE_BUSY'),
  RATE_LIMIT_ENABLED: boolean(true, 'false only for benchmarks'),
  RL_FAIL_MODE: choice('open', ['open', 'closed'], 'what a lost Redis does: let requests through, or 503'),
  DEFAULT_PLAN: optional(
    'plan of a tenant that has none: free, pro or enterprise; unset: enterprise in development, free in production',
  ),
  MAX_MEMORY_SIZE: integer(10_000, 100, 1_000_000, 'characters in a memory'),
  OPENAI_API_KEY: optional('turns on OpenAI embeddings (and answers, with LLM_PROVIDER=openai-compatible)'),
  EMBEDDING_PROVIDER: optional(
    'openai-compatible or hashed; unset: openai-compatible when a key or address is set, else hashed',
  ),
  EMBEDDING_BASE_URL: url(['http://', 'https://'], 'OpenAI-compatible embeddings server'),
  EMBEDDING_API_KEY: optional('key for EMBEDDING_BASE_URL; unset: OPENAI_API_KEY'),
  EMBEDDING_MODEL: text('text-embedding-3-small', 'model asked for embeddings'),
  EMBEDDING_DIMENSIONS: integer(1536, 8, 16_000, 'dimensions the model answers with'),
  LLM_PROVIDER: choice(
    'extractive',
    ['extractive', 'openai-compatible', 'vertex', 'fake'],
    'who writes the answers of a run',
  ),
  LLM_BASE_URL: url(['http://', 'https://'], 'OpenAI-compatible chat server; unset: OpenAI'),
  LLM_API_KEY: optional('key for LLM_BASE_URL; unset: OPENAI_API_KEY'),
  LLM_MODEL: text('gpt-4o-mini', 'model asked for answers'),
  LLM_TIMEOUT_MS: integer(90_000, 100, 600_000, 'longest silence of the model before the run fails'),
  GOOGLE_CLOUD_PROJECT: optional(
    'project of Vertex AI (LLM_PROVIDER=vertex); credentials are Application Default Credentials',
  ),
  GOOGLE_CLOUD_LOCATION: optional('location of Vertex AI, for example us-central1'),
  VERTEX_LOCATION: optional('the same, under its other name'),
  GEMINI_MODEL: text('gemini-2.5-flash', 'model asked for answers at Vertex AI'),
  VERTEX_BASE_URL: url(['http://', 'https://'], 'server that stands in for Vertex AI; unset: Google'),
  TTS_PROVIDER: choice('none', ['none', 'openai', 'fake'], 'who speaks the answers of runs with audio'),
  TTS_BASE_URL: url(['http://', 'https://'], 'server that speaks like OpenAI; unset: OpenAI'),
  OPENAI_TTS_MODEL: text('gpt-4o-mini-tts', 'model asked for speech'),
  OPENAI_TTS_VOICE: text('alloy', 'voice asked for'),
  TTS_MAX_CHARS: integer(12_000, 100, 100_000, 'characters of an answer that are spoken'),
  TTS_TIMEOUT_MS: integer(120_000, 100, 600_000, 'time for speaking an answer'),
  AUDIO_BASE_URL: url(
    ['http://', 'https://'],
    'what addresses of spoken answers begin with, before /audio/; unset: PUBLIC_URL and /v1',
  ),
  AUDIO_TTL_DAYS: integer(7, 1, 3_650, 'days that spoken answers are kept'),
  EXT_CALL_TIMEOUT_MS: integer(8_000, 50, 600_000, 'limit of one call to an outside service'),
  EXT_RETRY_MAX_ATTEMPTS: integer(2, 0, 10, 'retries of a failed call to an outside service'),
  FETCH_ALLOW_HOSTS: list('hosts outside services may have although their address is private (development)'),
  RUN_MAX_CONCURRENCY: integer(250, 1, 10_000, 'runs worked on at once in a process before 503 SERVICE_BUSY'),
  RUN_MAX_CONCURRENCY_PER_TENANT: integer(
    0,
    0,
    10_000,
    'the same for one tenant, so that others find room; 0: four fifths of RUN_MAX_CONCURRENCY',
  ),
  RUN_LEASE_S: integer(
    20,
    2,
    600,
    'seconds without a sign of life after which the process of a run counts as gone; the same everywhere',
  ),
  RUN_TIMEOUT_S: integer(900, 1, 86_400, 'longest time a run may take'),
  RUN_SSE_HEARTBEAT_S: integer(10, 1, 600, 'seconds of silence before a heartbeat'),
  RUN_DISCONNECT_GRACE_MS: integer(10_000, 0, 600_000, 'how long a run goes on after its last reader left'),
  RUN_EVENTS_TTL_HOURS: integer(24, 0, 8_760, 'how long the events of a run that is over can be read again'),
  SSE_FLUSH_INTERVAL_MS: integer(40, 5, 5_000, 'how often the events of a run are stored while it streams'),
  DEBUG_EVENTS: boolean(false, 'adds debug.retrieval events to runs'),
  INGEST_MAX_CONCURRENCY: integer(4, 1, 64, 'documents worked on at once'),
  SMTP_URL: url(
    ['smtp://', 'smtps://'],
    'server that sends mails, with user and password inside; unset: files under DATA_DIR/outbox in development, none in production',
  ),
  MAIL_FROM: text('Manushya <manushya@localhost>', 'sender of mails'),
  RELAY_POLL_MS: integer(500, 10, 60_000, 'how often the relay looks for facts nobody told it of'),
  SHUTDOWN_GRACE_MS: integer(10_000, 0, 600_000, 'time for requests and jobs to end at shutdown'),
  LEGACY_ROUTES_ENABLED: boolean(true, 'serve the unversioned aliases at all'),
  LEGACY_ROUTES_SUNSET: text('2027-05-10', 'day from which the unversioned aliases answer 410'),
} satisfies Record<string, Setting<unknown>>;

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
  openRegistration: boolean;
  defaultPlan: Plan;
  embeddingProvider: 'openai-compatible' | 'hashed';
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
  const provider =
    values.EMBEDDING_PROVIDER ??
    (values.EMBEDDING_BASE_URL || values.OPENAI_API_KEY ? 'openai-compatible' : 'hashed');
  if (provider !== 'openai-compatible' && provider !== 'hashed') {
    throw new ConfigError('EMBEDDING_PROVIDER must be one of openai-compatible, hashed');
  }
  if (production && values.AUTH_DEV_BYPASS)
    throw new ConfigError('AUTH_DEV_BYPASS must be false in production');
  for (const name of ['LLM_PROVIDER', 'TTS_PROVIDER'] as const)
    if (production && values[name] === 'fake')
      throw new ConfigError(`${name}=fake is for tests, not for production`);
  const publicUrl = (values.PUBLIC_URL ?? `http://localhost:${values.PORT}`).replace(/\/$/, '');
  const secrets = production ? undefined : developmentSecrets(dataDir, values);
  return {
    ...values,
    production,
    dataDir,
    publicUrl,
    audioUrl: (values.AUDIO_BASE_URL ?? `${publicUrl}/v1`).replace(/\/$/, ''),
    secretKey: checkedSecret('SECRET_KEY', values.SECRET_KEY, secrets?.SECRET_KEY),
    encryptionKey: checkedSecret('ENCRYPTION_KEY', values.ENCRYPTION_KEY, secrets?.ENCRYPTION_KEY),
    openRegistration: values.OPEN_REGISTRATION ?? !production,
    defaultPlan:
      plans.find((known) => known === plan) ?? fail(`DEFAULT_PLAN must be one of ${plans.join(', ')}`),
    embeddingProvider: provider,
    version: '0.1.0',
  };
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
