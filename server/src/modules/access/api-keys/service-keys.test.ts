import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Caller, call, newKey, newMember, newTenant, testServer, useTestServer } from '#test/harness.ts';

useTestServer();

const path = '/v1/self-serve/api-keys';
const make = (owner: Caller, more: Record<string, unknown> = {}) =>
  owner.call('POST', path, { name: 'ci-bot', role: 'editor', ...more });

/** A use is written when it suits. */
const unused = (key: Record<string, unknown>) => ({ ...key, last_used_at: null });

describe('keys of services', () => {
  it('are made with an identity of their own, listed and revoked', async () => {
    const admin = await newTenant('admin');
    const reply = await make(admin);
    assert.equal(reply.status, 200);
    assert.equal(reply.body.meta.api_version, 'v1');
    const { api_key, ...shown } = reply.body.data;
    assert.deepEqual(Object.keys(shown).sort(), [
      'created_at',
      'expires_at',
      'is_active',
      'key_id',
      'key_prefix',
      'last_used_at',
      'name',
      'revoked_at',
      'role',
    ]);
    assert.equal(shown.role, 'editor');
    assert.ok(api_key.startsWith(`${shown.key_prefix}_`));
    const me = await call('GET', '/v1/identity/me', { token: api_key });
    assert.deepEqual([me.body.role, me.body.name], ['editor', 'ci-bot']);
    assert.notEqual(me.body.id, admin.id);
    const list = await admin.call('GET', path);
    assert.deepEqual(list.body.data.items.map(unused), [unused(shown)]);
    assert.ok(!list.text.includes(api_key));
    const revoke = () => admin.call('POST', `${path}/${shown.key_id}/revoke`);
    const first = await revoke();
    assert.equal(first.status, 200);
    assert.equal(first.body.data.is_active, false);
    assert.ok(first.body.data.revoked_at);
    assert.deepEqual(unused((await revoke()).body.data), unused(first.body.data));
    assert.equal((await call('GET', '/v1/identity/me', { token: api_key })).status, 401);
    assert.equal((await call('GET', '/self-serve/api-keys', { token: admin.token })).body.items.length, 1);
  });

  it('stand in the same store as all others', async () => {
    const admin = await newTenant('admin');
    const { data } = (await make(admin, { expires_in_days: 5 })).body;
    const own = (await admin.call('POST', '/v1/api-keys/', { name: 'mine' })).body.api_key;
    assert.equal((await admin.call('GET', `/v1/api-keys/${data.key_id}`)).body.name, 'ci-bot');
    const ids = (await admin.call('GET', path)).body.data.items.map(
      ({ key_id }: { key_id: string }) => key_id,
    );
    assert.deepEqual(ids, [own.id, data.key_id]);
    const rotated = await admin.call('POST', `/v1/api-keys/${data.key_id}/rotate`, { overlap_seconds: 0 });
    assert.equal((await call('GET', '/v1/identity/me', { token: rotated.body.secret_key })).status, 200);
    assert.equal((await admin.call('POST', `${path}/${own.id}/revoke`)).status, 200);
  });

  it('are reported when nobody uses them, those past their time among them', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const { operatorPool } = (await testServer()).app.database;
    const made: string[] = [];
    for (const owner of [admin, admin, admin, admin, other]) made.push((await make(owner)).body.data.key_id);
    const [idle, expired, paused, young, theirs] = made as [string, string, string, string, string];
    const [old, past] = [new Date(Date.now() - 100.5 * 86_400_000), new Date(Date.now() - 1_000)];
    const longAgo = [idle, expired, paused, theirs];
    await operatorPool.query('update api_keys set created_at = $2 where id = any($1)', [longAgo, old]);
    await operatorPool.query('update api_keys set expires_at = $2 where id = $1', [expired, past]);
    await operatorPool.query('update api_keys set is_active = false where id = $1', [paused]);
    const report = async (query = '', who = admin) =>
      (await who.call('GET', `${path}/inactive-report${query}`)).body.data;
    const { items, inactive_days_threshold } = await report();
    assert.equal(inactive_days_threshold, 90);
    assert.deepEqual(Object.keys(items[0]).sort(), [
      'created_at',
      'expires_at',
      'inactive_days',
      'is_expired',
      'key_id',
      'key_prefix',
      'last_used_at',
      'name',
      'role',
    ]);
    const seen = (list: { key_id: string; inactive_days: number; is_expired: boolean }[]) =>
      list.map((item) => [item.key_id, item.inactive_days, item.is_expired]);
    assert.deepEqual(seen(items), [
      [expired, 100, true],
      [idle, 100, false],
    ]);
    assert.deepEqual(await report('?inactive_days=101'), { inactive_days_threshold: 101, items: [] });
    assert.ok(!items.some((item: { key_id: string }) => item.key_id === young));
    assert.deepEqual(seen((await report('', other)).items), [[theirs, 100, false]]);
    const refused = await admin.call('GET', `${path}/inactive-report?inactive_days=0`);
    assert.equal(refused.status, 422);
    const editor = await newMember(admin, 'editor');
    assert.equal((await editor.call('GET', `${path}/inactive-report`)).status, 403);
    const legacy = await admin.call('GET', '/self-serve/api-keys/inactive-report');
    assert.equal(legacy.body.items.length, 2);
  });

  it('are the business of those who may make keys for others', async () => {
    const admin = await newTenant('admin');
    const { data } = (await make(admin)).body;
    for (const role of ['editor', 'reader', 'user', 'agent']) {
      const member = await newMember(admin, role);
      assert.equal((await make(member, { role: 'reader' })).status, 403, role);
      assert.equal((await member.call('GET', path)).status, 403, role);
      assert.equal((await member.call('POST', `${path}/${data.key_id}/revoke`)).status, 403, role);
    }
  });

  it('have no role above their maker’s and no scope beyond', async () => {
    const admin = await newTenant('admin');
    assert.equal((await make(admin, { role: 'system' })).status, 403);
    assert.equal((await make(admin, { role: 'admin' })).status, 200);
    assert.equal((await make(admin, { role: 'a-role-of-ours' })).status, 200);
    const maker = await newKey(admin, { scopes: ['api_keys:*', 'memory:read'], expires_in_days: 3 });
    const { data } = (await make(maker, { role: 'admin' })).body;
    const scoped = await admin.call('GET', `/v1/api-keys/${data.key_id}`);
    assert.deepEqual(scoped.body.scopes, ['api_keys:*', 'memory:read']);
    assert.ok(Date.parse(data.expires_at) - Date.now() < 3.1 * 86_400_000);
    assert.equal((await call('GET', '/v1/identity/', { token: data.api_key })).status, 403);
  });

  it('are twenty at most, exactly, however many are asked for at once', async () => {
    const admin = await newTenant('admin');
    await admin.call('POST', '/v1/api-keys/', { name: 'of a person: does not count' });
    const replies = await Promise.all(Array.from({ length: 30 }, () => make(admin)));
    const made = replies.filter(({ status }) => status === 200);
    assert.equal(made.length, 20);
    for (const { status, body } of replies.filter((reply) => !made.includes(reply))) {
      assert.equal(status, 409);
      assert.equal(body.error.code, 'KEY_LIMIT_REACHED');
      assert.deepEqual(body.error.details, { max_active: 20 });
    }
    const rows = await (await testServer()).app.database.operatorPool.query(
      `select count(*)::int as identities from identities where tenant_id = $1 and external_id like 'service:%'`,
      [admin.tenant],
    );
    assert.deepEqual(rows.rows, [{ identities: 20 }], 'those refused left nothing');
    const [one, two] = made.map(({ body }) => body.data.key_id) as [string, string];
    await admin.call('POST', `${path}/${one}/revoke`);
    const pair = await Promise.all([make(admin), make(admin)]);
    assert.deepEqual(pair.map(({ status }) => status).sort(), [200, 409]);
    // Nor by the way of a key that pauses meanwhile.
    const set = (is_active: boolean) => admin.call('PUT', `/v1/api-keys/${two}`, { is_active });
    await set(false);
    assert.equal((await make(admin)).status, 200);
    assert.equal((await set(true)).body.error.code, 'KEY_LIMIT_REACHED');
    assert.equal((await make(await newTenant('admin'))).status, 200, 'another tenant has its own twenty');
  });

  it('are made once under one Idempotency-Key', async () => {
    const admin = await newTenant('admin');
    const headers = { 'idempotency-key': 'one-service' };
    const body = { name: 'once', role: 'reader' };
    const first = await admin.call('POST', path, body, headers);
    const again = await admin.call('POST', path, body, headers);
    assert.equal(again.body.data.api_key, first.body.data.api_key);
    assert.equal((await admin.call('GET', path)).body.data.items.length, 1);
  });
});
