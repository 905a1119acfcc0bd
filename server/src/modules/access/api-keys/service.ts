import type { App, Ctx, Target } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { holdTenant } from '#platform/db/hold.ts';
import { conflict, notFound, unauthorized } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid } from '#platform/ids.ts';
import { authorize, isPermitted, requireNotActing } from '#platform/permission.ts';
import { findIdentity, type Identity, identityInactive, whileActive } from '../identity/service.ts';
import { viewOf, visiblePage } from '../policy/service.ts';
import { endAfter, requireAsLong, requireRank, requireRoom } from './bounds.ts';
import { prepareApiKey } from './prepare.ts';
import type { ApiKey, ApiKeyCreate, ApiKeyUpdate } from './schema.ts';
import { checkScopes, requireAsMuch, scopesFrom } from './scopes.ts';
import { makeKeyText, parseKeyText } from './secret.ts';
import {
  type ApiKeyRow,
  findApiKey,
  findKeyTenant,
  type KeyFilter,
  listApiKeys,
  lockApiKey,
  replaceSecret,
  revokeApiKeyRow,
  revokeApiKeyRows,
  updateApiKey,
} from './store.ts';

export { activeKey, authenticateKey, flushKeyUses } from './authenticate.ts';
export { type KeyInput, prepareApiKey } from './prepare.ts';
export { checkScopes, fitsOwn, scopeProblem } from './scopes.ts';

const targetOf = ({ id, identity_id }: ApiKeyRow): Target => ({ id, owner: identity_id });

const isLive = ({ is_active, expires_at }: Pick<ApiKeyRow, 'is_active' | 'expires_at'>): boolean =>
  is_active && (expires_at === null || Date.parse(expires_at) > Date.now());

const shown = ({ self_serve: _, ...row }: ApiKeyRow): ApiKey => ({ ...row, is_active: isLive(row) });

/** Who a key is to act as: the caller, or an identity of a lower role. @throws ApiError 403, 404, 409 IDENTITY_INACTIVE */
async function holderOf(ctx: Ctx, identityId = ctx.actor.identity_id): Promise<Identity> {
  await authorize(ctx, 'api_keys:create', identityId === undefined ? {} : { owner: identityId });
  const holder =
    identityId !== undefined && isUuid(identityId) ? await findIdentity(ctx.db, identityId) : undefined;
  if (!holder) throw notFound('Identity');
  requireRank(ctx, holder, true);
  if (!holder.is_active) throw identityInactive();
  return holder;
}

/**
 * Makes a key that acts as the caller, or as an identity of a lower role. It never has more than its maker: not its
 * rights, nor its scopes, nor its time where the maker is a key itself.
 * @throws ApiError 403, 404 Identity, 409 IDENTITY_INACTIVE, 422
 */
export async function createApiKey(ctx: Ctx, input: ApiKeyCreate) {
  requireNotActing(ctx.actor);
  checkScopes(input.scopes ?? []);
  const holder = await holderOf(ctx, input.identity_id);
  const scopes = scopesFrom(ctx.actor, input.scopes ?? []);
  const now = new Date();
  const expires_at = await endAfter(ctx, ctx.db, input.expires_in_days, now);
  const { name } = input;
  const key = prepareApiKey(ctx, { identity_id: holder.id, name, scopes, expires_at }, now);
  const [made] = await whileActive(ctx.db.batch(key.statements), identityInactive);
  return { api_key: shown(made.rows[0]!), secret_key: key.text };
}

/** Keys the caller may see, newest first: its own, or the tenant's where policy says so. */
export const listVisibleKeys = (
  ctx: Ctx,
  { is_active, ...query }: PageQuery & { is_active?: boolean },
): Promise<Answer> => pageOfKeys(ctx, { is_active }, query, { is_active }, shown);

const dayMs = 86_400_000;

/** Whole days since a key was used, or made where it never was. */
export const inactiveDays = (row: Pick<ApiKeyRow, 'last_used_at' | 'created_at'>, now: number): number =>
  Math.floor((now - Date.parse(row.last_used_at ?? row.created_at)) / dayMs);

export const daysBefore = (now: number, days: number): Date => new Date(now - days * dayMs);

