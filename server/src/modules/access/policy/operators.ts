import type { Operator, OperatorNode, RuleNode } from './parse.ts';
import { isForbiddenName } from './parse.ts';
import {
  comparable,
  lessOrEqual,
  lessThan,
  limitSize,
  looseEquals,
  type Meter,
  ownValue,
  parseNumber,
  readPath,
  spend,
  strictEquals,
  toNumber,
  toText,
  truthy,
} from './values.ts';

/** A compiled expression: spends from the meter, reads the data, returns a JSON value or `undefined` for "missing". */
export type Run = (meter: Meter, data: unknown) => unknown;
/** Wraps each operator's closure; the trace uses it to see every value. */
export type Wrap = (node: OperatorNode, run: Run) => Run;

/** Compiles a tree to closures. Each operator spends one step when it runs, an iteration one more an element. */
export function buildRun(node: RuleNode, wrap?: Wrap): Run {
  const build = (child: RuleNode): Run => {
    if (child.kind === 'literal') {
      const { value } = child;
      return () => value;
    }
    if (child.kind === 'array') return arrayOf(child.items.map(build));
    if (wrap) return wrap(child, metered(BUILDERS[child.operator](child.args.map(build), child)));
    return plainComparison(child) ?? metered(BUILDERS[child.operator](child.args.map(build), child));
  };
  return build(node);
}

/** The constant attribute path an expression reads (`identity.claims.team`), or null when it is not a plain `var` without default. */
export function constantPath(node: RuleNode): string | null {
  if (node.kind !== 'operator' || node.operator !== 'var' || node.args.length !== 1) return null;
  const name = node.args[0];
  return name?.kind === 'literal' && typeof name.value === 'string' && name.value !== '' ? name.value : null;
}

type Builder = (args: Run[], node: OperatorNode) => Run;
type Compare = (meter: Meter, a: unknown, b: unknown) => boolean;

const missingValue: Run = () => undefined;
const nullValue: Run = () => null;

function metered(run: Run): Run {
  return (meter, data) => {
    spend(meter, 1);
    return run(meter, data);
  };
}

function arrayOf(items: Run[]): Run {
  return (meter, data) => {
    spend(meter, items.length);
    return items.map((item) => item(meter, data));
  };
}

const variable: Builder = ([name, fallback = missingValue], node) => {
  const first = node.args[0];
  if (!name || !first) return (_meter, data) => readPath(data, []);
  if (first.kind === 'literal') {
    const segments = segmentsOf(first.value);
    if (segments === null) return fallback;
    return segments.length === 0 ? (_meter, data) => readPath(data, []) : constantRead(segments, fallback);
  }
  return (meter, data) => {
    const value = readNamed(data, name(meter, data));
    return value === undefined ? fallback(meter, data) : value;
  };
};

const ABSENT = Symbol('absent');

/** A dotted name as the engine keeps names of properties: one text for all rules, so that looking it up compares no letters. */
const nameOf = (segments: readonly string[]): string => Object.keys({ [segments.join('.')]: 0 })[0]!;

/** Reads a path; what a thousand rules of one decision look at is read once. */
function readOnce(meter: Meter, data: unknown, name: string, segments: readonly string[]): unknown {
  if (meter.seen === undefined || data !== meter.root) return readPath(data, segments);
  const seen = meter.seen.get(name);
  if (seen !== undefined) return seen === ABSENT ? undefined : seen;
  const value = readPath(data, segments);
  meter.seen.set(name, value === undefined ? ABSENT : value);
  return value;
}

function constantRead(segments: readonly string[], fallback: Run): Run {
  const name = nameOf(segments);
  return (meter, data) => {
    const value = readOnce(meter, data, name, segments);
    return value === undefined ? fallback(meter, data) : value;
  };
}

/** An attribute compared with a constant, which most rules are made of, in one closure: each more costs as much as the comparison. */
function plainComparison({ operator, args }: OperatorNode): Run | undefined {
  const holds = COMPARISONS[operator as keyof typeof COMPARISONS];
  const [left, right, third] = args;
  if (!holds || third) return undefined;
  const [path, other] = [
    constantPath(left!) ?? constantPath(right!),
    constantPath(left!) === null ? left! : right!,
  ];
  const segments = path === null ? null : segmentsOf(path);
  if (!segments || other.kind !== 'literal') return undefined;
  const name = nameOf(segments);
  const { value: constant } = other;
  const first = other === right;
  // One step for the comparison and one for the attribute.
  return (meter, data) => {
    spend(meter, 2);
    const value = readOnce(meter, data, name, segments);
    return first ? holds(meter, value, constant) : holds(meter, constant, value);
  };
}

