import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileRule, evaluate, matches, STEP_BUDGET } from './compile.ts';
import { OPERATORS, RULE_LIMITS, RuleError } from './parse.ts';

const CONTEXT = {
  action: 'read',
  count: 4,
  zero: 0,
  text: 'harvest',
  digits: '12',
  nothing: null,
  blank: '',
  yes: true,
  tags: ['red', 'blue'],
  empty: [],
  grid: [
    [1, 2],
    [3, 4],
  ],
  orders: [{ sum: 5, paid: true }, { sum: 7, paid: false }, { sum: 9 }],
  identity: { claims: { team: 'north', level: 2, 'a b': 1 } },
};

function valueOfRule(rule: unknown, context: unknown = CONTEXT): unknown {
  return evaluate(compileRule(rule), context).value;
}

const v = (name: unknown) => ({ var: name });

/** operator -> [rule, value] */
const CASES: Record<string, [unknown, unknown][]> = {
  var: [
    [v('identity.claims.team'), 'north'],
    [v('identity.claims.a b'), 1],
    [v('tags.1'), 'blue'],
    [v('grid.1.0'), 3],
    [v('nope'), null],
    [v('identity.nope.deeper'), null],
    [{ var: ['nope', 'spare'] }, 'spare'],
    [{ var: ['nothing', 'spare'] }, null],
    [{ var: ['nope', v('count')] }, 4],
    [{ var: { cat: ['identity.claims.', 'team'] } }, 'north'],
    [{ '===': [v(''), v([])] }, true],
    [v('tags.length'), null],
    [v('tags.01'), null],
    [v('text.0'), null],
    [v('text.length'), null],
  ],
  missing: [
    [{ missing: ['count', 'nope', 'blank', 'nothing'] }, ['nope', 'blank', 'nothing']],
    [{ missing: 'count' }, []],
    [{ missing: [] }, []],
    [{ missing: { merge: ['nope', ['count']] } }, ['nope']],
  ],
  missing_some: [
    [{ missing_some: [1, ['count', 'nope']] }, []],
    [{ missing_some: [2, ['count', 'nope', 'never']] }, ['nope', 'never']],
  ],
  if: [
    [{ if: [] }, null],
    [{ if: ['only'] }, 'only'],
    [{ if: [v('empty'), 'full', 'hollow'] }, 'hollow'],
    [{ if: [false, 1, false, 2] }, null],
    [{ if: [false, 1, '0', 2, 3] }, 2],
  ],
  '?:': [[{ '?:': [v('yes'), 'on', 'off'] }, 'on']],
  '==': [
    [{ '==': [v('digits'), 12] }, true],
    [{ '==': [v('zero'), false] }, true],
    [{ '==': [v('zero'), ''] }, true],
    [{ '==': [v('nothing'), null] }, true],
    [{ '==': [v('nothing'), 0] }, false],
    [{ '==': [v('tags'), 'red,blue'] }, true],
    [{ '==': [v('identity'), '[object Object]'] }, true],
    [{ '==': [[1], [1]] }, false],
    [{ '==': ['a', 'b'] }, false],
  ],
  '===': [
    [{ '===': [v('digits'), 12] }, false],
    [{ '===': [v('count'), 4] }, true],
  ],
  '!=': [
    [{ '!=': [v('count'), 5] }, true],
    [{ '!=': [v('digits'), 12] }, false],
  ],
  '!==': [
    [{ '!==': [v('digits'), 12] }, true],
    [{ '!==': [v('count'), 4] }, false],
  ],
  '!': [
    [{ '!': [v('empty')] }, true],
    [{ '!': v('text') }, false],
    [{ '!': v('nope') }, true],
  ],
  '!!': [
    [{ '!!': ['0'] }, true],
    [{ '!!': [[]] }, false],
    [{ '!!': v('zero') }, false],
  ],
  or: [
    [{ or: [0, '', v('text'), 1] }, 'harvest'],
    [{ or: [false, v('empty')] }, []],
  ],
  and: [
    [{ and: [1, 'x', v('count')] }, 4],
    [{ and: [1, v('zero'), v('count')] }, 0],
  ],
  '>': [
    [{ '>': [v('count'), 3] }, true],
    [{ '>': ['b', 'a'] }, true],
    [{ '>': ['10', '9'] }, false],
    [{ '>': [3, 2, 1] }, true],
    [{ '>': [3, 2, 2] }, false],
  ],
  '>=': [
    [{ '>=': [v('count'), '4'] }, true],
    [{ '>=': [3, 3, 4] }, false],
  ],
  '<': [
    [{ '<': [1, v('count'), 9] }, true],
    [{ '<': [1, v('count'), 4] }, false],
    [{ '<': [v('text'), 3] }, false],
    [{ '<': [v('nothing'), 1] }, true],
  ],
  '<=': [[{ '<=': [4, v('count'), 4] }, true]],
  max: [[{ max: [1, v('digits'), 3] }, 12]],
  min: [[{ min: [v('count'), '2', true] }, 1]],
  '+': [
    [{ '+': [v('count'), '1.5 apples'] }, 5.5],
    [{ '+': '-3' }, -3],
  ],
  '-': [
    [{ '-': [v('count'), 1] }, 3],
    [{ '-': v('count') }, -4],
  ],
  '*': [[{ '*': [v('count'), '2', 2] }, 16]],
  '/': [[{ '/': [v('count'), 8] }, 0.5]],
  '%': [[{ '%': [7, v('count')] }, 3]],
  map: [
    [{ map: [v('orders'), { '*': [v('sum'), 2] }] }, [10, 14, 18]],
    [{ map: [v('tags'), v('')] }, ['red', 'blue']],
    [{ map: [v('nope'), 1] }, []],
  ],
  filter: [[{ filter: [v('grid.0'), { '>': [v(''), 1] }] }, [2]]],
  reduce: [
    [{ reduce: [v('orders'), { '+': [v('current.sum'), v('accumulator')] }, 0] }, 21],
    [{ reduce: [v('nope'), v('current'), 'start'] }, 'start'],
    [{ reduce: [v('tags'), v('accumulator')] }, null],
  ],
  all: [
    [{ all: [v('orders'), { '>': [v('sum'), 4] }] }, true],
    [{ all: [v('empty'), true] }, false],
    [{ all: [v('nope'), true] }, false],
  ],
  none: [
    [{ none: [v('orders'), { '>': [v('sum'), 9] }] }, true],
    [{ none: [v('empty'), true] }, true],
  ],
  some: [
    [{ some: [v('orders'), v('paid')] }, true],
    [{ some: [v('orders'), v('count')] }, false],
  ],
  merge: [[{ merge: [1, v('tags'), [[2]]] }, [1, 'red', 'blue', [2]]]],
  in: [
    [{ in: [v('action'), ['read', 'list']] }, true],
    [{ in: ['4', [v('count')]] }, false],
    [{ in: ['blue', v('tags')] }, true],
    [{ in: ['vest', v('text')] }, true],
    [{ in: ['a', v('count')] }, false],
    [{ in: ['', v('blank')] }, false],
  ],
  cat: [
    [{ cat: ['n=', v('count'), v('nothing'), '!', v('tags')] }, 'n=4!red,blue'],
    [{ cat: [] }, ''],
  ],
  substr: [
    [{ substr: [v('text'), 3] }, 'vest'],
    [{ substr: [v('text'), -4] }, 'vest'],
    [{ substr: [v('text'), 0, 3] }, 'har'],
    [{ substr: [v('text'), 1, -2] }, 'arve'],
  ],
};

