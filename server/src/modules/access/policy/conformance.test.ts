import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import jsonLogic from 'json-logic-js';
import { BUILTIN } from './builtin.ts';
import { compileRule, evaluate, STEP_BUDGET } from './compile.ts';
import { policyContext } from './context.ts';
import { decide } from './decide.ts';
import { OPERATORS, RuleError } from './parse.ts';
import { compilePolicies, type PolicyRow } from './policy-set.ts';

// The language as its reference implementation (json-logic-js) has it: each operator on the kinds of operand that the
// published suite tries, and the same on rules nobody thought of. Where we differ it is written down, and narrower.

const DATA = {
  n: 7,
  zero: 0,
  half: 0.5,
  digits: '42',
  word: 'lighthouse',
  blank: '',
  yes: true,
  no: false,
  nothing: null,
  list: [1, 2, 3],
  words: ['keel', 'mast'],
  hollow: [],
  deep: { a: { b: 'c' }, list: [['x', 'y'], 'z'] },
  crew: [
    { name: 'Ada', age: 36, aboard: true },
    { name: 'Grace', age: 45, aboard: false },
  ],
};
const v = (...args: unknown[]) => ({ var: args.length === 1 ? args[0] : args });
const ours = (rule: unknown, data: unknown): unknown => evaluate(compileRule(rule), data).value;
const theirs = (rule: unknown, data: unknown): unknown =>
  jsonLogic.apply(rule as never, structuredClone(data)) ?? null;

