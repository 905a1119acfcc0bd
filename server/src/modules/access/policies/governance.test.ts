import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Caller, eventually, newMember, newTenant, type Reply, useTestServer } from '#test/harness.ts';

useTestServer();

const door = '/v1/admin/governance/policies';
const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });

async function ruled(owner: Caller, rule: object): Promise<any> {
  const reply = await owner.call('POST', door, rule);
  assert.equal(reply.status, 200, reply.text);
  return reply.body.data;
}
const problems = ({ status, body, text }: Reply): string[] => {
  assert.equal(status, 422, text);
  return body.error.details.errors.map(({ path, message }: any) => `${path} ${message}`);
};
let named = 0;
async function stored(owner: Caller, labels?: object): Promise<string> {
  const id = `paper-${++named}`;
  const metadata_json = labels ? { labels } : {};
  await owner.call('POST', '/v1/corpora', { id: 'papers', name: 'Papers' });
  const reply = await owner.call('POST', '/v1/documents/text', {
    corpus_id: 'papers',
    document_id: id,
    text: 'Words.',
    metadata_json,
  });
  assert.equal(reply.status, 202, reply.text);
  await eventually(
    'the document',
    async () => (await owner.call('GET', `/v1/documents/${id}`)).body.data.status === 'succeeded',
  );
  return id;
}

