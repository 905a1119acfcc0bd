import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { startChatServer } from '#test/chat-server.ts';
import {
  addressOf,
  type Client,
  eventOf,
  makeCorpus,
  openStream,
  type ReceivedFrame,
  readAll,
  signedIn,
  signUp,
  typesOf,
} from '#test/event-stream.ts';
import { engine, eventually, startServer, testServer, useTestServer } from '#test/harness.ts';
import type { Running } from '../../../app.ts';
import { runSchedules } from './jobs.ts';

useTestServer();

/** Processes that share a database; there are none on the embedded engine. */
const describeApart: typeof describe =
  engine === 'postgres' ? describe : ((() => {}) as unknown as typeof describe);

describe('events of runs', () => {
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let running: Running;
  let client: Client;
  const settings = () => ({
    LLM_PROVIDER: 'openai-compatible',
    LLM_BASE_URL: chat.url,
    LLM_API_KEY: 'chat-key',
    EXT_RETRY_MAX_ATTEMPTS: '0',
    RUN_DISCONNECT_GRACE_MS: '300',
    TTS_PROVIDER: 'none',
  });
  before(async () => {
    await testServer();
    chat = await startChatServer();
    running = await startServer(settings());
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

  const words = ['The ', 'gates ', 'are ', 'tests, ', 'safety ', 'and ', 'rollback ', '[1].'];
  const deltasOf = (frames: ReceivedFrame[]) =>
    frames.filter(({ data }) => data.type === 'token.delta').map(({ data }) => data.data.delta);
  const idsOf = (frames: ReceivedFrame[]) => frames.flatMap(({ id }) => (id === undefined ? [] : [id]));

  /** A model that says a word, another whenever it is told to, and the rest when it is let go. */
  function steppedModel() {
    let allowed = 1;
    let more = () => {};
    const allow = (count: number) => {
      allowed += count;
      more();
    };
    chat.answerWith(async (say, response) => {
      const closed = new Promise((resolve) => response.on('close', resolve));
      for (const [index, word] of words.entries()) {
        while (index >= allowed && !response.destroyed) {
          const { promise, resolve } = Promise.withResolvers<void>();
          more = resolve;
          await Promise.race([promise, closed]);
        }
        say(word);
      }
    });
    return { step: () => allow(1), finish: () => allow(words.length) };
  }

  describe('a run that is over', () => {
    it('is read again from any of its events on, byte for byte, by either way', async () => {
      chat.answerWith(async (say) => {
        for (const word of words) {
          say(word);
          await new Promise((resolve) => setTimeout(resolve, 15));
        }
      });
      const input = newRun();
      const first = await (await client.send('POST', '/v1/run', input)).text();
      const frames = first.split(/(?<=\n\n)/);
      const [, run] = /^id: ([^:]+):1$/m.exec(first)!;
      for (const [index, frame] of frames.entries()) {
        const id = /^id: (.*)$/m.exec(frame)![1]!;
        const rest = frames.slice(index + 1).join('');
        const posted = await client.send('POST', '/v1/run', input, { 'last-event-id': id });
        const got = await client.send('GET', `/v1/runs/${run}/events`, undefined, { 'last-event-id': id });
        const asked = await client.send('GET', `/v1/runs/${run}/events?after=${index + 1}`);
        for (const reply of [posted, got, asked]) {
          // Who has read all of it is told not to come back.
          assert.equal(reply.status, rest === '' ? 204 : 200);
          assert.equal(await reply.text(), rest);
        }
      }
      assert.equal(await (await client.send('GET', `/v1/runs/${run}/events`)).text(), first);
      assert.equal((await client.send('HEAD', `/v1/runs/${run}/events`)).status, 200);
      const { data } = await client.json('GET', `/v1/runs?session_id=${input.session_id}`);
      assert.equal(data.length, 1, 'to read a run begins no other');
    });

    it('was stored in a few batches, not token by token', async () => {
      chat.answerWith((say) => {
        for (let n = 0; n < 500; n++) say(`word${n} `);
      });
      const frames = await client.run(newRun());
      assert.equal(deltasOf(frames).length, 500);
      const run = eventOf(frames, 'request.accepted').run_id;
      const db = running.app.database.tenant(client.tenant);
      const batches = await db.rows(
        sql<{
          last_seq: number;
        }>`select last_seq from run_events where tenant_id = ${client.tenant} and run_id = ${run}`,
      );
      assert.ok(batches.length < 50, `${batches.length} batches`);
      assert.deepEqual(await readAll(await client.send('GET', `/v1/runs/${run}/events`)), frames);
    });

    it('can not be read any more when its time is over, and its events are removed', async () => {
      chat.answerWith((say) => say('Yes.'));
      const input = newRun();
      const frames = await client.run(input);
      const run = eventOf(frames, 'request.accepted').run_id;
      const db = running.app.database.tenant(client.tenant);
      const { data } = await client.json('GET', `/v1/runs/${run}`);
      assert.ok(Date.parse(data.events_expire_at) > Date.now() + 23 * 3_600_000);
      await db.run(
        sql`update runs set events_expire_at = ${new Date(Date.now() - 1)} where tenant_id = ${client.tenant} and id = ${run}`,
      );
      for (const reply of [
        await client.send('GET', `/v1/runs/${run}/events`),
        await client.send('POST', '/v1/run', input, { 'last-event-id': `${run}:1` }),
      ])
        assert.deepEqual(typesOf(await readAll(reply)), ['resume.unsupported', 'done']);
      for (const { name, run } of runSchedules) if (name === 'runs.events') await run(running.app);
      const left = await db.rows(
        sql`select 1 from run_events where tenant_id = ${client.tenant} and run_id = ${run}`,
      );
      assert.equal(left.length, 0);
      assert.equal((await client.json('GET', `/v1/runs/${run}`)).data.messages.length, 2);
    });
  });

  describe('a place nobody can go on from', () => {
    it('is answered in one and the same way, whatever is wrong with it', async () => {
      chat.answerWith((say) => say('Yes.'));
      const input = newRun();
      const run = eventOf(await client.run(input), 'request.accepted').run_id;
      const stranger = await signUp(client.base);
      const colleague = await signUp(client.base, 'admin', client);
      const seen = new Set<string>();
      const look = async (reply: Response) => {
        assert.equal(reply.status, 200);
        assert.match(reply.headers.get('content-type')!, /^text\/event-stream/);
        const text = await reply.text();
        seen.add(text.replace(/"request_id":"[^"]+"/g, '').replace(/"session_id":("[^"]+"|null)/g, ''));
      };
      for (const id of [
        '',
        'x',
        'x:7',
        `${run}`,
        `${run}:`,
        `${run}:-1`,
        `${run}:1.5`,
        `${run}:99999`,
        `${randomUUID()}:1`,
      ])
        await look(await client.send('POST', '/v1/run', input, { 'last-event-id': id }));
      // Somebody else's, and one's own of another session.
      for (const who of [stranger, colleague])
        await look(await who.send('POST', '/v1/run', input, { 'last-event-id': `${run}:1` }));
      await look(await client.send('POST', '/v1/run', newRun(), { 'last-event-id': `${run}:1` }));
      for (const id of ['x', randomUUID(), `${run}x`])
        await look(await client.send('GET', `/v1/runs/${id}/events`));
      await look(await stranger.send('GET', `/v1/runs/${run}/events`));
      await look(await (await signUp(client.base, 'user', client)).send('GET', `/v1/runs/${run}/events`));
      for (const id of [`${randomUUID()}:1`, `${run}:99999`, 'x'])
        await look(await client.send('GET', `/v1/runs/${run}/events`, undefined, { 'last-event-id': id }));
      assert.equal(seen.size, 1, [...seen].join('\n---\n'));
      // Who may see the tenant's runs may read them.
      const read = await readAll(await colleague.send('GET', `/v1/runs/${run}/events`));
      assert.equal(eventOf(read, 'message.final').text, 'Yes.');
    });
  });

  describe('a reader that lost its connection', () => {
    it('goes on where it was, while the run goes on', async () => {
      const model = steppedModel();
      const input = newRun();
      const before = await openStream(client, 'POST', '/v1/run', input);
      await before.until('token.delta');
      model.step();
      const { id } = await before.until('token.delta', 2);
      before.leave();
      const after = await openStream(client, 'POST', '/v1/run', input, { 'last-event-id': id! });
      model.step();
      await after.until('token.delta');
      model.finish();
      const frames = [...before.frames, ...(await after.rest())];
      assert.deepEqual(deltasOf(frames), words);
      assert.deepEqual(new Set(idsOf(frames)).size, frames.length);
      assert.equal(typesOf(frames).at(-1), 'done');
      const { data } = await client.json('GET', `/v1/runs/${eventOf(frames, 'request.accepted').run_id}`);
      assert.deepEqual([data.status, data.disconnects], ['succeeded', 1]);
    });

    it('finds the run before the model has said a word', async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      chat.answerWith(async (say) => {
        await promise;
        say('Now.');
      });
      const input = newRun();
      const before = await openStream(client, 'POST', '/v1/run', input);
      const { id } = await before.until('request.accepted');
      before.leave();
      const after = await openStream(client, 'POST', '/v1/run', input, { 'last-event-id': id! });
      resolve();
      assert.deepEqual(typesOf(await after.rest()), ['token.delta', 'message.final', 'done']);
    });

    it('is not alone: any number read the same run, from wherever they were', async () => {
      const model = steppedModel();
      const first = await openStream(client, 'POST', '/v1/run', newRun());
      const run = (await first.until('request.accepted')).data.data.run_id;
      model.step();
      await first.until('token.delta', 2);
      const others = await Promise.all(
        [0, 1, 2].map((after) => openStream(client, 'GET', `/v1/runs/${run}/events?after=${after}`)),
      );
      model.finish();
      const all = await first.rest();
      for (const [after, other] of others.entries()) assert.deepEqual(await other.rest(), all.slice(after));
    });

    it('finds the run canceled when it comes back after the grace', async () => {
      const before = chat.closedEarly();
      steppedModel();
      const input = newRun();
      const stream = await openStream(client, 'POST', '/v1/run', input);
      const { id } = await stream.until('token.delta');
      stream.leave();
      await eventually('the model to be left', async () => chat.closedEarly() > before);
      const frames = await readAll(await client.send('POST', '/v1/run', input, { 'last-event-id': id! }));
      assert.deepEqual(typesOf(frames), ['error', 'done']);
      assert.equal(eventOf(frames, 'error').code, 'CLIENT_DISCONNECTED');
    });

    it('need not come back for a run that was asked to go on', async () => {
      const model = steppedModel();
      const input = newRun({ on_disconnect: 'continue' });
      const stream = await openStream(client, 'POST', '/v1/run', input);
      const { id } = await stream.until('token.delta');
      const run = (await stream.until('request.accepted')).data.data.run_id;
      stream.leave();
      await new Promise((resolve) => setTimeout(resolve, 600));
      assert.equal((await client.json('GET', `/v1/runs/${run}`)).data.status, 'running');
      model.finish();
      await eventually('the run to end', async () => {
        const { data } = await client.json('GET', `/v1/runs/${run}`);
        return data.status === 'succeeded' && data.messages.length === 2;
      });
      const frames = await readAll(await client.send('POST', '/v1/run', input, { 'last-event-id': id! }));
      assert.deepEqual(deltasOf(frames), words.slice(1));
    });
  });

  describe('leaving at any moment', () => {
    it('ends the run one way or the other, with nothing half done, and hurts no other', async () => {
      const hasty = await startServer({ ...settings(), RUN_DISCONNECT_GRACE_MS: '0', TTS_PROVIDER: 'fake' });
      const who = await signUp(addressOf(hasty));
      await makeCorpus(who, 'handbook', { gates: 'The release gates are tests.' });
      chat.answerWith((say) => say('The gates are tests [1].'));
      const runs = await Promise.all(
        Array.from({ length: 60 }, async (_, n) => {
          const stream = await openStream(who, 'POST', '/v1/run', newRun({ audio: n % 2 === 0 }));
          const run = (await stream.until('request.accepted')).data.data.run_id;
          await new Promise((resolve) => setTimeout(resolve, n * 2));
          stream.leave();
          return { run, audio: n % 2 === 0 };
        }),
      );
      const outcomes = new Set<string>();
      for (const { run, audio } of runs) {
        const data = await eventually('the run to end', async () => {
          const { data } = await who.json('GET', `/v1/runs/${run}`);
          return data.status !== 'running' && data;
        });
        outcomes.add(data.status);
        const isAnswered = data.status === 'succeeded';
        assert.equal(data.messages.length, isAnswered ? 2 : 1);
        assert.equal(data.error_code, isAnswered ? null : 'CLIENT_DISCONNECTED');
        const frames = await readAll(await who.send('GET', `/v1/runs/${run}/events`));
        const types = typesOf(frames).filter((type) => !type.startsWith('audio.'));
        assert.deepEqual(types.slice(-2), [isAnswered ? 'message.final' : 'error', 'done']);
        const spoken = typesOf(frames).filter((type) => type.startsWith('audio.'));
        assert.equal(spoken.length, isAnswered && audio ? 1 : 0);
        assert.deepEqual(
          frames.map(({ data }) => data.seq),
          frames.map((_, index) => index + 1),
        );
      }
      assert.ok(outcomes.has('canceled'), [...outcomes].join());
      await hasty.stop();
    });
  });

  describe('canceling', () => {
    const cancel = (run: string, who = client) => who.send('POST', `/v1/runs/${run}/cancel`);

    it('stops the model, tells the readers and those who come later, and works once', async () => {
      const before = chat.closedEarly();
      steppedModel();
      const input = newRun();
      const stream = await openStream(client, 'POST', '/v1/run', input);
      const { id, data: token } = await stream.until('token.delta');
      const run = (await stream.until('request.accepted')).data.data.run_id;
      const replies = await Promise.all([cancel(run), cancel(run)]);
      assert.deepEqual(replies.map(({ status }) => status).sort(), [200, 409]);
      const body = (await replies.find(({ status }) => status === 200)!.json()) as any;
      assert.deepEqual([body.data.status, body.data.error_code], ['canceled', 'RUN_CANCELED']);
      const frames = await stream.rest();
      assert.deepEqual(typesOf(frames).slice(-2), ['error', 'done']);
      assert.equal(eventOf(frames, 'error').code, 'RUN_CANCELED');
      assert.ok(frames.at(-1)!.data.seq > token.seq);
      const later = await readAll(await client.send('POST', '/v1/run', input, { 'last-event-id': id! }));
      assert.deepEqual(later, frames.slice(-2));
      await eventually('the model to be left', async () => chat.closedEarly() === before + 1);
      chat.answerWith((say) => say('Free again.'));
      assert.equal(typesOf(await client.run(input)).at(-2), 'message.final');
      assert.equal((await cancel(run)).status, 409);
    });

    it('is for who may: another one’s run is not there, and an admin’s word counts', async () => {
      steppedModel();
      const member = await signUp(client.base, 'user', client);
      const other = await signUp(client.base, 'user', client);
      const stranger = await signUp(client.base);
      const stream = await openStream(member, 'POST', '/v1/run', newRun());
      const run = (await stream.until('request.accepted')).data.data.run_id;
      for (const who of [other, stranger]) assert.equal((await cancel(run, who)).status, 404);
      assert.equal((await cancel(run)).status, 200);
      assert.equal(eventOf(await stream.rest(), 'error').code, 'RUN_CANCELED');
    });

    it('and ending race for a run, and one of them has it', async () => {
      for (let n = 0; n < 12; n++) {
        const { promise, resolve } = Promise.withResolvers<void>();
        chat.answerWith(async (say) => {
          say('Yes.');
          await promise;
        });
        const stream = await openStream(client, 'POST', '/v1/run', newRun());
        const run = (await stream.until('request.accepted')).data.data.run_id;
        await stream.until('token.delta');
        resolve();
        await new Promise((later) => setTimeout(later, n));
        const { status } = await cancel(run);
        const frames = await stream.rest();
        const { data } = await client.json('GET', `/v1/runs/${run}`);
        const isCanceled = status === 200;
        assert.equal(data.status, isCanceled ? 'canceled' : 'succeeded');
        assert.equal(data.messages.length, isCanceled ? 1 : 2);
        assert.deepEqual(
          typesOf(frames).slice(-2),
          isCanceled ? ['error', 'done'] : ['message.final', 'done'],
        );
        const again = await readAll(await client.send('GET', `/v1/runs/${run}/events`));
        assert.deepEqual(again.slice(-2), frames.slice(-2));
      }
    });
  });

  describe('a run that was ended behind its process’s back', () => {
    it('stores nothing more, and tells its readers what stands in the rows', async () => {
      const model = steppedModel();
      const stream = await openStream(client, 'POST', '/v1/run', newRun());
      const run = (await stream.until('request.accepted')).data.data.run_id;
      await stream.until('token.delta');
      const db = running.app.database.tenant(client.tenant);
      const stored = () =>
        db.rows(
          sql<{
            last_seq: number;
          }>`select last_seq from run_events where tenant_id = ${client.tenant} and run_id = ${run} order by last_seq`,
        );
      await eventually('the first word to be stored', async () => (await stored()).at(-1)!.last_seq === 2);
      const said = JSON.stringify([
        ['error', { code: 'PROCESS_LOST', message: 'As if by another.' }],
        ['done', {}],
      ]);
      await db.batch([
        sql`update runs set status = 'failed', error_code = 'PROCESS_LOST', last_seq = 1004 where tenant_id = ${client.tenant} and id = ${run}`,
        sql`insert into run_events (tenant_id, run_id, last_seq, events) values (${client.tenant}, ${run}, 1004, ${said})`,
      ]);
      model.step();
      const frames = await stream.rest();
      assert.equal(eventOf(frames, 'error').message, 'As if by another.');
      assert.equal(frames.at(-1)!.data.seq, 1004);
      assert.deepEqual(
        (await stored()).map(({ last_seq }) => last_seq).filter((last) => last > 2),
        [1004],
      );
    });
  });

  describeApart('from another process', () => {
    let second: Running;
    let there: Client;
    before(async () => {
      second = await startServer(settings());
      there = signedIn(addressOf(second), client);
    });
    after(() => second.stop());

    it('a run is read to its end, and a reader there keeps it going', async () => {
      const model = steppedModel();
      const input = newRun();
      const before = await openStream(client, 'POST', '/v1/run', input);
      const { id } = await before.until('token.delta');
      before.leave();
      const after = await openStream(there, 'POST', '/v1/run', input, { 'last-event-id': id! });
      model.step();
      await after.until('token.delta');
      // Longer than the grace: nobody reads it where it is worked on.
      await new Promise((resolve) => setTimeout(resolve, 900));
      model.finish();
      const frames = [...before.frames, ...(await after.rest())];
      assert.deepEqual(deltasOf(frames), words);
      assert.deepEqual(typesOf(frames).slice(-2), ['message.final', 'done']);
    });

    it('a run is canceled, and its model left', async () => {
      const before = chat.closedEarly();
      steppedModel();
      const stream = await openStream(client, 'POST', '/v1/run', newRun());
      const run = (await stream.until('request.accepted')).data.data.run_id;
      await stream.until('token.delta');
      assert.equal((await there.send('POST', `/v1/runs/${run}/cancel`)).status, 200);
      assert.equal(eventOf(await stream.rest(), 'error').code, 'RUN_CANCELED');
      await eventually('the model to be left', async () => chat.closedEarly() === before + 1);
    });

    it('a run that counts as lost is ended; its process, when it wakes, says so too and stores nothing more', async () => {
      const model = steppedModel();
      const stream = await openStream(client, 'POST', '/v1/run', newRun());
      const run = (await stream.until('request.accepted')).data.data.run_id;
      await stream.until('token.delta');
      const db = running.app.database.tenant(client.tenant);
      await db.run(
        sql`update runs set lease_until = ${new Date(0)} where tenant_id = ${client.tenant} and id = ${run}`,
      );
      const told = await readAll(await there.send('GET', `/v1/runs/${run}/events?after=1`));
      assert.equal(eventOf(told, 'error').code, 'PROCESS_LOST');
      model.finish();
      const frames = await stream.rest();
      assert.deepEqual(frames.slice(-2), told.slice(-2));
      const numbers = frames.map(({ data }) => data.seq);
      assert.deepEqual(
        numbers,
        [...new Set(numbers)].sort((a, b) => a - b),
        'no number stands for two events',
      );
      const { data } = await client.json('GET', `/v1/runs/${run}`);
      assert.deepEqual([data.status, data.error_code, data.messages.length], ['failed', 'PROCESS_LOST', 1]);
      assert.deepEqual(await readAll(await there.send('GET', `/v1/runs/${run}/events?after=1`)), told);
    });

    it('events are sent before they are stored, and no further ahead than a reader can be told of', async () => {
      const count = 1_500;
      chat.answerWith(async (say) => {
        say('first ');
        await new Promise((resolve) => setTimeout(resolve, 300));
        for (let n = 1; n < count; n++) say(`word${n} `);
      });
      const stream = await openStream(client, 'POST', '/v1/run', newRun());
      const run = (await stream.until('request.accepted')).data.data.run_id;
      await stream.until('token.delta');
      const holder = await running.app.database.operatorPool.connect();
      try {
        await holder.query('begin');
        await holder.query('select 1 from runs where id = $1 for update', [run]);
        const { rows } = await holder.query('select last_seq from runs where id = $1', [run]);
        await stream.until('token.delta', 500);
        let late = false;
        const more = stream.until('token.delta', count).then(() => {
          late = true;
        });
        await new Promise((resolve) => setTimeout(resolve, 700));
        assert.equal(late, false, 'it waits');
        const sent = stream.frames.at(-1)!.data.seq;
        assert.ok(
          sent > rows[0].last_seq + 400 && sent < rows[0].last_seq + 1_000,
          `${sent} of ${rows[0].last_seq}`,
        );
        await holder.query('commit');
        await more;
      } finally {
        holder.release();
      }
      const frames = await stream.rest();
      assert.equal(deltasOf(frames).length, count);
      assert.deepEqual(await readAll(await there.send('GET', `/v1/runs/${run}/events`)), frames);
    });
  });
});
