import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fastJson from 'fast-json-stringify';
import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { readConfig } from '#platform/config.ts';
import { operationIdOf } from '#platform/http/route.ts';
import { buildServer } from '#platform/http/server.ts';
import {
  type Caller,
  call,
  callServer,
  environmentOf,
  newMember,
  newTenant,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { type Running, routes } from '../src/app.ts';

useTestServer();

const variants: Running[] = [];
after(() => Promise.all(variants.map(({ server }) => server!.close())));

/** The routes of the shared server once more, under other settings. */
async function variant(settings: Record<string, string>): Promise<Running> {
  const { app } = await testServer();
  const config = readConfig(environmentOf({ DATA_DIR: app.config.dataDir, ...settings }));
  const one = { app, server: await buildServer({ ...app, config }, routes) } as Running;
  variants.push(one);
  return one;
}

const note = { text: 'a note', type: 'note' };
const codeOf = ({ body }: { body: any }) => body?.error?.code;

describe('the schemas of routes', () => {
  it('compile, which a server does only when a route is called', () => {
    for (const { method, path, params, query, body, response } of routes) {
      const bodies = Object.values(response as Record<string, TSchema | null>).filter((one) => one !== null);
      for (const schema of [params, query, body])
        if (schema) assert.doesNotThrow(() => Compile(schema), `${method} ${path}`);
      for (const schema of bodies) assert.doesNotThrow(() => fastJson(schema), `${method} ${path}`);
    }
  });
});

describe('the published contract', () => {
  let operations: Map<string, { security?: object[]; parameters?: { name: string; description: string }[] }>;
  before(async () => {
    const { body } = await call('GET', '/v1/openapi.json');
    const all = Object.values(body.paths as Record<string, Record<string, any>>).flatMap(Object.values);
    operations = new Map(all.map((operation) => [operation.operationId, operation]));
  });
  const operationOf = (name: string) => {
    const [method, path] = name.split(' ');
    const route = routes.find((one) => one.method === method && one.path === path)!;
    return operations.get(operationIdOf(route))!;
  };

  it('says which routes take a credential and need none', () => {
    const any = [{}, { bearer: [] }, { apiKey: [] }];
    const wanted: [route: string, security: object[] | undefined][] = [
      ['POST /v1/identity/', any],
      ['POST /v1/auth/register', any],
      ['POST /v1/auth/logout', any],
      ['POST /v1/sessions/test', any],
      ['POST /v1/api-keys/test', any],
      ['POST /v1/oauth/token', [{}, { bearer: [] }]],
      ['POST /v1/auth/login', []],
      ['GET /v1/health', []],
      ['GET /v1/memory/', undefined],
    ];
    for (const [route, security] of wanted) assert.deepEqual(operationOf(route).security, security, route);
  });

  it('names the Idempotency-Key where one works, and nowhere else', () => {
    const wanted: [route: string, takes: boolean][] = [
      ['POST /v1/identity/', true],
      ['POST /v1/auth/register', true],
      ['POST /v1/auth/change-password', true],
      ['POST /v1/memory/', true],
      ['POST /v1/memory/import', true],
      ['POST /v1/documents', true],
      ['POST /v1/run', true],
      ['POST /v1/memory/search', false],
      ['POST /v1/auth/login', false],
      ['POST /v1/auth/logout', false],
      ['POST /v1/oauth/token', false],
      ['GET /v1/memory/', false],
    ];
    for (const [route, takes] of wanted) {
      const named = operationOf(route).parameters?.some(({ name }) => name === 'Idempotency-Key') ?? false;
      assert.equal(named, takes, route);
    }
  });
});

describe('an Idempotency-Key without a credential', () => {
  it('is refused, since nothing would be kept under it', async () => {
    const key = { 'idempotency-key': 'sign-up' };
    const person = { external_id: 'keyed', role: 'admin' };
    const account = { username: 'keyed-stranger', password: 'a long enough phrase of words' };
    for (const [path, body] of [
      ['/v1/identity/', person],
      ['/v1/auth/register', account],
    ] as const) {
      const refused = await call('POST', path, { body, headers: key });
      assert.deepEqual([refused.status, codeOf(refused)], [400, 'IDEMPOTENCY_KEY_NEEDS_CREDENTIAL'], path);
      assert.equal((await call('POST', path, { body })).status, 200, path);
    }
  });

  it('works with one: a repeat makes nobody twice', async () => {
    const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
    const key = { 'idempotency-key': 'once' };
    const body = { external_id: 'once', role: 'user' };
    const first = await ann.call('POST', '/v1/identity/', body, key);
    const again = await ann.call('POST', '/v1/identity/', body, key);
    assert.deepEqual([first.status, again.status, again.body], [200, 200, first.body]);
    assert.equal(again.headers['idempotency-replayed'], 'true');
    const other = await bob.call('POST', '/v1/identity/', body, key);
    assert.notEqual(other.body.identity.id, first.body.identity.id);
  });
});

describe('pages of browsers', () => {
  const named = 'https://app.example';
  let server: Running;
  let ann: Caller;
  before(async () => {
    server = await variant({
      CORS_ORIGINS: named,
      PUBLIC_URL: 'http://localhost:8000',
      RATE_LIMIT_ENABLED: 'true',
    });
    ann = await newTenant('admin', server);
  });
  const preflight = (path: string, origin: string) =>
    callServer(server, 'OPTIONS', path, {
      headers: { origin, 'access-control-request-method': 'POST' },
    });
  const names = (value: unknown) => String(value).split(', ');

  it('are let in by their origin', async () => {
    const local = 'http://127.0.0.1:6274';
    const wanted: [path: string, origin: string, allowed: boolean][] = [
      ['/v1/memory/', named, true],
      ['/v1/memory/', local, false],
      ['/v1/memory/', 'https://evil.example', false],
      ['/mcp', named, true],
      ['/mcp', local, true],
      ['/mcp/', local, true],
      ['/mcp', 'http://localhost:8000', true],
      ['/mcp', 'https://evil.example', false],
      ['/mcp', 'http://localhost.evil.example', false],
      ['/mcp', 'null', false],
      ['/.well-known/oauth-protected-resource/mcp', local, true],
    ];
    for (const [path, origin, allowed] of wanted) {
      const { status, headers } = await preflight(path, origin);
      assert.equal(status, 204);
      assert.equal(
        headers['access-control-allow-origin'],
        allowed ? origin : undefined,
        `${path} from ${origin}`,
      );
    }
  });

  it('may send what routes read, and read what routes say', async () => {
    const { headers } = await preflight('/v1/memory/', named);
    const sent = names(headers['access-control-allow-headers']);
    for (const name of [
      'authorization',
      'idempotency-key',
      'if-match',
      'mcp-protocol-version',
      'mcp-session-id',
    ])
      assert.ok(sent.includes(name), name);
    await ann.call('POST', '/v1/corpora', { id: 'one', name: 'one' });
    await ann.call('POST', '/v1/corpora', { id: 'two', name: 'two' });
    const answer = await callServer(server, 'GET', '/corpora?limit=1', {
      token: ann.token,
      headers: { origin: named },
    });
    assert.equal(answer.status, 200);
    const readable = names(answer.headers['access-control-expose-headers']);
    // Those of the connection and of the browser are nobody's to read.
    const hidden =
      /^(access-control-.*|vary|cache-control|content-(type|length|security-policy)|x-content-type-options|referrer-policy|date|connection)$/;
    for (const name of Object.keys(answer.headers))
      assert.ok(hidden.test(name) || readable.includes(name), name);
    for (const name of ['retry-after', 'etag', 'x-request-id', 'x-next-cursor', 'ratelimit', 'sunset'])
      assert.ok(readable.includes(name), name);
  });

  it('of the machine itself get answers of /mcp they can read', async () => {
    const answer = await callServer(server, 'POST', '/mcp', {
      token: ann.token,
      headers: { origin: 'http://localhost:6274', accept: 'application/json, text/event-stream' },
      body: { jsonrpc: '2.0', id: 1, method: 'tools/list' },
    });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['access-control-allow-origin'], 'http://localhost:6274');
  });
});

