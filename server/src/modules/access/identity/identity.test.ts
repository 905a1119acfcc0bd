import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import {
  type Caller,
  call,
  eventually,
  newKey,
  newMember,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { countedAnew, statisticsOf } from '#test/statistics.ts';
import { keepAnAdmin } from './change.ts';

useTestServer();

const at = ({ id }: { id: string }) => `/v1/identity/${id}`;
const codeOf = async (reply: Promise<{ status: number; body: any }>) => {
  const { status, body } = await reply;
  return `${status} ${body?.error?.code ?? ''}`.trim();
};
const works = async ({ token }: { token: string }) =>
  (await call('GET', '/v1/identity/me', { token })).status === 200;

/** The kinds of facts that tell what ended with an identity. */
async function typesAbout(tenant: string, id: string): Promise<string[]> {
  const { app } = await testServer();
  const rows = await app.database.tenant(tenant).rows<{ type: string }>(sql`
    select type from facts where tenant_id = ${tenant} and type like '%.revoked' and data::text like ${`%${id}%`} order by type`);
  return rows.map(({ type }) => type);
}

describe('an identity', () => {
  it('changes what an admin may change, and tells it in a fact without its claims', async () => {
    const admin = await newTenant('admin');
    const user = await newMember(admin, 'user');
    const claims = { department: 'finance', pin: 'swordfish' };
    const changed = await admin.call('PUT', at(user), {
      role: 'editor',
      claims,
      name: 'Ann',
      description: 'Counts',
      external_id: 'ann@example.com',
    });
    assert.equal(changed.status, 200, changed.text);
    assert.deepEqual((await admin.call('GET', at(user))).body, changed.body);
    assert.deepEqual(
      [changed.body.role, changed.body.claims, changed.body.name, changed.body.external_id],
      ['editor', claims, 'Ann', 'ann@example.com'],
    );
    assert.equal((await user.call('GET', '/v1/identity/me')).body.role, 'editor', 'at once');
    const { app } = await testServer();
    const facts = await app.database.tenant(admin.tenant).rows<{ text: string }>(sql`
      select f::text as text from facts f where tenant_id = ${admin.tenant} and type = 'identity.updated'`);
    assert.equal(facts.length, 1);
    assert.match(facts[0]!.text, /claim_names/);
    assert.doesNotMatch(facts[0]!.text, /swordfish/);
    await admin.call('PUT', at(user), { name: 'Ann' });
    const again = await app.database.tenant(admin.tenant).rows(sql`
      select 1 from facts where tenant_id = ${admin.tenant} and type = 'identity.updated'`);
    assert.equal(again.length, 1, 'nothing changed, nothing happened');
  });

  it('changes its own name, and nothing that decides what it may do', async () => {
    const admin = await newTenant('admin');
    const user = await newMember(admin, 'user');
    assert.equal(
      (await user.call('PUT', '/v1/identity/me', { name: 'Me', description: null })).body.name,
      'Me',
    );
    for (const body of [
      { role: 'admin' },
      { role: 'reader' },
      { claims: { department: 'board' } },
      { is_active: false },
      { external_id: 'somebody-else' },
      { owner_id: admin.id },
      { name: 'Me', claims: { a: 1 } },
    ]) {
      assert.equal(await codeOf(user.call('PUT', '/v1/identity/me', body)), '403 AUTH_FORBIDDEN');
      assert.equal(await codeOf(user.call('PUT', at(user), body)), '403 AUTH_FORBIDDEN');
    }
    assert.equal(await codeOf(admin.call('PUT', '/v1/identity/me', { role: 'user' })), '403 AUTH_FORBIDDEN');
    assert.equal(await codeOf(admin.call('PUT', at(admin), { role: 'editor' })), '403 AUTH_FORBIDDEN');
    assert.equal(await codeOf(admin.call('PUT', at(admin), { is_active: false })), '403 AUTH_FORBIDDEN');
    assert.equal((await admin.call('PUT', '/v1/identity/me', { claims: { level: 3 } })).status, 200);
    assert.equal(await codeOf(user.call('PUT', at(admin), { name: 'x' })), '404 NOT_FOUND');
    assert.equal(
      await codeOf(user.call('PUT', '/v1/identity/me', { tenant_id: 'x' })),
      '400 TENANT_ID_NOT_ALLOWED',
    );
    assert.equal(await codeOf(user.call('PUT', '/v1/identity/me', { id: admin.id })), '422 VALIDATION_ERROR');
    for (const external_id of ['', ' ', '\u00a0\t'])
      assert.equal(
        await codeOf(admin.call('POST', '/v1/identity/', { external_id, role: 'agent' })),
        '422 VALIDATION_ERROR',
      );
  });

  it('is not raised above whoever changes it, on any door', async () => {
    const admin = await newTenant('admin');
    const chief = await newMember(admin, 'chief');
    const key = await newKey(admin, { scopes: ['identity:*', 'read'] });
    assert.equal(await codeOf(admin.call('PUT', at(chief), { role: 'system' })), '403 AUTH_FORBIDDEN');
    assert.equal((await key.call('PUT', at(chief), { role: 'user' })).status, 200, 'its scopes cover it');
    assert.equal(
      await codeOf(key.call('POST', '/v1/identity/', { external_id: 'x', role: 'user' })),
      '403 AUTH_FORBIDDEN',
    );
  });

  it('keeps its name to itself', async () => {
    const admin = await newTenant('admin');
    const [ann, bob] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const { external_id } = (await admin.call('GET', at(ann))).body;
    assert.equal(await codeOf(admin.call('PUT', at(bob), { external_id })), '409 IDENTITY_EXISTS');
    const other = await newTenant('admin');
    assert.equal((await other.call('PUT', at(other), { external_id })).status, 200);
  });

  it('that is deactivated or deleted ends with all it can act by; activated again it has to sign in again', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const agent = await newMember(admin, 'agent');
    const away: [string, (who: Caller) => Promise<Reply>][] = [
      ['deactivated', (who) => admin.call('PUT', at(who), { is_active: false })],
      ['deleted', (who) => admin.call('DELETE', at(who))],
      ['deleted with others', (who) => admin.call('POST', '/v1/identity/bulk-delete', { identity_ids: [who.id] })],
      ['removed', (who) => admin.call('DELETE', `${at(who)}?hard_delete=true`)],
    ]; // biome-ignore format: one line each
    for (const [what, take] of away) {
      const user = await newMember(admin, 'user');
      const [key, session] = [await newKey(user), await newSession(user)];
      const given = await user.call('POST', `/v1/identity/${agent.id}/delegate`);
      const tokens = [user.token, key.token, session.access_token, given.body.access_token];
      const refresh = async () =>
        (await call('POST', '/v1/sessions/refresh', { body: { refresh_token: session.refresh_token } }))
          .status;
      for (const token of tokens) assert.ok(await works({ token }), what);
      assert.equal((await take(user)).status, 200, what);
      for (const token of tokens) assert.ok(!(await works({ token })), what);
      assert.equal(await refresh(), 401, what);
      const ended = await typesAbout(admin.tenant, user.id);
      assert.deepEqual(
        ended,
        ['api_key.revoked', 'delegation.revoked', 'session.revoked', 'session.revoked'],
        what,
      );
      if (what === 'removed') continue;
      const inactive = (await admin.call('GET', '/v1/identity/?is_active=false')).body;
      assert.ok(inactive.some(({ id }: Caller) => id === user.id));
      assert.equal((await admin.call('PUT', at(user), { is_active: true })).status, 200);
      for (const token of tokens) assert.ok(!(await works({ token })), `${what}, and activated again`);
      assert.equal(await refresh(), 401, what);
      assert.ok(await works(await newKey(user)));
    }
    assert.ok((await works(admin)) && (await works(agent)) && (await works(other)));
  });

  it('that is deactivated takes with it what agents do for others by its leave, and it for them', async () => {
    const admin = await newTenant('admin');
    const [user, first, second] = [
      await newMember(admin, 'user'),
      await newMember(admin, 'agent'),
      await newMember(admin, 'agent'),
    ];
    const given = (await user.call('POST', `/v1/identity/${first.id}/delegate`, { scopes: ['admin'] })).body;
    const passed = await call('POST', `/v1/identity/${second.id}/delegate`, { token: given.access_token });
    const tokens = [given.access_token, passed.body.access_token];
    for (const token of tokens) assert.ok(await works({ token }));
    await admin.call('PUT', at(first), { is_active: false });
    await admin.call('PUT', at(first), { is_active: true });
    for (const token of tokens) assert.ok(!(await works({ token })));
    assert.ok(await works(user));
  });

  it('belongs to whoever made the agent, who may see and rename it', async () => {
    const admin = await newTenant('admin');
    const user = await newMember(admin, 'user');
    const agent = await newMember(admin, 'agent');
    assert.equal((await admin.call('GET', at(agent))).body.owner_id, admin.id);
    assert.equal((await admin.call('GET', at(user))).body.owner_id, null);
    assert.equal(await codeOf(user.call('GET', at(agent))), '404 NOT_FOUND');
    assert.equal((await admin.call('PUT', at(agent), { owner_id: user.id })).status, 200);
    const mine = await user.call('GET', '/v1/identity/');
    assert.deepEqual(mine.body.map(({ id }: { id: string }) => id).sort(), [user.id, agent.id].sort());
    assert.equal((await user.call('PUT', at(agent), { name: 'My agent' })).body.name, 'My agent');
    assert.equal(await codeOf(user.call('PUT', at(agent), { role: 'user' })), '403 AUTH_FORBIDDEN');
    const other = await newTenant('admin');
    for (const owner_id of [other.id, 'nobody'])
      assert.equal(await codeOf(admin.call('PUT', at(agent), { owner_id })), '422 VALIDATION_ERROR');
    assert.equal((await admin.call('DELETE', `${at(user)}?hard_delete=true`)).status, 200);
    assert.equal((await admin.call('GET', at(agent))).body.owner_id, null);
  });
});

