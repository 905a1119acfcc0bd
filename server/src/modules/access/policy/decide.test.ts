import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BUILTIN } from './builtin.ts';
import { compileRule, evaluate } from './compile.ts';
import { type PolicyContext, type PolicyTarget, policyContext, withTarget } from './context.ts';
import { type Decision, decide, dependsOnTarget, explainDecision, mayReachOthers, narrow } from './decide.ts';
import { compilePolicies, type PolicyRow } from './policy-set.ts';

type Question = {
  role?: string;
  action?: string;
  resource?: string;
  target?: PolicyTarget | 'own' | null;
  claims?: object;
};

function ask(question: Question = {}): PolicyContext {
  const {
    role = 'user',
    action = 'read',
    resource = 'memory',
    target = { owner: 'me' },
    claims = {},
  } = question;
  const identity = { id: 'me', external_id: 'me@example.com', claims: { ...claims } };
  return policyContext({ role, action, resource, tenant_id: 't1', identity, target });
}

let made = 0;
function policy(rule: unknown, rest: Partial<PolicyRow> = {}): PolicyRow {
  made += 1;
  return { id: `p${made}`, role: '*', rule, effect: 'allow', priority: 0, is_active: true, ...rest };
}

function outcome(rows: PolicyRow[], question?: Question): Decision {
  return decide(compilePolicies(rows), BUILTIN, ask(question));
}

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const EXPLODING = {
  all: [Array(99).fill(1), { all: [Array(99).fill(1), { all: [Array(99).fill(1), true] }] }],
};

test('the highest priority decides, then deny before allow, then the built-in policy, then no', () => {
  const deny = policy(true, { id: 'deny', effect: 'deny', priority: 5 });
  const allow = policy(true, { id: 'allow', priority: 5 });
  const higher = policy(true, { id: 'higher', priority: 6 });
  assert.deepEqual(outcome([allow, deny]), {
    allowed: false,
    effect: 'deny',
    policy_id: 'deny',
    reason: 'policy',
  });
  assert.equal(outcome([deny, allow, higher]).policy_id, 'higher');
  assert.equal(outcome([{ ...higher, is_active: false }, allow]).policy_id, 'allow');
  assert.deepEqual(outcome([]), {
    allowed: true,
    effect: 'allow',
    policy_id: 'builtin:user',
    reason: 'builtin',
  });
  assert.equal(outcome([], { role: 'stranger' }).reason, 'default_deny');
  assert.equal(outcome([policy(true, { role: 'other', effect: 'deny' })]).reason, 'builtin');
});

test('policies of equal standing are decided in the order of their ids', () => {
  const rows = ['b', 'a', 'c'].map((id) => policy(true, { id }));
  assert.equal(outcome(rows).policy_id, 'a');
  assert.equal(outcome(rows.reverse()).policy_id, 'a');
});

test('a value that is not exactly true is no match', () => {
  for (const rule of [1, 'true', [true], { or: [1] }, null, false]) {
    assert.equal(outcome([policy(rule, { effect: 'deny', priority: 9 })]).reason, 'builtin');
  }
});

test('the message and code of the deciding policy come with the decision', () => {
  const row = policy(true, { id: 'p', effect: 'deny', code: 'LOCKED', message: 'Closed for the audit.' });
  const { code, message } = outcome([row]);
  assert.deepEqual([code, message], ['LOCKED', 'Closed for the audit.']);
});

test('an invalid deny closes its role, an invalid allow is ignored, and both are reported', () => {
  const broken = { nonsense: [1] };
  const deny = policy(broken, { id: 'bad-deny', role: 'user', effect: 'deny' });
  const allow = policy(broken, { id: 'bad-allow', role: 'stranger' });
  const set = compilePolicies([deny, allow, policy({}, { is_active: false })]);
  assert.deepEqual(
    set.problems.map((p) => [p.policy_id, p.path, p.code]),
    [
      ['bad-deny', '/nonsense', 'unknown_operator'],
      ['bad-allow', '/nonsense', 'unknown_operator'],
    ],
  );
  const closed = { allowed: false, effect: 'deny', policy_id: 'bad-deny', reason: 'invalid_policy' };
  assert.deepEqual(decide(set, BUILTIN, ask()), closed);
  assert.equal(decide(set, BUILTIN, ask({ role: 'reader' })).allowed, true);
  assert.equal(decide(set, BUILTIN, ask({ role: 'stranger' })).allowed, false);
  assert.equal(outcome([deny, policy(true, { priority: 1 })]).allowed, true, 'priority still decides');
});

