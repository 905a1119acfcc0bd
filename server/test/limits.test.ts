import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { revokeApiKey } from '#modules/access/api-keys/service.ts';
import { systemCtx } from '#platform/context.ts';
import type { Route } from '#platform/http/route.ts';
import { buildServer } from '#platform/http/server.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  type CallOptions,
  call,
  callServer,
  newKey,
  newMember,
  newTenant,
  type Reply,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { type Running, routes } from '../src/app.ts';

useTestServer();

/** Routes that take no credential, one by one; whoever adds one says so here. */
const publicRoutes = [
  'GET /',
  'GET /.well-known/authzen-configuration',
  'GET /.well-known/jwks.json',
  'GET /.well-known/oauth-protected-resource',
  'GET /.well-known/oauth-protected-resource/mcp',
  'GET /healthz',
  'GET /metrics',
  'GET /v1/health',
  'GET /v1/invitations/validate/:token',
  'GET /v1/sso/callback/:provider',
  'GET /v1/sso/login/:provider',
  'POST /v1/api-keys/test',
  'POST /v1/auth/login',
  'POST /v1/auth/logout',
  'POST /v1/auth/mfa/challenge',
  'POST /v1/auth/register',
  'POST /v1/auth/reset-password',
  'POST /v1/auth/reset-password/confirm',
  'POST /v1/identity/',
  'POST /v1/invitations/accept/:token',
  'POST /v1/oauth/token',
  'POST /v1/sessions/refresh',
  'POST /v1/sessions/test',
  'POST /v1/sso/exchange',
];

/** Where a credential is enough, since other routes do all that is asked. */
const forwardingRoutes = [
  'DELETE /v1/memories/',
  'DELETE /v1/memories/:memory_id/',
  'GET /memories',
  'GET /v1/event/:event_id/',
  'GET /v1/memories/',
  'GET /v1/memories/:memory_id/',
  'GET /v1/memories/:memory_id/history/',
  'GET /v1/ping/',
  'POST /mcp',
  'POST /v2/memories/',
  'POST /v2/memories/search/',
  'POST /v3/memories/',
  'POST /v3/memories/add/',
  'POST /v3/memories/search/',
  'PUT /v1/memories/:memory_id/',
];