describe('deleting identities', () => {
  it('softly hides and stops one; hard removes it, its keys and what it remembered', async () => {
    const admin = await newTenant('admin');
    const [soft, hard] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const note = (text: string) => hard.call('POST', '/v1/memory/', { text, type: 'note' });
    const kept = await note('a walnut');
    const gone = await note('a hazelnut');
    await hard.call('DELETE', `/v1/memory/${gone.body.id}`);
    const reply = await admin.call('DELETE', at(soft));
    assert.deepEqual([reply.status, reply.body], [200, { message: 'Identity deleted successfully' }]);
    assert.ok(!(await works(soft)));
    assert.equal((await admin.call('GET', at(soft))).body.is_active, false);
    assert.equal(await codeOf(admin.call('DELETE', at(soft))), '404 NOT_FOUND');
    assert.equal((await admin.call('DELETE', `${at(soft)}?hard_delete=true`)).status, 200);
    assert.equal((await admin.call('DELETE', `${at(hard)}?hard_delete=true`)).status, 200);
    assert.ok(!(await works(hard)));
    assert.equal(await codeOf(admin.call('GET', at(hard))), '404 NOT_FOUND');
    const { app } = await testServer();
    const left = () =>
      app.database.tenant(admin.tenant).rows(sql`
        select id from memories where tenant_id = ${admin.tenant}
        union all select memory_id from memory_vectors where tenant_id = ${admin.tenant}
        union all select memory_id from memory_queue where tenant_id = ${admin.tenant}
        union all select id from sessions where tenant_id = ${admin.tenant} and identity_id = ${hard.id}`);
    await eventually('its memories to go', async () => (await left()).length === 0);
    assert.equal(await codeOf(admin.call('GET', `/v1/memory/${kept.body.id}`)), '404 NOT_FOUND');
    const counted = await statisticsOf(app.database.tenant(admin.tenant), admin.tenant, 'memory');
    assert.deepEqual(counted, countedAnew([]), 'no statistics are left of it');
  });

  it('in bulk tells what failed and why, and never deletes the caller', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const user = await newMember(admin, 'user');
    const foreign = await newMember(other, 'user');
    const { body } = await admin.call('POST', '/v1/identity/bulk-delete', {
      identity_ids: [user.id, admin.id, foreign.id, 'nobody', user.id],
      reason: 'spring cleaning',
    });
    assert.equal(body.message, 'Bulk delete completed: 1 deleted, 3 failed');
    assert.deepEqual(body.failed_identities.map(({ error }: { error: string }) => error).sort(), [
      'Cannot delete own identity',
      'Identity not found.',
      'Identity not found.',
    ]);
    assert.ok((await works(foreign)) && (await works(admin)));
    assert.equal(
      await codeOf(user.call('POST', '/v1/identity/bulk-delete', { identity_ids: [admin.id] })),
      '401 AUTH_UNAUTHORIZED',
    );
  });

  it('leaves a tenant an admin, also when two would remove each other at once', async () => {
    for (let round = 0; round < 5; round++) {
      const [ann, other] = [await newTenant('admin'), await newTenant('admin')];
      const bob = await newMember(ann, 'admin');
      const codes = await Promise.all(
        [
          ann.call('DELETE', at(bob)),
          bob.call('DELETE', at(ann)),
          ann.call('PUT', at(bob), { role: 'user' }),
          bob.call('PUT', at(ann), { is_active: false }),
        ].map(codeOf),
      );
      // Whoever comes too late is gone, or is no admin any more, or would remove the last one.
      const late = ['401 AUTH_UNAUTHORIZED', '403 AUTH_FORBIDDEN', '404 NOT_FOUND', '409 LAST_ADMIN'];
      assert.ok(codes.includes('200'), String(codes));
      for (const code of codes) assert.ok(code === '200' || late.includes(code), String(codes));
      const admins = (await Promise.all([ann, bob, other].map(isAdmin))).filter(Boolean);
      assert.equal(admins.length, 2, 'one here, and the other tenant’s');
    }
    async function isAdmin(who: Caller) {
      const { status, body } = await who.call('GET', '/v1/identity/me');
      return status === 200 && body.role === 'admin';
    }
  });

  it('leaves a tenant its only admin, whatever admins another tenant has', async () => {
    const [ann, other] = [await newTenant('admin'), await newTenant('admin')];
    const { database } = (await testServer()).app;
    const leave = async (who: Caller) => {
      const { body } = await who.call('GET', '/v1/identity/me');
      return database.tenant(who.tenant).transaction((tx) => keepAnAdmin(tx, [body]));
    };
    // Nobody removes itself, so this needs two at once: here the other one has gone already.
    await assert.rejects(leave(ann), { status: 409, code: 'LAST_ADMIN' });
    await newMember(ann, 'admin');
    await leave(ann);
    await assert.rejects(leave(other), { status: 409, code: 'LAST_ADMIN' });
  });

  it('of an admin by a lesser role with the permission is refused', async () => {
    const admin = await newTenant('admin');
    const { app } = await testServer();
    const now = new Date();
    const { uuidv7 } = await import('#platform/ids.ts');
    await app.database.tenant(admin.tenant).run(sql`
      insert into policies (tenant_id, id, role, rule, effect, priority, created_at, updated_at)
      values (${admin.tenant}, ${uuidv7()}, 'clerk', ${{ '==': [{ var: 'resource' }, 'identity'] }}, 'allow', 1, ${now}, ${now})`);
    app.shared.invalidate('policy', admin.tenant);
    const clerk = await newMember(admin, 'clerk');
    const [user, auditor] = [await newMember(admin, 'user'), await newMember(admin, 'auditor')];
    assert.equal(await codeOf(clerk.call('DELETE', at(admin))), '403 AUTH_FORBIDDEN');
    assert.equal(await codeOf(clerk.call('PUT', at(admin), { name: 'x', claims: {} })), '200');
    assert.equal(await codeOf(clerk.call('PUT', at(admin), { is_active: false })), '403 AUTH_FORBIDDEN');
    assert.equal(await codeOf(clerk.call('PUT', at(auditor), { claims: { a: 1 } })), '403 AUTH_FORBIDDEN');
    assert.equal(await codeOf(clerk.call('PUT', at(user), { role: 'admin' })), '403 AUTH_FORBIDDEN');
    assert.equal((await clerk.call('PUT', at(user), { role: 'reader' })).status, 200);
    assert.equal((await clerk.call('DELETE', at(user))).status, 200);
  });
});
