import type { App } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import { invalid } from '#platform/errors.ts';

export type NameKind = 'username' | 'email';

/** The one form in which names are compared: NFKC, without case. Upper case first: it unfolds ß and the final sigma. */
export const foldName = (name: string): string =>
  name.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC').trim();

/** What a name is found by; nobody can tell the name from it. */
export const nameHash = (app: App, kind: NameKind, name: string): Buffer =>
  hmac(app.keys.credential, JSON.stringify(['login name', kind, foldName(name)]));

/** What attempts under a name are counted as: by the words of the caller, so that nothing shows whether there is such an account. */
export const countedName = (username: string, tenant: string | undefined): string =>
  JSON.stringify([tenant ?? null, foldName(username)]);

/**
 * A user name as it is kept.
 * @throws ApiError 422
 */
export function checkedUsername(given: string): string {
  const name = given.normalize('NFC');
  const refuse = (message: string) => invalid([{ path: '/username', message }]);
  if (name !== name.trim() || foldName(name) === '') throw refuse('must not begin or end with a space');
  // Control and format characters, unassigned ones, separators of lines: what nobody sees.
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(name)) throw refuse('must not have characters that can not be seen');
  return name;
}
