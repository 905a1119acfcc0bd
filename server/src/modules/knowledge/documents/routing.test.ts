import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { type Caller, newMember, newTenant, startServer, testServer, useTestServer } from '#test/harness.ts';
import {
  awsError,
  awsKey,
  type EngineScript,
  googleError,
  json,
  startBedrock,
  startVertex,
} from '#test/search-engine-servers.ts';
import { codeOf, done, put, search } from '#test/uploads.ts';
import type { Running } from '../../../app.ts';

useTestServer();

/** What credentials and addresses the SDKs look for; each test says which are there. */
const watched = [
  ...Object.keys(awsKey),
  'AWS_PROFILE',
  'AWS_SESSION_TOKEN',
  'AWS_EC2_METADATA_DISABLED',
  'AWS_SHARED_CREDENTIALS_FILE',
  'AWS_CONFIG_FILE',
  'GOOGLE_APPLICATION_CREDENTIALS',
  'METADATA_SERVER_DETECTION',
  'CLOUDSDK_CONFIG',
];
const earlier = Object.fromEntries(watched.map((name) => [name, process.env[name]]));
const nowhere = {
  AWS_EC2_METADATA_DISABLED: 'true',
  AWS_SHARED_CREDENTIALS_FILE: '/nowhere',
  AWS_CONFIG_FILE: '/nowhere',
  METADATA_SERVER_DETECTION: 'none',
  CLOUDSDK_CONFIG: '/nowhere',
};
function environment(values: Record<string, string | undefined>): void {
  for (const name of watched) delete process.env[name];
  for (const [name, value] of Object.entries(values)) if (value !== undefined) process.env[name] = value;
}

const kb = { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'eu-west-1', top_k_default: 3 };
const store = {
  provider: 'gcp_vertex',
  project: 'p1',
  location: 'eu',
  resource_id: 'store-1',
  top_k_default: 3,
};

let bedrock: Awaited<ReturnType<typeof startBedrock>>;
let vertex: Awaited<ReturnType<typeof startVertex>>;
let server: Running;

const settings = () => ({
  AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME: bedrock.url,
  VERTEX_SEARCH_BASE_URL: vertex.url,
  EXT_CALL_TIMEOUT_MS: '1500',
  EXT_RETRY_MAX_ATTEMPTS: '2',
});
const credentials = () => ({ ...nowhere, ...awsKey, GOOGLE_APPLICATION_CREDENTIALS: vertex.credentials });

async function routed(retrieval: object, on = server): Promise<Caller> {
  const caller = await newTenant('admin', on);
  const made = await caller.call('POST', '/v1/corpora', {
    id: 'c1',
    name: 'x',
    provider_config_json: { retrieval },
  });
  assert.equal(made.status, 201, made.text);
  return caller;
}

const awsResult = (text: string, score: number | undefined, uri: string, metadata: object = {}) => ({
  content: { text, type: 'TEXT' },
  location: { type: 'S3', s3Location: { uri } },
  ...(score === undefined ? {} : { score }),
  metadata: { 'x-amz-bedrock-kb-source-uri': uri, ...metadata },
});
const lamp = 'The lamp of the lighthouse turns once every twelve seconds.';
const bread = 'Bread needs flour, water and a long night of rest.';

