// What JSON.parse does with the names of fields that nobody wants, found in the text itself.

/** Whether a quotation mark belongs to the text it stands in. */
function isEscaped(text: string, at: number): boolean {
  let from = at;
  while (text[from - 1] === '\\') from -= 1;
  return (at - from) % 2 === 1;
}

/** Where the text ends that a quotation mark begins; -1 where it does not. */
function endOfText(text: string, from: number): number {
  let to = from;
  do to = text.indexOf('"', to + 1);
  while (to >= 0 && isEscaped(text, to));
  return to;
}

/**
 * How many fields valid JSON seems to tell, without reading it: each is counted as often as it is there, and so are texts
 * that begin with a colon.
 */
export function fieldsToldIn(text: string): number {
  const compact = text.replace(/"\s+:/g, '":');
  let count = 0;
  for (let at = compact.indexOf('":'); at >= 0; at = compact.indexOf('":', at + 2))
    if (!isEscaped(compact, at)) count += 1;
  return count;
}

/** The path of a field that valid JSON tells twice; JSON.parse would keep the last. */
export function fieldTwice(text: string): string | undefined {
  const open: { at: string | number; names: Set<string> }[] = [];
  let read = '';
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    const inner = open.at(-1)!;
    if (sign === '"') {
      const from = i;
      i = endOfText(text, from);
      read = text.slice(from, i + 1);
    } else if (sign === ':') {
      inner.at = JSON.parse(read) as string;
      if (inner.names.has(inner.at)) return open.map(({ at }) => `/${at}`).join('');
      inner.names.add(inner.at);
    } else if (sign === ',' && typeof inner.at === 'number') inner.at += 1;
    else if (sign === '{' || sign === '[') open.push({ at: sign === '[' ? 0 : '', names: new Set() });
    else if (sign === '}' || sign === ']') open.pop();
  }
  return undefined;
}

const needsEscape = /["\\\p{Cc}]/u;

/**
 * The same JSON with names told without escapes, where they can be. V8 may take a name with an escape for one that it has read
 * earlier, in anybody's JSON, and that begins as the source of this one does (nodejs/node#63785): `k\u00fc` for `k\`.
 */
export function withPlainNames(text: string): string {
  if (!text.includes('\\')) return text;
  let plain = '';
  let copied = 0;
  for (let from = text.indexOf('"'), to = 0; from >= 0; from = text.indexOf('"', to + 1)) {
    to = endOfText(text, from);
    if (to < 0) break;
    const source = text.slice(from, to + 1);
    if (!source.includes('\\') || !isName(text, to + 1)) continue;
    const name = textTold(source);
    if (name === undefined || needsEscape.test(name) || !name.isWellFormed()) continue;
    plain += `${text.slice(copied, from)}"${name}"`;
    copied = to + 1;
  }
  return copied === 0 ? text : plain + text.slice(copied);
}

const colonNext = /\s*:/y;

function isName(text: string, after: number): boolean {
  colonNext.lastIndex = after;
  return colonNext.test(text);
}

function textTold(source: string): string | undefined {
  try {
    return JSON.parse(source) as string;
  } catch {
    // No JSON, as will be found out.
    return undefined;
  }
}
