import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import {
  addressOf,
  type Client,
  eventOf,
  makeCorpus,
  openStream,
  readAll,
  signUp,
} from '#test/event-stream.ts';
import { startServer, testServer, useTestServer } from '#test/harness.ts';
import type { Running } from '../../../app.ts';

useTestServer();

let server: Running;
let ann: Client;
let bob: Client;
before(async () => {
  await testServer();
  server = await startServer({
    LLM_PROVIDER: 'fake',
    RUN_MAX_CONCURRENCY: '4',
    RUN_MAX_CONCURRENCY_PER_TENANT: '1',
  });
  [ann, bob] = [await signUp(addressOf(server)), await signUp(addressOf(server))];
  for (const who of [ann, bob])
    await makeCorpus(who, 'handbook', { gates: 'The gates are tests and rollback.' });
});
after(() => server.stop());

const asked = (message = 'What are the gates?') => ({
  session_id: `s-${randomUUID()}`,
  corpus_id: 'handbook',
  message,
});
const newKey = () => ({ 'idempotency-key': randomUUID() });
const runsOf = async (who: Client, session: string): Promise<any[]> =>
  (await who.json('GET', `/v1/runs?session_id=${session}`)).data;
const errorOf = async (response: Response) => [response.status, ((await response.json()) as any).error.code];

test('a run that is repeated under its Idempotency-Key is read again, and not done again', async () => {
  const [body, key] = [asked(), newKey()];
  const first = await ann.send('POST', '/v1/run', body, key);
  assert.equal(first.headers.get('idempotency-replayed'), null);
  const frames = await readAll(first);
  const again = await ann.send('POST', '/v1/run', body, key);
  assert.equal(again.headers.get('idempotency-replayed'), 'true');
  assert.deepEqual(await readAll(again), frames);
  assert.equal((await runsOf(ann, body.session_id)).length, 1);
  // Without the key, with another, and under another credential it is another run.
  for (const [who, headers] of [
    [ann, {}],
    [ann, newKey()],
    [bob, key],
  ] as const) {
    const other = await who.run(body, headers);
    assert.notEqual(eventOf(other, 'request.accepted').run_id, eventOf(frames, 'request.accepted').run_id);
  }
});

test('another message under the same key is refused', async () => {
  const [body, key] = [asked(), newKey()];
  await ann.run(body, key);
  const other = await ann.send('POST', '/v1/run', { ...body, message: 'Something else?' }, key);
  assert.deepEqual(await errorOf(other), [409, 'IDEMPOTENCY_KEY_CONFLICT']);
  assert.deepEqual(await errorOf(await ann.send('POST', '/v1/run', body, { 'idempotency-key': 'ü' })), [
    400,
    'IDEMPOTENCY_KEY_INVALID',
  ]);
  assert.equal((await runsOf(ann, body.session_id)).length, 1);
});

test('a run that is going on is followed, though its tenant has no place for another', async () => {
  const [body, key] = [asked('fake:hang'), newKey()];
  const first = await openStream(ann, 'POST', '/v1/run', body, key);
  const accepted = await first.until('request.accepted');
  const [next, nextKey] = [asked(), newKey()];
  const full = await ann.send('POST', '/v1/run', next, nextKey);
  assert.deepEqual(await errorOf(full), [503, 'SERVICE_BUSY']);
  const second = await openStream(ann, 'POST', '/v1/run', body, key);
  assert.deepEqual(await second.until('request.accepted'), accepted);
  // The places of a tenant are its own.
  assert.equal(eventOf(await bob.run(asked()), 'message.final').citations.length, 1);
  await ann.json('POST', `/v1/runs/${accepted.data.data.run_id}/cancel`);
  assert.deepEqual(await second.rest(), await first.rest());
  // A request that was refused left its key free, and gave its place back.
  assert.equal(eventOf(await ann.run(next, nextKey), 'message.final').citations.length, 1);
});

test('the key of a run that was removed begins no other', async () => {
  const [body, key] = [asked(), newKey()];
  const { run_id } = eventOf(await ann.run(body, key), 'request.accepted');
  await ann.send('DELETE', `/v1/runs/${run_id}`);
  const frames = await ann.run(body, key);
  assert.deepEqual(
    frames.map(({ data }) => data.type),
    ['resume.unsupported', 'done'],
  );
  assert.deepEqual(await runsOf(ann, body.session_id), []);
});

test('of many at once under one key one begins a run', async () => {
  const [body, key] = [asked(), newKey()];
  const replies = await Promise.all(Array.from({ length: 8 }, () => ann.send('POST', '/v1/run', body, key)));
  const ids = new Set<string>();
  for (const reply of replies) {
    if (reply.status === 200) ids.add(eventOf(await readAll(reply), 'request.accepted').run_id);
    else assert.deepEqual(await errorOf(reply), [409, 'IDEMPOTENCY_IN_PROGRESS']);
  }
  assert.equal(ids.size, 1);
  assert.equal((await runsOf(ann, body.session_id)).length, 1);
});

test('a run that takes longer than RUN_TIMEOUT_S ends as failed, and its place is free again', async () => {
  const { config } = server.app;
  const { RUN_TIMEOUT_S } = config;
  config.RUN_TIMEOUT_S = 0.2;
  try {
    const body = asked('fake:hang');
    const frames = await ann.run(body);
    assert.equal(eventOf(frames, 'error').code, 'RUN_TIMEOUT');
    assert.equal(frames.at(-1)!.data.type, 'done');
    const [run] = await runsOf(ann, body.session_id);
    assert.deepEqual([run.status, run.error_code], ['failed', 'RUN_TIMEOUT']);
  } finally {
    config.RUN_TIMEOUT_S = RUN_TIMEOUT_S;
  }
  assert.equal(eventOf(await ann.run(asked()), 'message.final').citations.length, 1);
});
