import { randomBytes } from 'node:crypto';
import type { Keys } from '#platform/crypto.ts';
import { hmac, sameBytes } from '#platform/crypto.ts';

/** What a refresh token names: its session, in its tenant, so that it is found without knowing the tenant first. */
export interface RefreshTokenText {
  tenant: string;
  session: string;
}

const form =
  /^rt_([a-z0-9][a-z0-9._-]{0,63})_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})_[A-Za-z0-9_-]{43}[A-Za-z0-9_-]{22}$/;

const seal = (keys: Keys, body: string): string =>
  hmac(keys.refresh, body).subarray(0, 16).toString('base64url');

/**
 * A refresh token: `rt_<tenant>_<session><secret><seal>`. The seal shows that we made it: without one, whoever knows a
 * session's id could make up an "old" token and so end the session; with it, made-up tokens never reach the database.
 */
function tokenText(keys: Keys, tenant: string, session: string, secret: Buffer): string {
  const body = `rt_${tenant}_${session.replaceAll('-', '')}_${secret.toString('base64url')}`;
  return body + seal(keys, body);
}

export const newRefreshToken = (keys: Keys, tenant: string, session: string): string =>
  tokenText(keys, tenant, session, randomBytes(32));

/**
 * The token that follows another one. Computed, so that it can be given again to a second call that came with the old
 * token, although only its hash is kept: that takes the old token, the salt of the session's row, and our key.
 */
export const successorOf = (
  keys: Keys,
  { tenant, session }: RefreshTokenText,
  token: string,
  salt: Buffer,
): string =>
  tokenText(keys, tenant, session, hmac(keys.refresh, `successor ${salt.toString('base64url')} ${token}`));

/** What is kept of a token. */
export const refreshHash = (keys: Keys, token: string): Buffer => hmac(keys.credential, token);

/** @returns undefined for what we did not make */
export function parseRefreshToken(keys: Keys, text: string): RefreshTokenText | undefined {
  const parts = form.exec(text);
  if (!parts) return undefined;
  const body = text.slice(0, -22);
  if (!sameBytes(Buffer.from(text.slice(-22)), Buffer.from(seal(keys, body)))) return undefined;
  return { tenant: parts[1]!, session: parts.slice(2, 7).join('-') };
}
