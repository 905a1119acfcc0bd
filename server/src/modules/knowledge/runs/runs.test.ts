import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import {
  addressOf,
  type Client,
  eventOf,
  framesOf,
  makeCorpus,
  type ReceivedFrame,
  readAll,
  signedIn,
  signUp,
  typesOf,
} from '#test/event-stream.ts';
import { address, eventually, newDataDir, startServer, testServer, useTestServer } from '#test/harness.ts';
import type { Running } from '../../../app.ts';
import { demoDocuments } from '../documents/demo.ts';
import { runSchedules } from './jobs.ts';
import { runsHere } from './under-way.ts';

useTestServer();

let a: Client;
let b: Client;
let documents: string[];
before(async () => {
  const base = await address();
  [a, b] = [await signUp(base), await signUp(base)];
  documents = await makeCorpus(
    a,
    'handbook',
    Object.fromEntries(demoDocuments.map(({ document_id, text }) => [document_id, text])),
  );
  await makeCorpus(b, 'handbook', {
    moon: 'The moon is the natural satellite of the earth. Its release gates are made of cheese.',
  });
});

const question = 'What are the release gates for Agent 2.0?';
const session = () => `s-${randomUUID()}`;

function checkOrder(frames: ReceivedFrame[], requestId: string, sessionId: string): void {
  const runId = eventOf(frames, 'request.accepted').run_id;
  let last = 0;
  frames.forEach(({ event, id, data }) => {
    assert.equal(data.request_id, requestId);
    if (event === 'heartbeat') {
      assert.equal(id, undefined);
      assert.equal(data.seq, last);
      return;
    }
    last += 1;
    assert.equal(data.seq, last);
    assert.equal(event, 'message');
    assert.equal(id, `${runId}:${data.seq}`);
    assert.equal(data.session_id, sessionId);
  });
}

test('a run streams its events in order and cites the passages its text marks', async () => {
  const session_id = session();
  const frames = await a.run(
    { session_id, corpus_id: 'handbook', message: question, top_k: 5, audio: false },
    { 'x-request-id': 'req-order' },
  );
  checkOrder(frames, 'req-order', session_id);
  const types = typesOf(frames);
  assert.equal(types[0], 'request.accepted');
  assert.deepEqual(types.slice(-2), ['message.final', 'done']);
  assert.ok(types.slice(1, -2).every((type) => type === 'token.delta') && types.length > 10);
  assert.deepEqual(frames.at(-1)!.data.data, {});
  const final = eventOf(frames, 'message.final');
  assert.equal(
    frames
      .filter(({ data }) => data.type === 'token.delta')
      .map(({ data }) => data.data.delta)
      .join(''),
    final.text,
  );
  assert.equal(final.model, 'extractive');
  assert.match(final.text, /Rollback/);
  assert.ok(final.citations.length > 0);
  const marks = new Set([...final.text.matchAll(/\[(\d+)\]/g)].map(([, n]) => Number(n)));
  assert.deepEqual(new Set(final.citations.map(({ index }: any) => index)), marks);
  for (const { source, score, metadata } of final.citations) {
    assert.ok(documents.includes(source.replace('document://', '')));
    assert.ok(score > 0 && score <= 1);
    assert.equal(metadata.filename, `${source.replace('document://', '')}.md`);
    assert.ok(metadata.offset_end > metadata.offset_start && metadata.chunk_id && metadata.content_type);
  }
});

test('each tenant is answered from its own corpus of the same name', async () => {
  const frames = await b.run({
    session_id: session(),
    corpus_id: 'handbook',
    message: 'What are the release gates made of?',
  });
  const { text, citations } = eventOf(frames, 'message.final');
  assert.match(text, /cheese/);
  assert.deepEqual(
    citations.map(({ source }: any) => source),
    ['document://moon'],
  );
});

test('a corpus that is not there, or is of another tenant, ends the stream with an error event', async () => {
  await b.json('POST', '/v1/corpora', { id: 'theirs', name: 'Theirs' });
  for (const corpus_id of ['nowhere', 'theirs']) {
    const frames = await a.run({ session_id: session(), corpus_id, message: question });
    assert.deepEqual(typesOf(frames), ['request.accepted', 'error', 'done']);
    assert.deepEqual(eventOf(frames, 'error'), {
      code: 'RETRIEVAL_CONFIG_INVALID',
      message: 'Corpus not found.',
    });
    const { data } = await a.json('GET', `/v1/runs/${eventOf(frames, 'request.accepted').run_id}`);
    assert.equal(data.status, 'failed');
    assert.equal(data.error_code, 'RETRIEVAL_CONFIG_INVALID');
    assert.deepEqual(
      data.messages.map(({ role, text }: any) => [role, text]),
      [['user', question]],
    );
  }
});

