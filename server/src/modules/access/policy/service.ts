import { createCache } from '#platform/cache.ts';
import type { Actor, App, Ctx, Permission, PermissionDecision, Target } from '#platform/context.ts';
import { recordDenial } from '#platform/facts/denials.ts';
import { type PageFrom, type PageQuery, type Position, page, positionOf } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { perApp } from '#platform/per-app.ts';
import { recordDecision } from '../decisions/service.ts';
import { BUILTIN, mayGive } from './builtin.ts';
import { type PolicyContext, type PolicyTarget, policyContext, withTarget } from './context.ts';
import { type Decision, decide, mayDependOnRow, mayReachOthers, narrow } from './decide.ts';
import { type Kept, keptOf } from './kept.ts';
import { compilePolicies, type PolicySet } from './policy-set.ts';
import { keyOf, questionOfRecord } from './recorded.ts';
import { listPolicies } from './store.ts';

export type { Guards } from './analyse.ts';
// What other modules need of the engine, which is pure.
export {
  BUILTIN,
  BUILTIN_POLICIES,
  BUILTIN_ROLES,
  RESOURCE_ACTIONS,
  type Resource,
} from './builtin.ts';
export { compileRule } from './compile.ts';
export { type PolicyContext, type PolicyContextInput, type PolicyTarget, policyContext } from './context.ts';
export { type Decision, decide, explainDecision, type PolicyTrace } from './decide.ts';
export { type Kept, keptOf } from './kept.ts';
export { RuleError } from './parse.ts';
export { compilePolicies, type PolicyRow, type PolicySet } from './policy-set.ts';
export { type Known, replayed } from './recorded.ts';

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
interface Party {
  id: string;
  external_id: string | null;
  role: string;
  claims: Record<string, unknown>;
  /** Whose things count as its own. */
  owns: string;
}