test('every operator computes what the language prescribes', () => {
  assert.deepEqual(Object.keys(CASES).sort(), [...OPERATORS].sort(), 'an operator has no cases');
  for (const cases of Object.values(CASES)) {
    for (const [rule, expected] of cases) assert.deepEqual(valueOfRule(rule), expected, JSON.stringify(rule));
  }
});

test('a missing attribute satisfies no comparison, on either side, negative ones included', () => {
  for (const operator of ['==', '===', '!=', '!==', '<', '<=', '>', '>=', 'in']) {
    for (const other of [v('nope2'), null, 0, '', 'x', -1, false, ['x'], [null]]) {
      assert.equal(valueOfRule({ [operator]: [v('nope'), other] }), false, `nope ${operator} ${other}`);
      assert.equal(valueOfRule({ [operator]: [other, v('nope')] }), false, `${other} ${operator} nope`);
    }
  }
  assert.equal(valueOfRule({ '<': [0, 1, v('nope')] }), false);
});

test('what is computed from a missing attribute is missing too', () => {
  const derived = [
    { '-': [v('nope'), 1] },
    { '+': [v('nope'), 1] },
    { max: [v('nope'), 0] },
    { cat: ['a', v('nope')] },
    { substr: [v('nope'), 0] },
    { if: [true, v('nope')] },
    { or: [false, v('nope')] },
  ];
  for (const operand of derived) {
    assert.equal(valueOfRule({ '!=': [operand, 'z'] }), false, JSON.stringify(operand));
    assert.equal(valueOfRule({ '<': [operand, 99] }), false, JSON.stringify(operand));
  }
  assert.equal(valueOfRule({ in: [null, [v('nope')]] }), false);
  assert.equal(valueOfRule({ '==': [{ var: ['nope', 1] }, 1] }), true, 'a default makes it present');
});

