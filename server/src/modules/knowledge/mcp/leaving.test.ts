import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { startChatServer } from '#test/chat-server.ts';
import { addressOf, eventOf, openStream, signedIn, typesOf } from '#test/event-stream.ts';
import {
  address,
  type Caller,
  engine,
  eventually,
  newKey,
  newTenant,
  useOwnServer,
  useTestServer,
} from '#test/harness.ts';

// What becomes of an answer nobody waits for any more: the official client, and a model that never ends by itself.

useTestServer();

describe('a client of MCP that does not wait for an answer', () => {
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  const own = useOwnServer(async () => {
    chat = await startChatServer();
    return {
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      LLM_MODEL: 'test-model',
      // Nobody can come back to an answer of a door: none of these waits for that.
      RUN_DISCONNECT_GRACE_MS: '600000',
    };
  });
  let callers: Caller[];

  before(async () => {
    const keys = [];
    for (let i = 0; i < 2; i++) keys.push(await newKey(await newTenant('admin', own()), { server: own() }));
    callers = keys;
  });
  after(() => chat.close());

  const connect = async ({ token }: Caller) => {
    const client = new Client({ name: 'a test', version: '1' });
    const requestInit = { headers: { authorization: `Bearer ${token}` } };
    const transport = new StreamableHTTPClientTransport(new URL(`${addressOf(own())}/mcp`), { requestInit });
    await client.connect(transport as Parameters<typeof client.connect>[0]);
    return { client, transport };
  };
  type Connected = Awaited<ReturnType<typeof connect>>;

  /** Says a word and then nothing more, until it is let go or left. */
  const speakSlowly = () => {
    const { promise: letGo, resolve } = Promise.withResolvers<void>();
    chat.answerWith(async (say, response) => {
      say('Slowly ');
      await Promise.race([letGo, new Promise((left) => response.on('close', left))]);
    });
    return resolve;
  };

  /** Asks, and resolves when the model is speaking. */
  const ask = async ({ client }: Connected, isStreamed: boolean, session_id = randomUUID()) => {
    const before = chat.requests.length;
    const cancel = new AbortController();
    const { promise: writing, resolve: onprogress } = Promise.withResolvers<unknown>();
    const answer: Promise<any> = client.callTool(
      { name: 'ask', arguments: { question: 'What is known of tea?', session_id } },
      undefined,
      { signal: cancel.signal, ...(isStreamed ? { onprogress } : {}) },
    );
    answer.catch(() => {});
    if (isStreamed) await writing;
    await eventually('the model to speak', async () => chat.requests.length > before);
    return { answer, cancel, session_id };
  };

  const runIn = async (caller: Caller, session_id: string) =>
    (await caller.call('GET', `/v1/runs?session_id=${session_id}`)).body.data[0];
  const endOf = (caller: Caller, session_id: string) =>
    eventually('the run to end', async () => {
      const run = await runIn(caller, session_id);
      return run.status !== 'running' && run;
    });

  const ways: [string, string, (asked: Connected & Awaited<ReturnType<typeof ask>>) => unknown][] = [
    ['closes the connection', 'CLIENT_DISCONNECTED', ({ transport }) => transport.close()],
    ['cancels', 'RUN_CANCELED', ({ cancel }) => cancel.abort('changed my mind')],
  ];
  for (const [way, code, leave] of ways)
    for (const isStreamed of [true, false])
      it(`${way} of ${isStreamed ? 'a stream' : 'one message'}: the model is left and the session free`, async () => {
        for (const caller of callers) {
          speakSlowly();
          const connected = await connect(caller);
          const before = chat.closedEarly();
          const asked = await ask(connected, isStreamed);
          leave({ ...connected, ...asked });
          await assert.rejects(asked.answer);
          await eventually('the model to be left', async () => chat.closedEarly() === before + 1, 5_000);
          const { status, error_code } = await endOf(caller, asked.session_id);
          assert.deepEqual([status, error_code], ['canceled', code]);
          chat.answerWith((say) => say('Tea is a drink.'));
          const next = await ask(
            way === 'cancels' ? connected : await connect(caller),
            true,
            asked.session_id,
          );
          assert.match((await next.answer).structuredContent.answer, /Tea is a drink/);
        }
      });

  for (const [way, code, leave] of ways)
    it(`${way} while somebody else reads the run: ${code === 'RUN_CANCELED' ? 'that reader is told' : 'it goes on'}`, async () => {
      for (const caller of callers) {
        const letGo = speakSlowly();
        const connected = await connect(caller);
        const asked = await ask(connected, true);
        const { id } = await runIn(caller, asked.session_id);
        const { token, id: identity_id, tenant } = caller;
        const reader = signedIn(addressOf(own()), { token, identity_id, tenant });
        const stream = await openStream(reader, 'GET', `/v1/runs/${id}/events`);
        await stream.until('token.delta');
        leave({ ...connected, ...asked });
        await assert.rejects(asked.answer);
        if (code === 'RUN_CANCELED') assert.equal(eventOf(await stream.rest(), 'error').code, code);
        else {
          await sleep(300);
          letGo();
          assert.equal(typesOf(await stream.rest()).at(-2), 'message.final');
        }
      }
    });

  /** Says at a server that all calls a client may have made are cancelled. */
  const cancelAll = async (base: string, { token }: Caller, session: string) => {
    for (const requestId of [0, 1, 2, 3]) {
      const reply = await fetch(`${base}/mcp`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          'mcp-session-id': session,
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
        },
        body: JSON.stringify({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId } }),
      });
      assert.equal(reply.status, 202);
    }
  };

  it('cancels no call of another client, although they number their calls alike', async () => {
    const letGo = speakSlowly();
    const [ann, bob] = callers as [Caller, Caller];
    const hers = await connect(ann);
    const asked = await ask(hers, true);
    const another = await connect(ann);
    await cancelAll(addressOf(own()), ann, another.transport.sessionId!);
    // Not even who says that it is that client, where it acts for another identity.
    await cancelAll(addressOf(own()), bob, hers.transport.sessionId!);
    await sleep(500);
    assert.equal((await runIn(ann, asked.session_id)).status, 'running');
    letGo();
    assert.match((await asked.answer).structuredContent.answer, /Slowly/);
  });

  it('is heard by whichever process it tells', async () => {
    speakSlowly();
    // The embedded database has one.
    const told = engine === 'embedded' ? addressOf(own()) : await address();
    for (const caller of callers) {
      const client = await connect(caller);
      const { answer, session_id } = await ask(client, true);
      await cancelAll(told, caller, client.transport.sessionId!);
      assert.match((await answer).content[0].text, /REQUEST_ABANDONED/);
      assert.equal((await endOf(caller, session_id)).error_code, 'RUN_CANCELED');
    }
  });
});
