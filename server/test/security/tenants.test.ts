import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { parseKeyText } from '#modules/access/api-keys/secret.ts';
import {
  call,
  newKey,
  newMember,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { prove } from './statement.ts';

useTestServer();

const codeOf = ({ status, body }: Reply) => `${status} ${body?.error?.code ?? ''}`.trim();
const withCursor = (path: string, cursor: string) =>
  `${path}${path.includes('?') ? '&' : '?'}limit=1&cursor=${encodeURIComponent(cursor)}`;

prove('borders', [
  {
    id: 'TEN-01',
    source: 'ASVS 8.2.2, ASVS 8.4.1',
    says: 'a cursor is good for the caller, the list and the filters it was given for, and nothing else',
    guard: 'platform/http/pages.ts: boundTo',
    test: async () => {
      const [ann, eve] = [await newTenant('admin'), await newTenant('admin')];
      const bob = await newMember(ann, 'admin');
      const list = '/v1/identity/';
      const { headers } = await ann.call('GET', `${list}?limit=1`);
      const cursor = String(headers['x-next-cursor']);
      assert.equal((await ann.call('GET', withCursor(list, cursor))).status, 200);
      for (const [what, reply] of Object.entries({
        'another caller of the tenant': bob.call('GET', withCursor(list, cursor)),
        'another tenant': eve.call('GET', withCursor(list, cursor)),
        'another filter': ann.call('GET', withCursor(`${list}?role=user`, cursor)),
        'another list': ann.call('GET', withCursor('/v1/sessions/', cursor)),
      }))
        assert.equal(codeOf(await reply), '400 INVALID_CURSOR', what);
    },
  },
  {
    id: 'TEN-02',
    source: 'ASVS 8.2.2, ASVS 2.2.1',
    says: 'a cursor that was changed or made up is refused',
    guard: 'platform/http/pages.ts: placeOf',
    test: async () => {
      const ann = await newTenant('admin');
      await newMember(ann, 'user');
      const list = '/v1/identity/';
      const { headers } = await ann.call('GET', `${list}?limit=1`);
      const given = String(headers['x-next-cursor']);
      const sealed = Buffer.from(given, 'base64url');
      assert.equal((await ann.call('GET', withCursor(list, given))).status, 200);
      const made = Buffer.from(JSON.stringify({ after: ['2999-01-01T00:00:00.000Z', ann.id] }));
      const changedAt = (at: number) => {
        const changed = Buffer.from(sealed);
        changed[at]! ^= 1;
        return changed.toString('base64url');
      };
      for (const cursor of [
        // In its nonce, its tag and its text.
        ...[0, 12, 28, sealed.length - 1].map(changedAt),
        made.toString('base64url'),
        Buffer.concat([sealed.subarray(0, 28), made]).toString('base64url'),
        sealed.subarray(0, -1).toString('base64url'),
        sealed.subarray(0, 28).toString('base64url'),
        sealed.subarray(0, 5).toString('base64url'),
        Buffer.concat([sealed, sealed]).toString('base64url'),
        `${given}=`,
        `${given}.${given}`,
        sealed.toString('hex'),
      ])
        assert.equal(codeOf(await ann.call('GET', withCursor(list, cursor))), '400 INVALID_CURSOR', cursor);
    },
  },
  {
    id: 'TEN-03',
    source: 'ASVS 8.2.2, ASVS 8.4.1',
    says: 'what is kept under an Idempotency-Key is given to the credential that sent it, and to no other',
    guard: 'platform/http/idempotency.ts: idempotently',
    test: async () => {
      const ann = await newTenant('admin');
      const others = [await newMember(ann, 'admin'), await newKey(ann), await newTenant('admin')];
      const headers = { 'idempotency-key': 'one-for-all' };
      const body = { name: 'the same key' };
      const hers = await ann.call('POST', '/v1/api-keys/', body, headers);
      assert.equal(hers.status, 201, hers.text);
      const again = await ann.call('POST', '/v1/api-keys/', body, headers);
      assert.deepEqual([again.headers['idempotency-replayed'], again.body], ['true', hers.body]);
      for (const other of others) {
        const reply = await other.call('POST', '/v1/api-keys/', body, headers);
        assert.deepEqual([reply.status, reply.headers['idempotency-replayed']], [201, undefined]);
        assert.notEqual(reply.body.secret_key, hers.body.secret_key);
      }
    },
  },
  {
    id: 'TEN-04',
    source: 'ASVS 8.4.1, ASVS 7.4.1',
    says: 'what is kept under an Idempotency-Key is given to nobody after the credential was taken back',
    guard: 'platform/http/register.ts: admit',
    test: async () => {
      const ann = await newTenant('admin');
      const key = await newKey(ann);
      const headers = { 'idempotency-key': 'before-and-after' };
      const ask = () => key.call('POST', '/v1/api-keys/', { name: 'once' }, headers);
      assert.equal((await ask()).status, 201);
      await ann.call('DELETE', `/v1/api-keys/${key.keyId}`);
      assert.equal(codeOf(await ask()), '401 AUTH_UNAUTHORIZED');
    },
  },
  {
    id: 'TEN-05',
    source: 'ASVS 8.4.1',
    says: 'the tenant inside a credential is not to be exchanged for another',
    guard: 'modules/access/api-keys/authenticate.ts: loadKey',
    test: async () => {
      const [ann, bob] = [await newTenant('user'), await newTenant('user')];
      const key = await newKey(ann);
      // The checksum is no secret: whoever changes a key makes it fit.
      const body = key.token.slice(0, -8).replace(ann.tenant, bob.tenant);
      const moved = body + createHash('sha256').update(body).digest('hex').slice(0, 8);
      assert.notEqual(parseKeyText(moved), undefined);
      assert.equal((await call('GET', '/v1/identity/me', { token: moved })).status, 401);
      const session = await newSession(ann);
      const changed = { refresh_token: session.refresh_token.replace(ann.tenant, bob.tenant) };
      assert.equal((await call('POST', '/v1/sessions/refresh', { body: changed })).status, 401);
      const good = { refresh_token: session.refresh_token };
      assert.equal((await call('POST', '/v1/sessions/refresh', { body: good })).status, 200);
    },
  },
  {
    id: 'TEN-06',
    source: 'ASVS 8.4.1',
    says: 'a tenant that is switched off is closed to tokens, keys, agents and refresh tokens at once',
    guard: 'app.ts: features',
    test: async () => {
      const ann = await newTenant('admin');
      const agent = await newMember(ann, 'agent');
      const session = await newSession(ann);
      const given = await ann.call('POST', `/v1/identity/${agent.id}/delegate`);
      const tokens = [ann.token, session.access_token, (await newKey(ann)).token, given.body.access_token];
      const opens = () => Promise.all(tokens.map((token) => call('GET', '/v1/memory/', { token })));
      assert.deepEqual(
        (await opens()).map(({ status }) => status),
        [200, 200, 200, 200],
      );
      const { app } = await testServer();
      await app.database.operatorPool.query('update tenants set is_active = false where tenant_id = $1', [
        ann.tenant,
      ]);
      app.shared.invalidate('tenant', ann.tenant);
      assert.deepEqual(
        (await opens()).map(({ status }) => status),
        [401, 401, 401, 401],
      );
      const body = { refresh_token: session.refresh_token };
      assert.equal((await call('POST', '/v1/sessions/refresh', { body })).status, 401);
    },
  },
]);
