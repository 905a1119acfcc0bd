import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Caller, newMember, newTenant, type Reply, testServer, useTestServer } from '#test/harness.ts';
import { unnamedRole } from './service.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const about = (resource: string, action: string, ...more: unknown[]) => ({
  and: [is('resource', resource), is('action', action), ...more],
});
const write = (who: Caller, rule: unknown, more: object = {}) =>
  who.call('POST', '/v1/policy/', { role: 'user', rule, ...more });
const told = (problems: { path: string; message: string }[] | undefined): string[] =>
  (problems ?? []).map(({ path, message }) => `${path} ${message}`);
const refusal = ({ status, body }: Reply): string[] => {
  assert.equal(status, 422, JSON.stringify(body));
  return told(body.error.details.errors);
};
const warningsOf = ({ status, body }: Reply): string[] => {
  assert.ok(status < 300, JSON.stringify(body));
  return told(body.data ? body.data.warnings : body.warnings);
};

describe('a name in a policy', () => {
  it('of an attribute that does not exist is refused, with its place and the nearest there are', async () => {
    const admin = await newTenant();
    const [owner] = refusal(await write(admin, about('memory', 'read', is('resource.ownr_id', 'x'))));
    assert.match(
      owner!,
      /^\/rule\/and\/2\/==\/0\/var names no attribute: there is no "resource.ownr_id". Nearest: .*"target.owner"/,
    );
    for (const [rule, pattern] of [
      [is('memory_typ', 'note'), /^\/rule\/==\/0\/var .*"memory_typ"\. Nearest: "memory_type"/],
      [is('principal.role', 'user'), /"principal.role"\. Nearest: "identity.role"/],
      [is('identity.claim.team', 'red'), /"identity.claim.team"\. Nearest: .*"identity.claims"/],
      [is('request.methd', 'GET'), /"request.methd"\. Nearest: "request.method"/],
      [is('role.name', 'x'), /"role.name"/],
      [
        { '!': { missing: ['claims.team', 'clams'] } },
        /^\/rule\/!\/missing\/1 .*"clams"\. Nearest: "claims"/,
      ],
      [{ '==': [{ missing_some: [1, ['claims.a', 'clam.b']] }, 1] }, /"clam.b"/],
      [{ '==': [{ var: ['target.lables.secret', 'no'] }, 'no'] }, /"target.lables.secret"/],
      [{ some: [{ var: 'target.label' }, is('anything', 1)] }, /"target.label"\. Nearest: "target.labels"/],
      [is('x'.repeat(3_000), 1), /there is no "x{64}…"/],
    ] as const)
      assert.match(refusal(await write(admin, rule))[0]!, pattern);
    const { body } = await admin.call('GET', '/v1/policy/?role=user');
    assert.deepEqual(
      body.map(({ builtin }: { builtin: boolean }) => builtin),
      [true],
      'nothing of it is kept',
    );
  });

  it('may be anything below an open attribute, and of an element of a list', async () => {
    const admin = await newTenant();
    for (const rule of [
      is('claims.anything.at.all', 1),
      is('identity.claims.team', 'red'),
      is('target.labels.secret', true),
      is('target.metadata.client.name', 'x'),
      is('memory_metadata.x', 1),
      is('authzen.subject.properties.mfa', true),
      { some: [{ var: 'target.metadata.grants' }, is('whatever', 1)] },
      { '==': [{ var: { cat: ['claims.', { var: 'action' }] } }, true] },
      { '!!': [{ var: '' }] },
    ])
      assert.deepEqual(warningsOf(await write(admin, rule)), []);
  });

  it('of a resource or action that is a slip is refused, unless other applications are meant', async () => {
    const admin = await newTenant();
    for (const [rule, pattern] of [
      [about('memroy', 'read'), /^\/rule\/and\/0\/==\/1 is no resource.*"memroy"\. Nearest: "memory"/],
      [about('memories', 'read'), /"memories"\. Nearest: "memory"/],
      [about('api-keys', 'read'), /"api-keys"\. Nearest: "api_keys"/],
      [{ in: [{ var: 'resource' }, ['memory', 'document']] }, /^\/rule\/in\/1\/1 .*"documents"/],
      [about('memory', 'udpate'), /^\/rule\/and\/1\/==\/1 is no action.*"udpate"\. Nearest: "update"/],
      [{ '!=': ['raed', { var: 'action' }] }, /^\/rule\/!=\/0 .*"raed"\. Nearest: "read"/],
    ] as const)
      assert.match(refusal(await write(admin, rule))[0]!, pattern);
    const theirs = { and: [is('resource', 'document'), { '!!': [{ var: 'authzen' }] }] };
    assert.deepEqual(warningsOf(await write(admin, theirs)), []);
    assert.deepEqual(warningsOf(await write(admin, about('memory', 'write'))), [], 'a word of its own');
  });

  it('of a resource or action that could be another application’s is told', async () => {
    const admin = await newTenant();
    const foreign = warningsOf(await write(admin, about('invoice', 'approve')));
    assert.equal(foreign.length, 2);
    assert.match(foreign[0]!, /^\/rule\/and\/0\/==\/1 is no resource.*"invoice".*AuthZEN/);
    assert.match(foreign[1]!, /^\/rule\/and\/1\/==\/1 is no action.*"approve".*AuthZEN/);
    const [never] = warningsOf(await write(admin, about('memory', 'reindex')));
    assert.match(never!, /^\/rule\/and\/1\/==\/1 is never done to "memory", only "create", "read"/);
  });

  it('of a role that nobody has is told, with the nearest there are, until somebody has it', async () => {
    const [admin, other] = [await newTenant(), await newTenant()];
    await newMember(other, 'auditor');
    const post = async (who: Caller) =>
      warningsOf(await write(who, is('role', 'auditor'), { role: 'auditr' }));
    const [role, compared] = await post(admin);
    assert.match(role!, /^\/role is a role that nobody has yet: "auditr"\. Nearest: /);
    assert.match(compared!, /^\/rule\/==\/1 is a role that nobody has yet: "auditor"/);
    const [slip, ...none] = await post(other);
    assert.match(slip!, /^\/role .*"auditr"\. Nearest: "auditor"/);
    assert.deepEqual(none, []);
    assert.deepEqual(warningsOf(await write(admin, true, { role: '*', effect: 'allow' })), []);
    for (const [rule, more] of [
      [{ actions: 'read', resource: 'memory', conditions: { roles: ['auditr', 'user'] } }, { role: '*' }],
      [{ in: [{ var: 'role' }, ['user', 'auditr']] }, {}],
      [{ in: [{ var: 'identity.role' }, ['auditr']] }, {}],
      [{ '!=': [{ var: 'identity.role' }, 'auditr'] }, {}],
      [{ actions: 'read', effect: 'allow' }, { role: 'auditr' }],
    ] as const)
      for (const who of [admin, other]) {
        const told = warningsOf(await write(who, rule, more));
        assert.deepEqual(
          [told.length, /a role that nobody has yet: "auditr"/.test(told[0]!)],
          [1, true],
          JSON.stringify([rule, told]),
        );
      }
  });

  it('that makes a role something is one in force: any role else is doubted, with the nearest there are', async () => {
    const { app } = await testServer();
    const [admin, other] = [await newTenant(), await newTenant()];
    const doubt = (who: Caller, role: string) => unnamedRole(app.database.tenant(who.tenant), role);
    for (const role of ['system', 'admin', 'editor', 'reader', 'agent', 'user'])
      assert.equal(await doubt(admin, role), undefined);
    const { id } = (await write(admin, about('memory', 'read'), { role: 'auditor' })).body;
    await write(admin, { in: [{ var: 'role' }, ['clerk', 'user']] }, { role: '*' });
    for (const role of ['auditor', 'clerk']) {
      assert.equal(await doubt(admin, role), undefined);
      assert.match((await doubt(other, role))!, new RegExp(`^${role} is no built-in role, and no policy`));
    }
    assert.match((await doubt(admin, 'auditr'))!, /Nearest: auditor, /);
    assert.doesNotMatch((await doubt(other, 'auditr'))!, /auditor/);
    await admin.call('PUT', `/v1/policy/${id}`, { is_active: false });
    assert.match((await doubt(admin, 'auditor'))!, /no policy of the tenant names it/);
  });

  it('is looked at by every door: changes, going back, stored tests, questions, simulations, governance', async () => {
    const admin = await newTenant();
    const { id } = (await write(admin, about('invoice', 'approve', is('role', 'clerk')))).body;
    const path = `/v1/policy/${id}`;
    assert.match(refusal(await admin.call('PUT', path, { rule: is('ownr', 1) }))[0]!, /^\/rule\/==\/0\/var/);
    assert.equal(warningsOf(await admin.call('PUT', path, { priority: 2 })).length, 3);
    assert.equal(warningsOf(await admin.call('POST', `${path}/rollback`, { version: 1 })).length, 3);

    const test = (context: object) => [{ name: 'one', context, expect: 'no_match' }];
    const asked = (context: object) =>
      write(admin, is('resource', 'memory'), { is_active: false, tests: test(context) });
    assert.match(
      refusal(await asked({ action: 'raed', resource: 'memory' }))[0]!,
      /^\/tests\/0\/context\/action is no action.*"raed"/,
    );
    assert.match(
      refusal(await admin.call('PUT', path, { tests: test({ action: 'read', resource: 'memroy' }) }))[0]!,
      /^\/tests\/0\/context\/resource .*"memroy"/,
    );
    const [foreign, clerk] = warningsOf(await asked({ action: 'read', resource: 'bills', role: 'clerk' }));
    assert.match(foreign!, /^\/tests\/0\/context\/resource .*"bills"/);
    assert.match(clerk!, /^\/tests\/0\/context\/role .*"clerk"/);

    const question = await admin.call('POST', '/v1/policy/test?role=agnet&action=raed&resource=memroy');
    assert.deepEqual(
      warningsOf(question).map((text) => text.split(' ', 1)[0]),
      ['/resource', '/action', '/role'],
    );
    const sound = await admin.call('POST', '/v1/policy/test?role=agent&action=read&resource=memory');
    assert.equal(sound.body.warnings, undefined);

    const simulated = (draft: object) => admin.call('POST', '/v1/policy/simulate', { draft });
    assert.match(
      refusal(await simulated({ role: 'user', rule: is('target.ownr', 1) }))[0]!,
      /^\/draft\/rule\/==\/0\/var .*"target.owner"/,
    );
    assert.match(
      warningsOf(await simulated({ role: 'clerk', rule: true }))[0]!,
      /^\/draft\/role is a role that nobody has yet/,
    );

    const govern = (condition_json: object) =>
      admin.call('POST', '/v1/admin/governance/policies', {
        rule_key: 'documents.delete',
        condition_json,
        action_json: { type: 'deny' },
      });
    assert.match(
      refusal(await govern({ 'target.ownr': 'x' }))[0]!,
      /^\/condition_json\/target.ownr names no attribute: .*"target.owner"/,
    );
    assert.match(
      warningsOf(await govern({ actor_role_in: ['editor', 'clerk'] }))[0]!,
      /^\/condition_json\/actor_role_in is a role that nobody has yet: "clerk"/,
    );
  });
});
