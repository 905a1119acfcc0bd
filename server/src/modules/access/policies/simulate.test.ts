import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import {
  type Caller,
  newMember,
  newTenant,
  type Reply,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { flushDecisions, pruneDecisions, recordDecision } from '../decisions/service.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const about = (resource: string, action: string, ...more: unknown[]) => ({
  and: [is('resource', resource), is('action', action), ...more],
});
const deny = (role: string, rule: unknown, priority = 0) => ({ role, rule, effect: 'deny', priority });

async function simulated(admin: Caller, body: object): Promise<any> {
  const reply = await admin.call('POST', '/v1/policy/simulate', body);
  assert.equal(reply.status, 200, reply.text);
  return reply.body;
}
async function written(owner: Caller, policy: object): Promise<string> {
  const reply = await owner.call('POST', '/v1/policy/', policy);
  assert.equal(reply.status, 201, reply.text);
  return reply.body.id;
}
async function remembered(owner: Caller, type = 'note', metadata: object = {}): Promise<string> {
  const reply = await owner.call('POST', '/v1/memory/', {
    text: 'words nobody should record',
    type,
    metadata,
  });
  assert.equal(reply.status, 201, reply.text);
  return reply.body.id;
}
const problems = ({ status, body }: Reply) => [status, body.error.details?.errors?.[0]?.path];
const recorded = async (tenant: string) => {
  const { app } = await testServer();
  await flushDecisions(app, true);
  return app.database.tenant(tenant).rows(
    sql<{ question: any; count: number; allowed: boolean }>`
        select question, count, allowed from policy_decisions where tenant_id = ${tenant} order by first_seen, hash`,
  );
};