/** Working keys that nobody used for so many days, newest first. */
export function listInactiveKeys(ctx: Ctx, { days = 90, ...query }: PageQuery & { days?: number }) {
  const now = Date.now();
  const filter = { is_active: true, unused_since: daysBefore(now, days) };
  return pageOfKeys(ctx, { days }, query, filter, (row) => ({
    ...shown(row),
    inactive_days: inactiveDays(row, now),
  }));
}

const pageOfKeys = (
  ctx: Ctx,
  asked: object,
  query: PageQuery,
  filter: KeyFilter,
  show: (row: ApiKeyRow) => ApiKey,
): Promise<Answer> =>
  visiblePage(ctx, 'api_keys:list', asked, query, {
    rows: async (from) => (await listApiKeys(ctx.db, filter, from, new Date())).map(show),
    owned: true,
    target: ({ id, identity_id }) => ({ id, owner: identity_id }),
    position: ({ id }) => [id],
    size: 100,
  });

/** @throws ApiError 404 also for what is not the caller's to see */
export async function getApiKey(ctx: Ctx, id: string): Promise<ApiKey> {
  const row = isUuid(id) ? await findApiKey(ctx.db, id) : undefined;
  if (!row || !(await isPermitted(ctx, 'api_keys:read', targetOf(row)))) throw notFound('API key');
  return shown(row);
}

/** A key that the caller may change, locked. @throws ApiError 404, 409 API_KEY_REVOKED */
async function lockChangeable(tx: Db, id: string, sees: (target: Target) => boolean) {
  const row = isUuid(id) ? await lockApiKey(tx, id) : undefined;
  if (!row || !sees(targetOf(row))) throw notFound('API key');
  if (row.revoked_at !== null)
    throw conflict('API_KEY_REVOKED', 'A revoked key stays revoked. Make a new one.');
  return row;
}

const stateOf = ({ name, scopes, is_active, expires_at }: ApiKeyRow) => ({
  name,
  scopes,
  is_active,
  expires_at,
});

/** Changes a key, for every process at once. @throws ApiError 403, 404, 409 API_KEY_REVOKED, KEY_LIMIT_REACHED, 422 */
export async function changeApiKey(ctx: Ctx, id: string, change: ApiKeyUpdate): Promise<ApiKey> {
  requireNotActing(ctx.actor);
  checkScopes(change.scopes ?? []);
  const { sees } = await viewOf(ctx, 'api_keys:update');
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    // Before the key is locked, as whoever deactivates its identity does.
    if (change.is_active || change.expires_in_days !== undefined) await holdTenant(tx);
    const { secret_hash: _s, old_secrets: _o, ...before } = await lockChangeable(tx, id, sees);
    requireRank(ctx, (await findIdentity(tx, before.identity_id))!, false);
    if (Object.keys(change).length === 0) return shown(before);
    const end =
      change.expires_in_days === undefined
        ? before.expires_at
        : ((await endAfter(ctx, tx, change.expires_in_days, now))?.toISOString() ?? null);
    const after: ApiKeyRow = {
      ...before,
      name: change.name ?? before.name,
      scopes: change.scopes === undefined ? before.scopes : scopesFrom(ctx.actor, change.scopes),
      is_active: change.is_active ?? before.is_active,
      expires_at: end,
      updated_at: now.toISOString(),
    };
    if (after.self_serve && isLive(after) && !isLive(before)) await requireRoom(tx, now);
    await tx.batch([
      updateApiKey(after),
      fact(ctx, {
        type: 'api_key.updated',
        resource_type: 'api_key',
        resource_id: before.id,
        before: stateOf(before),
        after: stateOf(after),
      }),
    ]);
    changed(ctx, tx, before.id);
    return shown(after);
  });
}

const changed = (ctx: Ctx, tx: Db, id: string): void =>
  tx.afterCommit(() => ctx.app.shared.invalidate('api_key', `${ctx.tenant}/${id}`));

/** Replaced secrets that may still work at once; a further rotation ends the oldest. */
const mostOld = 5;

/**
 * Gives a key a new secret; the old one works for a while longer. Without an overlap all older secrets end now. Whoever
 * rotates has the secret then, so the key must not be worth more than the caller's own credential.
 * @throws ApiError 403, 404, 409 API_KEY_REVOKED
 */
