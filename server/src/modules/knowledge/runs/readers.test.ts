import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { startChatServer } from '#test/chat-server.ts';
import {
  addressOf,
  type Client,
  eventOf,
  makeCorpus,
  type OpenStream,
  openStream,
  readAll,
  signedIn,
  signUp,
  typesOf,
} from '#test/event-stream.ts';
import {
  type Caller,
  eventually,
  newKey,
  newMember,
  newOperator,
  newTenant,
  type Reply,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import type { Running } from '../../../app.ts';

useTestServer();

describe('readers of runs', () => {
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let running: Running;
  let client: Client;
  before(async () => {
    await testServer();
    chat = await startChatServer();
    running = await startServer({
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      EXT_RETRY_MAX_ATTEMPTS: '0',
    });
    client = await signUp(addressOf(running));
    await makeCorpus(client, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
  });
  after(async () => {
    await running.stop();
    await chat.close();
  });

  const newRun = (more: object = {}) => ({
    session_id: `s-${randomUUID()}`,
    corpus_id: 'handbook',
    message: 'What are the release gates?',
    ...more,
  });

  /** Sends a request and reads nothing of its answer. */
  function stalled(input: object): Socket {
    const body = JSON.stringify(input);
    const socket = connect(Number(new URL(client.base).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.pause();
    socket.write(
      `POST /v1/run HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${client.token}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    return socket;
  }

  describe('a reader that reads nothing', () => {
    it('holds up neither the run nor other readers, and costs no more memory than one page', async () => {
      // 30,000 frames of more than 200 bytes: several times what the system takes for a socket nobody reads.
      chat.answerWith(async (say) => {
        for (let n = 0; n < 30_000; n++) {
          say('word. ');
          if (n % 500 === 499) await new Promise((resolve) => setImmediate(resolve));
        }
      });
      const sockets = new Set<Socket>();
      running.server!.server.on('connection', (socket: Socket) => sockets.add(socket));
      const input = newRun();
      const late = stalled(input);
      let most = 0;
      const watch = setInterval(() => {
        for (const { writableLength } of sockets) most = Math.max(most, writableLength);
      }, 1);
      const run = await eventually('the run to be there', async () => {
        const { data } = await client.json('GET', `/v1/runs?session_id=${input.session_id}`);
        return data[0]?.id;
      });
      const other = await readAll(await client.send('GET', `/v1/runs/${run}/events`));
      assert.equal((await client.json('GET', `/v1/runs/${run}`)).data.status, 'succeeded');
      clearInterval(watch);
      assert.ok(most > 0 && most < 100_000, `${most} bytes waited for one reader`);
      const deltas = other.filter(({ data }) => data.type === 'token.delta');
      assert.equal(deltas.map(({ data }) => data.data.delta).join(''), eventOf(other, 'message.final').text);
      // Woken up, it is given all it missed.
      let received = '';
      late.on('data', (bytes) => {
        received += bytes;
      });
      late.resume();
      await eventually('the rest', async () => received.includes('"type":"done"'));
      assert.deepEqual(
        [...received.matchAll(/^id: (.*)$/gm)].map(([, id]) => id),
        other.map(({ id }) => id),
      );
      late.destroy();
    });
  });

  describe('two hundred runs at once on one process', () => {
    it('each stream their own answer, to its end', async () => {
      chat.answerWith(async (say, _response, { messages }) => {
        const [, name] = /run number (\d+)/.exec(messages.at(-1)!.content)!;
        for (let n = 0; n < 10; n++) {
          say(`${name} `);
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      });
      const streams = await Promise.all(
        Array.from({ length: 200 }, (_, n) =>
          openStream(client, 'POST', '/v1/run', newRun({ message: `I am run number ${n}` })),
        ),
      );
      const ended = await Promise.all(streams.map((stream) => stream.rest()));
      for (const [n, frames] of ended.entries()) {
        assert.equal(eventOf(frames, 'message.final').text, `${n} `.repeat(10));
        assert.equal(typesOf(frames).at(-1), 'done');
      }
    });
  });

  describe('a reader whose credential ends while it reads', () => {
    let guarded: Running;
    let operator: Caller;
    before(async () => {
      guarded = await startServer({
        LLM_PROVIDER: 'fake',
        RUN_SSE_HEARTBEAT_S: '1',
        RUN_DISCONNECT_GRACE_MS: '100',
      });
      operator = await newOperator(guarded);
    });
    after(() => guarded.stop());

    const readerOf = ({ token, id, tenant }: Caller) =>
      signedIn(addressOf(guarded), { token, tenant, identity_id: id });
    const patch = (tenant: string, is_active: boolean) =>
      operator.call('PATCH', `/v1/admin/tenants/${tenant}`, { is_active });
    const ways: [string, (key: Awaited<ReturnType<typeof newKey>>, owner: Caller) => Promise<Reply>][] = [
      ['its key is revoked', ({ keyId }, owner) => owner.call('DELETE', `/v1/api-keys/${keyId}`)],
      ['its tenant is deactivated', ({ tenant }) => patch(tenant, false)],
    ];
    for (const [what, end] of ways)
      it(`is let go when ${what}, and a run that nobody else reads is canceled`, async () => {
        const [owner, stranger] = [await newTenant('admin', guarded), await newTenant('admin', guarded)];
        await makeCorpus(readerOf(owner), 'handbook', { gates: 'Release gates.' });
        await makeCorpus(readerOf(stranger), 'handbook', { gates: 'Release gates.' });
        const key = await newKey(owner, { server: guarded });
        const reader = readerOf(key);
        const own = await openStream(reader, 'POST', '/v1/run', newRun({ message: 'fake:hang' }));
        const { run_id } = (await own.until('request.accepted')).data.data;
        const resumed = await openStream(reader, 'GET', `/v1/runs/${run_id}/events`);
        const kept = await openStream(
          readerOf(stranger),
          'POST',
          '/v1/run',
          newRun({ message: 'fake:hang' }),
        );
        await own.until('heartbeat');
        const { status } = await end(key, owner);
        assert.ok(status < 300, `${status}`);
        for (const stream of [own, resumed])
          assert.ok(!typesOf(await stream.rest()).includes('done'), 'broken off, not at its end');
        const back = await reader.send('GET', `/v1/runs/${run_id}/events`);
        assert.equal(back.status, 401, 'who comes back is told');
        if (what.includes('tenant')) await patch(owner.tenant, true);
        const { data } = await eventually('the run to be canceled', async () => {
          const run = await readerOf(owner).json('GET', `/v1/runs/${run_id}`);
          return run.data.status !== 'running' && run;
        });
        assert.deepEqual([data.status, data.error_code], ['canceled', 'CLIENT_DISCONNECTED']);
        await kept.until('heartbeat', kept.frames.filter(({ event }) => event === 'heartbeat').length + 2);
        kept.leave();
      });
  });

  describe('a reader that would not be let in any more', () => {
    let guarded: Running;
    before(async () => {
      guarded = await startServer({
        LLM_PROVIDER: 'fake',
        RUN_SSE_HEARTBEAT_S: '1',
        RUN_DISCONNECT_GRACE_MS: '60000',
      });
    });
    after(() => guarded.stop());

    const at = ({ token, id, tenant }: Caller) =>
      signedIn(addressOf(guarded), { token, tenant, identity_id: id });
    const denied = (action: string) => ({
      role: 'user',
      effect: 'deny',
      rule: { and: [{ '==': [{ var: 'resource' }, 'runs'] }, { '==': [{ var: 'action' }, action] }] },
    });
    const narrowed = (scopes: string[]) => (owner: Caller, member: Awaited<ReturnType<typeof newKey>>) =>
      owner.call('PUT', `/v1/api-keys/${member.keyId}`, { scopes });
    type Change = (owner: Caller, member: Awaited<ReturnType<typeof newKey>>) => Promise<Reply>;
    const changes: [string, Change, { begun: boolean; read: boolean }][] = [
      [
        'its role is another',
        (owner, { id }) => owner.call('PUT', `/v1/identity/${id}`, { role: 'nobody' }),
        { begun: false, read: false },
      ],
      [
        'a policy forbids to read runs',
        (owner) => owner.call('POST', '/v1/policy/', denied('read')),
        { begun: true, read: false },
      ],
      [
        'a policy forbids to begin runs',
        (owner) => owner.call('POST', '/v1/policy/', denied('create')),
        { begun: false, read: true },
      ],
      ['its key may read no runs', narrowed(['runs:create']), { begun: true, read: false }],
    ];
    for (const [what, change, { begun, read }] of changes)
      it(`is let go when ${what}, and nobody else is`, async () => {
        const [owner, stranger] = [await newTenant('admin', guarded), await newTenant('admin', guarded)];
        const member = await newKey(await newMember(owner, 'user', guarded), { server: guarded });
        const streams = [];
        for (const who of [member, await newMember(stranger, 'user', guarded)]) {
          const input = { session_id: 'one', message: 'fake:hang', memory: { recall: true } };
          const own = await openStream(at(who), 'POST', '/v1/run', input);
          const { run_id } = (await own.until('request.accepted')).data.data;
          streams.push(own, await openStream(at(who), 'GET', `/v1/runs/${run_id}/events`));
        }
        const [own, other] = streams as [OpenStream, OpenStream, ...OpenStream[]];
        const { run_id } = eventOf(own.frames, 'request.accepted');
        const admins = await openStream(at(owner), 'GET', `/v1/runs/${run_id}/events`);
        const reply = await change(owner, member);
        assert.ok(reply.status < 300, reply.text);
        const kept = [...(begun ? [own] : []), ...(read ? [other] : []), ...streams.slice(2), admins];
        for (const stream of [own, other].filter((one) => !kept.includes(one)))
          assert.ok(!typesOf(await stream.rest()).includes('done'), 'broken off, not at its end');
        if (!read) assert.equal((await at(member).send('GET', `/v1/runs/${run_id}/events`)).status, 403);
        for (const stream of kept) {
          const beats = stream.frames.filter(({ event }) => event === 'heartbeat').length;
          await stream.until('heartbeat', beats + 3);
          stream.leave();
        }
      });
  });

  describe('the places of a process', () => {
    it('are not all for one tenant', async () => {
      const small = await startServer({ LLM_PROVIDER: 'fake', RUN_MAX_CONCURRENCY: '5' });
      const [greedy, other] = [await signUp(addressOf(small)), await signUp(addressOf(small))];
      for (const who of [greedy, other]) await makeCorpus(who, 'handbook', { gates: 'Release gates.' });
      const streams = [];
      for (let n = 0; n < 4; n++) {
        const stream = await openStream(greedy, 'POST', '/v1/run', newRun({ message: 'fake:hang' }));
        await stream.until('token.delta');
        streams.push(stream);
      }
      const refused = await greedy.send('POST', '/v1/run', newRun());
      assert.equal(refused.status, 503);
      assert.equal(refused.headers.get('retry-after'), '1');
      assert.equal(((await refused.json()) as any).error.code, 'SERVICE_BUSY');
      assert.equal(typesOf(await other.run(newRun())).at(-1), 'done');
      const last = await openStream(other, 'POST', '/v1/run', newRun({ message: 'fake:hang' }));
      await last.until('token.delta');
      assert.equal((await other.send('POST', '/v1/run', newRun())).status, 503, 'now all are taken');
      for (const stream of [...streams, last]) stream.leave();
      await small.stop();
    });

    it('a second run in a session is told which one goes on there', async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      chat.answerWith(async (say) => {
        say('Yes.');
        await promise;
      });
      const input = newRun();
      const stream = await openStream(client, 'POST', '/v1/run', input);
      const run = (await stream.until('request.accepted')).data.data.run_id;
      const refused = await client.send('POST', '/v1/run', input);
      assert.equal(refused.status, 409);
      const { error } = (await refused.json()) as any;
      assert.deepEqual([error.code, error.details], ['RUN_IN_PROGRESS', { run_id: run }]);
      resolve();
      await stream.rest();
    });
  });
});
