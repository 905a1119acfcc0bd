import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { flushDenials } from '#platform/facts/denials.ts';
import {
  type Caller,
  call,
  newKey,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const about = (resource: string, action: string, ...more: unknown[]) => ({
  and: [is('resource', resource), is('action', action), ...more],
});
const codeOf = ({ status, body }: Reply) => [status, body?.error?.code];
const problemsOf = ({ status, body }: Reply) => [
  status,
  ...(body.error.details.errors as { path: string; message: string }[]).map(
    ({ path, message }) => `${path} ${message}`,
  ),
];

async function written(owner: Caller, policy: Record<string, unknown>): Promise<any> {
  const reply = await owner.call('POST', '/v1/policy/', policy);
  assert.equal(reply.status, 201, reply.text);
  return reply.body;
}

const remember = (who: Caller, more: object = {}) =>
  who.call('POST', '/v1/memory/', { text: 'a thing to remember', type: 'note', ...more });

describe('a policy', () => {
  it('is in force with the answer that wrote it, and out of force with the one that deleted it', async () => {
    const admin = await newTenant();
    const [user, other] = [await newMember(admin, 'user'), await newTenant('user')];
    assert.equal((await remember(user)).status, 201);
    const { id } = await written(admin, { role: 'user', rule: about('memory', 'create'), effect: 'deny' });
    assert.deepEqual(codeOf(await remember(user)), [403, 'POLICY_DENIED']);
    assert.equal((await remember(other)).status, 201, 'another tenant has rules of its own');
    assert.equal((await admin.call('PUT', `/v1/policy/${id}`, { is_active: false })).status, 200);
    assert.equal((await remember(user)).status, 201);
    assert.equal((await admin.call('PUT', `/v1/policy/${id}`, { is_active: true })).status, 200);
    assert.equal((await remember(user)).status, 403);
    const deleted = await admin.call('DELETE', `/v1/policy/${id}`);
    assert.deepEqual([deleted.status, deleted.text], [204, '']);
    assert.equal((await remember(user)).status, 201);
    assert.equal((await admin.call('GET', `/v1/policy/${id}`)).status, 404);
  });

  it('has the fields of both originals, with their defaults', async () => {
    const admin = await newTenant();
    const rule = about('memory', 'read');
    const { warnings, ...policy } = await written(admin, { role: 'auditor', rule });
    assert.deepEqual(warnings.length, 1, 'nobody is auditor yet');
    const { id, created_at, updated_at, ...rest } = policy;
    assert.deepEqual(rest, {
      tenant_id: admin.tenant,
      role: 'auditor',
      rule,
      effect: 'allow',
      priority: 0,
      is_active: true,
      description: null,
      code: null,
      message: null,
      rule_key: null,
      tests: [],
      written_as: null,
      version: 1,
      builtin: false,
    });
    assert.equal(created_at, updated_at);
    assert.deepEqual((await admin.call('GET', `/v1/policy/${id}`)).body, policy);
    assert.deepEqual((await admin.call('GET', `/v1/policy/${id.toUpperCase()}`)).body, policy);
    const full = {
      role: '*',
      rule: true,
      effect: 'deny',
      priority: -3,
      is_active: false,
      description: 'closed',
      code: 'CLOSED',
      message: 'Closed for today.',
      rule_key: 'house.closed',
    };
    const { role, ...made } = await written(admin, full);
    assert.deepEqual(
      {
        role,
        ...Object.fromEntries(
          Object.keys(full)
            .slice(1)
            .map((key) => [key, made[key]]),
        ),
      },
      full,
    );
  });

  it('is refused when its rule is wrong, with the place and the operator by name', async () => {
    const admin = await newTenant();
    const post = (rule: unknown) => admin.call('POST', '/v1/policy/', { role: 'user', rule });
    assert.deepEqual(problemsOf(await post({ and: [true, { equals: [1, 2] }] })).slice(0, 1), [422]);
    const [, problem] = problemsOf(await post({ and: [true, { equals: [1, 2] }] }));
    assert.match(String(problem), /^\/rule\/and\/1\/equals There is no operator "equals"/);
    for (const [rule, pattern] of [
      [{ log: 'x' }, /^\/rule\/log .*"log"/],
      [{ constructor: 1 }, /^\/rule\/constructor .*"constructor"/],
      [{ var: 'a.__proto__.b' }, /^\/rule\/var .*"__proto__"/],
      [{ '==': [1] }, /^\/rule\/== The operator "==" takes 2/],
      [{ a: 1, b: 2 }, /^\/rule An object in a rule/],
      ['text', /^\/rule /],
      [null, /^\/rule /],
    ] as const) {
      const reply = await post(rule);
      assert.equal(reply.status, 422, reply.text);
      assert.match(String(problemsOf(reply)[1]), pattern);
    }
    const { id } = await written(admin, { role: 'user', rule: false });
    const [, updated] = problemsOf(await admin.call('PUT', `/v1/policy/${id}`, { rule: { nope: 1 } }));
    assert.match(String(updated), /^\/rule\/nope /);
    assert.equal((await admin.call('GET', `/v1/policy/${id}`)).body.version, 1, 'nothing was changed');
  });

  it('gives its denial a code and words; the answer does not name it, the fact does', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    const silent = await written(admin, { role: 'user', rule: about('memory', 'create'), effect: 'deny' });
    const quiet = await remember(user);
    assert.deepEqual(quiet.body.error, {
      code: 'POLICY_DENIED',
      message: 'A policy of your tenant does not allow this.',
    });
    const words = { code: 'STOCKTAKING', message: 'Closed for stocktaking.' };
    const loud = await written(admin, {
      role: 'user',
      rule: about('memory', 'create'),
      effect: 'deny',
      priority: 1,
      ...words,
    });
    assert.deepEqual((await remember(user)).body.error, words);
    const { app } = await testServer();
    await flushDenials(app);
    const facts = await app.database.tenant(admin.tenant).rows(
      sql<{
        data: any;
      }>`select data from facts where tenant_id = ${admin.tenant} and type = 'access.denied' order by id`,
    );
    assert.deepEqual(
      facts.map(({ data }) => [data.permission, data.policy_id]),
      [
        ['memory:create', silent.id],
        ['memory:create', loud.id],
      ],
    );
  });

  it('that hides a row behind a 404 leaves a fact of the refusal, and a list leaves none', async () => {
    const admin = await newTenant();
    const [ann, bob] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const { id } = (await remember(ann)).body;
    await written(admin, {
      role: 'user',
      rule: about('memory', 'list', is('memory_type', 'secret')),
      effect: 'deny',
    });
    assert.equal((await bob.call('GET', `/v1/memory/${id}`)).status, 404);
    assert.equal((await bob.call('PUT', `/v1/memory/${id}`, { type: 'x' })).status, 404);
    assert.equal((await bob.call('DELETE', `/v1/memory/${id}`)).status, 404);
    assert.equal(
      (await bob.call('POST', '/v1/memory/bulk-delete', { memory_ids: [id] })).body.failed_count,
      1,
    );
    assert.deepEqual((await bob.call('GET', '/v1/memory/')).body, []);
    const { app } = await testServer();
    await flushDenials(app);
    const facts = await app.database.tenant(admin.tenant).rows(
      sql<{ resource_id: string; actor_id: string; data: any }>`
        select resource_id, actor_id, data from facts where tenant_id = ${admin.tenant} and type = 'access.denied' order by id`,
    );
    assert.deepEqual(
      facts.map(({ resource_id, actor_id, data }) => [data.permission, resource_id, actor_id]),
      ['memory:read', 'memory:update', 'memory:delete', 'memory:delete'].map((permission) => [
        permission,
        id,
        bob.id,
      ]),
    );
  });

  it('keeps what a change does not name, and refuses a change of what was changed meanwhile', async () => {
    const admin = await newTenant();
    const policy = await written(admin, {
      role: 'user',
      rule: false,
      priority: 4,
      description: 'mine',
      code: 'X1',
    });
    const changed = await admin.call('PUT', `/v1/policy/${policy.id}`, {
      priority: 5,
      code: null,
      version: 1,
    });
    assert.deepEqual(changed.body, {
      ...policy,
      priority: 5,
      code: null,
      version: 2,
      updated_at: changed.body.updated_at,
    });
    const stale = await admin.call('PUT', `/v1/policy/${policy.id}`, { priority: 6, version: 1 });
    assert.deepEqual([...codeOf(stale), stale.body.error.details.version], [409, 'POLICY_CHANGED', 2]);
    const both = await Promise.all(
      [7, 8].map((priority) => admin.call('PUT', `/v1/policy/${policy.id}`, { priority, version: 2 })),
    );
    assert.deepEqual(both.map(({ status }) => status).sort(), [200, 409]);
  });

  it('repeats its writing once for an Idempotency-Key', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    const body = { role: 'user', rule: about('memory', 'create'), effect: 'deny' };
    const key = { 'idempotency-key': 'write-once' };
    const first = await admin.call('POST', '/v1/policy/', body, key);
    assert.equal((await remember(user)).status, 403, 'in force with the answer');
    const second = await admin.call('POST', '/v1/policy/', body, key);
    assert.deepEqual([second.body, second.headers['idempotency-replayed']], [first.body, 'true']);
  });

  it('finds room for its rule, or is refused', async () => {
    const admin = await newTenant();
    const rule = { in: ['x', Array.from({ length: 15 }, (_, i) => `${i}`.padEnd(4_000, 'x'))] };
    const statuses: number[] = [];
    for (let i = 0; i < 72 && !statuses.includes(409); i++)
      statuses.push(
        (await admin.call('POST', '/v1/policy/', { role: 'user', rule, is_active: false })).status,
      );
    assert.equal(statuses.at(-1), 409);
    assert.ok(statuses.length > 60, `${statuses.length} were taken`);
    assert.equal((await admin.call('POST', '/v1/policy/', { role: 'user', rule: false })).status, 201);
  });

  it('is for those who may: others see nothing, a key needs the scope that names it', async () => {
    const admin = await newTenant();
    const { id } = await written(admin, { role: 'user', rule: false });
    for (const role of ['user', 'agent', 'reader', 'editor', 'auditor']) {
      const who = await newMember(admin, role);
      for (const [method, path] of [
        ['GET', '/v1/policy/'],
        ['GET', `/v1/policy/${id}`],
        ['GET', `/v1/policy/${id}/versions`],
        ['DELETE', `/v1/policy/${id}`],
        ['POST', `/v1/policy/${id}/test`],
      ] as const)
        assert.equal((await who.call(method, path)).status, 403, `${role} ${method} ${path}`);
      assert.equal((await who.call('POST', '/v1/policy/', { role, rule: true })).status, 403);
    }
    const writer = await newKey(admin, { scopes: ['read', 'write'] });
    assert.equal((await writer.call('GET', '/v1/policy/')).status, 200);
    assert.equal((await writer.call('POST', '/v1/policy/', { role: 'user', rule: false })).status, 403);
    const asker = await newKey(admin, { scopes: ['policy:test'] });
    const draft = { role: 'user', rule: false };
    assert.equal(
      (await asker.call('POST', '/v1/policy/test?role=user&action=read&resource=memory', {})).status,
      200,
    );
    assert.equal((await asker.call('POST', '/v1/policy/simulate', { draft })).status, 403);
    const named = await newKey(admin, { scopes: ['policy:create'] });
    assert.equal((await named.call('POST', '/v1/policy/', { role: 'user', rule: false })).status, 201);
  });
});