const MAX_COMPUTED_NAME = 1_024;

/** The hops of a dotted name; the empty name is the whole context; null is a name that can not exist. */
function segmentsOf(name: unknown): readonly string[] | null {
  if (name === null || name === '') return [];
  if (typeof name === 'number') return String(name).split('.');
  if (typeof name !== 'string' || name.length > MAX_COMPUTED_NAME) return null;
  const segments = name.split('.');
  return segments.some(isForbiddenName) ? null : segments;
}

/** The attribute of that dotted name, `undefined` when missing. */
export function readNamed(data: unknown, name: unknown): unknown {
  const segments = segmentsOf(name);
  return segments === null ? undefined : readPath(data, segments);
}

function missingAmong(meter: Meter, data: unknown, names: unknown[]): unknown[] {
  spend(meter, names.length);
  return names.filter((name) => {
    const value = readNamed(data, name);
    return value === undefined || value === null || value === '';
  });
}

const missing: Builder = (args) => (meter, data) => {
  const names = args.map((arg) => arg(meter, data));
  return missingAmong(meter, data, Array.isArray(names[0]) ? names[0] : names);
};

const missingSome: Builder =
  ([need, options]) =>
  (meter, data) => {
    const wanted = toNumber(meter, need!(meter, data));
    const given = options!(meter, data);
    const names = Array.isArray(given) ? given : [given];
    const absent = missingAmong(meter, data, names);
    return names.length - absent.length >= wanted ? [] : absent;
  };

const conditional: Builder = (args) => (meter, data) => {
  let i = 0;
  for (; i + 1 < args.length; i += 2) {
    if (truthy(args[i]!(meter, data))) return args[i + 1]!(meter, data);
  }
  return i < args.length ? args[i]!(meter, data) : null;
};

const and: Builder = (args) => (meter, data) => {
  let value: unknown;
  for (const arg of args) {
    value = arg(meter, data);
    if (!truthy(value)) return value;
  }
  return value;
};

const or: Builder = (args) => (meter, data) => {
  let value: unknown;
  for (const arg of args) {
    value = arg(meter, data);
    if (truthy(value)) return value;
  }
  return value;
};

/** Two operands, or three for "between": the second must stand in the relation to both neighbours. */
function compareWith(holds: Compare): Builder {
  return ([first, second, third]) =>
    (meter, data) => {
      const a = first!(meter, data);
      const b = second!(meter, data);
      if (!third) return holds(meter, a, b);
      const c = third(meter, data);
      return holds(meter, a, b) && holds(meter, b, c);
    };
}

function differs(same: Compare): Compare {
  return (meter, a, b) => comparable(a) && comparable(b) && !same(meter, a, b);
}

const strict: Compare = (_meter, a, b) => strictEquals(a, b);

const membership: Compare = (meter, item, holder) => {
  if (item === undefined || holder === '') return false;
  if (typeof holder === 'string') {
    spend(meter, holder.length >> 8);
    return holder.includes(toText(meter, item));
  }
  if (!Array.isArray(holder)) return false;
  spend(meter, holder.length);
  for (let i = 0; i < holder.length; i++) {
    if (ownValue(holder, String(i)) === item) return true;
  }
  return false;
};

/** A literal list is by far the most common right side of `in`; a Set makes it one look-up. */
const isIn: Builder = (args, node) => {
  const list = node.args[1]!;
  if (list.kind !== 'array' || !list.items.every((item) => item.kind === 'literal')) {
    return compareWith(membership)(args, node);
  }
  const values = new Set<unknown>(list.items.map((item) => (item.kind === 'literal' ? item.value : null)));
  return (meter, data) => {
    const item = args[0]!(meter, data);
    return item !== undefined && !Number.isNaN(item) && values.has(item);
  };
};

/** Arithmetic on a missing attribute is itself missing, so it can not satisfy a comparison further up. */
function arithmetic(combine: (meter: Meter, values: unknown[]) => number): Builder {
  return (args) => (meter, data) => {
    const values = args.map((arg) => arg(meter, data));
    return values.includes(undefined) ? undefined : combine(meter, values);
  };
}

const number = (meter: Meter) => (value: unknown) => toNumber(meter, value);

/** The elements an iteration runs over, paid for in advance; what is not a list has none. */
function listOf(meter: Meter, value: unknown): unknown[] {
  if (!Array.isArray(value)) return [];
  spend(meter, value.length);
  return Array.from({ length: value.length }, (_, i) => ownValue(value, String(i)));
}

