import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { addressOf, type Client, eventOf, makeCorpus, signUp, typesOf } from '#test/event-stream.ts';
import { type GeminiScript, startGeminiServer } from '#test/gemini-server.ts';
import { startServer, testServer, useTestServer } from '#test/harness.ts';
import type { Running } from '../../../app.ts';

useTestServer();

describe('Gemini on Vertex AI', () => {
  const directory = mkdtempSync(join(tmpdir(), 'manushya-vertex-'));
  let gemini: Awaited<ReturnType<typeof startGeminiServer>>;
  let server: Running | undefined;

  const earlier = process.env.GOOGLE_APPLICATION_CREDENTIALS;

  /** From now on those are found that trade a token of a workload's own for one of Google's. */
  function provideCredentials(): void {
    const subject = join(directory, 'subject');
    writeFileSync(subject, 'a token of the workload');
    const file = join(directory, `credentials-${randomUUID()}.json`);
    writeFileSync(
      file,
      JSON.stringify({
        type: 'external_account',
        audience:
          '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/test',
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        token_url: `${gemini.url}/token`,
        credential_source: { file: subject },
      }),
    );
    process.env.GOOGLE_APPLICATION_CREDENTIALS = file;
  }

  /** Somebody at a server with these settings, in place of the one before. */
  async function clientOf(settings: Record<string, string>): Promise<Client> {
    await server?.stop();
    server = await startServer({
      LLM_PROVIDER: 'vertex',
      GEMINI_MODEL: 'gemini-2.5-flash',
      VERTEX_BASE_URL: gemini.url,
      LLM_TIMEOUT_MS: '1500',
      EXT_RETRY_MAX_ATTEMPTS: '0',
      ...settings,
    });
    const client = await signUp(addressOf(server));
    await makeCorpus(client, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
    return client;
  }

  let client: Client;
  before(async () => {
    await testServer();
    gemini = await startGeminiServer();
    provideCredentials();
    client = await clientOf({ GOOGLE_CLOUD_PROJECT: 'project-1', VERTEX_LOCATION: 'europe-west4' });
  });
  after(async () => {
    if (earlier === undefined) delete process.env.GOOGLE_APPLICATION_CREDENTIALS;
    else process.env.GOOGLE_APPLICATION_CREDENTIALS = earlier;
    await server?.stop();
    await gemini.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const run = (who: Client, session_id = `s-${randomUUID()}`) =>
    who.run({ session_id, corpus_id: 'handbook', message: 'What are the release gates?' });

  /** Ended by an error; the question is kept, and what was retrieved did not fail. */
  async function assertFailed(who: Client, code: string): Promise<void> {
    const frames = await run(who);
    assert.deepEqual(typesOf(frames).slice(-2), ['error', 'done'], code);
    const { message, ...error } = eventOf(frames, 'error');
    assert.deepEqual(error, { code });
    assert.ok(!message.includes('secret'));
    const { data } = await who.json('GET', `/v1/runs/${eventOf(frames, 'request.accepted').run_id}`);
    assert.deepEqual([data.status, data.error_code, data.provider], ['failed', code, 'vertex']);
    assert.deepEqual(
      data.messages.map(({ role }: any) => role),
      ['user'],
    );
    assert.equal(typeof data.timings.retrieval_ms, 'number');
  }

  test('Gemini is asked with rules, history and passages, streams its answer and says what it cost', async () => {
    gemini.answerWith(async (say) => {
      for (const piece of ['The gates are ', 'tests, safety ', 'and rollback [1].']) {
        say(piece);
        await sleep(10);
      }
    });
    const session = `s-${randomUUID()}`;
    await run(client, session);
    const frames = await run(client, session);
    assert.deepEqual(typesOf(frames), [
      'request.accepted',
      ...Array(3).fill('token.delta'),
      'message.final',
      'done',
    ]);
    const final = eventOf(frames, 'message.final');
    assert.deepEqual(
      [final.text, final.model],
      ['The gates are tests, safety and rollback [1].', 'gemini-2.5-flash'],
    );
    const asked = gemini.requests.at(-1)!;
    assert.equal(
      asked.path,
      '/v1beta1/projects/project-1/locations/europe-west4/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse',
    );
    assert.equal(asked.headers.authorization, 'Bearer google-token');
    assert.match(asked.systemInstruction!.parts[0]!.text, /Use only what the passages say/);
    assert.deepEqual(
      asked.contents.map(({ role }) => role),
      ['user', 'model', 'user'],
    );
    assert.match(asked.contents[2]!.parts[0]!.text, /release gates are tests/);
    const { data } = await client.json('GET', `/v1/runs/${final.run_id}`);
    assert.deepEqual(
      [data.provider, data.model, data.finish_reason, data.usage],
      ['vertex', 'gemini-2.5-flash', 'STOP', { input_tokens: 21, output_tokens: 9, total_tokens: 30 }],
    );
  });

  test('each way Gemini fails has its code, and nothing of its words is shown', async () => {
    const status =
      (code: number): GeminiScript =>
      (_say, response) => {
        response
          .writeHead(code, { 'content-type': 'application/json' })
          .end('{"error":{"code":500,"message":"inner secret","status":"X"}}');
      };
    const failures: [string, GeminiScript][] = [
      ['VERTEX_AUTH_ERROR', status(401)],
      ['VERTEX_AUTH_ERROR', status(403)],
      ['LLM_RATE_LIMITED', status(429)],
      ['LLM_UNAVAILABLE', status(500)],
      ['LLM_CONFIG_INVALID', status(404)],
      [
        'LLM_ERROR',
        async (say, response) => {
          say('The gates are ');
          await sleep(50);
          response.destroy();
        },
      ],
      [
        'LLM_ERROR',
        (say, response) => {
          say('The gates are ');
          response.end();
        },
      ],
      [
        'VERTEX_TIMEOUT',
        async (say, response) => {
          say('The ');
          await new Promise((resolve) => response.on('close', resolve));
        },
      ],
      ['VERTEX_TIMEOUT', (_say, response) => new Promise<void>((resolve) => response.on('close', resolve))],
    ];
    for (const [code, script] of failures) {
      gemini.answerWith(script);
      await assertFailed(client, code);
    }
  });

  test('without project or location, or without good credentials, the run says so and the question is kept', async () => {
    gemini.answerWith((say) => say('Never asked.'));
    const asked = gemini.requests.length;
    await assertFailed(await clientOf({ GOOGLE_CLOUD_PROJECT: 'project-1' }), 'VERTEX_CONFIG_MISSING');
    await assertFailed(await clientOf({ GOOGLE_CLOUD_LOCATION: 'europe-west4' }), 'VERTEX_CONFIG_MISSING');
    const place = { GOOGLE_CLOUD_PROJECT: 'project-1', GOOGLE_CLOUD_LOCATION: 'europe-west4' };
    process.env.GOOGLE_APPLICATION_CREDENTIALS = join(directory, 'absent.json');
    await assertFailed(await clientOf(place), 'VERTEX_AUTH_ERROR');
    provideCredentials();
    gemini.answerTokensWith(401);
    await assertFailed(await clientOf(place), 'VERTEX_AUTH_ERROR');
    assert.equal(gemini.requests.length, asked);
  });
});
