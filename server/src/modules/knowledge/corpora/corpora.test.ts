import assert from 'node:assert/strict';
import test from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { newMember, newTenant, testServer, useTestServer } from '#test/harness.ts';

useTestServer();

test('a corpus is made, read and listed in its own tenant, and is not there for another', async () => {
  const [mine, other] = [await newTenant(), await newTenant()];
  const made = await mine.call('POST', '/v1/corpora', {
    id: 'handbook',
    name: 'Handbook',
    provider_config_json: {},
  });
  assert.equal(made.status, 201, made.text);
  assert.deepEqual(made.body.data.provider_config_json, {
    retrieval: { provider: 'local_pgvector', top_k_default: 5 },
  });
  assert.equal(made.body.data.tenant_id, mine.tenant);
  assert.equal(made.body.meta.api_version, 'v1');
  assert.deepEqual((await mine.call('GET', '/v1/corpora/handbook')).body.data, made.body.data);
  assert.deepEqual((await mine.call('GET', '/v1/corpora')).body.data, [made.body.data]);
  assert.equal((await other.call('GET', '/v1/corpora/handbook')).status, 404);
  assert.deepEqual((await other.call('GET', '/v1/corpora')).body.data, []);
  assert.equal(
    (await other.call('POST', '/v1/corpora', { id: 'handbook', name: 'Theirs' })).status,
    201,
    'an id is taken in one tenant only',
  );
});

test('the alias without a version answers bare', async () => {
  const mine = await newTenant();
  await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'One' });
  const reply = await mine.call('GET', '/corpora/c1');
  assert.equal(reply.body.id, 'c1');
  assert.equal(reply.headers.deprecation, 'true');
});

test('a corpus needs a name, a well-formed id that is free, and a provider this server has', async () => {
  const mine = await newTenant();
  const post = (body: unknown) => mine.call('POST', '/v1/corpora', body);
  assert.equal((await post({})).status, 422);
  assert.equal((await post({ name: ' ' })).status, 422);
  assert.equal((await post({ name: 'x', id: '../etc' })).status, 422);
  const [long] = (await post({ name: 'x', id: 'x'.repeat(300) })).body.error.details.errors;
  assert.deepEqual(long, { path: '/id', message: 'must not have more than 64 characters' });
  assert.equal((await post({ name: 'x', nmae: 'x' })).status, 422);
  assert.equal(
    (await post({ name: 'x', tenant_id: 'somebody-else' })).body.error.code,
    'TENANT_ID_NOT_ALLOWED',
  );
  for (const retrieval of [
    { provider: 'elsewhere' },
    { provider: 'constructor' },
    { provider: 7 },
    { provider: 'aws_bedrock_kb', region: 'us-east-1' },
    { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123' },
    { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB 123', region: 'us-east-1' },
    { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'evil.example/#-1' },
    { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'us-east-1', project: 'p' },
    { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'us-east-1', top_k_default: '5' },
    { provider: 'gcp_vertex', project: 'p1', location: 'us' },
    { provider: 'gcp_vertex', project: 'p1', location: 'evil.example/', resource_id: 'r' },
    { provider: 'gcp_vertex', project: '../p', location: 'us', resource_id: 'r' },
    { provider: 'gcp_vertex', project: 'p1', location: 'us', resource_id: 'r/../../x' },
    { provider: 'gcp_vertex', project: 'p1', location: 'us', resource_id: 'r', region: 'us-east-1' },
    { provider: 'local_pgvector', top_k_default: 0 },
    { provider: 'local_pgvector', top_k_default: 1.5 },
    { provider: 'local_pgvector', region: 'x' },
    'local_pgvector',
  ]) {
    const reply = await post({ name: 'x', provider_config_json: { retrieval } });
    assert.equal(reply.status, 422, JSON.stringify(retrieval));
    assert.match(reply.body.error.details.errors[0].path, /^\/provider_config_json\/retrieval/);
  }
  assert.equal((await post({ name: 'x', provider_config_json: { retrievel: {} } })).status, 422);
  assert.match((await post({ name: 'made by the server' })).body.data.id, /^corpus-[0-9a-f]{32}$/);
  assert.equal((await post({ id: 'twice', name: 'x' })).status, 201);
  const again = await post({ id: 'twice', name: 'x' });
  assert.deepEqual([again.status, again.body.error.code], [409, 'CORPUS_EXISTS']);
});

test('corpora come newest first, page by page', async () => {
  const mine = await newTenant();
  for (const id of ['a', 'b', 'c']) await mine.call('POST', '/v1/corpora', { id, name: id });
  const first = await mine.call('GET', '/v1/corpora?limit=2');
  assert.deepEqual(
    first.body.data.map(({ id }: { id: string }) => id),
    ['c', 'b'],
  );
  const cursor = String(first.headers['x-next-cursor']);
  const second = await mine.call('GET', `/v1/corpora?limit=2&cursor=${encodeURIComponent(cursor)}`);
  assert.deepEqual(
    second.body.data.map(({ id }: { id: string }) => id),
    ['a'],
  );
  assert.equal(second.headers['x-next-cursor'], undefined);
  assert.equal(
    (await mine.call('GET', `/v1/corpora?cursor=${encodeURIComponent(`${cursor}x`)}`)).body.error.code,
    'INVALID_CURSOR',
  );
  assert.equal((await mine.call('GET', '/v1/corpora?limit=101')).status, 422);
});

test('readers read corpora; only admins make them', async () => {
  const mine = await newTenant();
  await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'One' });
  const reader = await newMember(mine, 'reader');
  const editor = await newMember(mine, 'editor');
  assert.equal((await reader.call('GET', '/v1/corpora/c1')).status, 200);
  assert.equal((await reader.call('POST', '/v1/corpora', { name: 'x' })).status, 403);
  assert.equal((await editor.call('POST', '/v1/corpora', { name: 'x' })).status, 403);
});