function partiesOf({ identity_id, credential, external_id, role, claims, delegation }: Actor): Party[] {
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

function questionOf(ctx: Ctx, permission: Permission, party: Party): PolicyContext {
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
function asSeenBy({ id, owns }: Party, target: Target | 'own'): Target | 'own' {
  if (target === 'own' || owns === id) return target;
  return {
    ...target,
    ...(target.owner === owns ? { owner: id } : {}),
    ...(target.id === owns ? { id } : {}),
  };
}

/** Decides one question, and remembers that it was asked. */
function decideRow(ctx: Ctx, set: PolicySet, question: PolicyContext, target: Target | 'own'): Decision {
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

/**
 * Decides one access. Without a target it asks whether the caller could do this to something of its own. Where agents
 * act for somebody, each of them must be allowed as well.
 * @param rowsFollow each row is decided later; then a no that may be a yes for some row is none yet
 */
export async function decideAccess(
  ctx: Ctx,
  permission: Permission,
  target?: Target,
  rowsFollow = false,
): Promise<PermissionDecision> {
  const set = await policiesOf(ctx);
  let first: PermissionDecision | undefined;
  for (const party of partiesOf(ctx.actor)) {
    const question = questionOf(ctx, permission, party);
    const asked = asSeenBy(party, target ?? 'own');
    const context = withTarget(question, asked);
    const decision = decide(set, BUILTIN, context);
    // Let in for the sake of some row: that is no decision yet.
    const open = !decision.allowed && rowsFollow && mayDependOnRow(set, question, decision);
    if (!open) recordQuestion(ctx, set, context, asked, decision);
    if (!decision.allowed && !open) return decision;
    first ??= { ...decision, allowed: true };
  }
  return first!;
}

/** Which rows of a list the caller may see: all of the tenant, its own, each as `sees` says, or none. */
export interface View {
  rows: 'all' | 'own' | 'each' | 'none';
  /** No row of somebody else can be among them, so that only its own need be read. */
  onlyOwn: boolean;
  /** What of a row policies look at, beside its type and whether it belongs to one who acts. */
  looksAt: Kept;
  /** True when some policy looks at rows, in force or not: then what is made is decided, and recorded, by itself. */
  watched: boolean;
  /** Whether a list shows the row. Rows a list leaves out are no refusals: nobody asked for them. */
  sees: (target: Target) => boolean;
  /** Whether the row that was asked for may be touched; a no is a fact, though its answer is that of a missing row. */
  reaches: (target: Target) => boolean;
}

/** From the narrowest to the widest; `each` says nothing about how many. */
const narrowness = ['none', 'each', 'own', 'all'] as const;

/** Decides once for a list or search what it may show. */
export async function viewOf(ctx: Ctx, permission: Permission): Promise<View> {
  if (ctx.actor.type === 'system')
    return {
      rows: 'all',
      onlyOwn: false,
      looksAt: keptOf([]),
      watched: false,
      sees: () => true,
      reaches: () => true,
    };
  const set = await policiesOf(ctx);
  const views = partiesOf(ctx.actor).map((party) => {
    const question = questionOf(ctx, permission, party);
    const { all, watchesTarget } = set.candidates(question.role, question.resource, question.action);
    return {
      rows: narrow(set, BUILTIN, question),
      onlyOwn: !mayReachOthers(set, BUILTIN, question),
      reads: () => all.flatMap((entry) => [...(entry.rule?.reads ?? [])]),
      watched: watchesTarget,
      decide: (target: Target) => decideRow(ctx, set, question, asSeenBy(party, target)),
    };
  });
  const rows = narrowness.find((kind) => views.some((view) => view.rows === kind))!;
  const refusal = (target: Target): Decision | undefined => {
    for (const view of views) {
      const decision = view.decide(target);
      if (!decision.allowed) return decision;
    }
    return undefined;
  };
  return {
    rows,
    onlyOwn: views.some((view) => view.onlyOwn),
    get looksAt() {
      return keptOf(views.flatMap((view) => view.reads()));
    },
    watched: views.some((view) => view.watched),
    sees: (target) => refusal(target) === undefined,
    reaches: (target) => {
      const refused = refusal(target);
      if (refused) recordDenial(ctx, permission, target, refused);
      return refused === undefined;
    },
  };
}

/** A list of rows that policy may narrow: how a page of it is read, and what policies see of a row. */
export interface Listing<Row> {
  /** In the order of the list, one row more than `limit` when there are more. `owner`: of this identity only. */
  rows: (from: PageFrom) => Promise<Row[]>;
  /** False for rows that can not be read by their owner; then each is decided. */
  owned: boolean;
  target: (row: Row) => Target;
  position: (row: Row) => Position;
  /** Rows of a page when the caller does not say. */
  size: number;
}

/** Rows read at once where each has to be decided. */
const scanned = 500;

/** Answers a page of what the caller may see: all of the tenant's rows, its own, or those that policy lets through. */
export async function visiblePage<Row>(
  ctx: Ctx,
  permission: Permission,
  filter: object,
  query: PageQuery,
  listing: Listing<Row>,
): Promise<Answer> {
  const limit = query.limit ?? listing.size;
  const after = positionOf(ctx, permission, filter, query.cursor);
  const from = { ...(after ? { after } : {}), skip: query.skip ?? 0, limit };
  const view = await viewOf(ctx, permission);
  const rows = await visibleRows(view, ctx.actor.identity_id, listing, from);
  return page(ctx, permission, filter, rows, limit, listing.position);
}

async function visibleRows<Row>(
  view: View,
  owner: string | undefined,
  { rows, owned, target, position }: Listing<Row>,
  from: PageFrom,
): Promise<Row[]> {
  if (view.rows === 'none') return [];
  if (view.rows === 'all') return rows(from);
  const onlyOwn = view.onlyOwn && owned;
  if (onlyOwn && owner === undefined) return [];
  const only = onlyOwn && owner !== undefined ? { owner } : {};
  if (view.rows === 'own' && owned) return rows({ ...from, ...only });
  const shown: Row[] = [];
  // Read on until the page is full or nothing is left.
  for (let next: Pick<PageFrom, 'after'> = from; ; ) {
    const read = await rows({ ...next, ...only, skip: 0, limit: scanned });
    shown.push(...read.slice(0, scanned).filter((row) => view.sees(target(row))));
    const last = read[scanned - 1];
    if (shown.length > from.skip + from.limit || read.length <= scanned || !last)
      return shown.slice(from.skip, from.skip + from.limit + 1);
    next = { after: position(last) };
  }
}

/** True when the caller, and every agent that acts for it, may give somebody this role. */
export const mayGiveRole = ({ type, role, delegation }: Actor, given: string): boolean =>
  (type === 'system' && given !== 'system') ||
  [role, ...(delegation?.agents.map((agent) => agent.role) ?? [])].every((held) => mayGive(held, given));