/** By operator; each rule runs on DATA. */
const RULES: Record<string, unknown[]> = {
  literals: [true, false, 17, 3.14, 'sail', null, ['a', 'b'], [1, v('n'), 3]],
  '==': [[1, 1], [1, '1'], [1, 2], [0, false], [v('digits'), 42], [v('nothing'), v('nothing')], [v('list'), '1,2,3']],
  '===': [[1, 1], [1, '1'], [1, 2], [v('word'), 'lighthouse'], [v('yes'), 1]],
  '!=': [[1, 2], [1, 1], [1, '1'], [v('digits'), 42], [v('blank'), 'x']],
  '!==': [[1, 2], [1, 1], [1, '1'], [v('digits'), 42]],
  '>': [[2, 1], [1, 1], [1, 2], ['2', 1], ['b', 'a'], ['10', '9'], [v('n'), v('half')]],
  '>=': [[2, 1], [1, 1], [1, 2], ['2', 1], [v('n'), 7]],
  '<': [[2, 1], [1, 1], [1, 2], ['1', 2], [1, 2, 3], [1, 1, 3], [1, 4, 3], [v('nothing'), 1]],
  '<=': [[2, 1], [1, 1], [1, 2], ['1', 2], [1, 2, 3], [1, 4, 3], [1, v('n'), 7]],
  '!': [[false], [true], [0], [1], [''], ['0'], [[]], [[0]], [v('hollow')], [v('word')], [v('nope')]],
  '!!': [[false], [true], [0], [1], [''], ['0'], [[]], [v('hollow')], [v('list')]],
  or: [[true, true], [false, true], [false, false, true], [false], [1, 3], [3, false], [[], true], [0, '', v('n')]],
  and: [[true, true], [false, true], [true, true, false], [true], [1, 3], [3, false], [[], true], ['0', v('n')]],
  '?:': [[true, 1, 2], [false, 1, 2], [v('hollow'), 1, 2]],
  if: [
    [], [true], [false], ['sail'], [true, 'a'], [false, 'a'], [true, 'a', 'b'], [false, 'a', 'b'], [[], 'a', 'b'],
    [[1], 'a', 'b'], ['', 'a', 'b'], ['0', 'a', 'b'], [0, 'a', 'b'], [-1, 'a', 'b'], [false, 'a', true, 'b'],
    [false, 'a', false, 'b'], [false, 'a', false, 'b', 'c'], [false, 'a', true, 'b', true, 'c', 'd'],
    [{ '>': [2, 1] }, { cat: ['a', 'b'] }, 'c'], [{ missing: 'word' }, 'absent', 'there'], [v('yes'), [v('n')], 99],
  ],
  in: [['keel', v('words')], ['oar', v('words')], ['light', v('word')], ['i', 'team'], [2, v('list')], ['2', v('list')], [1, v('n')]],
  cat: [['ice'], ['ice', 'berg'], [1, 2], ['n=', v('n')], [v('nothing'), 'x'], [v('list'), '!']],
  substr: [['lighthouse', 5], ['lighthouse', -5], ['lighthouse', 0, 1], ['lighthouse', -1, 1], ['lighthouse', -5, -2], ['lighthouse', 1, -5], [v('n'), 0]],
  '%': [[1, 2], [2, 2], [3, 2], [v('n'), 4], ['7', 4]],
  max: [[1, 2, 3], [1, 3, 3], [3, 2, 1], [1], [v('n'), '42']],
  min: [[1, 2, 3], [1, 1, 3], [3, 2, 1], [1], [v('n'), v('half')]],
  '+': [[1, 2], [2, 2, 2], [1], ['1', 1], ['3.14 miles', 1], [v('digits')]],
  '*': [[3, 2], [2, 2, 2], [1], ['2', 3]],
  '-': [[2, 3], [3, 2], [3], ['1', 1], [v('n')]],
  '/': [[4, 2], [2, 4], ['1', 1], [v('n'), 2]],
  merge: [[], [[1]], [[1], []], [[1], [2]], [[1, 2], [3]], [1, 2], [1, [2]], [v('list'), v('words'), [[9]]]],
  var: [['n'], ['nope'], ['n', 1], ['nope', 2], ['deep.a.b'], ['deep.a.q'], ['deep.a.q', 9], ['list.1'], ['deep.list.0.1'], ['nothing.x.y'], [{ cat: ['wo', 'rd'] }], [{ '?:': [v('yes'), 'n', 'half'] }]],
  missing: [[], ['n'], ['nope'], ['n', 'nope'], ['nope', 'never'], ['deep.a'], ['deep.q'], ['blank', 'nothing'], [{ merge: ['nope', { if: [v('yes'), ['also'], []] }] }]],
  missing_some: [[1, ['n', 'nope']], [1, ['nope', 'never']], [2, ['n', 'half', 'nope']], [2, ['n', 'nope', 'never']]],
  map: [[v('list'), { '*': [v(''), 2] }], [v('crew'), v('age')], [v('nope'), v('')], [v('hollow'), 1]],
  filter: [[v('list'), true], [v('list'), false], [v('list'), { '>=': [v(''), 2] }], [v('list'), { '%': [v(''), 2] }], [v('crew'), v('aboard')]],
  reduce: [
    [v('list'), { '+': [v('current'), v('accumulator')] }, 0], [v('nope'), v('current'), 0],
    [v('list'), { '*': [v('current'), v('accumulator')] }, 1], [v('crew'), { '+': [v('accumulator'), v('current.age')] }, 0],
    [v('list'), { '+': [v('current'), v('accumulator')] }, v('n')],
  ],
  all: [[v('list'), { '>=': [v(''), 1] }], [v('list'), { '==': [v(''), 1] }], [v('hollow'), true], [v('crew'), { '>': [v('age'), 30] }], [v('crew'), v('aboard')]],
  none: [[v('list'), { '>=': [v(''), 1] }], [v('list'), { '<': [v(''), 1] }], [v('hollow'), true], [v('crew'), { '>': [v('age'), 50] }]],
  some: [[v('list'), { '==': [v(''), 1] }], [v('list'), { '<': [v(''), 1] }], [v('hollow'), true], [v('crew'), v('aboard')]],
}; // biome-ignore format: a table

test('every operator behaves as the reference implementation', () => {
  const { literals, ...byOperator } = RULES;
  assert.deepEqual(Object.keys(byOperator).sort(), [...OPERATORS].sort(), 'an operator is not tried');
  const rules = Object.entries(byOperator).flatMap(([operator, list]) =>
    list.map((args) => ({ [operator]: args })),
  );
  for (const rule of [...literals!, ...rules])
    assert.deepEqual(ours(rule, DATA), theirs(rule, DATA), JSON.stringify(rule));
});

