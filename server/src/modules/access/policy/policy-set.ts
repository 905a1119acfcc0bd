import { OWN } from './analyse.ts';
import { type CompiledRule, compileRule } from './compile.ts';
import { TARGET_ATTRIBUTES } from './context.ts';
import { type Kept, keptOf } from './kept.ts';
import { readNamed } from './operators.ts';
import { RuleError } from './parse.ts';

/** A stored policy, as far as deciding needs it. `role` may be `*`. */
export type PolicyRow = {
  id: string;
  role: string;
  rule: unknown;
  effect: 'allow' | 'deny';
  priority: number;
  is_active: boolean;
  code?: string | null;
  message?: string | null;
};

/** An active policy that could not be used as written: an allow is ignored, a deny denies its whole role. */
export type PolicyProblem = {
  policy_id: string;
  effect: string;
  path: string;
  code: string;
  message: string;
};

export type Entry = {
  readonly id: string;
  readonly role: string;
  readonly effect: 'allow' | 'deny';
  readonly priority: number;
  /** Place in the order of decision: priority, then deny before allow, then id. */
  readonly order: number;
  /** Null for a deny policy whose rule does not compile. */
  readonly rule: CompiledRule | null;
  /** True when its answer may differ from row to row. */
  readonly readsTarget: boolean;
  /** The same for rows of one owner: it asks for more than whether the row is the caller's own. */
  readonly readsMore: boolean;
  readonly code: string | null;
  readonly message: string | null;
};

/** The policies that can match one (role, resource, action), in the order of decision. */
export type Candidates = {
  readonly all: readonly Entry[];
  /** A second level: those bound to one attribute's value, under that value, and the others. */
  readonly split: {
    path: string;
    buckets: ReadonlyMap<string, readonly Entry[]>;
    rest: readonly Entry[];
  } | null;
  readonly readsTarget: boolean;
  /** The same, with the policies that are not active. */
  readonly watchesTarget: boolean;
  /** What a recorded decision keeps of the question; policies that are not active count, so that a draft can be tried. */
  readonly kept: Kept;
};

/** A tenant's policies, compiled and indexed. Build it once per change of the policies and share it. */
export type PolicySet = {
  readonly size: number;
  readonly problems: readonly PolicyProblem[];
  /** Every entry that concerns a role, in the order of decision. */
  entriesFor(role: string): readonly Entry[];
  candidates(role: string, resource: string, action: string): Candidates;
};

const MAX_REMEMBERED = 4_096;
const SPLIT_FROM = 8;
const NONE: readonly Entry[] = [];
const targetAttributes: ReadonlySet<string> = new Set(TARGET_ATTRIBUTES);

/** Compiles and indexes policies. Never throws: what does not compile never allows, and is listed in `problems`. */
export function compilePolicies(rows: readonly PolicyRow[]): PolicySet {
  const problems: PolicyProblem[] = [];
  const usable = rows.filter((row) => row.is_active).flatMap((row) => compileRow(row, problems));
  const entries = usable.sort(byOrder).map((entry, order) => ({ ...entry, order }));
  const everyone = entries.filter((entry) => entry.role === '*');
  const byRole = new Map<string, readonly Entry[]>();
  for (const role of new Set(entries.map((entry) => entry.role))) {
    byRole.set(role, role === '*' ? everyone : entries.filter((e) => e.role === role || e.role === '*'));
  }
  const entriesFor = (role: string): readonly Entry[] => byRole.get(role) ?? everyone;
  const drafts = rows.filter((row) => !row.is_active).flatMap((row) => compileRow(row, []));
  const find = (role: string, resource: string, action: string): Candidates => {
    const concerned = (entry: Entry) => concerns(entry, role, resource, action);
    const watching = drafts.filter(
      (entry) => (entry.role === role || entry.role === '*') && concerned(entry),
    );
    return indexed(entriesFor(role).filter(concerned), watching);
  };
  return { size: entries.length, problems, entriesFor, candidates: remembered(find) };
}

/** The two lists (each in order of decision) that hold every policy which can match this context. */
export function relevant(
  candidates: Pick<Candidates, 'all' | 'split'>,
  context: unknown,
): [readonly Entry[], readonly Entry[]] {
  const { split } = candidates;
  if (split === null) return [candidates.all, NONE];
  const value = readNamed(context, split.path);
  if (value === undefined) return [split.rest, NONE];
  // Only a string is certain to equal none of the other constants: 5 == "5", ["a"] == "a".
  if (typeof value !== 'string') return [candidates.all, NONE];
  return [split.buckets.get(value) ?? NONE, split.rest];
}

