import {
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
} from 'jose';
import { type App, systemCtx } from '#platform/context.ts';
import { decrypt, encrypt } from '#platform/crypto.ts';
import type { SealedColumn } from '#platform/db/reseal.ts';
import { factRow, insertFacts } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { SYSTEM_TENANT } from '../tenants/service.ts';
import {
  insertSigningKey,
  listSigningKeys,
  retireOthers,
  retireSucceeded,
  type SigningKey,
} from './signing-store.ts';

interface SignerOf {
  kid: string;
  key: CryptoKey;
  signsFromMs: number;
}

/** The keys of the installation as this process knows them. */
export interface KeyRing {
  /** The latest to sign first; one that signs later only is among them. */
  signers: SignerOf[];
  verifying: Map<string, CryptoKey>;
  published: JWK[];
  loadedAt: number;
}

interface RingState {
  ring?: KeyRing;
  loading?: Promise<KeyRing> | undefined;
  /** Something changed since the load under way began. */
  again: boolean;
  /** When keys that had become old were last asked for: a database that is away is not asked at every request. */
  triedAt: number;
}

const topic = 'signing_key';
const retryMs = 250;

const ringsOf = perApp((app): RingState => {
  const state: RingState = { again: false, triedAt: Number.NEGATIVE_INFINITY };
  app.shared.onInvalidate((said) => {
    if ((said !== topic && said !== '*') || !state.ring) return;
    state.again = state.loading !== undefined;
    reloadLater(app);
  });
  return state;
});

/** Loads the keys anew; the ones known so far serve until then. */
function reload(app: App): Promise<KeyRing> {
  const state = ringsOf(app);
  state.loading ??= loadRing(app)
    .then((ring) => {
      state.ring = ring;
      return ring;
    })
    .finally(() => {
      state.loading = undefined;
      if (!state.again) return;
      state.again = false;
      reloadLater(app);
    });
  return state.loading;
}

const reloadLater = (app: App): void =>
  void reload(app).catch((error) => app.log.warn({ err: error }, 'signing keys could not be read again'));

/**
 * A new key is known to every process well before it signs: they look a third of its time of publication apart, and as
 * often as anything cached is asked for again, so that they learn of one that is not to be trusted any more.
 */
const staleMs = (app: App): number =>
  Math.min(app.shared.cacheTtlMs(), (app.config.SIGNING_KEY_PUBLISH_S * 1_000) / 3);

const isStale = (app: App, ring: KeyRing): boolean => performance.now() - ring.loadedAt > staleMs(app);

/** The keys, at once when they are known at all: whoever waits may be in a transaction, and have the one connection. */
export function ringOf(app: App): KeyRing | Promise<KeyRing> {
  const { ring } = ringsOf(app);
  if (!ring) return reload(app);
  lookAgain(app, ring);
  return ring;
}

function lookAgain(app: App, ring: KeyRing): void {
  const state = ringsOf(app);
  const now = performance.now();
  if (!isStale(app, ring) || now - state.triedAt < retryMs) return;
  state.triedAt = now;
  reloadLater(app);
}

/** True when a key is known and not retired, as far as this process knows. */
export const isTrusted = (app: App, kid: string): boolean => {
  const { ring } = ringsOf(app);
  if (ring) lookAgain(app, ring);
  return ring?.verifying.has(kid) ?? false;
};

/** The keys with one that was not among them, perhaps; asks at most every five seconds. */
export async function ringWith(app: App, kid: string): Promise<KeyRing> {
  const ring = await ringOf(app);
  return ring.verifying.has(kid) || performance.now() - ring.loadedAt < 5_000 ? ring : reload(app);
}

/** The key that signs now. */
export function signerOf({ signers }: KeyRing): SignerOf {
  const now = Date.now();
  // None signs yet only where clocks differ: then the one that is to sign first.
  return signers.find(({ signsFromMs }) => signsFromMs <= now) ?? signers.at(-1)!;
}

/** The public keys, as a JWK Set (RFC 7517), with those that will sign soon. */
export async function publishedKeys(app: App): Promise<{ keys: JWK[] }> {
  const ring = await ringOf(app);
  if (!isStale(app, ring)) return { keys: ring.published };
  return { keys: (await reload(app).catch(() => ring)).published };
}

/** Seconds that others may keep the published keys: they know a new one before it signs. */
export const publishedForS = (app: App): number =>
  Math.max(1, Math.min(300, Math.floor(app.config.SIGNING_KEY_PUBLISH_S / 2)));

/** Makes the keys ready before the first request: one inside a transaction must not wait for another connection. */
export async function loadSigningKeys(app: App): Promise<void> {
  await reload(app);
}

async function loadRing(app: App): Promise<KeyRing> {
  const loadedAt = performance.now();
  let rows = await listSigningKeys(app.database.operator);
  if (rows.length === 0) {
    await makeKey(app, '', new Date(), false);
    rows = await listSigningKeys(app.database.operator);
  }
  const verifying = new Map<string, CryptoKey>();
  const signers: SignerOf[] = [];
  for (const row of rows) {
    verifying.set(row.kid, (await importJWK(row.public_jwk as JWK, 'EdDSA')) as CryptoKey);
    signers.push({ kid: row.kid, key: await privateKey(app, row), signsFromMs: Date.parse(row.signs_from) });
  }
  return {
    signers,
    verifying,
    published: rows.map(({ kid, public_jwk }) => ({ ...(public_jwk as JWK), kid, alg: 'EdDSA', use: 'sig' })),
    loadedAt,
  };
}

