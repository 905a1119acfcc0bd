import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileRule } from './compile.ts';
import { type PolicyTarget, policyContext, withTarget } from './context.ts';
import { mayDependOnRow } from './decide.ts';
import { type Kept, keptOf } from './kept.ts';
import { compilePolicies } from './policy-set.ts';
import { keyOf, questionOfRecord, replayed } from './recorded.ts';

const v = (name: string) => ({ var: name });
const is = (name: string, value: unknown) => ({ '==': [v(name), value] });
const nothing = keptOf([]);

function asked(
  target: PolicyTarget | 'own',
  kept: Kept,
  more: { id?: string; time?: Date; ip?: string } = {},
) {
  const context = policyContext({
    role: 'user',
    action: 'read',
    resource: 'memory',
    tenant_id: 't1',
    identity: { id: more.id ?? 'me', claims: { password: 'hunter2' } },
    target,
    request: {
      method: 'GET',
      path: '/v1/memory/7',
      ip: more.ip ?? '192.0.2.1',
      time: more.time ?? new Date(0),
    },
  });
  return { context, target, kept, route: '/v1/memory/:memory_id' };
}
const row: PolicyTarget = {
  id: '7',
  owner: 'you',
  type: 'note',
  labels: { level: 'low', secret: 'x' },
  metadata: { client: 'acme', diary: 'dear diary', long: 'y'.repeat(400) },
};

test('what a rule reads is known by its full names; whose a row is, is no name', () => {
  const reads = (rule: unknown) => [...compileRule(rule).reads].sort();
  assert.deepEqual(reads({ and: [is('resource', 'memory'), is('target.metadata.client', 'x')] }), [
    'resource',
    'target.metadata.client',
  ]);
  assert.deepEqual(reads({ '==': [v('target.owner'), v('identity_id')] }), ['identity_id', 'target.own']);
  assert.deepEqual(reads({ '!=': [v('identity.id'), v('target.id')] }), ['identity_id', 'target.own']);
  assert.deepEqual(reads({ '==': [v('target.owner'), v('claims.boss')] }), ['claims.boss', 'target.owner']);
  assert.deepEqual(reads({ missing: ['target.labels.level', 'request.path'] }), [
    'request.path',
    'target.labels.level',
  ]);
  assert.deepEqual(reads({ var: [{ cat: ['tar', 'get'] }] }), ['*']);
});

test('a question is kept without what no policy reads: ids, owners, paths, labels and metadata', () => {
  assert.deepEqual(questionOfRecord(asked(row, nothing)), {
    role: 'user',
    action: 'read',
    resource: 'memory',
    identity_id: 'me',
    target: { own: false, type: 'note' },
    request: { method: 'GET', path: '/v1/memory/:memory_id' },
  });
  const kept = keptOf(['target.id', 'target.labels.level', 'memory_metadata.client.name', 'request.path']);
  assert.deepEqual(questionOfRecord(asked(row, kept)), {
    role: 'user',
    action: 'read',
    resource: 'memory',
    identity_id: 'me',
    target: { own: false, type: 'note', id: '7', labels: { level: 'low' }, metadata: { client: 'acme' } },
    request: { method: 'GET', path: '/v1/memory/7' },
  });
  const all = questionOfRecord(asked(row, keptOf(['*'])));
  assert.deepEqual(all.target, {
    own: false,
    type: 'note',
    id: '7',
    owner: 'you',
    labels: { level: 'low', secret: 'x' },
    metadata: { client: 'acme', diary: 'dear diary' },
  });
  assert.doesNotMatch(JSON.stringify(all), /hunter2|192\.0\.2/);
});

