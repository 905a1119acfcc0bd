/**
 * Time of one policy decision in process, with 1,000 policies in four shapes, against an empty set in the same run and
 * against json-logic-js asked rule by rule; and what it costs to authenticate and authorise a request.
 *
 *   node bench/policy.ts [decisions a shape, default 200000]
 */
import { cpus, loadavg } from 'node:os';
import jsonLogic from 'json-logic-js';
import { ACTION_WORDS } from '../server/src/modules/access/policy/action-words.ts';
import { BUILTIN, BUILTIN_POLICIES } from '../server/src/modules/access/policy/builtin.ts';
import { type PolicyContext, policyContext } from '../server/src/modules/access/policy/context.ts';
import { decide } from '../server/src/modules/access/policy/decide.ts';
import { compilePolicies, type PolicyRow } from '../server/src/modules/access/policy/policy-set.ts';
import { measureAdmission } from './admission.ts';

const POLICIES = 1_000;
const WARM_UP = 20_000;
const DECISIONS = Number(process.argv[2] ?? 200_000);
const THEIR_DECISIONS = Math.max(1_000, DECISIONS / 100);
const TARGET_US = 20;

const ROLES = ['*', 'reader', 'editor', 'agent', 'user', 'advisor', 'compliance', 'support'];
const RESOURCES = ['memory', 'identity', 'documents', 'corpora', 'runs', 'policy', 'webhooks', 'events'];
const ACTIONS = ['create', 'read', 'list', 'update', 'delete', 'search'];

const pick = <T>(list: readonly T[], i: number): T => list[i % list.length]!;
const is = (name: string, value: string) => ({ '==': [{ var: name }, value] });

type Shape = { name: string; rule: (i: number) => unknown; role: (i: number) => string };

const SHAPES: Shape[] = [
  {
    name: 'mixed roles, resources, actions',
    role: (i) => pick(ROLES, i),
    rule: (i) => ({
      and: [
        is('resource', pick(RESOURCES, i >> 3)),
        { in: [{ var: 'action' }, [pick(ACTIONS, i), pick(ACTIONS, i + 1)]] },
        is('identity.claims.team', `team-${i % 40}`),
        { '<': [{ var: 'identity.claims.level' }, 3] },
      ],
    }),
  },
  {
    name: 'one permission, a claim each',
    role: () => 'user',
    rule: (i) => ({
      and: [is('resource', 'memory'), is('action', 'read'), is('identity.claims.team', `team-${i}`)],
    }),
  },
  {
    name: 'one permission, claim and owner rules mixed',
    role: () => 'user',
    rule: (i) =>
      i % 50 === 0
        ? { and: [is('resource', 'memory'), { '>': [{ var: 'identity.claims.level' }, 100 + i] }] }
        : { and: [is('resource', 'memory'), is('action', 'read'), is('identity.claims.team', `team-${i}`)] },
  },
  {
    name: 'worst case: no constant in any rule',
    role: () => '*',
    rule: (i) => ({ '>': [{ var: 'identity.claims.level' }, 100 + i] }),
  },
];

function rows(shape: Shape): PolicyRow[] {
  return Array.from({ length: POLICIES }, (_, i) => ({
    id: `p${i}`,
    role: shape.role(i),
    rule: shape.rule(i),
    effect: i % 5 === 0 ? 'deny' : 'allow',
    priority: i % 10,
    is_active: true,
  }));
}

function contexts(): PolicyContext[] {
  return Array.from({ length: 1_000 }, (_, i) =>
    policyContext({
      role: pick(ROLES.slice(1), i),
      action: pick(ACTIONS, i * 7),
      resource: i % 2 === 0 ? 'memory' : pick(RESOURCES, i * 3),
      tenant_id: 't1',
      identity: { id: `i${i}`, claims: { team: `team-${i}`, level: i % 6 } },
      target: { id: `m${i}`, owner: `i${i % 3 === 0 ? i : 0}`, type: 'note', metadata: { client: i } },
      request: { method: 'GET', path: '/v1/memory/x', ip: '192.0.2.1', route_class: 'read' },
    }),
  );
}

type Timing = { first_us: number; p50_us: number; p99_us: number; mean_us: number };
type Decides = (context: PolicyContext) => string | null;