test('rows that the database should never hold fail closed', () => {
  const odd = [
    { effect: 'perhaps' },
    { role: 7, effect: 'deny' },
    { priority: Number.NaN, effect: 'deny' },
  ] as unknown as Partial<PolicyRow>[];
  for (const rest of odd) {
    const set = compilePolicies([policy(true, rest)]);
    assert.equal(decide(set, BUILTIN, ask()).allowed, false);
    assert.equal(set.problems.length, 1);
  }
  const nameless = { ...ask(), role: undefined } as unknown as PolicyContext;
  assert.equal(decide(compilePolicies([policy(true)]), BUILTIN, nameless).allowed, false);
});

test('a rule that can not finish never allows, and denies when it is a deny that concerns the request', () => {
  assert.equal(outcome([policy(EXPLODING)], { role: 'stranger' }).reason, 'default_deny');
  assert.equal(outcome([policy(EXPLODING, { effect: 'deny' })]).reason, 'policy_error');
  const elsewhere = policy({ and: [EXPLODING, is('resource', 'documents')] }, { effect: 'deny' });
  assert.equal(outcome([elsewhere]).reason, 'builtin');
  const team = policy({ and: [EXPLODING, is('claims.team', 'x')] }, { effect: 'deny' });
  assert.equal(outcome([team]).reason, 'builtin');
  assert.equal(outcome([team], { claims: { team: 'x' } }).reason, 'policy_error');
  const many = Array.from({ length: 100 }, () => policy(EXPLODING, { priority: 1 }));
  const spent = outcome([...many, policy(true)]);
  assert.deepEqual(
    [spent.allowed, spent.reason],
    [false, 'policy_error'],
    'one decision has a budget of its own',
  );
});

test('a missing claim does not widen access through a negative comparison', () => {
  const rows = [policy({ '!=': [{ var: 'identity.claims.team' }, 'contractors'] }, { role: 'stranger' })];
  assert.equal(outcome(rows, { role: 'stranger' }).allowed, false);
  assert.equal(outcome(rows, { role: 'stranger', claims: { team: 'staff' } }).allowed, true);
});

test('rules see the aliases of both originals', () => {
  const rule = {
    and: [
      is('identity_id', 'me'),
      is('external_id', 'me@example.com'),
      is('claims.team', 'x'),
      is('memory_type', 'note'),
      is('memory_metadata.client', 3),
      is('target.labels.0', 'hot'),
    ],
  };
  const target = { owner: 'you', type: 'note', metadata: { client: 3 }, labels: ['hot'] };
  assert.equal(outcome([policy(rule)], { claims: { team: 'x' }, target }).reason, 'policy');
  const other = { owner: null, type: 'task', metadata: { client: 3 }, labels: ['hot'] };
  const moved = withTarget(ask({ claims: { team: 'x' }, target }), other);
  assert.equal(moved.memory_type, 'task');
  assert.equal(moved.target?.owner, undefined);
  assert.equal(ask({ resource: 'identity', target: { role: 'admin' } }).target_role, 'admin');
  assert.equal('memory_type' in ask({ resource: 'documents', target: { type: 'pdf' } }), false);
});

test('a list knows whether its rows may differ before it reads them', () => {
  const plain = policy({ and: [is('resource', 'memory'), is('claims.team', 'x')] }, { role: 'auditor' });
  const byRow = policy({ and: [is('resource', 'documents'), is('target.type', 'pdf')] }, { role: 'auditor' });
  const computed = policy({ and: [is('resource', 'runs'), { var: [{ var: 'claims.which' }] }] });
  const set = compilePolicies([
    plain,
    byRow,
    computed,
    policy({ and: [is('resource', 'events'), { missing: ['target.id'] }] }),
  ]);
  const depends = (resource: string, role = 'auditor') => dependsOnTarget(set, role, 'list', resource);
  assert.deepEqual(
    [depends('memory'), depends('documents'), depends('runs'), depends('events')],
    [false, true, true, true],
  );
  assert.equal(depends('documents', 'reader'), false);
  const rows = (question: Question) =>
    narrow(set, BUILTIN, ask({ action: 'list', target: null, ...question }));
  assert.equal(rows({ role: 'auditor', claims: { team: 'x' } }), 'all');
  assert.equal(rows({ role: 'auditor' }), 'none');
  assert.equal(rows({ role: 'auditor', resource: 'documents' }), 'each');
  assert.equal(rows({ role: 'user' }), 'own');
  assert.equal(rows({ role: 'admin' }), 'all');
});

