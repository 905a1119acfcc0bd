// The local embedding model through the real transformers.js, which is not installed by default: `npm run test:local-model`
// installs it and runs this. It is not one of the suite's files for that reason alone.
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import type { Running } from '../src/app.ts';
import { type EmbeddingServer, startEmbeddingServer } from './embedding-server.ts';
import { type Caller, eventually, newTenant, startServer } from './harness.ts';
import { writeTinyModel } from './tiny-model.ts';

const directory = join(mkdtempSync(join(tmpdir(), 'manushya-tiny-')), 'tiny');
const model = 'local:tiny-24';
let server: Running | undefined;
let embeddings: EmbeddingServer;

before(async () => {
  writeTinyModel(directory, [
    ['retirement', 'pension', 'annuity'],
    ['weather', 'rain'],
    ['dog', 'puppy', 'hound'],
  ]);
  embeddings = await startEmbeddingServer();
});
after(async () => {
  await server?.stop();
  await embeddings.close();
});

const vectorsOf = async (who: Caller): Promise<Record<string, number>> => {
  const { body } = await who.call('GET', '/v1/ops/embeddings');
  const memories = body.data.collections.find(({ scope }: { scope: string }) => scope === 'memory');
  return Object.fromEntries(
    memories.models.map((one: { model: string; vectors: number }) => [one.model, one.vectors]),
  );
};

const remember = async (who: Caller, ...texts: string[]) => {
  for (const text of texts) await who.call('POST', '/v1/memory/', { text, type: 'note' });
};

const search = async (who: Caller, query: string): Promise<string[]> =>
  (await who.call('POST', '/v1/memory/search', { query })).body.map(({ text }: { text: string }) => text);

it('a directory with an ONNX model embeds texts and queries, and does not hold up the server', async () => {
  server = await startServer({ EMBEDDING_LOCAL_MODEL: directory });
  const ann = await newTenant('admin', server);
  await remember(ann, 'the pension', 'the rain', 'a puppy');
  await eventually('the vectors', async () => (await vectorsOf(ann))[model] === 3, 60_000);
  assert.equal((await search(ann, 'annuity'))[0], 'the pension');
  assert.equal((await search(ann, 'hound'))[0], 'a puppy');
  // A thousand texts go through the thread while the server answers others.
  const memories = Array.from({ length: 1_000 }, (_, i) => ({ text: `rain ${i}`, type: 'note' }));
  await ann.call('POST', '/v1/memory/bulk', { memories });
  assert.equal((await search(ann, 'annuity'))[0], 'the pension');
  await eventually('the other vectors', async () => (await vectorsOf(ann))[model] === 1_003, 60_000);
  const { body } = await ann.call('GET', '/v1/ops/embeddings');
  assert.deepEqual(
    body.data.links.map(({ provider, role, state }: Record<string, string>) => [provider, role, state]),
    [
      ['local', 'preferred', 'working'],
      ['hashed', 'stand_in', 'working'],
    ],
  );
  await server.stop();
});

it('it stands in for a server that is away, and gives way when that is back', async () => {
  server = await startServer({
    EMBEDDING_LOCAL_MODEL: directory,
    EMBEDDING_BASE_URL: embeddings.url,
    EMBEDDING_MODEL: 'meaning',
    EMBEDDING_DIMENSIONS: '32',
    EXT_RETRY_MAX_ATTEMPTS: '0',
    EMBEDDING_BREAKER_MS: '300',
  });
  embeddings.fail({ kind: 'status', status: 503 });
  const ann = await newTenant('admin', server);
  await remember(ann, 'the pension', 'the rain');
  await eventually('the vectors', async () => (await vectorsOf(ann))[model] === 2, 60_000);
  assert.equal((await search(ann, 'annuity'))[0], 'the pension');
  embeddings.fail({ kind: 'none' });
  await eventually(
    'the better vectors alone',
    async () => JSON.stringify(await vectorsOf(ann)) === '{"meaning-32":2}',
    60_000,
  );
  assert.equal((await search(ann, 'annuity'))[0], 'the pension');
});

it('a directory without a model is told, and the built-in vectors stand in', async () => {
  await server?.stop();
  server = await startServer({ EMBEDDING_LOCAL_MODEL: mkdtempSync(join(tmpdir(), 'manushya-empty-')) });
  const ann = await newTenant('admin', server);
  await remember(ann, 'the pension');
  await eventually('the vector', async () => (await vectorsOf(ann))['hashed-384-v1'] === 1, 60_000);
  const { body } = await ann.call('GET', '/v1/ops/embeddings');
  assert.equal(body.data.links[0].last_failure.kind, 'misconfigured');
});
