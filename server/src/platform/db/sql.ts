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
const made = new WeakSet<object>();

function statement<Row>(text: string, values: unknown[], name: string | undefined): Statement<Row> {
  const one: Statement<Row> = Object.freeze({ text, values, name });
  made.add(one);
  return one;
}

// What names a table that comes and goes is not prepared: connections would keep it for ever.
const unkept = new WeakSet<object>();

const isStatement = (value: unknown): value is Statement =>
  typeof value === 'object' && value !== null && made.has(value);

// A template literal's strings array is one object for each place in the source, so a place in the source is
// compiled to text once and is one prepared statement on each connection.
const templates = new WeakMap<TemplateStringsArray, Template>();
const composed = new Map<string, string>();
let count = 0;

/**
 * A statement as a template: `sql<Row>\`select … where tenant_id = ${tenant}\``. Values become parameters, never text.
 * A value that is itself a statement is put in as a fragment, with its own parameters.
 */
export function sql<Row = Record<string, unknown>>(
  strings: TemplateStringsArray,
  ...values: unknown[]
): Statement<Row> {
  if (values.some(isStatement)) return compose<Row>(strings, values);
  let template = templates.get(strings);
  if (!template) {
    let text = strings[0]!;
    for (let i = 1; i < strings.length; i++) text += `$${i}${strings[i]}`;
    template = { text, name: `s${++count}` };
    templates.set(strings, template);
  }
  return statement(template.text, values, template.name);
}

function compose<Row>(strings: TemplateStringsArray, parts: unknown[]): Statement<Row> {
  const values: unknown[] = [];
  let text = strings[0]!;
  const passing = parts.some((part) => isStatement(part) && unkept.has(part));
  parts.forEach((part, index) => {
    if (isStatement(part)) {
      const offset = values.length;
      text += part.text.replace(/\$(\d+)/g, (_, position) => `$${Number(position) + offset}`);
      values.push(...part.values);
    } else {
      values.push(part);
      text += `$${values.length}`;
    }
    text += strings[index + 1];
  });
  let name = passing ? undefined : composed.get(text);
  if (!name && !passing && composed.size < 500) {
    name = `c${++count}`;
    composed.set(text, name);
  }
  const whole = statement<Row>(text, values, name);
  if (passing) unkept.add(whole);
  return whole;
}

/** Text that is put into a statement as it is. Only for constants of the source code. */
export const raw = (text: string): Statement => statement(text, [], undefined);

/** A fragment that names a table this program made while it ran. */
export function identifier(name: string): Statement {
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(name)) throw new Error(`${name} is not a name`);
  const fragment: Statement = statement(name, [], undefined);
  unkept.add(fragment);
  return fragment;
}

/** A fragment whose text does not follow from the source alone: there are too many to keep a prepared statement of each. */
export function unprepared(fragment: Statement): Statement {
  const own: Statement = statement(fragment.text, fragment.values, undefined);
  unkept.add(own);
  return own;
}
