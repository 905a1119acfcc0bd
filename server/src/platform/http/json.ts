import { isUtf8 } from 'node:buffer';
import { ApiError, badRequest, invalid } from '../errors.ts';

/** Deepest nesting a body may have. */
export const maxDepth = 32;

/** Most fields an object and items a list may have: telling what is wrong with each of a million takes seconds. */
export const maxEntries = 10_000;

// `__proto__` may be spelled with escapes, in whole or in part.
const suspicious = /\\u(00[0-7]|d[89a-f])|__proto__/i;

/** Bodies whose texts have yet to be looked at. */
const unchecked = new WeakSet<object>();

/**
 * Parses a JSON body, refusing what PostgreSQL can not store or a reader can not bear.
 * @param textsLater texts and names of fields are not looked at: who takes the body asks `hasUncheckedTexts`, and then calls
 *   `checkTexts` for each of its rows
 * @throws ApiError 400 MALFORMED_JSON, or 422 for NUL, lone surrogates, `__proto__`, infinite numbers, nesting beyond 32 and
 *   more than 10,000 fields of an object or items of a list
 */
export function parseJson(bytes: Buffer, textsLater = false): unknown {
  if (!isUtf8(bytes)) throw badRequest('MALFORMED_JSON', 'The body is not valid UTF-8.');
  // A byte order mark is not JSON, but common enough to be forgiven (RFC 8259, section 8.1).
  const text = bytes.toString('utf8').replace(/^\uFEFF/, '');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw badRequest('MALFORMED_JSON', 'The body is not valid JSON.');
  }
  const closely = suspicious.test(text);
  inspect(value, closely && !textsLater);
  if (closely && textsLater && typeof value === 'object' && value !== null) unchecked.add(value);
  return value;
}

/** True for a body parsed with `textsLater` that may hold text that can not be stored. */
export const hasUncheckedTexts = (body: object): boolean => unchecked.has(body);

/**
 * Refuses, in a part of such a body, what `parseJson` refuses otherwise.
 * @throws ApiError 422
 */
export const checkTexts = (part: unknown): void => inspect(part, true);

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

function inspect(root: unknown, closely: boolean): void {
  const stack: { value: unknown; path: string; depth: number }[] = [{ value: root, path: '', depth: 0 }];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { value, path, depth } = top;
    if (typeof value === 'string') {
      if (closely) checkText(value, path);
      continue;
    }
    if (isInfinite(value)) throw invalid([{ path, message: 'is a number beyond what can be kept' }]);
    if (typeof value !== 'object' || value === null) continue;
    if (depth >= maxDepth)
      throw invalid([{ path: path.slice(0, 200), message: `is nested deeper than ${maxDepth} levels` }]);
    if (Array.isArray(value)) {
      if (value.length > maxEntries)
        throw invalid([{ path: path.slice(0, 200), message: `has more than ${maxEntries} items` }]);
      for (let i = 0; i < value.length; i++) {
        const item = value[i];
        if (closely || typeof item === 'object' || isInfinite(item))
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
      } else if (typeof item === 'object' || isInfinite(item)) {
        stack.push({ value: item, path: `${path}/${name}`, depth: depth + 1 });
      }
    }
  }
}

/** JSON.parse makes 1e400 infinite, and infinity would be stored as null. */
const isInfinite = (value: unknown) =>
  value === Number.POSITIVE_INFINITY || value === Number.NEGATIVE_INFINITY;

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
