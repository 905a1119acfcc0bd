import { raw, type Statement, sql, unprepared } from '#platform/db/sql.ts';

/**
 * Which rows something holds for: all of them, none, or those a condition in SQL is true of. Null where only the rule itself can
 * tell; a condition that is not `total` is null for such rows. The SQL is true or false only where the rule is so, too.
 */
export type Condition = boolean | null | { sql: Statement; total: boolean };

/** A condition in SQL, whose text follows from a tenant's rules. */
export const asked = (condition: Statement, total = true): Condition => ({
  sql: unprepared(sql`(${condition})`),
  total,
});

const isFixed = (condition: Condition): condition is boolean | null =>
  condition === null || typeof condition === 'boolean';

export const sqlOf = (condition: Condition): Statement =>
  isFixed(condition) ? raw(`${condition}::boolean`) : condition.sql;

export const isTotal = (condition: Condition): boolean =>
  typeof condition === 'boolean' || condition?.total === true;

export function not(condition: Condition): Condition {
  if (condition === null) return null;
  if (typeof condition === 'boolean') return !condition;
  return asked(sql`not ${condition.sql}`, condition.total);
}

/** `then` where a condition holds, else `otherwise`. Where it can not be told nothing after it is looked at. */
export function choose(condition: Condition, then: Condition, otherwise: Condition): Condition {
  if (condition === null) return null;
  if (typeof condition === 'boolean') return condition ? then : otherwise;
  if (condition.total && otherwise === false && !isFixed(then)) return all([condition, then]);
  if (condition.total && then === true && !isFixed(otherwise)) return any([condition, otherwise]);
  if (then === true && otherwise === false) return condition;
  if (then === false && otherwise === true) return not(condition);
  const [yes, no] = [sqlOf(then), sqlOf(otherwise)];
  return asked(
    sql`case ${condition.sql} when true then ${yes} when false then ${no} end`,
    condition.total && isTotal(then) && isTotal(otherwise),
  );
}

/** All of them, in whatever order: one that is false is enough, whether the others can be told or not. */
export function all(conditions: Condition[]): Condition {
  if (conditions.includes(false)) return false;
  const [first, ...rest] = conditions.filter((condition) => condition !== true);
  if (first === undefined) return true;
  return rest.reduce<Condition>(
    (a, b) =>
      a === null && b === null ? null : asked(sql`${sqlOf(a)} and ${sqlOf(b)}`, isTotal(a) && isTotal(b)),
    first,
  );
}

/** One of them, in whatever order. */
export function any(conditions: Condition[]): Condition {
  if (conditions.includes(true)) return true;
  const [first, ...rest] = conditions.filter((condition) => condition !== false);
  if (first === undefined) return false;
  return rest.reduce<Condition>(
    (a, b) =>
      a === null && b === null ? null : asked(sql`${sqlOf(a)} or ${sqlOf(b)}`, isTotal(a) && isTotal(b)),
    first,
  );
}

/** As a filter of a statement: the rows something holds for, and those of which only the rule can tell. */
export const possiblyIn = (condition: Condition): Statement =>
  isTotal(condition) ? sqlOf(condition) : unprepared(sql`coalesce(${sqlOf(condition)}, true)`);

/** The rows of which only the rule can tell. */
export const undecidedIn = (condition: Condition): Statement => unprepared(sql`${sqlOf(condition)} is null`);
