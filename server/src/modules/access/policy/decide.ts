import { STEP_BUDGET } from './compile.ts';
import { type PolicyContext, withTarget } from './context.ts';
import { explain, type TraceEntry } from './explain.ts';
import { type Candidates, type Entry, guardsAdmit, type PolicySet, relevant } from './policy-set.ts';
import { type Meter, newMeter } from './values.ts';

/** Steps that all policies of one decision may spend together; beyond it the answer is no. */
export const DECISION_STEPS = 20 * STEP_BUDGET;

/** Rules of one decision from which on each attribute is read once for all of them; for fewer it costs more than it saves. */
const READ_ONCE_FROM = 16;

export type DecisionReason =
  /** A policy of the tenant matched. */
  | 'policy'
  /** None did, and the role's built-in policy matched. */
  | 'builtin'
  /** Nothing matched. */
  | 'default_deny'
  /** A deny policy that does not compile stands first. */
  | 'invalid_policy'
  /** A deny policy could not be evaluated (its budget, or the decision's, was spent). */
  | 'policy_error';

export type Decision = {
  allowed: boolean;
  effect: 'allow' | 'deny';
  policy_id: string | null;
  reason: DecisionReason;
  code?: string;
  message?: string;
};

/**
 * Decides one access. The matching policy with the highest priority decides; at equal priority a deny wins;
 * with no match the built-in policies are asked in the same way; with none there, the answer is no.
 *
 * A policy matches when its rule is exactly `true`. An allow rule that can not be evaluated does not match.
 * A deny rule that can not be evaluated denies, unless one of its constant guards (an `==` or `in` between
 * an attribute and constant strings) already rules the request out. Never throws.
 */
export function decide(set: PolicySet, builtin: PolicySet, context: PolicyContext): Decision {
  const { role, resource, action } = context;
  if (typeof role !== 'string' || typeof resource !== 'string' || typeof action !== 'string')
    return DEFAULT_DENY;
  return (
    decideIn(set.candidates(role, resource, action), context, 'policy') ??
    decideIn(builtin.candidates(role, resource, action), context, 'builtin') ??
    DEFAULT_DENY
  );
}

/** True when some policy that can match this role, action and resource reads the target, so that rows may differ. */
export function dependsOnTarget(set: PolicySet, role: string, action: string, resource: string): boolean {
  return set.candidates(role, resource, action).readsTarget;
}

/**
 * True when a decision taken before a row is known may come out otherwise for some row: an allow that looks at rows
 * stands before the policy that decided, or that one looks at rows itself.
 */
export function mayDependOnRow(set: PolicySet, context: PolicyContext, decision: Decision): boolean {
  const { all, readsTarget } = set.candidates(context.role, context.resource, context.action);
  if (!readsTarget) return false;
  const deciding = all.findIndex((entry) => entry.id === decision.policy_id);
  if (deciding >= 0 && all[deciding]!.readsTarget) return true;
  const before = deciding < 0 ? all : all.slice(0, deciding);
  return before.some((entry) => entry.readsTarget && entry.effect === 'allow');
}

/**
 * How a list or search narrows what it shows, decided once instead of once a row:
 * - `all`: every row of the tenant;
 * - `own`: the rows whose owner is the caller (for identities, also the caller itself);
 * - `each`: the tenant's policies look at the rows, so each row is decided with `withTarget`;
 * - `none`: no row.
 * `context` is the question without a row; its target is not looked at.
 */
export function narrow(
  set: PolicySet,
  builtin: PolicySet,
  context: PolicyContext,
): 'all' | 'own' | 'each' | 'none' {
  if (dependsOnTarget(set, context.role, context.action, context.resource)) return 'each';
  if (decide(set, builtin, withTarget(context, {})).allowed) return 'all';
  return decide(set, builtin, withTarget(context, 'own')).allowed ? 'own' : 'none';
}

/**
 * Whether a row of somebody else may be let through: false only where each of them is refused, whatever it holds. A deny
 * that looks into rows refuses some, so it takes nothing away here; an allow may let some through.
 */
