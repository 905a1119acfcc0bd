import { createCache } from '#platform/cache.ts';
import type { App, Authenticated, Origin } from '#platform/context.ts';
import { hmac, sameBytes } from '#platform/crypto.ts';
import { limitFailures } from '#platform/http/limits.ts';
import { perApp } from '#platform/per-app.ts';
import { activeIdentity } from '../identity/service.ts';
import { createLastUse, type Used } from '../last-use/service.ts';
import { parseKeyText } from './secret.ts';
import { findKeyState, type KeyState, writeKeyUses } from './store.ts';

type CachedKey = KeyState & Used;

const cacheOf = perApp((app) => createCache<CachedKey | undefined>(app.shared, 'api_key', 50_000));
const lastUse = createLastUse('API keys', writeKeyUses);
/** Writes when keys were used. */
export const flushKeyUses = lastUse.flush;

async function loadKey(app: App, tenant: string, id: string): Promise<CachedKey | undefined> {
  const state = await findKeyState(app.database.tenant(tenant), id);
  return state && { ...state, usedMs: state.last_used_at === null ? 0 : Date.parse(state.last_used_at) };
}

/** The key, when it is there, not revoked and not expired. May be as old as the shared cache allows. */
export async function activeKey(app: App, tenant: string, id: string): Promise<KeyState | undefined> {
  const name = `${tenant}/${id}`;
  const key = cacheOf(app).peek(name) ?? (await cacheOf(app).get(name, () => loadKey(app, tenant, id)));
  return key && isLive(app, key) ? key : undefined;
}

/**
 * The actor behind an API key: key and identity must both hold now. A key acts as its identity, narrowed by its scopes.
 * @throws ApiError 429 for an address from which too many keys opened nothing
 */
export async function authenticateKey(
  app: App,
  text: string,
  { ip }: Pick<Origin, 'ip'>,
): Promise<Authenticated | undefined> {
  const parts = parseKeyText(text);
  if (!parts) return undefined;
  const { tenant, id } = parts;
  const key = await keyOpenedBy(app, tenant, id, hmac(app.keys.credential, text), ip);
  if (!key || !isLive(app, key)) return undefined;
  const identity = await activeIdentity(app, tenant, key.identity_id);
  if (!identity) return undefined;
  lastUse.note(app, tenant, id, key);
  return {
    tenant,
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

/** Whoever has the secret of a key, as it was last known, is no guesser, and is not held up by those at the same address. */
async function keyOpenedBy(
  app: App,
  tenant: string,
  id: string,
  hash: Buffer,
  ip: string,
): Promise<CachedKey | undefined> {
  const cache = cacheOf(app);
  const name = `${tenant}/${id}`;
  const load = () => loadKey(app, tenant, id);
  const known = cache.peek(name);
  if (known && opens(known, hash)) return known;
  const lookUp = async () => {
    let key = await cache.get(name, load);
    // Another process may have given it a new secret a moment ago.
    if (key && !opens(key, hash)) key = await cache.reload(name, load);
    return key && opens(key, hash) ? key : undefined;
  };
  const last = cache.last(name);
  return last && opens(last, hash) ? lookUp() : limitFailures(app, ip, lookUp);
}

function opens({ secret_hash, old_secrets }: KeyState, hash: Buffer): boolean {
  if (sameBytes(hash, secret_hash)) return true;
  return old_secrets.some(
    (old) => Date.parse(old.until) > Date.now() && sameBytes(hash, Buffer.from(old.hash, 'hex')),
  );
}

function isLive(app: App, { is_active, expires_at, updated_at, usedMs }: CachedKey): boolean {
  const now = Date.now();
  if (!is_active || (expires_at !== null && Date.parse(expires_at) <= now)) return false;
  const days = app.config.API_KEY_INACTIVE_DAYS;
  // Somebody who changes or rotates a key means to use it.
  return days === 0 || now - Math.max(usedMs, Date.parse(updated_at)) < days * 86_400_000;
}