describe('the list of policies', () => {
  it('shows the built-in ones among the tenant’s, by role and the highest priority first', async () => {
    const admin = await newTenant();
    const ids = new Map<string, string>();
    for (const [role, priority] of [
      ['user', 5],
      ['user', -5],
      ['agent', 1],
      ['*', 0],
      ['zebra', 0],
    ] as const)
      ids.set(`${role} ${priority}`, (await written(admin, { role, rule: false, priority })).id);
    const { body } = await admin.call('GET', '/v1/policy/');
    const order = body.map(({ id }: any) => id);
    assert.deepEqual(order, [
      ids.get('* 0'),
      'builtin:admin',
      ids.get('agent 1'),
      'builtin:agent',
      'builtin:editor',
      'builtin:reader',
      'builtin:system',
      ids.get('user 5'),
      'builtin:user',
      ids.get('user -5'),
      ids.get('zebra 0'),
    ]);
    assert.deepEqual(
      body.filter((policy: any) => policy.builtin !== policy.id.startsWith('builtin:')),
      [],
    );
    // A page at a time it is the same list.
    const walked: string[] = [];
    let url = '/v1/policy/?limit=2';
    for (;;) {
      const page = await admin.call('GET', url);
      walked.push(...page.body.map(({ id }: any) => id));
      const cursor = page.headers['x-next-cursor'];
      if (!cursor) break;
      url = `/v1/policy/?limit=2&cursor=${encodeURIComponent(String(cursor))}`;
    }
    assert.deepEqual(walked, order);
    assert.deepEqual(
      (await admin.call('GET', '/v1/policy/?skip=9')).body.map(({ id }: any) => id),
      order.slice(9),
    );
  });

  it('is narrowed by role and by whether they are active', async () => {
    const admin = await newTenant();
    const active = await written(admin, { role: 'user', rule: false });
    const idle = await written(admin, { role: 'user', rule: false, is_active: false });
    const list = async (query: string) =>
      (await admin.call('GET', `/v1/policy/?${query}`)).body.map(({ id }: any) => id).sort();
    assert.deepEqual(
      await list('role=user'),
      [active.id, 'builtin:user'].sort(),
      'active ones, unless asked',
    );
    assert.deepEqual(await list('role=user&is_active=true'), [active.id, 'builtin:user'].sort());
    assert.deepEqual(await list('role=user&is_active=false'), [idle.id]);
    assert.deepEqual(await list('role=nobody'), []);
  });

  it('has built-in policies that can be read and not changed', async () => {
    const admin = await newTenant();
    const { body } = await admin.call('GET', '/v1/policy/builtin:reader');
    assert.deepEqual(
      [body.id, body.role, body.builtin, body.effect, body.tenant_id],
      ['builtin:reader', 'reader', true, 'allow', null],
    );
    assert.deepEqual(codeOf(await admin.call('PUT', '/v1/policy/builtin:reader', { is_active: false })), [
      409,
      'POLICY_BUILTIN',
    ]);
    assert.deepEqual(codeOf(await admin.call('DELETE', '/v1/policy/builtin:reader')), [
      409,
      'POLICY_BUILTIN',
    ]);
    assert.deepEqual(codeOf(await admin.call('POST', '/v1/policy/builtin:reader/rollback', { version: 1 })), [
      409,
      'POLICY_BUILTIN',
    ]);
    assert.deepEqual((await admin.call('GET', '/v1/policy/builtin:reader/versions')).body, []);
    assert.equal((await admin.call('GET', '/v1/policy/builtin:nobody')).status, 404);
  });
});

