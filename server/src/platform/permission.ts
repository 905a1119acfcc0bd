import type { Ctx, Permission, Target } from './context.ts';
import { forbidden } from './errors.ts';
import { recordDenial } from './facts/denials.ts';

/** True when the caller may do this to this target. Scopes of a key narrow what policy allows. */
export async function isPermitted(ctx: Ctx, permission: Permission, target?: Target): Promise<boolean> {
  if (ctx.actor.type === 'system') return true;
  if (!scopesAllow(ctx.actor.scopes, permission)) return false;
  return (await ctx.app.features.decide(ctx, permission, target)).allowed;
}

/**
 * Refuses what the caller may not do. The fact names the policy; the answer does not, unless the policy has a message.
 * @throws ApiError 403 AUTH_FORBIDDEN (nothing allows it, or the key's scopes do not) or POLICY_DENIED (a policy forbids it)
 */
export async function authorize(ctx: Ctx, permission: Permission, target?: Target): Promise<void> {
  if (ctx.actor.type === 'system') return;
  if (!scopesAllow(ctx.actor.scopes, permission)) {
    recordDenial(ctx, permission, target, { policy_id: null, reason: 'scope' });
    throw forbidden('AUTH_FORBIDDEN', `This API key does not have the scope for ${permission}.`);
  }
  const decision = await ctx.app.features.decide(ctx, permission, target);
  if (decision.allowed) return;
  recordDenial(ctx, permission, target, decision);
  if (decision.reason === 'policy') {
    throw forbidden(
      decision.code ?? 'POLICY_DENIED',
      decision.message ?? 'A policy of your tenant does not allow this.',
    );
  }
  throw forbidden('AUTH_FORBIDDEN', 'Your role may not do this.');
}

const readActions = new Set(['read', 'list', 'search']);

/** Scopes: `admin` everything, `read` and `write` by kind of action, or `resource:action` with `*` for either. No scopes: no narrowing. */
export function scopesAllow(scopes: string[] | undefined, permission: Permission): boolean {
  if (!scopes || scopes.length === 0) return true;
  const [resource, action] = permission.split(':') as [string, string];
  const reads = readActions.has(action);
  return scopes.some((scope) => {
    if (scope === 'admin' || scope === permission || scope === '*') return true;
    if (scope === 'read') return reads;
    if (scope === 'write') return !resource.startsWith('admin');
    return scope === `${resource}:*` || scope === `*:${action}`;
  });
}
