import type { Actor, Ctx, Permission, Target } from './context.ts';
import { type ApiError, forbidden } from './errors.ts';
import { recordDenial } from './facts/denials.ts';

/**
 * True when the caller may do this to the target it asked for. Scopes of a key narrow what policy allows. A no is a fact,
 * also where the answer hides it behind a 404.
 */
export async function isPermitted(ctx: Ctx, permission: Permission, target?: Target): Promise<boolean> {
  const refusal = await refusalOf(ctx, permission, target);
  refusal?.();
  return refusal === undefined;
}

/**
 * Refuses what the caller may not do. The fact names the policy; the answer does not, unless the policy has a message.
 * @throws ApiError 403 AUTH_FORBIDDEN (nothing allows it, or the key's scopes do not) or POLICY_DENIED (a policy forbids it)
 */
export async function authorize(ctx: Ctx, permission: Permission, target?: Target): Promise<void> {
  const refusal = await refusalOf(ctx, permission, target);
  if (refusal) throw refusal();
}

/**
 * Why the caller may not do this, or undefined when it may. Calling the answer records the refusal and gives the error.
 * `rowsFollow`: the question of a route that decides each row by itself.
 */
export async function refusalOf(
  ctx: Ctx,
  permission: Permission,
  target?: Target,
  rowsFollow = false,
): Promise<(() => ApiError) | undefined> {
  if (ctx.actor.type === 'system') return undefined;
  const refused = (decision: { policy_id: string | null; reason: string }, error: ApiError) => () => {
    recordDenial(ctx, permission, target, decision);
    return error;
  };
  if (!withinScopes(ctx.actor, permission))
    return refused({ policy_id: null, reason: 'scope' }, outOfScope(permission));
  const decision = await ctx.app.features.decide(ctx, permission, target, rowsFollow);
  if (decision.allowed) return undefined;
  if (decision.reason !== 'policy')
    return refused(decision, forbidden('AUTH_FORBIDDEN', 'Your role may not do this.'));
  const message = decision.message ?? 'A policy of your tenant does not allow this.';
  return refused(decision, forbidden(decision.code ?? 'POLICY_DENIED', message));
}

const outOfScope = (permission: Permission): ApiError =>
  forbidden('AUTH_FORBIDDEN', `This credential does not have the scope for ${permission}.`);

/**
 * Refuses a credential whose scopes leave out what a route asks beside its own permission. Called before a row is looked
 * at, so that the answer neither says that the row is missing nor that it is there.
 * @throws ApiError 403 AUTH_FORBIDDEN
 */
export function requireScope(ctx: Ctx, permission: Permission): void {
  if (ctx.actor.type === 'system' || withinScopes(ctx.actor, permission)) return;
  recordDenial(ctx, permission, undefined, { policy_id: null, reason: 'scope' });
  throw outOfScope(permission);
}

/** True when neither the key's scopes nor those of a delegation stand against it. */
export const withinScopes = ({ scopes, delegation }: Actor, permission: Permission): boolean =>
  scopesAllow(scopes, permission) &&
  (delegation?.scopes.every((granted) => scopesAllow(granted, permission)) ?? true);

const readActions = new Set(['read', 'list', 'search']);

/** What decides who may do what; only a scope that names it changes it. */
const privileged = new Set([
  'admin',
  'identity',
  'policy',
  'api_keys',
  'sessions',
  'credentials',
  'delegations',
  'tenants',
  'invitations',
  'identity_providers',
]);

/**
 * Scopes: `admin` or `*` everything; `read` and `write` by kind of action; `resource:action`, where the action may be
 * one of these two words and either may be `*`. What gives rights is changed only by a scope that names it, not by
 * `write` or `*:create`. No scopes: no narrowing.
 */
export function scopesAllow(scopes: string[] | undefined, permission: Permission): boolean {
  if (!scopes || scopes.length === 0) return true;
  const at = permission.indexOf(':');
  const resource = permission.slice(0, at);
  const action = permission.slice(at + 1);
  return scopes.some((scope) => scopeAllows(scope, resource, action));
}

function scopeAllows(scope: string, resource: string, action: string): boolean {
  if (scope === 'admin' || scope === '*' || scope === '*:*') return true;
  const at = scope.indexOf(':');
  if (at < 0 && scope !== 'read' && scope !== 'write') return false;
  const named = at < 0 ? '*' : scope.slice(0, at);
  const allowed = scope.slice(at + 1);
  const reads = readActions.has(action);
  if (named !== '*' ? named !== resource : !reads && privileged.has(resource)) return false;
  return allowed === action || allowed === '*' || allowed === (reads ? 'read' : 'write');
}

/**
 * Refuses an agent that acts for somebody what would last longer than its grant, and let it go on when that is over.
 * @throws ApiError 403
 */
export function requireNotActing({ delegation }: Actor): void {
  if (!delegation) return;
  throw forbidden(
    'AUTH_FORBIDDEN',
    'An agent that acts for somebody can not make or change credentials: they would outlive its grant.',
  );
}

/** True when scopes bind the caller. It must make nothing that leads to a session, which no scope would bind. */
export const isNarrowed = ({ scopes, delegation }: Actor): boolean =>
  [scopes ?? [], ...(delegation?.scopes ?? [])].some(
    (granted) => granted.length > 0 && !granted.includes('admin') && !granted.includes('*'),
  );
