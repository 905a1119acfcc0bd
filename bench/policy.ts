/**
 * Time of one policy decision in process, with 1,000 policies in four shapes, against an empty set in the same run.
 *
 *   node bench/policy.ts [decisions a shape, default 200000]
 */
import { cpus } from 'node:os';
import { BUILTIN } from '../server/src/modules/access/policy/builtin.ts';
import { type PolicyContext, policyContext } from '../server/src/modules/access/policy/context.ts';
import { decide } from '../server/src/modules/access/policy/decide.ts';
import { compilePolicies, type PolicyRow } from '../server/src/modules/access/policy/policy-set.ts';

const POLICIES = 1_000;
const WARM_UP = 20_000;
const DECISIONS = Number(process.argv[2] ?? 200_000);

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

function measure(policies: readonly PolicyRow[]): Timing {
  const set = compilePolicies(policies);
  const asked = contexts();
  const start = process.hrtime.bigint();
  decide(set, BUILTIN, asked[0]!);
  const first = Number(process.hrtime.bigint() - start);
  for (let i = 0; i < WARM_UP; i++) decide(set, BUILTIN, pick(asked, i));
  const samples = new Float64Array(DECISIONS);
  let total = 0;
  for (let i = 0; i < DECISIONS; i++) {
    const context = pick(asked, i);
    const from = process.hrtime.bigint();
    decide(set, BUILTIN, context);
    samples[i] = Number(process.hrtime.bigint() - from);
    total += samples[i]!;
  }
  samples.sort();
  const at = (share: number) => samples[Math.floor(DECISIONS * share)]! / 1_000;
  return { first_us: first / 1_000, p50_us: at(0.5), p99_us: at(0.99), mean_us: total / DECISIONS / 1_000 };
}

const processors = cpus();
console.log(`${processors[0]?.model.trim()} · ${processors.length} cores · node ${process.version}`);
console.log(
  `${POLICIES} policies, ${DECISIONS} decisions a shape; microseconds a decision, clock reads included\n`,
);
measure([]);
const empty = measure([]);
const table = [{ shape: 'no policies (built-in only)', timing: empty }];
for (const shape of SHAPES) table.push({ shape: shape.name, timing: measure(rows(shape)) });
console.log('| policies | first | p50 | p99 | mean | p99 against none |');
console.log('|---|---|---|---|---|---|');
for (const { shape, timing } of table) {
  const { first_us, p50_us, p99_us, mean_us } = timing;
  const cells = [first_us, p50_us, p99_us, mean_us].map((value) => value.toFixed(2));
  console.log(`| ${shape} | ${cells.join(' | ')} | ${(p99_us / empty.p99_us).toFixed(1)}x |`);
}