test('a list knows whether a row of somebody else could be let through', () => {
  const memory = is('resource', 'memory');
  const own = { '==': [{ var: 'target.owner' }, { var: 'identity_id' }] };
  const secret = { and: [memory, is('memory_type', 'secret')] };
  const report = { and: [memory, is('memory_type', 'report')] };
  const others = (role: string, ...policies: PolicyRow[]) =>
    mayReachOthers(compilePolicies(policies), BUILTIN, ask({ role, action: 'list', target: null }));
  const deny = (rule: unknown, priority = 10) => policy(rule, { effect: 'deny', priority, role: '*' });
  const allow = (rule: unknown, priority = 5) => policy(rule, { priority, role: '*' });
  assert.deepEqual([others('user'), others('auditor'), others('admin')], [false, false, true]);
  assert.equal(others('user', deny(secret)), false);
  assert.equal(others('admin', deny(secret)), true);
  assert.equal(others('user', allow(report)), true);
  assert.equal(others('user', deny(secret), allow({ and: [memory, own] })), false);
  assert.equal(others('user', deny(secret), allow(memory)), true);
  assert.equal(others('user', allow(report), deny(memory)), false, 'the deny stands before the allow');
  assert.equal(others('user', allow(report, 20), deny(memory)), true);
  assert.equal(others('admin', deny({ and: [memory, { '!': own }] }), deny(secret)), false);
  assert.equal(others('admin', deny({ nonsense: 1 })), false);
  assert.equal(others('user', allow({ and: [memory, { '!': own }] })), true);
});

test('an explained decision lists the policies asked and the expression each failed on', () => {
  const first = policy({ and: [is('action', 'read'), is('claims.team', 'x')] }, { id: 'first', priority: 3 });
  const second = policy({ nonsense: 1 }, { id: 'second', priority: 2, effect: 'deny', role: 'reader' });
  const third = policy({ '!=': [{ var: 'action' }, 'delete'] }, { id: 'third', priority: 1 });
  const never = policy(true, { id: 'never' });
  const set = compilePolicies([never, first, second, third]);
  const { decision, trace } = explainDecision(set, BUILTIN, ask());
  assert.equal(decision.policy_id, 'third');
  assert.deepEqual(trace, [
    {
      policy_id: 'first',
      effect: 'allow',
      priority: 3,
      outcome: 'not_matched',
      failed: { path: '/and/1/==', operator: '==', value: false, operands: [null, 'x'] },
    },
    { policy_id: 'third', effect: 'allow', priority: 1, outcome: 'matched', failed: null },
  ]);
  assert.equal(explainDecision(set, BUILTIN, ask({ role: 'reader' })).trace[1]?.outcome, 'invalid');
  const foreign = explainDecision(compilePolicies([]), BUILTIN, ask({ target: { owner: 'you' } }));
  assert.deepEqual(
    foreign.trace[0]?.failed?.operands,
    ['you', 'me'],
    'the alternative that came closest is shown',
  );
});

// A second, slow reading of the rules of decision: every policy in turn, no index, no shared code but the evaluator.
function decideNaively(rows: PolicyRow[], context: PolicyContext): string | null {
  const rank = (row: PolicyRow) => [-row.priority, row.effect === 'deny' ? 0 : 1, row.id] as const;
  const sorted = rows
    .filter((row) => row.is_active && (row.role === '*' || row.role === context.role))
    .sort((a, b) => {
      const [x, y] = [rank(a), rank(b)];
      return x[0] - y[0] || x[1] - y[1] || (x[2] < y[2] ? -1 : 1);
    });
  return sorted.find((row) => evaluate(compileRule(row.rule), context).value === true)?.id ?? null;
}

const words = fc.constantFrom('read', 'list', 'memory', 'documents', 'user', 'x', 'y', '5', '');
const paths = fc.constantFrom(
  'action',
  'resource',
  'role',
  'claims.team',
  'claims.more',
  'target.type',
  'nope',
);
const leaf = fc.oneof(
  fc
    .tuple(fc.constantFrom('==', '===', '!='), paths, words)
    .map(([op, path, word]) => ({ [op]: [{ var: path }, word] })),
  fc.tuple(words, paths).map(([word, path]) => ({ '==': [word, { var: path }] })),
  fc.tuple(paths, fc.array(words, { maxLength: 3 })).map(([path, list]) => ({ in: [{ var: path }, list] })),
  fc.tuple(paths, words).map(([path, word]) => ({ '==': [{ var: [path, word] }, word] })),
  fc.constantFrom<unknown>(true, false, 1, 'x'),
);
const { rule: rules } = fc.letrec<{ rule: unknown }>((tie) => ({
  rule: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    leaf,
    fc.array(tie('rule'), { minLength: 1, maxLength: 3 }).map((args) => ({ and: args })),
    fc.array(tie('rule'), { minLength: 1, maxLength: 3 }).map((args) => ({ or: args })),
    tie('rule').map((arg) => ({ '!': [arg] })),
    tie('rule').map((arg) => ({ if: [arg, true, false] })),
  ),
}));
const guarded = fc
  .tuple(fc.constantFrom('x', 'y', '5'), rules)
  .map(([team, rule]) => ({ and: [{ '==': [{ var: 'claims.team' }, team] }, rule] }));
