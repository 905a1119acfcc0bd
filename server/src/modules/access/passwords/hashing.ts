import { type Algorithm, hash, parseOptions, verify } from '@node-rs/argon2';
import { compare } from '@node-rs/bcrypt';
import type { Ctx } from '#platform/context.ts';
import { unavailable } from '#platform/errors.ts';
import { perApp } from '#platform/per-app.ts';
import { normalizedPassword } from './rules.ts';

/** 19 MiB, two passes, one lane: what OWASP recommends for Argon2id. */
export const parameters = { memoryCost: 19_456, timeCost: 2, parallelism: 1 };
// The library's enumeration is gone when types are stripped.
const argon2id = 2 as Algorithm;

/** The hash of a password nobody knows, made with the parameters above: verified where there is no account. */
export const nobodysHash =
  '$argon2id$v=19$m=19456,t=2,p=1$J436EhXFKrB0SHLtultwlA$P4rs4X56r/CIjdiQimtzAuOWmhuWcjEqLpD0ezs1qSU';

const isArgon2 = (stored: string): boolean => stored.startsWith('$argon2');
const isBcrypt = (stored: string): boolean => /^\$2[aby]\$/.test(stored);

/** Hashes and verifies on a place that was taken in the queue. */
export interface Hasher {
  hash(password: string): Promise<string>;
  /**
   * Always makes exactly one verification with Argon2, of nobody's hash where there is none, so that its time says nothing about
   * an account. `outdated`: the password should be hashed anew.
   */
  verify(stored: string | null, password: string): Promise<{ matches: boolean; outdated: boolean }>;
}

interface Queue {
  /** Places taken, at work or waiting. */
  places: number;
  working: number;
  waiting: (() => void)[];
}

const queueOf = perApp((): Queue => ({ places: 0, working: 0, waiting: [] }));

/**
 * Does work that hashes passwords, on one of PASSWORD_HASH_CONCURRENCY + PASSWORD_HASH_QUEUE places. The place is taken before
 * anything else is done, so a flood of sign-ins is refused at once and costs neither a question to the database nor a core.
 * Never call it inside a transaction: waiting there would hold up everybody else.
 * @throws ApiError 503 SERVICE_BUSY with Retry-After
 */
export async function withHasher<T>(ctx: Ctx, work: (hasher: Hasher) => Promise<T>): Promise<T> {
  const { config } = ctx.app;
  const queue = queueOf(ctx.app);
  if (queue.places >= config.PASSWORD_HASH_CONCURRENCY + config.PASSWORD_HASH_QUEUE) throw busy();
  queue.places += 1;
  try {
    return await work(hasherOf(ctx, queue));
  } finally {
    queue.places -= 1;
  }
}

const busy = () =>
  unavailable('SERVICE_BUSY', 'More people sign in than the server can check. Repeat the request.', 2);

function hasherOf(ctx: Ctx, queue: Queue): Hasher {
  const timed = async <T>(algorithm: 'argon2' | 'bcrypt', compute: () => Promise<T>): Promise<T> =>
    atWork(ctx, queue, async () => {
      const stop = ctx.app.metrics.passwordHash.startTimer({ algorithm });
      try {
        return await compute();
      } finally {
        stop();
      }
    });
  return {
    hash: (password) =>
      timed('argon2', () => hash(normalizedPassword(password), { ...parameters, algorithm: argon2id })),
    verify: async (stored, password) => {
      const known = stored !== null && isArgon2(stored);
      const verified = await timed('argon2', () =>
        verify(known ? stored : nobodysHash, normalizedPassword(password)),
      );
      if (known) return { matches: verified, outdated: isOutdated(stored) };
      if (stored === null || !isBcrypt(stored)) return { matches: false, outdated: false };
      // As it was typed: whoever made the hash did not normalise.
      return { matches: await timed('bcrypt', () => compare(password, stored)), outdated: true };
    },
  };
}

function isOutdated(stored: string): boolean {
  const { algorithm, memoryCost, timeCost, parallelism } = parseOptions(stored);
  return (
    algorithm !== argon2id ||
    memoryCost !== parameters.memoryCost ||
    timeCost !== parameters.timeCost ||
    parallelism !== parameters.parallelism
  );
}

/** Waits for its turn; those who came first go first. Who left meanwhile is not worked for. */
async function atWork<T>(ctx: Ctx, queue: Queue, compute: () => Promise<T>): Promise<T> {
  if (queue.working < ctx.app.config.PASSWORD_HASH_CONCURRENCY) queue.working += 1;
  else await new Promise<void>((resolve) => queue.waiting.push(resolve));
  try {
    if (ctx.signal.aborted) throw busy();
    return await compute();
  } finally {
    // The turn goes on to the next one; `working` stays as it is.
    const next = queue.waiting.shift();
    if (next) next();
    else queue.working -= 1;
  }
}