describe('the governance door', () => {
  it('keeps rules as they were written, in the table of all policies', async () => {
    const admin = await newTenant();
    const input = {
      rule_key: 'documents.delete',
      enabled: true,
      priority: 1000,
      condition_json: { method: 'DELETE', endpoint_prefix: '/v1/documents/' },
      action_json: { type: 'deny', code: 'POLICY_DENIED', message: 'Delete disabled by policy' },
    };
    const { id, tenant_id, created_at, updated_at, ...kept } = await ruled(admin, input);
    assert.deepEqual([kept, tenant_id, created_at], [input, admin.tenant, updated_at]);
    assert.deepEqual(
      (await admin.call('GET', `${door}?rule_key=documents.delete`)).body.data.map((one: any) => one.id),
      [id],
    );
    assert.deepEqual((await admin.call('GET', `${door}?rule_key=corpora.patch`)).body.data, []);
    const { body: policy } = await admin.call('GET', `/v1/policy/${id}`);
    assert.deepEqual(policy.rule, {
      and: [
        is('resource', 'documents'),
        is('action', 'delete'),
        is('request.method', 'DELETE'),
        { '==': [{ substr: [{ var: 'request.path' }, 0, 14] }, '/v1/documents/'] },
      ],
    });
    assert.deepEqual(
      [policy.role, policy.effect, policy.priority, policy.rule_key, policy.code, policy.message],
      ['*', 'deny', 1000, 'documents.delete', 'POLICY_DENIED', 'Delete disabled by policy'],
    );
    assert.equal(policy.written_as.form, 'governance');
    for (const action_json of [{ deny: true }, { actions: [{ type: 'deny' }] }, { type: 'allow' }])
      assert.deepEqual(
        (await ruled(admin, { rule_key: 'dsar.execute', action_json })).action_json,
        action_json,
      );
    const defaults = await ruled(admin, { rule_key: 'corpora.patch', action_json: { type: 'allow' } });
    assert.deepEqual([defaults.enabled, defaults.priority, defaults.condition_json], [true, 100, {}]);
  });

  it('denies with its own code and words, until it is disabled or deleted', async () => {
    const admin = await newTenant();
    const id = await stored(admin);
    const rule = await ruled(admin, {
      rule_key: 'documents.delete',
      condition_json: { method: 'delete' },
      action_json: { type: 'deny', code: 'RETAINED', message: 'Papers are kept.' },
    });
    const refused = await admin.call('DELETE', `/v1/documents/${id}`);
    assert.deepEqual(
      [refused.status, refused.body.error],
      [403, { code: 'RETAINED', message: 'Papers are kept.' }],
    );
    assert.equal(
      (await admin.call('DELETE', `/documents/${id}`)).status,
      403,
      'the unversioned alias as well',
    );
    assert.equal((await admin.call('POST', `/v1/documents/${id}/reindex`, {})).status, 202);
    const off = await admin.call('PATCH', `${door}/${rule.id}`, { enabled: false });
    assert.deepEqual(
      [off.status, off.body.data.enabled, off.body.data.condition_json],
      [200, false, { method: 'delete' }],
    );
    await eventually(
      'the document',
      async () => (await admin.call('GET', `/v1/documents/${id}`)).body.data.status === 'succeeded',
    );
    assert.equal((await admin.call('PATCH', `${door}/${rule.id}`, { enabled: true })).status, 200);
    assert.equal((await admin.call('DELETE', `/v1/documents/${id}`)).status, 403);
    assert.equal((await admin.call('DELETE', `${door}/${rule.id}`)).status, 204);
    assert.equal((await admin.call('DELETE', `/v1/documents/${id}`)).status, 204);
    const { body } = await admin.call('GET', `/v1/policy/${rule.id}/versions`);
    assert.deepEqual(
      body.map(({ change }: any) => change),
      ['deleted', 'updated', 'updated', 'created'],
    );
  });

  it('looks at tags, roles, paths and attributes', async () => {
    const admin = await newTenant();
    const editor = await newMember(admin, 'editor');
    const tagged = await stored(admin, { legal: true, level: 'secret' });
    const plain = await stored(admin, { draft: true });
    const attempts = async (condition_json: object): Promise<string[]> => {
      const rule = await ruled(admin, {
        rule_key: 'documents.delete',
        condition_json,
        action_json: { type: 'deny' },
      });
      const trace: string[] = [];
      for (const [name, who, document] of [
        ['admin tagged', admin, tagged],
        ['admin plain', admin, plain],
        ['editor tagged', editor, tagged],
        ['editor plain', editor, plain],
      ] as const) {
        const asked = {
          role: who === admin ? 'admin' : 'editor',
          action: 'delete',
          resource: 'documents',
          context: {
            target: {
              id: document,
              labels: document === tagged ? { legal: true, level: 'secret' } : { draft: true },
            },
            request: { method: 'DELETE', path: `/v1/documents/${document}` },
          },
        };
        if (!(await admin.call('POST', '/v1/policy/test', asked)).body.allowed) trace.push(name);
      }
      assert.equal((await admin.call('DELETE', `${door}/${rule.id}`)).status, 204);
      return trace;
    };
    const everything = ['admin tagged', 'admin plain', 'editor tagged', 'editor plain'];
    assert.deepEqual(await attempts({}), everything);
    assert.deepEqual(await attempts({ tags_any: ['legal', 'other'] }), ['admin tagged', 'editor tagged']);
    assert.deepEqual(await attempts({ tags_any: ['other'] }), []);
    assert.deepEqual(await attempts({ actor_role_in: ['editor'] }), ['editor tagged', 'editor plain']);
    assert.deepEqual(await attempts({ endpoint: `/v1/documents/${plain}` }), ['admin plain', 'editor plain']);
    assert.deepEqual(await attempts({ endpoint_prefix: '/v1/run' }), []);
    assert.deepEqual(await attempts({ document_id: tagged, actor_role: 'admin' }), ['admin tagged']);
    assert.deepEqual(await attempts({ 'target.labels.level': 'secret' }), ['admin tagged', 'editor tagged']);
    assert.deepEqual(await attempts({ method: 'GET' }), []);
  });

  it('has an allow lift denials below it, and give nobody anything', async () => {
    const admin = await newTenant();
    const [editor, reader] = [await newMember(admin, 'editor'), await newMember(admin, 'reader')];
    const id = await stored(admin);
    await ruled(admin, { rule_key: 'documents.delete', priority: 500, action_json: { deny: true } });
    assert.equal((await editor.call('DELETE', `/v1/documents/${id}`)).status, 403);
    await ruled(admin, { rule_key: 'documents.delete', priority: 501, action_json: { type: 'allow' } });
    const refused = await reader.call('DELETE', `/v1/documents/${id}`);
    assert.equal(refused.status, 403, 'a reader may no more than before');
    const custom = await newMember(admin, 'stranger');
    assert.equal((await custom.call('DELETE', `/v1/documents/${id}`)).status, 403);
    assert.equal((await editor.call('DELETE', `/v1/documents/${id}`)).status, 204);
    const user = await newMember(admin, 'user');
    const { id: memory } = (await admin.call('POST', '/v1/memory/', { text: 'x', type: 'note' })).body;
    await ruled(admin, { rule_key: 'memory.delete', action_json: { type: 'allow' } });
    assert.equal((await user.call('DELETE', `/v1/memory/${memory}`)).status, 404, 'of others still not');
  });

  it('refuses by name what it can not honour', async () => {
    const admin = await newTenant();
    const post = (rule: object) =>
      admin.call('POST', door, { rule_key: 'documents.delete', action_json: { type: 'deny' }, ...rule });
    const first = async (rule: object) => problems(await post(rule))[0]!;
    for (const type of ['redact_fields', 'require_approval', 'force_legal_hold_check', 'require_encryption'])
      assert.equal(
        await first({ action_json: { type } }),
        `/action_json/type ${type} can not be carried out; there are allow and deny`,
      );
    assert.match(
      await first({ action_json: { actions: [{ type: 'deny' }, { type: 'redact_fields' }] } }),
      /^\/action_json\/actions must hold one/,
    );
    assert.match(await first({ action_json: {} }), /^\/action_json\/type is not known/);
    assert.match(await first({ action_json: { deny: false } }), /^\/action_json\/type is not known/);
    assert.match(
      await first({ action_json: { type: 'deny', reason: 'x' } }),
      /^\/action_json\/reason is not known/,
    );
    assert.match(
      await first({ action_json: { type: 'deny', code: 'lower' } }),
      /^\/action_json\/code must be/,
    );
    assert.match(await first({ rule_key: 'documents.shred' }), /^\/rule_key names nothing that is decided/);
    assert.match(
      await first({ rule_key: 'constructor.delete' }),
      /^\/rule_key names nothing that is decided/,
    );
    assert.match(
      await first({ rule_key: 'documents.delete.more' }),
      /^\/rule_key names nothing that is decided/,
    );
    assert.match(
      await first({ condition_json: { retention_days: 5 } }),
      /^\/condition_json\/retention_days names no attribute: .*endpoint_prefix/,
    );
    assert.match(
      await first({ condition_json: { role: ['admin'] } }),
      /^\/condition_json\/role must be text/,
    );
    assert.match(
      await first({ condition_json: { endpoint: 5 } }),
      /^\/condition_json\/endpoint must be text/,
    );
    assert.match(
      await first({ condition_json: { tags_any: [] } }),
      /^\/condition_json\/tags_any must be a list/,
    );
    assert.match(
      await first({ condition_json: { 'target.__proto__': 1 } }),
      /^\/condition_json\/target.__proto__ names no attribute/,
    );
    assert.deepEqual((await admin.call('GET', door)).body.data, []);
    const rule = await ruled(admin, { rule_key: 'documents.delete', action_json: { type: 'deny' } });
    assert.equal(
      (await admin.call('PATCH', `${door}/${rule.id}`, { action_json: { type: 'require_approval' } })).status,
      422,
    );
  });

  it('shows what the other door changed, and no longer what is no rule of its form', async () => {
    const admin = await newTenant();
    const { id, ...rule } = await ruled(admin, { rule_key: 'documents.delete', action_json: { deny: true } });
    await admin.call('PUT', `/v1/policy/${id}`, { priority: 7, is_active: false, message: 'Kept.' });
    const [shown] = (await admin.call('GET', door)).body.data;
    assert.deepEqual(shown, {
      ...rule,
      id,
      priority: 7,
      enabled: false,
      action_json: { type: 'deny', message: 'Kept.' },
      updated_at: shown.updated_at,
    });
    await admin.call('PUT', `/v1/policy/${id}`, {
      rule: { and: [is('resource', 'documents'), is('claims.team', 'x')] },
    });
    assert.deepEqual((await admin.call('GET', door)).body.data, []);
    assert.equal((await admin.call('PATCH', `${door}/${id}`, { enabled: true })).status, 404);
    assert.equal((await admin.call('DELETE', `${door}/${id}`)).status, 404);
    assert.equal((await admin.call('GET', `/v1/policy/${id}`)).status, 200);
    await admin.call('POST', `/v1/policy/${id}/rollback`, { version: 1 });
    assert.deepEqual(
      (await admin.call('GET', door)).body.data.map((one: any) => one.action_json),
      [{ deny: true }],
    );
  });
});