describe('an unversioned alias', () => {
  it('tells its successor and the next page in one Link', async () => {
    const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
    for (const id of ['one', 'two']) await ann.call('POST', '/v1/corpora', { id, name: id });
    const first = await ann.call('GET', '/corpora?limit=1');
    const link = String(first.headers.link);
    const [successor, next] = link.split(', ');
    assert.equal(successor, '</v1/corpora>; rel="successor-version"');
    const [, path] = /^<([^>]+)>; rel="next"$/.exec(next!)!;
    assert.equal(first.headers.deprecation, 'true');
    const second = await ann.call('GET', path!);
    assert.deepEqual([first.body.length, second.body.length], [1, 1]);
    assert.notEqual(second.body[0].id, first.body[0].id);
    assert.equal(second.headers.link, successor);
    assert.deepEqual((await bob.call('GET', '/corpora?limit=1')).body, []);
  });

  it('answers 410 after its day, and /v1 goes on', async () => {
    const server = await variant({ LEGACY_ROUTES_SUNSET: '2020-01-01' });
    const ann = await newTenant('admin', server);
    for (const method of ['GET', 'POST']) {
      const gone = await ann.call(method, '/corpora');
      assert.deepEqual([gone.status, codeOf(gone)], [410, 'ROUTE_SUNSET']);
      assert.equal(gone.headers.sunset, 'Wed, 01 Jan 2020 00:00:00 GMT');
      assert.equal(gone.headers.link, '</v1/corpora>; rel="successor-version"');
    }
    assert.equal((await ann.call('GET', '/v1/corpora')).status, 200);
  });

  it('is not there when LEGACY_ROUTES_ENABLED is false', async () => {
    const server = await variant({ LEGACY_ROUTES_ENABLED: 'false' });
    const ann = await newTenant('admin', server);
    const missing = await ann.call('GET', '/corpora');
    assert.deepEqual([missing.status, codeOf(missing)], [404, 'NOT_FOUND']);
    assert.equal((await ann.call('GET', '/v1/corpora')).status, 200);
  });
});

