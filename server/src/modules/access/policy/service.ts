import type { Actor, Ctx, Permission, PermissionDecision, Target } from '#platform/context.ts';
import { asSeenBy, partiesOf, policiesOf, questionOf, recordQuestion } from './asking.ts';
import { BUILTIN, mayGive } from './builtin.ts';
import { withTarget } from './context.ts';
import { decide, mayDependOnRow } from './decide.ts';

export type { Guards } from './analyse.ts';
export { pinPolicies, policiesChanged, policiesOf, recordQuestion } from './asking.ts';
export type { RowColumns } from './attribute-store.ts';
// What other modules need of the engine, which is pure.
export {
  BUILTIN,
  BUILTIN_POLICIES,
  BUILTIN_ROLES,
  RESOURCE_ACTIONS,
  type Resource,
} from './builtin.ts';
export { compileRule } from './compile.ts';
export { type Condition, isTotal, possiblyIn, sqlOf, undecidedIn } from './condition-store.ts';
export { type PolicyContext, type PolicyContextInput, type PolicyTarget, policyContext } from './context.ts';
export { type Decision, decide, explainDecision, type PolicyTrace } from './decide.ts';
export { type Kept, keptOf } from './kept.ts';
export { type Listing, visiblePage } from './listing.ts';
export { parseRule, RuleError } from './parse.ts';
export { compilePolicies, type PolicyRow, type PolicySet } from './policy-set.ts';
export { type Known, replayed } from './recorded.ts';
export { type View, viewOf } from './view.ts';
export { attributeProblem, namesAsked, namesIn } from './vocabulary.ts';

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

/** True when the caller, and every agent that acts for it, may give somebody this role. */
export const mayGiveRole = (
  { type, role, delegation }: Pick<Actor, 'type' | 'role' | 'delegation'>,
  given: string,
): boolean =>
  (type === 'system' && given !== 'system') ||
  [role, ...(delegation?.agents.map((agent) => agent.role) ?? [])].every((held) => mayGive(held, given));
