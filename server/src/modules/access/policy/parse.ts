/** What a rule may not exceed. `depth` counts expressions inside expressions; an operator's argument list is not a level of its own. */
export const RULE_LIMITS = {
  depth: 32,
  nodes: 1_000,
  json_bytes: 64 * 1024,
  string_bytes: 4 * 1024,
} as const;

/** The rule as a tree. `path` is the JSON Pointer (RFC 6901) of the node inside the rule. */
export type RuleNode =
  | { kind: 'literal'; path: string; value: string | number | boolean | null }
  | { kind: 'array'; path: string; items: RuleNode[] }
  | { kind: 'operator'; path: string; operator: Operator; args: RuleNode[] };

export type OperatorNode = Extract<RuleNode, { kind: 'operator' }>;

/** Fewest and most arguments of each operator. */
const ARITY = {
  var: [0, 2],
  missing: [0, Infinity],
  missing_some: [2, 2],
  if: [0, Infinity],
  '?:': [0, Infinity],
  '==': [2, 2],
  '===': [2, 2],
  '!=': [2, 2],
  '!==': [2, 2],
  '!': [1, 1],
  '!!': [1, 1],
  or: [1, Infinity],
  and: [1, Infinity],
  '>': [2, 3],
  '>=': [2, 3],
  '<': [2, 3],
  '<=': [2, 3],
  max: [1, Infinity],
  min: [1, Infinity],
  '+': [1, Infinity],
  '-': [1, 2],
  '*': [1, Infinity],
  '/': [2, 2],
  '%': [2, 2],
  map: [2, 2],
  reduce: [2, 3],
  filter: [2, 2],
  all: [2, 2],
  none: [2, 2],
  some: [2, 2],
  merge: [0, Infinity],
  in: [2, 2],
  cat: [0, Infinity],
  substr: [2, 3],
} as const;

export type Operator = keyof typeof ARITY;
export const OPERATORS = Object.keys(ARITY) as Operator[];

const FORBIDDEN_NAMES = new Set(['__proto__', 'prototype', 'constructor']);

export type RuleErrorCode =
  | 'not_json'
  | 'not_an_expression'
  | 'unknown_operator'
  | 'wrong_arity'
  | 'forbidden_name'
  | 'too_deep'
  | 'too_many_nodes'
  | 'too_large';

/** Why a rule was refused: `path` is a JSON Pointer into the rule (`/and/0/==`), `code` is permanent. */
export class RuleError extends Error {
  readonly path: string;
  readonly code: RuleErrorCode;
  constructor(path: string, code: RuleErrorCode, message: string) {
    super(message);
    this.name = 'RuleError';
    this.path = path;
    this.code = code;
  }
}

/** Checks a rule against the grammar and `RULE_LIMITS`. Throws `RuleError`; reads no accessor and calls no code of the rule's. */
export function parseRule(rule: unknown): RuleNode {
  const count = { nodes: 0 };
  const tree = parseNode(rule, '', 1, count);
  const bytes = Buffer.byteLength(JSON.stringify(rule));
  if (bytes > RULE_LIMITS.json_bytes) {
    throw new RuleError(
      '',
      'too_large',
      `The rule is ${bytes} bytes of JSON; at most ${RULE_LIMITS.json_bytes} are allowed.`,
    );
  }
  return tree;
}

/** True for the names through which JavaScript objects reach their prototypes. */
export function isForbiddenName(name: string): boolean {
  return FORBIDDEN_NAMES.has(name);
}

function parseNode(value: unknown, path: string, depth: number, count: { nodes: number }): RuleNode {
  tick(path, count);
  if (depth > RULE_LIMITS.depth) {
    throw new RuleError(path, 'too_deep', `The rule nests deeper than ${RULE_LIMITS.depth} expressions.`);
  }
  if (value === null || typeof value === 'boolean') return { kind: 'literal', path, value };
  if (typeof value === 'string') return { kind: 'literal', path, value: checkString(value, path) };
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new RuleError(path, 'not_json', `${value} is not a JSON number.`);
    return { kind: 'literal', path, value };
  }
  if (Array.isArray(value)) {
    const items = elements(value, path).map((item, i) => parseNode(item, `${path}/${i}`, depth + 1, count));
    return { kind: 'array', path, items };
  }
  if (typeof value === 'object') return parseOperator(value, path, depth, count);
  throw new RuleError(path, 'not_json', `A value of type ${typeof value} is not JSON.`);
}

