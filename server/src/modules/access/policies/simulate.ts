import type { Ctx } from '#platform/context.ts';
import { conflict, type FieldProblem, invalid, notFound } from '#platform/errors.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize } from '#platform/permission.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { takingTurns } from '#platform/turns.ts';
import { flushDecisions, listDecisions, type RecordedDecision } from '../decisions/service.ts';
import { findActiveIdentities } from '../identity/service.ts';
import {
  BUILTIN,
  compilePolicies,
  compileRule,
  type Decision,
  decide,
  type Guards,
  type Kept,
  type Known,
  keptOf,
  type PolicySet,
  RESOURCE_ACTIONS,
  type Resource,
  replayed,
} from '../policy/service.ts';
import { exchanged, targetOf } from './change.ts';
import { locksOut } from './lock-out.ts';
import type { PolicySimulate, SimulatedChange } from './schema.ts';
import { contentFrom, contentWith } from './service.ts';
import { type Content, findPolicies, listRules, type Policy } from './store.ts';
import { warned, warningsOf } from './warnings.ts';

/**
 * Replays recorded decisions against the tenant's policies as they are and as they would be, and lists what would come
 * out otherwise. Identities are asked as who they are today; those that are gone or not active are left out.
 * @throws ApiError 404 for a policy that is not there, 422
 */
export async function simulate(ctx: Ctx, input: PolicySimulate) {
  // It shows what people did and what policies say; to be allowed to ask single questions is less.
  await authorize(ctx, 'policy:list');
  const drafts = await draftsOf(ctx, input);
  // What this process has not written yet belongs to the past as well.
  await flushDecisions(ctx.app, ctx.tenant);
  const { DECISION_RETENTION_DAYS, DECISIONS_KEPT } = ctx.app.config;
  const since =
    input.since === undefined
      ? new Date(Date.now() - DECISION_RETENTION_DAYS * 86_400_000).toISOString()
      : storedTimestamp(input.since, '/since');
  const recorded = await listDecisions(ctx.db, new Date(since), DECISIONS_KEPT);
  const rows = await listRules(ctx.db);
  const [before, after] = [compilePolicies(rows), compilePolicies(exchanged(rows, drafts))];
  const { changed, ...counts } = await replay(ctx, recorded, before, after);
  changed.sort((a, b) => b.count - a.count);
  const targets = drafts.flatMap(({ id, after }) => (after ? [targetOf({ id, role: after.role })] : []));
  return {
    since,
    ...counts,
    changed: changed.slice(0, input.limit ?? 100),
    not_recorded: notRecorded(before, drafts),
    ...warned(await warningsOfAll(ctx, drafts)),
    locks_out: await locksOut(ctx, ctx.db, before, after, targets),
  };
}

interface Draft {
  id: string;
  /** Where it stands in the request. */
  at: string;
  before: Policy | undefined;
  after: Content | undefined;
}

async function draftsOf(ctx: Ctx, { draft, changes }: PolicySimulate): Promise<Draft[]> {
  if ((draft === undefined) === (changes === undefined))
    throw invalid([{ path: '/draft', message: 'is to be given, or changes; one of them' }]);
  const list: SimulatedChange[] = changes ?? [oneChange(draft!)];
  const ids = list.flatMap(({ id }) => (id !== undefined && isUuid(id) ? [id] : []));
  const found = new Map((await findPolicies(ctx.db, ids)).map((policy) => [policy.id, policy]));
  const drafts = list.map((change, i) => {
    const at = changes ? `/changes/${i}` : '/draft';
    return draftOf(change, change.id === undefined ? undefined : found.get(change.id.toLowerCase()), at);
  });
  if (new Set(drafts.map(({ id }) => id)).size < drafts.length)
    throw conflict('POLICY_NAMED_TWICE', 'A policy is changed twice. Say once what becomes of it.');
  return drafts;
}

function oneChange({ id, ...policy }: NonNullable<PolicySimulate['draft']>): SimulatedChange {
  return id === undefined ? { op: 'create', policy } : { op: 'update', id, policy };
}