describe('deleting policies', () => {
  it('refuses those of high priority for admins, one by one and in bulk alike', async () => {
    const admin = await newTenant();
    const guarded = await written(admin, { role: 'admin', rule: false, priority: 100 });
    const low = await written(admin, { role: 'admin', rule: false, priority: 99 });
    const user = await written(admin, { role: 'user', rule: false, priority: 100 });
    const refused = await admin.call('DELETE', `/v1/policy/${guarded.id}`);
    assert.deepEqual(codeOf(refused), [409, 'POLICY_PROTECTED']);
    assert.match(refused.body.error.message, /^Cannot delete critical system policy/);
    const unknown = '01890000-0000-7000-8000-000000000000';
    const policy_ids = [guarded.id, low.id, user.id, 'builtin:admin', unknown, 'no id', user.id];
    const reply = await admin.call('POST', '/v1/policy/bulk-delete', { policy_ids, reason: 'tidying' });
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(reply.body, {
      deleted_count: 2,
      failed_count: 4,
      failed_policies: [
        {
          policy_id: guarded.id,
          error: 'Cannot delete critical system policy',
          role: 'admin',
          priority: 100,
        },
        {
          policy_id: 'builtin:admin',
          error: 'Built-in policies can not be changed. Write a policy of your own: it is asked before them.',
        },
        { policy_id: unknown, error: 'Policy not found' },
        { policy_id: 'no id', error: 'Policy not found' },
      ],
      message: 'Bulk delete completed: 2 deleted, 4 failed',
    });
    assert.equal((await admin.call('PUT', `/v1/policy/${guarded.id}`, { priority: 0 })).status, 200);
    assert.equal((await admin.call('DELETE', `/v1/policy/${guarded.id}`)).status, 204);
  });

  it('tells in facts what went, why, and how many at once', async () => {
    const admin = await newTenant();
    const { id } = await written(admin, { role: 'user', rule: false });
    await admin.call('POST', '/v1/policy/bulk-delete', { policy_ids: [id], reason: 'tidying' });
    const { app } = await testServer();
    const facts = await app.database.tenant(admin.tenant).rows(
      sql<{ type: string; resource_id: string | null; data: object }>`
        select type, resource_id, data from facts where tenant_id = ${admin.tenant} and type like 'policy.%' order by id`,
    );
    assert.deepEqual(facts, [
      { type: 'policy.created', resource_id: id, data: {} },
      { type: 'policy.bulk_deleted', resource_id: null, data: { policy_ids: [id], reason: 'tidying' } },
      { type: 'policy.deleted', resource_id: id, data: { reason: 'tidying' } },
    ]);
  });
});

