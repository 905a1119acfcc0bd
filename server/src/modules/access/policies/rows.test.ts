import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Caller, call, eventually, newMember, newTenant, useTestServer } from '#test/harness.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
async function written(owner: Caller, policy: object): Promise<string> {
  const reply = await owner.call('POST', '/v1/policy/', policy);
  assert.equal(reply.status, 201, reply.text);
  return reply.body.id;
}
async function remembered(owner: Caller, type: string, metadata: object = {}): Promise<string> {
  const reply = await owner.call('POST', '/v1/memory/', { text: `a ${type} on the harbour`, type, metadata });
  assert.equal(reply.status, 201, reply.text);
  return reply.body.id;
}

describe('a policy that looks at rows', () => {
  it('opens those rows to a role that may do nothing else', async () => {
    const admin = await newTenant();
    const auditor = await newMember(admin, 'auditor');
    const report = await remembered(admin, 'report');
    const diary = await remembered(admin, 'diary');
    assert.equal((await auditor.call('GET', '/v1/memory/')).status, 403);
    await written(admin, {
      role: 'auditor',
      rule: { and: [is('resource', 'memory'), is('action', 'read'), is('memory_type', 'report')] },
    });
    assert.equal((await auditor.call('GET', `/v1/memory/${report}`)).status, 200);
    assert.equal((await auditor.call('GET', `/v1/memory/${diary}`)).status, 404);
    const list = await auditor.call('GET', '/v1/memory/');
    assert.deepEqual(
      list.body.map(({ id }: any) => id),
      [report],
    );
    const found = await auditor.call('POST', '/v1/memory/search', { query: 'harbour' });
    assert.deepEqual(
      found.body.map(({ id }: any) => id),
      [report],
    );
    assert.equal((await auditor.call('PUT', `/v1/memory/${report}`, { type: 'x' })).status, 403);
    assert.equal((await auditor.call('GET', '/v1/corpora')).status, 403);
    assert.equal((await auditor.call('POST', '/v1/memory/', { text: 'x', type: 'report' })).status, 403);
  });

  it('lets a role write only what it may, also in bulk', async () => {
    const admin = await newTenant();
    const clerk = await newMember(admin, 'clerk');
    await written(admin, {
      role: 'clerk',
      rule: { and: [is('resource', 'memory'), is('action', 'create'), is('memory_metadata.client', 'acme')] },
    });
    const post = (client: string) =>
      clerk.call('POST', '/v1/memory/', { text: 'x', type: 'note', metadata: { client } });
    assert.equal((await post('acme')).status, 201);
    assert.equal((await post('other')).status, 403);
    const memories = ['acme', 'other'].map((client) => ({ text: 'x', type: 'note', metadata: { client } }));
    const bulk = await clerk.call('POST', '/v1/memory/bulk', { memories });
    assert.deepEqual([bulk.body.created.length, bulk.body.failed[0].error.code], [1, 'POLICY_DENIED']);
  });

  it('does not open a route that decides no rows', async () => {
    const admin = await newTenant();
    const clerk = await newMember(admin, 'clerk');
    await written(admin, {
      role: 'clerk',
      rule: { and: [is('resource', 'corpora'), is('target.type', 'x')] },
    });
    assert.equal((await clerk.call('POST', '/v1/corpora', { name: 'Mine' })).status, 403);
    assert.deepEqual((await clerk.call('GET', '/v1/corpora')).body.data, []);
  });

  it('closes rows before a broader policy opens them, and only those', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    const [secret, open] = [await remembered(user, 'secret'), await remembered(user, 'note')];
    // At the door no type is known, and "not a note" would be true of everything.
    await written(admin, {
      role: 'user',
      effect: 'deny',
      priority: 1,
      rule: { and: [is('resource', 'memory'), is('action', 'read'), { '!': [is('memory_type', 'note')] }] },
    });
    assert.equal((await user.call('GET', `/v1/memory/${open}`)).status, 200);
    assert.equal((await user.call('GET', `/v1/memory/${secret}`)).status, 404);
  });

  it('is not got round by changing what it looks at', async () => {
    const [admin, other] = [await newTenant(), await newTenant()];
    const [user, theirs] = [await newMember(admin, 'user'), await newMember(other, 'user')];
    const write = { in: [{ var: 'action' }, ['create', 'update']] };
    for (const rule of [is('memory_type', 'official'), is('memory_metadata.team', 'red')])
      await written(admin, {
        role: 'user',
        effect: 'deny',
        rule: { and: [is('resource', 'memory'), write, rule] },
      });
    const changes = [{ type: 'official' }, { metadata: { team: 'red' } }, { meta_data: { team: 'red' } }];
    for (const [who, status] of [
      [user, 403],
      [theirs, 200],
    ] as const)
      for (const change of changes) {
        const id = await remembered(who, 'note');
        const reply = await who.call('PUT', `/v1/memory/${id}`, change);
        assert.equal(reply.status, status, reply.text);
        if (status === 403) assert.equal((await who.call('GET', `/v1/memory/${id}`)).body.version, 1);
        const harmless = await who.call('PUT', `/v1/memory/${id}`, { text: 'another text' });
        assert.equal(harmless.status, status === 403 ? 200 : harmless.status, harmless.text);
      }
  });

  it('is not got round by importing over a memory', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    await written(admin, {
      role: 'user',
      effect: 'deny',
      rule: { and: [is('resource', 'memory'), is('action', 'update'), is('memory_type', 'official')] },
    });
    const id = await remembered(user, 'note');
    const line = { id, text: 'a note on the harbour', type: 'official' };
    const reply = await call('POST', '/v1/memory/import', {
      token: user.token,
      payload: `${JSON.stringify(line)}\n`,
      headers: { 'content-type': 'application/x-ndjson' },
    });
    const state = await eventually('the import', async () => {
      const { body } = await user.call('GET', reply.body.status_url);
      return ['succeeded', 'failed'].includes(body.status) && body;
    });
    assert.equal(state.errors?.[0]?.code, 'POLICY_DENIED', JSON.stringify(state));
    assert.equal((await user.call('GET', `/v1/memory/${id}`)).body.type, 'note');
  });

  it('is not got round by importing what a memory is said to have been', async () => {
    const [admin, other] = [await newTenant(), await newTenant()];
    await written(admin, {
      role: 'user',
      effect: 'deny',
      rule: { and: [is('resource', 'memory'), is('action', 'create'), is('memory_type', 'official')] },
    });
    const [from, until] = ['2025-01-01T00:00:00Z', '2025-02-01T00:00:00Z'];
    const was = { version: 1, text: 'was decreed', metadata: {}, session_id: null, role: null };
    const times = {
      occurred_at: null,
      ttl_days: null,
      expires_at: null,
      valid_from: from,
      valid_until: until,
    };
    const line = {
      text: 'a note',
      type: 'note',
      version: 2,
      created_at: from,
      updated_at: until,
      versions: [{ ...was, ...times, type: 'official' }],
    };
    const outcomeOf = async (who: Caller) => {
      const reply = await call('POST', '/v1/memory/import', {
        token: who.token,
        payload: `${JSON.stringify(line)}\n`,
        headers: { 'content-type': 'application/x-ndjson' },
      });
      const state = await eventually('the import', async () => {
        const { body } = await who.call('GET', reply.body.status_url);
        return ['succeeded', 'failed'].includes(body.status) && body;
      });
      return [state.created, state.errors[0]?.code];
    };
    assert.deepEqual(await outcomeOf(await newMember(admin, 'user')), [0, 'POLICY_DENIED']);
    assert.deepEqual(await outcomeOf(await newMember(other, 'user')), [1, undefined]);
  });

  it('closes a memory also where the answer to a change would show it', async () => {
    const [admin, other] = [await newTenant(), await newTenant()];
    const [user, theirs] = [await newMember(admin, 'user'), await newMember(other, 'user')];
    const statusesOf = async (who: Caller) => {
      const [kept, gone] = [await remembered(who, 'secret'), await remembered(who, 'secret')];
      assert.equal((await who.call('DELETE', `/v1/memory/${gone}`)).status, 204);
      if (who === user)
        await written(admin, {
          role: 'user',
          effect: 'deny',
          rule: { and: [is('resource', 'memory'), is('action', 'read'), is('memory_type', 'secret')] },
        });
      const replies = [
        await who.call('GET', `/v1/memory/${kept}`),
        await who.call('PUT', `/v1/memory/${kept}`, {}),
        await who.call('PUT', `/v1/memory/${kept}`, { metadata: {} }),
        await who.call('POST', `/v1/memory/${gone}/restore`),
      ];
      return replies.map(({ status }) => status);
    };
    assert.deepEqual(await statusesOf(user), [404, 404, 404, 404]);
    assert.deepEqual(await statusesOf(theirs), [200, 200, 200, 200]);
  });

  it('opens identities, sessions and keys row by row, and nothing else of them', async () => {
    const admin = await newTenant();
    const clerk = await newMember(admin, 'clerk');
    const [agent, user] = [await newMember(admin, 'agent'), await newMember(admin, 'user')];
    for (const who of [clerk, user])
      assert.ok([403, 404].includes((await clerk.call('GET', `/v1/identity/${who.id}`)).status));
    const resources = { in: [{ var: 'resource' }, ['identity', 'sessions', 'api_keys']] };
    await written(admin, { role: 'clerk', rule: { and: [resources, is('target.role', 'agent')] } });
    await written(admin, { role: 'clerk', rule: { and: [resources, is('target.owner', agent.id)] } });
    const key = async (who: Caller) =>
      (await who.call('POST', '/v1/api-keys/', { name: 'a key', identity_id: who.id })).body.api_key;
    const [agents, users] = [
      (await admin.call('POST', '/v1/api-keys/', { name: 'the agent’s', identity_id: agent.id })).body.api_key
        .id,
      (await key(user)).id,
    ];
    const statusOf = async (method: string, path: string, body?: object) =>
      (await clerk.call(method, path, body)).status;
    assert.equal(await statusOf('GET', `/v1/identity/${agent.id}`), 200);
    assert.equal(await statusOf('GET', `/v1/identity/${user.id}`), 404);
    assert.deepEqual(
      (await clerk.call('GET', '/v1/identity/')).body.map(({ id }: Caller) => id),
      [agent.id],
    );
    assert.equal(await statusOf('PUT', `/v1/identity/${user.id}`, { name: 'x' }), 404);
    assert.equal(await statusOf('GET', `/v1/api-keys/${users}`), 404);
    assert.deepEqual(
      (await clerk.call('GET', '/v1/api-keys/')).body.map(({ id }: Caller) => id),
      [agents],
    );
    assert.equal(await statusOf('DELETE', `/v1/api-keys/${users}`), 404);
    assert.equal(await statusOf('GET', '/v1/self-serve/api-keys'), 403, 'that door is for who may see all');
    assert.equal(await statusOf('POST', `/v1/self-serve/api-keys/${users}/revoke`), 403);
    assert.equal(await statusOf('DELETE', `/v1/sessions/?identity_id=${user.id}`), 403);
    assert.equal(await statusOf('DELETE', '/v1/sessions/'), 403);
    assert.equal(await statusOf('POST', '/v1/identity/bulk-delete', { identity_ids: [user.id] }), 200);
    assert.equal((await user.call('GET', '/v1/identity/me')).status, 200, 'nobody was deleted');
    assert.equal(await statusOf('GET', '/v1/delegations'), 403);
  });

  it('closes a row also at the door of services', async () => {
    const admin = await newTenant();
    const made = async () =>
      (await admin.call('POST', '/v1/self-serve/api-keys', { role: 'reader' })).body.data.key_id;
    const [closed, open] = [await made(), await made()];
    const rule = { and: [is('resource', 'api_keys'), is('target.id', closed)] };
    await written(admin, { role: 'admin', effect: 'deny', priority: 5, rule });
    const list = (await admin.call('GET', '/v1/self-serve/api-keys')).body.data.items;
    assert.deepEqual(
      list.map(({ key_id }: any) => key_id),
      [open],
    );
    const revoke = async (id: string) =>
      (await admin.call('POST', `/v1/self-serve/api-keys/${id}/revoke`)).status;
    assert.deepEqual([await revoke(closed), await revoke(open)], [404, 200]);
  });

  it('narrows even who may manage policies', async () => {
    const admin = await newTenant();
    const lead = await newMember(admin, 'lead');
    await written(admin, {
      role: 'lead',
      rule: { and: [is('resource', 'policy'), is('target.role', 'crew')] },
    });
    const own = await written(lead, { role: 'crew', rule: false });
    assert.equal((await lead.call('POST', '/v1/policy/', { role: 'admin', rule: true })).status, 403);
    assert.equal((await lead.call('PUT', `/v1/policy/${own}`, { role: 'admin' })).status, 403);
    assert.deepEqual(
      (await lead.call('GET', '/v1/policy/')).body.map(({ id }: any) => id),
      [own],
    );
    const others = await written(admin, { role: 'user', rule: false });
    assert.equal((await lead.call('GET', `/v1/policy/${others}`)).status, 404);
    assert.equal((await lead.call('GET', `/v1/policy/${others}/versions`)).status, 404);
    assert.equal((await lead.call('PUT', `/v1/policy/${others}`, { rule: true })).status, 404);
    assert.equal((await lead.call('DELETE', `/v1/policy/${others}`)).status, 404);
    assert.equal((await lead.call('DELETE', `/v1/policy/${own}`)).status, 204);
  });
});