export async function rotateApiKey(ctx: Ctx, id: string, overlapSeconds = 3_600) {
  requireNotActing(ctx.actor);
  const { sees } = await viewOf(ctx, 'api_keys:update');
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const row = await lockChangeable(tx, id, sees);
    requireAsMuch(ctx.actor, row.scopes);
    await requireAsLong(ctx, tx, row.expires_at);
    requireRank(ctx, (await findIdentity(tx, row.identity_id))!, false);
    const until = new Date(now.getTime() + overlapSeconds * 1_000).toISOString();
    const living = row.old_secrets.filter((old) => Date.parse(old.until) > now.getTime());
    const old =
      overlapSeconds === 0
        ? []
        : [{ hash: row.secret_hash.toString('hex'), until }, ...living].slice(0, mostOld);
    const text = makeKeyText(ctx.tenant, row.id);
    const hash = hmac(ctx.app.keys.credential, text);
    const [rotated] = await tx.batch([
      replaceSecret(ctx.tenant, row.id, hash, old, now),
      fact(ctx, {
        type: 'api_key.rotated',
        resource_type: 'api_key',
        resource_id: row.id,
        data: { overlap_seconds: overlapSeconds },
      }),
    ]);
    changed(ctx, tx, row.id);
    return { api_key: shown(rotated.rows[0]!), secret_key: text, old_secret_expires_at: until };
  });
}

/** Revokes a key of the caller's, or of the tenant's where policy says so. One that is revoked stays so. @throws ApiError 404 */
export async function endApiKey(ctx: Ctx, id: string): Promise<void> {
  const row = isUuid(id) ? await findApiKey(ctx.db, id) : undefined;
  if (!row || !(await isPermitted(ctx, 'api_keys:delete', targetOf(row)))) throw notFound('API key');
  await revokeApiKey(ctx, row.id);
}

const revokedFact = (ctx: Ctx, { id, identity_id }: Pick<ApiKeyRow, 'id' | 'identity_id'>) =>
  fact(ctx, { type: 'api_key.revoked', resource_type: 'api_key', resource_id: id, data: { identity_id } });

/** Revokes all keys of identities for all processes; `ctx.db` may be a transaction. */
export async function revokeKeysOf(ctx: Ctx, identityIds: string[]): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const ended = await tx.rows(revokeApiKeyRows(ctx.tenant, identityIds, new Date()));
    await tx.batch(ended.map((key) => revokedFact(ctx, key)));
    for (const { id } of ended) changed(ctx, tx, id);
  });
}

/** Revokes a key for all processes. @returns false when there was none with this id, or it was revoked before */
export async function revokeApiKey(ctx: Ctx, id: string): Promise<boolean> {
  return ctx.db.transaction(async (tx) => {
    const row = await tx.one(revokeApiKeyRow(ctx.tenant, id, new Date()));
    if (row) await tx.run(revokedFact(ctx, row));
    changed(ctx, tx, id);
    return row !== undefined;
  });
}

/** Says whom the key stands for. @throws ApiError 401 when the credential is no API key */
export function testApiKey({ actor, tenant }: Ctx) {
  if (actor.type !== 'api_key')
    throw unauthorized('An API key is needed in the Authorization or X-API-Key header; it starts with mk_.');
  const { identity_id, external_id, role } = actor;
  return {
    message: 'API key authentication successful',
    identity: { id: identity_id, external_id, role, tenant_id: tenant },
  };
}

/** The id of a key, given as such, as it stands inside the key's text, or as the whole key. */
export function keyIdOf(given: string): string | undefined {
  const hex = parseKeyText(given)?.id ?? given;
  const id = hex.replace(
    /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/i,
    '$1-$2-$3-$4-$5',
  );
  return isUuid(id) ? id : undefined;
}

/** The tenant that has a key, for the operator. */
export const tenantOfKey = async (app: App, id: string): Promise<string | undefined> =>
  (await findKeyTenant(app.database.operator, id))?.tenant_id;

/** All keys of a tenant, newest first, for the command line. */
export async function* allKeys(ctx: Ctx): AsyncGenerator<ApiKey> {
  const limit = 500;
  for (let after: [string] | undefined; ; ) {
    const from = { skip: 0, limit, ...(after ? { after } : {}) };
    const rows = await listApiKeys(ctx.db, {}, from, new Date());
    yield* rows.slice(0, limit).map(shown);
    const last = rows[limit - 1];
    if (rows.length <= limit || !last) return;
    after = [last.id];
  }
}
