import type { Actor, Permission } from '#platform/context.ts';
import { ApiError, invalid } from '#platform/errors.ts';
import { scopesAllow } from '#platform/permission.ts';
import { RESOURCE_ACTIONS } from '../policy/service.ts';

const resources = new Map<string, readonly string[]>(Object.entries(RESOURCE_ACTIONS));
const actions = new Set([...resources.values()].flat());
const words = ['read', 'write', '*'];

/** What is wrong with a scope, or undefined. */
export function scopeProblem(scope: string): string | undefined {
  if (['admin', 'read', 'write', '*'].includes(scope)) return undefined;
  const [resource = '', action = '', ...rest] = scope.split(':');
  const known = resource === '*' ? actions.has(action) : resources.get(resource)?.includes(action);
  const named = resource === '*' || resources.has(resource);
  if (rest.length === 0 && named && (known || words.includes(action))) return undefined;
  return 'is no scope: there are admin, read, write, and resource:action, as memory:create, memory:* or *:list';
}

/** @throws ApiError 422 that names each scope that is none */
export function checkScopes(scopes: string[]): void {
  const problems = scopes.flatMap((scope, i) => {
    const message = scopeProblem(scope);
    return message ? [{ path: `/scopes/${i}`, message }] : [];
  });
  if (problems.length > 0) throw invalid(problems);
}

// Every permission there is, and ones that a later version may bring: a list of all that is known today is less than `*`.
const everything: Permission[] = [...resources.keys(), '?'].flatMap((resource) =>
  [...actions, '?'].map((action): Permission => `${resource}:${action}`),
);

/** True when nothing is allowed by a scope that these do not allow. */
const within = (scope: string, limits: string[]): boolean =>
  everything.every((permission) => !scopesAllow([scope], permission) || scopesAllow(limits, permission));

/** The lists of scopes that narrow a caller; each must cover what it does. */
const limitsOf = ({ scopes, delegation }: Actor): string[][] =>
  [scopes ?? [], ...(delegation?.scopes ?? [])].filter((list) => list.length > 0);

/** Whether somebody's own credential allows all that these scopes do. */
export const fitsOwn = (actor: Actor, scopes: string[]): boolean =>
  limitsOf(actor).every((list) => scopes.every((scope) => within(scope, list)));

const tooWide = (limits: string[][], wider: string[]) =>
  new ApiError(
    403,
    'AUTH_FORBIDDEN',
    `Your credential is limited to ${limits.map((list) => list.join(', ')).join('; and to ')}, and can not give: ${wider.join(', ')}.`,
    { scopes: wider },
  );

/**
 * The scopes that a key gets when a caller asks for these: never more than the caller has itself. None asked for means
 * all that the caller has.
 * @throws ApiError 403 that names the scopes the caller can not give
 */
export function scopesFrom(actor: Actor, wanted: string[]): string[] {
  const limits = limitsOf(actor);
  if (limits.length === 0) return wanted;
  const fits = (scope: string) => fitsOwn(actor, [scope]);
  if (wanted.length === 0) {
    const own = [...new Set(limits.flat())].filter(fits);
    if (own.length === 0) throw tooWide(limits, ['*']);
    return own;
  }
  const wider = wanted.filter((scope) => !fits(scope));
  if (wider.length > 0) throw tooWide(limits, wider);
  return wanted;
}

/** @throws ApiError 403 when a key may do more than the caller: with its secret the caller would have gained rights */
export function requireAsMuch(actor: Actor, scopes: string[]): void {
  scopesFrom(actor, scopes.length === 0 ? ['*'] : scopes);
}