test('one operand needs no list around it, and the whole data may be anything', () => {
  const rules = [
    { '!': true },
    { '!!': 'x' },
    { cat: 'ice' },
    { '+': '3' },
    { '-': 2 },
    { merge: 1 },
    { missing: 'a' },
  ];
  for (const rule of [...rules, v('a'), v(''), v(1), v('1'), { var: [] }, { var: null }])
    for (const data of [null, 5, 'x', {}, { a: 1 }, ['p', 'q'], [['p'], ['q']]])
      assert.deepEqual(
        ours(rule, data),
        theirs(rule, data),
        `${JSON.stringify(rule)} on ${JSON.stringify(data)}`,
      );
});

test('where we differ from the reference we allow less, or refuse when the rule is written', () => {
  const narrower: unknown[] = [
    { '!=': [v('nope'), 1] },
    { '!==': [v('nope'), 1] },
    { '==': [v('nope'), null] },
    { '<': [v('nope'), 1] },
    { in: ['x', [v('nope'), 'x'], 'more'] },
    { '!=': [{ '/': [0, 0] }, 1] },
    { '==': [v('word.length'), 10] },
    { '==': [v('list.length'), 3] },
  ];
  for (const rule of narrower) {
    let value: unknown;
    try {
      value = ours(rule, DATA);
    } catch (error) {
      assert.ok(error instanceof RuleError, JSON.stringify(rule));
      continue;
    }
    assert.equal(theirs(rule, DATA), true, JSON.stringify(rule));
    assert.equal(value, false, JSON.stringify(rule));
  }
  for (const [rule, named] of [
    [{ log: 'x' }, /"log"/],
    [{ method: ['abc', 'toUpperCase'] }, /"method"/],
    [{ '==': [1, 1, 1] }, /"=="/],
    [{ nonsense: 1 }, /"nonsense"/],
    [{ a: 1, b: 2 }, /exactly one key/],
  ] as const)
    assert.throws(() => compileRule(rule), named);
});

// Rules by the kind of value they have, so that nothing is missing and nothing is NaN: there the two must agree.
const names = {
  number: fc.constantFrom(v('n'), v('zero'), v('half'), v('list.0'), v('crew.1.age'), v('nope', 3)),
  text: fc.constantFrom<unknown>(v('word'), v('digits'), v('blank'), v('deep.a.b'), v('words.1')),
  truth: fc.constantFrom<unknown>(v('yes'), v('no'), v('crew.0.aboard')),
  list: fc.constantFrom<unknown>(v('list'), v('words'), v('hollow'), v('deep.list.0')),
};
const pair = <A, B>(a: fc.Arbitrary<A>, b: fc.Arbitrary<B>) => fc.tuple(a, b);
const { any } = fc.letrec<Record<'number' | 'text' | 'truth' | 'list' | 'any', unknown>>((tie) => {
  const op = (operators: string[], ...args: fc.Arbitrary<unknown>[]) =>
    fc.tuple(fc.constantFrom(...operators), fc.tuple(...args)).map(([name, list]) => ({ [name]: list }));
  const several = (operators: string[], arg: fc.Arbitrary<unknown>) =>
    fc
      .tuple(fc.constantFrom(...operators), fc.array(arg, { minLength: 1, maxLength: 3 }))
      .map(([name, list]) => ({ [name]: list }));
  const nonzero = fc.constantFrom(1, 2, 3, 0.5, -4);
  const element = { '>': [v(''), 1] };
  return {
    number: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.integer({ min: -9, max: 9 }),
      names.number,
      several(['+', '*', 'max', 'min'], tie('number')),
      op(['-'], tie('number'), tie('number')),
      op(['/', '%'], tie('number'), nonzero),
      op(['if', '?:'], tie('any'), tie('number'), tie('number')),
    ),
    text: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.constantFrom('', 'a', 'mast', '7', '0'),
      names.text,
      several(['cat'], fc.oneof(tie('text'), names.number)),
      op(['substr'], tie('text'), fc.integer({ min: -4, max: 4 })),
      op(['substr'], tie('text'), fc.integer({ min: -4, max: 4 }), fc.integer({ min: -4, max: 4 })),
    ),
    truth: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.boolean(),
      names.truth,
      op(['==', '===', '!=', '!=='], tie('any'), tie('any')),
      op(['<', '<=', '>', '>='], tie('number'), tie('number')),
      op(['<', '<='], tie('number'), tie('number'), tie('number')),
      op(['<', '>='], tie('text'), tie('text')),
      op(['!', '!!'], tie('any')),
      op(['in'], tie('text'), fc.oneof(tie('list'), tie('text'))),
      op(['all', 'some', 'none'], tie('list'), fc.constantFrom(element, true, v(''))),
    ),
    list: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.array(fc.oneof(tie('number'), tie('text')), { maxLength: 3 }),
      names.list,
      several(['merge'], fc.oneof(tie('list'), tie('number'))),
      op(['map'], names.list, fc.constantFrom(v(''), 'x', { cat: [v(''), '!'] })),
      op(['filter'], names.list, fc.constantFrom(v(''), element, false)),
      several(['missing'], fc.constantFrom('n', 'nope', 'deep.a', 'deep.q')),
    ),
    any: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      tie('number'),
      tie('text'),
      tie('truth'),
      tie('list'),
      fc.constant(null),
      several(['and', 'or'], tie('any')),
      pair(tie('any'), tie('any')).map(([a, b]) => ({ if: [a, b] })),
      fc.constant({ reduce: [v('list'), { '+': [v('accumulator'), v('current')] }, 1] }),
    ),
  };
});