function parseOperator(value: object, path: string, depth: number, count: { nodes: number }): RuleNode {
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw new RuleError(path, 'not_json', 'Only plain objects are JSON.');
  }
  const keys = Reflect.ownKeys(value);
  const name = keys[0];
  if (keys.length !== 1 || typeof name !== 'string') {
    const found = `this one has ${keys.length}`;
    throw new RuleError(
      path,
      'not_an_expression',
      `An object in a rule is an operator with its arguments and has exactly one key; ${found}.`,
    );
  }
  const at = `${path}/${escapePointer(name)}`;
  const operator = operatorNamed(name, at);
  const raw = ownData(value, name, at);
  const list = Array.isArray(raw);
  if (list) tick(at, count);
  const given = list ? elements(raw, at) : [raw];
  checkArity(operator, given.length, at);
  const args = given.map((arg, i) => parseNode(arg, list ? `${at}/${i}` : at, depth + 1, count));
  checkNames(operator, args);
  return { kind: 'operator', path: at, operator, args };
}

function operatorNamed(name: string, path: string): Operator {
  if (Object.hasOwn(ARITY, name)) return name as Operator;
  const shown = JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name);
  if (FORBIDDEN_NAMES.has(name))
    throw new RuleError(path, 'forbidden_name', `${shown} may not be used as an operator.`);
  if (name === 'log')
    throw new RuleError(
      path,
      'unknown_operator',
      'The operator "log" has a side effect and is not allowed in a policy.',
    );
  throw new RuleError(
    path,
    'unknown_operator',
    `There is no operator ${shown}. Known: ${OPERATORS.join(' ')}.`,
  );
}

function checkArity(operator: Operator, given: number, path: string): void {
  const [least, most] = ARITY[operator];
  if (given >= least && given <= most) return;
  const wanted =
    most === Infinity ? `at least ${least}` : least === most ? `${least}` : `${least} to ${most}`;
  throw new RuleError(
    path,
    'wrong_arity',
    `The operator "${operator}" takes ${wanted} argument(s), ${given} given.`,
  );
}

function checkNames(operator: Operator, args: RuleNode[]): void {
  if (operator === 'var') for (const arg of args.slice(0, 1)) checkName(operator, arg);
  if (operator === 'missing') for (const arg of args) checkName(operator, arg);
  if (operator === 'missing_some') for (const arg of args.slice(1)) checkName(operator, arg);
}

function checkName(operator: Operator, node: RuleNode): void {
  if (node.kind === 'array') for (const item of node.items) checkName(operator, item);
  if (node.kind !== 'literal' || typeof node.value !== 'string') return;
  for (const name of node.value.split('.')) {
    if (FORBIDDEN_NAMES.has(name)) {
      throw new RuleError(node.path, 'forbidden_name', `The operator "${operator}" may not name "${name}".`);
    }
  }
}

/** The elements of a dense, plain JSON array; anything else (holes, accessors, extra properties) is refused. */
function elements(list: unknown[], path: string): unknown[] {
  if (list.length > RULE_LIMITS.nodes) throw tooMany(path);
  if (Object.getPrototypeOf(list) !== Array.prototype || Reflect.ownKeys(list).length !== list.length + 1) {
    throw new RuleError(path, 'not_json', 'Only plain arrays without holes or extra properties are JSON.');
  }
  return Array.from({ length: list.length }, (_, i) => ownData(list, String(i), `${path}/${i}`));
}

function ownData(holder: object, key: string, path: string): unknown {
  const property = Object.getOwnPropertyDescriptor(holder, key);
  if (property && 'value' in property && property.enumerable) return property.value;
  throw new RuleError(path, 'not_json', 'Accessors and hidden properties are not JSON.');
}

function checkString(text: string, path: string): string {
  if (Buffer.byteLength(text) <= RULE_LIMITS.string_bytes) return text;
  throw new RuleError(
    path,
    'too_large',
    `A string in a rule may have at most ${RULE_LIMITS.string_bytes} bytes.`,
  );
}

function tick(path: string, count: { nodes: number }): void {
  count.nodes += 1;
  if (count.nodes > RULE_LIMITS.nodes) throw tooMany(path);
}

function tooMany(path: string): RuleError {
  return new RuleError(path, 'too_many_nodes', `The rule has more than ${RULE_LIMITS.nodes} values.`);
}

function escapePointer(name: string): string {
  return name.slice(0, 64).replaceAll('~', '~0').replaceAll('/', '~1');
}
