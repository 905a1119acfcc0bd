import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  newKey,
  newMember,
  newOperator,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { routes } from '../../../app.ts';

useTestServer();

const path = '/v1/admin/tenants';
const ask = async <Row extends Record<string, any>>(text: string, values: unknown[]): Promise<Row[]> =>
  (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;
const works = async (token: string): Promise<boolean> =>
  (await call('GET', '/v1/identity/me', { token })).status === 200;
const bare = ({ status, body }: Reply) => ({ status, error: body.error });
const id = () => `acme-${uuidv7().slice(-12)}`;

describe('tenants', () => {
  let operator: Caller;
  before(async () => {
    operator = await newOperator();
  });

  it('are made, seen, changed and listed by an operator', async () => {
    const acme = id();
    const made = await operator.call('POST', path, { id: acme, name: 'Acme', plan: 'pro' });
    assert.equal(made.status, 201);
    const { created_at, updated_at, ...tenant } = made.body.data;
    assert.deepEqual(tenant, { id: acme, name: 'Acme', plan: 'pro', is_active: true, deleted_at: null });
    assert.ok(created_at && updated_at);
    assert.equal((await operator.call('POST', path, { id: acme })).body.error.code, 'TENANT_EXISTS');
    assert.deepEqual((await operator.call('GET', `${path}/${acme}`)).body.data, made.body.data);
    const changed = await operator.call('PATCH', `${path}/${acme}`, { name: 'Acme Inc', plan: null });
    assert.deepEqual([changed.body.data.name, changed.body.data.plan], ['Acme Inc', null]);
    assert.equal((await operator.call('PATCH', `${path}/${acme}`, {})).status, 200);
    const facts = await ask('select type, tenant_id, actor_id, before, after from facts where resource_id = $1 order by id', [
      acme,
    ]); // biome-ignore format: one line of SQL
    assert.deepEqual(
      facts.map(({ type, tenant_id, actor_id }) => ({ type, tenant_id, actor_id })),
      ['tenant.created', 'tenant.updated'].map((type) => ({ type, tenant_id: acme, actor_id: operator.id })),
      'in the ledger of the tenant itself; nothing is told where nothing changed',
    );
    assert.deepEqual([facts[1]!.before.plan, facts[1]!.after.plan], ['pro', null]);
    const ids = [acme, `${acme}-b`, `${acme}-c`];
    for (const one of ids.slice(1)) await operator.call('POST', path, { id: one });
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const page = await operator.call('GET', `${path}?limit=2${cursor}`);
      assert.ok(page.body.data.length <= 2);
      seen.push(...page.body.data.map((one: { id: string }) => one.id));
      const next = page.headers['x-next-cursor'];
      if (!next) break;
      cursor = `&cursor=${encodeURIComponent(String(next))}`;
    }
    assert.deepEqual(
      seen.filter((one) => ids.includes(one)),
      ids,
    );
    assert.deepEqual(seen, [...new Set(seen)]);
    const forged = await operator.call('GET', `${path}?cursor=WyJhIl0.AAAA`);
    assert.equal(forged.body.error.code, 'INVALID_CURSOR');
  });

  it('are not the business of a tenant’s admins, whatever they write into their policies', async () => {
    const admin = await newTenant('admin');
    const key = await newKey(admin, { scopes: ['admin'] });
    await ask(
      `insert into policies (tenant_id, id, role, rule, priority, created_at, updated_at)
       values ($1, $2, '*', '{"==": [1, 1]}', 1000, now(), now())`,
      [admin.tenant, uuidv7()],
    );
    (await testServer()).app.shared.invalidate('policy', admin.tenant);
    const user = await newMember(admin, 'user');
    assert.equal((await user.call('GET', '/v1/identity/')).status, 200, 'the policy allows everything');
    for (const caller of [await newTenant('admin'), admin, key, user]) {
      const own = await caller.call('GET', `${path}/${admin.tenant}`);
      const nobodys = await caller.call('GET', `${path}/${id()}`);
      assert.equal(own.status, 403);
      assert.deepEqual(bare(own), bare(nobodys));
      assert.equal((await caller.call('GET', path)).status, 403);
      assert.equal((await caller.call('POST', path, { id: id() })).status, 403);
      assert.equal(
        (await caller.call('PATCH', `${path}/${admin.tenant}`, { plan: 'enterprise' })).status,
        403,
      );
    }
    assert.equal((await call('GET', path)).status, 401);
  });

  it('are all that an operator reaches: nothing inside one, by any route', async () => {
    const admin = await newTenant('admin');
    const { body: memory } = await admin.call('POST', '/v1/memory/', { text: 'private', type: 'note' });
    const mine = ['/v1/identity/', '/v1/sessions/'];
    for (const route of routes.filter((one) => !one.public && !one.path.startsWith(path))) {
      const reply = await operator.call(route.method, route.path.replace(/:[a-z_]+/g, memory.id));
      // What is open to it shows its own, or says of the others' that there is no such thing.
      if (mine.includes(route.path) || ['/v1/identity/me', '/v1/ping/'].includes(route.path)) {
        assert.ok(!reply.text.includes(admin.tenant), route.path);
        continue;
      }
      // A door opens nothing by itself: what it calls refuses.
      if (route.forwards) {
        assert.ok(reply.status >= 400, route.path);
        continue;
      }
      const own = /^\/v1\/(sessions|identity)\/:/.test(route.path);
      assert.equal(reply.status, own && reply.status === 404 ? 404 : 403, `${route.method} ${route.path}`);
    }
    assert.equal((await operator.call('POST', '/v1/api-keys/', { name: 'another' })).status, 403);
    const registered = await operator.call('POST', '/v1/identity/', { external_id: 'x', role: 'admin' });
    assert.equal(registered.status, 403);
  });

  it('that are deactivated are refused with every credential, at once, until they are active again', async () => {
    const admin = await newTenant('admin');
    const user = await newMember(admin, 'user');
    const key = await newKey(admin);
    const session = await newSession(admin);
    const agent = await newMember(admin, 'agent');
    const acting = (await user.call('POST', `/v1/identity/${agent.id}/delegate`)).body.access_token;
    const exchanged = async () => {
      const type = 'urn:ietf:params:oauth:token-type:access_token';
      const form = {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: user.token,
        subject_token_type: type,
      };
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      const payload = new URLSearchParams(form).toString();
      return (await call('POST', '/v1/oauth/token', { token: agent.token, payload, headers })).status;
    };
    assert.equal(await exchanged(), 200);
    const tokens = [admin.token, user.token, key.token, session.access_token, acting];
    const refresh = () =>
      call('POST', '/v1/sessions/refresh', { body: { refresh_token: session.refresh_token } });
    for (const token of tokens) assert.ok(await works(token));
    const set = (is_active: boolean) => operator.call('PATCH', `${path}/${admin.tenant}`, { is_active });
    assert.equal((await set(false)).body.data.is_active, false);
    for (const token of tokens) assert.equal(await works(token), false);
    assert.equal((await refresh()).status, 401);
    assert.equal(await exchanged(), 401);
    assert.equal((await set(true)).status, 200);
    for (const token of tokens) assert.ok(await works(token));
    assert.equal((await refresh()).status, 200);
  });

  it('do not include the operators’ own, which nobody makes or changes', async () => {
    assert.equal((await operator.call('GET', `${path}/system`)).status, 404);
    assert.equal((await operator.call('PATCH', `${path}/system`, { is_active: false })).status, 404);
    assert.equal((await operator.call('POST', path, { id: 'system' })).body.error.code, 'TENANT_EXISTS');
    const list = await operator.call('GET', `${path}?limit=100`);
    assert.ok(!list.body.data.some((one: { id: string }) => one.id === 'system'));
    assert.ok(await works(operator.token));
  });

  it('have no operators: the role in another tenant opens nothing, nor another role in theirs', async () => {
    const { app } = await testServer();
    const [admin, second] = [await newTenant('admin'), await newOperator()];
    const become = async (who: Caller, role: string) => {
      await ask('update identities set role = $2 where id = $1', [who.id, role]);
      app.shared.invalidate('identity', `${who.tenant}/${who.id}`);
    };
    await become(admin, 'system');
    assert.equal((await admin.call('GET', path)).status, 401);
    await become(second, 'admin');
    assert.equal((await second.call('GET', path)).status, 401);
    assert.equal(await works(second.token), false);
  });
});
