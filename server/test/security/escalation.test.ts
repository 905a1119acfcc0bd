import assert from 'node:assert/strict';
import { readConfig } from '#platform/config.ts';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  environmentOf,
  eventually,
  newKey,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { goodPassword, mailsTo } from '#test/people.ts';
import { prove } from './statement.ts';

useTestServer();

let named = 0;
const name = () => `climber-${++named}`;
const codeOf = ({ status, body }: Reply) => `${status} ${body?.error?.code ?? body?.error ?? ''}`.trim();
const refused = '403 AUTH_FORBIDDEN';

/** Somebody whose role may do all that concerns identities, and no more. */
async function clerkOf(admin: Caller): Promise<Caller> {
  const { app } = await testServer();
  const now = new Date();
  await app.database.tenant(admin.tenant).run(sql`
    insert into policies (tenant_id, id, role, rule, effect, priority, created_at, updated_at)
    values (${admin.tenant}, ${uuidv7()}, 'clerk',
      ${{ in: [{ var: 'resource' }, ['identity', 'invitations', 'api_keys', 'identity_providers']] }}, 'allow', 1, ${now}, ${now})`);
  app.shared.invalidate('policy', admin.tenant);
  return newMember(admin, 'clerk');
}

async function delegated(from: Caller, to: Caller, scopes: string[]): Promise<Caller> {
  const { body } = await from.call('POST', `/v1/identity/${to.id}/delegate`, { scopes });
  const token = body.access_token;
  return {
    ...from,
    token,
    call: (method, url, given) =>
      call(method, url, { token, ...(given === undefined ? {} : { body: given }) }),
  };
}

async function invited(admin: Caller, role: string): Promise<string> {
  const email = `${name()}-${Date.now()}@example.com`;
  const reply = await admin.call('POST', '/v1/invitations/', { email, role, claims: { team: 'blue' } });
  assert.equal(reply.status, 200, reply.text);
  const [mail] = await eventually('the mail', async () => {
    const mails = await mailsTo(email);
    return mails.length > 0 && mails;
  });
  return /inv_[\w.-]+/.exec(mail!.text ?? '')![0];
}

const identitiesOf = async (admin: Caller): Promise<number> =>
  (await admin.call('GET', '/v1/identity/?limit=1000')).body.length;

const form = (fields: Record<string, string>, headers: Record<string, string> = {}) =>
  call('POST', '/v1/oauth/token', {
    payload: new URLSearchParams(fields).toString(),
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
  });
const type = 'urn:ietf:params:oauth:token-type:access_token';
const exchange = (subject: string, actor: string, more: Record<string, string> = {}) =>
  form({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token: subject,
    subject_token_type: type,
    actor_token: actor,
    actor_token_type: type,
    ...more,
  });

