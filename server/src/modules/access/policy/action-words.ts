import { constantPath } from './operators.ts';
import type { OperatorNode, RuleNode } from './parse.ts';

/**
 * The two words that Manushya.ai's policies and scopes use for kinds of action. In a rule that compares `action` with
 * one of them, it stands for all of its kind.
 */
export const ACTION_WORDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['read', ['read', 'list', 'search']],
  ['write', ['write', 'create', 'update', 'delete', 'reindex', 'cancel']],
]);

const EQUAL = new Set(['==', '===']);
const UNEQUAL = new Set(['!=', '!==']);
/** Inside these the body (second argument) sees an element, not the context. */
const ITERATIONS = new Set(['map', 'filter', 'reduce', 'all', 'some', 'none']);

/** Spells `read` and `write` out wherever a rule compares the action with constants. */
export function spellOutActions(node: RuleNode): RuleNode {
  if (node.kind === 'literal') return node;
  if (node.kind === 'array') return { ...node, items: node.items.map(spellOutActions) };
  const { operator, args } = node;
  if (EQUAL.has(operator) || UNEQUAL.has(operator)) return comparison(node);
  if (operator === 'in' && constantPath(args[0]!) === 'action' && args[1]!.kind === 'array')
    return { ...node, args: [args[0]!, { ...args[1]!, items: args[1]!.items.flatMap(actionsOf) }] };
  return {
    ...node,
    args: args.map((arg, i) => (i === 1 && ITERATIONS.has(operator) ? arg : spellOutActions(arg))),
  };
}

function comparison(node: OperatorNode): RuleNode {
  const [left, right] = node.args as [RuleNode, RuleNode];
  const [name, constant] = constantPath(left) === 'action' ? [left, right] : [right, left];
  const actions = constantPath(name) === 'action' ? actionsOf(constant) : [];
  if (actions.length < 2) return { ...node, args: node.args.map(spellOutActions) };
  const items: RuleNode = { kind: 'array', path: constant.path, items: actions };
  const among: RuleNode = { kind: 'operator', path: node.path, operator: 'in', args: [name, items] };
  return EQUAL.has(node.operator) ? among : { ...node, operator: '!', args: [among] };
}

function actionsOf(node: RuleNode): RuleNode[] {
  const words = node.kind === 'literal' ? ACTION_WORDS.get(String(node.value)) : undefined;
  return words?.map((value) => ({ kind: 'literal', path: node.path, value })) ?? [node];
}
