import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { command } from '#test/command.ts';
import { environmentOf, startServer } from '#test/harness.ts';
import { awsError, awsKey, json, startBedrock } from '#test/search-engine-servers.ts';
import { newLibrary, stored } from '#test/uploads.ts';

describe('provider-smoke', () => {
  it('prints what the route of a corpus finds, and ends with a code a script can use', {
    timeout: 300_000,
  }, async () => {
    const bedrock = await startBedrock();
    const env = environmentOf({
      AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME: bedrock.url,
      EXT_RETRY_MAX_ATTEMPTS: '0',
      LOG_LEVEL: 'silent',
    });
    try {
      const server = await startServer(env);
      const mine = await newLibrary(server);
      await stored(mine, 'lamp', 'The lamp of the lighthouse turns once every twelve seconds.');
      const retrieval = { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'eu-west-1' };
      const away = { id: 'away', name: 'Away', provider_config_json: { retrieval } };
      assert.equal((await mine.call('POST', '/v1/corpora', away)).status, 201);
      await server.stop();
      const smoke = (corpus: string, more: string[] = [], credentials: Record<string, string> = awsKey) =>
        command(
          { ...env, ...credentials, AWS_EC2_METADATA_DISABLED: 'true', HOME: '/nowhere' },
          ...[
            'provider-smoke',
            '--tenant',
            mine.tenant,
            '--corpus',
            corpus,
            '--query',
            'how often does the lamp turn',
          ],
          ...more,
        );
      const here = await smoke('c1');
      assert.equal(here.code, 0, here.err);
      assert.match(
        here.out,
        /^1\t0\.\d{4}\tdocument:\/\/lamp\tThe lamp of .*\nlocal_pgvector: 1 rows in \d+ ms\n$/,
      );
      const result = {
        content: { text: 'A lamp\nturns.' },
        location: { s3Location: { uri: 's3://b/l' } },
        score: 0.9,
      };
      bedrock.answerWith(json(200, { retrievalResults: [result] }));
      const there = await smoke('away', ['--top-k', '1']);
      assert.match(
        there.out,
        /^1\t0\.\d{4}\ts3:\/\/b\/l\tA lamp turns\.\naws_bedrock_kb: 1 rows in/,
        there.err,
      );
      assert.equal(there.code, 0);
      bedrock.answerWith(awsError(403, 'AccessDeniedException'));
      const denied = await smoke('away');
      assert.deepEqual([denied.code, denied.out], [1, '']);
      assert.match(denied.err, /AWS_RETRIEVAL_ERROR: .*AccessDeniedException of the tests/);
      const bare = await smoke('away', [], {
        AWS_SHARED_CREDENTIALS_FILE: '/nowhere',
        AWS_CONFIG_FILE: '/nowhere',
      });
      assert.equal(bare.code, 1);
      assert.match(bare.err, /AWS_AUTH_ERROR/);
      for (const words of [['--top-k', '0'], ['--top-k', 'x'], ['--nonsense']])
        assert.equal((await smoke('c1', words)).code, 2, words.join(' '));
    } finally {
      await bedrock.close();
    }
  });
});