describe('the versions of a policy', () => {
  it('tell who made it what, and bring back what it was', async () => {
    const admin = await newTenant();
    const second = await newMember(admin, 'admin');
    const user = await newMember(admin, 'user');
    const { id } = await written(admin, { role: 'user', rule: about('memory', 'create'), effect: 'deny' });
    const reason = 'they may again';
    await second.call('PUT', `/v1/policy/${id}`, { is_active: false, reason });
    const { body: versions } = await admin.call('GET', `/v1/policy/${id}/versions`);
    assert.deepEqual(
      versions.map(({ version, change, changed_by, reason, policy }: any) => [
        version,
        change,
        changed_by.id,
        reason,
        policy.is_active,
      ]),
      [
        [2, 'updated', second.id, reason, false],
        [1, 'created', admin.id, null, true],
      ],
    );
    assert.deepEqual((await admin.call('GET', `/v1/policy/${id}/versions/1`)).body, versions[1]);
    const first = await admin.call('GET', `/v1/policy/${id}/versions?limit=1`);
    assert.deepEqual(first.body, [versions[0]]);
    const cursor = String(first.headers['x-next-cursor']);
    const [, next] = /^<(.+)>; rel="next"$/.exec(String(first.headers.link))!;
    assert.match(next!, new RegExp(`^/v1/policy/${id}/versions\\?`));
    const last = await admin.call('GET', next!);
    assert.deepEqual(
      [last.body, last.headers['x-next-cursor'], last.headers.link],
      [[versions[1]], undefined, undefined],
    );
    const stranger = await newTenant();
    const { id: another } = await written(stranger, {
      role: 'user',
      rule: about('memory', 'create'),
      effect: 'deny',
    });
    const foreign = await stranger.call('GET', `/v1/policy/${another}/versions?cursor=${cursor}`);
    assert.deepEqual([foreign.status, foreign.body.error.code], [400, 'INVALID_CURSOR']);
    for (const version of ['3', '0', 'x', '1.0', '99999999999'])
      assert.equal((await admin.call('GET', `/v1/policy/${id}/versions/${version}`)).status, 404, version);

    assert.equal((await remember(user)).status, 201);
    const back = await admin.call('POST', `/v1/policy/${id}/rollback`, { version: 1, reason: 'a mistake' });
    assert.deepEqual([back.status, back.body.version, back.body.is_active], [200, 3, true]);
    assert.equal((await remember(user)).status, 403);
    assert.equal((await admin.call('POST', `/v1/policy/${id}/rollback`, { version: 9 })).status, 404);
  });

  it('outlive it: a deleted policy can be read and brought back', async () => {
    const admin = await newTenant();
    const policy = await written(admin, {
      role: 'user',
      rule: about('memory', 'create'),
      effect: 'deny',
      priority: 7,
    });
    const { id } = policy;
    assert.equal((await admin.call('DELETE', `/v1/policy/${id}`)).status, 204);
    const { body: versions } = await admin.call('GET', `/v1/policy/${id}/versions`);
    assert.deepEqual(
      versions.map(({ version, change }: any) => [version, change]),
      [
        [2, 'deleted'],
        [1, 'created'],
      ],
    );
    const back = await admin.call('POST', `/v1/policy/${id}/rollback`, { version: 1 });
    assert.equal(back.status, 200, back.text);
    assert.deepEqual(back.body, {
      ...policy,
      version: 3,
      created_at: back.body.created_at,
      updated_at: back.body.updated_at,
    });
    assert.equal((await remember(await newMember(admin, 'user'))).status, 403);
  });
});