export function mayReachOthers(set: PolicySet, builtin: PolicySet, context: PolicyContext): boolean {
  const others = withTarget(context, {});
  const { all } = set.candidates(context.role, context.resource, context.action);
  const sure = decideIn({ all: all.filter((entry) => !entry.readsMore), split: null }, others, 'policy');
  const deciding = sure === null ? all.length : all.findIndex((entry) => entry.id === sure.policy_id);
  // Its steps were spent on policies that an index leaves out elsewhere.
  if (sure?.reason === 'policy_error') return true;
  if (all.some((entry, i) => i < deciding && entry.readsMore && entry.effect === 'allow')) return true;
  return (
    sure ??
    decideIn(builtin.candidates(context.role, context.resource, context.action), others, 'builtin') ??
    DEFAULT_DENY
  ).allowed;
}

export type PolicyTrace = {
  policy_id: string;
  effect: 'allow' | 'deny';
  priority: number;
  outcome: 'matched' | 'not_matched' | 'failed' | 'invalid';
  /** The expression because of which it did not match. */
  failed: TraceEntry | null;
};

/** A decision with the policies that were asked, in order, up to the deciding one; at most `limit` of them. */
export function explainDecision(
  set: PolicySet,
  builtin: PolicySet,
  context: PolicyContext,
  limit = 50,
): { decision: Decision; trace: PolicyTrace[] } {
  const decision = decide(set, builtin, context);
  const asked = [...set.entriesFor(context.role), ...builtin.entriesFor(context.role)];
  const deciding = asked.findIndex((entry) => entry.id === decision.policy_id);
  const shown = (deciding < 0 ? asked : asked.slice(0, deciding + 1)).slice(0, limit);
  if (deciding >= limit) shown[limit - 1] = asked[deciding]!;
  return { decision, trace: shown.map((entry) => traceOf(entry, context)) };
}

const DEFAULT_DENY: Decision = Object.freeze({
  allowed: false,
  effect: 'deny',
  policy_id: null,
  reason: 'default_deny',
});

function decideIn(
  candidates: Pick<Candidates, 'all' | 'split'>,
  context: PolicyContext,
  source: 'policy' | 'builtin',
): Decision | null {
  if (candidates.all.length === 0) return null;
  const [bound, rest] = relevant(candidates, context);
  let left = DECISION_STEPS;
  const meter = newMeter(0, bound.length + rest.length >= READ_ONCE_FROM, context);
  let i = 0;
  let j = 0;
  while (i < bound.length || j < rest.length) {
    const first = bound[i];
    const second = rest[j];
    const entry =
      second === undefined || (first !== undefined && first.order < second.order) ? first! : second;
    if (entry === first) i += 1;
    else j += 1;
    if (entry.rule === null) return decisionOf(entry, 'invalid_policy');
    meter.steps = Math.min(STEP_BUDGET, left);
    const granted = meter.steps;
    const outcome = outcomeOf(entry, context, meter);
    if (outcome === true) return decisionOf(entry, source);
    if (outcome === null && entry.effect === 'deny' && guardsAdmit(entry, context))
      return decisionOf(entry, 'policy_error');
    left -= granted - Math.max(meter.steps, 0);
    if (left <= 0) return { ...decisionOf(entry, 'policy_error'), allowed: false, effect: 'deny' };
  }
  return null;
}

/** Whether the rule matches; null when its evaluation did not finish. */
function outcomeOf(entry: Entry, context: PolicyContext, meter: Meter): boolean | null {
  try {
    return entry.rule!.run(meter, context) === true;
  } catch {
    // Spent budget or a hostile context: the caller turns null into "never allows".
    return null;
  }
}

function decisionOf(entry: Entry, reason: DecisionReason): Decision {
  const decision: Decision = {
    allowed: entry.effect === 'allow',
    effect: entry.effect,
    policy_id: entry.id,
    reason,
  };
  if (entry.code !== null) decision.code = entry.code;
  if (entry.message !== null) decision.message = entry.message;
  return decision;
}

function traceOf(entry: Entry, context: PolicyContext): PolicyTrace {
  const { id: policy_id, effect, priority } = entry;
  if (entry.rule === null) return { policy_id, effect, priority, outcome: 'invalid', failed: null };
  const { matched, error, failed } = explain(entry.rule, context);
  return {
    policy_id,
    effect,
    priority,
    outcome: matched ? 'matched' : error ? 'failed' : 'not_matched',
    failed,
  };
}
