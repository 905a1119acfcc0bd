import { createCache } from '#platform/cache.ts';
import type { App, Ctx, Permission, PermissionDecision, Target } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { BUILTIN } from './builtin.ts';
import { type PolicyContext, policyContext, withTarget } from './context.ts';
import { decide, narrow } from './decide.ts';
import { compilePolicies, type PolicySet } from './policy-set.ts';
import { listActivePolicies } from './store.ts';

export { outranks, rolesAtMost } from './builtin.ts';

const cacheOf = perApp((app) => createCache<PolicySet>(app.shared, 'policy', 10_000));

// Policies are read once a request and before its transaction: on the embedded database a second connection would wait
// for the first for ever, and a load that other requests join must not depend on what one of them holds.
const pinned = new WeakMap<Ctx, PolicySet>();

/** Fixes the policies a request is decided by. */
export async function pinPolicies(ctx: Ctx): Promise<void> {
  pinned.set(ctx, await policiesOf(ctx));
}

async function policiesOf(ctx: Ctx): Promise<PolicySet> {
  const cache = cacheOf(ctx.app);
  return (
    pinned.get(ctx) ??
    cache.peek(ctx.tenant) ??
    cache.get(ctx.tenant, () => loadPolicies(ctx.app, ctx.tenant))
  );
}

async function loadPolicies(app: App, tenant: string): Promise<PolicySet> {
  const set = compilePolicies(await listActivePolicies(app.database.tenant(tenant)));
  for (const problem of set.problems)
    app.log.warn({ tenant_id: tenant, ...problem }, 'a stored policy does not compile');
  return set;
}

/** Tells all processes that a tenant's policies changed. */
export const policiesChanged = (app: App, tenant: string): void => app.shared.invalidate('policy', tenant);

function questionOf(ctx: Ctx, permission: Permission): PolicyContext {
  const [resource, action] = permission.split(':') as [string, string];
  const { actor, request } = ctx;
  return policyContext({
    role: actor.role,
    action,
    resource,
    tenant_id: ctx.tenant,
    identity: {
      id: actor.identity_id ?? actor.credential,
      external_id: actor.external_id ?? null,
      claims: actor.claims,
    },
    target: null,
    request: request
      ? {
          method: request.method,
          path: request.path,
          ip: request.ip,
          time: new Date(),
          route_class: request.route_class,
        }
      : { time: new Date() },
  });
}

/** Decides one access. Without a target it asks whether the caller could do this to something of its own. */
export async function decideAccess(
  ctx: Ctx,
  permission: Permission,
  target?: Target,
): Promise<PermissionDecision> {
  return decide(await policiesOf(ctx), BUILTIN, withTarget(questionOf(ctx, permission), target ?? 'own'));
}

/** Which rows of a list the caller may see: all of the tenant, its own, each as `sees` says, or none. */
export interface View {
  rows: 'all' | 'own' | 'each' | 'none';
  sees: (target: Target) => boolean;
}

/** Decides once for a list or search what it may show. */
export async function viewOf(ctx: Ctx, permission: Permission): Promise<View> {
  if (ctx.actor.type === 'system') return { rows: 'all', sees: () => true };
  const set = await policiesOf(ctx);
  const question = questionOf(ctx, permission);
  return {
    rows: narrow(set, BUILTIN, question),
    sees: (target) => decide(set, BUILTIN, withTarget(question, target)).allowed,
  };
}
