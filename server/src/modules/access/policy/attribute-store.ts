import { type Statement, sql } from '#platform/db/sql.ts';
import { all, asked, type Condition, choose, isTotal, not, sqlOf } from './condition-store.ts';

/** A column of text, or of ids, that policies see as an attribute. */
export interface TextColumn {
  column: Statement;
  /** Of the type uuid. */
  uuid?: true;
  nullable?: true;
}

/** Where the attributes of a kind of rows are. A row has no others. */
export interface RowColumns {
  id: TextColumn;
  owner: TextColumn;
  type: TextColumn;
  /** A JSON object, never null. */
  metadata: Statement;
  /** Labels are what is called so in the metadata. */
  labels?: true;
}

export type Order = '<' | '<=' | '>' | '>=';

/** What rules can ask of an attribute of a row. A constant is a JSON value, or undefined where it is missing. */
export interface Attribute {
  /** Neither missing. */
  present: Condition;
  truthy: Condition;
  /** Exactly true. */
  isTrue: Condition;
  /** Missing, null or empty, as `missing` has it. */
  isAbsent: Condition;
  equals(constant: unknown): Condition;
  equalsStrictly(constant: unknown): Condition;
  /** attribute < constant, and so on. */
  compares(order: Order, constant: unknown): Condition;
  isAmong(list: readonly unknown[]): Condition;
  /** Part of a text. */
  isWithin(text: string): Condition;
  /** A list with the constant in it, or a text with it as a part. */
  holds(constant: unknown): Condition;
}

/** An attribute that no row has. */
export const missingAttribute: Attribute = {
  present: false,
  truthy: false,
  isTrue: false,
  isAbsent: true,
  equals: () => false,
  equalsStrictly: () => false,
  compares: () => false,
  isAmong: () => false,
  isWithin: () => false,
  holds: () => false,
};

/** Text that PostgreSQL keeps as it is. */
export const isStorable = (text: string): boolean => !text.includes('\0') && text.isWellFormed();
// In ASCII the order of bytes is JavaScript's order of UTF-16 units, whatever the other text has.
const isAscii = (text: string): boolean => isStorable(text) && /^\p{ASCII}*$/u.test(text);
const isUuid = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
/** Longest texts and lists that are looked through here: what costs more than a rule may spend, the rule itself decides. */
const longest = { list: 1_000, text: 25_000 };

const compared = (order: Order, a: number | string, b: number | string): boolean => {
  if (order === '<') return a < b;
  if (order === '<=') return a <= b;
  return order === '>' ? a > b : a >= b;
};

const inOrder = (order: Order, a: Statement, b: Statement): Statement => {
  if (order === '<') return sql`${a} < ${b}`;
  if (order === '<=') return sql`${a} <= ${b}`;
  return order === '>' ? sql`${a} > ${b}` : sql`${a} >= ${b}`;
};

/**
 * An attribute that is a text where it is there.
 * @param renamed what some of its values are called in rules: value -> name
 */
export function textAttribute(
  { column, uuid, nullable }: TextColumn,
  renamed: ReadonlyMap<string, string>,
): Attribute {
  const text = uuid ? sql`${column}::text` : column;
  const present: Condition = nullable ? asked(sql`${column} is not null`) : true;
  const among = (names: string[]): Condition => {
    const stored = names.flatMap((name) => [
      ...(renamed.has(name) ? [] : [name]),
      ...[...renamed].flatMap(([value, called]) => (called === name && value !== name ? [value] : [])),
    ]);
    const values = stored.filter(uuid ? isUuid : isStorable);
    if (values.length === 0) return false;
    return all([
      present,
      asked(uuid ? sql`${column} = any(${values}::uuid[])` : sql`${column} = any(${values}::text[])`),
    ]);
  };
  const looking = (part: Statement): Condition =>
    renamed.size > 0 ? null : choose(present, asked(part), false);
  const filled: Condition = uuid ? true : asked(sql`${column} <> ''`);
  return {
    present,
    truthy: choose(present, filled, false),
    isTrue: false,
    isAbsent: not(choose(present, filled, false)),
    equals: (constant) => {
      if (typeof constant === 'string') return among([constant]);
      return constant === undefined || constant === null ? false : null;
    },
    equalsStrictly: (constant) => (typeof constant === 'string' ? among([constant]) : false),
    compares: (order, constant) => {
      if (constant === undefined || Number.isNaN(constant)) return false;
      if (typeof constant !== 'string' || !isAscii(constant)) return null;
      return looking(inOrder(order, sql`${text} collate "C"`, sql`${constant}`));
    },
    isAmong: (list) => among(list.filter((item) => typeof item === 'string')),
    isWithin: (holder) => {
      if (holder === '') return false;
      return isStorable(holder) ? looking(sql`strpos(${holder}, ${text}) > 0`) : null;
    },
    holds: (constant) => {
      if (constant === undefined) return false;
      if (constant !== null && typeof constant === 'object') return null;
      const part = String(constant);
      return isStorable(part) ? looking(sql`${text} <> '' and strpos(${text}, ${part}) > 0`) : null;
    },
  };
}

/** A value somewhere below a JSON object. */
export const below = (holder: Statement, path: string[]): Statement => sql`(${holder} #> ${path}::text[])`;

type Kind = 'string' | 'number' | 'boolean' | 'null' | 'array' | 'object';

