import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { call, newTenant, useTestServer } from '#test/harness.ts';
import { parseJson } from './json.ts';
import { withPlainNames } from './json-names.ts';

useTestServer();

const read = (text: string) => parseJson(Buffer.from(text));

describe('a name of a field that is told with an escape', () => {
  it('is what it says, whatever names somebody else has sent', async () => {
    const [ann, mallory] = [await newTenant(), await newTenant()];
    const store = ({ token }: typeof ann, metadata: string) =>
      call('POST', '/v1/memory/', {
        token,
        payload: `{"text":"a note","type":"note","metadata":${metadata}}`,
        headers: { 'content-type': 'application/json' },
      });
    for (const [name, source, theirs] of [
      ['kü', 'k\\u00fc', 'k\\\\'],
      ['größe', 'gr\\u00f6\\u00dfe', 'gr\\\\u0'],
      ['名前', '\\u540d\\u524d', '\\\\u'],
      ['😀', '\\ud83d\\ude00', '\\\\u'],
    ] as const) {
      assert.equal((await store(mallory, `{"h":[],"${theirs}":0}`)).status, 201);
      const made = await store(ann, `{"h":1,"${source}":2}`);
      assert.equal(made.status, 201, made.text);
      assert.deepEqual(made.body.metadata, { h: 1, [name]: 2 });
      const { body } = await ann.call('GET', `/v1/memory/${made.body.id}`);
      assert.deepEqual(body.metadata, { h: 1, [name]: 2 });
    }
  });

  it('is told without it; all else of the text stays', () => {
    for (const [text, plain] of [
      ['{"k\\u00fc":1}', '{"kü":1}'],
      [
        '{"a":"\\u00fc","\\u0062" :["\\n",{"\\u0063":"c\\\\"}]}',
        '{"a":"\\u00fc","b" :["\\n",{"c":"c\\\\"}]}',
      ],
      ['["\\u00fc:",":"]', '["\\u00fc:",":"]'],
      ['{"a\\"b":1,"a\\\\":2,"a\\n":3}', '{"a\\"b":1,"a\\\\":2,"a\\n":3}'],
      ['{"\\ud800":1}', '{"\\ud800":1}'],
      ['{"a":"\\', '{"a":"\\'],
      ['{"\\u00":1}', '{"\\u00":1}'],
    ] as const)
      assert.equal(withPlainNames(text), plain);
    assert.deepEqual(read('{"\\u0061":"\\u0062","c\\"":"\\\\"}'), { a: 'b', 'c"': '\\' });
  });

  it('makes nothing valid that is not', () => {
    for (const text of ['{"a":\\u005b":x"]}', '{"a":1,\\u0061b":2}', '{"\\u0061:1}', '{"a\\u0022:1}'])
      assert.throws(() => read(text), /not valid JSON/, text);
    for (const text of ['{"\\ud800":1}', '{"\\u0000":1}', '{"\\u005f_proto__":1}'])
      assert.throws(() => read(text), text);
  });
});