describe('tests stored with a policy', () => {
  const draft = (more: object = {}) => ({
    role: 'contractor',
    rule: about('memory', 'read', is('claims.team', 'x')),
    tests: [
      {
        name: 'of the team',
        context: { action: 'read', resource: 'memory', claims: { team: 'x' } },
        expect: 'match',
      },
      {
        name: 'of another',
        context: { action: 'read', resource: 'memory', claims: { team: 'y' } },
        expect: 'no_match',
      },
      {
        name: 'all together',
        context: {
          action: 'read',
          resource: 'memory',
          claims: { team: 'x' },
          target: { owner: 'somebody else' },
        },
        expect: { allowed: true },
      },
    ],
    ...more,
  });

  it('must pass before it is in force, and say what failed on what', async () => {
    const admin = await newTenant();
    const wrong = await admin.call(
      'POST',
      '/v1/policy/',
      draft({ rule: about('memory', 'read', is('claims.team', 'z')) }),
    );
    assert.deepEqual(codeOf(wrong), [422, 'POLICY_TESTS_FAILED']);
    const failed = wrong.body.error.details.failed as any[];
    assert.deepEqual(
      failed.map(({ name, expect, got }) => [name, expect, got]),
      [
        ['of the team', 'match', 'no_match'],
        ['all together', { allowed: true }, { allowed: false }],
      ],
    );
    assert.deepEqual(failed[0].trace[0].failed, {
      path: '/and/2/==',
      operator: '==',
      value: false,
      operands: ['x', 'z'],
    });
    const policy = await written(admin, draft());
    const broken = await admin.call('PUT', `/v1/policy/${policy.id}`, { rule: false });
    assert.deepEqual(codeOf(broken), [422, 'POLICY_TESTS_FAILED']);
    assert.equal((await admin.call('GET', `/v1/policy/${policy.id}`)).body.version, 1);
  });

  it('may fail in a draft, which does not come into force by any way', async () => {
    const admin = await newTenant();
    const policy = await written(admin, draft({ rule: false, is_active: false }));
    const run = await admin.call('POST', `/v1/policy/${policy.id}/test`);
    assert.deepEqual(
      [run.status, run.body.passed, run.body.results.map(({ passed }: any) => passed)],
      [200, false, [false, true, false]],
    );
    const activate = await admin.call('PUT', `/v1/policy/${policy.id}`, { is_active: true });
    assert.deepEqual(codeOf(activate), [422, 'POLICY_TESTS_FAILED']);
    const mended = await admin.call('PUT', `/v1/policy/${policy.id}`, {
      is_active: true,
      rule: draft().rule,
    });
    assert.equal(mended.status, 200, mended.text);
    assert.equal((await admin.call('POST', `/v1/policy/${policy.id}/test`)).body.passed, true);
    // What other policies decide meanwhile counts as well.
    await written(admin, { role: '*', rule: about('memory', 'read'), effect: 'deny', priority: 9 });
    const again = await admin.call('PUT', `/v1/policy/${policy.id}`, { description: 'still?' });
    assert.deepEqual(
      again.body.error.details.failed.map(({ name }: any) => name),
      ['all together'],
    );
    const rollback = await admin.call('POST', `/v1/policy/${policy.id}/rollback`, { version: 2 });
    assert.deepEqual(codeOf(rollback), [422, 'POLICY_TESTS_FAILED']);
  });

  it('are checked when they are stored', async () => {
    const admin = await newTenant();
    const [one] = draft().tests;
    const post = (more: object) => admin.call('POST', '/v1/policy/', draft(more));
    assert.deepEqual(problemsOf(await post({ tests: [one, one] })), [
      422,
      '/tests/1/name is the name of another test',
    ]);
    assert.deepEqual(problemsOf(await post({ role: '*', tests: [one] })), [
      422,
      '/tests/0/context/role is required: the policy is one of all roles',
    ]);
    assert.equal((await post({ tests: [{ ...one, expect: 'maybe' }] })).status, 422);
    assert.equal((await post({ tests: [{ ...one, context: { ...one!.context, clams: {} } }] })).status, 422);
    const large = { ...one, context: { ...one!.context, claims: { team: 'x', more: 'y'.repeat(70_000) } } };
    assert.deepEqual(problemsOf(await post({ tests: [large] })), [
      422,
      '/tests are more than 65536 bytes of JSON',
    ]);
  });
});

