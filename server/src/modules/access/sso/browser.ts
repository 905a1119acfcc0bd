import { randomBytes } from 'node:crypto';

/**
 * The secret that ties a sign-in to the browser it began in, so that nobody can have another one end it: with it a
 * stranger's callback does not sign somebody in as the stranger (RFC 9700, section 4.7). `__Host-` keeps other hosts of
 * the domain from setting it; Lax lets it come along when the provider sends the browser back.
 */
const name = '__Host-manushya-sso';
const form = /^[A-Za-z0-9_-]{43}$/;

export const newBrowser = (): string => randomBytes(32).toString('base64url');

/** The secret in a Cookie header. Sign-ins in several tabs share it. */
export function browserOf(cookies: string | undefined): string | undefined {
  const values = (cookies ?? '').split(';').flatMap((pair) => {
    const at = pair.indexOf('=');
    return at > 0 && pair.slice(0, at).trim() === name ? [pair.slice(at + 1).trim()] : [];
  });
  const [value, ...others] = values;
  return value !== undefined && others.length === 0 && form.test(value) ? value : undefined;
}

export const cookieFor = (secret: string, ms: number): string =>
  `${name}=${secret}; Path=/; Max-Age=${Math.floor(ms / 1000)}; Secure; HttpOnly; SameSite=Lax`;