test('NaN satisfies no comparison', () => {
  const nan = { '/': [0, 0] };
  for (const operator of ['==', '===', '!=', '!==', '<', '<=', '>', '>=']) {
    for (const other of [nan, 0, null, 'x']) assert.equal(valueOfRule({ [operator]: [nan, other] }), false);
  }
  assert.equal(valueOfRule({ in: [nan, [1]] }), false);
  assert.equal(valueOfRule({ '!=': [v('n'), 1] }, { n: Number.NaN }), false);
});

function nested(depth: number): unknown {
  return depth === 0 ? true : { '!': [nested(depth - 1)] };
}

const cyclic: Record<string, unknown> = {};
cyclic.and = [true, cyclic];
const accessor = {
  get and(): unknown {
    throw new Error('a getter ran');
  },
};
const holes = [1, 2];
holes.length = 3;

test('hostile and malformed rules are refused with the place and a code', () => {
  const table: [unknown, string, string][] = [
    [{ constructor: [1] }, '/constructor', 'forbidden_name'],
    [JSON.parse('{"__proto__": [1]}'), '/__proto__', 'forbidden_name'],
    [{ prototype: 1 }, '/prototype', 'forbidden_name'],
    [{ __defineGetter__: ['x', 1] }, '/__defineGetter__', 'unknown_operator'],
    [{ toString: [] }, '/toString', 'unknown_operator'],
    [{ hasOwnProperty: ['a'] }, '/hasOwnProperty', 'unknown_operator'],
    [{ log: 'x' }, '/log', 'unknown_operator'],
    [{ and: [true, { equals: [1, 2] }] }, '/and/1/equals', 'unknown_operator'],
    [{ 'a/b~': 1 }, '/a~1b~0', 'unknown_operator'],
    [{ var: 'a.__proto__.b' }, '/var', 'forbidden_name'],
    [{ missing: ['a', 'constructor.name'] }, '/missing/1', 'forbidden_name'],
    [{ missing_some: [1, ['prototype']] }, '/missing_some/1/0', 'forbidden_name'],
    [{}, '', 'not_an_expression'],
    [{ '==': [1, 1], '!=': [1, 2] }, '', 'not_an_expression'],
    [{ in: [1, { a: 1, b: 2 }] }, '/in/1', 'not_an_expression'],
    [{ and: [{ '==': [1] }] }, '/and/0/==', 'wrong_arity'],
    [{ '!': [1, 2] }, '/!', 'wrong_arity'],
    [{ '<': [1, 2, 3, 4] }, '/<', 'wrong_arity'],
    [{ and: [] }, '/and', 'wrong_arity'],
    [{ '/': [1] }, '/~1', 'wrong_arity'],
    [nested(RULE_LIMITS.depth), `/!/0${'/!/0'.repeat(RULE_LIMITS.depth - 1)}`, 'too_deep'],
    [cyclic, `/and/1`.repeat(RULE_LIMITS.depth - 1).concat('/and/0'), 'too_deep'],
    [{ in: [1, Array(RULE_LIMITS.nodes).fill(1)] }, '/in/1/996', 'too_many_nodes'],
    [{ in: [1, Array(1e9)] }, '/in/1', 'too_many_nodes'],
    [{ '==': ['x'.repeat(RULE_LIMITS.string_bytes + 1), 'x'] }, '/==/0', 'too_large'],
    [{ cat: Array(20).fill('x'.repeat(4_000)) }, '', 'too_large'],
    [{ '==': [Number.NaN, 1] }, '/==/0', 'not_json'],
    [{ '==': [1, Number.POSITIVE_INFINITY] }, '/==/1', 'not_json'],
    [undefined, '', 'not_json'],
    [{ '==': [undefined, 1] }, '/==/0', 'not_json'],
    [{ '==': [() => true, 1] }, '/==/0', 'not_json'],
    [{ '==': [10n, 1] }, '/==/0', 'not_json'],
    [new Date(0), '', 'not_json'],
    [new Map(), '', 'not_json'],
    [accessor, '/and', 'not_json'],
    [{ and: holes }, '/and', 'not_json'],
    [Object.assign([1], { extra: 1 }), '', 'not_json'],
    [{ [Symbol('s')]: 1 }, '', 'not_an_expression'],
  ];
  for (const [rule, path, code] of table) {
    const refused = (error: unknown) => {
      assert.ok(error instanceof RuleError, String(error));
      assert.deepEqual([error.path, error.code], [path, code], error.message);
      return true;
    };
    assert.throws(() => compileRule(rule), refused);
  }
  assert.doesNotThrow(() => compileRule(nested(RULE_LIMITS.depth - 1)));
});

