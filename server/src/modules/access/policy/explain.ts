import type { CompiledRule, Evaluation } from './compile.ts';
import { evaluateRun, STEP_BUDGET } from './compile.ts';
import { buildRun } from './operators.ts';
import type { Operator, OperatorNode, RuleNode } from './parse.ts';
import { newMeter, truthy } from './values.ts';

/** Bounds of one explanation; values beyond them are cut and marked with `…`. */
const TRACE_LIMITS = { entries: 200, characters: 16_384, string: 200, items: 20, nesting: 3 } as const;

export type TraceEntry = {
  /** JSON Pointer of the expression inside the rule, `/and/0/==`. */
  path: string;
  operator: Operator | 'literal';
  /** What it came out as; null when missing. Cut to a readable size. */
  value: unknown;
  /** True when the value is that of an attribute the context does not have. */
  missing?: true;
  /** What a comparison compared. */
  operands?: unknown[];
};

export type Explanation = Evaluation & {
  matched: boolean;
  /** Every expression that ran, innermost first; an iteration's body appears once an element. */
  trace: TraceEntry[];
  /** True when more ran than `trace` holds. */
  truncated: boolean;
  /** Why the rule is not `true`: the innermost expression to blame, or the one in which the run was stopped. */
  failed: TraceEntry | null;
};

const COMPARISONS = new Set<Operator>(['==', '===', '!=', '!==', '<', '<=', '>', '>=', 'in']);

type Recorder = {
  values: Map<string, unknown>;
  unfinished: OperatorNode[];
  trace: TraceEntry[];
  truncated: boolean;
  room: { characters: number };
};

/** Runs a rule once more with every sub-expression recorded. Never throws; the answer's size is bounded. */
export function explain(rule: CompiledRule, context: unknown): Explanation {
  const room = { characters: TRACE_LIMITS.characters };
  const recorder: Recorder = { values: new Map(), unfinished: [], trace: [], truncated: false, room };
  const run = buildRun(rule.tree, (node, inner) => (meter, data) => {
    recorder.unfinished.push(node);
    const value = inner(meter, data);
    recorder.unfinished.pop();
    record(recorder, node, value);
    return value;
  });
  const evaluation = evaluateRun(run, context, newMeter(STEP_BUDGET));
  const matched = evaluation.value === true;
  const stopped = recorder.unfinished.at(-1);
  // The verdict is described last but must not be the part that a long trace leaves no room for.
  room.characters = TRACE_LIMITS.characters;
  const failed = matched ? null : stopped ? describe(recorder, stopped) : blame(recorder, rule.tree);
  return {
    ...evaluation,
    value: preview(evaluation.value, room),
    matched,
    trace: recorder.trace,
    truncated: recorder.truncated,
    failed,
  };
}

function record(recorder: Recorder, node: OperatorNode, value: unknown): void {
  recorder.values.set(node.path, value);
  if (recorder.trace.length >= TRACE_LIMITS.entries || recorder.room.characters <= 0) {
    recorder.truncated = true;
    return;
  }
  recorder.trace.push(describe(recorder, node));
}

/** Follows the value of a rule down to the expression that made it other than `true`. */
function blame(recorder: Recorder, node: RuleNode): TraceEntry {
  const culprit = node.kind === 'operator' ? culpritAmong(recorder, node) : null;
  return culprit ? blame(recorder, culprit) : describe(recorder, node);
}

function culpritAmong(recorder: Recorder, node: OperatorNode): RuleNode | null {
  const { args } = node;
  const holds = (arg: RuleNode | undefined): boolean => arg !== undefined && truthy(valueAt(recorder, arg));
  switch (node.operator) {
    case 'and':
      return args.find((arg) => !holds(arg)) ?? args.at(-1)!;
    case 'or':
      return args.find(holds) ?? nearest(recorder, args);
    case 'if':
    case '?:': {
      let i = 0;
      while (i + 1 < args.length && !holds(args[i])) i += 2;
      return args[i + 1] ?? args[i] ?? null;
    }
    default:
      return null;
  }
}

/** Of several alternatives that all failed, the one that got furthest tells most. */
function nearest(recorder: Recorder, alternatives: RuleNode[]): RuleNode {
  const progress = (node: RuleNode): number => {
    if (node.kind !== 'operator' || node.operator !== 'and') return 0;
    return node.args.findIndex((arg) => !truthy(valueAt(recorder, arg)));
  };
  const scores = alternatives.map(progress);
  return alternatives[scores.indexOf(Math.max(...scores))]!;
}

function valueAt(recorder: Recorder, node: RuleNode): unknown {
  if (node.kind === 'literal') return node.value;
  if (node.kind === 'array') return node.items.map((item) => valueAt(recorder, item));
  return recorder.values.get(node.path);
}

function describe(recorder: Recorder, node: RuleNode): TraceEntry {
  const value = valueAt(recorder, node);
  const operator = node.kind === 'operator' ? node.operator : 'literal';
  const entry: TraceEntry = { path: node.path, operator, value: preview(value, recorder.room) };
  if (operator === 'var' && value === undefined) entry.missing = true;
  if (node.kind === 'operator' && COMPARISONS.has(node.operator)) {
    entry.operands = node.args.map((arg) => preview(valueAt(recorder, arg), recorder.room));
  }
  return entry;
}

/** A copy of a value that is safe to send: bounded in depth, width and text, free of cycles and accessors. */
function preview(value: unknown, room: { characters: number }, nesting = 0): unknown {
  room.characters -= 4;
  if (value === undefined || value === null || typeof value === 'boolean') return value ?? null;
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value);
  if (typeof value === 'string') return cut(value, room);
  if (typeof value !== 'object' || nesting >= TRACE_LIMITS.nesting || room.characters <= 0) return '…';
  const own = (key: string) => Object.getOwnPropertyDescriptor(value, key)?.value;
  if (Array.isArray(value)) {
    const shown = Math.min(value.length, TRACE_LIMITS.items);
    const items = Array.from({ length: shown }, (_, i) => preview(own(String(i)), room, nesting + 1));
    return value.length > shown ? [...items, '…'] : items;
  }
  const keys = Object.keys(value).slice(0, TRACE_LIMITS.items);
  return Object.fromEntries(keys.map((key) => [cut(key, room), preview(own(key), room, nesting + 1)]));
}

function cut(text: string, room: { characters: number }): string {
  const length = Math.min(TRACE_LIMITS.string, Math.max(room.characters, 0));
  room.characters -= Math.min(text.length, length);
  return text.length > length ? `${text.slice(0, length)}…` : text;
}