function measure(decideOne: Decides, decisions: number): Timing {
  const asked = contexts();
  const start = process.hrtime.bigint();
  decideOne(asked[0]!);
  const first = Number(process.hrtime.bigint() - start);
  for (let i = 0; i < Math.min(WARM_UP, decisions); i++) decideOne(pick(asked, i));
  const samples = new Float64Array(decisions);
  let total = 0;
  for (let i = 0; i < decisions; i++) {
    const context = pick(asked, i);
    const from = process.hrtime.bigint();
    decideOne(context);
    samples[i] = Number(process.hrtime.bigint() - from);
    total += samples[i]!;
  }
  samples.sort();
  const at = (share: number) => samples[Math.floor(decisions * share)]! / 1_000;
  return { first_us: first / 1_000, p50_us: at(0.5), p99_us: at(0.99), mean_us: total / decisions / 1_000 };
}

function ours(policies: readonly PolicyRow[]): Decides {
  const set = compilePolicies(policies);
  return (context) => decide(set, BUILTIN, context).policy_id;
}

/** In our rules the word `read` stands for list and search as well; elsewhere that has to be written out. */
function spelledOut(rule: unknown): unknown {
  if (Array.isArray(rule)) return rule.map(spelledOut);
  if (typeof rule !== 'object' || rule === null) return rule;
  const [[operator, args]] = Object.entries(rule) as [[string, unknown]];
  const [left, right] = Array.isArray(args) ? args : [args];
  if ((left as { var?: string } | null)?.var !== 'action') return { [operator]: spelledOut(args) };
  const words = [right].flat().flatMap((word) => ACTION_WORDS.get(word) ?? [word]);
  return { in: [left, words] };
}

/** The same decision as anybody would write it with json-logic-js: the policies in their order, until one is true. */
function theirs(policies: readonly PolicyRow[]): Decides {
  const rank = (row: PolicyRow) => (row.effect === 'deny' ? 0 : 1);
  const asked = [...policies, ...BUILTIN_POLICIES.map((row) => ({ ...row, priority: -1 }))];
  const sorted = asked
    .map((row) => ({ ...row, rule: spelledOut(row.rule) }))
    .sort((a, b) => b.priority - a.priority || rank(a) - rank(b) || (a.id < b.id ? -1 : 1));
  return (context) => {
    for (const { id, role, rule } of sorted) {
      if (role !== '*' && role !== context.role) continue;
      if (jsonLogic.apply(rule as never, context) === true) return id;
    }
    return null;
  };
}

const processors = cpus();
console.log(
  `${processors[0]?.model.trim()} · ${processors.length} cores · node ${process.version} · load ${loadavg()[0]?.toFixed(2)}`,
);
console.log(
  `${POLICIES} policies, ${DECISIONS} decisions a shape (json-logic-js: ${THEIR_DECISIONS}); microseconds a decision, clock reads included\n`,
);
measure(ours([]), DECISIONS);
const empty = measure(ours([]), DECISIONS);
const table: { shape: string; timing: Timing }[] = [{ shape: 'no policies (built-in only)', timing: empty }];
for (const shape of SHAPES) {
  const policies = rows(shape);
  const [one, other] = [ours(policies), theirs(policies)];
  const unlike = contexts().filter((context) => one(context) !== other(context)).length;
  if (unlike > 0) throw new Error(`${shape.name}: ${unlike} decisions differ from json-logic-js`);
  table.push({ shape: shape.name, timing: measure(one, DECISIONS) });
  table.push({ shape: '- with json-logic-js', timing: measure(other, THEIR_DECISIONS) });
}
console.log('| policies | first | p50 | p99 | mean | p99 against none | target |');
console.log('|---|---|---|---|---|---|---|');
for (const { shape, timing } of table) {
  const { first_us, p50_us, p99_us, mean_us } = timing;
  const cells = [first_us, p50_us, p99_us, mean_us].map((value) => value.toFixed(2));
  const verdict = shape.startsWith('- ')
    ? ''
    : p99_us < TARGET_US
      ? `< ${TARGET_US} ok`
      : `< ${TARGET_US} MISSED`;
  console.log(`| ${shape} | ${cells.join(' | ')} | ${(p99_us / empty.p99_us).toFixed(1)}x | ${verdict} |`);
}
console.log(
  '\nauthenticate and authorise, caches warm, 1,000 policies in the tenant; microseconds of processor time\n',
);
console.log('| credential | policies of its role | mean | of it authorise | target |');
console.log('|---|---|---|---|---|');
for (const { credential, policies, mean_us, authorise_us } of await measureAdmission(rows(SHAPES[0]!)))
  console.log(
    `| ${credential} | ${policies} | ${mean_us.toFixed(1)} | ${authorise_us.toFixed(1)} | ${mean_us < 60 ? '< 60 ok' : '< 60 MISSED'} |`,
  );
