import { isUtf8 } from 'node:buffer';
import { ApiError, badRequest, type FieldProblem, invalid } from '../errors.ts';
import { fieldsToldIn, fieldTwice, withPlainNames } from './json-names.ts';

/** Deepest nesting a body may have. */
export const maxDepth = 32;

/** Most fields an object and items a list may have: telling what is wrong with each of a million takes seconds. */
export const maxEntries = 10_000;

// `__proto__` may be spelled with escapes, in whole or in part.
const suspicious = /\\u(00[0-7]|d[89a-f])|__proto__/i;

/** A number, or what looks like one in a text, that a double may not hold: fifteen digits it always does. */
const longNumber = /[:,[]\s*-?(?:[\d.]{16}|\d[\d.]*[eE])/;

/** Bodies whose texts and numbers have yet to be looked at. */
const unchecked = new WeakSet<object>();

/**
 * Parses a JSON body, refusing what PostgreSQL can not store, what would not be kept as it was sent, and what a reader can
 * not bear.
 * @param textsLater texts, numbers and names of fields are not looked at: who takes the body asks `hasUncheckedTexts`, and
 *   then calls `checkTexts` for each of its rows
 * @throws ApiError 400 MALFORMED_JSON, or 422 for NUL, lone surrogates, `__proto__`, numbers that a double does not hold,
 *   a field that is there twice (RFC 7493, section 2.3), nesting beyond 32 and more than 10,000 fields of an object or items
 *   of a list
 */
export function parseJson(bytes: Buffer, textsLater = false): unknown {
  const sent = textOf(bytes);
  const text = withPlainNames(sent);
  let value = valueIn(text);
  const twice = inspect(value, false) === fieldsToldIn(text) ? undefined : fieldTwice(text);
  if (twice !== undefined) throw invalid([{ path: twice.slice(0, 200), message: 'is there twice' }]);
  const hasLong = longNumber.test(text);
  // Its depth is known by now: this recurses.
  if (hasLong) value = JSON.parse(text, infiniteUnlessKept as (name: string, value: unknown) => unknown);
  if (hasLong || suspicious.test(sent)) {
    if (!textsLater) inspect(value, true);
    else if (typeof value === 'object' && value !== null) unchecked.add(value);
  }
  return value;
}

/**
 * Parses JSON that a field named by its path holds as text.
 * @returns undefined for what is not JSON
 * @throws ApiError 422 as `parseJson`, with paths below that of the field
 */
export function parseJsonField(text: string, at: string): unknown {
  try {
    return parseJson(Buffer.from(text));
  } catch (error) {
    const problems = (error as ApiError).details?.errors as FieldProblem[] | undefined;
    if (!problems) return undefined;
    throw invalid(problems.map(({ path, message }) => ({ path: at + path, message })));
  }
}

/**
 * Parses a file of which only a text is wanted, which its reader checks: what else it holds is not kept.
 * @throws ApiError 400 MALFORMED_JSON, 422
 */
export function parseJsonFile(bytes: Buffer): unknown {
  const value = valueIn(withPlainNames(textOf(bytes)));
  inspect(value, false);
  return value;
}

function textOf(bytes: Buffer): string {
  if (!isUtf8(bytes)) throw badRequest('MALFORMED_JSON', 'The body is not valid UTF-8.');
  // A byte order mark is not JSON, but common enough to be forgiven (RFC 8259, section 8.1).
  return bytes.toString('utf8').replace(/^\uFEFF/, '');
}

function valueIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw badRequest('MALFORMED_JSON', 'The body is not valid JSON.');
  }
}

/** Numbers that would be read back as others become infinite, which `inspect` refuses with their path. */
const infiniteUnlessKept = (_name: string, value: unknown, { source }: { source?: string }): unknown =>
  typeof value !== 'number' || isKept(source!, value) ? value : Number.POSITIVE_INFINITY;

/**
 * Whether the double that JSON.parse made of a number is what was sent (RFC 7493, section 2.2). An integer must be read back
 * digit by digit. Of a fraction the double, told with as many digits, must be the same: 0.1 is, and so is the
 * 0.10000000000000001 that other languages write for it.
 */
function isKept(source: string, value: number): boolean {
  if (/^-?[\d.]{1,15}$/.test(source)) return true;
  const sent = decimal(source);
  const digits = Math.min(Math.max(sent.digits.length, 1), 100);
  const kept = decimal(/^-?\d+$/.test(source) ? String(value) : value.toPrecision(digits));
  return kept.digits === sent.digits && kept.exponent === sent.exponent;
}

