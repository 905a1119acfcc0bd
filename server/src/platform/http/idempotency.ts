import type { FastifyRequest } from 'fastify';
import type { App, Ctx } from '../context.ts';
import { decrypt, encrypt, hmac, sameBytes } from '../crypto.ts';
import type { SealedColumn } from '../db/reseal.ts';
import { type Statement, sql } from '../db/sql.ts';
import { ApiError, badRequest, conflict } from '../errors.ts';
import { isUuid, uuidv7 } from '../ids.ts';
import { canonicalJson } from './json.ts';
import { Answer } from './route.ts';

/** How long a claim holds without an answer: longer than any request may take, so only a dead process loses it. */
const claimMs = 60_000;
const keepMs = 24 * 3_600_000;

interface Stored {
  request_hash: Buffer;
  claim: string;
  claimed_until: string;
  expires_at: string;
  status: number | null;
  response: Buffer | null;
  headers: Record<string, string> | null;
  request_id: string | null;
}

/**
 * Runs a write at most once for its `Idempotency-Key` (header, 1..128 characters, kept 24 hours; scope: tenant,
 * credential, method and path, however that is written).
 *
 * The key is claimed and committed before the work. The work and its stored answer are one transaction, so a process
 * that dies leaves either nothing or a finished answer. Only successes are kept: after an error the key is free.
 * Without the header the work simply runs.
 * @throws ApiError 400 IDEMPOTENCY_KEY_INVALID, 409 IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_KEY_CONFLICT, IDEMPOTENCY_ANSWER_ERASED
 */
export async function idempotently(
  ctx: Ctx,
  request: FastifyRequest,
  payload: unknown,
  work: () => Promise<Answer>,
): Promise<Answer> {
  const key = idempotencyKeyOf(request);
  if (key === undefined) return work();
  const scope = [ctx.actor.credential, request.method, ctx.request!.canonical_path, key] as const;
  // Keyed: a body may hold a password, and whoever reads the table must not be able to try guesses against it.
  const hash = hmac(ctx.app.keys.credential, canonicalJson(payload));
  const claim = uuidv7();
  const earlier = await claimKey(ctx, scope, hash, claim);
  if (earlier) return earlier;
  const db = ctx.db;
  try {
    return await db.transaction(async (tx) => {
      ctx.db = tx;
      const answer = await work();
      const stored = await tx.run(sql`
        update idempotency_keys set status = ${answer.status}, headers = ${answer.headers}, request_id = ${ctx.requestId},
          shows = ${shownIn(answer.body)}, response = ${encrypt(ctx.app.keys.encryption, JSON.stringify(answer.body ?? null), boundTo(ctx, scope))}
        where tenant_id = ${ctx.tenant} and credential = ${scope[0]} and method = ${scope[1]} and path = ${scope[2]}
          and key = ${key} and claim = ${claim} returning 1`);
      if (stored !== 1) throw inProgress();
      return answer;
    });
  } catch (error) {
    await db
      .run(sql`
        delete from idempotency_keys where tenant_id = ${ctx.tenant} and credential = ${scope[0]} and method = ${scope[1]}
          and path = ${scope[2]} and key = ${key} and claim = ${claim} and status is null`)
      .catch((lost) =>
        ctx.log.warn({ err: lost }, 'an idempotency key stays claimed until its claim runs out'),
      );
    throw error;
  } finally {
    ctx.db = db;
  }
}

/** @throws ApiError 400 IDEMPOTENCY_KEY_INVALID */
export function idempotencyKeyOf({ headers }: FastifyRequest): string | undefined {
  const key = headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key !== 'string' || !/^[\x21-\x7e][\x20-\x7e]{0,127}$/.test(key) || key.trim() === '') {
    throw badRequest(
      'IDEMPOTENCY_KEY_INVALID',
      'Idempotency-Key must be 1 to 128 printable ASCII characters.',
    );
  }
  return key;
}

