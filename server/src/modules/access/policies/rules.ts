import { type FieldProblem, invalid } from '#platform/errors.ts';
import { compileRule, namesIn, parseRule, RuleError } from '../policy/service.ts';
import { isStatement, ruleOfStatement } from './statement.ts';
import type { Content } from './store.ts';

/**
 * Checks a rule as it is written and puts it into JSON Logic.
 * @param at JSON pointer of the field
 * @throws ApiError 422 with the place inside the rule, and the operator by name
 */
export function checkedRule(
  rule: unknown,
  effect: Content['effect'] | undefined,
  at = '/rule',
): Pick<Content, 'rule' | 'effect' | 'written_as'> {
  if (isStatement(rule)) {
    const translated = ruleOfStatement(rule, at);
    if (effect !== undefined && effect !== translated.effect)
      throw invalid([
        { path: at.replace(/[^/]*$/, 'effect'), message: `is ${effect}, and the statement's is not` },
      ]);
    return { ...translated, written_as: { form: 'statement', rule } };
  }
  checkCompiles(rule, at);
  return { rule, effect: effect ?? 'allow', written_as: null };
}

/** @throws ApiError 422 for what is no rule, and for names in it that are hardly anything but slips */
export function checkCompiles(rule: unknown, at = '/rule'): void {
  const within = ({ path, message }: FieldProblem) => ({ path: `${at}${path}`.slice(0, 300), message });
  try {
    compileRule(rule);
  } catch (error) {
    if (!(error instanceof RuleError)) throw error;
    throw invalid([within(error)]);
  }
  const { errors } = namesIn(parseRule(rule));
  if (errors.length > 0) throw invalid(errors.slice(0, 50).map(within));
}
