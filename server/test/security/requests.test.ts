import assert from 'node:assert/strict';
import type { FastifyInstance } from 'fastify';
import type { App } from '#platform/context.ts';
import { buildServer } from '#platform/http/server.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  newKey,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { goodPassword, newPerson, signIn } from '#test/people.ts';
import { routes } from '../../src/app.ts';
import { prove } from './statement.ts';

useTestServer();

const closed = routes.filter((route) => !route.public);
const pathOf = (path: string) => path.replace(/:[a-z_]+/g, uuidv7());

/** Whom the server takes a request for: the id of an identity, or the status of its refusal. */
async function takenFor(headers: Record<string, string | string[]>, path = '/v1/identity/me') {
  const { server } = await testServer();
  const reply = await server!.inject({ method: 'GET', url: path, headers });
  return reply.statusCode === 200 ? reply.json().id : reply.statusCode;
}

/** A server of the same database with other settings, which listens nowhere. */
async function withSettings<T>(
  config: Partial<App['config']>,
  work: (server: FastifyInstance) => Promise<T>,
): Promise<T> {
  const { app } = await testServer();
  const one = routes.filter(({ path }) => path === '/v1/identity/me');
  const server = await buildServer({ ...app, config: { ...app.config, ...config } }, one);
  try {
    return await work(server);
  } finally {
    await server.close();
  }
}

/** What a header-trusting proxy would set, or an attacker in its place. */
const claimed = (who: Caller): Record<string, string> => ({
  'x-tenant-id': who.tenant,
  'x-role': 'admin',
  'x-user': who.id,
  'x-user-id': who.id,
  'x-identity-id': who.id,
  'x-forwarded-user': who.id,
  'x-forwarded-email': 'admin@example.com',
  'x-remote-user': who.id,
  'remote-user': who.id,
  'x-auth-request-user': who.id,
  'x-authenticated-userid': who.id,
  'x-amzn-oidc-identity': who.id,
  'x-original-url': '/healthz',
  'x-rewrite-url': '/healthz',
  'x-http-method-override': 'DELETE',
  forwarded: `for=10.0.0.1;by=${who.id}`,
});

/** What only the server says, in whatever field of a body it might be taken from. */
const made: Record<string, unknown> = {
  id: uuidv7(),
  identity_id: uuidv7(),
  role: 'admin',
  owner_id: uuidv7(),
  is_active: true,
  is_admin: true,
  created_at: '2020-01-01T00:00:00.000Z',
  updated_at: '2020-01-01T00:00:00.000Z',
  expires_at: '2099-01-01T00:00:00.000Z',
  revoked_at: null,
  invited_by: uuidv7(),
  scopes: ['admin'],
  claims: { department: 'board' },
  status: 'accepted',
  password_hash: 'x',
  secret_hash: 'x',
  token_hash: 'x',
  email_verified: true,
  mfa_enabled: false,
  permissions: ['*'],
};

const fieldsOf = (schema: unknown): string[] =>
  Object.keys((schema as { properties?: object })?.properties ?? {});
const access = ['identity', 'auth', 'sessions', 'api-keys', 'invitations', 'delegations', 'sso'];

