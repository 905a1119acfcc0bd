import { type JWTPayload, jwtVerify, SignJWT } from 'jose';
import type { App } from '#platform/context.ts';
import { isSlug, isUuid, uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import { isTrusted, ringOf, ringWith, signerOf } from './signing-keys.ts';

/** What an access token says, once verified. */
export interface AccessClaims {
  tenant: string;
  identity: string;
  session: string;
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

/** Signs an access token: EdDSA with `kid`, `typ: at+jwt` (RFC 9068), fifteen minutes unless configured. */
export async function signAccessToken(
  app: App,
  claims: { tenant: string; identity: string; session: string },
): Promise<string> {
  const { kid, key } = signerOf(await ringOf(app));
  return new SignJWT({ tid: claims.tenant, sid: claims.session })
    .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt' })
    .setIssuer(app.config.publicUrl)
    .setAudience(audience)
    .setSubject(claims.identity)
    .setJti(uuidv7())
    .setIssuedAt()
    .setExpirationTime(`${app.config.ACCESS_TOKEN_TTL_S}s`)
    .sign(key);
}

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
  const { tid, sid, sub, exp } = payload;
  if (
    typeof tid !== 'string' ||
    !isSlug(tid) ||
    typeof sid !== 'string' ||
    !isUuid(sid) ||
    !sub ||
    !isUuid(sub)
  )
    return undefined;
  return { tenant: tid, identity: sub, session: sid, expires: exp!, kid: kid! };
}