/** An attribute that is any JSON value, SQL null where it is missing. */
export function jsonAttribute(value: Statement): Attribute {
  const text = sql`(${value} #>> '{}')`;
  const json = (constant: unknown): Statement => sql`${JSON.stringify(constant)}::jsonb`;
  const present = asked(sql`${value} is not null`);
  const isTrueHere = asked(sql`${value} = 'true'`);
  /** By the kind of the value; false for kinds that are not named, and where it is missing. */
  const byKind = (kinds: Partial<Record<Kind, Condition>>): Condition => {
    const named = Object.entries(kinds).filter(([, condition]) => condition !== false);
    if (named.length === 0) return false;
    const cases = named
      .map(([kind, condition]) => sql`when ${kind}::text then ${sqlOf(condition)}`)
      .reduce((a, b) => sql`${a} ${b}`);
    return asked(
      sql`case jsonb_typeof(${value}) ${cases} else false end`,
      named.every(([, condition]) => isTotal(condition)),
    );
  };
  const truthy = byKind({
    boolean: isTrueHere,
    number: asked(sql`${value} <> '0'`),
    string: asked(sql`${text} <> ''`),
    array: asked(sql`${value} <> '[]'`),
    object: true,
  });
  const is = (constant: unknown): Condition => asked(sql`${value} = ${json(constant)}`);
  const isText = (constant: string): Condition =>
    isStorable(constant) ? asked(sql`${text} = ${constant}`) : false;
  const truthOf = (whenTrue: boolean, whenFalse: boolean) => choose(isTrueHere, whenTrue, whenFalse);
  const equalsNumber = (constant: number): Condition =>
    Number.isFinite(constant)
      ? byKind({
          number: is(constant),
          boolean: truthOf(constant === 1, constant === 0),
          string: null,
          array: null,
        })
      : null;
  return {
    present,
    truthy,
    isTrue: byKind({ boolean: isTrueHere }),
    isAbsent: not(
      byKind({
        boolean: true,
        number: true,
        string: asked(sql`${text} <> ''`),
        array: true,
        object: true,
      }),
    ),
    equals: (constant) => {
      if (constant === undefined) return false;
      if (constant === null) return byKind({ null: true });
      if (typeof constant === 'number') return equalsNumber(constant);
      if (typeof constant === 'boolean') {
        const { number, string, array } = { number: is(Number(constant)), string: null, array: null };
        return byKind({ boolean: is(constant), number, string, array });
      }
      if (typeof constant !== 'string') return null;
      const asNumber = Number.isNaN(Number(constant)) ? false : null;
      return byKind({
        string: isText(constant),
        number: asNumber,
        boolean: asNumber,
        array: null,
        object: constant === '[object Object]',
      });
    },
    equalsStrictly: (constant) => {
      if (constant === null) return byKind({ null: true });
      if (typeof constant === 'string') return byKind({ string: isText(constant) });
      if (typeof constant === 'boolean') return byKind({ boolean: is(constant) });
      if (typeof constant !== 'number') return false;
      return Number.isFinite(constant) ? byKind({ number: is(constant) }) : null;
    },
    compares: (order, constant) => {
      if (constant === undefined || Number.isNaN(constant)) return false;
      if (constant !== null && typeof constant === 'object') return null;
      const number = Number(constant);
      if (typeof constant === 'string') {
        const other = Number.isNaN(number) ? false : null;
        return isAscii(constant)
          ? byKind({
              string: asked(inOrder(order, sql`${text} collate "C"`, sql`${constant}`)),
              number: other,
              boolean: other,
              null: other,
              array: null,
              object: compared(order, '[object Object]', constant),
            })
          : null;
      }
      if (!Number.isFinite(number)) return null;
      return byKind({
        number: asked(inOrder(order, value, json(number))),
        boolean: truthOf(compared(order, 1, number), compared(order, 0, number)),
        null: compared(order, 0, number),
        string: null,
        array: null,
      });
    },
    isAmong: (list) => {
      const texts = list.filter((item) => typeof item === 'string').filter(isStorable);
      const others = list.filter((item) => Number.isFinite(item) || typeof item === 'boolean');
      if (list.some((item) => typeof item === 'number' && !Number.isFinite(item))) return null;
      const other = asked(sql`${value} = any(${others.map((item) => JSON.stringify(item))}::jsonb[])`);
      return byKind({
        string: texts.length > 0 && asked(sql`${text} = any(${texts}::text[])`),
        number: others.length > 0 && other,
        boolean: others.length > 0 && other,
        null: list.includes(null),
      });
    },
    isWithin: (holder) => {
      if (holder === '') return false;
      if (!isStorable(holder)) return null;
      const string = asked(sql`strpos(${holder}, ${text}) > 0`);
      const boolean = truthOf(holder.includes('true'), holder.includes('false'));
      const object = holder.includes('[object Object]');
      return byKind({ string, boolean, null: holder.includes('null'), number: null, array: null, object });
    },
    holds: (constant) => {
      if (constant === undefined) return false;
      if (constant !== null && typeof constant === 'object') return null;
      if (!isStorable(String(constant)) || Number.isNaN(constant) || Math.abs(Number(constant)) === Infinity)
        return null;
      return byKind({
        string: asked(
          sql`case when length(${text}) <= ${longest.text} then ${text} <> '' and strpos(${text}, ${String(constant)}) > 0 end`,
          false,
        ),
        array: asked(
          sql`case when case jsonb_typeof(${value}) when 'array' then jsonb_array_length(${value}) end <= ${longest.list}
            then ${value} @> ${json(constant)} end`,
          false,
        ),
      });
    },
  };
}