describe('a statement', () => {
  const asked = async (admin: Caller, statement: object, asks: [string, object][], role = 'clerk') => {
    const made = await admin.call('POST', '/v1/policy/', { role, rule: statement });
    assert.equal(made.status, 201, made.text);
    assert.deepEqual(made.body.written_as, { form: 'statement', rule: statement });
    const allowed: string[] = [];
    for (const [name, question] of asks) {
      const reply = await admin.call('POST', '/v1/policy/test', {
        role,
        action: 'read',
        resource: 'memory',
        ...question,
      });
      assert.equal(reply.status, 200, reply.text);
      if (reply.body.allowed) allowed.push(name);
    }
    await admin.call('DELETE', `/v1/policy/${made.body.id}`);
    return allowed;
  };

  it('is kept as it was written and means the same in JSON Logic', async () => {
    const admin = await newTenant();
    const asks: [string, object][] = [
      ['read', {}],
      ['list', { action: 'list' }],
      ['create', { action: 'create' }],
      ['update', { action: 'update' }],
      ['delete', { action: 'delete' }],
      ['identity', { resource: 'identity' }],
    ];
    const allow = { resource: 'memory', effect: 'allow' };
    assert.deepEqual(await asked(admin, { ...allow, actions: ['read', 'write'] }, asks), [
      'read',
      'list',
      'create',
      'update',
    ]);
    assert.deepEqual(await asked(admin, { ...allow, actions: 'delete' }, asks), ['delete']);
    assert.deepEqual(await asked(admin, { ...allow, actions: ['*'] }, asks), [
      'read',
      'list',
      'create',
      'update',
      'delete',
    ]);
    assert.deepEqual(await asked(admin, { actions: ['read'], effect: 'allow' }, asks), [
      'read',
      'list',
      'identity',
    ]);
    assert.deepEqual(await asked(admin, { actions: ['read'] }, asks), [], 'without an effect it denies');
    assert.deepEqual(
      await asked(
        admin,
        { actions: ['read'], effect: 'deny' },
        [['own', { target: 'own' }]] as never,
        'user',
      ),
      [],
    );
  });

  it('keeps its conditions of time, address, row and person', async () => {
    const admin = await newTenant();
    const when = (time: string): object => ({ context: { request: { time } } });
    const from = (ip: string): object => ({ context: { request: { ip } } });
    const allowIf = (conditions: object) => ({
      actions: ['read'],
      resource: 'memory',
      effect: 'allow',
      conditions,
    });
    const times: [string, object][] = [
      ['monday 9', when('2026-11-23T09:30:00Z')],
      ['monday 17', when('2026-11-23T17:00:00Z')],
      ['sunday 9', when('2026-11-22T09:00:00.5Z')],
      ['next year', when('2027-01-04T09:00:00Z')],
    ];
    const time_of_day = [8, 9, 10];
    assert.deepEqual(await asked(admin, allowIf({ time_restrictions: { time_of_day } }), times), [
      'monday 9',
      'sunday 9',
      'next year',
    ]);
    assert.deepEqual(await asked(admin, allowIf({ time_restrictions: { days_of_week: [0] } }), times), [
      'monday 9',
      'monday 17',
      'next year',
    ]);
    const date_range = { start: '2026-11-23', end: '2026-12-31T23:59:59Z' };
    assert.deepEqual(await asked(admin, allowIf({ time_restrictions: { date_range } }), times), [
      'monday 9',
      'monday 17',
    ]);
    const addresses: [string, object][] = ['10.1.2.3', '10.11.2.3', '192.0.2.7', '192.0.2.70'].map((ip) => [
      ip,
      from(ip),
    ]);
    const ip_restrictions = { allowed_ips: ['192.0.2.7'], allowed_ranges: ['10.1.0.0/16'] };
    assert.deepEqual(await asked(admin, allowIf({ ip_restrictions }), [...addresses, ['none', {}]]), [
      '10.1.2.3',
      '192.0.2.7',
    ]);
    const rows: [string, object][] = [
      ['note of acme', { context: { memory_type: 'note', memory_metadata: { client: 'acme' } } }],
      ['note', { context: { memory_type: 'note' } }],
      ['task of acme', { context: { memory_type: 'task', memory_metadata: { client: 'acme' } } }],
    ];
    const resource_conditions = { memory_types: ['note'], metadata_requirements: { client: 'acme' } };
    assert.deepEqual(await asked(admin, allowIf({ resource_conditions }), rows), ['note of acme']);
    const people: [string, object][] = [
      ['of the team', { context: { claims: { team: 'x', level: 3 } } }],
      ['as text', { context: { claims: { team: 'x', level: '3' } } }],
      ['nobody', {}],
    ];
    const custom_conditions = { identity_claims: { team: 'x', level: 3 } };
    assert.deepEqual(await asked(admin, allowIf({ custom_conditions }), people), ['of the team']);
    assert.deepEqual(await asked(admin, allowIf({ roles: ['other'] }), people), []);
  });

  it('denies before what is below it allows, as it was meant to', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    assert.equal((await user.call('GET', '/v1/memory/')).status, 200);
    const rule = { actions: ['read'], resource: 'memory', effect: 'deny' };
    const { body } = await admin.call('POST', '/v1/policy/', { role: 'user', rule });
    assert.deepEqual(
      [body.effect, body.rule],
      ['deny', { and: [{ in: [{ var: 'action' }, ['read']] }, is('resource', 'memory')] }],
    );
    assert.equal((await user.call('GET', '/v1/memory/')).status, 403);
    const changed = await admin.call('PUT', `/v1/policy/${body.id}`, { effect: 'allow' });
    assert.equal(changed.body.written_as, null, 'the statement no longer says what the policy does');
    const again = await admin.call('PUT', `/v1/policy/${body.id}`, { rule: { ...rule, actions: 'delete' } });
    assert.deepEqual([again.body.effect, again.body.written_as.rule.actions], ['deny', 'delete']);
  });

  it('is refused where it can not be kept, with what to write instead', async () => {
    const admin = await newTenant();
    const first = async (rule: object, more: object = {}) =>
      problems(await admin.call('POST', '/v1/policy/', { role: 'user', rule, ...more }))[0]!;
    const base = { actions: ['read'], resource: 'memory', effect: 'allow' };
    const withConditions = (conditions: object) => first({ ...base, conditions });
    assert.match(
      await first({ resource: 'memory', effect: 'allow' }),
      /^\/rule\/actions is required: a statement without actions/,
    );
    assert.match(await first({ ...base, actions: ['fly'] }), /^\/rule\/actions has fly, which is no action/);
    assert.match(
      await first({ ...base, resource: 'audit_log' }),
      /^\/rule\/resource is no resource; there are identity/,
    );
    assert.match(await first({ ...base, effects: 'allow' }), /^\/rule\/effects is not known in a statement/);
    assert.match(await first(base, { effect: 'deny' }), /^\/effect is deny, and the statement/);
    assert.match(
      await withConditions({ weather: 'fair' }),
      /^\/rule\/conditions\/weather is not known in a statement/,
    );
    assert.match(
      await withConditions({ ip_restrictions: { allowed_ranges: ['10.1.2.0/20'] } }),
      /^\/rule\/conditions\/ip_restrictions\/allowed_ranges has 10\.1\.2\.0\/20; of ranges only/,
    );
    assert.match(
      await withConditions({ custom_conditions: { tenant_conditions: { plan: 'pro' } } }),
      /^\/rule\/conditions\/custom_conditions\/tenant_conditions can not be kept/,
    );
    assert.match(
      await withConditions({ custom_conditions: { identity_claims: { teams: ['x'] } } }),
      /^\/rule\/conditions\/custom_conditions\/identity_claims\/teams must be text/,
    );
    assert.match(
      await withConditions({ time_restrictions: { time_of_day: [24] } }),
      /^\/rule\/conditions\/time_restrictions\/time_of_day\/0 /,
    );
  });
});
