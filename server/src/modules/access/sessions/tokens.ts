import { type JWTPayload, jwtVerify, SignJWT } from 'jose';
import type { App } from '#platform/context.ts';
import { isSlug, isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { isTrusted, ringOf, ringWith, signerOf } from './signing-keys.ts';

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

interface Verified extends AccessClaims {
  kid: string;
}

const audience = 'manushya';
const verifiedOf = perApp(() => new Map<string, Verified>());
const mostVerified = 20_000;
const unknownKey = new Error('the token names no key of ours');

/** What an access token is made for: a session, or a grant by which agents act for the identity. */
export type TokenSubject = { tenant: string; identity: string } & (
  | { session: string }
  /** `act`: who acts, the one that calls first. */
  | { grant: string; act: string[]; scope: string; expiresInS: number }
);

/** Signs an access token: EdDSA with `kid`, `typ: at+jwt` (RFC 9068); `act` as RFC 8693, section 4.1. */
export async function signAccessToken(app: App, subject: TokenSubject): Promise<string> {
  const { kid, key } = signerOf(await ringOf(app));
  const own =
    'session' in subject
      ? { sid: subject.session }
      : { gid: subject.grant, act: actorsOf(subject.act), scope: subject.scope };
  const ttlS = 'session' in subject ? app.config.ACCESS_TOKEN_TTL_S : subject.expiresInS;
  return new SignJWT({ tid: subject.tenant, ...own })
    .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt' })
    .setIssuer(app.config.publicUrl)
    .setAudience(audience)
    .setSubject(subject.identity)
    .setJti(uuidv7())
    .setIssuedAt()
    .setExpirationTime(`${ttlS}s`)
    .sign(key);
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
 * type and time checked. Verified claims are remembered until the token expires or its key is retired; whether session
 * and identity still hold is asked on every request.
 * @returns undefined for anything that is not a valid access token of ours
 */
export async function verifyAccessToken(app: App, token: string): Promise<AccessClaims | undefined> {
  const known = verifiedOf(app);
  const before = known.get(token);
  if (before) {
    if (before.expires * 1000 > Date.now() && isTrusted(app, before.kid)) return before;
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

async function verify(app: App, token: string): Promise<Verified | undefined> {
  let payload: JWTPayload;
  let kid: string | undefined;
  try {
    ({
      payload,
      protectedHeader: { kid },
    } = await jwtVerify(
      token,
      async ({ kid }) => {
        const key = kid && (await ringWith(app, kid)).verifying.get(kid);
        if (!key) throw unknownKey;
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
    if (error === unknownKey || (error as { code?: string }).code?.startsWith('ERR_J')) return undefined;
    throw error;
  }
  const { tid, sid, gid, sub, exp } = payload;
  const [session, grant] = [sid, gid].map((id) => (typeof id === 'string' && isUuid(id) ? id : undefined));
  // Either of them, and never both.
  const bound = (session === undefined) !== (grant === undefined);
  if (typeof tid !== 'string' || !isSlug(tid) || !bound || !sub || !isUuid(sub)) return undefined;
  return { tenant: tid, identity: sub, session, grant, expires: exp!, kid: kid! };
}
