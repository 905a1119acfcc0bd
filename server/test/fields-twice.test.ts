import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ApiError, FieldProblem } from '#platform/errors.ts';
import { parseJson } from '#platform/http/json.ts';
import { call, eventually, useTestServer } from '#test/harness.ts';
import { corpus, file, newLibrary, upload } from '#test/uploads.ts';

// A field that is there twice is refused, where a reader would keep the last and drop the others.

useTestServer();

const pathOf = (body: string): string | undefined => {
  try {
    parseJson(Buffer.from(body));
    return undefined;
  } catch (error) {
    const [problem] = (error as ApiError).details!.errors as FieldProblem[];
    assert.equal(problem!.message, 'is there twice');
    return problem!.path;
  }
};

describe('a field of a JSON body', () => {
  it('is refused at its path where it is there twice, however it is written', () => {
    for (const [body, path] of [
      ['{"a":1,"a":1}', '/a'],
      ['{"a" :1,"b":2,"a"\n\t:{}}', '/a'],
      ['{"x":{"b":[0,[],{"c":null,"d":[1,2],"c":null}]}}', '/x/b/2/c'],
      ['{"agent":1,"\\u0061gent":2}', '/agent'],
      ['{"a\\\\":1,"b":":x","a\\\\":2}', '/a\\'],
      ['{"a\\"":1,"a\\"":2}', '/a"'],
      ['[{"":1,"":2}]', '/0/'],
      ['{"1":1,"1":2}', '/1'],
      ['{"constructor":1,"constructor":2}', '/constructor'],
    ] as const)
      assert.equal(pathOf(body), path, body);
  });

  it('is taken where it only seems to be', () => {
    for (const body of [
      '{"a":{"a":[{"a":1},{"a":1}]},"b":"a"}',
      '{"a":":a","b":[":a",":a"," :a"]}',
      '{"a":"\\":","b":"\\\\\\":","c":"\\\\"}',
      JSON.stringify({ text: '{"a":1,"a":2}', type: JSON.stringify('{"a":1,"a":2}') }),
      '{"A":1,"a":2,"a ":3}',
      '":"',
      '[]',
    ])
      assert.equal(pathOf(body), undefined, body);
  });

  it('is found in time however it is written', () => {
    const many = 1_000_000;
    for (const body of [
      `{"a":"${'\\\\'.repeat(many)}","a":1}`,
      `{"a"${' '.repeat(many)}:1,"a":["${'\\"   '.repeat(many / 4)}"]}`,
      `{"a":"${'\\":'.repeat(many)}","a":1}`,
    ])
      assert.equal(pathOf(body), '/a');
  });
});

describe('a field that is there twice', () => {
  it('is refused by every way in, and nothing of its body is stored', async () => {
    for (const who of [await newLibrary(), await newLibrary()]) {
      const send = (path: string, payload: string, type = 'application/json') =>
        call('POST', path, { token: who.token, payload, headers: { 'content-type': type } });
      const memory = (more: string) => `{"text":"Twice","type":"note",${more}}`;
      for (const [path, payload, at] of [
        ['/v1/memory/', memory('"text":"Two"'), '/text'],
        ['/v1/memory/', memory('"metadata":{"n":1,"n":2}'), '/metadata/n'],
        ['/v1/memory/bulk', `{"memories":[${memory('"type":"fact"')}]}`, '/memories/0/type'],
        ['/v1/documents/text', '{"corpus_id":"c1","text":"Words","text":"Words"}', '/text'],
      ] as const) {
        const { status, body } = await send(path, payload);
        assert.deepEqual([status, body.error.code], [422, 'VALIDATION_ERROR'], payload);
        assert.deepEqual(body.error.details.errors, [{ path: at, message: 'is there twice' }]);
      }
      const form = [corpus, { name: 'metadata_json', value: '{"n":1,"n":2}' }, file('Words')];
      assert.equal((await upload(who, form)).body.error.details.errors[0].path, '/metadata_json/n');
      const lines = `${memory('"type":"fact"')}\n${memory('"session_id":"s1"')}\n`;
      const sent = await send('/v1/memory/import', lines, 'application/x-ndjson');
      const { created, failed, errors } = await eventually('the import', async () => {
        const state = (await who.call('GET', sent.body.status_url)).body;
        return state.status === 'succeeded' && state;
      });
      assert.deepEqual([created, failed, errors[0].message], [1, 1, '/type is there twice']);
      assert.equal((await who.call('GET', '/v1/memory/')).body.length, 1);
    }
  });
});
