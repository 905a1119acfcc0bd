/** One SQL statement with its parameters. `name` makes it a prepared statement of its connection. */
export interface Statement<Row = Record<string, unknown>> {
  text: string;
  values: unknown[];
  name: string | undefined;
  /** Never set: carries the row type. */
  readonly row?: Row;
}

interface Template {
  text: string;
  name: string;
}

// Only what this file made is a statement. A value from a client may have the same fields, and must stay a value.
// Of each its shape: what its text was put together from, and so a short name for it. None for a text that does not follow
// from the source alone, which is not prepared either: connections would keep it for ever.
const shapes = new WeakMap<object, string | undefined>();

function statement<Row>(
  { text, name }: { text: string; name: string | undefined },
  values: unknown[],
  shape: string | undefined,
): Statement<Row> {
  const one: Statement<Row> = Object.freeze({ text, values, name });
  shapes.set(one, shape);
  return one;
}

const isStatement = (value: unknown): value is Statement =>
  typeof value === 'object' && value !== null && shapes.has(value);

// A template literal's strings array is one object for each place in the source, so a place in the source is
// compiled to text once and is one prepared statement on each connection.
const templates = new WeakMap<TemplateStringsArray, Template>();
const rawTexts = new Map<string, Statement>();
const composed = new Map<string, { text: string; name: string | undefined }>();
/** Prepared statements that are put together from fragments; and shapes whose texts are remembered. */
const mostPrepared = 500;
const mostShapes = 5_000;
const names = new Map<string, string>();
let count = 0;

/**
 * A statement as a template: `sql<Row>\`select … where tenant_id = ${tenant}\``. Values become parameters, never text.
 * A value that is itself a statement is put in as a fragment, with its own parameters.
 */
export function sql<Row = Record<string, unknown>>(
  strings: TemplateStringsArray,
  ...values: unknown[]
): Statement<Row> {
  let template = templates.get(strings);
  if (!template) {
    let text = strings[0]!;
    for (let i = 1; i < strings.length; i++) text += `$${i}${strings[i]}`;
    template = { text, name: `s${++count}` };
    templates.set(strings, template);
  }
  return values.some(isStatement)
    ? compose<Row>(template, strings, values)
    : statement(template, values, template.name);
}

function compose<Row>(template: Template, strings: TemplateStringsArray, parts: unknown[]): Statement<Row> {
  const values: unknown[] = [];
  let shape: string | undefined = `${template.name}(`;
  for (const part of parts) {
    if (!isStatement(part)) {
      values.push(part);
      if (shape !== undefined) shape += ',';
      continue;
    }
    values.push(...part.values);
    const own = shapes.get(part);
    shape = shape === undefined || own === undefined ? undefined : `${shape}${own},`;
  }
  if (shape === undefined)
    return statement({ text: joined(strings, parts), name: undefined }, values, undefined);
  shape += ')';
  let whole = composed.get(shape);
  if (!whole) {
    const text = joined(strings, parts);
    let name = names.get(text);
    if (!name && names.size < mostPrepared) {
      name = `c${++count}`;
      names.set(text, name);
    }
    whole = { text, name };
    if (composed.size < mostShapes) composed.set(shape, whole);
  }
  return statement(whole, values, shape);
}

/** The text of a template with fragments in it, their parameters numbered on. */
function joined(strings: TemplateStringsArray, parts: unknown[]): string {
  let text = strings[0]!;
  let offset = 0;
  parts.forEach((part, index) => {
    const before = offset;
    if (isStatement(part)) {
      text += part.text.replace(/\$(\d+)/g, (_, position) => `$${Number(position) + before}`);
      offset += part.values.length;
    } else text += `$${++offset}`;
    text += strings[index + 1];
  });
  return text;
}

/** Text that is put into a statement as it is. Only for constants of the source code. */
export function raw(text: string): Statement {
  let fragment = rawTexts.get(text);
  if (!fragment) {
    fragment = statement({ text, name: undefined }, [], `r${rawTexts.size}`);
    rawTexts.set(text, fragment);
  }
  return fragment;
}

/** A fragment that names a table this program made while it ran. */
export function identifier(name: string): Statement {
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(name)) throw new Error(`${name} is not a name`);
  return statement({ text: name, name: undefined }, [], undefined);
}

/** A fragment whose text does not follow from the source alone: there are too many to keep a prepared statement of each. */
export const unprepared = ({ text, values }: Statement): Statement =>
  statement({ text, name: undefined }, values, undefined);

/**
 * That a key is one of the ids that a subquery answers, which lie from one id to another: by that range and by hashing (`is true`
 * keeps it from being made a join). For `= any(array)` PostgreSQL before 17 may read all rows of a tenant that it thinks is small,
 * and compare each with each.
 */
export const isIn = (key: Statement, from: Statement, to: Statement, ids: Statement): Statement =>
  sql`${key} >= ${from} and ${key} <= ${to} and (${key} in (${ids})) is true`;

const nil = '00000000-0000-0000-0000-000000000000';

/** That a key is one of these ids, as `isIn`. */
export function isAmong(key: Statement, ids: string[]): Statement {
  let [first, last] = [ids[0]?.toLowerCase() ?? nil, nil];
  for (const id of ids) {
    const lower = id.toLowerCase();
    if (lower < first) first = lower;
    if (lower > last) last = lower;
  }
  return isIn(key, sql`${first}::uuid`, sql`${last}::uuid`, sql`select unnest(${ids}::uuid[])`);
}