/** Ids of what an answer shows with its text. */
function shownIn(body: unknown): string[] | null {
  const found: string[] = [];
  const look = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    const { id, text } = value as { id?: unknown; text?: unknown };
    if (typeof id === 'string' && isUuid(id) && typeof text === 'string') found.push(id);
    for (const part of Object.values(value)) look(part);
  };
  look(body);
  return found.length > 0 ? found : null;
}

/** Forgets kept answers that show texts of these. Their keys stay taken, so that nothing is done again. */
export const forgetAnswersAbout = (tenant: string, ids: string[]): Statement => sql`
  update idempotency_keys set response = null
  where tenant_id = ${tenant} and response is not null and shows && ${ids}::uuid[]`;

/** Removes keys past their time. */
export async function pruneIdempotencyKeys(app: App): Promise<void> {
  await app.database.operator.run(
    sql`delete from idempotency_keys where tenant_id is not null and expires_at <= ${new Date()}`,
  );
}

type Scope = readonly [credential: string, method: string, path: string, key: string];

const boundTo = (ctx: Pick<Ctx, 'tenant'>, scope: Scope) => [ctx.tenant, ...scope].join('\n');

export const sealedAnswers: SealedColumn = {
  table: 'idempotency_keys',
  column: 'response',
  key: { tenant_id: 'text', credential: 'text', method: 'text', path: 'text', key: 'text' },
  context: ({ tenant_id, credential, method, path, key }) =>
    boundTo({ tenant: tenant_id }, [credential, method, path, key]),
};

export const inProgress = (
  message = 'A request with this Idempotency-Key is being worked on. Repeat it in a moment; if the process that worked on it has died, the key is free again after a minute.',
) => new ApiError(409, 'IDEMPOTENCY_IN_PROGRESS', message, undefined, { 'retry-after': '1' });

/** Takes the key, or tells what it already stands for. A claim whose holder died, and a key past its time, are taken over. */
async function claimKey(
  ctx: Ctx,
  [credential, method, path, key]: Scope,
  hash: Buffer,
  claim: string,
): Promise<Answer | undefined> {
  const now = new Date();
  const until = new Date(now.getTime() + claimMs);
  const expires = new Date(now.getTime() + keepMs);
  const [inserted, found] = await ctx.db.batch([
    sql`
      insert into idempotency_keys as k (tenant_id, credential, method, path, key, request_hash, claim, claimed_until, created_at, expires_at)
      values (${ctx.tenant}, ${credential}, ${method}, ${path}, ${key}, ${hash}, ${claim}, ${until}, ${now}, ${expires})
      on conflict (tenant_id, credential, method, path, key) do update
        set request_hash = excluded.request_hash, claim = excluded.claim, claimed_until = excluded.claimed_until,
          created_at = excluded.created_at, expires_at = excluded.expires_at, status = null, response = null, shows = null, headers = null
        where k.expires_at <= excluded.created_at or (k.status is null and k.claimed_until <= excluded.created_at)
      returning 1`,
    sql<Stored>`
      select request_hash, claim, claimed_until, expires_at, status, response, headers, request_id from idempotency_keys
      where tenant_id = ${ctx.tenant} and credential = ${credential} and method = ${method} and path = ${path} and key = ${key}`,
  ]);
  if (inserted.rows.length === 1) return undefined;
  const stored = found.rows[0];
  // Not visible yet: its claim commits right now.
  if (!stored) throw inProgress();
  if (!sameBytes(stored.request_hash, hash)) {
    throw conflict(
      'IDEMPOTENCY_KEY_CONFLICT',
      'This Idempotency-Key was used with another payload. Use a new key for a new request.',
    );
  }
  if (stored.status === null) throw inProgress();
  if (!stored.response) {
    const message =
      'This request was done. Its answer is not kept any more, because what it showed was erased.';
    throw conflict('IDEMPOTENCY_ANSWER_ERASED', message);
  }
  const body = JSON.parse(
    decrypt(
      ctx.app.keys.encryption,
      stored.response,
      boundTo(ctx, [credential, method, path, key]),
    ).toString(),
  );
  return new Answer(stored.status, body, { ...stored.headers, 'idempotency-replayed': 'true' });
}
