import {
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  type JWTPayload,
  jwtVerify,
  SignJWT,
} from 'jose';
import type { App } from '#platform/context.ts';
import { decrypt, encrypt } from '#platform/crypto.ts';
import { isSlug, isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { insertSigningKey, listSigningKeys } from './store.ts';

/** What an access token says, once verified. */
export interface AccessClaims {
  tenant: string;
  /** Who is acted for: the person where an agent acts. */
  identity: string;
  /** The session it belongs to; undefined for a token of a grant. */
  session: string | undefined;
  /** The grant by which an agent acts for the identity. */
  grant: string | undefined;
  /** Seconds since 1970. */
  expires: number;
}

interface KeyRing {
  current: { kid: string; key: CryptoKey };
  verifying: Map<string, CryptoKey>;
  published: JWK[];
  loadedAt: number;
}

const audience = 'manushya';
const verifiedOf = perApp(() => new Map<string, AccessClaims>());
const mostVerified = 20_000;

const ringsOf = perApp((): { ring?: KeyRing; loading?: Promise<KeyRing> | undefined } => ({}));

const ringOf = (app: App): KeyRing | Promise<KeyRing> => ringsOf(app).ring ?? reloadRing(app);

/** Loads the keys anew; the ones known so far serve until then. */
function reloadRing(app: App): Promise<KeyRing> {
  const state = ringsOf(app);
  state.loading ??= loadRing(app)
    .then((ring) => {
      state.ring = ring;
      return ring;
    })
    .finally(() => {
      state.loading = undefined;
    });
  return state.loading;
}

/** Makes the keys ready before the first request: one inside a transaction must not wait for another connection. */
export async function loadSigningKeys(app: App): Promise<void> {
  await reloadRing(app);
}

async function loadRing(app: App): Promise<KeyRing> {
  let rows = await listSigningKeys(app.database.operator);
  if (rows.length === 0) {
    await makeKey(app);
    rows = await listSigningKeys(app.database.operator);
  }
  const verifying = new Map<string, CryptoKey>();
  for (const { kid, public_jwk } of rows)
    verifying.set(kid, (await importJWK(public_jwk as JWK, 'EdDSA')) as CryptoKey);
  const newest = rows[0]!;
  const jwk = JSON.parse(
    decrypt(app.keys.encryption, newest.private_jwk, `signing key ${newest.kid}`).toString(),
  );
  return {
    current: { kid: newest.kid, key: (await importJWK(jwk, 'EdDSA')) as CryptoKey },
    verifying,
    published: rows.map(({ kid, public_jwk }) => ({ ...(public_jwk as JWK), kid, alg: 'EdDSA', use: 'sig' })),
    loadedAt: performance.now(),
  };
}

async function makeKey(app: App): Promise<void> {
  const pair = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  const publicJwk = await exportJWK(pair.publicKey);
  const kid = await calculateJwkThumbprint(publicJwk);
  const privateJwk = encrypt(
    app.keys.encryption,
    JSON.stringify(await exportJWK(pair.privateKey)),
    `signing key ${kid}`,
  );
  await app.database.operator.run(
    insertSigningKey(kid, publicJwk as Record<string, unknown>, privateJwk, new Date()),
  );
}

/** The public keys, as a JWK Set (RFC 7517). */
export async function publishedKeys(app: App): Promise<{ keys: JWK[] }> {
  return { keys: (await ringOf(app)).published };
}

/** What an access token is made for: a session, or a grant by which agents act for the identity. */
export type TokenSubject = { tenant: string; identity: string } & (
  | { session: string }
  /** `act`: who acts, the one that calls first. */
  | { grant: string; act: string[]; scope: string; expiresInS: number }
);

/** Signs an access token: EdDSA with `kid`, `typ: at+jwt` (RFC 9068); `act` as RFC 8693, section 4.1. */
export async function signAccessToken(app: App, subject: TokenSubject): Promise<string> {
  const { current } = await ringOf(app);
  const own =
    'session' in subject
      ? { sid: subject.session }
      : { gid: subject.grant, act: actorsOf(subject.act), scope: subject.scope };
  const ttlS = 'session' in subject ? app.config.ACCESS_TOKEN_TTL_S : subject.expiresInS;
  return new SignJWT({ tid: subject.tenant, ...own })
    .setProtectedHeader({ alg: 'EdDSA', kid: current.kid, typ: 'at+jwt' })
    .setIssuer(app.config.publicUrl)
    .setAudience(audience)
    .setSubject(subject.identity)
    .setJti(uuidv7())
    .setIssuedAt()
    .setExpirationTime(`${ttlS}s`)
    .sign(current.key);
}

interface Act {
  sub: string;
  act?: Act;
}

/** The actor that calls outermost, whoever let it act inside. */
const actorsOf = ([first, ...others]: string[]): Act => ({
  sub: first!,
  ...(others.length > 0 ? { act: actorsOf(others) } : {}),
});

/**
 * Verifies an access token as RFC 8725 asks: algorithm pinned, key by `kid` from our own ring only, issuer, audience,
 * type and time checked. Verified claims are remembered until the token expires; whether session and identity still
 * hold is asked on every request.
 * @returns undefined for anything that is not a valid access token of ours
 */
export async function verifyAccessToken(app: App, token: string): Promise<AccessClaims | undefined> {
  const known = verifiedOf(app);
  const before = known.get(token);
  if (before) {
    if (before.expires * 1000 > Date.now()) return before;
    known.delete(token);
    return undefined;
  }
  const claims = await verify(app, token);
  if (claims) {
    known.set(token, claims);
    if (known.size > mostVerified) known.delete(known.keys().next().value!);
  }
  return claims;
}

async function verify(app: App, token: string): Promise<AccessClaims | undefined> {
  let ring = await ringOf(app);
  let payload: JWTPayload;
  try {
    ({ payload } = await jwtVerify(
      token,
      async ({ kid }) => {
        if (!kid) throw new Error('no kid');
        if (!ring.verifying.has(kid) && performance.now() - ring.loadedAt > 5_000) {
          // Another process may have made a new key; asked at most every five seconds.
          ring = await reloadRing(app);
        }
        const key = ring.verifying.get(kid);
        if (!key) throw new Error('unknown kid');
        return key;
      },
      {
        algorithms: ['EdDSA'],
        issuer: app.config.publicUrl,
        audience,
        typ: 'at+jwt',
        requiredClaims: ['sub', 'exp', 'iat', 'jti'],
        clockTolerance: 5,
      },
    ));
  } catch (error) {
    // Whatever is wrong with a token, the caller learns only that it is not valid; a database that is away is another matter.
    if ((error as { code?: string }).code?.startsWith('ERR_J') || /kid/.test((error as Error).message))
      return undefined;
    throw error;
  }
  const { tid, sid, gid, sub, exp } = payload;
  const [session, grant] = [sid, gid].map((id) => (typeof id === 'string' && isUuid(id) ? id : undefined));
  // Either of them, and never both.
  const bound = (session === undefined) !== (grant === undefined);
  if (typeof tid !== 'string' || !isSlug(tid) || !bound || !sub || !isUuid(sub)) return undefined;
  return { tenant: tid, identity: sub, session, grant, expires: exp! };
}