describe('AUTH_DEV_BYPASS', () => {
  it('stands in for a credential in tenants that are there', async () => {
    const server = await variant({ AUTH_DEV_BYPASS: 'true' });
    const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
    await ann.call('POST', '/v1/corpora', { id: 'hers', name: 'hers' });
    const list = (tenant: string | undefined) =>
      callServer(server, 'GET', '/v1/corpora', {
        headers: tenant === undefined ? {} : { 'x-tenant-id': tenant },
      });
    const seen = async (tenant: string) => (await list(tenant)).body.data.map(({ id }: any) => id);
    assert.deepEqual(await seen(ann.tenant), ['hers']);
    assert.deepEqual(await seen(bob.tenant), []);
    for (const tenant of ['no-such-tenant', 'system', 'Not A Tenant', undefined])
      assert.equal((await list(tenant)).status, 401, tenant);
  });
});

describe('MAX_IN_FLIGHT', () => {
  it('answers 503 beyond it, and whoever was let in is served', async () => {
    const server = await variant({ MAX_IN_FLIGHT: '2' });
    const ann = await newTenant('admin', server);
    const bob = await newTenant('admin', server);
    const replies = await Promise.all(
      Array.from({ length: 20 }, () => ann.call('POST', '/v1/memory/', note)),
    );
    const made = replies.filter(({ status }) => status === 201);
    const busy = replies.filter(({ status }) => status === 503);
    assert.equal(made.length + busy.length, 20);
    assert.ok(made.length >= 2 && busy.length > 0, `${made.length} made, ${busy.length} refused`);
    for (const reply of busy)
      assert.deepEqual([codeOf(reply), reply.headers['retry-after']], ['SERVICE_BUSY', '1']);
    assert.equal((await ann.call('GET', '/v1/memory/')).body.length, made.length);
    assert.equal((await bob.call('POST', '/v1/memory/', note)).status, 201);
  });
});

describe('what an operator switches off', () => {
  const run = (more: object) => ({ session_id: 'switched', corpus_id: 'here', message: 'Hello?', ...more });
  const text = { corpus_id: 'here', document_id: 'd1', text: 'The lamp turns.', filename: 'd1.txt' };
  const routed = { provider: 'aws_bedrock_kb', knowledge_base_id: 'KB123', region: 'eu-west-1' };
  const calls: Record<string, [method: string, path: string, body: unknown]> = {
    run: ['POST', '/v1/run', run({})],
    'incomplete run': ['POST', '/v1/run', { session_id: 'switched', message: 'Hello?' }],
    spoken: ['POST', '/v1/run', run({ audio: true })],
    text: ['POST', '/v1/documents/text', text],
    reindex: ['POST', '/v1/documents/d0/reindex', {}],
    'search here': ['POST', '/v1/corpora/here/search', { query: 'lamp' }],
    'search outside': ['POST', '/v1/corpora/outside/search', { query: 'lamp' }],
    memory: ['POST', '/v1/memory/', note],
  };
  const switches: [name: string, off: string[]][] = [
    ['run', ['run', 'spoken']],
    ['ingest', ['text', 'reindex']],
    ['tts', ['spoken']],
    ['external_retrieval', ['search outside']],
    ['ingest, external_retrieval', ['text', 'reindex', 'search outside']],
  ];
  /** Calls that would begin work of their own are only made where they must be refused. */
  const harmless = ['search here', 'memory'];

  for (const [name, off] of switches) {
    it(`answers 503: ${name}`, async () => {
      const server = await variant({ KILL_SWITCHES: name });
      const ann = await newTenant('admin', server);
      const shared = { token: ann.token };
      await ann.call('POST', '/v1/corpora', { id: 'here', name: 'here' });
      const outside = { id: 'outside', name: 'outside', provider_config_json: { retrieval: routed } };
      assert.equal((await ann.call('POST', '/v1/corpora', outside)).status, 201);
      const first = { ...text, document_id: 'd0' };
      assert.equal((await call('POST', '/v1/documents/text', { ...shared, body: first })).status, 202);
      for (const one of off) {
        const [method, path, body] = calls[one]!;
        const refused = await ann.call(method, path, body);
        assert.deepEqual([refused.status, codeOf(refused)], [503, 'FEATURE_TEMPORARILY_DISABLED'], one);
        assert.equal(refused.headers['retry-after'], '60', one);
      }
      for (const one of harmless) {
        const [method, path, body] = calls[one]!;
        assert.ok((await ann.call(method, path, body)).status < 300, one);
      }
      const [method, path, body] = calls['incomplete run']!;
      assert.equal((await ann.call(method, path, body)).status, name === 'run' ? 503 : 422);
      // Whoever may not do it is told that, whatever is switched off.
      const reader = await newMember(ann, 'reader', server);
      if (off.includes('text'))
        assert.equal((await reader.call('POST', '/v1/documents/text', text)).status, 403);
    });
  }

  it('must be a name that is known', () => {
    assert.throws(() => readConfig(environmentOf({ KILL_SWITCHES: 'run,everything' })), /KILL_SWITCHES must/);
  });
});
