import { createCache } from '#platform/cache.ts';
import type { Actor, App, Ctx, Permission, Target } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { recordDecision } from '../decisions/service.ts';
import { BUILTIN } from './builtin.ts';
import { type PolicyContext, type PolicyTarget, policyContext, withTarget } from './context.ts';
import { type Decision, decide } from './decide.ts';
import { compilePolicies, type PolicySet } from './policy-set.ts';
import { keyOf, questionOfRecord } from './recorded.ts';
import { listPolicies } from './store.ts';

const cacheOf = perApp((app) => createCache<PolicySet>(app.shared, 'policy', 10_000));

// Policies are read once a request and before its transaction: on the embedded database a second connection would wait
// for the first for ever, and a load that other requests join must not depend on what one of them holds.
const pinned = new WeakMap<Ctx, PolicySet>();

/** Fixes the policies a request is decided by. */
export async function pinPolicies(ctx: Ctx): Promise<void> {
  pinned.set(ctx, await policiesOf(ctx));
}

/** The policies a request is decided by. */
export async function policiesOf(ctx: Ctx): Promise<PolicySet> {
  const cache = cacheOf(ctx.app);
  return (
    pinned.get(ctx) ??
    cache.peek(ctx.tenant) ??
    cache.get(ctx.tenant, () => loadPolicies(ctx.app, ctx.tenant))
  );
}

async function loadPolicies(app: App, tenant: string): Promise<PolicySet> {
  const set = compilePolicies(await listPolicies(app.database.tenant(tenant)));
  for (const problem of set.problems)
    app.log.warn({ tenant_id: tenant, ...problem }, 'a stored policy does not compile');
  return set;
}

/** Tells all processes that the tenant's policies changed, once they have. */
export const policiesChanged = (ctx: Ctx): void =>
  ctx.db.afterCommit(() => ctx.app.shared.invalidate('policy', ctx.tenant));

/** Somebody whose policies are asked: who acts, and each agent that acts for it. */
export interface Party {
  id: string;
  external_id: string | null;
  role: string;
  claims: Record<string, unknown>;
  /** Whose things count as its own. */
  owns: string;
}

export function partiesOf({
  identity_id,
  credential,
  external_id,
  role,
  claims,
  delegation,
}: Actor): Party[] {
  const id = identity_id ?? credential;
  const first: Party = { id, external_id: external_id ?? null, role, claims, owns: id };
  if (!delegation) return [first];
  return [
    first,
    ...delegation.agents.map((agent) => ({
      id: agent.identity_id,
      external_id: agent.external_id,
      role: agent.role,
      claims: agent.claims,
      owns: id,
    })),
  ];
}

export function questionOf(ctx: Ctx, permission: Permission, party: Party): PolicyContext {
  const [resource, action] = permission.split(':') as [string, string];
  const { actor, request } = ctx;
  const agent = actor.delegation?.agents[0];
  return policyContext({
    role: party.role,
    action,
    resource,
    tenant_id: ctx.tenant,
    identity: { id: party.id, external_id: party.external_id, claims: party.claims },
    target: null,
    agent: agent ? { id: agent.identity_id, external_id: agent.external_id, role: agent.role } : null,
    request: request
      ? {
          // What answers GET answers HEAD, so a rule about the one holds for the other.
          method: request.method === 'HEAD' ? 'GET' : request.method,
          path: request.canonical_path,
          ip: request.ip,
          time: new Date(),
          route_class: request.route_class,
        }
      : { time: new Date() },
  });
}

/** What belongs to a person belongs to the agent that acts for it, as far as the agent's policies are concerned. */
export function asSeenBy({ id, owns }: Party, target: Target | 'own'): Target | 'own' {
  if (target === 'own' || owns === id) return target;
  return {
    ...target,
    ...(target.owner === owns ? { owner: id } : {}),
    ...(target.id === owns ? { id } : {}),
  };
}

/** The same for ids in statements. */
export const renamedFor = ({ id, owns }: Party): ReadonlyMap<string, string> =>
  new Map(owns === id ? [] : [[owns, id]]);

/** Decides one question, and remembers that it was asked. */
export function decideRow(
  ctx: Ctx,
  set: PolicySet,
  question: PolicyContext,
  target: Target | 'own',
): Decision {
  const context = withTarget(question, target);
  const decision = decide(set, BUILTIN, context);
  recordQuestion(ctx, set, context, target, decision);
  return decision;
}

/** Keeps a question for simulations, with what of it policies look at. `route` stands for the path. */
export function recordQuestion(
  ctx: Ctx,
  set: PolicySet,
  context: PolicyContext,
  target: PolicyTarget | 'own',
  decision: Decision,
  route = ctx.request?.route,
): void {
  const { kept } = set.candidates(context.role, context.resource, context.action);
  const asked = { context, target, kept, route };
  const question = () => questionOfRecord(asked);
  recordDecision(ctx.app, ctx.tenant, keyOf(asked), decision, question, context.request.ip);
}