const boundTo = (kid: string) => `signing key ${kid}`;

export const sealedSigningKeys: SealedColumn = {
  table: 'signing_keys',
  column: 'private_jwk',
  key: { kid: 'text' },
  context: ({ kid }) => boundTo(kid),
};

async function privateKey(app: App, { kid, private_jwk }: SigningKey): Promise<CryptoKey> {
  let jwk: JWK;
  try {
    jwk = JSON.parse(decrypt(app.keys.encryption, private_jwk, boundTo(kid)).toString());
  } catch {
    throw new Error('the signing keys can not be read: ENCRYPTION_KEY is not the one they were stored with');
  }
  return (await importJWK(jwk, 'EdDSA')) as CryptoKey;
}

/** @returns the id of the new key, or undefined when another process was first */
async function makeKey(
  app: App,
  follows: string,
  signsFrom: Date,
  distrustOthers: boolean,
): Promise<string | undefined> {
  const pair = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  const publicJwk = await exportJWK(pair.publicKey);
  const kid = await calculateJwkThumbprint(publicJwk);
  const sealed = encrypt(app.keys.encryption, JSON.stringify(await exportJWK(pair.privateKey)), boundTo(kid));
  const now = new Date();
  const made = await app.database.operator.transaction(async (tx) => {
    const inserted = await insertSigningKey(tx, {
      kid,
      public_jwk: publicJwk as Record<string, unknown>,
      private_jwk: sealed,
      follows,
      signs_from: signsFrom,
      now,
    });
    if (!inserted) return false;
    const retired = distrustOthers ? await retireOthers(tx, kid, now) : [];
    await tx.run(
      noted(app, 'signing_key.created', kid, {
        signs_from: signsFrom.toISOString(),
        ...(distrustOthers ? { retired: retired.map((key) => key.kid) } : {}),
      }),
    );
    return true;
  });
  if (!made) return undefined;
  app.shared.invalidate(topic, kid);
  return kid;
}

/** Keys belong to the installation: their facts stand in the ledger of its operators. */
const noted = (app: App, type: string, kid: string, data: Record<string, unknown>) =>
  insertFacts(SYSTEM_TENANT, [
    factRow(systemCtx(app, SYSTEM_TENANT, uuidv7()), {
      type,
      resource_type: 'signing_key',
      resource_id: kid,
      data,
    }),
  ]);

/** What a rotation came to. `made`: by this call; otherwise one was under way already. */
export interface RotatedKey {
  kid: string;
  signs_from: string;
  made: boolean;
}

/**
 * Makes the key that signs next. It is published at once and signs after SIGNING_KEY_PUBLISH_S, so that every process,
 * and everybody who checks our tokens, knows it by then; until its tokens have died the old key verifies. So nobody is
 * logged out. While a new key waits to sign no other is made, whoever asks.
 * @param options.compromised the old keys are not to be trusted any more: the new one signs at once and the others are
 *   retired now. Access tokens are refused from then on; refresh tokens give new ones.
 */
export async function rotateSigningKey(
  app: App,
  options: { compromised?: boolean } = {},
): Promise<RotatedKey> {
  const compromised = options.compromised ?? false;
  for (;;) {
    const now = new Date();
    const [newest] = await listSigningKeys(app.database.operator);
    if (newest && Date.parse(newest.signs_from) > now.getTime() && !compromised)
      return { kid: newest.kid, signs_from: newest.signs_from, made: false };
    const waits = newest && !compromised ? app.config.SIGNING_KEY_PUBLISH_S * 1_000 : 0;
    const signsFrom = new Date(now.getTime() + waits);
    const kid = await makeKey(app, newest?.kid ?? '', signsFrom, compromised);
    if (kid) return { kid, signs_from: signsFrom.toISOString(), made: true };
    // Another process made it in the same moment: it is found the next time round.
  }
}

/** Rotates when the key that signs is old enough. */
export async function rotateWhenDue(app: App): Promise<void> {
  const days = app.config.SIGNING_KEY_ROTATION_DAYS;
  if (days === 0) return;
  const [newest] = await listSigningKeys(app.database.operator);
  if (!newest || Date.now() - Date.parse(newest.signs_from) < days * 86_400_000) return;
  const { kid, signs_from, made } = await rotateSigningKey(app);
  if (made) app.log.info({ kid, signs_from }, 'a new signing key was made');
}

/** The longest life ACCESS_TOKEN_TTL_S can give a token, and an hour for clocks and for processes slow to learn. */
const keepMs = 25 * 3_600_000;

/** Retires keys of which no token can be alive. */
export async function retireSigningKeys(app: App): Promise<void> {
  const now = new Date();
  const retired = await retireSucceeded(app.database.operator, new Date(now.getTime() - keepMs), now);
  for (const { kid } of retired) {
    await app.database.operator.run(noted(app, 'signing_key.retired', kid, {}));
    app.shared.invalidate(topic, kid);
  }
}