const map: Builder =
  ([source, body]) =>
  (meter, data) => {
    return listOf(meter, source!(meter, data)).map((item) => body!(meter, item));
  };

const filter: Builder =
  ([source, body]) =>
  (meter, data) => {
    return listOf(meter, source!(meter, data)).filter((item) => truthy(body!(meter, item)));
  };

const reduce: Builder =
  ([source, body, initial = nullValue]) =>
  (meter, data) => {
    const list = listOf(meter, source!(meter, data));
    let accumulator = initial(meter, data);
    for (const current of list) accumulator = body!(meter, { current, accumulator });
    return accumulator;
  };

const all: Builder =
  ([source, body]) =>
  (meter, data) => {
    const list = listOf(meter, source!(meter, data));
    return list.length > 0 && list.every((item) => truthy(body!(meter, item)));
  };

const some: Builder =
  ([source, body]) =>
  (meter, data) => {
    return listOf(meter, source!(meter, data)).some((item) => truthy(body!(meter, item)));
  };

const none: Builder = (args, node) => {
  const any = some(args, node);
  return (meter, data) => !any(meter, data);
};

const merge: Builder = (args) => (meter, data) => {
  const merged: unknown[] = [];
  for (const arg of args) {
    const value = arg(meter, data);
    if (Array.isArray(value)) merged.push(...listOf(meter, value));
    else merged.push(value);
  }
  return merged;
};

const cat: Builder = (args) => (meter, data) => {
  let text = '';
  for (const arg of args) {
    const value = arg(meter, data);
    if (value === undefined) return undefined;
    if (value !== null) text += toText(meter, value);
    limitSize(text.length);
  }
  spend(meter, text.length >> 8);
  return text;
};

const substr: Builder =
  ([source, start, count]) =>
  (meter, data) => {
    const given = source!(meter, data);
    const from = start!(meter, data);
    const length = count ? count(meter, data) : null;
    if (given === undefined || from === undefined || length === undefined) return undefined;
    const text = toText(meter, given);
    const offset = Math.trunc(toNumber(meter, from)) || 0;
    const rest = text.slice(offset < 0 ? Math.max(text.length + offset, 0) : offset);
    if (!count) return rest;
    const wanted = Math.trunc(toNumber(meter, length)) || 0;
    return wanted < 0 ? rest.slice(0, Math.max(rest.length + wanted, 0)) : rest.slice(0, wanted);
  };

const COMPARISONS = {
  '==': looseEquals,
  '===': strict,
  '!=': differs(looseEquals),
  '!==': differs(strict),
  '>': (meter: Meter, a: unknown, b: unknown) => lessThan(meter, b, a),
  '>=': (meter: Meter, a: unknown, b: unknown) => lessOrEqual(meter, b, a),
  '<': lessThan,
  '<=': lessOrEqual,
} satisfies Partial<Record<Operator, Compare>>;

const BUILDERS: Record<Operator, Builder> = {
  var: variable,
  missing,
  missing_some: missingSome,
  if: conditional,
  '?:': conditional,
  '==': compareWith(COMPARISONS['==']),
  '===': compareWith(COMPARISONS['===']),
  '!=': compareWith(COMPARISONS['!=']),
  '!==': compareWith(COMPARISONS['!==']),
  '!':
    ([arg]) =>
    (meter, data) =>
      !truthy(arg!(meter, data)),
  '!!':
    ([arg]) =>
    (meter, data) =>
      truthy(arg!(meter, data)),
  or,
  and,
  '>': compareWith(COMPARISONS['>']),
  '>=': compareWith(COMPARISONS['>=']),
  '<': compareWith(COMPARISONS['<']),
  '<=': compareWith(COMPARISONS['<=']),
  max: arithmetic((meter, values) => Math.max(...values.map(number(meter)))),
  min: arithmetic((meter, values) => Math.min(...values.map(number(meter)))),
  '+': arithmetic((meter, values) =>
    values.reduce<number>((sum, value) => sum + parseNumber(meter, value), 0),
  ),
  '*': arithmetic((meter, values) =>
    values.reduce<number>((product, value) => product * parseNumber(meter, value), 1),
  ),
  '-': arithmetic((meter, values) => {
    const [a, b] = values.map(number(meter));
    return b === undefined ? -a! : a! - b;
  }),
  '/': arithmetic((meter, [a, b]) => toNumber(meter, a) / toNumber(meter, b)),
  '%': arithmetic((meter, [a, b]) => toNumber(meter, a) % toNumber(meter, b)),
  map,
  filter,
  reduce,
  all,
  none,
  some,
  merge,
  in: isIn,
  cat,
  substr,
};
