import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startChatServer } from '#test/chat-server.ts';
import {
  addressOf,
  type Client,
  eventOf,
  makeCorpus,
  openStream,
  readAll,
  signUp,
  typesOf,
} from '#test/event-stream.ts';
import { emptyDatabase, engine, eventually, startServer } from '#test/harness.ts';
import { createProxy, type Outage } from '#test/proxy.ts';
import type { Running } from '../src/app.ts';

// The database goes away while runs stream, and comes back; on the embedded engine it can not.

const describeApart: typeof describe =
  engine === 'postgres' ? describe : ((() => {}) as unknown as typeof describe);

describeApart('the database goes away under a run', () => {
  let proxy: Outage;
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let server: Running;
  let client: Client;
  before(async () => {
    await emptyDatabase(process.env.DATABASE_URL!);
    proxy = await createProxy(process.env.DATABASE_URL!);
    chat = await startChatServer();
    server = await startServer({
      DATABASE_URL: proxy.url,
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      RUN_LEASE_S: '4',
      ACCESS_TOKEN_TTL_S: '3600',
    });
    client = await signUp(addressOf(server));
    await makeCorpus(client, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
  });
  after(async () => {
    await proxy.restore();
    await server.stop();
    await proxy.close();
    await chat.close();
  });

  const newRun = (session_id: string) => ({
    session_id,
    corpus_id: 'handbook',
    message: 'What are the gates?',
  });

  /** A model that says its second word when it is told to, and its last one when it is told to again. */
  function twoSteps() {
    const [second, last] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    chat.answerWith(async (say) => {
      say('one ');
      await second.promise;
      say('two ');
      await last.promise;
      say('three [1].');
    });
    return { second: second.resolve, last: last.resolve };
  }

  const readBack = (run: string) =>
    eventually('the events to be read', async () => {
      const reply = await client.send('GET', `/v1/runs/${run}/events`);
      return reply.status === 200 && readAll(reply);
    });

  it('tokens go on to be sent, and are stored when it is back', async () => {
    const model = twoSteps();
    const stream = await openStream(client, 'POST', '/v1/run', newRun('streaming'));
    const run = (await stream.until('request.accepted')).data.data.run_id;
    await stream.until('token.delta');
    await proxy.cut();
    model.second();
    await stream.until('token.delta', 2);
    await proxy.restore();
    model.last();
    const frames = await stream.rest();
    assert.equal(eventOf(frames, 'message.final').text, 'one two three [1].');
    assert.equal(typesOf(frames).at(-1), 'done');
    assert.deepEqual(await readBack(run), frames);
  });

  it('an answer waits for it to be stored, and is then final', async () => {
    const model = twoSteps();
    const stream = await openStream(client, 'POST', '/v1/run', newRun('storing'));
    const run = (await stream.until('request.accepted')).data.data.run_id;
    await stream.until('token.delta');
    await proxy.cut();
    model.second();
    model.last();
    await stream.until('token.delta', 3);
    setTimeout(() => void proxy.restore(), 1_000);
    const frames = await stream.rest();
    assert.deepEqual(typesOf(frames).slice(-2), ['message.final', 'done']);
    assert.deepEqual(await readBack(run), frames);
    const { data } = await client.json('GET', `/v1/runs/${run}`);
    assert.deepEqual([data.status, data.messages.length], ['succeeded', 2]);
  });

  it('for longer than a run may be without a sign of life: the reader is told, and nothing is stuck', async () => {
    const model = twoSteps();
    const stream = await openStream(client, 'POST', '/v1/run', newRun('away'));
    const run = (await stream.until('request.accepted')).data.data.run_id;
    await stream.until('token.delta');
    await proxy.cut();
    model.second();
    const frames = await stream.rest();
    assert.deepEqual(typesOf(frames).slice(-2), ['error', 'done']);
    assert.equal(eventOf(frames, 'error').code, 'DB_ERROR');
    await proxy.restore();
    model.last();
    const ended = await readBack(run);
    assert.deepEqual(typesOf(ended).slice(-2), ['error', 'done']);
    const { data } = await client.json('GET', `/v1/runs/${run}`);
    assert.deepEqual([data.status, data.messages.length], ['failed', 1]);
    chat.answerWith((say) => say('Again.'));
    assert.equal(typesOf(await client.run(newRun('away'))).at(-2), 'message.final');
  });
});
