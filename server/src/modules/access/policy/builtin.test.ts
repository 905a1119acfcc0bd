import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BUILTIN,
  BUILTIN_POLICIES,
  BUILTIN_ROLES,
  mayGive,
  type Permission,
  RESOURCE_ACTIONS,
  splitPermission,
} from './builtin.ts';
import { type PolicyTarget, policyContext } from './context.ts';
import { decide } from './decide.ts';
import { compilePolicies } from './policy-set.ts';

const NO_POLICIES = compilePolicies([]);

function may(role: string, permission: string, target: PolicyTarget | 'own' | null): boolean {
  const { resource, action } = splitPermission(permission as Permission);
  const identity = { id: 'me' };
  return decide(
    NO_POLICIES,
    BUILTIN,
    policyContext({ role, action, resource, tenant_id: 't1', identity, target }),
  ).allowed;
}

const ALL = Object.entries(RESOURCE_ACTIONS).flatMap(([resource, actions]) =>
  actions.map((a) => `${resource}:${a}`),
);
const TENANTS = ALL.filter((permission) => permission.startsWith('tenants:'));
const IN_TENANT = ALL.filter((permission) => !TENANTS.includes(permission));
const MEMORY = ['create', 'read', 'list', 'search', 'update', 'delete'].map((action) => `memory:${action}`);
const KNOWLEDGE = ['corpora:read', 'corpora:list', 'documents:read', 'documents:list', 'runs:create'];
const OWN_RUNS = ['runs:read', 'runs:list', 'runs:cancel', 'runs:delete'];
const OWN_SESSIONS = ['sessions:read', 'sessions:list', 'sessions:delete'];
const KEYS_READ = ['api_keys:read', 'api_keys:list'];
const KEYS = ['api_keys:create', ...KEYS_READ, 'api_keys:update', 'api_keys:delete'];
const DELEGATIONS = ['create', 'read', 'list', 'delete'].map((action) => `delegations:${action}`);
const SELF = [
  'monitoring:read',
  'identity:read',
  'identity:list',
  'identity:update',
  ...OWN_SESSIONS,
  ...DELEGATIONS,
  ...KEYS,
  'credentials:read',
  'credentials:update',
];
const WRITE = [
  'documents:create',
  'documents:update',
  'documents:delete',
  'documents:reindex',
  'documents:share',
  'corpora:update',
];

/** role -> [on anything in the tenant, on what is its own] */
const TABLE: Record<string, [string[], string[]]> = {
  system: [TENANTS, ['identity:read', 'identity:list', ...OWN_SESSIONS]],
  admin: [IN_TENANT, IN_TENANT],
  editor: [
    [...KNOWLEDGE, ...WRITE],
    [...OWN_RUNS, ...MEMORY, ...SELF],
  ],
  reader: [KNOWLEDGE, [...OWN_RUNS, 'memory:read', 'memory:list', 'memory:search', ...SELF]],
  agent: [
    KNOWLEDGE,
    [
      ...OWN_RUNS,
      ...MEMORY,
      'monitoring:read',
      'identity:read',
      'identity:list',
      ...OWN_SESSIONS,
      ...DELEGATIONS,
      ...KEYS_READ,
    ],
  ],
  user: [KNOWLEDGE, [...OWN_RUNS, ...MEMORY, ...SELF]],
  auditor: [[], []],
  __defineGetter__: [[], []],
  '*': [[], []],
};

test('each role may do what its row says, on its own and on what belongs to others', () => {
  for (const [role, [anything, own]] of Object.entries(TABLE)) {
    const onForeign = ALL.filter((permission) => may(role, permission, { id: 'x', owner: 'you' }));
    const onOwn = ALL.filter((permission) => may(role, permission, { id: 'x', owner: 'me' }));
    const asked = ALL.filter((permission) => may(role, permission, 'own'));
    const onNothing = ALL.filter((permission) => may(role, permission, null));
    assert.deepEqual(onForeign.sort(), [...anything].sort(), `${role}, of others`);
    assert.deepEqual(onOwn.sort(), [...new Set([...anything, ...own])].sort(), `${role}, its own`);
    assert.deepEqual(asked.sort(), onOwn.sort(), `${role}, before a row is known`);
    assert.deepEqual(onNothing.sort(), [...anything].sort(), `${role}, without a row`);
  }
});

test('an identity may read itself, and nobody else', () => {
  for (const role of ['reader', 'agent', 'user', 'editor']) {
    assert.equal(may(role, 'identity:read', { id: 'me' }), true);
    assert.equal(may(role, 'identity:read', { id: 'you' }), false);
    assert.equal(may(role, 'identity:list', 'own'), true);
    assert.equal(may(role, 'identity:list', { id: 'you', owner: 'you' }), false);
  }
});

test('everybody may let an agent act for it, and nobody else', () => {
  for (const role of ['reader', 'agent', 'user', 'editor']) {
    assert.equal(may(role, 'delegations:create', { id: 'a', role: 'agent' }), true);
    assert.equal(may(role, 'delegations:create', { id: 'a', role: 'user' }), false);
    assert.equal(may(role, 'delegations:delete', { id: 'a', owner: 'you' }), false);
  }
});

test('the word "write" of the older policies covers the memories one owns', () => {
  assert.equal(may('agent', 'memory:write', 'own'), true);
  assert.equal(may('reader', 'memory:write', 'own'), false);
});

test('the built-in policies are plain JSON with stable ids and compile', () => {
  assert.deepEqual(BUILTIN.problems, []);
  assert.deepEqual(
    BUILTIN_POLICIES.map((row) => row.id),
    BUILTIN_ROLES.map((role) => `builtin:${role}`),
  );
  assert.deepEqual(JSON.parse(JSON.stringify(BUILTIN_POLICIES)), BUILTIN_POLICIES);
});

test('nobody hands out a role above their own', () => {
  const given = [...BUILTIN_ROLES, 'auditor', '__proto__'];
  const may = (role: string) => given.filter((other) => mayGive(role, other));
  assert.deepEqual(may('system'), ['admin', 'editor', 'reader', 'agent', 'user', 'auditor', '__proto__']);
  assert.deepEqual(may('admin'), may('system'));
  assert.deepEqual(may('editor'), ['editor', 'reader', 'agent', 'user']);
  assert.deepEqual(may('user'), ['user']);
  assert.deepEqual(may('auditor'), ['reader', 'agent', 'user', 'auditor']);
});
