import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { startChatServer } from '#test/chat-server.ts';
import { createVictim, freePort, sleep, type Victim } from '#test/crash/processes.ts';
import {
  type Client,
  eventOf,
  openStream,
  type ReceivedFrame,
  readAll,
  signedIn,
  signUp,
  typesOf,
} from '#test/event-stream.ts';
import { emptyDatabase, engine, environmentOf, eventually, newDataDir } from '#test/harness.ts';

// Tokens are stored a moment after they were sent: here so late that a process dies in between for certain.

const flushMs = 5_000;

describe('kill -9 between a token that was sent and its being stored', { timeout: 300_000 }, () => {
  const directory = newDataDir();
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let victim: Victim;
  let clients: Client[];
  let goOn: () => void = () => {};
  let end: () => void = () => {};

  before(async () => {
    if (engine === 'postgres') await emptyDatabase(process.env.DATABASE_URL!);
    chat = await startChatServer();
    const port = String(await freePort());
    const base = `http://127.0.0.1:${port}`;
    const settings = environmentOf({
      DATA_DIR: directory,
      PORT: port,
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      RUN_LEASE_S: '4',
      SSE_FLUSH_INTERVAL_MS: String(flushMs),
    });
    victim = createVictim('only', ['serve'], settings, () =>
      fetch(`${base}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    victim.start();
    await victim.ready();
    clients = [await signUp(base), await signUp(base)];
  });
  after(async () => {
    end();
    await victim.stop();
    await chat.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const deltasOf = (frames: ReceivedFrame[]) =>
    frames.flatMap(({ data }) => (data.type === 'token.delta' ? [data.data.delta] : []));

  it('readers who come back get what was stored and how it ended; no number stands for another event', async () => {
    const [more, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    [goOn, end] = [more.resolve, over.resolve];
    chat.answerWith(async (say) => {
      for (const word of ['one ', 'two ']) say(word);
      await more.promise;
      for (const word of ['three ', 'four ']) say(word);
      await over.promise;
    });
    const runs = await Promise.all(
      clients.map(async (client, n) => {
        const body = { session_id: `lost-${n}`, message: `Count, number ${n}.`, memory: { recall: true } };
        const stream = await openStream(client, 'POST', '/v1/run', body);
        await stream.until('token.delta', 2);
        return { client, body, stream };
      }),
    );
    // Until these two are stored, and those after them not yet.
    await sleep(flushMs + 1_500);
    goOn();
    for (const { stream } of runs) await stream.until('token.delta', 4);
    await victim.kill();
    victim.start();
    await victim.ready();

    for (const { client, body, stream } of runs) {
      const seen = stream.frames.filter(({ id }) => id !== undefined);
      assert.deepEqual(deltasOf(seen), ['one ', 'two ', 'three ', 'four ']);
      const last = seen.at(-1)!;
      const resume = async (from: ReceivedFrame) =>
        readAll(await client.send('POST', '/v1/run', body, { 'last-event-id': from.id! }));
      // Who has seen all of it is told how it ended, by numbers beyond what it has seen.
      const rest = await eventually('the run to be ended', async () => {
        const frames = await resume(last);
        return typesOf(frames).includes('done') && frames;
      });
      assert.deepEqual(typesOf(rest), ['error', 'done']);
      assert.equal(eventOf(rest, 'error').code, 'PROCESS_LOST');
      assert.ok(rest[0]!.data.seq > last.data.seq, `${rest[0]!.data.seq} after ${last.data.seq}`);
      // Who had less gets the rest of what was stored, as it was sent, and then the same.
      assert.deepEqual(await resume(seen[1]!), [seen[2], ...rest]);
      const { run_id } = eventOf(seen, 'request.accepted');
      const all = await readAll(await client.send('GET', `/v1/runs/${run_id}/events`));
      assert.deepEqual(all, [...seen.slice(0, 3), ...rest]);
      const other = clients.find(({ tenant }) => tenant !== client.tenant)!;
      const hidden = await readAll(await other.send('GET', `/v1/runs/${run_id}/events`));
      assert.deepEqual(typesOf(hidden), ['resume.unsupported', 'done']);
    }
  });

  it('SIGTERM loses none of them', async () => {
    const over = Promise.withResolvers<void>();
    end = over.resolve;
    chat.answerWith(async (say) => {
      for (const word of ['one ', 'two ']) say(word);
      await over.promise;
    });
    const streams = await Promise.all(
      clients.map((client, n) =>
        openStream(client, 'POST', '/v1/run', {
          session_id: `kept-${n}`,
          message: 'Count.',
          memory: { recall: true },
        }),
      ),
    );
    for (const stream of streams) await stream.until('token.delta', 2);
    const exit = victim.tell('SIGTERM');
    const sent = await Promise.all(streams.map((stream) => stream.rest()));
    assert.equal(await exit, 0);
    victim.start();
    await victim.ready();
    for (const [n, frames] of sent.entries()) {
      assert.deepEqual(deltasOf(frames), ['one ', 'two ']);
      const client = signedIn(clients[n]!.base, clients[n]!);
      const { run_id } = eventOf(frames, 'request.accepted');
      const stored = await readAll(await client.send('GET', `/v1/runs/${run_id}/events`));
      assert.deepEqual(
        stored,
        frames.filter(({ id }) => id !== undefined),
      );
    }
  });
});
