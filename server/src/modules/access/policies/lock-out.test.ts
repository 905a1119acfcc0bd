import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { type Caller, newMember, newTenant, type Reply, testServer, useTestServer } from '#test/harness.ts';
import { createPolicy, updatePolicy } from './service.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const onPolicies = {
  and: [
    is('resource', 'policy'),
    { in: [{ var: 'action' }, ['create', 'update', 'delete', 'list', 'read']] },
  ],
};
const codeOf = ({ status, body }: Reply) => [status, body?.error?.code];
const denyAll = { role: '*', rule: true, effect: 'deny', priority: 1_000_000 };

async function written(owner: Caller, policy: object): Promise<string> {
  const reply = await owner.call('POST', '/v1/policy/', policy);
  assert.equal(reply.status, 201, reply.text);
  return reply.body.id;
}
const mayStillList = async (who: Caller) => (await who.call('GET', '/v1/policy/')).status === 200;

describe('a change that would shut a tenant out of its policies', () => {
  it('is refused, however it is written, and nothing of it is kept', async () => {
    const admin = await newTenant();
    const rules: object[] = [
      denyAll,
      { ...denyAll, role: 'admin' },
      { ...denyAll, rule: is('resource', 'policy') },
      { ...denyAll, rule: is('action', 'update') },
      { ...denyAll, rule: { '!=': [{ var: 'action' }, 'read'] } },
      { ...denyAll, rule: is('request.path', '/v1/policy/') },
      { ...denyAll, rule: { in: [{ var: 'request.method' }, ['PUT', 'GET']] } },
      { ...denyAll, rule: { actions: ['update'], resource: 'policy', effect: 'deny' } },
    ];
    for (const policy of rules)
      assert.deepEqual(
        codeOf(await admin.call('POST', '/v1/policy/', policy)),
        [409, 'POLICY_LOCKS_OUT'],
        JSON.stringify(policy),
      );
    const door = await admin.call('POST', '/v1/admin/governance/policies', {
      rule_key: 'policy.update',
      action_json: { type: 'deny' },
    });
    assert.deepEqual(codeOf(door), [409, 'POLICY_LOCKS_OUT']);
    const { body } = await admin.call('GET', '/v1/policy/');
    assert.deepEqual(
      body.filter(({ builtin }: any) => !builtin),
      [],
    );
  });

  it('is refused when a draft is activated, changed or rolled back to', async () => {
    const admin = await newTenant();
    const id = await written(admin, { ...denyAll, is_active: false });
    assert.deepEqual(codeOf(await admin.call('PUT', `/v1/policy/${id}`, { is_active: true })), [
      409,
      'POLICY_LOCKS_OUT',
    ]);
    const harmless = { is_active: true, rule: is('resource', 'webhooks') };
    assert.equal((await admin.call('PUT', `/v1/policy/${id}`, harmless)).status, 200);
    assert.deepEqual(codeOf(await admin.call('PUT', `/v1/policy/${id}`, { rule: true })), [
      409,
      'POLICY_LOCKS_OUT',
    ]);
    // A version that was harmless only because it was not active stays so.
    assert.equal(
      (await admin.call('POST', `/v1/policy/${id}/rollback`, { version: 1 })).body.is_active,
      false,
    );
  });

  it('is let through when somebody of the tenant still could change policies', async () => {
    const admin = await newTenant();
    const keeper = await newMember(admin, 'keeper');
    await written(admin, { role: 'keeper', rule: onPolicies, priority: 1_000_000 - 1 });
    // The keeper's policy stands below: it would be denied with all others.
    assert.deepEqual(codeOf(await admin.call('POST', '/v1/policy/', denyAll)), [409, 'POLICY_LOCKS_OUT']);
    const denyAdmins = await written(admin, { ...denyAll, role: 'admin' });
    assert.equal(await mayStillList(admin), false);
    assert.equal(await mayStillList(keeper), true);
    assert.equal((await keeper.call('PUT', `/v1/policy/${denyAdmins}`, { is_active: false })).status, 200);
    assert.equal(await mayStillList(admin), true);
  });

  it('is let through when it is meant', async () => {
    const admin = await newTenant();
    const reply = await admin.call('POST', '/v1/policy/', { ...denyAll, force: true });
    assert.equal(reply.status, 201, reply.text);
    assert.equal(await mayStillList(admin), false);
    // The operator's way back: `manushya policies deactivate`.
    const { app } = await testServer();
    const operator = systemCtx(app, admin.tenant, 'test');
    await updatePolicy(operator, reply.body.id, { is_active: false, force: true });
    assert.equal(await mayStillList(admin), true);
  });

  it('is refused when it takes away what the last ones stand on', async () => {
    const admin = await newTenant();
    const keeper = await newMember(admin, 'keeper');
    const grant = await written(admin, { role: 'keeper', rule: onPolicies });
    await written(admin, { ...denyAll, role: 'admin' });
    for (const reply of [
      await keeper.call('DELETE', `/v1/policy/${grant}`),
      await keeper.call('POST', '/v1/policy/bulk-delete', { policy_ids: [grant] }),
      await keeper.call('PUT', `/v1/policy/${grant}`, { is_active: false }),
      await keeper.call('PUT', `/v1/policy/${grant}`, { role: 'other' }),
      await keeper.call('PUT', `/v1/policy/${grant}`, { rule: is('action', 'read') }),
    ])
      assert.deepEqual(codeOf(reply), [409, 'POLICY_LOCKS_OUT']);
    assert.equal(await mayStillList(keeper), true);
    assert.equal((await keeper.call('DELETE', `/v1/policy/${grant}?force=true`)).status, 204);
    assert.equal(await mayStillList(keeper), false);
  });

  it('is refused when nobody could take back this very policy', async () => {
    const admin = await newTenant();
    const id = await written(admin, { role: 'user', rule: false });
    const stuck = { ...denyAll, rule: { and: [is('resource', 'policy'), is('target.id', id)] } };
    assert.deepEqual(codeOf(await admin.call('PUT', `/v1/policy/${id}`, stuck)), [409, 'POLICY_LOCKS_OUT']);
    // The same about another policy can be taken back, and so that one as well.
    assert.equal((await admin.call('POST', '/v1/policy/', stuck)).status, 201);
    assert.equal((await admin.call('GET', `/v1/policy/${id}`)).status, 404);
  });

  it('is refused of two at once that together would', async () => {
    const admin = await newTenant();
    const [one, two] = [await newMember(admin, 'first'), await newMember(admin, 'second')];
    const grants = [
      await written(admin, { role: 'first', rule: onPolicies }),
      await written(admin, { role: 'second', rule: onPolicies }),
    ];
    await written(admin, { ...denyAll, role: 'admin' });
    // Each takes from the other what the other stands on.
    const replies = await Promise.all([
      one.call('DELETE', `/v1/policy/${grants[1]}`),
      two.call('DELETE', `/v1/policy/${grants[0]}`),
    ]);
    const statuses = replies.map(({ status }) => status);
    assert.equal(
      statuses.filter((status) => status === 204).length,
      1,
      replies.map(({ text }) => text).join(),
    );
    // The later one is told so, or has lost its own rights by then.
    assert.ok(statuses.some((status) => status === 409 || status === 403));
    assert.equal((await Promise.all([one, two].map(mayStillList))).filter(Boolean).length, 1);
  });

  it('is no matter in a tenant where nobody could before', async () => {
    const user = await newTenant('user');
    const { app } = await testServer();
    const made = await createPolicy(systemCtx(app, user.tenant, 'test'), denyAll as never);
    assert.equal(made.effect, 'deny');
  });
});