test('a corpus asked for twice under one Idempotency-Key is made once', async () => {
  const mine = await newTenant();
  const post = (name: string) => mine.call('POST', '/v1/corpora', { name }, { 'idempotency-key': 'once' });
  const [first, second] = [await post('x'), await post('x')];
  assert.equal(second.body.data.id, first.body.data.id);
  assert.equal(second.headers['idempotency-replayed'], 'true');
  assert.equal((await post('y')).body.error.code, 'IDEMPOTENCY_KEY_CONFLICT');
  assert.equal((await mine.call('GET', '/v1/corpora')).body.data.length, 1);
});

const shapes = [
  { provider: 'local_pgvector', top_k_default: 7 },
  { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'us-east-1', top_k_default: 5 },
  {
    provider: 'gcp_vertex',
    project: 'my-gcp-project',
    location: 'us-central1',
    resource_id: 'your-datastore-id',
    top_k_default: 5,
  },
  {
    provider: 'gcp_vertex',
    project: '123456',
    location: 'global',
    resource_id: 'engines/app_1',
    top_k_default: 5,
  },
];

test('a corpus is routed to each of the three providers, and back by an empty configuration', async () => {
  const [mine, other] = [await newTenant(), await newTenant()];
  const editor = await newMember(mine, 'editor');
  await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'One' });
  const patch = (body: unknown) => editor.call('PATCH', '/v1/corpora/c1', body);
  for (const retrieval of shapes) {
    const reply = await patch({ provider_config_json: { retrieval } });
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(reply.body.data.provider_config_json, { retrieval });
    assert.deepEqual((await mine.call('GET', '/v1/corpora/c1')).body.data, reply.body.data);
    assert.equal(reply.body.data.name, 'One');
  }
  const { updated_at } = (await patch({ name: 'Two' })).body.data;
  const back = (await patch({ provider_config_json: {} })).body.data;
  assert.deepEqual(back.provider_config_json, {
    retrieval: { provider: 'local_pgvector', top_k_default: 5 },
  });
  assert.ok(back.updated_at >= updated_at);
  assert.equal(back.name, 'Two');
  const facts = await (await testServer()).app.database.operator.rows(sql<{ before: any; after: any }>`
    select before, after from facts where tenant_id = ${mine.tenant} and type = 'corpora.updated' order by id`);
  assert.equal(facts.length, shapes.length + 2);
  assert.deepEqual(facts[1]!.before.provider_config_json, { retrieval: shapes[0] });
  assert.deepEqual(facts[1]!.after.provider_config_json, { retrieval: shapes[1] });
  assert.deepEqual([facts.at(-2)!.before.name, facts.at(-2)!.after.name], ['One', 'Two']);
  assert.equal((await other.call('PATCH', '/v1/corpora/c1', { name: 'Theirs' })).status, 404);
  assert.equal(
    (await (await newMember(mine, 'reader')).call('PATCH', '/v1/corpora/c1', { name: 'x' })).status,
    403,
  );
});

test('a change of a corpus is checked field by field, and nothing of a bad one is kept', async () => {
  const mine = await newTenant();
  const { data } = (await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'One' })).body;
  const patch = (body: unknown) => mine.call('PATCH', '/v1/corpora/c1', body);
  const reply = await patch({
    name: 'Two',
    provider_config_json: {
      retrieval: { provider: 'aws_bedrock_kb', region: 'nowhere', top_k: 5, top_k_default: 99 },
    },
  });
  assert.equal(reply.status, 422);
  assert.deepEqual(
    reply.body.error.details.errors.map(({ path }: { path: string }) => path),
    ['top_k', 'knowledge_base_id', 'region', 'top_k_default'].map(
      (name) => `/provider_config_json/retrieval/${name}`,
    ),
  );
  assert.deepEqual((await patch({})).body.data, data);
  for (const body of [{ name: '' }, { name: null }, { provider_config_json: [] }, { retrieval: {} }])
    assert.equal((await patch(body)).status, 422, JSON.stringify(body));
  assert.deepEqual((await mine.call('GET', '/v1/corpora/c1')).body.data, data);
  assert.equal((await mine.call('PATCH', '/v1/corpora/nope', { name: 'x' })).status, 404);
});