prove('what a request says of itself', [
  {
    id: 'REQ-01',
    source: 'ASVS 4.1.3, RFC 9700 4.13',
    says: 'headers that name a tenant, a person or a role are no credential, on any route',
    guard: 'platform/http/register.ts: authenticate',
    test: async () => {
      const admin = await newTenant('admin');
      for (const route of closed) {
        const reply = await call(route.method, pathOf(route.path), { headers: claimed(admin) });
        assert.equal(reply.status, 401, `${route.method} ${route.path}`);
      }
    },
  },
  {
    id: 'REQ-02',
    source: 'ASVS 4.1.3, ASVS 8.3.1',
    says: 'beside a credential they change nothing: neither who it is, nor where, nor what it may',
    guard: 'platform/http/register.ts: authenticate',
    test: async () => {
      const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
      const user = await newMember(ann, 'user');
      const me = await user.call('GET', '/v1/identity/me', undefined, claimed(bob));
      assert.deepEqual([me.body.id, me.body.tenant_id, me.body.role], [user.id, ann.tenant, 'user']);
      for (const who of [ann, bob])
        assert.equal((await user.call('POST', '/v1/sessions/cleanup', undefined, claimed(who))).status, 403);
      assert.equal((await user.call('GET', `/v1/identity/${bob.id}`, undefined, claimed(bob))).status, 404);
    },
  },
  {
    id: 'REQ-03',
    source: 'ASVS 15.3.4, RFC 9700 4.13',
    says: 'nobody chooses the address it comes from, unless a proxy was named that says so',
    guard: 'platform/http/server.ts: trusted',
    test: async () => {
      const headers = {
        'x-forwarded-for': '203.0.113.9',
        'x-real-ip': '203.0.113.9',
        forwarded: 'for=203.0.113.9',
        'x-client-ip': '203.0.113.9',
        'cf-connecting-ip': '203.0.113.9',
      };
      const { body } = await call('POST', '/v1/identity/', {
        body: { external_id: 'somebody', role: 'user' },
        headers,
      });
      const { app } = await testServer();
      const facts = await app.database.operatorPool.query(
        'select distinct ip from facts where tenant_id = $1',
        [body.identity.tenant_id],
      );
      assert.deepEqual(facts.rows, [{ ip: '127.0.0.1' }]);
    },
  },
  {
    id: 'REQ-04',
    source: 'RFC 9110 5.3, RFC 6750 2',
    says: 'of two Authorization headers none is taken, in either order',
    guard: 'platform/http/credential.ts: isRepeated',
    test: async () => {
      const [ann, bob] = [await newTenant('user'), await newTenant('user')];
      const as = (...tokens: string[]) => ({ authorization: tokens.map((token) => `Bearer ${token}`) });
      assert.equal(await takenFor(as(ann.token)), ann.id);
      assert.equal(await takenFor(as(ann.token, bob.token)), 401);
      assert.equal(await takenFor(as(bob.token, ann.token)), 401);
      assert.equal(await takenFor(as(ann.token, ann.token)), 401);
      assert.equal(await takenFor(as(ann.token, 'nonsense')), 401);
      const { server } = await testServer();
      const headers: Record<string, string | string[]> = {
        ...as(ann.token, bob.token),
        'content-type': 'application/x-www-form-urlencoded',
      };
      const reply = await server!.inject({
        method: 'POST',
        url: '/v1/oauth/token',
        headers,
        payload: new URLSearchParams({
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: ann.token,
          subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
        }).toString(),
      });
      assert.deepEqual([reply.statusCode, reply.json().error], [401, 'invalid_client']);
    },
  },
  {
    id: 'REQ-05',
    source: 'RFC 6750 2, ASVS 15.3.7',
    says: 'a request with a token and another key is nobody’s',
    guard: 'platform/http/credential.ts: credentialOf',
    test: async () => {
      const [ann, bob] = [await newKey(await newTenant('user')), await newKey(await newTenant('user'))];
      const as = (token: string, key: string) => ({ authorization: `Bearer ${token}`, 'x-api-key': key });
      assert.equal(await takenFor(as(ann.token, bob.token)), 401);
      assert.equal(await takenFor(as(bob.token, ann.token)), 401);
      assert.equal(await takenFor(as(ann.token, 'nonsense')), 401);
      assert.equal(await takenFor({ authorization: 'Basic YTpi', 'x-api-key': ann.token }), 401);
      assert.equal(await takenFor(as(ann.token, ann.token)), ann.id, 'the same one twice is one');
    },
  },
  {
    id: 'REQ-06',
    source: 'RFC 9700 4.3.2, ASVS 14.2.1',
    says: 'a credential in the query, in a cookie or in another header is none, on any route',
    guard: 'platform/http/credential.ts: credentialOf',
    test: async () => {
      const admin = await newTenant('admin');
      const key = await newKey(admin);
      const names = [
        'access_token',
        'token',
        'api_key',
        'apikey',
        'key',
        'authorization',
        'x-api-key',
        'auth',
      ];
      const query = names.map((name) => `${name}=${key.token}`).join('&');
      const headers = {
        cookie: names.map((name) => `${name}=${admin.token}`).join('; '),
        'x-access-token': admin.token,
        'x-auth-token': admin.token,
        'proxy-authorization': `Bearer ${admin.token}`,
        token: admin.token,
      };
      for (const { method, path } of closed) {
        assert.equal((await call(method, `${pathOf(path)}?${query}`)).status, 401, `${method} ${path}`);
        assert.equal((await call(method, pathOf(path), { headers })).status, 401, `${method} ${path}`);
      }
    },
  },
  {
    id: 'REQ-07',
    source: 'ASVS 15.3.3, ASVS 8.2.3',
    says: 'no body says what only the server says: each such field is refused by name, on every access route',
    guard: 'platform/http/validate.ts: problems',
    test: async () => {
      const admin = await newTenant('admin');
      const asked = routes.filter(({ tag, body, consumes }) => access.includes(tag) && body && !consumes);
      assert.ok(asked.length > 15, `${asked.length} routes`);
      for (const route of asked) {
        const own = fieldsOf(route.body);
        for (const name of Object.keys(made).filter((field) => !own.includes(field))) {
          const reply = await call(route.method, pathOf(route.path), {
            body: { [name]: made[name] },
            ...(route.public === true ? {} : { token: admin.token }),
          });
          const what = `${route.method} ${route.path} ${name}: ${reply.text}`;
          assert.equal(reply.status, 422, what);
          const told: { path: string; message: string }[] = reply.body.error.details.errors;
          assert.equal(told.find(({ path }) => path === `/${name}`)?.message, 'is not a known field', what);
        }
      }
    },
  },
  {
    id: 'REQ-08',
    source: 'ASVS 15.3.6',
    says: 'no body reaches the prototype of an object',
    guard: 'platform/http/json.ts: inspect',
    test: async () => {
      const admin = await newTenant('admin');
      for (const payload of [
        '{"external_id":"x","role":"user","__proto__":{"role":"admin"}}',
        '{"external_id":"x","role":"user","claims":{"__proto__":{"admin":true}}}',
        '{"external_id":"x","role":"user","claims":{"a":[{"\\u005f_proto__":{"admin":true}}]}}',
      ]) {
        const headers = { 'content-type': 'application/json' };
        const reply = await call('POST', '/v1/identity/', { token: admin.token, payload, headers });
        assert.equal(reply.status, 422, payload);
      }
      assert.equal(({} as Record<string, unknown>).admin, undefined);
    },
  },
  {
    id: 'REQ-09',
    source: 'ASVS 16.5.1, ASVS 16.5.4',
    says: 'an error inside says nothing of what it was',
    guard: 'platform/errors.ts: toApiError',
    test: async () => {
      const ann = await newTenant('user');
      const { app } = await testServer();
      const { tenant } = app.database;
      app.database.tenant = (id) => {
        if (id === ann.tenant) throw new Error('select secret_hash from api_keys at /srv/store.ts:7');
        return tenant(id);
      };
      try {
        for (const path of ['/v1/identity/me', '/v1/sessions/', '/v1/api-keys/']) {
          const reply = await ann.call('GET', path);
          assert.deepEqual([reply.status, reply.body.error.code], [500, 'INTERNAL_ERROR']);
          assert.doesNotMatch(reply.text, /select|secret|store\.ts|at \//);
          assert.deepEqual(Object.keys(reply.body.error), ['code', 'message']);
        }
      } finally {
        app.database.tenant = tenant;
      }
    },
  },
  {
    id: 'REQ-10',
    source: 'ASVS 3.4.3, ASVS 3.4.4, ASVS 3.4.5, ASVS 3.4.6, ASVS 3.2.1',
    says: 'every answer tells browsers not to guess, run, frame or pass it on',
    guard: 'platform/http/server.ts: protectionsOf',
    test: async () => {
      const ann = await newTenant('user');
      const answers: Record<string, Promise<Reply>> = {
        200: ann.call('GET', '/v1/identity/me'),
        400: call('POST', '/v1/auth/login', {
          payload: '{',
          headers: { 'content-type': 'application/json' },
        }),
        401: call('GET', '/v1/identity/me'),
        404: call('GET', '/nothing/here'),
        405: call('DELETE', '/v1/auth/login'),
        415: call('POST', '/v1/auth/login', { payload: 'x', headers: { 'content-type': 'text/plain' } }),
        422: call('POST', '/v1/auth/login', { body: {} }),
      };
      for (const [status, asked] of Object.entries(answers)) {
        const { status: given, headers } = await asked;
        assert.equal(String(given), status);
        assert.equal(headers['x-content-type-options'], 'nosniff', status);
        assert.equal(headers['referrer-policy'], 'no-referrer', status);
        for (const directive of [
          "default-src 'none'",
          "base-uri 'none'",
          "object-src 'none'",
          "frame-ancestors 'none'",
        ])
          assert.ok(String(headers['content-security-policy']).includes(directive), `${status} ${directive}`);
      }
      const page = await call('GET', '/v1/docs/');
      assert.equal(page.status, 200);
      const policy = String(page.headers['content-security-policy']);
      assert.match(policy, /script-src 'self'/);
      assert.match(policy, /frame-ancestors 'none'/);
      assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval/);
    },
  },
  {
    id: 'REQ-11',
    source: 'RFC 6749 5.1, RFC 9700 4.3, ASVS 14.3.2',
    says: 'answers with tokens and secrets are kept by no cache',
    guard: 'platform/http/server.ts: protectionsOf',
    test: async () => {
      const person = await newPerson();
      const signed = await signIn(person);
      const answers = [
        signed,
        await call('POST', '/v1/identity/', { body: { external_id: 'x', role: 'user' } }),
        await call('POST', '/v1/sessions/refresh', { body: { refresh_token: signed.body.refresh_token } }),
        await person.call('POST', '/v1/api-keys/', { name: 'x' }),
        await person.call('POST', '/v1/auth/mfa/setup', {}),
        await person.call('GET', '/v1/identity/me'),
        await call('POST', '/v1/auth/register', {
          body: { username: 'somebody new', password: goodPassword },
        }),
      ];
      for (const { status, headers, text } of answers) {
        assert.ok(status < 300, text);
        assert.equal(headers['cache-control'], 'no-store', text.slice(0, 80));
      }
      assert.match(String((await call('GET', '/.well-known/jwks.json')).headers['cache-control']), /^public/);
    },
  },
  {
    id: 'REQ-12',
    source: 'ASVS 3.4.1',
    says: 'where the server is reached by https, browsers are told to come no other way',
    guard: 'platform/http/server.ts: protectionsOf',
    test: async () => {
      const headersOf = (publicUrl: string) =>
        withSettings({ publicUrl }, async (server) => (await server.inject('/v1/identity/me')).headers);
      const { 'strict-transport-security': told } = await headersOf('https://manushya.test');
      assert.ok(Number(/^max-age=(\d+)/.exec(String(told))?.[1]) >= 31_536_000);
      assert.match(String(told), /includeSubDomains/);
      assert.equal((await headersOf('http://manushya.test'))['strict-transport-security'], undefined);
    },
  },
  {
    id: 'REQ-13',
    source: 'ASVS 3.4.2, ASVS 3.5.2',
    says: 'pages of other origins read nothing, unless theirs is on the list letter by letter',
    guard: 'platform/http/server.ts: cors',
    test: async () => {
      const allowed = 'https://app.example.com';
      await withSettings({ CORS_ORIGINS: [allowed] }, async (server) => {
        const headersFor = async (origin: string) =>
          (await server.inject({ method: 'OPTIONS', url: '/v1/identity/me', headers: { origin } })).headers;
        assert.equal((await headersFor(allowed))['access-control-allow-origin'], allowed);
        for (const origin of [
          'https://evil.example',
          'https://app.example.com.evil.example',
          'https://evil-app.example.com',
          'http://app.example.com',
          'https://app.example.com:8443',
          'https://APP.example.com/',
          'null',
        ])
          assert.equal((await headersFor(origin))['access-control-allow-origin'], undefined, origin);
        assert.equal((await headersFor(allowed))['access-control-allow-credentials'], undefined);
      });
    },
  },
  {
    id: 'REQ-14',
    source: 'ASVS 3.5.1, ASVS 3.5.2',
    says: 'what a form of another site can send changes nothing: no write takes its content types',
    guard: 'platform/http/register.ts: formOf',
    test: async () => {
      const admin = await newTenant('admin');
      const types = ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'];
      const payload = JSON.stringify({ external_id: 'forged', role: 'user' });
      const asked = routes.filter(({ tag, body, consumes }) => access.includes(tag) && body && !consumes);
      for (const { method, path } of asked)
        for (const type of types) {
          const options = { token: admin.token, payload, headers: { 'content-type': type } };
          const { status } = await call(method, pathOf(path), options);
          assert.ok(status === 415 || status === 400, `${method} ${path} ${type}: ${status}`);
        }
      assert.equal((await admin.call('GET', '/v1/identity/?limit=100')).body.length, 1);
    },
  },
]);