const policiesOf = (rule: fc.Arbitrary<unknown>, minLength: number) =>
  fc
    .array(
      fc.record({
        role: fc.constantFrom('*', 'user', 'other'),
        rule,
        effect: fc.constantFrom<'allow' | 'deny'>('allow', 'deny'),
        priority: fc.integer({ min: 0, max: 2 }),
        is_active: fc.constantFrom(true, true, true, false),
      }),
      { minLength, maxLength: 40, size: 'max' },
    )
    .map((list) => list.map((row, i) => ({ ...row, id: `p${i}` })));
const sparse = policiesOf(fc.oneof(rules, guarded), 0);
// Enough policies on one claim for the second level of the index to be used.
const dense = policiesOf(fc.oneof({ weight: 4, arbitrary: guarded }, { weight: 1, arbitrary: leaf }), 25);
const questions = fc.record(
  {
    role: fc.constantFrom('user', 'other', 'stranger'),
    action: fc.constantFrom('read', 'list', 'x'),
    resource: fc.constantFrom('memory', 'documents', ''),
    claims: fc.record(
      { team: fc.constantFrom<unknown>('x', 'y', 5, ['x'], null, true), more: words },
      { requiredKeys: [] },
    ),
    target: fc.record({ type: words }, { requiredKeys: [] }),
  },
  { requiredKeys: ['role', 'action', 'resource'] },
);

test('the indexed decision equals the naive one', () => {
  const none = compilePolicies([]);
  const property = fc.property(
    fc.oneof(sparse, dense),
    fc.array(questions, { minLength: 1, maxLength: 5 }),
    (rows, asked) => {
      const set = compilePolicies(rows);
      for (const question of asked) {
        const context = ask(question);
        assert.equal(decide(set, none, context).policy_id, decideNaively(rows, context));
      }
    },
  );
  fc.assert(property, { numRuns: 1_000 });
});

test('whatever the rule and the context, evaluation ends without throwing', () => {
  const property = fc.property(
    rules,
    fc.anything({ withNullPrototype: true, withDate: true, withMap: true }),
    (rule, context) => {
      const { value, error } = evaluate(compileRule(rule), context);
      assert.ok(error === null || value === null);
    },
  );
  fc.assert(property, { numRuns: 1_000 });
});

test('a thousand policies for one permission are looked up by the claim that tells them apart', () => {
  const rows = Array.from({ length: 1_000 }, (_, i) =>
    policy({ and: [is('resource', 'memory'), is('claims.team', `team-${i}`)] }, { id: `t${i}` }),
  );
  const set = compilePolicies(rows);
  assert.equal(decide(set, BUILTIN, ask({ claims: { team: 'team-731' } })).policy_id, 't731');
  const { split } = set.candidates('user', 'memory', 'read');
  assert.deepEqual([split?.path, split?.buckets.size, split?.rest.length], ['claims.team', 1_000, 0]);
});

test('where no row of somebody else could be let through, none is', () => {
  const own = { '==': [{ var: 'target.owner' }, { var: 'identity_id' }] };
  const rule = fc.oneof(
    rules,
    rules.map((inner) => ({ and: [own, inner] })),
    fc.constant(own),
  );
  let closed = 0;
  const property = fc.property(
    policiesOf(rule, 0),
    questions,
    fc.array(words, { minLength: 3 }),
    (rows, question, types) => {
      const set = compilePolicies(rows);
      const context = ask(question);
      if (mayReachOthers(set, BUILTIN, context)) return;
      closed += 1;
      for (const type of types)
        assert.equal(decide(set, BUILTIN, withTarget(context, { owner: 'you', type })).allowed, false);
    },
  );
  fc.assert(property, { numRuns: 500 });
  assert.ok(closed > 50, `closed ${closed} times`);
});