test('questions that are kept alike have one key, whenever and from wherever they are asked', () => {
  const key = (target: PolicyTarget | 'own', kept = nothing, more = {}) => keyOf(asked(target, kept, more));
  assert.equal(key(row), key({ ...row, id: '8', owner: 'another', metadata: {}, labels: null }));
  assert.equal(key(row), key(row, nothing, { time: new Date(), ip: '192.0.2.9' }));
  const other = [
    key(row),
    key({ ...row, owner: 'me' }),
    key({ ...row, type: 'task' }),
    key('own'),
    key(row, nothing, { id: 'you' }),
  ];
  assert.equal(new Set(other).size, other.length);
  const kept = keptOf(['target.metadata.client']);
  assert.equal(key(row, kept), key({ ...row, metadata: { client: 'acme' } }, kept));
  assert.notEqual(key(row, kept), key({ ...row, metadata: { client: 'other' } }, kept));
});

test('a replayed question is decided as it was asked, as far as policies looked', () => {
  const kept = keptOf(['target.id', 'target.labels.level']);
  const original = asked({ ...row, owner: 'me' }, kept);
  const again = replayed(
    't1',
    questionOfRecord(original),
    { time: '2026-11-23T10:00:00.000Z', ip: '192.0.2.1' },
    { id: 'me', external_id: 'me@example.com', role: 'user', claims: { team: 'x' } },
    undefined,
  );
  assert.deepEqual(
    [again.target?.owner, again.target?.id, again.target?.labels, again.memory_type, again.claims.team],
    ['me', '7', { level: 'low' }, 'note', 'x'],
  );
  assert.deepEqual([again.request.ip, again.request.weekday], ['192.0.2.1', 0]);
  const foreign = replayed(
    't1',
    questionOfRecord(asked(row, nothing)),
    { time: '2026-11-23T10:00:00.000Z', ip: null },
    { id: 'me', external_id: '', role: 'user', claims: {} },
    undefined,
  );
  assert.notEqual(foreign.target?.owner, 'me');
  assert.equal(foreign.target?.metadata, undefined);
});

test('drafts make decisions be kept with what they read, and decide nothing', () => {
  const base = { role: 'user', effect: 'allow' as const, priority: 0 };
  const set = compilePolicies([
    {
      ...base,
      id: 'draft',
      rule: { and: [is('resource', 'memory'), is('target.metadata.client', 'x')] },
      is_active: false,
    },
    { ...base, id: 'other', role: 'agent', rule: is('target.metadata.mood', 'x'), is_active: true },
  ]);
  const { kept, readsTarget, watchesTarget, all } = set.candidates('user', 'memory', 'read');
  assert.deepEqual([all.length, readsTarget, watchesTarget], [0, false, true]);
  assert.deepEqual(kept.metadata, new Set(['client']));
  assert.deepEqual(set.candidates('user', 'documents', 'read').kept, nothing);
});

test('a no before a row is known stands, unless a policy that looks at rows could come before it', () => {
  const rules = {
    row: { id: 'row', effect: 'allow' as const, rule: is('target.type', 'pdf') },
    plain: { id: 'plain', effect: 'deny' as const, rule: is('resource', 'memory') },
    rowDeny: { id: 'rowDeny', effect: 'deny' as const, rule: { '!': [is('target.type', 'pdf')] } },
  };
  const may = (names: (keyof typeof rules)[], deciding: string | null) => {
    const set = compilePolicies(
      names.map((name, i) => ({ ...rules[name], role: 'user', priority: 10 - i, is_active: true })),
    );
    const context = withTarget(asked('own', nothing).context, 'own');
    const decision = {
      allowed: false,
      effect: 'deny' as const,
      policy_id: deciding,
      reason: 'policy' as const,
    };
    return mayDependOnRow(set, context, decision);
  };
  assert.equal(may(['row'], null), true);
  assert.equal(may(['row', 'plain'], 'plain'), true);
  assert.equal(may(['plain', 'row'], 'plain'), false);
  assert.equal(may(['rowDeny'], 'rowDeny'), true);
  assert.equal(may(['rowDeny'], null), false);
  assert.equal(may([], null), false);
});
