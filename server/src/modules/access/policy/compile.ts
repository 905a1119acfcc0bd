import { spellOutActions } from './action-words.ts';
import { type Guards, guardsOf, readsOf } from './analyse.ts';
import { buildRun, type Run } from './operators.ts';
import { parseRule, type RuleNode } from './parse.ts';
import { EvaluationLimit, type Meter, newMeter } from './values.ts';

/** Steps a run may spend unless told otherwise. */
export const STEP_BUDGET = 10_000;

/** A rule that passed every check, ready to run. Immutable; safe to share between requests. */
export type CompiledRule = {
  readonly tree: RuleNode;
  readonly run: Run;
  readonly guards: Guards;
  /** Names it reads, `target.metadata.client`; contains `*` when that can not be known beforehand. */
  readonly reads: ReadonlySet<string>;
};

export type Evaluation = {
  /** The rule's value; null when it failed or came out missing. A list in it may share parts with the context. */
  value: unknown;
  /** Steps spent. */
  steps: number;
  /** Set when the run did not finish: its budget was spent, or the context broke the engine (a hostile Proxy). */
  error: 'budget_exceeded' | 'evaluation_failed' | null;
};

/**
 * Compiles a JSON Logic rule (jsonlogic.com, all operators except `log`) to closures.
 *
 * Differences from the published language, all of them narrower:
 * - An object is always an operator with exactly one key; an argument count the operator does not know is refused.
 * - A `var` without default whose attribute is not in the context is **missing**. Arithmetic, `cat` and `substr`
 *   on a missing value are missing too. `==`, `===`, `!=`, `!==`, `<`, `<=`, `>`, `>=` and `in` with a missing
 *   operand are false: also the negative ones, so that a claim nobody set can not widen access. Everywhere else
 *   a missing value is what the language says: falsy, and null as a result. (`!` around a comparison is still
 *   true when the comparison is false; a deny rule that must fire on absence asks with `!` or `missing`.)
 *   An attribute that is present with the value null is not missing.
 * - NaN satisfies no comparison, not even `!=`.
 * - Compared with `action`, the constants `read` and `write` stand for all actions of their kind.
 * - `>` and `>=` take a third operand as `<` and `<=` do.
 * - Only own data properties of plain objects and arrays are read, array elements by index alone.
 *
 * Throws `RuleError` naming the place, a code and the operator.
 */
export function compileRule(rule: unknown): CompiledRule {
  const tree = spellOutActions(parseRule(rule));
  return { tree, run: buildRun(tree), guards: guardsOf(tree), reads: readsOf(tree) };
}

/** Runs a rule on a context. Never throws. `steps` is the budget (default `STEP_BUDGET`). */
export function evaluate(rule: CompiledRule, context: unknown, options: { steps?: number } = {}): Evaluation {
  const budget = options.steps ?? STEP_BUDGET;
  return evaluateRun(rule.run, context, newMeter(budget));
}

/** As `evaluate`, on a bare closure and a meter of the caller's. */
export function evaluateRun(run: Run, context: unknown, meter: Meter): Evaluation {
  const budget = meter.steps;
  try {
    const value = run(meter, context);
    return { value: value === undefined ? null : value, steps: budget - meter.steps, error: null };
  } catch (error) {
    const limited = error instanceof EvaluationLimit || error instanceof RangeError;
    return {
      value: null,
      steps: budget - meter.steps,
      error: limited ? 'budget_exceeded' : 'evaluation_failed',
    };
  }
}

/** True only when the rule finishes within its budget and its value is exactly `true`. */
export function matches(rule: CompiledRule, context: unknown): boolean {
  return evaluate(rule, context).value === true;
}