test('a corpus whose retrieval is not configured as it must be is told as such', async () => {
  const { app } = await testServer();
  for (const client of [a, b]) {
    const { data } = await client.json('POST', '/v1/corpora', { name: 'Astray' });
    await app.database.tenant(client.tenant).run(sql`
      update corpora set provider_config_json = ${{ retrieval: { provider: 'pinecone' } }}
      where tenant_id = ${client.tenant} and id = ${data.id}`);
    const frames = await client.run({ session_id: session(), corpus_id: data.id, message: question });
    assert.deepEqual(typesOf(frames), ['request.accepted', 'error', 'done']);
    const { code, message } = eventOf(frames, 'error');
    assert.equal(code, 'RETRIEVAL_CONFIG_INVALID');
    assert.match(message, /Set provider_config_json anew/);
  }
});

test('what is asked wrongly is refused as JSON before anything streams', async () => {
  const good = { session_id: session(), corpus_id: 'handbook', message: 'x' };
  const bad = [
    { ...good, extra: 1 },
    { ...good, top_k: 0 },
    { ...good, top_k: 51 },
    { ...good, top_k: '5' },
    { ...good, session_id: '' },
    { corpus_id: 'handbook', message: 'x' },
    { ...good, message: ' \t\n\u00a0' },
  ];
  for (const body of bad) {
    const reply = await a.send('POST', '/v1/run', body);
    assert.equal(reply.status, 422, JSON.stringify(body));
    assert.equal(((await reply.json()) as any).error.code, 'VALIDATION_ERROR');
  }
  const named = await a.send('POST', '/v1/run', { ...good, tenant_id: b.tenant });
  assert.equal(named.status, 400);
  const { data } = await a.json('GET', `/v1/runs?session_id=${good.session_id}`);
  assert.deepEqual(data, []);
});

test('an empty message and one about something else are answered honestly', async () => {
  for (const message of ['', 'What is the capital of France?']) {
    const { text, citations } = eventOf(
      await a.run({ session_id: session(), corpus_id: 'handbook', message }),
      'message.final',
    );
    assert.equal(text, 'No passage of the corpus answers this question.');
    assert.deepEqual(citations, []);
  }
});

test('a reconnect is told to start again', async () => {
  const frames = await a.run(
    { session_id: session(), corpus_id: 'handbook', message: question },
    { 'last-event-id': 'x:7' },
  );
  assert.deepEqual(typesOf(frames), ['resume.unsupported', 'done']);
  assert.deepEqual(
    frames.map(({ id }) => id),
    [undefined, undefined],
  );
  assert.equal(typeof eventOf(frames, 'resume.unsupported').message, 'string');
});

test('the unversioned alias streams the same and says that it is deprecated', async () => {
  const reply = await a.send('POST', '/run', {
    session_id: session(),
    corpus_id: 'handbook',
    message: question,
  });
  assert.equal(reply.headers.get('deprecation'), 'true');
  assert.match(reply.headers.get('content-type')!, /^text\/event-stream/);
  assert.equal(reply.headers.get('cache-control'), 'no-cache, no-transform');
  assert.deepEqual(typesOf(await readAll(reply)).slice(-1), ['done']);
});

