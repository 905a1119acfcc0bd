import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  newKey,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';

useTestServer();

const path = '/v1/admin/identity/providers';
const secret = 'a client secret nobody is shown';
const okta = (more: object = {}) => ({
  id: 'okta',
  name: 'Okta',
  issuer: 'https://acme.okta.example',
  client_id: 'client-1',
  client_secret: secret,
  ...more,
});
const code = ({ status, body }: Reply) => `${status} ${body.error.code}`;

describe('identity providers', () => {
  let ann: Caller;
  before(async () => {
    ann = await newTenant('admin');
  });

  it('are made, shown, changed and removed, and say what to register where', async () => {
    const made = await ann.call(
      'POST',
      path,
      okta({ allowed_email_domains: ['Acme.Example'], scopes: ['email'] }),
    );
    assert.equal(made.status, 201, made.text);
    const { created_at, updated_at, ...shown } = made.body.data;
    assert.equal(created_at, updated_at);
    assert.deepEqual(shown, {
      id: 'okta',
      tenant_id: ann.tenant,
      type: 'oidc',
      name: 'Okta',
      issuer: 'https://acme.okta.example',
      client_id: 'client-1',
      has_client_secret: true,
      scopes: ['openid', 'email'],
      scopes_json: ['openid', 'email'],
      default_role: 'user',
      allowed_email_domains: ['acme.example'],
      jit_enabled: false,
      role_claim: null,
      role_mapping: [],
      role_mapping_json: {},
      enabled: true,
      login_url: `http://manushya.test/v1/sso/login/${ann.tenant}.okta`,
      redirect_uri: `http://manushya.test/v1/sso/callback/${ann.tenant}.okta`,
    });
    assert.deepEqual((await ann.call('GET', `${path}/okta`)).body.data, made.body.data);
    assert.equal(code(await ann.call('POST', path, okta())), '409 IDENTITY_PROVIDER_EXISTS');

    const changed = await ann.call('PATCH', `${path}/okta`, {
      name: 'Acme',
      jit_enabled: true,
      role_claim: 'groups',
      role_mapping: [{ value: 'writers', role: 'editor' }],
      client_secret: null,
    });
    assert.equal(changed.status, 200, changed.text);
    assert.deepEqual(changed.body.data, {
      ...made.body.data,
      name: 'Acme',
      jit_enabled: true,
      role_claim: 'groups',
      role_mapping: [{ value: 'writers', role: 'editor' }],
      role_mapping_json: { writers: 'editor' },
      has_client_secret: false,
      updated_at: changed.body.data.updated_at,
    });
    assert.deepEqual((await ann.call('GET', path)).body.data, { items: [changed.body.data] });

    assert.equal((await ann.call('DELETE', `${path}/okta`)).status, 204);
    for (const method of ['GET', 'PATCH', 'DELETE'])
      assert.equal(
        code(await ann.call(method, `${path}/okta`, method === 'PATCH' ? {} : undefined)),
        '404 NOT_FOUND',
      );
    const { app } = await testServer();
    const facts = await app.database.tenant(ann.tenant).rows<{ type: string }>(sql`
      select type from facts where tenant_id = ${ann.tenant} and resource_type = 'identity_provider' order by id`);
    assert.deepEqual(
      facts.map(({ type }) => type),
      ['identity_provider.created', 'identity_provider.updated', 'identity_provider.deleted'],
    );
    assert.ok(!JSON.stringify(facts).includes(secret));
  });

  it('take the fields of NexusRAG’s clients', async () => {
    const [eve, other] = [await newTenant('admin'), await newTenant('admin')];
    const theirs = {
      type: 'oidc',
      name: 'Okta',
      issuer: 'https://acme.okta.example',
      client_id: 'client-1',
      client_secret_ref: 'env:OKTA_SECRET',
      auth_url: 'https://acme.okta.example/authorize',
      token_url: 'https://acme.okta.example/token',
      jwks_url: 'https://acme.okta.example/keys',
      scopes_json: ['email'],
      default_role: 'reader',
      role_mapping_json: { writers: 'editor', heads: 'admin' },
      jit_enabled: true,
    };
    const made = await eve.call('POST', path, theirs);
    assert.equal(made.status, 201, made.text);
    const { id, ...provider } = made.body.data;
    assert.match(id, /^[0-9a-f-]{36}$/);
    assert.deepEqual(
      [provider.scopes, provider.scopes_json, provider.role_claim, provider.has_client_secret],
      [['openid', 'email'], ['openid', 'email'], 'groups', false],
    );
    assert.deepEqual(provider.role_mapping, [
      { value: 'writers', role: 'editor' },
      { value: 'heads', role: 'admin' },
    ]);
    assert.deepEqual(provider.role_mapping_json, theirs.role_mapping_json);
    assert.ok(!made.text.includes('OKTA_SECRET'));
    const changed = await eve.call('PATCH', `${path}/${id}`, {
      jwks_url: 'https://acme.okta.example/other-keys',
      scopes_json: [],
      role_mapping_json: { heads: 'editor' },
    });
    assert.deepEqual(
      [changed.body.data.scopes, changed.body.data.role_mapping],
      [['openid'], [{ value: 'heads', role: 'editor' }]],
    );
    for (const [more, field] of [
      [{ type: 'saml' }, '/type'],
      [{ scopes: ['email'] }, '/scopes_json'],
      [{ role_mapping: [] }, '/role_mapping_json'],
    ] as const) {
      const refused = await eve.call('POST', path, { ...theirs, ...more });
      assert.equal(code(refused), '422 VALIDATION_ERROR', field);
      assert.deepEqual(
        refused.body.error.details.errors.map((error: { path: string }) => error.path),
        [field],
      );
    }
    assert.equal(code(await other.call('GET', `${path}/${id}`)), '404 NOT_FOUND');
    assert.equal(code(await other.call('PATCH', `${path}/${id}`, { scopes_json: [] })), '404 NOT_FOUND');
    assert.deepEqual((await other.call('GET', path)).body.data, { items: [] });
    assert.deepEqual((await eve.call('GET', path)).body.data, { items: [changed.body.data] });
  });

  it('keep their client secret to themselves', async () => {
    const bob = await newTenant('admin');
    const made = await bob.call('POST', path, okta());
    const { app } = await testServer();
    const [row] = await app.database.tenant(bob.tenant).rows<{ client_secret: Buffer }>(sql`
      select client_secret from identity_providers where tenant_id = ${bob.tenant}`);
    assert.ok(row!.client_secret.length > secret.length && !row!.client_secret.includes(secret));
    const replies = [made, await bob.call('GET', `${path}/okta`), await bob.call('GET', path)];
    for (const { text } of replies) assert.ok(!text.includes(secret));
    // Somebody who may change the issuer must not have the secret sent to an issuer of his own.
    const moved = await bob.call('PATCH', `${path}/okta`, { issuer: 'https://evil.example' });
    assert.equal(code(moved), '422 VALIDATION_ERROR');
    assert.equal(moved.body.error.details.errors[0].path, '/client_secret');
    const whole = { issuer: 'https://other.example', client_secret: 'another' };
    assert.equal((await bob.call('PATCH', `${path}/okta`, whole)).status, 200);
  });

  it('are switched off and on, and given another secret, by doors of their own', async () => {
    const [bob, other] = [await newTenant('admin'), await newTenant('admin')];
    await bob.call('POST', path, okta({ client_secret: null }));
    const post = (who: Caller, door: string, body?: object) => who.call('POST', `${path}/okta/${door}`, body);
    assert.equal((await post(bob, 'disable')).body.data.enabled, false);
    assert.equal((await bob.call('GET', `/v1/sso/login/${bob.tenant}.okta`)).status, 404);
    assert.equal((await post(bob, 'disable')).body.data.enabled, false);
    assert.equal((await post(bob, 'enable')).body.data.enabled, true);
    const rotated = await post(bob, 'rotate-secret-ref', { client_secret: secret });
    assert.deepEqual([rotated.status, rotated.body.data.has_client_secret], [200, true]);
    assert.ok(!rotated.text.includes(secret));
    // To take the reference and go on with the former secret would be to say that it was changed.
    const reference = await post(bob, 'rotate-secret-ref', { client_secret_ref: 'env:OKTA' });
    assert.equal(code(reference), '422 VALIDATION_ERROR');
    assert.equal(reference.body.error.details.errors[0].path, '/client_secret');
    const editor = await newMember(bob, 'editor');
    for (const [door, body] of [
      ['enable', undefined],
      ['disable', undefined],
      ['rotate-secret-ref', { client_secret: 'mine' }],
    ] as const) {
      assert.equal(code(await post(other, door, body)), '404 NOT_FOUND');
      assert.equal(code(await post(editor, door, body)), '403 AUTH_FORBIDDEN');
    }
    assert.equal((await bob.call('GET', `${path}/okta`)).body.data.enabled, true);
  });

  it('are the business of administrators with all their power', async () => {
    await ann.call('POST', path, okta({ id: 'kept' }));
    for (const role of ['editor', 'reader', 'agent', 'user', 'auditor']) {
      const member = await newMember(ann, role);
      assert.equal(code(await member.call('POST', path, okta({ id: role }))), '403 AUTH_FORBIDDEN', role);
      assert.equal(code(await member.call('GET', path)), '403 AUTH_FORBIDDEN', role);
    }
    for (const scopes of [['identity_providers:*'], ['write'], ['*:create', '*:update']]) {
      const key = await newKey(ann, { scopes });
      assert.equal(code(await key.call('POST', path, okta({ id: 'other' }))), '403 AUTH_FORBIDDEN');
      assert.equal(code(await key.call('PATCH', `${path}/kept`, { name: 'x' })), '403 AUTH_FORBIDDEN');
    }
    // A policy that lets an editor at them lets it see and remove them, and not decide who is believed.
    const { app } = await testServer();
    const now = new Date();
    await app.database.tenant(ann.tenant).run(sql`
      insert into policies (tenant_id, id, role, rule, effect, priority, is_active, created_at, updated_at)
      values (${ann.tenant}, ${uuidv7()}, 'editor', ${{ '==': [{ var: 'resource' }, 'identity_providers'] }}, 'allow', 50, true, ${now}, ${now})`);
    app.shared.invalidate('policy', ann.tenant);
    const editor = await newMember(ann, 'editor');
    assert.equal((await editor.call('GET', path)).status, 200);
    assert.equal(code(await editor.call('POST', path, okta({ id: 'mine' }))), '403 AUTH_FORBIDDEN');
    assert.equal(code(await editor.call('PATCH', `${path}/kept`, { name: 'x' })), '403 AUTH_FORBIDDEN');
    assert.equal(
      (await newKey(ann, { scopes: ['admin'] })).call('PATCH', `${path}/kept`, { name: 'y' }) instanceof
        Promise,
      true,
    );
  });

  it('give no role that nobody may give', async () => {
    assert.equal(
      code(await ann.call('POST', path, okta({ id: 'a', default_role: 'system' }))),
      '403 AUTH_FORBIDDEN',
    );
    const mapping = { role_claim: 'g', role_mapping: [{ value: 'x', role: 'system' }] };
    assert.equal(code(await ann.call('POST', path, okta({ id: 'a', ...mapping }))), '403 AUTH_FORBIDDEN');
    await ann.call('POST', path, okta({ id: 'roles' }));
    assert.equal(code(await ann.call('PATCH', `${path}/roles`, mapping)), '403 AUTH_FORBIDDEN');
    assert.equal((await ann.call('PATCH', `${path}/roles`, { default_role: 'admin' })).status, 200);
  });

  it('have ids, issuers and domains of the right form', async () => {
    const wrong: [field: string, body: object][] = [
      ...['Okta', 'a.b', 'a_b', '-a', '', 'a'.repeat(64), 'ä'].map((id): [string, object] => ['/id', { id }]),
      ...[
        'http://acme.okta.example',
        'https://acme.okta.example?x=1',
        'https://acme.okta.example/#x',
        'https://user:pw@acme.okta.example',
        'https://acme.okta.example/a b',
        'javascript:alert(1)',
        'acme.okta.example',
        'http://localhost:1',
      ].map((issuer): [string, object] => ['/issuer', { issuer }]),
      ...['@acme.example', 'a b', '*.acme.example', 'acme..example', 'ａcme.example'].map(
        (domain): [string, object] => ['/allowed_email_domains/0', { allowed_email_domains: [domain] }],
      ),
      ['/scopes/0', { scopes: ['a b'] }],
    ];
    for (const [field, body] of wrong) {
      const reply = await ann.call('POST', path, okta({ id: 'form', ...body }));
      assert.equal(code(reply), '422 VALIDATION_ERROR', JSON.stringify(body));
      assert.equal(reply.body.error.details.errors[0].path, field, reply.text);
    }
  });
});
