import { readsOf } from './analyse.ts';
import {
  type Attribute,
  below,
  isStorable,
  jsonAttribute,
  missingAttribute,
  type Order,
  type RowColumns,
  textAttribute,
} from './attribute-store.ts';
import { STEP_BUDGET } from './compile.ts';
import { all, any, type Condition, choose, not } from './condition-store.ts';
import { type PolicyContext, TARGET_ATTRIBUTES } from './context.ts';
import { DECISION_STEPS } from './decide.ts';
import { buildRun, constantPath } from './operators.ts';
import type { OperatorNode, RuleNode } from './parse.ts';
import type { Entry, PolicySet } from './policy-set.ts';
import { comparable, lessOrEqual, lessThan, newMeter, truthy } from './values.ts';

/** What a rule is read with: the question without a row, and where a row's attributes are. */
export interface RowQuestion {
  context: PolicyContext;
  columns: RowColumns;
  /** What some ids are called in rules: an agent's person's things are its own. */
  renamed: ReadonlyMap<string, string>;
}

/** Steps of looking through an attribute's text or list. */
const searching = 1_100;
/** Rules with more of them together are not put into a statement. */
const mostComparisons = 100;

/** A rule as a condition on rows. */
export interface RowRule {
  condition: Condition;
  /** Steps it can spend at most. */
  steps: number;
  /** How many comparisons of attributes it holds. */
  comparisons: number;
}

/**
 * Turns a rule into a condition on rows that is true or false only where the rule is. What reads no row is evaluated now;
 * comparisons of an attribute with such values become SQL; whatever else there is, the rule itself has to tell.
 */
export function conditionOf(tree: RuleNode, question: RowQuestion): RowRule {
  const reader = readerOf(question);
  const condition = reader.condition(tree, 'isTrue');
  const { comparisons } = reader;
  // A rule that spends its budget has no value at all.
  if (reader.steps > STEP_BUDGET) return { condition: null, steps: STEP_BUDGET, comparisons };
  return { condition, steps: reader.opaque ? STEP_BUDGET : reader.steps, comparisons };
}

type Wanted = 'isTrue' | 'truthy';
/** Of a value known now. */
type Known = { value: unknown };

const rowAttributes: ReadonlySet<string> = new Set(TARGET_ATTRIBUTES);
const readsRow = (node: RuleNode): boolean =>
  [...readsOf(node)].some((name) => rowAttributes.has(name.split('.', 1)[0]!));

const flipped: Record<Order, Order> = { '<': '>', '<=': '>=', '>': '<', '>=': '<=' };