test('runs are listed and read by who began them and by admins, and by nobody else', async () => {
  const [reader, other] = [await signUp(a.base, 'reader', a), await signUp(a.base, 'reader', a)];
  const session_id = session();
  const first = eventOf(
    await reader.run({ session_id, corpus_id: 'handbook', message: question }),
    'request.accepted',
  ).run_id;
  const second = eventOf(
    await reader.run({ session_id, corpus_id: 'handbook', message: 'And the last one?' }),
    'request.accepted',
  ).run_id;
  const page = await reader.json('GET', `/v1/runs?session_id=${session_id}&limit=1`);
  assert.deepEqual(
    page.data.map(({ id }: any) => id),
    [second],
  );
  const listed = await reader.send('GET', `/v1/runs?session_id=${session_id}&limit=1`);
  const rest = await reader.json(
    'GET',
    `/v1/runs?session_id=${session_id}&limit=1&cursor=${listed.headers.get('x-next-cursor')}`,
  );
  assert.deepEqual(
    rest.data.map(({ id }: any) => id),
    [first],
  );
  for (const caller of [reader, a]) {
    const { data } = await caller.json('GET', `/v1/runs/${first}`);
    assert.equal(data.status, 'succeeded');
    assert.equal(data.model, 'extractive');
    assert.deepEqual(
      data.messages.map(({ role }: any) => role),
      ['user', 'assistant'],
    );
    assert.ok(data.messages[1].citations.length > 0);
    assert.deepEqual((await caller.json('GET', `/v1/runs?session_id=${session_id}`)).data.length, 2);
  }
  for (const caller of [other, b]) {
    assert.equal((await caller.send('GET', `/v1/runs/${first}`)).status, 404);
    assert.deepEqual((await caller.json('GET', `/v1/runs?session_id=${session_id}`)).data, []);
  }
  assert.equal((await a.send('GET', '/v1/runs/not-an-id')).status, 404);
});

test('a question that points back is searched with the one before it, in the own session only', async () => {
  const session_id = session();
  await a.run({ session_id, corpus_id: 'handbook', message: question });
  const pointing = { session_id, corpus_id: 'handbook', message: 'And why that?' };
  assert.match(eventOf(await a.run(pointing), 'message.final').text, /Rollback/);
  const other = await signUp(a.base, 'user', a);
  assert.doesNotMatch(eventOf(await other.run(pointing), 'message.final').text, /Rollback/);
});

test('facts of a run name it and hold nobody’s words', async () => {
  const message = `zanzibar ${question}`;
  const run = eventOf(
    await a.run({ session_id: session(), corpus_id: 'handbook', message }),
    'request.accepted',
  ).run_id;
  const { app } = await testServer();
  const facts = await app.database
    .tenant(a.tenant)
    .rows(
      sql`select type, data from facts where tenant_id = ${a.tenant} and resource_id = ${run} order by created_at, id`,
    );
  assert.deepEqual(
    facts.map(({ type }) => type),
    ['run.invoked', 'run.succeeded'],
  );
  assert.ok(!JSON.stringify(facts).includes('zanzibar') && !JSON.stringify(facts).includes('Rollback'));
});

interface Kept {
  checkpoint: Buffer;
}

test('a session keeps one checkpoint, of identifiers only, and another tenant sees none', async () => {
  const session_id = session();
  for (const message of [question, 'How is it tested?', 'And then?'])
    await a.run({ session_id, corpus_id: 'handbook', message });
  const { app } = await testServer();
  const thread = `${a.identity_id}:${session_id}`;
  const own = sql<Kept>`select checkpoint from run_checkpoints where tenant_id = ${a.tenant} and thread_id = ${thread}`;
  const kept = await app.database.tenant(a.tenant).rows(own);
  assert.equal(kept.length, 1);
  const { channel_values: state } = JSON.parse(kept[0]!.checkpoint.toString());
  assert.equal(state.history_ids.length, 4);
  assert.ok(!JSON.stringify(state).includes('gates'));
  const foreign = await app.database.tenant(b.tenant).rows(own);
  assert.equal(foreign.length, 0);
});

test('a run of a dead process does not block its session and is marked as lost', async () => {
  const { app } = await testServer();
  const session_id = session();
  const [blocking, alone] = [randomUUID(), randomUUID()];
  const past = new Date(Date.now() - 60_000);
  const insert = (id: string, name: string, lease: Date) =>
    app.database.tenant(a.tenant).run(sql`
    insert into runs (tenant_id, id, identity_id, session_id, corpus_id, status, process_id, lease_until, created_at)
    values (${a.tenant}, ${id}, ${a.identity_id}, ${name}, 'handbook', 'running', ${runsHere(app).processId}, ${lease}, ${past})`);
  await insert(blocking, session_id, new Date(Date.now() + 60_000));
  const refused = await a.send('POST', '/v1/run', { session_id, corpus_id: 'handbook', message: question });
  assert.equal(refused.status, 409);
  assert.equal(((await refused.json()) as any).error.code, 'RUN_IN_PROGRESS');
  await app.database
    .tenant(a.tenant)
    .run(sql`update runs set lease_until = ${past} where tenant_id = ${a.tenant} and id = ${blocking}`);
  assert.equal(
    typesOf(await a.run({ session_id, corpus_id: 'handbook', message: question })).at(-2),
    'message.final',
  );
  await insert(alone, session(), past);
  for (const { run } of runSchedules) await run(app);
  for (const id of [blocking, alone]) {
    const run = await eventually('the run to be marked as lost', async () => {
      const { data } = await a.json('GET', `/v1/runs/${id}`);
      return data.status === 'failed' && data;
    });
    assert.equal(run.error_code, 'PROCESS_LOST');
  }
});