/** False when a constant guard of the policy rules this context out, whatever the rest of its rule says. */
export function guardsAdmit(entry: Entry, context: unknown): boolean {
  for (const [path, allowed] of entry.rule?.guards ?? []) {
    const value = readNamed(context, path);
    if (value === undefined || (typeof value === 'string' && !allowed.has(value))) return false;
  }
  return true;
}

function concerns(entry: Entry, role: string, resource: string, action: string): boolean {
  const guards = entry.rule?.guards;
  if (!guards) return true;
  const admits = (name: string, value: string) => guards.get(name)?.has(value) ?? true;
  return admits('resource', resource) && admits('action', action) && admits('role', role);
}

function compileRow(row: PolicyRow, problems: PolicyProblem[]): Entry[] {
  const { id, priority, code = null, message = null } = row;
  try {
    if (row.effect !== 'allow' && row.effect !== 'deny') throw invalid('effect', 'is neither allow nor deny');
    if (typeof row.role !== 'string') throw invalid('role', 'is not text');
    if (!Number.isFinite(priority)) throw invalid('priority', 'is not a finite number');
    const { role, effect } = row;
    const rule = compileRule(row.rule);
    const read = [...rule.reads].filter((name) => targetAttributes.has(name.split('.', 1)[0]!));
    const readsMore = read.some((name) => name !== OWN);
    return [
      { id, role, effect, priority, order: 0, rule, readsTarget: read.length > 0, readsMore, code, message },
    ];
  } catch (error) {
    const cause = error instanceof RuleError ? error : invalid('rule', 'can not be read');
    problems.push({
      policy_id: id,
      effect: row.effect,
      path: cause.path,
      code: cause.code,
      message: cause.message,
    });
    if (row.effect === 'allow') return [];
    // Nobody can tell whom a broken deny meant to stop, so it stops its whole role.
    const role = typeof row.role === 'string' ? row.role : '*';
    const certain = Number.isFinite(priority) ? priority : Number.MAX_SAFE_INTEGER;
    const known = { id, role, priority: certain, order: 0, code, message };
    return [{ ...known, effect: 'deny', rule: null, readsTarget: false, readsMore: false }];
  }
}

function invalid(field: string, what: string): RuleError {
  return new RuleError('', 'not_an_expression', `The policy's ${field} ${what}.`);
}

function byOrder(a: Entry, b: Entry): number {
  if (a.priority !== b.priority) return b.priority - a.priority;
  if (a.effect !== b.effect) return a.effect === 'deny' ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function indexed(all: readonly Entry[], drafts: readonly Entry[]): Candidates {
  const readsTarget = all.some((entry) => entry.readsTarget);
  const watchesTarget = readsTarget || drafts.some((entry) => entry.readsTarget);
  const kept = keptOf(new Set([...all, ...drafts].flatMap((entry) => [...(entry.rule?.reads ?? [])])));
  const path = all.length < SPLIT_FROM ? null : commonestGuard(all);
  if (path === null) return { all, split: null, readsTarget, watchesTarget, kept };
  const buckets = new Map<string, Entry[]>();
  const rest: Entry[] = [];
  for (const entry of all) {
    const values = entry.rule?.guards.get(path);
    if (!values) rest.push(entry);
    for (const value of values ?? []) {
      const bucket = buckets.get(value);
      if (bucket) bucket.push(entry);
      else buckets.set(value, [entry]);
    }
  }
  return { all, split: { path, buckets, rest }, readsTarget, watchesTarget, kept };
}

/** The attribute that most policies bind to constants, other than the three that chose the candidates. */
function commonestGuard(entries: readonly Entry[]): string | null {
  const counts = new Map<string, number>();
  for (const entry of entries) {
    for (const path of entry.rule?.guards.keys() ?? []) {
      if (path !== 'role' && path !== 'resource' && path !== 'action')
        counts.set(path, (counts.get(path) ?? 0) + 1);
    }
  }
  const [best] = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return best && best[1] >= SPLIT_FROM ? best[0] : null;
}

/** Remembers answers by the three names. Names may come from a caller, so the memory is bounded. */
function remembered(find: PolicySet['candidates']): PolicySet['candidates'] {
  let count = 0;
  const roles = new Map<string, Map<string, Map<string, Candidates>>>();
  return (role, resource, action) => {
    const known = roles.get(role)?.get(resource)?.get(action);
    if (known) return known;
    if (count >= MAX_REMEMBERED) {
      roles.clear();
      count = 0;
    }
    count += 1;
    const found = find(role, resource, action);
    const resources = roles.get(role) ?? new Map<string, Map<string, Candidates>>();
    const actions = resources.get(resource) ?? new Map<string, Candidates>();
    roles.set(role, resources.set(resource, actions.set(action, found)));
    return found;
  };
}
