/** How much text or list one expression may build while it runs. */
export const MAX_TEXT = 64 * 1024;
const MAX_ARRAY_NESTING = 32;

/** What an evaluation still may spend; shared by every expression of one run. */
export type Meter = {
  steps: number;
  /** What was read of `root` already, by name; there when many rules are asked about the same context. */
  seen: Map<string, unknown> | undefined;
  root: unknown;
};

/** All of one shape, so that rules are compiled by the engine for one. */
export const newMeter = (steps: number, readOnce = false, root?: unknown): Meter => ({
  steps,
  seen: readOnce ? new Map() : undefined,
  root,
});

/** Raised when a run spends more than its budget. It never leaves the engine: the run counts as failed. */
export class EvaluationLimit extends Error {}
const exhausted = new EvaluationLimit('The rule exceeds its evaluation budget.');

export function spend(meter: Meter, steps: number): void {
  meter.steps -= steps;
  if (meter.steps < 0) throw exhausted;
}

/** Longest text or list allowed, checked before it is built further. */
export function limitSize(size: number): void {
  if (size > MAX_TEXT) throw exhausted;
}

/** JSON Logic's own notion of truth: JavaScript's, except that an empty array is false. */
export function truthy(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

type Primitive = string | number | boolean | null | undefined;

/**
 * JavaScript's ToPrimitive for JSON values without ever calling a `toString` or `valueOf` that the data
 * brought along (`{"toString": 1}` would throw, a function would run).
 */
export function toPrimitive(meter: Meter, value: unknown, nesting = 0): Primitive {
  if (value === null || typeof value !== 'object') return value as Primitive;
  if (!Array.isArray(value)) return '[object Object]';
  if (nesting >= MAX_ARRAY_NESTING) throw exhausted;
  spend(meter, value.length + 1);
  let text = '';
  for (let i = 0; i < value.length; i++) {
    const part = toPrimitive(meter, value[i], nesting + 1);
    if (i > 0) text += ',';
    if (part !== null && part !== undefined) text += String(part);
    limitSize(text.length);
  }
  return text;
}

export function toText(meter: Meter, value: unknown): string {
  return String(toPrimitive(meter, value));
}

/** JavaScript's ToNumber for JSON values; `undefined` is NaN. */
export function toNumber(meter: Meter, value: unknown): number {
  return typeof value === 'number' ? value : Number(toPrimitive(meter, value));
}

/** `parseFloat`, which JSON Logic prescribes for `+` and `*`: leading digits count, `null` and booleans are NaN. */
export function parseNumber(meter: Meter, value: unknown): number {
  return typeof value === 'number' ? value : Number.parseFloat(toText(meter, value));
}

/** JavaScript's `==` for JSON values, except that `undefined` (a missing attribute) equals nothing. */
export function looseEquals(meter: Meter, a: unknown, b: unknown): boolean {
  if (a === undefined || b === undefined) return false;
  if (a === null || b === null) return a === b;
  const aIsObject = typeof a === 'object';
  const bIsObject = typeof b === 'object';
  if (aIsObject && bIsObject) return a === b;
  const left = aIsObject ? toPrimitive(meter, a) : a;
  const right = bIsObject ? toPrimitive(meter, b) : b;
  return typeof left === typeof right ? left === right : Number(left) === Number(right);
}

export function strictEquals(a: unknown, b: unknown): boolean {
  return a !== undefined && a === b;
}

/** True when a value can take part in an inequality: neither missing nor NaN. */
export function comparable(value: unknown): boolean {
  return value !== undefined && !Number.isNaN(value);
}

/** JavaScript's `<` for JSON values; false when either side is missing or not a number where one is needed. */
export function lessThan(meter: Meter, a: unknown, b: unknown): boolean {
  if (typeof a === 'number' && typeof b === 'number') return a < b;
  const [left, right] = alike(meter, a, b);
  return left < right;
}

export function lessOrEqual(meter: Meter, a: unknown, b: unknown): boolean {
  if (typeof a === 'number' && typeof b === 'number') return a <= b;
  const [left, right] = alike(meter, a, b);
  return left <= right;
}

/** Two strings, which compare as text, or else two numbers; a missing side is NaN, which stands in no order. */
function alike(meter: Meter, a: unknown, b: unknown): [string, string] | [number, number] {
  const left = toPrimitive(meter, a);
  const right = toPrimitive(meter, b);
  if (typeof left === 'string' && typeof right === 'string') return [left, right];
  return [Number(left), Number(right)];
}

/** Reads one own data property of a plain object or array; everything else is missing. Runs no getter. */
export function ownValue(holder: unknown, key: string): unknown {
  if (holder === null || typeof holder !== 'object') return undefined;
  if (Array.isArray(holder)) return isIndex(key) ? dataOf(holder, key) : undefined;
  return isPlain(holder) ? dataOf(holder, key) : undefined;
}

/** The value at a path of own properties, `undefined` when any hop is missing or the end is not a JSON value. */
export function readPath(data: unknown, segments: readonly string[]): unknown {
  let value = data;
  for (const segment of segments) {
    value = ownValue(value, segment);
    if (value === undefined) return undefined;
  }
  return asJson(value);
}

/** Functions, symbols, bigints and objects other than plain ones and arrays count as missing. */
function asJson(value: unknown): unknown {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'boolean':
      return value;
    case 'object':
      return value === null || Array.isArray(value) || isPlain(value) ? value : undefined;
    default:
      return undefined;
  }
}

function isPlain(holder: object): boolean {
  const prototype = Object.getPrototypeOf(holder);
  return prototype === Object.prototype || prototype === null;
}

function dataOf(holder: object, key: string): unknown {
  // The descriptor of an accessor has no value, so a getter reads as missing instead of running.
  return Object.getOwnPropertyDescriptor(holder, key)?.value;
}

function isIndex(key: string): boolean {
  return /^(?:0|[1-9]\d{0,8})$/.test(key);
}
