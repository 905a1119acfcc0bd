import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileRule } from './compile.ts';
import { explain } from './explain.ts';

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });

function failedPath(rule: unknown, context: unknown): string | undefined {
  return explain(compileRule(rule), context).failed?.path;
}

test('the first operand that stopped the rule is named, however deep it stands', () => {
  const both = { and: [is('a', 1), { and: [is('b', 2), { or: [is('c', 3), is('d', 4)] }] }] };
  assert.equal(failedPath(both, { a: 2 }), '/and/0/==');
  assert.equal(failedPath(both, { a: 1, b: 0 }), '/and/1/and/0/==');
  assert.equal(failedPath(both, { a: 1, b: 2 }), '/and/1/and/1/or/0/==');
  assert.equal(failedPath(both, { a: 1, b: 2, d: 4 }), undefined);
  assert.equal(
    failedPath({ or: [is('a', 1), { and: [is('b', 2), is('c', 3)] }] }, { b: 2 }),
    '/or/1/and/1/==',
  );
  assert.equal(failedPath({ if: [is('a', 1), is('b', 2), is('c', 3)] }, { a: 1, c: 3 }), '/if/1/==');
  assert.equal(failedPath({ if: [is('a', 1), is('b', 2), is('c', 3)] }, {}), '/if/2/==');
  assert.equal(failedPath({ '!': [is('a', 1)] }, { a: 1 }), '/!');
  assert.equal(failedPath({ and: [true, { var: 'a' }] }, { a: 'yes' }), '/and/1/var', 'truthy is not true');
  assert.equal(failedPath(false, {}), '');
});

test('a comparison shows what it compared, and an absent attribute says so', () => {
  const { trace, failed, matched, value } = explain(compileRule({ and: [is('a', 1), is('a.b', 'x')] }), {
    a: 1,
  });
  assert.deepEqual([matched, value], [false, false]);
  assert.deepEqual(failed, { path: '/and/1/==', operator: '==', value: false, operands: [null, 'x'] });
  assert.deepEqual(trace, [
    { path: '/and/0/==/0/var', operator: 'var', value: 1 },
    { path: '/and/0/==', operator: '==', value: true, operands: [1, 1] },
    { path: '/and/1/==/0/var', operator: 'var', value: null, missing: true },
    failed,
    { path: '/and', operator: 'and', value: false },
  ]);
});

test('a run that was stopped names the expression it was stopped in', () => {
  const rule = { and: [true, { all: [Array(150).fill(1), { some: [Array(150).fill(0), { var: '' }] }] }] };
  const long = { all: [Array(150).fill(1), { none: [Array(150).fill(0), { var: '' }] }] };
  assert.equal(explain(compileRule(rule), {}).error, null);
  const { error, failed, matched, truncated } = explain(compileRule({ and: [true, long] }), {});
  assert.deepEqual([error, matched, truncated], ['budget_exceeded', false, true]);
  assert.match(failed?.path ?? '', /^\/and\/1\/all/);
});

test('an explanation stays small whatever the rule and the data', () => {
  const loop: Record<string, unknown> = {
    text: 'x'.repeat(100_000),
    list: Array(5_000).fill('y'.repeat(5_000)),
  };
  loop.self = loop;
  loop.nested = Array(20).fill(Array(20).fill(loop.list));
  const rules = [
    { '!=': [{ var: '' }, { var: '' }] },
    { map: [{ var: 'list' }, { cat: [{ var: '' }, '!'] }] },
    { or: Array(120).fill({ '==': [{ var: 'nested' }, { var: 'text' }] }) },
    { reduce: [Array(60).fill(0), [{ var: 'accumulator' }, { var: 'accumulator' }], 1] },
  ];
  for (const rule of rules) {
    const explanation = explain(compileRule(rule), loop);
    const bytes = JSON.stringify(explanation).length;
    assert.ok(bytes < 120_000, `${bytes} bytes for ${JSON.stringify(rule).slice(0, 60)}`);
    assert.ok(explanation.trace.length <= 200);
  }
});
