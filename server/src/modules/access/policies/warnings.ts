import type { Db } from '#platform/db/database.ts';
import { type FieldProblem, invalid } from '#platform/errors.ts';
import { nearest } from '#platform/nearest.ts';
import { listRoles } from '../identity/service.ts';
import { BUILTIN_ROLES, namesAsked, namesIn, parseRule } from '../policy/service.ts';
import type { StoredTest } from './schema.ts';
import { type Content, listRules } from './store.ts';

/** A name with its place. */
interface Named {
  path: string;
  role: string;
}

const most = 50;

const within = (at: string, problems: FieldProblem[]): FieldProblem[] =>
  problems.map(({ path, message }) => ({ path: `${at}${path}`.slice(0, 300), message }));

const readsAuthzen = (rule: unknown): boolean => JSON.stringify(rule).includes('"authzen');

/** @throws ApiError 422 for tests that ask about a slip of a resource or action */
export function checkTestNames(tests: StoredTest[], rule: unknown, at: string): void {
  if (readsAuthzen(rule)) return;
  const errors = tests.flatMap(({ context }, i) => namesAsked(context, `${at}/${i}/context`).errors);
  if (errors.length > 0) throw invalid(errors.slice(0, most));
}

/**
 * What of a policy is probably not what was meant, though it can be kept: resources and actions that only another
 * application can ask about, and roles that nobody has.
 */
export async function warningsOf(db: Db, content: Content, at = ''): Promise<FieldProblem[]> {
  const { rule, tests, role, written_as } = content;
  const found = namesIn(parseRule(rule));
  const asked = tests.flatMap(({ context }, i) => namesAsked(context, `${at}/tests/${i}/context`).warnings);
  const governed = written_as?.form === 'governance';
  const named: Named[] = [
    ...(role === '*' ? [] : [{ path: `${at}/role`, role }]),
    ...(governed
      ? rolesOfCondition(written_as.condition_json, `${at}/condition_json`)
      : found.roles.map((one) => ({ ...one, path: `${at}/rule${one.path}` }))),
    ...tests.flatMap(({ context }, i) =>
      context.role === undefined ? [] : [{ path: `${at}/tests/${i}/context/role`, role: context.role }],
    ),
  ];
  return [
    ...(governed ? [] : within(`${at}/rule`, found.warnings)),
    ...asked,
    ...(await roleWarnings(db, named)),
  ].slice(0, most);
}

/** The condition is kept as it was written, so its roles are named there. */
function rolesOfCondition(condition: Record<string, unknown>, at: string): Named[] {
  return Object.entries(condition).flatMap(([name, value]) =>
    ['actor_role_in', 'actor_role', 'role'].includes(name)
      ? [value].flat().map((role) => ({ path: `${at}/${name}`, role: String(role) }))
      : [],
  );
}

/** The field of an answer that tells warnings; none where there are none. */
export const warned = (warnings: FieldProblem[]): { warnings?: FieldProblem[] } =>
  warnings.length > 0 ? { warnings } : {};

const isBuiltin = (role: string): boolean => (BUILTIN_ROLES as readonly string[]).includes(role);

/** What is to be said of a role that is not built in and that no policy in force names, so that none gives it anything. */
export async function unnamedRole(db: Db, role: string): Promise<string | undefined> {
  if (isBuiltin(role)) return undefined;
  const named = (await listRules(db))
    .filter(({ is_active }) => is_active)
    .flatMap((policy) => [policy.role, ...namesIn(parseRule(policy.rule)).roles.map((one) => one.role)]);
  if (named.includes(role)) return undefined;
  const near = nearest(role, new Set([...BUILTIN_ROLES, ...named.filter((one) => one !== '*')]));
  return `${role} is no built-in role, and no policy of the tenant names it: it may do only what policies for all roles (*) allow. Nearest: ${near.join(', ')}`;
}

/** Roles need not be declared, so one that nobody has may come later. */
export async function roleWarnings(db: Db, named: Named[]): Promise<FieldProblem[]> {
  const others = named.filter(({ role }) => !isBuiltin(role));
  if (others.length === 0) return [];
  const known = new Set<string>([...BUILTIN_ROLES, ...(await listRoles(db)).map(({ role }) => role)]);
  return others
    .filter(({ role }) => !known.has(role))
    .map(({ path, role }) => {
      const near = nearest(role, known).map((one) => JSON.stringify(one));
      return {
        path,
        message: `is a role that nobody has yet: ${JSON.stringify(role.slice(0, 100))}. Nearest: ${near.join(', ')}`,
      };
    });
}
