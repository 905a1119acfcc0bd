import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { flushDenials } from '#platform/facts/denials.ts';
import { type Caller, call, newKey, newMember, newTenant, testServer, useTestServer } from '#test/harness.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const evaluation = '/access/v1/evaluation';
const evaluations = '/access/v1/evaluations';
const bill = (id: string, properties: object = {}) => ({ type: 'invoice', id, properties });

/** A tenant whose clerks approve small invoices of another application. */
async function office(): Promise<{ admin: Caller; clerk: Caller; policy: string }> {
  const admin = await newTenant();
  const clerk = await newMember(admin, 'clerk');
  const { body } = await admin.call('POST', '/v1/policy/', {
    role: 'clerk',
    rule: {
      and: [
        is('resource', 'invoice'),
        is('action', 'approve'),
        { '<': [{ var: 'target.metadata.amount' }, 1000] },
      ],
    },
  });
  return { admin, clerk, policy: body.id };
}
const ask = (who: Caller, subject: string, amount: number, more: object = {}) =>
  who.call('POST', evaluation, {
    subject: { type: 'user', id: subject },
    action: { name: 'approve' },
    resource: bill('17', { amount }),
    ...more,
  });

describe('AuthZEN', () => {
  it('says where it is', async () => {
    const { status, body, headers } = await call('GET', '/.well-known/authzen-configuration');
    assert.equal(status, 200);
    assert.match(String(headers['content-type']), /^application\/json/);
    assert.deepEqual(body, {
      policy_decision_point: 'http://manushya.test',
      access_evaluation_endpoint: 'http://manushya.test/access/v1/evaluation',
      access_evaluations_endpoint: 'http://manushya.test/access/v1/evaluations',
    });
  });

  it('decides by the tenant’s policies for an identity of the tenant, by id or external id', async () => {
    const { admin, clerk, policy } = await office();
    const { external_id } = (await admin.call('GET', `/v1/identity/${clerk.id}`)).body;
    for (const name of [clerk.id, clerk.id.toUpperCase(), external_id]) {
      const yes = await ask(admin, name, 999);
      assert.deepEqual(
        [yes.status, yes.body],
        [200, { decision: true, context: { reason: 'policy', policy_id: policy } }],
      );
    }
    const no = await ask(admin, clerk.id, 1000);
    assert.deepEqual(
      [no.status, no.body],
      [200, { decision: false, context: { reason: 'default_deny', policy_id: null } }],
    );
  });

  it('does not know other tenants’ people, and takes nobody’s word for a role', async () => {
    const { admin, clerk } = await office();
    const stranger = await newTenant('admin');
    for (const id of [stranger.id, '01890000-0000-7000-8000-000000000000', 'nobody']) {
      const { body } = await ask(admin, id, 1);
      assert.deepEqual(body, { decision: false, context: { reason: 'subject_unknown' } });
    }
    const properties = { role: 'admin', claims: { role: 'admin' } };
    const forged = await ask(admin, clerk.id, 5000, { subject: { type: 'user', id: clerk.id, properties } });
    assert.equal(forged.body.decision, false);
  });

  it('takes an id for itself before somebody else’s external id', async () => {
    const { admin, clerk } = await office();
    const body = { external_id: clerk.id, role: 'admin' };
    assert.equal((await admin.call('POST', '/v1/identity/', body)).status, 200);
    assert.equal((await ask(admin, clerk.id, 5000)).body.decision, false);
  });

  it('lets rules read the resource, the environment and the whole question', async () => {
    const { admin, clerk } = await office();
    const rules = {
      owner: is('target.owner', clerk.id),
      label: is('target.labels.level', 'low'),
      time: { '<': [{ var: 'request.time' }, '2026-01-01'] },
      address: is('request.ip', '10.0.0.1'),
      mfa: is('authzen.context.mfa', true),
      device: is('authzen.subject.properties.device', 'd1'),
      reason: is('authzen.action.properties.reason', 'audit'),
    };
    for (const [name, rule] of Object.entries(rules))
      await admin.call('POST', '/v1/policy/', { role: 'clerk', rule: { and: [is('action', name), rule] } });
    const decided = async (name: string, more: object) =>
      (await ask(admin, clerk.id, 5000, { action: { name, properties: { reason: 'audit' } }, ...more })).body
        .decision;
    const full = {
      subject: { type: 'user', id: clerk.id, properties: { device: 'd1' } },
      resource: bill('1', { owner: clerk.id, labels: { level: 'low' } }),
      context: { time: '2025-06-01T10:00:00+02:00', ip: '10.0.0.1', mfa: true },
    };
    for (const name of Object.keys(rules)) assert.equal(await decided(name, full), true, name);
    for (const name of Object.keys(rules).filter((one) => one !== 'reason'))
      assert.equal(await decided(name, {}), false, name);
  });

  it('answers many at once in their order, with defaults for what they leave out', async () => {
    const { admin, clerk } = await office();
    const subject = { type: 'user', id: clerk.id };
    const body = {
      subject,
      action: { name: 'approve' },
      resource: bill('1', { amount: 1 }),
      evaluations: [
        {},
        { resource: bill('2', { amount: 5000 }) },
        { action: { name: 'delete' } },
        { subject: { type: 'user', id: 'nobody' } },
        { subject: { type: 'user' } },
        'nonsense',
      ],
    };
    const reply = await admin.call('POST', evaluations, body);
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(
      reply.body.evaluations.map(({ decision }: any) => decision),
      [true, false, false, false, false, false],
    );
    assert.deepEqual(
      reply.body.evaluations.slice(3).map(({ context }: any) => context.reason ?? context.error),
      [
        'subject_unknown',
        { status: 400, message: 'Subject.id is required.' },
        { status: 400, message: 'An evaluation must be an object.' },
      ],
    );
    const short = async (evaluations_semantic: string) =>
      (
        await admin.call('POST', evaluations, { ...body, options: { evaluations_semantic } })
      ).body.evaluations.map(({ decision }: any) => decision);
    assert.deepEqual(await short('deny_on_first_deny'), [true, false]);
    assert.deepEqual(await short('permit_on_first_permit'), [true]);
    assert.equal((await short('execute_all')).length, 6);
    const { evaluations: _, ...single } = body;
    assert.equal((await admin.call('POST', evaluations, single)).body.decision, true);
    assert.equal((await admin.call('POST', evaluations, { ...single, evaluations: [] })).body.decision, true);
  });

  it('refuses as the standard says: 400 for what is missing, unknown fields are ignored', async () => {
    const { admin, clerk } = await office();
    const good = {
      subject: { type: 'user', id: clerk.id },
      action: { name: 'approve' },
      resource: bill('1', { amount: 1 }),
    };
    const extra = await admin.call('POST', evaluation, {
      ...good,
      later: 1,
      action: { name: 'approve', more: 2 },
    });
    assert.deepEqual([extra.status, extra.body.decision], [200, true]);
    const bodies: [object, RegExp][] = [
      [{}, /^Subject is required\.$/],
      [{ ...good, action: undefined }, /^Action is required\.$/],
      [{ ...good, action: {} }, /^Action\.name is required\.$/],
      [{ ...good, resource: { type: 'x' } }, /^Resource\.id is required\.$/],
      [{ ...good, subject: { type: 'user', id: 5 } }, /^The field subject\.id /],
      [{ ...good, context: [] }, /^The field context /],
    ];
    for (const [body, message] of bodies) {
      const { status, body: said } = await admin.call('POST', evaluation, body);
      assert.deepEqual([status, said.error.code], [400, 'BAD_REQUEST']);
      assert.match(said.error.message, message);
    }
    for (const more of [
      { options: 5 },
      { options: { evaluations_semantic: 'all' } },
      { evaluations: {} },
      { evaluations: Array(101).fill({}) },
    ])
      assert.equal((await admin.call('POST', evaluations, { ...good, ...more })).status, 400);
  });

  it('is for those who may ask', async () => {
    const { admin, clerk } = await office();
    assert.equal((await ask(clerk, clerk.id, 1)).status, 403);
    assert.equal((await call('POST', evaluation, { body: {} })).status, 401);
    const key = await newKey(admin, { scopes: ['policy:test'] });
    assert.equal((await ask(key, clerk.id, 1)).body.decision, true);
    assert.equal((await ask(await newKey(admin, { scopes: ['read'] }), clerk.id, 1)).status, 403);
  });

  it('leaves a fact of each no, and its decisions can be simulated', async () => {
    const { admin, clerk, policy } = await office();
    await ask(admin, clerk.id, 10);
    await ask(admin, clerk.id, 5000);
    const { app } = await testServer();
    await flushDenials(app);
    const facts = await app.database.tenant(admin.tenant).rows(
      sql<{
        resource_id: string;
        data: any;
      }>`select resource_id, data from facts where tenant_id = ${admin.tenant} and type = 'access.denied'`,
    );
    assert.deepEqual(
      facts.map(({ resource_id, data }) => [resource_id, data.permission, data.subject_id, data.reason]),
      [['17', 'invoice:approve', clerk.id, 'default_deny']],
    );
    const { body } = await admin.call('POST', '/v1/policy/simulate', {
      changes: [{ op: 'delete', id: policy }],
    });
    assert.deepEqual(
      body.changed.map(({ who, permission, target, count }: any) => [
        who.identity_id,
        permission,
        target,
        count,
      ]),
      [[clerk.id, 'invoice:approve', { metadata: { amount: 10 } }, 1]],
    );
  });
});
