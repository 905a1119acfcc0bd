import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  call,
  callServer,
  newKey,
  newMember,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';

useTestServer();

let named = 0;
const person = (role: string) => ({ external_id: `registered-${++named}`, role });

describe('registering', () => {
  it('makes a tenant of its own without a credential, and joins the caller’s with one', async () => {
    const alone = await call('POST', '/v1/identity/', { body: person('admin') });
    assert.equal(alone.status, 200);
    const admin = await newTenant('admin');
    const joined = await admin.call('POST', '/v1/identity/', person('user'));
    assert.equal(joined.body.identity.tenant_id, admin.tenant);
    assert.notEqual(alone.body.identity.tenant_id, admin.tenant);
    assert.equal(
      (await call('GET', '/v1/identity/me', { token: joined.body.access_token })).body.id,
      joined.body.identity.id,
    );
  });

  it('refuses a taken name, a role above the caller’s, and the operator’s role', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const taken = person('user');
    assert.equal((await admin.call('POST', '/v1/identity/', taken)).status, 200);
    assert.equal((await admin.call('POST', '/v1/identity/', taken)).body.error.code, 'IDENTITY_EXISTS');
    assert.equal((await other.call('POST', '/v1/identity/', taken)).status, 200);
    const user = await newMember(admin, 'user');
    assert.equal((await user.call('POST', '/v1/identity/', person('admin'))).status, 403);
    assert.equal((await call('POST', '/v1/identity/', { body: person('system') })).status, 403);
    const bad = await call('POST', '/v1/identity/', { body: person('user'), token: 'mk_not_a_key' });
    assert.equal(bad.status, 401);
  });

  it('does not let a key grow out of its scopes', async () => {
    const admin = await newTenant('admin');
    for (const scopes of [['write'], ['read', 'write'], ['identity:create'], ['identity:*']]) {
      const { token } = await newKey(admin, { scopes });
      const reply = await call('POST', '/v1/identity/', { body: person('admin'), token });
      assert.equal(reply.status, 403, scopes.join());
    }
    const { token } = await newKey(admin, { scopes: ['admin'] });
    assert.equal((await call('POST', '/v1/identity/', { body: person('user'), token })).status, 200);
    const writer = await newKey(admin, { scopes: ['write'] });
    assert.equal((await call('GET', '/v1/memory/', { token: writer.token })).status, 403);
    assert.equal(
      (await call('POST', '/v1/memory/', { token: writer.token, body: { text: 'x', type: 'note' } })).status,
      201,
    );
  });

  it('answers the first keyed request after a start at once', async () => {
    await testServer();
    const server = await startServer({}, { serve: true, work: false });
    try {
      const admin = await newTenant('admin', server);
      const replies = await Promise.all(
        Array.from({ length: 8 }, (_, i) =>
          callServer(server, 'POST', '/v1/identity/', {
            body: person('user'),
            token: admin.token,
            headers: i % 2 ? { 'idempotency-key': `first-${i}` } : {},
          }),
        ),
      );
      assert.deepEqual(
        replies.map(({ status }) => status),
        Array(8).fill(200),
      );
    } finally {
      await server.stop();
    }
  });
});

describe('a repeated key', () => {
  it('stands for the query too', async () => {
    const ann = await newTenant('user');
    const { id } = (await ann.call('POST', '/v1/memory/', { text: 'gone soon', type: 'note' })).body;
    const key = { 'idempotency-key': 'delete-once' };
    assert.equal((await ann.call('DELETE', `/v1/memory/${id}`, undefined, key)).status, 204);
    const other = await ann.call('DELETE', `/v1/memory/${id}?hard_delete=true`, undefined, key);
    assert.equal(other.body.error.code, 'IDEMPOTENCY_KEY_CONFLICT');
  });
});