function readerOf({ context, columns, renamed }: RowQuestion) {
  const reader = { steps: 0, comparisons: 0, opaque: false, condition };

  const unsure = (): null => {
    reader.opaque = true;
    return null;
  };

  /** Its value where that does not depend on the row; null when it can not be told. */
  function known(node: RuleNode): Known | null {
    if (node.kind === 'literal') return { value: node.value };
    if (readsRow(node)) return null;
    const meter = newMeter(STEP_BUDGET);
    try {
      const value = buildRun(node)(meter, context);
      reader.steps += STEP_BUDGET - meter.steps;
      return { value };
    } catch {
      reader.steps += STEP_BUDGET + 1;
      return null;
    }
  }

  function condition(node: RuleNode, wanted: Wanted): Condition {
    const now = known(node);
    if (now) return wanted === 'truthy' ? truthy(now.value) : now.value === true;
    if (node.kind !== 'operator') return unsure();
    reader.steps += 1;
    switch (node.operator) {
      case 'var': {
        const attribute = attributeOf(node);
        return attribute === null ? unsure() : attribute[wanted];
      }
      case 'and':
        return inTurn(node.args, (arg, rest) => choose(condition(arg, 'truthy'), rest(), false), wanted);
      case 'or':
        return inTurn(node.args, (arg, rest) => either(arg, rest, wanted), wanted);
      case '!':
        return not(condition(node.args[0]!, 'truthy'));
      case '!!':
        return condition(node.args[0]!, 'truthy');
      case 'if':
      case '?:':
        return branches(node.args, wanted);
      case '==':
      case '===':
      case '!=':
      case '!==':
        return equality(node);
      case '<':
      case '<=':
      case '>':
      case '>=':
        return comparison(node, node.operator);
      case 'in':
        return membership(node);
      case 'missing':
        return wanted === 'truthy' ? missing(node) : false;
      default:
        return unsure();
    }
  }

  /** Operands one after another, as far as they are needed: the last one's value is the value of them all. */
  function inTurn(
    args: RuleNode[],
    step: (arg: RuleNode, rest: () => Condition) => Condition,
    wanted: Wanted,
  ): Condition {
    const from = (i: number): Condition =>
      i === args.length - 1 ? condition(args[i]!, wanted) : step(args[i]!, () => from(i + 1));
    return from(0);
  }

  function either(arg: RuleNode, rest: () => Condition, wanted: Wanted): Condition {
    const holds = condition(arg, 'truthy');
    return choose(holds, wanted === 'truthy' || isBoolean(arg) ? true : condition(arg, wanted), rest());
  }

  function branches(args: RuleNode[], wanted: Wanted): Condition {
    const from = (i: number): Condition => {
      if (i >= args.length) return false;
      if (i === args.length - 1) return condition(args[i]!, wanted);
      return choose(condition(args[i]!, 'truthy'), condition(args[i + 1]!, wanted), from(i + 2));
    };
    return from(0);
  }

  /** An attribute of the row and a value known now, in whatever order. */
  function operands(left: RuleNode, right: RuleNode): [Attribute, unknown, attributeFirst: boolean] | null {
    for (const [node, other, first] of [
      [left, right, true],
      [right, left, false],
    ] as const) {
      const attribute = node.kind === 'operator' ? attributeOf(node) : null;
      const constant = attribute && known(other);
      if (!constant) continue;
      reader.steps += 1;
      reader.comparisons += 1;
      return [attribute, constant.value, first];
    }
    return null;
  }

  function equality({ operator, args }: OperatorNode): Condition {
    const found = operands(args[0]!, args[1]!);
    if (!found) return unsure();
    const [attribute, constant] = found;
    const strictly = operator === '===' || operator === '!==';
    const same = strictly ? attribute.equalsStrictly(constant) : attribute.equals(constant);
    if (operator === '==' || operator === '===') return noted(same);
    return comparable(constant) ? noted(choose(attribute.present, not(same), false)) : false;
  }

  function comparison({ args }: OperatorNode, order: Order): Condition {
    const [a, b, c] = args as [RuleNode, RuleNode, RuleNode?];
    const first = between(a, b, order);
    if (c === undefined) return first;
    // All three are evaluated before any are compared.
    const second = between(b, c, order);
    return second === null ? null : choose(first, second, false);
  }

  function between(a: RuleNode, b: RuleNode, order: Order): Condition {
    const [left, right] = [known(a), known(b)];
    if (left && right) return holdsNow(order, left.value, right.value);
    const found = operands(a, b);
    if (!found) return unsure();
    const [attribute, constant, first] = found;
    return noted(attribute.compares(first ? order : flipped[order], constant));
  }

  function holdsNow(order: Order, a: unknown, b: unknown): Condition {
    const meter = newMeter(STEP_BUDGET);
    try {
      if (order === '<') return lessThan(meter, a, b);
      if (order === '<=') return lessOrEqual(meter, a, b);
      return order === '>' ? lessThan(meter, b, a) : lessOrEqual(meter, b, a);
    } catch {
      return unsure();
    } finally {
      reader.steps += STEP_BUDGET - meter.steps;
    }
  }

  function membership({ args }: OperatorNode): Condition {
    const found = operands(args[0]!, args[1]!);
    if (!found) return unsure();
    const [attribute, constant, first] = found;
    if (!first) {
      reader.steps += searching;
      return noted(attribute.holds(constant));
    }
    if (typeof constant === 'string') {
      reader.steps += constant.length >> 8;
      return noted(attribute.isWithin(constant));
    }
    if (!Array.isArray(constant)) return false;
    reader.steps += constant.length;
    return noted(attribute.isAmong(constant));
  }

  function missing({ args }: OperatorNode): Condition {
    const names = args.length === 1 && args[0]!.kind === 'array' ? args[0]!.items : args;
    reader.steps += 2 * names.length;
    const absent = names.map((name): Condition => {
      if (name.kind !== 'literal' || typeof name.value !== 'string' || name.value === '') return unsure();
      const attribute = attributeNamed(name.value);
      if (attribute) return attribute.isAbsent;
      const now = known({ kind: 'operator', path: '', operator: 'missing', args: [name] });
      return now ? truthy(now.value) : unsure();
    });
    return absent.includes(null) ? null : any(absent);
  }

  const noted = (found: Condition): Condition => (found === null ? unsure() : found);

  const attributeOf = (node: OperatorNode): Attribute | null => {
    const path = constantPath(node);
    return path === null ? null : attributeNamed(path);
  };

  /** Null where the name is not one of an attribute that can be asked for in SQL. */
  function attributeNamed(name: string): Attribute | null {
    const [first, ...rest] = name.split('.') as [string, ...string[]];
    const isMemory = context.resource === 'memory';
    if (first === 'memory_type') return isMemory ? textNamed('type', rest) : missingAttribute;
    if (first === 'memory_metadata') return isMemory ? metadataAt(rest) : missingAttribute;
    if (first === 'target_role') return missingAttribute;
    if (first !== 'target' || rest.length === 0) return null;
    const [field, ...further] = rest as [string, ...string[]];
    if (field === 'id' || field === 'owner' || field === 'type') return textNamed(field, further);
    if (field === 'metadata') return metadataAt(further);
    if (field !== 'labels' || !columns.labels) return missingAttribute;
    return further.length === 0 ? null : metadataAt(['labels', ...further]);
  }

  const textNamed = (field: 'id' | 'owner' | 'type', further: string[]): Attribute =>
    further.length > 0
      ? missingAttribute
      : textAttribute(columns[field], field === 'type' ? new Map() : renamed);

  function metadataAt(path: string[]): Attribute | null {
    // A number also leads into a list, where the database and rules do not count alike.
    const isPlain = path.every((name) => isStorable(name) && !/^\s*[-+]?\d/.test(name));
    return path.length > 0 && isPlain ? jsonAttribute(below(columns.metadata, path)) : null;
  }

  return reader;
}