describe('who may call', () => {
  const bare = (reply: Reply) => ({
    status: reply.status,
    error: reply.body?.error,
    challenge: reply.headers['www-authenticate'],
  });
  const read = (options: CallOptions) => call('GET', '/v1/memory/', options);

  it('is declared by every route: a permission, or public or a door, and on the list', async () => {
    const open = routes.filter((route) => route.public).map(({ method, path }) => `${method} ${path}`);
    assert.deepEqual(open.sort(), publicRoutes);
    const doors = routes.filter((route) => route.forwards).map(({ method, path }) => `${method} ${path}`);
    assert.deepEqual(doors.sort(), forwardingRoutes);
    for (const route of routes) assert.ok(route.public || route.permission || route.forwards, route.path);
    for (const route of routes.filter((one) => !one.public)) {
      const path = route.path.replace(/:[a-z_]+/g, uuidv7());
      const paths = [path, ...(route.also ?? []).map((one) => one.replace(/:[a-z_]+/g, uuidv7()))];
      if (route.legacy) paths.push(path.replace(/^\/v1/, ''));
      for (const one of paths)
        assert.equal((await call(route.method, one)).status, 401, `${route.method} ${one}`);
    }
  });

  it('must be said: a route that is silent about it does not start', async () => {
    const { app } = await testServer();
    const silent = {
      ...routes[0]!,
      path: '/v1/silent',
      public: undefined,
      permission: undefined,
    } as unknown as Route;
    await assert.rejects(
      buildServer(app, [silent]),
      /POST \/v1\/silent declares neither a permission nor that it is public/,
    );
    const empty = { ...silent, permission: '' } as unknown as Route;
    await assert.rejects(buildServer(app, [empty]), /declares neither/);
    const truthy = { ...silent, public: 'yes' } as unknown as Route;
    await assert.rejects(buildServer(app, [truthy]), /declares neither/);
  });

  it('is answered with the same words whatever was wrong with the credential', async () => {
    const ann = await newTenant('admin');
    const key = await newKey(ann);
    const expired = await newKey(ann, { expires_in_days: -1 });
    const [head, , signature] = ann.token.split('.') as [string, string, string];
    const claims = (more: object) =>
      Buffer.from(
        JSON.stringify({
          ...JSON.parse(Buffer.from(ann.token.split('.')[1]!, 'base64url').toString()),
          ...more,
        }),
      ).toString('base64url');
    const none = Buffer.from('{"alg":"none","typ":"at+jwt"}').toString('base64url');
    const hmac = Buffer.from('{"alg":"HS256","typ":"at+jwt"}').toString('base64url');
    const unknownKid = Buffer.from('{"alg":"EdDSA","typ":"at+jwt","kid":"nobody"}').toString('base64url');
    const credentials: Record<string, string> = {
      'no form at all': 'nonsense',
      'a token of nobody': 'a.b.c',
      'a changed token': `${head}.${claims({ tid: 't1' })}.${signature}`,
      'a token without signature': `${none}.${claims({})}.`,
      'another algorithm': `${hmac}.${claims({})}.${signature}`,
      'an unknown key of signing': `${unknownKid}.${claims({})}.${signature}`,
      'a token cut short': ann.token.slice(0, -10),
      'a key mistyped': `${key.token.slice(0, -1)}${key.token.endsWith('0') ? '1' : '0'}`,
      'a key with another secret': key.token.replace(/_[^_]+$/, `_${'A'.repeat(43)}00000000`),
      'a key of another tenant': key.token.replace(ann.tenant, 't1'),
      'a key that expired': expired.token,
      'a refresh token': 'rt_t1_00000000000000000000000000000000_x',
    };
    const missing = bare(await read({}));
    assert.equal(missing.status, 401);
    assert.equal(missing.challenge, 'Bearer');
    for (const [what, token] of Object.entries(credentials)) {
      assert.deepEqual(bare(await read({ token })), missing, what);
      assert.deepEqual(bare(await read({ headers: { 'x-api-key': token } })), missing, what);
    }
    assert.deepEqual(bare(await read({ headers: { authorization: 'Basic YTpi' } })), missing);
    assert.equal((await read({ token: key.token })).status, 200);
    assert.equal((await read({ headers: { 'x-api-key': key.token } })).status, 200);
  });

  it('a mistyped key is told by its checksum, without a question to the database', async () => {
    const { app } = await testServer();
    const key = await newKey(await newTenant('admin'));
    const typo = `${key.token.slice(0, -12)}${key.token.at(-12) === 'A' ? 'B' : 'A'}${key.token.slice(-11)}`;
    const { tenant } = app.database;
    let asked = 0;
    app.database.tenant = (id) => {
      if (id === key.tenant) asked += 1;
      return tenant(id);
    };
    try {
      assert.equal((await read({ token: typo })).status, 401);
      assert.equal(asked, 0);
    } finally {
      app.database.tenant = tenant;
    }
  });

  it('a revoked key is refused at once', async () => {
    const { app } = await testServer();
    const key = await newKey(await newTenant('admin'));
    assert.equal((await key.call('GET', '/v1/memory/')).status, 200);
    assert.equal(await revokeApiKey(systemCtx(app, key.tenant, uuidv7()), key.keyId), true);
    assert.equal((await key.call('GET', '/v1/memory/')).status, 401);
    assert.equal(await revokeApiKey(systemCtx(app, key.tenant, uuidv7()), key.keyId), false);
  });

  it('scopes narrow a key, and never widen its identity', async () => {
    const ann = await newTenant('admin');
    const reader = await newMember(ann, 'reader');
    const note = { text: 'a note', type: 'note' };
    const can = async (caller: Caller, method: string, path: string, body?: unknown) =>
      (await caller.call(method, path, body)).status !== 403;
    const wanted: [
      scopes: string[] | undefined,
      owner: Caller,
      may: { list: boolean; create: boolean; identities: boolean },
    ][] = [
      [undefined, ann, { list: true, create: true, identities: true }],
      [['admin'], ann, { list: true, create: true, identities: true }],
      [['read'], ann, { list: true, create: false, identities: true }],
      [['memory:create'], ann, { list: false, create: true, identities: false }],
      [['memory:*'], ann, { list: true, create: true, identities: false }],
      [['*:list'], ann, { list: true, create: false, identities: true }],
      [['nothing:known'], ann, { list: false, create: false, identities: false }],
      [['admin'], reader, { list: true, create: false, identities: true }],
    ];
    for (const [scopes, owner, may] of wanted) {
      const key = await newKey(owner, scopes ? { scopes } : {});
      const seen = {
        list: await can(key, 'GET', '/v1/memory/'),
        create: await can(key, 'POST', '/v1/memory/', note),
        identities: await can(key, 'GET', '/v1/identity/'),
      };
      assert.deepEqual(seen, may, String(scopes));
    }
    const refused = await (await newKey(ann, { scopes: ['read'] })).call('POST', '/v1/memory/', note);
    assert.equal(refused.body.error.code, 'AUTH_FORBIDDEN');
  });

  it('in development with AUTH_DEV_BYPASS is who the headers say, of a role there is', async () => {
    const { app } = await testServer();
    const open = await buildServer({ ...app, config: { ...app.config, AUTH_DEV_BYPASS: true } }, routes);
    try {
      const [one, other] = [await newTenant('admin'), await newTenant('admin')];
      await one.call('POST', '/v1/memory/', { text: 'a note', type: 'note' });
      const list = (headers: Record<string, string>) =>
        open.inject({ method: 'GET', url: '/v1/memory/', headers });
      const seen = async (tenant: string) =>
        (await list({ 'x-tenant-id': tenant, 'x-role': 'admin' })).json().length;
      assert.deepEqual([await seen(one.tenant), await seen(other.tenant)], [1, 0]);
      for (const role of ['system', 'Admin', '']) {
        const refused = await list({ 'x-tenant-id': one.tenant, 'x-role': role });
        assert.equal(refused.statusCode, 400, role);
        assert.equal(refused.json().error.code, 'AUTH_INVALID_ROLE');
      }
      assert.equal((await list({ 'x-role': 'admin' })).statusCode, 401);
    } finally {
      await open.close();
    }
  });
});