describe('a corpus', () => {
  before(async () => {
    // Two that make their tables at once would meet.
    await testServer();
    [bedrock, vertex] = [await startBedrock(), await startVertex()];
    environment(credentials());
    server = await startServer(settings());
  });

  after(async () => {
    await server.stop();
    await Promise.all([bedrock.close(), vertex.close()]);
    environment(earlier);
  });

  beforeEach(() => {
    bedrock.calls.length = 0;
    vertex.calls.length = 0;
  });

  describe('routed to a Bedrock knowledge base', () => {
    it('is searched there, signed by the credentials of the server, and answered in our own form', async () => {
      const mine = await routed(kb);
      bedrock.answerWith(
        json(200, {
          retrievalResults: [
            awsResult(lamp, 0.83, 's3://books/coast/light%20houses.pdf', {
              'x-amz-bedrock-kb-document-page-number': 7,
              'x-amz-bedrock-kb-chunk-id': 'ch-1',
              year: 1871,
            }),
            {
              content: { text: bread },
              location: { type: 'WEB', webLocation: { url: 'https://bread.example/a?b=c' } },
              score: 0.31,
            },
            { content: { text: '  ' } },
          ],
        }),
      );
      const reply = await search(mine, 'how often does the lamp of the lighthouse turn?', { explain: true });
      assert.equal(reply.status, 200, reply.text);
      const [call] = bedrock.calls;
      assert.equal(call!.refused, undefined);
      assert.equal(call!.path, '/knowledgebases/KB123/retrieve');
      assert.match(call!.headers.authorization!, /\/eu-west-1\/bedrock\/aws4_request/);
      assert.deepEqual(call!.body, {
        retrievalQuery: { text: 'how often does the lamp of the lighthouse turn?' },
        retrievalConfiguration: { vectorSearchConfiguration: { numberOfResults: 3 } },
      });
      const [best, second, ...others] = reply.body.data;
      assert.deepEqual(others, []);
      assert.deepEqual(
        [best.source, best.filename, best.page_start, best.text, best.document_metadata.year],
        ['s3://books/coast/light%20houses.pdf', 'light houses.pdf', 7, lamp, 1871],
      );
      assert.deepEqual(
        [best.corpus_id, best.offset_start, best.offset_end, best.position],
        ['c1', 0, lamp.length, 0],
      );
      assert.deepEqual(best.explain, { provider: 'aws_bedrock_kb', rank: 1, relevance: 0.83 });
      assert.deepEqual([second.source, second.filename], ['https://bread.example/a?b=c', 'a']);
      assert.ok(best.score >= 0.6 && best.score <= 1, `${best.score}`);
      assert.ok(second.score < best.score);
      const again = (await search(mine, 'how often does the lamp of the lighthouse turn?')).body.data[0];
      assert.equal(again.id, best.id);
      assert.equal(again.explain, undefined);
      assert.equal(new Set(reply.body.data.map(({ id }: any) => id)).size, 2);
    });

    it('means the same by a threshold: what does not answer the query scores low, whatever the engine thinks', async () => {
      const mine = await routed(kb);
      bedrock.answerWith(json(200, { retrievalResults: [awsResult(bread, 0.42, 's3://b/bread')] }));
      assert.deepEqual(
        (await search(mine, 'how often does the lamp turn', { min_score: 0.6 })).body.data,
        [],
      );
      bedrock.answerWith(json(200, { retrievalResults: [awsResult(lamp, 0.42, 's3://b/lamp')] }));
      assert.equal(
        (await search(mine, 'how often does the lamp turn', { min_score: 0.6 })).body.data.length,
        1,
      );
      // Without a word in common, but near in meaning.
      bedrock.answerWith(
        json(200, { retrievalResults: [awsResult('La lampe tourne.', 0.9, 's3://b/lampe')] }),
      );
      assert.equal((await search(mine, 'rotating beacon frequency', { min_score: 0.6 })).body.data.length, 1);
    });

    it('answers a run, which cites where each passage stands', async () => {
      const mine = await routed(kb);
      bedrock.answerWith(json(200, { retrievalResults: [awsResult(lamp, 0.83, 's3://books/lamp.pdf')] }));
      const reply = await mine.call('POST', '/v1/run', {
        session_id: uuidv7(),
        corpus_id: 'c1',
        message: 'How often does the lamp of the lighthouse turn?',
        top_k: 2,
      });
      assert.match(reply.text, /twelve seconds/);
      assert.match(reply.text, /"source":"s3:\/\/books\/lamp.pdf"/);
      assert.equal(
        bedrock.calls[0]!.body.retrievalConfiguration.vectorSearchConfiguration.numberOfResults,
        2,
      );
    });

    const failing: [what: string, script: EngineScript, code: string, status: number, calls: number][] = [
      ['access is denied', awsError(403, 'AccessDeniedException'), 'AWS_RETRIEVAL_ERROR', 502, 1],
      [
        'the knowledge base is not there',
        awsError(404, 'ResourceNotFoundException'),
        'AWS_RETRIEVAL_ERROR',
        502,
        1,
      ],
      ['the request is not valid', awsError(400, 'ValidationException'), 'AWS_RETRIEVAL_ERROR', 502, 1],
      ['the key is not known', awsError(403, 'UnrecognizedClientException'), 'AWS_AUTH_ERROR', 502, 1],
      ['the token has expired', awsError(403, 'ExpiredTokenException'), 'AWS_AUTH_ERROR', 502, 1],
      ['it throttles', awsError(429, 'ThrottlingException'), 'INTEGRATION_UNAVAILABLE', 503, 3],
      ['it fails', awsError(500, 'InternalServerException'), 'INTEGRATION_UNAVAILABLE', 503, 3],
      [
        'a dependency of it fails',
        awsError(424, 'DependencyFailedException'),
        'INTEGRATION_UNAVAILABLE',
        503,
        3,
      ],
      ['it hangs', () => {}, 'INTEGRATION_UNAVAILABLE', 503, 3],
      ['it breaks off', (response) => void response.destroy(), 'INTEGRATION_UNAVAILABLE', 503, 3],
      [
        'it answers no JSON',
        (response) => void response.writeHead(200).end('<html>'),
        'AWS_RETRIEVAL_ERROR',
        502,
        1,
      ],
      ['it answers without results', json(200, { nothing: true }), 'AWS_RETRIEVAL_ERROR', 502, 1],
      ['a result is none', json(200, { retrievalResults: [null] }), 'AWS_RETRIEVAL_ERROR', 502, 1],
    ];
    for (const [i, [what, script, code, status, calls]] of failing.entries()) {
      it(`tells by ${code} that ${what}`, async () => {
        // A resource of its own, whose breaker no other failure has opened.
        const mine = await routed({ ...kb, knowledge_base_id: `KB${i}` });
        bedrock.answerWith(script);
        const reply = await search(mine, 'lamp');
        assert.deepEqual(codeOf(reply), [status, code], reply.text);
        assert.doesNotMatch(reply.text, /of the tests|127\.0\.0\.1|Exception/);
        if (status === 503) assert.ok(Number(reply.headers['retry-after']) > 0);
        assert.equal(bedrock.calls.length, calls);
        const stream = await mine.call('POST', '/v1/run', {
          session_id: uuidv7(),
          corpus_id: 'c1',
          message: 'lamp',
        });
        assert.match(stream.text, new RegExp(`"type":"error".*"code":"${code}"`));
        assert.match(stream.text, /"type":"done"/);
      });
    }

    it('is left alone for a while after five failures in a row, what another tenant has there is not', async () => {
      const mine = await routed({ ...kb, knowledge_base_id: 'BROKEN' });
      const other = await routed(kb);
      bedrock.answerWith(awsError(424, 'DependencyFailedException'));
      for (let i = 0; i < 2; i++) assert.equal((await search(mine, 'lamp')).status, 503);
      const before = bedrock.calls.length;
      bedrock.answerWith(json(200, { retrievalResults: [awsResult(lamp, 0.9, 's3://b/lamp')] }));
      assert.deepEqual(codeOf(await search(mine, 'lamp')), [503, 'INTEGRATION_UNAVAILABLE']);
      assert.equal(bedrock.calls.length, before, 'nobody called');
      assert.equal((await search(other, 'lamp')).body.data.length, 1);
    });

    it('is found again by itself when a throttled call is repeated', async () => {
      const mine = await routed({ ...kb, region: 'sa-test-1' });
      let calls = 0;
      bedrock.answerWith((response, call) =>
        (calls++ < 2
          ? awsError(429, 'ThrottlingException')
          : json(200, { retrievalResults: [awsResult(lamp, 0.9, 's3://b/lamp')] }))(response, call),
      );
      assert.equal((await search(mine, 'lamp')).body.data.length, 1);
    });
  });

  const vertexResult = (derived: object, more: object = {}) => ({
    id: 'd1',
    document: { id: 'd1', name: 'projects/p1/…/d1', derivedStructData: derived, structData: { year: 1902 } },
    ...more,
  });

  describe('routed to Vertex AI Search', () => {
    it('is searched there with a token of the server’s account, and answered in our own form', async () => {
      const mine = await routed(store);
      vertex.answerWith(
        json(200, {
          results: [
            vertexResult(
              {
                title: 'Light houses',
                link: 'gs://books/light.pdf',
                extractive_segments: [{ content: lamp, pageNumber: '7', relevanceScore: 0.7 }],
                snippets: [{ snippet: 'The <b>lamp</b>', snippet_status: 'SUCCESS' }],
              },
              { rankSignals: { relevanceScore: 0.91 } },
            ),
            vertexResult({
              link: 'https://bread.example/',
              snippets: [{ snippet: 'Bread &amp; <b>flour</b>', snippet_status: 'SUCCESS' }],
            }),
            vertexResult({
              snippets: [{ snippet: 'No snippet is available.', snippet_status: 'NO_SNIPPET_AVAILABLE' }],
            }),
          ],
        }),
      );
      const reply = await search(mine, 'how often does the lamp of the lighthouse turn?', {
        top_k: 2,
        explain: true,
      });
      assert.equal(reply.status, 200, reply.text);
      const [call] = vertex.calls;
      assert.equal(call!.refused, undefined);
      assert.equal(
        call!.path,
        '/v1/projects/p1/locations/eu/collections/default_collection/dataStores/store-1/servingConfigs/default_serving_config:search',
      );
      assert.deepEqual(
        [call!.body.query, call!.body.pageSize],
        ['how often does the lamp of the lighthouse turn?', 2],
      );
      const [best, second, ...others] = reply.body.data;
      assert.deepEqual(others, []);
      assert.deepEqual(
        [best.source, best.filename, best.page_start, best.text, best.document_metadata],
        ['gs://books/light.pdf', 'Light houses', 7, lamp, { year: 1902 }],
      );
      assert.deepEqual(best.explain, { provider: 'gcp_vertex', rank: 1, relevance: 0.91 });
      assert.ok(best.score >= 0.6, `${best.score}`);
      assert.equal(second, undefined, 'a result that covers nothing of the query scores 0');
    });

    it('does with what a standard edition has', async () => {
      const mine = await routed({ ...store, resource_id: 'engines/app-1' });
      vertex.answerWith((response, call) =>
        (call.body.contentSearchSpec.extractiveContentSpec
          ? googleError(
              400,
              'INVALID_ARGUMENT',
              'Cannot use enterprise edition features in a standard edition search engine.',
            )
          : json(200, {
              results: [
                vertexResult({ link: 'gs://b/l', snippets: [{ snippet: `The <b>lamp</b> turns.` }] }),
              ],
            }))(response, call),
      );
      assert.equal((await search(mine, 'when does the lamp turn')).body.data[0].text, 'The lamp turns.');
      assert.match(vertex.calls[1]!.path, /\/engines\/app-1\/servingConfigs\//);
      vertex.answerWith(json(200, {}));
      assert.deepEqual((await search(mine, 'lamp')).body.data, [], 'nothing found is left out of the answer');
    });

    const failing: [what: string, script: EngineScript, code: string, status: number, calls: number][] = [
      [
        'the token is not accepted',
        googleError(401, 'UNAUTHENTICATED'),
        'VERTEX_RETRIEVAL_AUTH_ERROR',
        502,
        1,
      ],
      ['permission is denied', googleError(403, 'PERMISSION_DENIED'), 'VERTEX_RETRIEVAL_ERROR', 502, 1],
      ['the data store is not there', googleError(404, 'NOT_FOUND'), 'VERTEX_RETRIEVAL_ERROR', 502, 1],
      ['the request is not valid', googleError(400, 'INVALID_ARGUMENT'), 'VERTEX_RETRIEVAL_ERROR', 502, 1],
      [
        'it answers no JSON',
        (response) => void response.writeHead(200).end('<html>'),
        'VERTEX_RETRIEVAL_ERROR',
        502,
        1,
      ],
      ['it answers another form', json(200, { results: 'none' }), 'VERTEX_RETRIEVAL_ERROR', 502, 1],
      ['a result is none', json(200, { results: [null] }), 'VERTEX_RETRIEVAL_ERROR', 502, 1],
      [
        'it leads elsewhere',
        (response) => void response.writeHead(302, { location: 'http://169.254.169.254/' }).end(),
        'INTEGRATION_UNAVAILABLE',
        503,
        3,
      ],
      ['it throttles', googleError(429, 'RESOURCE_EXHAUSTED'), 'INTEGRATION_UNAVAILABLE', 503, 3],
      ['it fails', googleError(503, 'UNAVAILABLE'), 'INTEGRATION_UNAVAILABLE', 503, 3],
      ['it hangs', () => {}, 'INTEGRATION_UNAVAILABLE', 503, 3],
    ];
    for (const [i, [what, script, code, status, calls]] of failing.entries()) {
      it(`tells by ${code} that ${what}`, async () => {
        // A resource of its own, whose breaker no other failure has opened.
        const mine = await routed({ ...store, resource_id: `store-of-${i}` });
        vertex.answerWith(script);
        const reply = await search(mine, 'lamp');
        assert.deepEqual(codeOf(reply), [status, code], reply.text);
        assert.doesNotMatch(reply.text, /of the tests|127\.0\.0\.1/);
        assert.equal(vertex.calls.length, calls);
      });
    }
  });

  it('that a tenant has in the same project, and that hangs, does not take Vertex AI Search from others', async () => {
    const mine = await routed({ ...store, resource_id: 'broken' });
    const other = await routed(store);
    const found = json(200, { results: [vertexResult({ snippets: [{ snippet: lamp }] })] });
    vertex.answerWith((response, call) => {
      if (!call.path.includes('/broken/')) return found(response, call);
    });
    for (let i = 0; i < 2; i++) assert.equal((await search(mine, 'lamp')).status, 503);
    const before = vertex.calls.length;
    assert.deepEqual(codeOf(await search(mine, 'lamp')), [503, 'INTEGRATION_UNAVAILABLE']);
    assert.equal(vertex.calls.length, before, 'nobody called');
    assert.equal((await search(other, 'lamp')).body.data.length, 1);
  });

  describe('whose route is not complete', () => {
    it('is told as such: no credentials, and no region or project any more', async () => {
      environment(nowhere);
      const bare = await startServer({
        ...settings(),
        AWS_REGION: 'eu-west-1',
        GOOGLE_CLOUD_PROJECT: 'p1',
        VERTEX_LOCATION: 'eu',
      });
      let aws: Caller;
      let google: Caller;
      try {
        // What the server says need not be said by the corpus.
        aws = await routed({ provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123' }, bare);
        google = await routed({ provider: 'gcp_vertex', resource_id: 'store-1' }, bare);
        assert.deepEqual(codeOf(await search(aws, 'lamp')), [502, 'AWS_AUTH_ERROR']);
        assert.deepEqual(codeOf(await search(google, 'lamp')), [502, 'VERTEX_RETRIEVAL_AUTH_ERROR']);
        assert.deepEqual([bedrock.calls.length, vertex.calls.length], [0, 0]);
        const db = bare.app.database.tenant(aws.tenant);
        const later = { ...bare.app.config, AWS_REGION: undefined, GOOGLE_CLOUD_PROJECT: undefined };
        Object.assign(bare.app.config, later);
        assert.deepEqual(codeOf(await search(aws, 'lamp')), [409, 'AWS_CONFIG_MISSING']);
        assert.deepEqual(codeOf(await search(google, 'lamp')), [409, 'VERTEX_RETRIEVAL_CONFIG_MISSING']);
        await db.run(
          sql`update corpora set provider_config_json = ${{ retrieval: { provider: 'pinecone' } }} where tenant_id = ${aws.tenant}`,
        );
        assert.deepEqual(codeOf(await search(aws, 'lamp')), [409, 'RETRIEVAL_CONFIG_INVALID']);
      } finally {
        await bare.stop();
        environment(credentials());
      }
    });

    it('reaches only what the operator lets its tenant use, where the operator says', async () => {
      const [mine, other] = [await routed(kb), await newTenant('admin', server)];
      bedrock.answerWith(json(200, { retrievalResults: [awsResult(lamp, 0.9, 's3://b/lamp')] }));
      const { config } = server.app;
      const earlier = config.RETRIEVAL_RESOURCES;
      config.RETRIEVAL_RESOURCES = [`${mine.tenant}:KB123`, '*:store-1'];
      try {
        assert.equal((await search(mine, 'lamp')).body.data.length, 1);
        const make = (retrieval: object) =>
          other.call('POST', '/v1/corpora', { name: 'x', provider_config_json: { retrieval } });
        const refused = await make(kb);
        assert.deepEqual(codeOf(refused), [422, 'VALIDATION_ERROR']);
        assert.match(refused.body.error.details.errors[0].path, /knowledge_base_id$/);
        assert.equal((await make(store)).status, 201);
        // What was allowed once is not for ever.
        config.RETRIEVAL_RESOURCES = ['*:store-1'];
        const before = bedrock.calls.length;
        assert.deepEqual(codeOf(await search(mine, 'lamp')), [409, 'RETRIEVAL_CONFIG_INVALID']);
        assert.equal(bedrock.calls.length, before);
      } finally {
        config.RETRIEVAL_RESOURCES = earlier;
      }
    });

    it('does not keep documents from being stored, which are found when it is routed back', async () => {
      const mine = await routed(kb);
      const reply = await put(mine, { document_id: 'a', text: lamp });
      assert.deepEqual([reply.status, reply.body.data.warnings[0].code], [202, 'CORPUS_ROUTED_ELSEWHERE']);
      await done(mine, 'a');
      bedrock.answerWith(json(200, { retrievalResults: [] }));
      assert.deepEqual((await search(mine, 'lamp')).body.data, []);
      await mine.call('PATCH', '/v1/corpora/c1', { provider_config_json: {} });
      const [found] = (await search(mine, 'how often does the lamp turn', { explain: true })).body.data;
      assert.deepEqual([found.document_id, found.source], ['a', 'document://a']);
      assert.deepEqual([found.explain.provider, found.explain.mode], ['local_pgvector', 'hybrid']);
      assert.ok(found.explain.words > 0 && found.explain.matched.includes('lamp'));
    });

    it('shows of what an engine finds only what policies let the caller read', async () => {
      const mine = await routed(kb);
      const reader = await newMember(mine, 'reader', server);
      const rule = {
        and: [
          { in: [{ var: 'resource' }, ['documents']] },
          { '==': [{ var: 'target.metadata.level' }, 'secret'] },
        ],
      };
      await server.app.database.tenant(mine.tenant).run(sql`
      insert into policies (tenant_id, id, role, rule, effect, priority, is_active, created_at, updated_at)
      values (${mine.tenant}, ${uuidv7()}, 'reader', ${rule}, 'deny', 10, true, ${new Date()}, ${new Date()})`);
      server.app.shared.invalidate('policy', mine.tenant);
      bedrock.answerWith(
        json(200, {
          retrievalResults: [
            awsResult(`${lamp} In secret.`, 0.9, 's3://b/secret', { level: 'secret' }),
            awsResult(lamp, 0.8, 's3://b/open'),
          ],
        }),
      );
      const sources = async (who: Caller) =>
        (await search(who, 'how often does the lamp turn', { top_k: 2 })).body.data.map(
          ({ source }: any) => source,
        );
      assert.deepEqual(await sources(mine), ['s3://b/secret', 's3://b/open']);
      assert.deepEqual(await sources(reader), ['s3://b/open']);
      assert.equal(
        bedrock.calls.at(-1)!.body.retrievalConfiguration.vectorSearchConfiguration.numberOfResults,
        8,
      );
    });
  });
});
