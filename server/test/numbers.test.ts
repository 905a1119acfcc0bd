import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ApiError, type FieldProblem } from '#platform/errors.ts';
import { parseJson } from '#platform/http/json.ts';
import { type Caller, call, eventually, newTenant, type Reply, useTestServer } from '#test/harness.ts';
import { corpus, file, newLibrary, upload } from '#test/uploads.ts';

// A number is read back as it was sent, or refused: nowhere does one become another.

useTestServer();

const kept = [
  '0',
  '-0.0',
  '1.50',
  '1E2',
  '9007199254740992',
  '-9007199254740994',
  '12345678901234567000',
  '72057594037927940',
  '100000000000000000000000000000000000000000',
  '0.1',
  '0.10000000000000001',
  '0.30000000000000004',
  '0.1000000000000000055511151231257827',
  '0.00000000000000000000000000000000000000001',
  '1.7976931348623157e+308',
  '5e-324',
  '2.5E-7',
  '0e999999999999',
];
const lost = [
  '9007199254740993',
  '-9007199254740993',
  // 2^56, but told as ...940 by whoever reads it as a double.
  '72057594037927936',
  '123456789012345678901234567890',
  '1e400',
  '-1e400',
  '1e-400',
  '1.2345678e-320',
  '3.141592653589793238462643383279',
  '0.1234567890123456789',
  '9'.repeat(400),
];

const problemsOf = (body: string): FieldProblem[] => {
  try {
    parseJson(Buffer.from(body));
    return [];
  } catch (error) {
    return (error as ApiError).details!.errors as FieldProblem[];
  }
};

describe('a number of a JSON body', () => {
  it('is taken where it is read back as it was sent', () => {
    for (const number of kept)
      for (const body of [`{"a":${number}}`, `[1, ${number}]`, `{"a" :\n\t${number} }`])
        assert.deepEqual(problemsOf(body), [], body.slice(0, 80));
    // In a text it is none.
    assert.deepEqual(problemsOf(JSON.stringify({ a: '[9007199254740993, 1e400]', b: 'at: 1e400' })), []);
  });

  it('is refused at its path where it would become another', () => {
    for (const number of lost)
      for (const [body, path] of [
        [`{"a":{"b":[1,{"c":${number}}]}}`, '/a/b/1/c'],
        [`{"a": "9007199254740993", "n" : ${number}}`, '/n'],
        [`[0,\n ${number}]`, '/1'],
      ] as const)
        assert.deepEqual(
          problemsOf(body).map((problem) => [problem.path, /send it as text/.test(problem.message)]),
          [[path, true]],
          body.slice(0, 80),
        );
  });

  it('is found in time however it is written', () => {
    const digits = 2_000_000;
    for (const number of [
      '1'.repeat(digits),
      `0.${'0'.repeat(digits)}1`,
      `${'1.'.repeat(2)}${'0'.repeat(digits)}`,
    ])
      assert.throws(() => parseJson(Buffer.from(`{"a":${' '.repeat(digits)}${number}}`)), ApiError);
  });
});

const json = (who: Caller, method: string, path: string, payload: string): Promise<Reply> =>
  call(method, path, { token: who.token, payload, headers: { 'content-type': 'application/json' } });
const pathsIn = ({ status, body }: Reply) => [
  status,
  ...body.error.details.errors.map(({ path }: FieldProblem) => path),
];

describe('a number that would not be kept', () => {
  it('is refused in the metadata of memories, wherever it comes from', async () => {
    const [ann, bob] = [await newTenant(), await newTenant()];
    const memory = (n: string) => `{"text":"A number","type":"note","metadata":{"n":${n}}}`;
    for (const n of ['9007199254740993', '1e400'])
      assert.deepEqual(pathsIn(await json(ann, 'POST', '/v1/memory/', memory(n))), [422, '/metadata/n']);
    const { body } = await json(ann, 'POST', '/v1/memory/', memory('0.1'));
    const put = await json(ann, 'PUT', `/v1/memory/${body.id}`, '{"metadata":{"a":[9007199254740993]}}');
    assert.deepEqual(pathsIn(put), [422, '/metadata/a/0']);
    const filter = encodeURIComponent('{"n":9007199254740993}');
    assert.deepEqual(pathsIn(await ann.call('GET', `/v1/memory/?metadata=${filter}`)), [422, '/metadata/n']);

    const bulk = await json(
      ann,
      'POST',
      '/v1/memory/bulk',
      `{"memories":[${memory('1e400')},${memory('7')}]}`,
    );
    assert.deepEqual([bulk.status, bulk.body.created[0].index], [201, 1], bulk.text);
    assert.match(bulk.body.failed[0].error.message, /^\/metadata\/n is a number/);

    const sent = await call('POST', '/v1/memory/import', {
      token: bob.token,
      payload: `${memory('9007199254740993')}\n${memory('8')}\n`,
      headers: { 'content-type': 'application/x-ndjson' },
    });
    const state = async () => (await bob.call('GET', sent.body.status_url)).body;
    await eventually('the import', async () => (await state()).status === 'succeeded');
    const { created, errors } = await state();
    assert.deepEqual([created, errors[0].line, errors[0].code], [1, 1, 'VALIDATION_ERROR']);
    assert.match(errors[0].message, /^\/metadata\/n is a number/);
    const listed = async (who: Caller) =>
      (await who.call('GET', '/v1/memory/')).body.map(({ metadata }: any) => metadata.n);
    assert.deepEqual([await listed(ann), await listed(bob)], [[7, 0.1], [8]]);
  });

  it('is refused in the metadata of documents, and is nothing to a file that only lends its text', async () => {
    for (const who of [await newLibrary(), await newLibrary()]) {
      const text = '{"corpus_id":"c1","text":"Words","metadata_json":{"n":1e400}}';
      assert.deepEqual(pathsIn(await json(who, 'POST', '/v1/documents/text', text)), [
        422,
        '/metadata_json/n',
      ]);
      const words = file('{"text":"Words","id":9007199254740993}', 'application/json', 'words.json');
      const send = (value: string) => upload(who, [corpus, { name: 'metadata_json', value }, words]);
      assert.deepEqual(pathsIn(await send('{"n":9007199254740993}')), [422, '/metadata_json/n']);
      assert.equal((await send('{"n":9007199254740992}')).status, 202);
    }
  });
});