test('the message of a refusal names the operator', () => {
  assert.throws(() => compileRule({ equals: [1, 2] }), /no operator "equals"/);
  assert.throws(() => compileRule({ '==': [1] }), /"==" takes 2 argument\(s\), 1 given/);
});

test('the context is read through own data properties only', () => {
  let ran = false;
  class Person {
    name = 'x';
    get secret(): string {
      ran = true;
      return 'y';
    }
  }
  const trap = () => {
    ran = true;
    return true;
  };
  const context = {
    person: new Person(),
    when: new Date(0),
    map: new Map([['a', 1]]),
    call: trap,
    inherited: Object.create({ a: 1 }),
    coerced: { toString: trap, valueOf: trap },
    broken: { toString: 1 },
    get live(): boolean {
      ran = true;
      return true;
    },
    bare: Object.assign(Object.create(null), { a: 1 }),
  };
  for (const name of [
    'person',
    'person.name',
    'person.secret',
    'when',
    'map',
    'call',
    'inherited.a',
    'live',
    'toString',
  ]) {
    assert.equal(valueOfRule(v(name), context), null, name);
  }
  for (const name of ['__proto__', 'constructor', 'constructor.name', 'tags.__proto__.x']) {
    assert.equal(valueOfRule({ var: { cat: [name] } }, context), null, `computed ${name}`);
  }
  assert.equal(valueOfRule({ '==': [v('coerced'), 'x'] }, context), false);
  assert.equal(valueOfRule({ '+': [v('coerced'), 1] }, context), Number.NaN);
  assert.equal(valueOfRule({ cat: [v('broken')] }, context), '[object Object]');
  assert.equal(valueOfRule(v('bare.a'), context), 1);
  assert.equal(ran, false, 'something of the context was called');
});

const NINE = Array(9).fill(0);
const doubling = (body: unknown, start: unknown) => ({ reduce: [Array(60).fill(0), body, start] });

test('a run that would explode stops at its budget and never matches', () => {
  let powers: unknown = true;
  for (let i = 0; i < 8; i++) powers = { all: [NINE, powers].map((x, at) => (at === 0 ? x : { '!!': [x] })) };
  const rules = [
    powers,
    { '!!': [doubling({ cat: [v('accumulator'), v('accumulator')] }, 'xx')] },
    { '!!': [doubling({ merge: [v('accumulator'), v('accumulator')] }, [1])] },
    { '!=': [doubling([v('accumulator'), v('accumulator')], 1), 'x'] },
    { or: [{ in: [1, v('long')] }, true] },
  ];
  const context = { long: Array(1_000_000).fill(0) };
  for (const rule of rules) {
    const before = process.cpuUsage();
    const { value, error } = evaluate(compileRule(rule), context);
    assert.deepEqual([value, error], [null, 'budget_exceeded'], JSON.stringify(rule).slice(0, 80));
    assert.equal(matches(compileRule(rule), context), false);
    // Processor time: how busy the machine is does not count.
    assert.ok(process.cpuUsage(before).user < 500_000, 'took too long');
  }
});

test('cyclic, enormous and hostile contexts neither throw nor match', () => {
  const loop: unknown[] = [];
  loop.push(loop);
  const hostile = new Proxy(
    {},
    {
      getPrototypeOf: () => {
        throw new Error('trapped');
      },
    },
  );
  const cases: [unknown, unknown, string][] = [
    [{ '!=': [v('loop'), 'x'] }, { loop }, 'budget_exceeded'],
    [{ '!!': [v('a')] }, { a: hostile }, 'evaluation_failed'],
    [{ '!!': [v('a')] }, hostile, 'evaluation_failed'],
  ];
  for (const [rule, context, error] of cases) assert.equal(evaluate(compileRule(rule), context).error, error);
  for (const context of [null, undefined, 1, 'x', []])
    assert.equal(matches(compileRule(v('a')), context), false);
});

test('only the value true matches, and the steps are counted', () => {
  for (const rule of [1, 'true', [true], null, { or: [1] }, { '+': [1] }]) {
    assert.equal(matches(compileRule(rule), {}), false);
  }
  assert.equal(matches(compileRule(true), {}), true);
  const rule = compileRule({
    and: [{ '==': [v('count'), 4] }, { some: [v('tags'), { '==': [v(''), 'blue'] }] }],
  });
  const { value, steps } = evaluate(rule, CONTEXT);
  assert.equal(value, true);
  assert.ok(steps > 5 && steps < 20, `${steps} steps`);
  assert.ok(steps < STEP_BUDGET);
  assert.equal(evaluate(rule, CONTEXT, { steps: 3 }).error, 'budget_exceeded');
});