describe('a rule about a path', () => {
  it('is not walked round by an alias, a slash, an escape, capitals or HEAD', async () => {
    const admin = await newTenant();
    const deny = (rule: object) => written(admin, { role: 'reader', effect: 'deny', rule });
    const reader = await newMember(admin, 'reader');
    const spellings = ['/v1/corpora', '/v1/corpora/', '/v1/corpor%61', '/corpora', '/corpora/'];
    for (const path of spellings) assert.equal((await reader.call('GET', path)).status, 200, path);
    const id = await deny({ and: [is('request.path', '/v1/corpora'), is('request.method', 'GET')] });
    for (const path of spellings) {
      assert.equal((await reader.call('GET', path)).status, 403, path);
      assert.equal((await call('HEAD', path, { token: reader.token })).status, 403, `HEAD ${path}`);
    }
    assert.equal((await admin.call('DELETE', `/v1/policy/${id}`)).status, 204);
    const corpus = (await admin.call('POST', '/v1/corpora', { id: 'shelf', name: 'Shelf' })).body.data.id;
    await deny(is('request.path', `/v1/corpora/${corpus}`));
    for (const path of ['/v1/corpora/shelf', '/v1/corpora/shel%66', '/corpora/shelf/'])
      assert.equal((await reader.call('GET', path)).status, 403, path);
    const user = await newMember(admin, 'user');
    const memory = await remembered(user, 'note');
    await written(admin, { role: 'user', effect: 'deny', rule: is('request.path', `/v1/memory/${memory}`) });
    for (const path of [memory, memory.toUpperCase()])
      assert.equal((await user.call('GET', `/v1/memory/${path}`)).status, 403, path);
  });
});
