import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ConfigError, readConfig } from '#platform/config.ts';
import { sql } from '#platform/db/sql.ts';
import {
  type Caller,
  newKey,
  newMember,
  newOperator,
  newTenant,
  type Reply,
  startServer,
} from '#test/harness.ts';
import type { Running } from '../../../app.ts';

const rules = '/v1/admin/rate-limits/rules';
const codeOf = ({ status, body }: Reply) => `${status} ${body?.error?.code ?? ''}`.trim();
const limitOf = async (who: Caller, url = '/v1/memory/') =>
  Number((await who.call('GET', url)).headers['x-ratelimit-limit']);

describe('limits of a tenant', () => {
  let server: Running;
  before(async () => {
    server = await startServer({
      RATE_LIMIT_ENABLED: 'true',
      DEFAULT_PLAN: 'pro',
      RATE_LIMIT_FACTORS: 'pro=20',
      SIGN_UPS_PER_HOUR: '1000000',
    });
  });
  after(() => server.stop());

  it('are its plan’s, times what the operator says', async () => {
    const admin = await newTenant('admin', server);
    assert.equal(await limitOf(admin), 400);
    for (const bad of ['pro', 'gold=2', 'free=0', 'free=x', 'free=-1'])
      assert.throws(() => readConfig({ RATE_LIMIT_FACTORS: bad }), ConfigError);
  });

  it('are stricter for a role, an identity or a credential where a rule says so, the most particular first', async () => {
    const admin = await newTenant('admin', server);
    const [agent, user] = [await newMember(admin, 'agent', server), await newMember(admin, 'user', server)];
    const key = await newKey(agent, { server });
    const set = async (rule: object) => {
      const reply = await admin.call('PUT', rules, { endpoint: 'read', window_seconds: 60, ...rule });
      assert.equal(reply.status, 200, reply.text);
      return reply.body;
    };
    const byRole = await set({ scope: 'role', subject: 'agent', limit: 30 });
    assert.deepEqual([await limitOf(agent), await limitOf(key), await limitOf(user)], [30, 30, 400]);
    await set({ scope: 'identity', subject: agent.id, limit: 40 });
    await set({ scope: 'credential', subject: key.keyId, limit: 50 });
    assert.deepEqual([await limitOf(agent), await limitOf(key)], [40, 50]);
    assert.equal((await set({ scope: 'role', subject: 'agent', limit: 20 })).id, byRole.id, 'in its place');
    assert.equal((await admin.call('GET', rules)).body.length, 3);
    const acting = await user.call('POST', `/v1/identity/${agent.id}/delegate`);
    const delegated = { ...user, token: acting.body.access_token };
    const reply = await server.server!.inject({
      method: 'GET',
      url: '/v1/memory/',
      headers: { authorization: `Bearer ${delegated.token}` },
    });
    assert.equal(Number(reply.headers['x-ratelimit-limit']), 40, 'also when the agent acts for somebody');
    const other = await newTenant('admin', server);
    assert.equal(await limitOf(await newMember(other, 'agent', server)), 400);
    for (const { id } of (await admin.call('GET', rules)).body)
      assert.equal((await admin.call('DELETE', `${rules}/${id}`)).status, 204);
    assert.deepEqual([await limitOf(agent), await limitOf(key)], [400, 400]);
  });

  it('are enforced: a role’s ceiling for an operation, and the tenant’s', async () => {
    const admin = await newTenant('admin', server);
    const [agent, user] = [await newMember(admin, 'agent', server), await newMember(admin, 'user', server)];
    const note = { text: 'a note', type: 'note' };
    const operation = { endpoint: 'memory:create', limit: 2, window_seconds: 3_600 };
    await admin.call('PUT', rules, { scope: 'role', subject: 'agent', ...operation });
    const replies: Reply[] = [];
    for (let i = 0; i < 3; i++) replies.push(await agent.call('POST', '/v1/memory/', note));
    assert.deepEqual(
      replies.map(({ status }) => status),
      [201, 201, 429],
    );
    assert.equal(replies[2]!.headers['x-ratelimit-scope'], 'operation');
    assert.equal((await user.call('POST', '/v1/memory/', note)).status, 201, 'others are not held up');
    await admin.call('PUT', rules, { scope: 'tenant', ...operation });
    const bulk = () => user.call('POST', '/v1/memory/bulk', { memories: [note, note] });
    assert.deepEqual([codeOf(await bulk()), codeOf(await bulk())], ['201', '429 RATE_LIMITED']);
  });

  it('tell a bulk that will never fit that it is too large, not to wait', async () => {
    const admin = await newTenant('admin', server);
    const [user, other] = [await newMember(admin, 'user', server), await newTenant('admin', server)];
    const limit = { scope: 'identity', subject: user.id, endpoint: 'memory:create', limit: 2 };
    assert.equal((await admin.call('PUT', rules, { ...limit, window_seconds: 3600 })).status, 200);
    const store = (who: Caller, count: number) =>
      who.call('POST', '/v1/memory/bulk', {
        memories: Array.from({ length: count }, (_, i) => ({ text: `note ${i}`, type: 'note' })),
      });
    const tooMany = await store(user, 3);
    assert.equal(codeOf(tooMany), '413 BULK_TOO_LARGE');
    assert.deepEqual(
      [tooMany.headers['retry-after'], tooMany.body.error.details],
      [undefined, { maximum: 2 }],
    );
    assert.equal(codeOf(await store(user, 2)), '201');
    assert.equal(codeOf(await store(user, 2)), '429 RATE_LIMITED');
    assert.equal(codeOf(await store(other, 3)), '201');
  });

  it('are never wider than the plan', async () => {
    const admin = await newTenant('admin', server);
    const set = (rule: object) =>
      admin.call('PUT', rules, {
        scope: 'role',
        subject: 'agent',
        endpoint: 'read',
        limit: 10,
        window_seconds: 10,
        ...rule,
      });
    for (const [wrong, path] of [
      [{ limit: 401 }, '/limit'],
      [{ limit: 400, window_seconds: 3 }, '/window_seconds'],
      [{ limit: 0 }, '/limit'],
      [{ endpoint: 'run', limit: 2 }, '/limit'],
      [{ subject: undefined }, '/subject'],
      [{ scope: 'tenant' }, '/subject'],
      [{ endpoint: 'everything' }, '/endpoint'],
      [{ endpoint: 'memory:create', limit: 20_001, window_seconds: 86_400 }, '/limit'],
    ] as const) {
      const reply = await set(wrong);
      assert.equal(codeOf(reply), '422 VALIDATION_ERROR', JSON.stringify(wrong));
      assert.deepEqual(
        reply.body.error.details.errors.map((one: { path: string }) => one.path),
        [path],
      );
    }
    assert.deepEqual((await admin.call('GET', rules)).body, []);
  });

  it('are the operator’s to widen or narrow, for any tenant, whatever the tenant wants', async () => {
    const [admin, other] = [await newTenant('admin', server), await newTenant('admin', server)];
    const operator = await newOperator(server);
    const path = `/v1/admin/tenants/${admin.tenant}/rate-limits`;
    const user = await newMember(admin, 'user', server);
    const role = { scope: 'role', subject: 'user', endpoint: 'read', window_seconds: 60 };
    const set = async (limit: number) =>
      (await operator.call('PUT', `${path}/rules`, { ...role, limit })).body.data;
    const wide = await set(1_000);
    assert.deepEqual([wide.is_operator, wide.tenant_id, wide.limit], [true, admin.tenant, 1_000]);
    assert.deepEqual([await limitOf(user), await limitOf(admin), await limitOf(other)], [1_000, 400, 400]);
    assert.equal((await admin.call('PUT', rules, { ...role, limit: 100 })).status, 200);
    assert.equal(await limitOf(user), 100, 'the tenant may be stricter');
    assert.equal((await set(50)).id, wide.id, 'in its place');
    assert.equal(await limitOf(user), 50, 'and never wider');
    const [seen, own] = [
      (await operator.call('GET', `${path}/rules`)).body.data,
      (await admin.call('GET', rules)).body,
    ];
    assert.deepEqual(seen, own);
    assert.equal(own.length, 2);
    const { id } = own.find((rule: { is_operator: boolean }) => !rule.is_operator);
    for (const reply of [
      await admin.call('DELETE', `${rules}/${wide.id}`),
      await operator.call('DELETE', `${path}/rules/${id}`),
      await operator.call('DELETE', `/v1/admin/tenants/${other.tenant}/rate-limits/rules/${wide.id}`),
      await operator.call('GET', '/v1/admin/tenants/never-was/rate-limits/rules'),
    ])
      assert.equal(codeOf(reply), '404 NOT_FOUND');
    for (const reply of [
      await other.call('GET', `${path}/rules`),
      await admin.call('PUT', `${path}/rules`, { ...role, limit: 10 }),
      await admin.call('DELETE', `${path}/rules/${wide.id}`),
      await admin.call('DELETE', path),
    ])
      assert.equal(codeOf(reply), '403 AUTH_FORBIDDEN');
    assert.ok((await operator.call('DELETE', path)).body.data.deleted_count >= 1);
    assert.equal((await operator.call('DELETE', `${path}/rules/${wide.id}`)).status, 204);
    assert.equal(await limitOf(user), 100);
    const { rows } = await server.app.database.operatorPool.query(
      `select type from facts where tenant_id = $1 and actor_id = $2 order by id`,
      [admin.tenant, operator.id],
    );
    const [setFact, cleared, deleted] = ['rule_set', 'cleared', 'rule_deleted'].map(
      (what) => `rate_limit.${what}`,
    );
    assert.deepEqual(
      rows.map(({ type }) => type),
      [setFact, setFact, cleared, deleted],
      'in the tenant’s own ledger',
    );
  });

  it('are set by admins only, and seen by everybody for itself', async () => {
    const admin = await newTenant('admin', server);
    const user = await newMember(admin, 'user', server);
    const rule = { scope: 'tenant', endpoint: 'read', limit: 10, window_seconds: 10 };
    for (const reply of [
      await user.call('PUT', rules, rule),
      await user.call('GET', rules),
      await user.call('GET', '/v1/admin/rate-limits'),
      await user.call('DELETE', '/v1/admin/rate-limits'),
    ])
      assert.equal(codeOf(reply), '403 AUTH_FORBIDDEN');
    const own = await user.call('GET', '/v1/monitoring/rate-limits');
    assert.equal(own.status, 200, own.text);
    const { limits, ...read } = own.body;
    assert.deepEqual(
      [read.endpoint, read.scope, read.limit, read.window_seconds],
      ['read', 'api_key', 400, 4],
    );
    assert.equal(read.used, read.limit - read.remaining);
    assert.ok(read.used >= 0 && read.used <= 5, `${read.used} used`);
    assert.ok(limits.some((one: { endpoint: string }) => one.endpoint === 'memory:create'));
    assert.equal((await user.call('GET', '/v1/monitoring/rate-limits?endpoint=run')).body.limit, 100);
  });

  it('are shown to the admin as they are used, and cleared for credentials but not for the tenant', async () => {
    const [admin, other] = [await newTenant('admin', server), await newTenant('admin', server)];
    const user = await newMember(admin, 'user', server);
    // So slow that nothing fills up meanwhile.
    const slow = { scope: 'tenant', endpoint: 'read', limit: 100, window_seconds: 86_400 };
    assert.equal((await admin.call('PUT', rules, slow)).status, 200);
    await admin.call('PUT', rules, {
      scope: 'role',
      subject: 'user',
      endpoint: 'read',
      limit: 3,
      window_seconds: 600,
    });
    for (let i = 0; i < 3; i++) assert.equal((await user.call('GET', '/v1/memory/')).status, 200);
    assert.equal(codeOf(await user.call('GET', '/v1/memory/')), '429 RATE_LIMITED');
    await other.call('GET', '/v1/memory/');
    const levels = (await admin.call('GET', '/v1/admin/rate-limits')).body;
    const [first] = levels;
    assert.deepEqual(
      [first.scope, first.endpoint, first.limit, first.remaining, first.used],
      ['api_key', 'read', 3, 0, 3],
    );
    assert.ok(
      levels.some(
        (level: { scope: string; client_key: string }) =>
          level.scope === 'tenant' && level.client_key === admin.tenant,
      ),
    );
    assert.ok(!JSON.stringify(levels).includes(other.tenant));
    const cleared = await admin.call('DELETE', '/v1/admin/rate-limits');
    assert.equal(cleared.body.message, 'All rate limit records deleted');
    assert.ok(cleared.body.deleted_count >= 1);
    assert.equal((await user.call('GET', '/v1/memory/')).status, 200);
    const left = (await admin.call('GET', '/v1/admin/rate-limits')).body;
    assert.ok(
      left.some((level: { scope: string; used: number }) => level.scope === 'tenant' && level.used > 3),
    );
  });

  it('are told by two hundred rules at most, of each tenant', async () => {
    const [admin, other] = [await newTenant('admin', server), await newTenant('admin', server)];
    await server.app.database.operatorPool.query(
      `insert into rate_limit_rules (tenant_id, id, scope, subject, endpoint, burst, window_seconds, created_at, updated_at)
       select $1, gen_random_uuid(), 'role', 'role-' || n, 'read', 5, 60, now(), now() from generate_series(1, 200) n`,
      [admin.tenant],
    );
    const set = (who: Caller, subject: string) =>
      who.call('PUT', rules, { scope: 'role', subject, endpoint: 'read', limit: 5, window_seconds: 60 });
    assert.equal(codeOf(await set(admin, 'one-more')), '409 RULE_LIMIT_REACHED');
    assert.equal((await set(admin, 'role-7')).status, 200, 'in the place of one there is');
    assert.equal((await set(other, 'one-more')).status, 200);
  });

  it('are not looked through without end', async () => {
    const [admin, other] = [await newTenant('admin', server), await newTenant('admin', server)];
    const few = { scope: 'tenant', endpoint: 'rate_limits:levels', limit: 2, window_seconds: 3_600 };
    assert.equal((await admin.call('PUT', rules, few)).status, 200);
    const levels = '/v1/admin/rate-limits';
    assert.equal((await admin.call('GET', levels)).status, 200);
    assert.equal((await admin.call('DELETE', levels)).status, 200);
    for (const method of ['GET', 'DELETE'])
      assert.equal(codeOf(await admin.call(method, levels)), '429 RATE_LIMITED');
    assert.equal((await other.call('GET', levels)).status, 200);
  });

  it('are no more than there may be, also when several are set at once', async () => {
    const [admin, other] = [await newTenant('admin', server), await newTenant('admin', server)];
    const now = new Date();
    await server.app.database.tenant(admin.tenant).run(sql`
      insert into rate_limit_rules (tenant_id, id, scope, subject, endpoint, burst, window_seconds, created_at, updated_at)
      select ${admin.tenant}, gen_random_uuid(), 'role', 'role-' || n, 'read', 5, 60, ${now}, ${now} from generate_series(1, 199) n`);
    const set = (who: Caller, subject: string) =>
      who.call('PUT', rules, { scope: 'role', subject, endpoint: 'read', limit: 5, window_seconds: 60 });
    const names = ['one', 'two', 'three', 'four'];
    const codes = (await Promise.all(names.map((name) => set(admin, name)))).map(codeOf).sort();
    const refused = '409 RULE_LIMIT_REACHED';
    assert.deepEqual(codes, ['200', refused, refused, refused]);
    assert.equal((await set(other, 'one')).status, 200);
  });
});
