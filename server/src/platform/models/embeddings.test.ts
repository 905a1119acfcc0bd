import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { type EmbeddingServer, meaningOf, startEmbeddingServer } from '#test/embedding-server.ts';
import { environmentOf } from '#test/harness.ts';
import { readConfig } from '../config.ts';
import { createGuardedFetch } from '../fetch.ts';
import { openAiCompatibleEmbeddings, unit } from './embeddings.ts';

describe('an embeddings server', () => {
  let server: EmbeddingServer;
  afterEach(() => server.close());

  const open = async (formats: ('float' | 'base64')[], unknownFormat = 400) => {
    server = await startEmbeddingServer({ formats, unknownFormat });
    const config = readConfig({ ...environmentOf(), EMBEDDING_BASE_URL: server.url });
    const outside = createGuardedFetch([new URL(server.url).host], 5_000);
    const link = openAiCompatibleEmbeddings(config, outside.send, {
      model: 'meaning',
      dimensions: 32,
      former: false,
    });
    return link.open();
  };
  const soon = () => AbortSignal.timeout(10_000);
  const asked = () => server.requests.map(({ encoding_format }) => encoding_format);
  const wanted = (text: string) => unit(Float32Array.from(meaningOf(text, 32, 'meaning')));

  it('is asked for vectors in base64', async () => {
    const model = await open(['float', 'base64']);
    assert.deepEqual(await model.embed(['a dog', 'a car'], soon()), [wanted('a dog'), wanted('a car')]);
    assert.deepEqual(asked(), ['base64']);
  });

  for (const status of [400, 422, 500])
    it(`that answers ${status} to base64 is asked for lists of numbers, and remembered`, async () => {
      const model = await open(['float'], status);
      for (const text of ['a dog', 'a car'])
        assert.deepEqual(await model.embedQuery(text, soon()), wanted(text));
      assert.deepEqual(asked(), ['base64', 'float', 'float']);
    });

  it('that has answered before refuses the texts and not the format', async () => {
    const model = await open(['float', 'base64']);
    await model.embed(['a dog'], soon());
    server.fail({ kind: 'status', status: 400, texts: /poison/ });
    await assert.rejects(model.embed(['poison'], soon()), { kind: 'refused' });
    assert.deepEqual(asked(), ['base64', 'base64']);
  });

  it('that leads to another address is misconfigured, and is not asked again', async () => {
    const model = await open(['float', 'base64']);
    for (const status of [301, 302, 307, 308]) {
      server.requests.length = 0;
      server.fail({ kind: 'status', status });
      await assert.rejects(model.embed(['a dog'], soon()), {
        kind: 'misconfigured',
        message: 'the embeddings server can not be called: the address leads to another one',
      });
      assert.equal(server.requests.length, 1);
    }
  });

  it('may answer with bytes that are no numbers', async () => {
    const model = await open(['float', 'base64']);
    for (const embedding of ['AAA', 'AAAAAAAA', '', 7, null]) {
      server.fail({ kind: 'garbage', body: JSON.stringify({ data: [{ index: 0, embedding }] }) });
      await assert.rejects(model.embedQuery('a dog', soon()), { name: 'ModelError' });
    }
  });
});
