import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import { startChatServer } from '#test/chat-server.ts';
import { createVictim, freePort, type Victim } from '#test/crash/processes.ts';
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
import { startSpeechServer } from '#test/speech-server.ts';

// Real processes are killed while runs are in each of their states. On PostgreSQL another one is there to be asked, on
// the embedded database the same one is started again.

const apart = engine === 'postgres';

/** Embeddings that wait for as long as they are told to. */
async function startEmbeddings() {
  let open: Promise<void> = Promise.resolve();
  let waiting = 0;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { input } = JSON.parse(Buffer.concat(chunks).toString());
    waiting += 1;
    await open;
    waiting -= 1;
    const data = input.map((_: string, index: number) => ({ index, embedding: [1, 0, 0, 0, 0, 0, 0, 0] }));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    waiting: () => waiting,
    hold: (until: Promise<void>) => {
      open = until;
    },
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

describe('kill -9 of the process that works on runs', { timeout: 300_000 }, () => {
  const directory = newDataDir();
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let tts: Awaited<ReturnType<typeof startSpeechServer>>;
  let embeddings: Awaited<ReturnType<typeof startEmbeddings>>;
  let processes: Victim[];
  let bases: string[];
  let client: Client;
  let free: () => void = () => {};
  const closing: (() => Promise<void>)[] = [];

  before(async () => {
    if (apart) await emptyDatabase(process.env.DATABASE_URL!);
    [chat, tts, embeddings] = [await startChatServer(), await startSpeechServer(), await startEmbeddings()];
    const settings = environmentOf({
      DATA_DIR: directory,
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      TTS_PROVIDER: 'openai',
      TTS_BASE_URL: tts.url,
      EMBEDDING_BASE_URL: embeddings.url,
      EMBEDDING_DIMENSIONS: '8',
      EXT_CALL_TIMEOUT_MS: '60000',
      LLM_TIMEOUT_MS: '60000',
      EXT_RETRY_MAX_ATTEMPTS: '0',
      RUN_DISCONNECT_GRACE_MS: '60000',
      RUN_LEASE_S: '4',
      LOG_LEVEL: 'warn',
    });
    processes = [];
    bases = [];
    for (const name of apart ? ['first', 'second'] : ['only']) {
      const port = String(await freePort());
      const base = `http://127.0.0.1:${port}`;
      const isUp = () =>
        fetch(`${base}/healthz`).then(
          ({ ok }) => ok,
          () => false,
        );
      const one = createVictim(name, ['serve'], { ...settings, PORT: port }, isUp);
      one.start();
      await one.ready();
      processes.push(one);
      bases.push(base);
    }
    client = await signUp(bases[0]!);
    await makeCorpus(client, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
  });
  after(async () => {
    free();
    for (const close of closing) await close();
    for (const one of processes) await one.stop();
    await Promise.all([chat.close(), tts.close()]);
    embeddings.close();
    rmSync(directory, { recursive: true, force: true });
  });

  // A question of its own for each session: the vector of one that was asked before is remembered.
  const inputOf = (session_id: string, more: object = {}) => ({
    session_id,
    corpus_id: 'handbook',
    message: `What are the release gates of ${session_id}?`,
    ...more,
  });

  /** Kills the first process; answers a client of one that lives. */
  async function killed(): Promise<Client> {
    await processes[0]!.kill();
    if (!apart) {
      processes[0]!.start();
      await processes[0]!.ready();
    }
    return signedIn(bases.at(-1)!, client);
  }

  async function startAgain(): Promise<void> {
    if (!apart) return;
    processes[0]!.start();
    await processes[0]!.ready();
  }

  const lastIdOf = ({ frames }: OpenStream) => frames.findLast(({ id }) => id !== undefined)!.id!;

  it('in any state: its readers are told, nothing accepted is lost, nothing is stuck', async () => {
    const held = Promise.withResolvers<void>();
    free = held.resolve;
    chat.answerWith(async (say, _response, { messages }) => {
      for (const word of ['The ', 'gates ', 'are tests [1].']) say(word);
      if (messages.at(-1)!.content.includes('forever')) await held.promise;
    });
    tts.answerWith(async (response) => {
      response.writeHead(200, { 'content-type': 'audio/mpeg' }).write('ID3 a beginning');
      await held.promise;
    });
    const generating = await openStream(
      client,
      'POST',
      '/v1/run',
      inputOf('generating', { message: 'What are the release gates, forever?' }),
    );
    await generating.until('token.delta', 3);
    const going = await openStream(
      client,
      'POST',
      '/v1/run',
      inputOf('going', { message: 'The release gates, forever?', on_disconnect: 'continue' }),
    );
    await going.until('token.delta', 1);
    const speaking = await openStream(client, 'POST', '/v1/run', inputOf('speaking', { audio: true }));
    await speaking.until('message.final');
    await eventually('the speech to begin', async () => tts.requests.length > 0);
    embeddings.hold(held.promise);
    const retrieving = await openStream(client, 'POST', '/v1/run', inputOf('retrieving'));
    await retrieving.until('request.accepted');
    await eventually('the retrieval to begin', async () => embeddings.waiting() > 0);
    const accepted = await openStream(client, 'POST', '/v1/run', inputOf('accepted'));
    await accepted.until('request.accepted');

    const there = await killed();
    held.resolve();
    embeddings.hold(Promise.resolve());
    const streams = { accepted, retrieving, generating, going, speaking };
    await Promise.all(
      Object.entries(streams).map(async ([state, stream]) => {
        const reply = await there.send('POST', '/v1/run', inputOf(state), {
          'last-event-id': lastIdOf(stream),
        });
        const rest = await readAll(reply);
        const seen = [...stream.frames, ...rest].flatMap(({ id, data }) => (id ? [data.seq] : []));
        assert.deepEqual(
          seen,
          [...new Set(seen)].sort((a, b) => a - b),
          `${state}: each number once, in order`,
        );
        assert.deepEqual(
          typesOf(rest).slice(-2),
          [state === 'speaking' ? 'audio.error' : 'error', 'done'],
          state,
        );
        assert.equal(rest.at(-2)!.data.data.code, 'PROCESS_LOST', state);
        const id = eventOf(stream.frames, 'request.accepted').run_id;
        const { data } = await there.json('GET', `/v1/runs/${id}`);
        if (state === 'speaking') {
          assert.deepEqual([data.status, data.error_code, data.messages.length], ['succeeded', null, 2]);
        } else {
          assert.deepEqual(
            [data.status, data.error_code, data.messages.length],
            ['failed', 'PROCESS_LOST', 1],
            state,
          );
        }
        // What one reader was told the next one reads.
        const again = await readAll(await there.send('GET', `/v1/runs/${id}/events`));
        assert.deepEqual(again.slice(-2), rest.slice(-2), state);
      }),
    );
    assert.deepEqual((await there.json('GET', '/v1/runs?status=running')).data, []);
    for (const state of Object.keys(streams))
      assert.equal(
        typesOf(await there.run(inputOf(state))).at(-2),
        'message.final',
        `${state}: the session is free`,
      );
    await startAgain();
  });

  it('near its end: an answer that was final is there, and one that is not there was not final', async () => {
    const outcomes = new Set<string>();
    chat.answerWith((say) => say('The gates are tests [1].'));
    for (const waitMs of apart ? [0, 2, 4, 8, 16] : [0, 4, 10]) {
      const session = `end-${waitMs}`;
      const stream = await openStream(client, 'POST', '/v1/run', inputOf(session));
      await stream.until('token.delta');
      const reading = stream.rest().catch(() => stream.frames);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      const there = await killed();
      const frames = await reading;
      const rest = await there.send('POST', '/v1/run', inputOf(session), {
        'last-event-id': lastIdOf(stream),
      });
      const all = [...frames, ...(rest.status === 204 ? [] : await readAll(rest))];
      const types = typesOf(all);
      const { data } = await there.json('GET', `/v1/runs/${eventOf(frames, 'request.accepted').run_id}`);
      assert.equal(types.at(-1), 'done');
      assert.equal(types.includes('message.final'), data.status === 'succeeded', JSON.stringify(types));
      assert.equal(data.messages.length, data.status === 'succeeded' ? 2 : 1);
      if (data.status !== 'succeeded') assert.equal(data.error_code, 'PROCESS_LOST');
      outcomes.add(data.status);
      await startAgain();
    }
    assert.ok(outcomes.size > 0);
  });

  // Only there can somebody stand in the way of what a run writes.
  const persisting = apart ? it : () => {};
  persisting('while it stores the answer: all of that or nothing is there', async () => {
    const blocked = Promise.withResolvers<void>();
    chat.answerWith(async (say) => {
      say('The gates are tests [1].');
      await blocked.promise;
    });
    const blocker = new pg.Client({ connectionString: process.env.DATABASE_URL! });
    await blocker.connect();
    closing.push(() => blocker.end());
    const stream = await openStream(client, 'POST', '/v1/run', inputOf('persisting'));
    const id = (await stream.until('request.accepted')).data.data.run_id;
    await stream.until('token.delta');
    await blocker.query('begin');
    await blocker.query('lock table run_checkpoints in access exclusive mode');
    blocked.resolve();
    await eventually('the answer to wait for the lock', async () => {
      const { rows } = await blocker.query(
        `select 1 from pg_locks where not granted and locktype = 'relation'`,
      );
      return rows.length > 0;
    });
    const there = await killed();
    await blocker.query('commit');
    const rest = await readAll(
      await there.send('POST', '/v1/run', inputOf('persisting'), { 'last-event-id': lastIdOf(stream) }),
    );
    assert.deepEqual(typesOf(rest).slice(-2), ['error', 'done']);
    const { data } = await there.json('GET', `/v1/runs/${id}`);
    assert.deepEqual([data.status, data.error_code, data.messages.length], ['failed', 'PROCESS_LOST', 1]);
    assert.equal(typesOf(await there.run(inputOf('persisting'))).at(-2), 'message.final');
    await startAgain();
  });
});
