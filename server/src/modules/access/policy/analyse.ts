import { constantPath } from './operators.ts';
import type { OperatorNode, RuleNode } from './parse.ts';

/**
 * Attributes of which a rule can only match particular strings: path -> those strings. A rule whose guards
 * do not hold can not evaluate to `true`, so it need not be looked at.
 */
export type Guards = ReadonlyMap<string, ReadonlySet<string>>;

const NO_GUARDS: Guards = new Map();

/** Finds a rule's guards: `==`, `===` and `in` between a `var` and constant strings, through `and` and `or`. */
export function guardsOf(node: RuleNode): Guards {
  if (node.kind !== 'operator') return NO_GUARDS;
  switch (node.operator) {
    case 'and':
      return node.args.map(guardsOf).reduce(both);
    case 'or':
      return node.args.map(guardsOf).reduce(either);
    case '==':
    case '===':
      return equalityGuard(node);
    case 'in':
      return membershipGuard(node);
    default:
      return NO_GUARDS;
  }
}

function equalityGuard(node: OperatorNode): Guards {
  // A third operand is refused by the parser, so there are exactly two, in either order.
  const [left, right] = node.args as [RuleNode, RuleNode];
  const path = constantPath(left) ?? constantPath(right);
  const constant = left.kind === 'literal' ? left.value : right.kind === 'literal' ? right.value : null;
  return path !== null && typeof constant === 'string' ? new Map([[path, new Set([constant])]]) : NO_GUARDS;
}

function membershipGuard(node: OperatorNode): Guards {
  const [item, list] = node.args as [RuleNode, RuleNode];
  const path = constantPath(item);
  if (path === null || list.kind !== 'array') return NO_GUARDS;
  const values = new Set<string>();
  for (const entry of list.items) {
    if (entry.kind !== 'literal' || typeof entry.value !== 'string') return NO_GUARDS;
    values.add(entry.value);
  }
  return new Map([[path, values]]);
}

function both(a: Guards, b: Guards): Guards {
  const merged = new Map(a);
  for (const [path, values] of b) {
    const known = merged.get(path);
    merged.set(path, known ? new Set([...known].filter((value) => values.has(value))) : values);
  }
  return merged;
}

function either(a: Guards, b: Guards): Guards {
  const merged = new Map<string, ReadonlySet<string>>();
  for (const [path, values] of a) {
    const other = b.get(path);
    if (other) merged.set(path, new Set([...values, ...other]));
  }
  return merged;
}

/** Stands for "could read anything": a computed name, or the whole context. */
export const ANY_ATTRIBUTE = '*';

/** Stands for "only whether it is the caller's own". */
export const OWN = 'target.own';

/** The dotted names of the context that a rule reads (`target.metadata.client`), or `ANY_ATTRIBUTE` among them. */
export function readsOf(node: RuleNode): ReadonlySet<string> {
  const found = new Set<string>();
  collect(node, found);
  return found;
}

/** Inside these the body (second argument) sees an element, not the context. */
const ITERATIONS = new Set(['map', 'filter', 'reduce', 'all', 'some', 'none']);

function collect(node: RuleNode, found: Set<string>): void {
  if (node.kind === 'literal') return;
  if (node.kind === 'array') {
    for (const item of node.items) collect(item, found);
    return;
  }
  const { operator, args } = node;
  if (asksWhose(node)) {
    found.add(OWN).add('identity_id');
    return;
  }
  if (operator === 'var' && args.length === 0) found.add(ANY_ATTRIBUTE);
  for (const name of namesOf(node)) found.add(nameIn(name) ?? ANY_ATTRIBUTE);
  for (const arg of contextArgs(node)) collect(arg, found);
}

/** The arguments by which an operator names attributes, of lists each element. */
export const namesOf = ({ operator, args }: OperatorNode): RuleNode[] =>
  each(
    operator === 'var'
      ? args.slice(0, 1)
      : operator === 'missing'
        ? args
        : operator === 'missing_some'
          ? args.slice(1)
          : [],
  );

const each = (names: RuleNode[]): RuleNode[] =>
  names.flatMap((name) => (name.kind === 'array' ? each(name.items) : [name]));

/** The attribute an argument names; null for the whole context, and for a name that is computed. */
export const nameIn = (node: RuleNode): string | null =>
  node.kind !== 'literal' || node.value === null || node.value === '' ? null : String(node.value);

/** The arguments that see the context; the body of an iteration sees an element. */
export const contextArgs = ({ operator, args }: OperatorNode): RuleNode[] =>
  args.filter((_, i) => i !== 1 || !ITERATIONS.has(operator));

const ASKERS = new Set(['identity_id', 'identity.id']);
const OWNERS = new Set(['target.owner', 'target.id']);

/** True for a comparison that only asks whether the row is the caller's own: the owner's name does not matter to it. */
function asksWhose({ operator, args }: OperatorNode): boolean {
  if (!/^[!=]==?$/.test(operator)) return false;
  const [a, b] = args.map(constantPath) as [string | null, string | null];
  return (OWNERS.has(a!) && ASKERS.has(b!)) || (OWNERS.has(b!) && ASKERS.has(a!));
}
