import type { Ctx, Permission, Target } from '#platform/context.ts';
import { recordDenial } from '#platform/facts/denials.ts';
import { withinScopes } from '#platform/permission.ts';
import { asSeenBy, decideRow, partiesOf, policiesOf, questionOf, renamedFor } from './asking.ts';
import type { RowColumns } from './attribute-store.ts';
import { BUILTIN } from './builtin.ts';
import { all, type Condition } from './condition-store.ts';
import { withTarget } from './context.ts';
import { type Decision, decide, mayReachOthers, narrow } from './decide.ts';
import { rowsLetThrough } from './row-rules.ts';

/** Which rows of a list the caller may see: all of the tenant, its own, each as `sees` says, or none. */
export interface View {
  rows: 'all' | 'own' | 'each' | 'none';
  /** No row of somebody else can be among them, so that only its own need be read. */
  onlyOwn: boolean;
  /** The rows a list shows, as the database can be asked for them; where it is null of a row, `sees` has to tell. */
  letThrough: (columns: RowColumns) => Condition;
  /** True when some policy looks at rows, in force or not: then what is made is decided, and recorded, by itself. */
  watched: boolean;
  /** Whether a list shows the row. Rows a list leaves out are no refusals: nobody asked for them. */
  sees: (target: Target) => boolean;
  /** The same of rows that are only looked at to find those to show: it is not remembered that they were decided. */
  admits: (target: Target) => boolean;
  /** Whether the row that was asked for may be touched; a no is a fact, though its answer is that of a missing row. */
  reaches: (target: Target) => boolean;
}

/** From the narrowest to the widest; `each` says nothing about how many. */
const narrowness = ['none', 'each', 'own', 'all'] as const;

/** Every row, or none, whatever it is. */
const alike = (isShown: boolean, reaches: View['reaches']): View => ({
  rows: isShown ? 'all' : 'none',
  onlyOwn: !isShown,
  letThrough: () => isShown,
  watched: !isShown,
  sees: () => isShown,
  admits: () => isShown,
  reaches,
});

/** Decides once for a list or search what it may show. What the credential's scopes leave out it does not show at all. */
export async function viewOf(ctx: Ctx, permission: Permission): Promise<View> {
  if (ctx.actor.type === 'system') return alike(true, () => true);
  if (!withinScopes(ctx.actor, permission))
    return alike(false, (target) => {
      recordDenial(ctx, permission, target, { policy_id: null, reason: 'scope' });
      return false;
    });
  const set = await policiesOf(ctx);
  const views = partiesOf(ctx.actor).map((party) => {
    const question = questionOf(ctx, permission, party);
    const { watchesTarget } = set.candidates(question.role, question.resource, question.action);
    return {
      rows: narrow(set, BUILTIN, question),
      onlyOwn: !mayReachOthers(set, BUILTIN, question),
      watched: watchesTarget,
      letThrough: (columns: RowColumns) =>
        rowsLetThrough(set, BUILTIN, { context: question, columns, renamed: renamedFor(party) }),
      decide: (target: Target) => decideRow(ctx, set, question, asSeenBy(party, target)),
      admits: (target: Target) => decide(set, BUILTIN, withTarget(question, asSeenBy(party, target))).allowed,
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
    letThrough: (columns) => all(views.map((view) => view.letThrough(columns))),
    watched: views.some((view) => view.watched),
    sees: (target) => refusal(target) === undefined,
    admits: (target) => views.every((view) => view.admits(target)),
    reaches: (target) => {
      const refused = refusal(target);
      if (refused) recordDenial(ctx, permission, target, refused);
      return refused === undefined;
    },
  };
}