test('through injection, without a socket, a run ends too', async () => {
  const { server } = await testServer();
  const reply = await server!.inject({
    method: 'POST',
    url: '/v1/run',
    headers: { authorization: `Bearer ${a.token}` },
    payload: { session_id: session(), corpus_id: 'handbook', message: question },
  });
  assert.match(reply.payload, /"type":"done"/);
});

let fake: Running;
let c: Client;
before(async () => {
  await testServer();
  fake = await startServer({
    LLM_PROVIDER: 'fake',
    RUN_MAX_CONCURRENCY: '2',
    RUN_SSE_HEARTBEAT_S: '1',
    RUN_DISCONNECT_GRACE_MS: '100',
    DEBUG_EVENTS: 'true',
  });
  c = await signUp(addressOf(fake));
  await makeCorpus(c, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
});
after(() => fake.stop());

test('the fake provider says its sentence word by word and debug events tell of the retrieval', async () => {
  const frames = await c.run({ session_id: session(), corpus_id: 'handbook', message: question });
  assert.deepEqual(typesOf(frames), [
    'request.accepted',
    'debug.retrieval',
    ...Array(5).fill('token.delta'),
    'message.final',
    'done',
  ]);
  assert.deepEqual(eventOf(frames, 'debug.retrieval'), { provider: 'local_pgvector', num_chunks: 1 });
  assert.deepEqual(
    frames.filter(({ data }) => data.type === 'token.delta').map(({ data }) => data.data.delta),
    ['This ', 'is ', 'a ', 'fake ', 'response. '],
  );
  assert.equal(eventOf(frames, 'message.final').citations.length, 1);
});

test('a model that breaks off leaves a failed run with the question and no answer', async () => {
  const session_id = session();
  const frames = await c.run({ session_id, corpus_id: 'handbook', message: 'fake:fail' });
  assert.deepEqual(typesOf(frames), [
    'request.accepted',
    'debug.retrieval',
    'token.delta',
    'token.delta',
    'error',
    'done',
  ]);
  assert.equal(eventOf(frames, 'error').code, 'LLM_ERROR');
  const { data } = await c.json('GET', `/v1/runs/${eventOf(frames, 'request.accepted').run_id}`);
  assert.deepEqual([data.status, data.error_code, data.messages.length], ['failed', 'LLM_ERROR', 1]);
  assert.equal(
    typesOf(await c.run({ session_id, corpus_id: 'handbook', message: question })).at(-2),
    'message.final',
  );
});

test('silence is filled with heartbeats, one session runs once at a time, and a full server says so', async () => {
  const [one, two] = [session(), session()];
  const slow = { session_id: one, corpus_id: 'handbook', message: 'fake:slow 200' };
  const [first, second] = [c.run(slow), c.run({ ...slow, session_id: two })];
  await eventually(
    'both runs to be under way',
    async () => (await c.json('GET', '/v1/runs?status=running')).data.length === 2,
  );
  const busy = await c.send('POST', '/v1/run', { ...slow, session_id: session() });
  assert.equal(busy.status, 503);
  assert.equal(busy.headers.get('retry-after'), '1');
  assert.equal(((await busy.json()) as any).error.code, 'SERVICE_BUSY');
  checkOrder(await first, (await first)[0]!.data.request_id, one);
  await second;
  const silent = await c.run({ session_id: one, corpus_id: 'handbook', message: 'fake:slow 1050' });
  const beats = silent.filter(({ event }) => event === 'heartbeat');
  assert.ok(beats.length >= 4, `${beats.length} heartbeats`);
  assert.deepEqual(Object.keys(beats[0]!.data), ['ts', 'request_id', 'seq']);
  checkOrder(silent, silent[0]!.data.request_id, one);
});

test('a second run in a session that has one is refused until that is done', async () => {
  const session_id = session();
  const twin = { session_id, corpus_id: 'handbook', message: 'fake:slow 150' };
  const twins = await Promise.all([c.send('POST', '/v1/run', twin), c.send('POST', '/v1/run', twin)]);
  assert.deepEqual(twins.map(({ status }) => status).sort(), [200, 409]);
  await Promise.all(twins.map((reply) => reply.text()));
  const slow = c.run(twin);
  await eventually(
    'the run to be under way',
    async () => (await c.json('GET', `/v1/runs?session_id=${session_id}&status=running`)).data.length === 1,
  );
  const refused = await c.send('POST', '/v1/run', { session_id, corpus_id: 'handbook', message: question });
  assert.equal(refused.status, 409);
  assert.equal(((await refused.json()) as any).error.code, 'RUN_IN_PROGRESS');
  await slow;
  assert.equal(typesOf(await c.run({ session_id, corpus_id: 'handbook', message: question })).at(-1), 'done');
});

test('a client that leaves has its run canceled after the grace, and its place is free again', async () => {
  const session_id = session();
  const leave = new AbortController();
  const reply = await c.send(
    'POST',
    '/v1/run',
    { session_id, corpus_id: 'handbook', message: 'fake:hang' },
    {},
    leave.signal,
  );
  for await (const { data } of framesOf(reply)) if (data.type === 'token.delta') break;
  leave.abort();
  const run = await eventually('the run to be canceled', async () => {
    const { data } = await c.json('GET', `/v1/runs?session_id=${session_id}`);
    return data[0].status !== 'running' && data[0];
  });
  assert.deepEqual([run.status, run.error_code], ['canceled', 'CLIENT_DISCONNECTED']);
  await eventually('the request to count no longer', async () => {
    const { values } = await fake.app.metrics.inFlight.get();
    return values[0]?.value === 0;
  });
  assert.equal(typesOf(await c.run({ session_id, corpus_id: 'handbook', message: question })).at(-1), 'done');
});

test('a client that leaves near the end finds its answer afterwards', async () => {
  const patient = await startServer({ LLM_PROVIDER: 'fake', RUN_DISCONNECT_GRACE_MS: '60000' });
  const c = await signUp(addressOf(patient));
  await makeCorpus(c, 'handbook', { gates: 'The release gates are tests.' });
  const session_id = session();
  const leave = new AbortController();
  const reply = await c.send(
    'POST',
    '/v1/run',
    { session_id, corpus_id: 'handbook', message: 'fake:slow 20' },
    {},
    leave.signal,
  );
  for await (const { data } of framesOf(reply)) if (data.type === 'token.delta') break;
  leave.abort();
  const { id } = await eventually('the run to end', async () => {
    const { data } = await c.json('GET', `/v1/runs?session_id=${session_id}`);
    return data[0].status !== 'running' && data[0];
  });
  const { data } = await c.json('GET', `/v1/runs/${id}`);
  assert.deepEqual([data.status, data.messages.length], ['succeeded', 2]);
  await patient.stop();
});

test('a server that shuts down tells its clients and marks their runs as canceled', async () => {
  const settings = { LLM_PROVIDER: 'fake', DATA_DIR: newDataDir() };
  const running = await startServer(settings);
  const client = await signUp(addressOf(running));
  await makeCorpus(client, 'handbook', { gates: 'The release gates are tests.' });
  const stream = client.run({ session_id: 's', corpus_id: 'handbook', message: 'fake:hang' });
  await eventually(
    'the run to be under way',
    async () => (await client.json('GET', '/v1/runs')).data.length === 1,
  );
  const stopped = running.stop();
  const frames = await stream;
  assert.deepEqual(typesOf(frames).slice(-2), ['error', 'done']);
  assert.equal(eventOf(frames, 'error').code, 'SERVICE_SHUTTING_DOWN');
  await stopped;
  const again = await startServer(settings);
  const { id } = (await signedIn(addressOf(again), client).json('GET', '/v1/runs')).data[0];
  const { data } = await signedIn(addressOf(again), client).json('GET', `/v1/runs/${id}`);
  assert.deepEqual([data.status, data.error_code], ['canceled', 'SERVICE_SHUTTING_DOWN']);
  await again.stop();
});