/** A decimal number without its sign, as digits that neither begin nor end with 0 and a power of ten. Infinity has none. */
function decimal(text: string): { digits: string; exponent: number } {
  const [, whole = '', fraction = '', power = '0'] =
    /^-?(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(text) ?? [];
  const all = whole + fraction;
  let from = 0;
  while (all[from] === '0') from += 1;
  let to = all.length;
  while (to > from && all[to - 1] === '0') to -= 1;
  const exponent = from === to ? 0 : Number(power) - fraction.length + all.length - to;
  return { digits: all.slice(from, to), exponent };
}

/** True for a body parsed with `textsLater` that may hold a text that can not be stored, or such a number. */
export const hasUncheckedTexts = (body: object): boolean => unchecked.has(body);

/**
 * Refuses, in a part of such a body, what `parseJson` refuses otherwise.
 * @throws ApiError 422
 */
export const checkTexts = (part: unknown): void => {
  inspect(part, true);
};

/**
 * Parses a form (`application/x-www-form-urlencoded`) into texts by name.
 * @throws ApiError 400 MALFORMED_FORM for bad UTF-8 and for a name that comes twice (RFC 6749, section 3.2), 422 for text
 *   that can not be stored
 */
export function parseForm(bytes: Buffer): Record<string, string> {
  if (!isUtf8(bytes)) throw badRequest('MALFORMED_FORM', 'The body is not valid UTF-8.');
  const fields = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(bytes.toString('utf8'))) {
    if (fields.has(name)) throw badRequest('MALFORMED_FORM', `The form has ${name.slice(0, 100)} twice.`);
    if (fields.size >= 100) throw badRequest('MALFORMED_FORM', 'The form has too many fields.');
    checkText(name, '');
    checkText(value, `/${name}`);
    fields.set(name, value);
  }
  return Object.fromEntries(fields);
}

/** @returns how many fields its objects have together */
function inspect(root: unknown, closely: boolean): number {
  let all = 0;
  const stack: { value: unknown; path: string; depth: number }[] = [{ value: root, path: '', depth: 0 }];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { value, path, depth } = top;
    if (typeof value === 'string') {
      if (closely) checkText(value, path);
      continue;
    }
    if (value === Number.POSITIVE_INFINITY)
      throw invalid([{ path, message: 'is a number that would not be kept as it is: send it as text' }]);
    if (typeof value !== 'object' || value === null) continue;
    if (depth >= maxDepth)
      throw invalid([{ path: path.slice(0, 200), message: `is nested deeper than ${maxDepth} levels` }]);
    if (Array.isArray(value)) {
      if (value.length > maxEntries)
        throw invalid([{ path: path.slice(0, 200), message: `has more than ${maxEntries} items` }]);
      for (let i = 0; i < value.length; i++) {
        const item = value[i];
        if (closely || typeof item === 'object')
          stack.push({ value: item, path: closely ? `${path}/${i}` : path, depth: depth + 1 });
      }
      continue;
    }
    let fields = 0;
    for (const name in value) {
      if (++fields > maxEntries)
        throw invalid([{ path: path.slice(0, 200), message: `has more than ${maxEntries} fields` }]);
      const item = (value as Record<string, unknown>)[name];
      if (closely) {
        if (name === '__proto__')
          throw invalid([{ path, message: 'has a field with a name that is not allowed' }]);
        checkText(name, path);
        stack.push({ value: item, path: `${path}/${name}`, depth: depth + 1 });
      } else if (typeof item === 'object') {
        stack.push({ value: item, path: `${path}/${name}`, depth: depth + 1 });
      }
    }
    all += fields;
  }
  return all;
}

/** @throws ApiError 422 for text that can not be stored: NUL (PostgreSQL) and lone surrogates (not UTF-8) */
export function checkText(value: string, path: string): void {
  if (value.includes('\u0000')) throw invalid([{ path, message: 'contains a NUL character' }]);
  if (!value.isWellFormed()) throw invalid([{ path, message: 'contains half of a surrogate pair' }]);
}

/** JSON with sorted keys, so that equal payloads have equal hashes whatever their order. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const fields = Object.keys(value)
      .sort()
      .map((name) => `${JSON.stringify(name)}:${canonicalJson((value as Record<string, unknown>)[name])}`);
    return `{${fields.join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}

export const tooLarge = (bytes: number) =>
  new ApiError(413, 'PAYLOAD_TOO_LARGE', `The body is larger than the ${bytes} bytes allowed here.`);
