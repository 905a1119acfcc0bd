import type { FieldProblem } from '#platform/errors.ts';
import { isSlip, nearest } from '#platform/nearest.ts';
import { ACTION_WORDS } from './action-words.ts';
import { contextArgs, guardsOf, nameIn, namesOf } from './analyse.ts';
import { RESOURCE_ACTIONS } from './builtin.ts';
import { constantPath } from './operators.ts';
import type { OperatorNode, RuleNode } from './parse.ts';

/** What rules read, as `PolicyContext` has it. Below those that end in `.*` every name may stand. */
export const ATTRIBUTES: readonly string[] = [
  'role', 'action', 'resource', 'tenant_id',
  'identity', 'identity.id', 'identity.external_id', 'identity.role', 'identity.claims', 'identity.claims.*',
  'identity_id', 'external_id', 'claims', 'claims.*',
  'target', 'target.id', 'target.owner', 'target.type', 'target.role',
  'target.labels', 'target.labels.*', 'target.metadata', 'target.metadata.*',
  'memory_type', 'memory_metadata', 'memory_metadata.*', 'target_role',
  'agent', 'agent.id', 'agent.external_id', 'agent.role',
  'request', 'request.method', 'request.path', 'request.ip', 'request.time', 'request.weekday', 'request.route_class',
  'authzen', 'authzen.*',
]; // biome-ignore format: a list

const closed = new Set(ATTRIBUTES.filter((name) => !name.endsWith('.*')));
const open = ATTRIBUTES.filter((name) => name.endsWith('.*')).map((name) => name.slice(0, -1));

/** How other policy languages call the parts of a question. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  principal: 'identity',
  subject: 'identity',
  user: 'identity',
  actor: 'identity',
  resource: 'target',
  object: 'target',
  context: 'request',
  environment: 'request',
};

const isAttribute = (name: string): boolean => closed.has(name) || open.some((bag) => name.startsWith(bag));

const quoted = (names: string[]): string => names.map((name) => JSON.stringify(name)).join(', ');
const shown = (name: string): string => JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name);

/** What is wrong with the name of an attribute; undefined for one that exists. */
export function attributeProblem(name: string): string | undefined {
  if (isAttribute(name)) return undefined;
  const [first = '', ...rest] = name.split('.');
  const ours = Object.hasOwn(OTHER_NAMES, first) && rest.length > 0 ? OTHER_NAMES[first]! : first;
  const near = nearest([ours, ...rest].join('.'), closed);
  return `names no attribute: there is no ${shown(name)}. Nearest: ${quoted(near)}`;
}

const RESOURCES = Object.keys(RESOURCE_ACTIONS);
const actionsOf = (resources: Iterable<string>): Set<string> =>
  new Set([...resources].flatMap((name) => RESOURCE_ACTIONS[name as keyof typeof RESOURCE_ACTIONS] ?? []));
const ACTIONS = [...new Set([...actionsOf(RESOURCES), ...ACTION_WORDS.keys()])];

/** What a rule names that is not there: refused where it can only be a slip, else worth a word. */
export interface NameFindings {
  errors: FieldProblem[];
  warnings: FieldProblem[];
  /** Roles it compares with, each with its place: whether a role exists the tenant knows. */
  roles: { path: string; role: string }[];
}

const ROLES = new Set(['role', 'identity.role', 'agent.role', 'target_role']);
const COMPARISONS = new Set(['==', '===', '!=', '!==', 'in']);

/**
 * Looks for what a rule names. An attribute that does not exist is an error. So is a resource or action that is a slip of
 * one of ours, unless the rule reads `authzen`: other applications ask about things of their own by any name.
 */
export function namesIn(tree: RuleNode): NameFindings {
  const operators = [...operatorsIn(tree)];
  const named = operators.flatMap(namesOf);
  const errors = named.flatMap((node) => {
    const name = nameIn(node);
    const message = name === null ? undefined : attributeProblem(name);
    return message === undefined ? [] : [{ path: node.path, message }];
  });
  const compared = operators.flatMap(comparedWith);
  const roles = compared.filter(({ of }) => ROLES.has(of)).map(({ path, value }) => ({ path, role: value }));
  const findings: NameFindings = { errors, warnings: [], roles };
  if (named.some((node) => nameIn(node)?.split('.', 1)[0] === 'authzen')) return findings;
  const bound = [...(guardsOf(tree).get('resource') ?? [])];
  const possible =
    bound.length > 0 && bound.every((name) => RESOURCES.includes(name)) ? actionsOf(bound) : undefined;
  for (const { of, path, value } of compared) {
    if (of === 'resource') sort(findings, path, problemOfName('resource', value, RESOURCES));
    if (of !== 'action') continue;
    const problem = problemOfName('action', value, ACTIONS);
    if (problem) sort(findings, path, problem);
    else if (possible && !possible.has(value) && !ACTION_WORDS.has(value))
      findings.warnings.push({
        path,
        message: `is never done to ${quoted(bound)}, only ${quoted([...possible])}`,
      });
  }
  return findings;
}

interface NameProblem {
  slip: boolean;
  message: string;
}

const FOREIGN = 'Only what another application asks by AuthZEN can match';

function problemOfName(
  kind: 'resource' | 'action',
  name: string,
  known: readonly string[],
): NameProblem | undefined {
  if (known.includes(name)) return undefined;
  const near = quoted(nearest(name, known));
  const slip = isSlip(name, known);
  const advice = slip
    ? `Where it is one of another application that asks by AuthZEN, let the rule read "authzen" as well`
    : FOREIGN;
  return {
    slip,
    message: `is no ${kind} of this server: there is no ${shown(name)}. Nearest: ${near}. ${advice}`,
  };
}

function sort({ errors, warnings }: NameFindings, path: string, problem: NameProblem | undefined): void {
  if (problem) (problem.slip ? errors : warnings).push({ path, message: problem.message });
}

/** What is wrong with the names of a question somebody describes: of a slip an error, else a warning. */
export function namesAsked(asked: { resource: string; action: string }, at = ''): NameFindings {
  const findings: NameFindings = { errors: [], warnings: [], roles: [] };
  sort(findings, `${at}/resource`, problemOfName('resource', asked.resource, RESOURCES));
  sort(findings, `${at}/action`, problemOfName('action', asked.action, ACTIONS));
  return findings;
}

function* operatorsIn(node: RuleNode): Generator<OperatorNode> {
  if (node.kind === 'array') for (const item of node.items) yield* operatorsIn(item);
  if (node.kind !== 'operator') return;
  yield node;
  for (const arg of contextArgs(node)) yield* operatorsIn(arg);
}

/** The constant texts an operator compares an attribute with. */
function comparedWith({ operator, args }: OperatorNode): { of: string; path: string; value: string }[] {
  if (!COMPARISONS.has(operator)) return [];
  const [left, right] = args as [RuleNode, RuleNode];
  const of = constantPath(left) ?? (operator === 'in' ? null : constantPath(right));
  if (of === null) return [];
  const constants = [left, right].flatMap((node) => (node.kind === 'array' ? node.items : [node]));
  return constants.flatMap(({ path, ...node }) =>
    node.kind === 'literal' && typeof node.value === 'string' ? [{ of, path, value: node.value }] : [],
  );
}