describe('how often', () => {
  const limited = {
    RATE_LIMIT_ENABLED: 'true',
    DEFAULT_PLAN: 'free',
    SIGN_UPS_PER_HOUR: '1000',
    // One address for all servers of the test, so that a token of one is a token of the other.
  };
  let server: Running;
  before(async () => {
    server = await startServer(limited, { serve: true, work: true });
  });
  after(() => server.stop());

  const number = (reply: Reply, name: string): number => {
    const value = reply.headers[name];
    assert.match(String(value), /^\d+$/, `${name}: ${value}`);
    return Number(value);
  };

  it('every limited answer says the limit, what is left, and when it is whole again', async () => {
    const ann = await newTenant('admin', server);
    const first = await ann.call('GET', '/v1/memory/');
    const second = await ann.call('GET', '/v1/memory/');
    assert.equal(number(first, 'x-ratelimit-limit'), 20);
    assert.equal(number(first, 'x-ratelimit-remaining'), 19);
    assert.ok(number(second, 'x-ratelimit-remaining') <= 19 && number(second, 'x-ratelimit-remaining') >= 18);
    const reset = number(first, 'x-ratelimit-reset') - Date.now() / 1000;
    assert.ok(reset > -2 && reset < 10, String(reset));
    assert.match(String(first.headers['ratelimit-policy']), /^"read";q=20;w=\d+$/);
    assert.match(String(first.headers.ratelimit), /^"read";r=19;t=\d+$/);
    assert.equal(first.headers['retry-after'], undefined);
    // Refusals of other kinds are answers too.
    const missing = await ann.call('GET', `/v1/memory/${uuidv7()}`);
    assert.equal(missing.status, 404);
    number(missing, 'x-ratelimit-remaining');
    const open = await callServer(server, 'GET', '/healthz');
    assert.equal(open.headers['x-ratelimit-limit'], undefined);
  });

  it('counts what comes through a door as the route that does it', async () => {
    const [ann, bob] = [await newTenant('admin', server), await newTenant('admin', server)];
    const forget = async (who: Caller) => {
      const params = { name: 'forget', arguments: { memory_id: 'none' } };
      const { body } = await who.call(
        'POST',
        '/mcp',
        { jsonrpc: '2.0', id: 1, method: 'tools/call', params },
        { accept: 'application/json, text/event-stream' },
      );
      return JSON.parse(body.result.content[0].text).error;
    };
    let told = await forget(ann);
    for (let i = 0; i < 20 && told.code !== 'RATE_LIMITED'; i++) told = await forget(ann);
    assert.equal(told.code, 'RATE_LIMITED');
    assert.equal(told.details.route_class, 'mutation');
    assert.equal((await forget(bob)).code, 'NOT_FOUND');
  });

  it('a credential that asks too often gets 429 with all that it needs to wait', async () => {
    const ann = await newTenant('admin', server);
    const replies = await Promise.all(Array.from({ length: 30 }, () => ann.call('GET', '/v1/memory/')));
    const refused = replies.filter(({ status }) => status === 429);
    assert.ok(refused.length >= 8 && refused.length <= 10, `${refused.length} of 30 refused`);
    const [reply] = refused as [Reply];
    assert.equal(reply.body.error.code, 'RATE_LIMITED');
    assert.match(reply.body.meta.request_id, /./);
    assert.deepEqual(
      { scope: reply.body.error.details.scope, route_class: reply.body.error.details.route_class },
      { scope: 'api_key', route_class: 'read' },
    );
    assert.equal(reply.headers['x-ratelimit-scope'], 'api_key');
    assert.equal(reply.headers['x-ratelimit-route-class'], 'read');
    const waitMs = number(reply, 'x-ratelimit-retry-after-ms');
    assert.equal(reply.body.error.details.retry_after_ms, waitMs);
    assert.ok(waitMs > 0 && waitMs <= 1_000);
    assert.equal(number(reply, 'retry-after'), Math.max(1, Math.ceil(waitMs / 1000)));
    assert.equal(number(reply, 'x-ratelimit-remaining'), 0);
    // A refusal charges nothing: after the time it names the next request passes.
    await new Promise((resolve) => setTimeout(resolve, waitMs + 50));
    assert.equal((await ann.call('GET', '/v1/memory/')).status, 200);
  });

  it('classes have buckets of their own', async () => {
    const ann = await newTenant('admin', server);
    // More than are given back meanwhile.
    const reads = await Promise.all(Array.from({ length: 100 }, () => ann.call('GET', '/v1/memory/')));
    assert.ok(reads.some(({ status }) => status === 429));
    const write = await ann.call('POST', '/v1/memory/', { text: 'a note', type: 'note' });
    assert.equal(write.status, 201);
    assert.equal(number(write, 'x-ratelimit-limit'), 10);
  });

  it('a run costs three of the run bucket', async () => {
    const run = routes.find(({ path }) => path === '/v1/run');
    if (!run) return;
    const ann = await newTenant('admin', server);
    const ask = () =>
      ann.call('POST', '/v1/run', { session_id: uuidv7(), corpus_id: 'none', message: 'Hello?' });
    const first = await ask();
    assert.equal(number(first, 'x-ratelimit-limit'), 5);
    assert.equal(number(first, 'x-ratelimit-remaining'), 2);
    const second = await ask();
    assert.equal(second.status, 429);
    assert.equal(second.headers['x-ratelimit-route-class'], 'run');
    assert.ok(number(second, 'x-ratelimit-retry-after-ms') <= 1_000);
  });

  it('going on with a run costs one of it', async () => {
    const ann = await newTenant('admin', server);
    const body = { session_id: uuidv7(), corpus_id: 'none', message: 'Hello?' };
    const reply = await ann.call('POST', '/v1/run', body, { 'last-event-id': `${uuidv7()}:1` });
    assert.equal(reply.status, 200);
    assert.equal(number(reply, 'x-ratelimit-remaining'), 4);
  });

  it('the credentials of a tenant share its bucket, and tenants share none', async () => {
    const ann = await newTenant('admin', server);
    const keys = await Promise.all(Array.from({ length: 5 }, () => newKey(ann, { server })));
    const replies = await Promise.all(
      keys.flatMap((key) => Array.from({ length: 18 }, () => key.call('GET', '/v1/memory/'))),
    );
    const refused = replies.filter(({ status }) => status === 429);
    assert.ok(refused.length >= 20, `${refused.length} of 90 refused`);
    assert.ok(refused.every(({ headers }) => headers['x-ratelimit-scope'] === 'tenant'));
    assert.equal((await (await newTenant('admin', server)).call('GET', '/v1/memory/')).status, 200);
  });

  for (const [operation, perHour, url, body] of [
    ['memory:create', 1_000, '/v1/memory/', { text: 'a note', type: 'note' }],
    ['memory:search', 2_000, '/v1/memory/search', { query: 'a note' }],
    ['identity:create', 100, '/v1/identity/', { external_id: 'another', role: 'user' }],
    ['policy:test', 500, '/v1/policy/test', { role: 'user', action: 'read', resource: 'memory' }],
    ['invitation:create', 50, '/v1/invitations/', { email: 'guest@example.com', role: 'user' }],
  ] as const)
    it(`the hourly ceiling of ${operation} holds beside them, for one tenant`, async () => {
      const [ann, other] = [await newTenant('admin', server), await newTenant('admin', server)];
      const key = `${ann.tenant}:o:${operation}`;
      const bucket = { key, rate: perHour / 3600, burst: perHour, cost: perHour };
      assert.ok((await server.app.shared.take([bucket])).allowed);
      const reply = await ann.call('POST', url, body);
      assert.equal(reply.status, 429);
      assert.equal(reply.headers['x-ratelimit-scope'], 'operation');
      assert.equal(number(reply, 'x-ratelimit-limit'), perHour);
      assert.equal((await ann.call('GET', '/v1/memory/')).status, 200);
      const theirs = await other.call('POST', url, body);
      assert.ok(theirs.status < 300, theirs.text);
    });

  it('a stranger who signs up again and again is stopped', async () => {
    const { app } = server;
    const address = '127.0.0.1';
    const perHour = app.config.SIGN_UPS_PER_HOUR;
    const bucket = { key: `@:signup:${address}`, rate: perHour / 3600, burst: perHour };
    const { remaining } = await app.shared.take([{ ...bucket, cost: 0 }]);
    await app.shared.take([{ ...bucket, cost: Math.floor(remaining[0]!) }]);
    const reply = await callServer(server, 'POST', '/v1/identity/', {
      body: { external_id: 'again', role: 'user' },
    });
    assert.equal(reply.status, 429);
    assert.equal(reply.body.error.code, 'RATE_LIMITED');
    assert.ok(number(reply, 'retry-after') >= 1);
    assert.equal(number(reply, 'x-ratelimit-limit'), perHour);
    assert.equal(number(reply, 'x-ratelimit-remaining'), 0);
    assert.ok(number(reply, 'x-ratelimit-reset') > Date.now() / 1000);
    assert.equal(reply.headers['ratelimit-policy'], `"signup";q=${perHour};w=3600`);
    assert.match(String(reply.headers.ratelimit), /^"signup";r=0;t=\d+$/);
    // Gives back what the other tests of this server need.
    await app.shared.take([{ ...bucket, cost: -perHour / 2 }]);
  });

  it('plans multiply: pro ten times, enterprise a hundred times', async () => {
    for (const [plan, limit] of [
      ['pro', 200],
      ['enterprise', 2_000],
    ] as const) {
      const ann = await newTenant('admin', server);
      const { database, shared } = server.app;
      await database.operatorPool.query('update tenants set plan = $2 where tenant_id = $1', [
        ann.tenant,
        plan,
      ]);
      shared.invalidate('tenant', ann.tenant);
      assert.equal(number(await ann.call('GET', '/v1/memory/'), 'x-ratelimit-limit'), limit);
    }
  });

  const withRedis: typeof it = process.env.REDIS_URL ? it : ((() => {}) as unknown as typeof it);
  withRedis('two servers share the buckets where there is Redis', async () => {
    const other = await startServer(limited, { serve: true, work: false });
    try {
      const ann = await newTenant('admin', server);
      const key = await newKey(ann, { server });
      const replies = await Promise.all(
        Array.from({ length: 40 }, (_, i) =>
          callServer(i % 2 ? other : server, 'GET', '/v1/memory/', { token: key.token }),
        ),
      );
      const passed = replies.filter(({ status }) => status === 200).length;
      assert.ok(passed >= 20 && passed <= 23, `${passed} of 40 passed with a burst of 20`);
      // And what one server learns to be no longer true, the other knows at once.
      assert.equal(
        (await callServer(other, 'GET', '/v1/memory/nothing', { token: key.token })).status === 401,
        false,
      );
      await revokeApiKey(systemCtx(server.app, key.tenant, uuidv7()), key.keyId);
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal((await callServer(other, 'GET', '/v1/memory/', { token: key.token })).status, 401);
    } finally {
      await other.stop();
    }
  });
});
