import { createCache } from '#platform/cache.ts';
import type { App, Authenticated, Ctx } from '#platform/context.ts';
import { hmac, sameBytes } from '#platform/crypto.ts';
import { fact } from '#platform/facts/record.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { activeIdentity } from '../identity/service.ts';
import { makeKeyText, parseKeyText } from './secret.ts';
import { type ApiKeyRow, findApiKey, findKeyTenant, insertApiKey, revokeApiKeyRow } from './store.ts';

export interface KeyInput {
  identity_id: string;
  name: string;
  scopes?: string[];
  expires_in_days?: number;
}

/** Prepares a key: its text, shown once, and the statements that store its keyed hash and the fact. */
export function prepareApiKey(ctx: Ctx, input: KeyInput, now: Date) {
  const id = uuidv7();
  const text = makeKeyText(ctx.tenant, id);
  const expires =
    input.expires_in_days === undefined ? null : new Date(now.getTime() + input.expires_in_days * 86_400_000);
  return {
    id,
    text,
    statements: [
      insertApiKey({
        tenant_id: ctx.tenant,
        id,
        identity_id: input.identity_id,
        name: input.name,
        secret_hash: hmac(ctx.app.keys.credential, text),
        scopes: input.scopes ?? [],
        expires_at: expires,
        now,
      }),
      fact(ctx, {
        type: 'api_key.created',
        resource_type: 'api_key',
        resource_id: id,
        after: {
          name: input.name,
          identity_id: input.identity_id,
          scopes: input.scopes ?? [],
          expires_at: expires?.toISOString() ?? null,
        },
      }),
    ],
  };
}

/** Revokes a key for all processes. @returns false when there was no active key with this id */
export async function revokeApiKey(ctx: Ctx, id: string): Promise<boolean> {
  return ctx.db.transaction(async (tx) => {
    const row = await tx.one(revokeApiKeyRow(ctx.tenant, id, new Date()));
    if (row) await tx.run(fact(ctx, { type: 'api_key.revoked', resource_type: 'api_key', resource_id: id }));
    tx.afterCommit(() => ctx.app.shared.invalidate('api_key', `${ctx.tenant}/${id}`));
    return row !== undefined;
  });
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

const cacheOf = perApp((app) => createCache<ApiKeyRow | undefined>(app.shared, 'api_key', 50_000));

/** The key, when it is there, not revoked and not expired. May be as old as the shared cache allows. */
export async function activeKey(app: App, tenant: string, id: string): Promise<ApiKeyRow | undefined> {
  const cache = cacheOf(app);
  const name = `${tenant}/${id}`;
  const key = cache.peek(name) ?? (await cache.get(name, () => findApiKey(app.database.tenant(tenant), id)));
  if (!key?.is_active || (key.expires_at !== null && Date.parse(key.expires_at) <= Date.now()))
    return undefined;
  return key;
}

/** The actor behind an API key: key and identity must both hold now. A key acts as its identity, narrowed by its scopes. */
export async function authenticateKey(app: App, text: string): Promise<Authenticated | undefined> {
  const parts = parseKeyText(text);
  if (!parts) return undefined;
  const key = await activeKey(app, parts.tenant, parts.id);
  if (!key || !sameBytes(hmac(app.keys.credential, text), key.secret_hash)) return undefined;
  const identity = await activeIdentity(app, parts.tenant, key.identity_id);
  if (!identity) return undefined;
  return {
    tenant: parts.tenant,
    actor: {
      type: 'api_key',
      identity_id: identity.id,
      external_id: identity.external_id,
      role: identity.role,
      claims: identity.claims,
      credential: key.id,
      ...(key.scopes.length ? { scopes: key.scopes } : {}),
    },
  };
}