describe('a simulation', () => {
  it('lists who would lose what, how often it was asked, and what decides before and after', async () => {
    const [admin, other] = [await newTenant(), await newTenant()];
    const [ann, bob] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const id = await remembered(ann);
    for (let i = 0; i < 3; i++) await ann.call('GET', `/v1/memory/${id}`);
    await ann.call('GET', `/v1/memory/${await remembered(ann)}`);
    await bob.call('GET', `/v1/memory/${id}`);
    await remembered(other);
    const draft = deny('user', about('memory', 'read', is('memory_type', 'note')));
    const result = await simulated(admin, { draft });
    assert.deepEqual(
      result.changed.map(({ who, permission, target, request, count, before, after }: any) => ({
        who,
        permission,
        target,
        request,
        count,
        before,
        after: [after.allowed, after.reason],
      })),
      [
        {
          who: { identity_id: ann.id, external_id: result.changed[0].who.external_id, role: 'user' },
          permission: 'memory:read',
          target: { own: true, type: 'note' },
          request: { method: 'GET', path: '/v1/memory/:memory_id', route_class: 'read' },
          count: 4,
          before: { allowed: true, policy_id: 'builtin:user', reason: 'builtin' },
          after: [false, 'policy'],
        },
      ],
    );
    assert.deepEqual([result.allowed_now, result.denied_now, result.locks_out], [0, 1, false]);
    assert.ok(result.questions >= 4 && result.decisions >= 8);
    // Nothing was written by it.
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).status, 200);
    assert.deepEqual((await simulated(other, { draft })).changed, []);
  });

  it('lists what would be opened, also of what was refused at the door', async () => {
    const admin = await newTenant();
    const stranger = await newMember(admin, 'stranger');
    assert.equal((await stranger.call('GET', '/v1/corpora')).status, 403);
    const result = await simulated(admin, { draft: { role: 'stranger', rule: is('resource', 'corpora') } });
    assert.deepEqual(
      result.changed.map(({ permission, target, before, after }: any) => [
        permission,
        target,
        before,
        after.allowed,
      ]),
      [['corpora:list', 'own', { allowed: false, policy_id: null, reason: 'default_deny' }, true]],
    );
    assert.equal(result.allowed_now, 1);
  });

  it('takes several changes as one: made, changed and deleted policies', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    const closed = await written(admin, deny('user', about('memory', 'list')));
    const idle = await written(admin, { ...deny('user', about('memory', 'create')), is_active: false });
    assert.equal((await user.call('GET', '/v1/memory/')).status, 403);
    const id = await remembered(user);
    await user.call('GET', `/v1/memory/${id}`);
    const flips = async (body: object) =>
      (await simulated(admin, body)).changed
        .filter(({ who }: any) => who.identity_id === user.id)
        .map(({ permission, after }: any) => `${permission} ${after.allowed}`)
        .sort();
    assert.deepEqual(await flips({ changes: [{ op: 'delete', id: closed }] }), ['memory:list true']);
    assert.deepEqual(await flips({ draft: { id: idle } }), ['memory:create false']);
    const read = { op: 'create', policy: deny('user', about('memory', 'read')) };
    const all = { changes: [{ op: 'delete', id: closed }, { op: 'update', id: idle, policy: {} }, read] };
    // The word read stands for list as well, so what was closed stays so.
    assert.deepEqual(await flips(all), ['memory:create false', 'memory:read false', 'memory:read false']);
    assert.deepEqual(await flips({ draft: { id: idle, is_active: false } }), []);
  });

  it('says when it would lock the tenant out, and what its decisions were recorded without', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    await remembered(user, 'note', { client: 'acme', salary: 'a secret' });
    assert.equal((await simulated(admin, { draft: deny('*', true) })).locks_out, true);
    const draft = deny('user', about('memory', 'create', is('memory_metadata.client', 'acme')));
    const blind = await simulated(admin, { draft });
    assert.deepEqual([blind.changed, blind.not_recorded], [[], ['memory_metadata.client']]);
    // Kept as a draft, it makes decisions be recorded with what it reads, and nothing more.
    const id = await written(admin, { ...draft, is_active: false });
    await remembered(user, 'note', { client: 'acme', salary: 'a secret' });
    await remembered(user, 'note', { client: 'other', salary: 'a secret' });
    const seeing = await simulated(admin, { draft: { id } });
    assert.deepEqual(seeing.not_recorded, []);
    assert.deepEqual(
      seeing.changed.map(({ target, count }: any) => [target, count]),
      [[{ own: true, type: 'note', metadata: { client: 'acme' } }, 1]],
    );
    assert.doesNotMatch(JSON.stringify(await recorded(admin.tenant)), /secret|nobody should record/);
  });

  it('asks identities as who they are today, and leaves out who is gone', async () => {
    const admin = await newTenant();
    const [ann, bob] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    for (const who of [ann, bob]) await who.call('GET', '/v1/memory/');
    const { app } = await testServer();
    const db = app.database.tenant(admin.tenant);
    await db.run(
      sql`update identities set claims = ${{ team: 'x' }} where tenant_id = ${admin.tenant} and id = ${ann.id}`,
    );
    await db.run(
      sql`update identities set is_active = false where tenant_id = ${admin.tenant} and id = ${bob.id}`,
    );
    const result = await simulated(admin, { draft: deny('user', about('memory', 'list')) });
    assert.deepEqual(
      result.changed.map(({ who }: any) => who.identity_id),
      [ann.id],
    );
    const team = await simulated(admin, {
      draft: deny('user', about('memory', 'list', is('claims.team', 'x'))),
    });
    assert.equal(team.denied_now, 1);
  });

  it('is bounded in time and in what it answers', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    for (const type of ['a', 'b', 'c']) await remembered(user, type);
    const draft = deny('user', about('memory', 'create'));
    await simulated(admin, { draft });
    const { app } = await testServer();
    await app.database
      .tenant(admin.tenant)
      .run(
        sql`update policy_decisions set last_seen = ${new Date(Date.now() - 3_600_000)} where tenant_id = ${admin.tenant} and question -> 'target' ->> 'type' = 'a'`,
      );
    const since = new Date(Date.now() - 60_000).toISOString();
    const lately = await simulated(admin, { draft, since, limit: 1 });
    assert.deepEqual([lately.since, lately.changed.length], [since, 1]);
    const types = async (body: object) =>
      (await simulated(admin, { draft, ...body })).changed
        .flatMap(({ target }: any) => target.type ?? [])
        .sort();
    assert.deepEqual(await types({ since }), []);
    await written(admin, {
      ...deny('user', about('memory', 'create', is('memory_type', 'z'))),
      is_active: true,
    });
    for (const type of ['a', 'b']) await remembered(user, type);
    assert.deepEqual(await types({ since }), ['a', 'b']);
  });

  it('refuses what is no change', async () => {
    const [admin, other] = [await newTenant(), await newTenant()];
    const ask = (body: object) => admin.call('POST', '/v1/policy/simulate', body);
    const hers = await written(other, { role: 'user', rule: false });
    const mine = await written(admin, { role: 'user', rule: false });
    assert.deepEqual(problems(await ask({})), [422, '/draft']);
    assert.deepEqual(problems(await ask({ draft: { role: 'user' } })), [422, '/draft/rule']);
    assert.deepEqual(problems(await ask({ draft: { role: 'user', rule: { nope: 1 } } })), [
      422,
      '/draft/rule/nope',
    ]);
    const changes = (...list: object[]) => ask({ changes: list });
    assert.deepEqual(problems(await changes({ op: 'delete' })), [422, '/changes/0/id']);
    assert.deepEqual(problems(await changes({ op: 'create', policy: { rule: true } })), [
      422,
      '/changes/0/policy/role',
    ]);
    assert.deepEqual(problems(await changes({ op: 'update', id: mine, policy: { rule: { nope: 1 } } })), [
      422,
      '/changes/0/policy/rule/nope',
    ]);
    for (const id of [hers, '01890000-0000-7000-8000-000000000000', 'x'])
      assert.equal((await changes({ op: 'delete', id })).status, 404);
    assert.equal((await changes({ op: 'delete', id: mine }, { op: 'update', id: mine })).status, 409);
  });
});

