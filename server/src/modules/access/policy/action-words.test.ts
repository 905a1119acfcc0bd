import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileRule, matches } from './compile.ts';

const holds = (rule: unknown, action: string, more: object = {}) =>
  matches(compileRule(rule), { action, ...more });
const action = { var: 'action' };

test('read and write stand for all actions of their kind', () => {
  for (const done of ['read', 'list', 'search']) {
    assert.ok(holds({ '==': [action, 'read'] }, done), done);
    assert.ok(!holds({ '==': [action, 'write'] }, done), done);
  }
  for (const done of ['write', 'create', 'update', 'delete', 'reindex', 'cancel']) {
    assert.ok(holds({ '===': ['write', action] }, done), done);
    assert.ok(!holds({ '!=': [action, 'write'] }, done), done);
    assert.ok(holds({ '!==': [action, 'read'] }, done), done);
  }
});

test('in a list of actions each word stands for its kind', () => {
  const rule = { and: [{ in: [action, ['read', 'create']] }, { '!=': [action, 'list'] }] };
  assert.deepEqual(
    ['read', 'list', 'search', 'create', 'update'].filter((done) => holds(rule, done)),
    ['read', 'search', 'create'],
  );
});

test('other actions, other attributes, and elements of a list keep their words', () => {
  assert.ok(!holds({ '==': [action, 'delete'] }, 'update'));
  assert.ok(!holds({ '==': [{ var: 'mode' }, 'write'] }, 'create', { mode: 'create' }));
  const each = { some: [{ var: 'grants' }, { '==': [{ var: 'action' }, 'write'] }] };
  assert.ok(!holds(each, 'read', { grants: [{ action: 'create' }] }));
  assert.ok(holds(each, 'read', { grants: [{ action: 'write' }] }));
});