describe('asking what would be decided', () => {
  it('takes the names in the query with the context as body, or all in the body', async () => {
    const admin = await newTenant();
    const asQuery = await admin.call('POST', '/v1/policy/test?role=agent&action=read&resource=memory', {
      identity: { role: 'agent' },
    });
    assert.equal(asQuery.status, 200, asQuery.text);
    const { allowed, decision, role, action, resource } = asQuery.body;
    assert.deepEqual(
      { allowed, decision, role, action, resource },
      {
        allowed: true,
        decision: { effect: 'allow', policy_id: 'builtin:agent', reason: 'builtin' },
        role: 'agent',
        action: 'read',
        resource: 'memory',
      },
    );
    const asBody = await admin.call('POST', '/v1/policy/test', {
      role: 'agent',
      action: 'read',
      resource: 'memory',
      context: { target: { owner: 'you' } },
    });
    assert.equal(asBody.body.allowed, false);
    assert.deepEqual(asBody.body.trace[0].failed.operands, ['you', 'somebody']);
    assert.equal(
      (await admin.call('POST', '/v1/policy/test?role=agent&action=read&resource=memory')).status,
      200,
    );
  });

  it('names the policy that decides, and the expression on which the others failed', async () => {
    const admin = await newTenant();
    const first = await written(admin, {
      role: 'agent',
      rule: about('memory', 'read', is('memory_type', 'note')),
      effect: 'deny',
      priority: 5,
      message: 'No notes.',
    });
    const ask = async (context: object) =>
      (
        await admin.call('POST', '/v1/policy/test', {
          role: 'agent',
          action: 'read',
          resource: 'memory',
          context,
        })
      ).body;
    const denied = await ask({ memory_type: 'note' });
    assert.deepEqual(denied.decision, {
      effect: 'deny',
      policy_id: first.id,
      reason: 'policy',
      message: 'No notes.',
    });
    const allowed = await ask({ memory_type: 'task' });
    assert.equal(allowed.allowed, true);
    assert.deepEqual(
      allowed.trace.map(({ policy_id, outcome, failed }: any) => [policy_id, outcome, failed?.operands]),
      [
        [first.id, 'not_matched', ['task', 'note']],
        ['builtin:agent', 'matched', undefined],
      ],
    );
    assert.equal(allowed.context.target.type, 'task');
  });

  it('refuses names said twice or not at all, and attributes no rule could read', async () => {
    const admin = await newTenant();
    const ask = (query: string, body: object) => admin.call('POST', `/v1/policy/test${query}`, body);
    assert.deepEqual(problemsOf(await ask('?role=user&action=read', {})), [
      422,
      '/resource is required, in the query or the body',
    ]);
    assert.deepEqual(problemsOf(await ask('?role=user&action=read&resource=memory', { role: 'user' })), [
      422,
      '/role is given twice',
    ]);
    assert.equal((await ask('?role=user&action=read&resource=memory', { memory_typ: 'note' })).status, 422);
    const mixed = { role: 'user', action: 'read', resource: 'memory', claims: {}, context: {} };
    assert.deepEqual(problemsOf(await ask('', mixed)), [
      422,
      '/claims belongs into context, where context is given',
    ]);
  });

  it('is not recorded and changes nothing', async () => {
    const admin = await newTenant();
    const before = (await admin.call('GET', '/v1/policy/')).text;
    await call('POST', '/v1/policy/test?role=user&action=delete&resource=memory', {
      token: admin.token,
      body: {},
    });
    assert.equal((await admin.call('GET', '/v1/policy/')).text, before);
  });
});

describe('a tenant’s policies', () => {
  it('are so many at most, and so many bytes', async () => {
    const [many, long, other] = [await newTenant(), await newTenant(), await newTenant()];
    const { operatorPool } = (await testServer()).app.database;
    const insert = (tenant: string, count: number, rule: unknown) =>
      operatorPool.query(
        `insert into policies (tenant_id, id, role, rule, is_active, created_at, updated_at)
         select $1, gen_random_uuid(), 'guest', $2, false, now(), now() from generate_series(1, $3::int)`,
        [tenant, JSON.stringify(rule), count],
      );
    await insert(many.tenant, 5_000, false);
    await insert(long.tenant, 1, { var: 'x'.repeat(4 * 1024 * 1024) });
    const write = async (owner: Caller) =>
      codeOf(await owner.call('POST', '/v1/policy/', { role: 'guest', rule: false }));
    assert.deepEqual(await write(many), [409, 'POLICY_LIMIT_REACHED']);
    assert.deepEqual(await write(long), [409, 'POLICY_LIMIT_REACHED']);
    assert.deepEqual(await write(other), [201, undefined]);
  });
});