prove('rights nobody gives to oneself', [
  {
    id: 'ROLE-01',
    source: 'ASVS 8.2.1',
    says: 'nobody becomes an operator of the installation by any door of the API',
    guard: 'modules/access/policy/builtin.ts: mayGive',
    test: async () => {
      const admin = await newTenant('admin');
      const member = await newMember(admin, 'user');
      const role = 'system';
      const password = goodPassword;
      const doors: Record<string, Promise<Reply>> = {
        'sign-up': call('POST', '/v1/identity/', { body: { external_id: name(), role } }),
        'sign-up with a password': call('POST', '/v1/auth/register', {
          body: { username: name(), password, role },
        }),
        join: admin.call('POST', '/v1/identity/', { external_id: name(), role }),
        'join with a password': admin.call('POST', '/v1/auth/register', { username: name(), password, role }),
        change: admin.call('PUT', `/v1/identity/${member.id}`, { role }),
        'change of oneself': admin.call('PUT', '/v1/identity/me', { role }),
        invitation: admin.call('POST', '/v1/invitations/', { email: `${name()}@example.com`, role }),
        'service key': admin.call('POST', '/v1/self-serve/api-keys', { role }),
        'provider, by default': admin.call('POST', '/v1/admin/identity/providers', {
          ...{ id: 'a', name: 'A', issuer: 'https://idp.example', client_id: 'c', default_role: role },
        }),
        'provider, by its groups': admin.call('POST', '/v1/admin/identity/providers', {
          ...{ id: 'b', name: 'B', issuer: 'https://idp.example', client_id: 'c', role_claim: 'groups' },
          role_mapping: [{ value: 'all', role }],
        }),
      };
      for (const [door, reply] of Object.entries(doors))
        assert.match(codeOf(await reply), /^(403|422) /, door);
      assert.equal((await admin.call('GET', '/v1/identity/?role=system')).body.length, 0);
    },
  },
  {
    id: 'ROLE-02',
    source: 'ASVS 8.2.1, ASVS 8.2.3',
    says: 'whoever may manage identities gives nobody a role above its own, by any door',
    guard: 'modules/access/policy/service.ts: mayGiveRole',
    test: async () => {
      const admin = await newTenant('admin');
      const clerk = await clerkOf(admin);
      const user = await newMember(admin, 'user');
      for (const role of ['admin', 'editor', 'auditor']) {
        const password = goodPassword;
        const doors: Record<string, Promise<Reply>> = {
          join: clerk.call('POST', '/v1/identity/', { external_id: name(), role }),
          'join with a password': clerk.call('POST', '/v1/auth/register', {
            username: name(),
            password,
            role,
          }),
          change: clerk.call('PUT', `/v1/identity/${user.id}`, { role }),
          invitation: clerk.call('POST', '/v1/invitations/', { email: `${name()}@example.com`, role }),
          'service key': clerk.call('POST', '/v1/self-serve/api-keys', {
            role: role === 'auditor' ? 'admin' : role,
          }),
          provider: clerk.call('POST', '/v1/admin/identity/providers', {
            ...{ id: 'a', name: 'A', issuer: 'https://idp.example', client_id: 'c', default_role: role },
          }),
        };
        for (const [door, reply] of Object.entries(doors))
          assert.equal(codeOf(await reply), refused, `${door} ${role}`);
      }
      const lower = await clerk.call('POST', '/v1/identity/', { external_id: name(), role: 'user' });
      assert.equal(lower.status, 200, 'one below it may');
    },
  },
  {
    id: 'ROLE-03',
    source: 'ASVS 8.2.3',
    says: 'nobody changes what decides over its own rights: role, claims, owner, activity, name',
    guard: 'modules/access/identity/change.ts: checkChange',
    test: async () => {
      const admin = await newTenant('admin');
      const user = await newMember(admin, 'user');
      for (const body of [
        { role: 'admin' },
        { role: 'reader' },
        { claims: { department: 'board' } },
        { external_id: 'somebody-else' },
        { owner_id: admin.id },
        { name: 'Me', claims: { a: 1 } },
      ])
        for (const path of ['me', user.id])
          assert.equal(
            codeOf(await user.call('PUT', `/v1/identity/${path}`, body)),
            refused,
            JSON.stringify(body),
          );
      for (const path of ['me', admin.id])
        assert.equal(codeOf(await admin.call('PUT', `/v1/identity/${path}`, { role: 'editor' })), refused);
      assert.equal((await user.call('PUT', '/v1/identity/me', { name: 'Me' })).status, 200);
    },
  },
  {
    id: 'ROLE-04',
    source: 'ASVS 2.2.1',
    says: 'a role has one spelling: none that looks like admin is taken for it, or taken at all',
    guard: 'modules/access/identity/schema.ts: rolePattern',
    test: async () => {
      const admin = await newTenant('admin');
      for (const role of [
        'Admin',
        'ADMIN',
        ' admin',
        'admin ',
        'admin\u0000',
        'аdmin',
        'ａｄｍｉｎ',
        'admin\n',
        '',
        '*',
      ])
        for (const reply of [
          await admin.call('POST', '/v1/identity/', { external_id: name(), role }),
          await call('POST', '/v1/auth/register', {
            body: { username: name(), password: goodPassword, role },
          }),
          await admin.call('POST', '/v1/invitations/', { email: `${name()}@example.com`, role }),
        ])
          assert.equal(codeOf(reply), '422 VALIDATION_ERROR', JSON.stringify(role));
    },
  },
  {
    id: 'ROLE-05',
    source: 'ASVS 8.2.3, ASVS 15.3.3',
    says: 'whoever accepts an invitation gets the role and claims it offers and chooses nothing of them',
    guard: 'modules/access/invitations/schema.ts: InvitationAccept',
    test: async () => {
      const admin = await newTenant('admin');
      const token = await invited(admin, 'reader');
      const accept = (body: object) => call('POST', `/v1/invitations/accept/${token}`, { body });
      for (const body of [
        { role: 'admin' },
        { claims: { team: 'red' } },
        { is_active: true },
        { owner_id: admin.id },
        { email: 'other@example.com' },
        { invited_by: admin.id },
      ])
        assert.equal(codeOf(await accept(body)), '422 VALIDATION_ERROR', JSON.stringify(body));
      assert.equal(codeOf(await accept({ tenant_id: 't1' })), '400 TENANT_ID_NOT_ALLOWED');
      const { identity } = (await accept({ name: 'Rea' })).body;
      assert.deepEqual(
        [identity.role, identity.claims.team, identity.tenant_id],
        ['reader', 'blue', admin.tenant],
      );
    },
  },
  {
    id: 'ROLE-06',
    source: 'ASVS 8.3.3, RFC 9700 2.3',
    says: 'a key that is limited by scopes opens no session, which no scope would bind',
    guard: 'platform/permission.ts: isNarrowed',
    test: async () => {
      const admin = await newTenant('admin');
      const before = await identitiesOf(admin);
      for (const scopes of [
        ['identity:*', 'invitations:*', 'identity_providers:*'],
        ['*:create'],
        ['read', 'write'],
      ]) {
        const key = await newKey(admin, { scopes });
        const password = goodPassword;
        for (const [door, reply] of Object.entries({
          join: key.call('POST', '/v1/identity/', { external_id: name(), role: 'user' }),
          register: key.call('POST', '/v1/auth/register', { username: name(), password, role: 'user' }),
          invite: key.call('POST', '/v1/invitations/', { email: `${name()}@example.com`, role: 'user' }),
          provider: key.call('POST', '/v1/admin/identity/providers', {
            ...{ id: 'a', name: 'A', issuer: 'https://idp.example', client_id: 'c' },
          }),
        }))
          assert.equal(codeOf(await reply), refused, `${door} ${scopes}`);
      }
      assert.equal(await identitiesOf(admin), before);
    },
  },
  {
    id: 'ROLE-07',
    source: 'ASVS 8.3.3, RFC 8693 4.1',
    says: 'an agent that acts for an admin with every scope makes nothing that outlives its grant: no key, no identity',
    guard: 'platform/permission.ts: requireNotActing',
    test: async () => {
      const admin = await newTenant('admin');
      // As mighty as agents get: one with a role of its own that may do everything.
      const { app } = await testServer();
      const now = new Date();
      await app.database.tenant(admin.tenant).run(sql`
        insert into policies (tenant_id, id, role, rule, effect, priority, created_at, updated_at)
        values (${admin.tenant}, ${uuidv7()}, 'agent', ${{ '==': [1, 1] }}, 'allow', 1, ${now}, ${now})`);
      app.shared.invalidate('policy', admin.tenant);
      const agent = await newMember(admin, 'agent');
      const kept = await newKey(admin);
      const acting = await delegated(admin, agent, ['admin']);
      assert.equal((await acting.call('GET', '/v1/api-keys/')).status, 200, 'it may much');
      const before = await identitiesOf(admin);
      const password = goodPassword;
      for (const [door, reply] of Object.entries({
        key: acting.call('POST', '/v1/api-keys/', { name: 'mine' }),
        'key for itself': acting.call('POST', '/v1/api-keys/', { name: 'mine', identity_id: agent.id }),
        'new secret': acting.call('POST', `/v1/api-keys/${kept.keyId}/rotate`, {}),
        'service key': acting.call('POST', '/v1/self-serve/api-keys', { role: 'reader' }),
        join: acting.call('POST', '/v1/identity/', { external_id: name(), role: 'agent' }),
        register: acting.call('POST', '/v1/auth/register', { username: name(), password, role: 'agent' }),
      }))
        assert.equal(codeOf(await reply), refused, door);
      assert.equal(await identitiesOf(admin), before);
      assert.equal((await kept.call('GET', '/v1/identity/me')).status, 200, 'the key is as it was');
    },
  },
  {
    id: 'ROLE-08',
    source: 'ASVS 7.5.1, ASVS 8.3.3',
    says: 'neither an agent nor a key reaches the password or second factor of whom it acts for',
    guard: 'modules/access/mfa/service.ts: ownCredentials',
    test: async () => {
      const admin = await newTenant('admin');
      const acting = await delegated(admin, await newMember(admin, 'agent'), ['admin']);
      const change = { old_password: goodPassword, new_password: 'a hazel opens the gate' };
      for (const who of [acting, await newKey(admin), await newKey(admin, { scopes: ['admin'] })])
        for (const reply of [
          await who.call('POST', '/v1/auth/change-password', change),
          await who.call('POST', '/v1/auth/mfa/setup', {}),
          await who.call('POST', '/v1/auth/mfa/backup-codes', { code: '123456' }),
          await who.call('DELETE', '/v1/auth/mfa/disable', { code: '123456' }),
          await who.call('GET', '/v1/auth/mfa/status'),
        ])
          assert.equal(codeOf(reply), refused);
    },
  },
  {
    id: 'ROLE-09',
    source: 'RFC 8693 2.1, ASVS 8.4.1',
    says: 'tokens of two tenants, a token that was lent, and one that ended are exchanged for nothing',
    guard: 'modules/access/delegations/exchange.ts: exchangeToken',
    test: async () => {
      const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
      const [hers, his] = [await newMember(ann, 'agent'), await newMember(bob, 'agent')];
      assert.equal((await exchange(ann.token, hers.token)).status, 200);
      const ended = await newMember(ann, 'user');
      await ended.call('DELETE', '/v1/sessions/');
      assert.equal(codeOf(await exchange(ann.token, his.token)), '400 invalid_grant');
      assert.equal(codeOf(await exchange(ended.token, hers.token)), '400 invalid_grant');
      assert.equal(codeOf(await exchange('nonsense', hers.token)), '400 invalid_grant');
      assert.equal(codeOf(await exchange(ann.token, ended.token)), '401 invalid_client');
      const lent = await delegated(hers, await newMember(ann, 'agent'), ['read', 'delegations:create']);
      assert.equal(codeOf(await exchange(ann.token, lent.token)), '401 invalid_client');
    },
  },
  {
    id: 'ROLE-10',
    source: 'RFC 8693 1.1, RFC 9700 2.3',
    says: 'an exchange gives no more than the credential that is brought: a key passes on its scopes',
    guard: 'modules/access/delegations/holds.ts: grantHolds',
    test: async () => {
      const admin = await newTenant('admin');
      const agent = await newMember(admin, 'agent');
      const key = await newKey(admin, { scopes: ['memory:list', 'delegations:create'] });
      const { body } = await exchange(key.token, agent.token, { scope: 'read write admin' });
      assert.equal((await call('GET', '/v1/memory/', { token: body.access_token })).status, 200);
      for (const path of ['/v1/corpora', '/v1/sessions/', '/v1/documents'])
        assert.equal(codeOf(await call('GET', path, { token: body.access_token })), refused, path);
      const mute = await newKey(admin, { scopes: ['memory:list'] });
      assert.equal(codeOf(await exchange(mute.token, agent.token)), '403 access_denied');
    },
  },
  {
    id: 'ROLE-11',
    source: 'ASVS 8.2.1, ASVS 16.5.3',
    says: 'a role that no policy knows may do nothing',
    guard: 'platform/permission.ts: refusalOf',
    test: async () => {
      const admin = await newTenant('admin');
      const stranger = await newMember(admin, 'a-role-of-its-own');
      for (const [method, path, body] of [
        ['GET', '/v1/memory/', undefined],
        ['POST', '/v1/memory/', { text: 'x', type: 'note' }],
        ['GET', '/v1/identity/', undefined],
        ['GET', '/v1/policy/', undefined],
        ['POST', '/v1/api-keys/', { name: 'x' }],
        ['GET', '/v1/corpora', undefined],
        ['GET', '/v1/sessions/', undefined],
        ['POST', '/v1/invitations/', { email: 'a@example.com', role: 'user' }],
      ] as const)
        assert.equal(codeOf(await stranger.call(method, path, body)), refused, `${method} ${path}`);
    },
  },
  {
    id: 'ROLE-12',
    source: 'ASVS 15.2.3, ASVS 13.4.2',
    says: 'headers that stand in for a credential in development do not start in production',
    guard: 'platform/config.ts: AUTH_DEV_BYPASS',
    test: async () => {
      const production = {
        ...environmentOf({ ENVIRONMENT: 'production' }),
        PUBLIC_URL: 'https://manushya.test',
      };
      assert.equal(readConfig(production).AUTH_DEV_BYPASS, false);
      assert.throws(() => readConfig({ ...production, AUTH_DEV_BYPASS: 'true' }), /AUTH_DEV_BYPASS/);
    },
  },
]);