describe('recorded decisions', () => {
  it('are one row for a question, however often it is asked, with the last answer', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    for (let i = 0; i < 5; i++) await user.call('GET', '/v1/memory/');
    const of = (rows: { question: any; count: number; allowed: boolean }[]) =>
      rows
        .filter(({ question }) => question.identity_id === user.id)
        .map(({ question, count, allowed }) => [`${question.resource}:${question.action}`, count, allowed]);
    assert.deepEqual(of(await recorded(admin.tenant)), [['memory:list', 5, true]]);
    await written(admin, deny('user', about('memory', 'list')));
    for (let i = 0; i < 2; i++) await user.call('GET', '/v1/memory/');
    assert.deepEqual(of(await recorded(admin.tenant)), [['memory:list', 7, false]]);
  });

  it('are the latest where more were asked than are kept, of one millisecond too', async (t) => {
    await testServer();
    const server = await startServer({ DECISIONS_KEPT: '100' }, { serve: true, work: false });
    try {
      const { app } = server;
      const { tenant } = await newTenant('admin', server);
      await flushDecisions(app, true);
      const outcome = { allowed: true, policy_id: null, reason: 'builtin' };
      const now = Date.now() + 1_000;
      const ask = (id: string) =>
        recordDecision(
          app,
          tenant,
          id,
          outcome,
          () => ({
            role: 'user',
            action: 'read',
            resource: 'memory',
            identity_id: id,
            target: 'own',
            request: {},
          }),
          undefined,
        );
      t.mock.method(Date, 'now', () => now);
      for (let i = 0; i < 150; i++) ask(`anyone-${i}`);
      t.mock.restoreAll();
      await flushDecisions(app, true);
      const rows = await app.database.tenant(tenant).rows(
        sql<{
          last_seen: string;
        }>`select last_seen from policy_decisions where tenant_id = ${tenant}`,
      );
      assert.equal(rows.length, 100);
      assert.ok(rows.every(({ last_seen }) => new Date(last_seen).getTime() === now));
    } finally {
      await server.stop();
    }
  });

  it('are bounded in number and age, and none where none are wanted', async () => {
    await testServer();
    const server = await startServer({ DECISIONS_KEPT: '100' }, { serve: true, work: false });
    const quiet = await startServer({ DECISION_RETENTION_DAYS: '0' }, { serve: true, work: false });
    try {
      const admin = await newTenant('admin', server);
      const { app } = server;
      const memories = Array.from({ length: 150 }, (_, i) => ({ text: 'x', type: `type-${i}` }));
      // Rows are decided one by one, and so recorded, only where a policy looks at them.
      const policy = { role: 'admin', rule: { and: [is('resource', 'memory'), is('memory_type', 'x')] } };
      assert.equal((await admin.call('POST', '/v1/policy/', policy)).status, 201);
      assert.equal((await admin.call('POST', '/v1/memory/bulk', { memories })).body.created.length, 150);
      const count = async ({ app: { database } }: typeof server, tenant: string) =>
        (
          await database.tenant(tenant).one(
            sql<{
              count: number;
            }>`select count(*) as count from policy_decisions where tenant_id = ${tenant}`,
          )
        )?.count;
      await flushDecisions(app, true);
      const kept = (await count(server, admin.tenant))!;
      assert.ok(kept > 0 && kept <= 110, `${kept} rows`);
      const old = new Date(Date.now() - 31 * 86_400_000);
      await app.database
        .tenant(admin.tenant)
        .run(
          sql`update policy_decisions set last_seen = ${old} where tenant_id = ${admin.tenant} and question ->> 'action' = 'create'`,
        );
      await pruneDecisions(app);
      assert.ok((await count(server, admin.tenant))! < kept);

      const nobody = await newTenant('admin', quiet);
      assert.equal((await nobody.call('GET', '/v1/memory/')).status, 200);
      await flushDecisions(quiet.app, true);
      assert.equal(await count(quiet, nobody.tenant), 0);
    } finally {
      await server.stop();
      await quiet.stop();
    }
  });
});