const BOOLEAN = new Set([
  '==',
  '===',
  '!=',
  '!==',
  '<',
  '<=',
  '>',
  '>=',
  '!',
  '!!',
  'in',
  'all',
  'some',
  'none',
]);

/** True when its value can only be true or false. */
function isBoolean(node: RuleNode): boolean {
  if (node.kind !== 'operator') return node.kind === 'literal' && typeof node.value === 'boolean';
  if (node.operator === 'and' || node.operator === 'or') return node.args.every(isBoolean);
  return BOOLEAN.has(node.operator);
}

/**
 * The rows that policies let through, without reading one: true or false of a row only where `decide` says so of it. Fixed
 * beforehand as far as rules do not look at rows.
 */
export function rowsLetThrough(set: PolicySet, builtin: PolicySet, question: RowQuestion): Condition {
  const { role, resource, action } = question.context;
  const byDefault = inOrder(builtin.candidates(role, resource, action).all, false, question);
  return inOrder(set.candidates(role, resource, action).all, byDefault, question);
}

/** The first rule that is true decides; `last` where none is. */
function inOrder(entries: readonly Entry[], last: Condition, question: RowQuestion): Condition {
  let steps = 0;
  let comparisons = 0;
  let found = last;
  for (const { rule, effect } of entries.toReversed()) {
    if (rule === null) {
      found = false;
      continue;
    }
    const read = conditionOf(rule.tree, question);
    steps += read.steps;
    comparisons += read.comparisons;
    if (comparisons > mostComparisons) return null;
    found = effect === 'allow' ? any([read.condition, found]) : all([not(read.condition), found]);
  }
  // All of them together might spend what a decision has.
  return steps < DECISION_STEPS ? found : null;
}
