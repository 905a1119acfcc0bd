import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Actor, Permission } from '#platform/context.ts';
import type { ApiError } from '#platform/errors.ts';
import { scopesAllow } from '#platform/permission.ts';
import { RESOURCE_ACTIONS } from '../policy/service.ts';
import { scopeProblem, scopesFrom } from './scopes.ts';

const permissions = Object.entries(RESOURCE_ACTIONS).flatMap(([resource, actions]) =>
  actions.map((action): Permission => `${resource}:${action}`),
);
const granted = (...scopes: string[]) => permissions.filter((permission) => scopesAllow(scopes, permission));
const reading = permissions.filter((permission) => /:(read|list|search)$/.test(permission));
const rights =
  /^(admin|identity|policy|api_keys|sessions|credentials|delegations|tenants|invitations|identity_providers):/;

describe('scopes', () => {
  it('allow what they say', () => {
    for (const all of ['admin', '*', '*:*']) assert.deepEqual(granted(all), permissions, all);
    assert.deepEqual(granted(), permissions, 'none is no narrowing');
    assert.deepEqual(granted('read'), reading);
    assert.deepEqual(granted('*:read'), reading);
    const writing = permissions.filter(
      (permission) => !reading.includes(permission) && !rights.test(permission),
    );
    assert.deepEqual(granted('write'), writing);
    assert.deepEqual(granted('*:write'), writing);
    assert.deepEqual(granted('memory:create'), ['memory:create']);
    assert.deepEqual(granted('memory:read'), ['memory:read', 'memory:list', 'memory:search']);
    assert.deepEqual(granted('memory:write'), ['memory:create', 'memory:update', 'memory:delete']);
    assert.deepEqual(granted('memory:*').length, RESOURCE_ACTIONS.memory.length);
    assert.deepEqual(
      granted('*:list'),
      permissions.filter((permission) => permission.endsWith(':list')),
    );
  });

  it('change what gives rights only where they name it', () => {
    for (const scopes of [
      ['write'],
      ['*:write'],
      ['*:create'],
      ['*:update'],
      ['*:delete'],
      ['read', 'write'],
    ])
      assert.deepEqual(
        granted(...scopes).filter((permission) => rights.test(permission) && !reading.includes(permission)),
        [],
        scopes.join(),
      );
    assert.deepEqual(granted('policy:write'), [
      'policy:create',
      'policy:update',
      'policy:delete',
      'policy:test',
    ]);
  });

  it('that are none allow nothing', () => {
    for (const none of ['', ':', 'create', 'list', 'memory', 'memory:', ':read', 'memory:create:x', 'Read', 'nothing:known', 'constructor:*', 'memory:__proto__'])
      assert.deepEqual(granted(none), [], none); // biome-ignore format: a list
  });

  it('are known before they are kept', () => {
    for (const scope of ['admin', 'read', 'write', '*', '*:*', 'memory:*', '*:list', '*:write', 'memory:read', 'memory:write', 'api_keys:create'])
      assert.equal(scopeProblem(scope), undefined, scope); // biome-ignore format: a list
    for (const scope of ['', ':', 'create', 'memory', 'memory:', ':read', 'memory:create:x', 'Read', 'nothing:known', 'nothing:*', '*:nothing', 'memory:fly', 'constructor:*', 'toString:read', ' read'])
      assert.match(scopeProblem(scope) ?? '', /is no scope/, scope); // biome-ignore format: a list
  });
});

describe('what a credential can give', () => {
  const actor = (scopes: string[], ...delegated: string[][]): Actor => ({
    type: 'api_key',
    identity_id: 'me',
    external_id: 'me',
    role: 'admin',
    claims: {},
    credential: 'k',
    ...(scopes.length ? { scopes } : {}),
    ...(delegated.length ? { delegation: { grant_id: 'g', agents: [], scopes: delegated } } : {}),
  });
  const refused = (held: Actor, wanted: string[]): string[] | undefined => {
    try {
      scopesFrom(held, wanted);
      return undefined;
    } catch (error) {
      assert.equal((error as ApiError).status, 403);
      return (error as ApiError).details?.scopes as string[];
    }
  };

  it('is everything when nothing narrows it', () => {
    assert.deepEqual(scopesFrom(actor([]), []), []);
    assert.deepEqual(scopesFrom(actor([]), ['admin']), ['admin']);
  });

  it('is at most its own scopes, and those that are wider are named', () => {
    assert.equal(refused(actor(['read']), ['read', 'memory:read', '*:list']), undefined);
    assert.deepEqual(refused(actor(['read']), ['memory:read', 'write', 'admin', 'memory:*']), [
      'write',
      'admin',
      'memory:*',
    ]);
    assert.equal(refused(actor(['read', 'write']), ['memory:*', 'documents:create']), undefined);
    assert.deepEqual(refused(actor(['read', 'write']), ['identity:create', '*']), ['identity:create', '*']);
    assert.equal(refused(actor(['memory:*']), ['memory:read', 'memory:write', 'memory:search']), undefined);
    assert.deepEqual(refused(actor(['memory:*', 'policy:read']), ['policy:list', 'policy:*']), ['policy:*']);
  });

  it('is less than everything although it holds all that there is today', () => {
    assert.deepEqual(refused(actor(permissions), ['admin', '*', 'read', 'memory:*', 'memory:read']), [
      'admin',
      '*',
      'read',
      'memory:*',
    ]);
    assert.equal(refused(actor(permissions), permissions), undefined);
  });

  it('is all that it has itself when nothing is asked for', () => {
    assert.deepEqual(scopesFrom(actor(['read', 'memory:*']), []), ['read', 'memory:*']);
  });

  it('is what each of several limits covers', () => {
    const held = actor(['read', 'write'], ['memory:*', 'documents:read'], ['*:read', 'memory:create']);
    assert.equal(refused(held, ['memory:read', 'memory:create', 'documents:list']), undefined);
    assert.deepEqual(refused(held, ['memory:delete', 'documents:create']), [
      'memory:delete',
      'documents:create',
    ]);
    assert.deepEqual(scopesFrom(held, []), ['documents:read', 'memory:create']);
    assert.deepEqual(refused(actor(['memory:read'], ['documents:read']), []), ['*']);
  });
});