function draftOf({ op, id, policy }: SimulatedChange, found: Policy | undefined, at: string): Draft {
  const within = at === '/draft' ? at : `${at}/policy`;
  if (op === 'create') {
    if (id !== undefined) throw invalid([{ path: `${at}/id`, message: 'is not for a policy that is made' }]);
    const { role, rule, ...rest } = policy ?? {};
    if (role === undefined) throw invalid([{ path: `${within}/role`, message: 'is required' }]);
    if (rule === undefined) throw invalid([{ path: `${within}/rule`, message: 'is required' }]);
    return {
      id: uuidv7(),
      at: within,
      before: undefined,
      after: contentFrom({ role, rule, ...rest }, within),
    };
  }
  if (id === undefined) throw invalid([{ path: `${at}/id`, message: 'is required' }]);
  if (!found) throw notFound('Policy');
  if (op === 'delete') {
    if (policy !== undefined)
      throw invalid([{ path: within, message: 'is not for a policy that is deleted' }]);
    return { id: found.id, at: within, before: found, after: undefined };
  }
  // A draft is tried as if it were in force.
  return {
    id: found.id,
    at: within,
    before: found,
    after: contentWith(found, { is_active: true, ...policy }, within),
  };
}

async function warningsOfAll(ctx: Ctx, drafts: Draft[]): Promise<FieldProblem[]> {
  const each = [];
  for (const { at, after } of drafts) if (after) each.push(await warningsOf(ctx.db, after, at));
  return each.flat();
}

const outcomeOf = ({ allowed, policy_id, reason }: Decision) => ({ allowed, policy_id, reason });

async function replay(ctx: Ctx, recorded: RecordedDecision[], before: PolicySet, after: PolicySet) {
  const people = await peopleOf(ctx, recorded);
  const changed = [];
  const counts = { questions: 0, decisions: 0, allowed_now: 0, denied_now: 0 };
  const others = takingTurns();
  for (const { question, count, last_seen, ip } of recorded) {
    const turn = others();
    if (turn) await turn;
    const identity = people.get(question.identity_id);
    const agent = question.agent_id === undefined ? undefined : people.get(question.agent_id);
    if (!identity || (question.agent_id !== undefined && !agent)) continue;
    counts.questions += 1;
    counts.decisions += count;
    const context = replayed(ctx.tenant, question, { time: last_seen, ip }, identity, agent);
    const [was, is] = [decide(before, BUILTIN, context), decide(after, BUILTIN, context)];
    if (was.allowed === is.allowed) continue;
    counts[is.allowed ? 'allowed_now' : 'denied_now'] += 1;
    const { id: identity_id, external_id } = identity;
    const { role, agent_id, resource, action, target, request } = question;
    changed.push({
      who: { identity_id, external_id, role, ...(agent_id === undefined ? {} : { agent_id }) },
      permission: `${resource}:${action}`,
      target,
      request,
      count,
      last_seen,
      before: outcomeOf(was),
      after: outcomeOf(is),
    });
  }
  return { ...counts, changed };
}

async function peopleOf(ctx: Ctx, recorded: RecordedDecision[]): Promise<Map<string, Known>> {
  const ids = new Set(
    recorded.flatMap(({ question: { identity_id, agent_id } }) => [identity_id, agent_id ?? identity_id]),
  );
  const found = await findActiveIdentities(ctx.db, [...ids]);
  return new Map(found.map((identity) => [identity.id, identity]));
}

/**
 * What a draft reads of rows and requests that decisions are recorded without, since no stored policy about the same
 * roles and permissions reads it.
 */
function notRecorded(before: PolicySet, drafts: Draft[]): string[] {
  const missing = new Set<string>();
  for (const { after } of drafts) {
    if (!after) continue;
    const { reads, guards } = compileRule(after.rule);
    for (const name of reads) {
      const wanted = keptOf([name]);
      const kept = permissionsOf(guards).every(([resource, action]) =>
        covers(before.candidates(after.role, resource, action).kept, wanted),
      );
      if (!kept || name.split('.', 1)[0] === 'authzen') missing.add(name);
    }
  }
  return [...missing].sort();
}

function permissionsOf(guards: Guards): [resource: string, action: string][] {
  const resources = guards.get('resource') ?? Object.keys(RESOURCE_ACTIONS);
  return [...resources].flatMap((resource) => {
    const actions = guards.get('action') ?? RESOURCE_ACTIONS[resource as Resource] ?? [];
    return [...actions].map((action): [string, string] => [resource, action]);
  });
}

function covers(kept: Kept, wanted: Kept): boolean {
  const names = (has: Kept['labels'], wants: Kept['labels']) =>
    has === 'all' || (wants !== 'all' && [...wants].every((one) => has.has(one)));
  return (
    (kept.id || !wanted.id) &&
    (kept.owner || !wanted.owner) &&
    (kept.path || !wanted.path) &&
    names(kept.labels, wanted.labels) &&
    names(kept.metadata, wanted.metadata)
  );
}
