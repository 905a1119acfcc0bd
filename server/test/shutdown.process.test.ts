import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { startChatServer } from '#test/chat-server.ts';
import { createVictim, freePort, sleep, type Victim } from '#test/crash/processes.ts';
import { startEmbeddingServer } from '#test/embedding-server.ts';
import {
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
import { emptyDatabase, engine, environmentOf, eventually, newDataDir } from '#test/harness.ts';

// Real processes are told to end while they answer, as a rolling deployment does it.

describe('SIGTERM', { timeout: 300_000 }, () => {
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let embeddings: Awaited<ReturnType<typeof startEmbeddingServer>>;
  let goOn: () => void;
  const directory = newDataDir();
  const started: Victim[] = [];

  before(async () => {
    if (engine === 'postgres') await emptyDatabase(process.env.DATABASE_URL!);
    chat = await startChatServer();
    embeddings = await startEmbeddingServer();
  });
  afterEach(async () => {
    goOn?.();
    for (const one of started.splice(0)) await one.kill();
  });
  after(async () => {
    await chat.close();
    await embeddings.close();
  });

  async function startProcess(args: string[], settings: Record<string, string>) {
    const port = String(await freePort());
    const base = `http://127.0.0.1:${port}`;
    const env = environmentOf({
      DATA_DIR: directory,
      PORT: port,
      LOG_LEVEL: 'info',
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      RUN_DISCONNECT_GRACE_MS: '60000',
      ...settings,
    });
    const isUp = (logged: string) =>
      args[0] === 'worker'
        ? logged.includes('worker ready')
        : fetch(`${base}/healthz`).then(
            ({ ok }) => ok,
            () => false,
          );
    const one = createVictim(args.join(' '), args, env, isUp);
    one.start();
    started.push(one);
    await one.ready();
    return { one, base };
  }

  /** Two tenants of a server, each with a corpus. */
  async function clientsOf(base: string): Promise<[Client, Client]> {
    const clients: [Client, Client] = [await signUp(base), await signUp(base)];
    for (const client of clients)
      await makeCorpus(client, 'handbook', { gates: 'The release gates are tests.' });
    return clients;
  }

  const newRun = (session_id: string, more: object = {}) => ({
    session_id,
    corpus_id: 'handbook',
    message: 'What are the gates?',
    ...more,
  });
  const begin = async (client: Client, session_id: string, more?: object): Promise<OpenStream> => {
    const stream = await openStream(client, 'POST', '/v1/run', newRun(session_id, more));
    await stream.until('token.delta');
    return stream;
  };

  /** A model that says a word, and the rest when it may go on. */
  function holdModel(): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    goOn = resolve;
    chat.answerWith(async (say) => {
      say('The gates ');
      await promise;
      say('are tests [1].');
    });
  }

  /** The same over a connection that can be asked more while it is answered. */
  async function beginOn(client: Client, session_id: string) {
    const socket: Socket = connect(Number(new URL(client.base).port), '127.0.0.1');
    const body = JSON.stringify(newRun(session_id));
    let text = '';
    socket.setEncoding('utf8').on('data', (piece) => {
      text += piece;
    });
    const ended = once(socket, 'close');
    socket.write(
      `POST /v1/run HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${client.token}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    await eventually('the model to speak', async () => text.includes('token.delta'));
    return {
      ask: (path: string) => socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`),
      all: () => ended.then(() => text),
    };
  }

  const ask = (client: Client, session_id: string) =>
    client.send(
      'POST',
      '/mcp',
      {
        jsonrpc: '2.0',
        id: 1,
        method: 'tools/call',
        params: { name: 'ask', arguments: { question: 'The gates?', corpus_id: 'handbook', session_id } },
      },
      { accept: 'application/json, text/event-stream' },
    );

  it('what is being answered goes on to its end, and nothing new is taken', async () => {
    holdModel();
    const before = chat.requests.length;
    const { one, base } = await startProcess(['serve'], { SHUTDOWN_DRAIN_MS: '60000' });
    const clients = await clientsOf(base);
    const streams = await Promise.all(clients.map((client, n) => beginOn(client, `ends-${n}`)));
    const unread = await begin(clients[0], 'unread', { on_disconnect: 'continue' });
    const { run_id } = eventOf(unread.frames, 'request.accepted');
    unread.leave();
    const asked = ask(clients[1], 'asked');
    await eventually('the model to be asked by all', async () => chat.requests.length === before + 4);
    const exit = one.tell('SIGTERM');
    await eventually('it to be heard', async () =>
      one.lines().some((line) => line.includes('shutting down')),
    );
    for (const [n, path] of ['/healthz', '/v1/identity/me'].entries()) streams[n]!.ask(path);
    await assert.rejects(fetch(`${base}/healthz`), 'no new connection');
    await sleep(500);
    goOn();
    for (const stream of streams) {
      const [run, refused] = (await stream.all()).split(/^(?=HTTP\/1\.1 503 )/m);
      assert.match(run!, /"type":"message\.final".*"text":"The gates are tests \[1\]\."/);
      assert.match(run!, /"type":"done"/);
      assert.match(refused!, /^connection: close\r$/im);
      assert.match(refused!, /^retry-after: 1\r$/im);
      assert.match(refused!, /"code":"SERVICE_SHUTTING_DOWN"/);
    }
    const answer = await asked;
    assert.equal(answer.headers.get('connection'), 'close');
    assert.match(await answer.text(), /The gates are tests/);
    assert.equal(await exit, 0);

    const again = await startProcess(['serve'], {});
    const there = signedIn(again.base, clients[0]);
    const { data } = await there.json('GET', `/v1/runs/${run_id}`);
    assert.equal(data.status, 'succeeded', 'also the run that nobody read');
  });

  it('when the time for that is over, what is left ends with its event and can be read from elsewhere', async () => {
    holdModel();
    const { one, base } = await startProcess(['serve'], { SHUTDOWN_DRAIN_MS: '1500' });
    const clients = await clientsOf(base);
    const streams = await Promise.all(clients.map((client) => begin(client, 'late')));
    const began = performance.now();
    const exit = one.tell('SIGTERM');
    const ended = await Promise.all(streams.map((stream) => stream.rest()));
    const tookMs = performance.now() - began;
    assert.ok(tookMs > 1_400 && tookMs < 12_000, `${tookMs} ms`);
    assert.equal(await exit, 0);
    const again = await startProcess(['serve'], {});
    for (const [n, frames] of ended.entries()) {
      assert.deepEqual(typesOf(frames).slice(-2), ['error', 'done']);
      assert.equal(eventOf(frames, 'error').code, 'SERVICE_SHUTTING_DOWN');
      const there = signedIn(again.base, clients[n]!);
      const reply = await there.send('POST', '/v1/run', newRun('late'), { 'last-event-id': frames[0]!.id! });
      assert.deepEqual(await readAll(reply), frames.slice(1));
      goOn();
      assert.equal(typesOf(await there.run(newRun('late'))).at(-2), 'message.final', 'the session is free');
    }
  });

  const atOnce: [string, string, number][] = [
    ['a second one ends at once what the first one waits for', '60000', 2],
    ['without time for that, runs end at once', '0', 1],
  ];
  for (const [what, SHUTDOWN_DRAIN_MS, times] of atOnce)
    it(what, async () => {
      holdModel();
      const { one, base } = await startProcess(['serve'], { SHUTDOWN_DRAIN_MS });
      const streams = await Promise.all(
        (await clientsOf(base)).map((client) => begin(client, `once-${times}`)),
      );
      let exit = one.tell('SIGTERM');
      if (times === 2) {
        await sleep(1_000);
        for (const { frames } of streams) assert.ok(!typesOf(frames).includes('error'));
        exit = one.tell('SIGTERM');
      }
      const began = performance.now();
      for (const stream of streams)
        assert.equal(eventOf(await stream.rest(), 'error').code, 'SERVICE_SHUTTING_DOWN');
      assert.equal(await exit, 0);
      assert.ok(performance.now() - began < 10_000);
    });

  it('a worker ends the job it has and begins no other', async () => {
    const settings = {
      SHUTDOWN_DRAIN_MS: '60000',
      EMBEDDING_BASE_URL: embeddings.url,
      EMBEDDING_DIMENSIONS: '32',
      EXT_CALL_TIMEOUT_MS: '60000',
      INGEST_MAX_CONCURRENCY: '1',
    };
    const apart = engine === 'postgres';
    const server = await startProcess(apart ? ['serve', '--no-worker'] : ['serve'], settings);
    const worker = apart ? await startProcess(['worker'], settings) : server;
    const clients: [Client, Client] = [await signUp(server.base), await signUp(server.base)];
    const embedded = (text: string) =>
      embeddings.requests.some(({ input }) => input.some((given) => given.includes(text)));
    embeddings.fail({ kind: 'slow', ms: 2_000 });
    for (const [n, client] of clients.entries()) {
      await client.json('POST', '/v1/corpora', { id: 'slow', name: 'slow' });
      const text = n === 0 ? 'Zebras come first.' : 'Yaks come later.';
      await client.json('POST', '/v1/documents/text', {
        corpus_id: 'slow',
        document_id: `slow-${n}`,
        filename: 'slow.md',
        text,
      });
      if (n === 0) await eventually('the first job to be at work', async () => embedded('Zebras'));
    }
    assert.equal(await worker.one.tell('SIGTERM'), 0);
    assert.ok(!embedded('Yaks'), 'the second one waits');
    embeddings.fail({ kind: 'none' });
    const again = apart ? server : await startProcess(['serve'], settings);
    const statusOf = async (n: number) =>
      (await signedIn(again.base, clients[n]!).json('GET', `/v1/documents/slow-${n}`)).data.status;
    if (apart) {
      assert.deepEqual([await statusOf(0), await statusOf(1)], ['succeeded', 'queued']);
      await startProcess(['worker'], settings);
    } else assert.equal(await statusOf(0), 'succeeded');
    await eventually('another process to do the second', async () => (await statusOf(1)) === 'succeeded');
  });
});
