import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
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
  signUp,
  typesOf,
} from '#test/event-stream.ts';
import { eventually, startServer, testServer, useTestServer } from '#test/harness.ts';
import { type SpeechScript, speakWell, speech, startSpeechServer } from '#test/speech-server.ts';
import type { Running } from '../../../app.ts';
import { runSchedules } from './jobs.ts';
import { spokenPieces } from './speak.ts';

useTestServer();

describe('speech', () => {
  let chat: Awaited<ReturnType<typeof startChatServer>>;
  let tts: Awaited<ReturnType<typeof startSpeechServer>>;
  let running: Running;
  let client: Client;
  before(async () => {
    await testServer();
    [chat, tts] = [await startChatServer(), await startSpeechServer()];
    running = await startServer({
      LLM_PROVIDER: 'openai-compatible',
      LLM_BASE_URL: chat.url,
      LLM_API_KEY: 'chat-key',
      TTS_PROVIDER: 'openai',
      TTS_BASE_URL: tts.url,
      OPENAI_API_KEY: 'speech-key',
      EMBEDDING_PROVIDER: 'hashed',
      EXT_RETRY_MAX_ATTEMPTS: '0',
      EXT_CALL_TIMEOUT_MS: '1000',
      TTS_TIMEOUT_MS: '1500',
      AUDIO_BASE_URL: 'https://api.example.com/v1',
    });
    client = await signUp(addressOf(running));
    await makeCorpus(client, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
    chat.answerWith((say) => say('The **gates** are tests [1]. And rollback [1].'));
  });
  after(async () => {
    await running.stop();
    await Promise.all([chat.close(), tts.close()]);
  });

  const newRun = (more: object = {}) => ({
    session_id: `s-${randomUUID()}`,
    corpus_id: 'handbook',
    message: 'What are the release gates?',
    audio: true,
    ...more,
  });
  const spoken = async (who = client): Promise<{ id: string; run: string; frames: ReceivedFrame[] }> => {
    tts.answerWith(speakWell);
    const frames = await who.run(newRun());
    return {
      id: eventOf(frames, 'audio.ready').audio_id,
      run: eventOf(frames, 'request.accepted').run_id,
      frames,
    };
  };
  const pathOf = (who: Client, id: string) =>
    join(running.app.config.dataDir, 'audio', who.tenant, `${id}.mp3`);
  const audioOf = (id: string, who = client, headers: Record<string, string> = {}) =>
    who.send('GET', `/v1/audio/${id}.mp3`, undefined, headers);

  describe('a run with audio', () => {
    it('speaks its answer, without its marks, before it is done', async () => {
      const { id, run, frames } = await spoken();
      assert.deepEqual(typesOf(frames).slice(-3), ['message.final', 'audio.ready', 'done']);
      assert.deepEqual(eventOf(frames, 'audio.ready'), {
        audio_url: `https://api.example.com/v1/audio/${id}.mp3`,
        audio_id: id,
        mime: 'audio/mpeg',
      });
      const { headers, ...asked } = tts.requests.at(-1)!;
      assert.equal(headers.authorization, 'Bearer speech-key');
      const text = 'The gates are tests. And rollback.';
      assert.deepEqual(asked, {
        model: 'gpt-4o-mini-tts',
        voice: 'alloy',
        input: text,
        response_format: 'mp3',
      });
      const reply = await audioOf(id);
      assert.equal(reply.headers.get('content-type'), 'audio/mpeg');
      assert.equal(reply.headers.get('cache-control'), 'private, max-age=3600');
      assert.deepEqual(Buffer.from(await reply.arrayBuffer()), speech(text));
      const { data } = await client.json('GET', `/v1/runs/${run}`);
      assert.equal(data.status, 'succeeded');
      assert.equal(typeof data.timings.speech_ms, 'number');
      const alias = await client.send('GET', `/audio/${id}.mp3`);
      assert.equal(alias.status, 200);
      assert.equal(alias.headers.get('deprecation'), 'true');
    });

    it('is told why when it can not be spoken; the answer is there all the same, and no broken file', async () => {
      const status =
        (code: number): SpeechScript =>
        (response) => {
          response.writeHead(code, { 'content-type': 'application/json' }).end('{"error":"inner secret"}');
        };
      const hang: SpeechScript = (response) => new Promise<void>((resolve) => response.on('close', resolve));
      const failures: [string, SpeechScript][] = [
        ['TTS_AUTH_ERROR', status(401)],
        ['TTS_ERROR', status(400)],
        ['INTEGRATION_UNAVAILABLE', status(429)],
        ['TTS_ERROR', (response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')],
        ['INTEGRATION_UNAVAILABLE', status(500)],
        ['TTS_ERROR', (response) => void response.writeHead(200, { 'content-type': 'audio/mpeg' }).end()],
        [
          'INTEGRATION_UNAVAILABLE',
          (response) => {
            response.writeHead(200, { 'content-type': 'audio/mpeg' }).write('ID3 a beginning');
            setTimeout(() => response.destroy(), 50);
          },
        ],
        ['INTEGRATION_UNAVAILABLE', hang],
        [
          'INTEGRATION_UNAVAILABLE',
          async (response) => {
            response.writeHead(200, { 'content-type': 'audio/mpeg' }).write('ID3 a beginning');
            await new Promise((resolve) => response.on('close', resolve));
          },
        ],
      ];
      for (const [code, script] of failures) {
        tts.answerWith(script);
        const frames = await client.run(newRun());
        assert.deepEqual(typesOf(frames).slice(-3), ['message.final', 'audio.error', 'done'], code);
        const { message, ...error } = eventOf(frames, 'audio.error');
        assert.deepEqual(error, { code });
        assert.ok(!message.includes('secret'));
        const run = eventOf(frames, 'request.accepted').run_id;
        const { data } = await client.json('GET', `/v1/runs/${run}`);
        assert.deepEqual([data.status, data.error_code, data.messages.length], ['succeeded', null, 2]);
        const rows = await running.app.database
          .tenant(client.tenant)
          .rows(sql`select 1 from run_audio where tenant_id = ${client.tenant} and run_id = ${run}`);
        assert.equal(rows.length, 0, code);
        // Too many in a row, and nobody is asked any more for a while.
        await spoken();
      }
    });

    it('stops speaking when it is canceled, and its audio is not there', async () => {
      let id = '';
      const { promise: closed, resolve } = Promise.withResolvers<void>();
      tts.answerWith(async (response) => {
        response.writeHead(200, { 'content-type': 'audio/mpeg' }).write('ID3 a beginning');
        response.on('close', resolve);
        await closed;
      });
      const stream = await openStream(client, 'POST', '/v1/run', newRun());
      const run = (await stream.until('request.accepted')).data.data.run_id;
      await stream.until('message.final');
      const db = running.app.database.tenant(client.tenant);
      await eventually('the file to be begun', async () => {
        const [row] = await db.rows(
          sql<{
            id: string;
          }>`select id from run_audio where tenant_id = ${client.tenant} and run_id = ${run}`,
        );
        id = row?.id ?? '';
        return id !== '' && existsSync(`${pathOf(client, id)}.part`);
      });
      assert.equal((await audioOf(id)).status, 404, 'a file that is not whole');
      assert.equal((await client.send('POST', `/v1/runs/${run}/cancel`)).status, 200);
      await closed;
      const frames = await stream.rest();
      assert.deepEqual(typesOf(frames).slice(-3), ['message.final', 'audio.error', 'done']);
      assert.equal(eventOf(frames, 'audio.error').code, 'RUN_CANCELED');
      assert.equal((await client.json('GET', `/v1/runs/${run}`)).data.messages.length, 2);
      await eventually('the beginning to go', async () => !existsSync(`${pathOf(client, id)}.part`));
      assert.equal((await audioOf(id)).status, 404);
    });

    it('without a speech provider, or without its key, is told so', async () => {
      for (const settings of [{ TTS_PROVIDER: 'none' }, { TTS_PROVIDER: 'openai' }]) {
        const other = await startServer(settings);
        const who = await signUp(addressOf(other));
        await makeCorpus(who, 'handbook', { x: 'The release gates are tests.' });
        const frames = await who.run(newRun());
        assert.deepEqual(typesOf(frames).slice(-3), ['message.final', 'audio.error', 'done']);
        assert.equal(eventOf(frames, 'audio.error').code, 'TTS_CONFIG_MISSING');
        await other.stop();
      }
    });
  });

  describe('audio', () => {
    it('is for who may read its run, and for nobody else', async () => {
      const member = await signUp(client.base, 'user', client);
      const { id } = await spoken(member);
      for (const who of [member, client]) assert.equal((await audioOf(id, who)).status, 200);
      const [other, stranger] = [await signUp(client.base, 'user', client), await signUp(client.base)];
      const absent = await (await audioOf(randomUUID(), other)).text();
      const same = (text: string) => text.replace(/"request_id":"[^"]+"/, '');
      for (const who of [other, stranger]) {
        const reply = await audioOf(id, who);
        assert.equal(reply.status, 404);
        assert.equal(same(await reply.text()), same(absent));
      }
      assert.equal((await fetch(`${client.base}/v1/audio/${id}.mp3`)).status, 401);
    });

    it('is given in ranges (RFC 9110, section 14)', async () => {
      const { id } = await spoken();
      const all = Buffer.from(await (await audioOf(id)).arrayBuffer());
      const etag = (await audioOf(id)).headers.get('etag')!;
      const size = all.length;
      const parts: [range: string, start: number, end: number][] = [
        ['bytes=0-3', 0, 3],
        ['bytes=4-', 4, size - 1],
        ['bytes=-5', size - 5, size - 1],
        ['bytes=2-999999', 2, size - 1],
        ['bytes=-999999', 0, size - 1],
      ];
      for (const [range, start, end] of parts) {
        const reply = await audioOf(id, client, { range });
        assert.equal(reply.status, 206, range);
        assert.equal(reply.headers.get('content-range'), `bytes ${start}-${end}/${size}`);
        assert.deepEqual(Buffer.from(await reply.arrayBuffer()), all.subarray(start, end + 1), range);
      }
      for (const range of [`bytes=${size}-`, 'bytes=-0']) {
        const reply = await audioOf(id, client, { range });
        assert.equal(reply.status, 416, range);
        assert.equal(reply.headers.get('content-range'), `bytes */${size}`);
      }
      for (const range of ['bytes=3-1', 'bytes=0-1,3-4', 'words=0-1', 'bytes=-', 'bytes=a-b'])
        assert.equal((await audioOf(id, client, { range })).status, 200, range);
      const conditional = (tag: string) => audioOf(id, client, { range: 'bytes=0-3', 'if-range': tag });
      assert.deepEqual([(await conditional(etag)).status, (await conditional('"other"')).status], [206, 200]);
      const head = await client.send('HEAD', `/v1/audio/${id}.mp3`);
      assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(size)]);
    });

    it('goes with its run, and when its time is over', async () => {
      const sweep = async () => {
        for (const { name, run } of runSchedules) if (name === 'runs.audio') await run(running.app);
      };
      const [one, two, three] = [await spoken(), await spoken(), await spoken()];
      assert.equal((await client.send('DELETE', `/v1/runs/${one.run}`)).status, 204);
      assert.equal((await client.send('GET', `/v1/runs/${one.run}`)).status, 404);
      assert.equal((await audioOf(one.id)).status, 404, 'at once');
      const db = running.app.database.tenant(client.tenant);
      await db.run(
        sql`update run_audio set expires_at = ${new Date()} where tenant_id = ${client.tenant} and id = ${two.id}`,
      );
      assert.equal((await audioOf(two.id)).status, 404, 'at once');
      await sweep();
      assert.deepEqual(
        [one.id, two.id, three.id].map((id) => existsSync(pathOf(client, id))),
        [false, false, true],
      );
      assert.equal((await audioOf(three.id)).status, 200);
    });
  });

  it('a long answer is spoken in pieces that end with sentences, as much of it as is allowed', () => {
    const sentence = 'The gates are tests and rollback. ';
    const { pieces, isWhole } = spokenPieces(sentence.repeat(20), 100, 10_000);
    assert.equal(isWhole, true);
    assert.ok(pieces.every((piece) => piece.length <= 100 && piece.endsWith('.')));
    assert.equal(pieces.join(' '), sentence.repeat(20).trim());
    const cut = spokenPieces(sentence.repeat(20), 100, 150);
    assert.equal(cut.isWhole, false);
    assert.equal(cut.pieces.join(' '), sentence.repeat(4).trim());
    assert.deepEqual(spokenPieces('x'.repeat(250), 100, 1_000).pieces, [
      'x'.repeat(100),
      'x'.repeat(100),
      'x'.repeat(50),
    ]);
    const marked =
      '# Gates\n\n- **Tests** [1]\n- `rollback` [2][3]\n\nSee [the guide](https://example.com/a).';
    assert.deepEqual(spokenPieces(marked, 1_000, 1_000).pieces, [
      'Gates\n\nTests\nrollback\n\nSee the guide.',
    ]);
    assert.deepEqual(spokenPieces(' [1] ', 100, 100).pieces, []);
  });
});