test('rules nobody thought of have the value that the reference gives them', () => {
  // JSON knows one zero.
  const asJson = (value: unknown) => JSON.stringify(value);
  const property = fc.property(any, (rule) => {
    assert.equal(asJson(ours(rule, DATA)), asJson(theirs(rule, DATA)));
  });
  fc.assert(property, { numRuns: 3_000 });
});

const context = policyContext({
  role: 'user',
  action: 'read',
  resource: 'memory',
  tenant_id: 't1',
  identity: { id: 'me', claims: { level: 2 } },
  target: { owner: 'you' },
});

const hostileNames = fc.constantFrom(
  '__proto__', 'constructor', 'prototype', 'toString', 'valueOf', '__defineGetter__', 'hasOwnProperty', 'then', 'length', 'log', 'method',
); // biome-ignore format: a list
const { hostile } = fc.letrec<{ hostile: unknown }>((tie) => ({
  hostile: fc.oneof(
    { maxDepth: 6, withCrossShrink: true },
    fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withSparseArray: true,
    }),
    fc
      .tuple(
        fc.oneof(hostileNames, fc.constantFrom(...OPERATORS)),
        fc.array(tie('hostile'), { maxLength: 3 }),
      )
      .map(([name, args]) => ({ [name]: args })),
    fc.oneof(hostileNames, fc.string()).map((name) => ({ var: name })),
    fc.constant({ reduce: [Array(200).fill(1), { merge: [v('accumulator'), v('accumulator')] }, [1]] }),
    fc.constant({
      map: [Array(500).fill(1), { map: [Array(500).fill(1), { map: [Array(500).fill(1), 1] }] }],
    }),
    fc.constant({ cat: Array(40).fill('x'.repeat(2_000)) }),
  ),
}));

test('whatever is written as a rule is refused with a place, or ends within its budget and allows only by being true', () => {
  const none = compilePolicies([]);
  const row = (rule: unknown, effect: 'allow' | 'deny'): PolicyRow => ({
    id: effect,
    role: '*',
    rule,
    effect,
    priority: 1,
    is_active: true,
  });
  const property = fc.property(hostile, (rule) => {
    let value: unknown;
    try {
      const evaluation = evaluate(compileRule(rule), context);
      value = evaluation.value;
      assert.ok(evaluation.steps <= STEP_BUDGET || evaluation.error === 'budget_exceeded');
    } catch (error) {
      assert.ok(error instanceof RuleError, String(error));
    }
    const allowed = decide(compilePolicies([row(rule, 'allow')]), none, context).allowed;
    assert.equal(allowed, value === true);
    // A deny that can not be read stands for a deny.
    const denied = decide(compilePolicies([row(rule, 'deny')]), BUILTIN, { ...context, role: 'admin' });
    assert.equal(typeof denied.allowed, 'boolean');
  });
  fc.assert(property, { numRuns: 500 });
});
