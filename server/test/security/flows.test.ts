import assert from 'node:assert/strict';
import {
  call,
  eventually,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { goodPassword, mailsTo, newPerson, resetTokenOf, signIn } from '#test/people.ts';
import { prove } from './statement.ts';

useTestServer();

const codeOf = ({ status, body }: Reply) => `${status} ${body?.error?.code ?? ''}`.trim();
let named = 0;
const newMailbox = () => `flow-${++named}-${Date.now().toString(36)}@example.com`;

const count = async (table: string, tenant: string): Promise<number> =>
  (
    await (
      await testServer()
    ).app.database.operatorPool.query(`select count(*)::int as n from ${table} where tenant_id = $1`, [
      tenant,
    ])
  ).rows[0].n;

/** That a token of an unfinished step opens nothing wherever a credential is taken. */
async function opensNothing(token: string): Promise<void> {
  for (const headers of [{ authorization: `Bearer ${token}` }, { 'x-api-key': token }] as Record<
    string,
    string
  >[])
    for (const path of ['/v1/identity/me', '/v1/memory/', '/v1/sessions/'])
      assert.equal((await call('GET', path, { headers })).status, 401, path);
  const doors: [path: string, body: object][] = [
    ['/v1/sessions/refresh', { refresh_token: token }],
    ['/v1/auth/mfa/challenge', { mfa_token: token, code: '123456' }],
    ['/v1/sso/exchange', { code: token, code_verifier: 'x'.repeat(43) }],
  ];
  for (const [path, body] of doors) {
    const { status, text } = await call('POST', path, { body });
    assert.ok(status >= 400 && status < 500, `${path}: ${text}`);
  }
}

async function invited(role = 'user') {
  const admin = await newTenant('admin');
  const email = newMailbox();
  const { body } = await admin.call('POST', '/v1/invitations/', { email, role });
  const mail = await eventually('the mail', async () => (await mailsTo(email))[0]);
  return { admin, email, id: body.id as string, token: /inv_[\w.-]+/.exec(mail.text ?? '')![0] };
}

prove('half-finished flows', [
  {
    id: 'FLOW-01',
    source: 'ASVS 2.3.1, ASVS 6.4.1',
    says: 'an invitation that nobody accepted makes no identity and opens nothing',
    guard: 'modules/access/invitations/service.ts: acceptToken',
    test: async () => {
      const { admin, token } = await invited();
      assert.equal((await call('GET', `/v1/invitations/validate/${token}`)).status, 200);
      await opensNothing(token);
      const confirmed = { token, new_password: goodPassword };
      assert.equal(
        codeOf(await call('POST', '/v1/auth/reset-password/confirm', { body: confirmed })),
        '400 RESET_TOKEN_INVALID',
      );
      assert.deepEqual(
        [await count('identities', admin.tenant), await count('sessions', admin.tenant)],
        [1, 1],
      );
    },
  },
  {
    id: 'FLOW-02',
    source: 'ASVS 6.4.1, ASVS 2.3.4',
    says: 'an invitation is accepted once, however many accept it',
    guard: 'modules/access/invitations/store.ts: acceptRow',
    test: async () => {
      const { admin, token } = await invited();
      const accept = (external_id: string) =>
        call('POST', `/v1/invitations/accept/${token}`, { body: { external_id } });
      const replies = await Promise.all(Array.from({ length: 8 }, (_, i) => accept(`guest-${i}`)));
      assert.deepEqual(replies.map(({ status }) => status).sort(), [200, ...Array(7).fill(404)]);
      assert.equal(codeOf(await accept('one-more')), '404 NOT_FOUND');
      assert.equal(await count('identities', admin.tenant), 2);
    },
  },
  {
    id: 'FLOW-03',
    source: 'ASVS 6.4.3, ASVS 2.3.1',
    says: 'a reset that nobody confirmed changes nothing, and its token opens nothing',
    guard: 'modules/access/passwords/reset.ts: confirmReset',
    test: async () => {
      const email = newMailbox();
      const ann = await newPerson({ email });
      const token = await resetTokenOf(ann, email);
      await opensNothing(token);
      assert.equal((await call('GET', `/v1/invitations/validate/${token}`)).status, 404);
      assert.equal((await signIn(ann)).status, 200);
      assert.equal((await ann.call('GET', '/v1/identity/me')).status, 200);
    },
  },
  {
    id: 'FLOW-04',
    source: 'ASVS 6.4.1, NIST 800-63B-4 4.2',
    says: 'a reset token works once, however many bring it',
    guard: 'modules/access/passwords/store.ts: takeReset',
    test: async () => {
      const email = newMailbox();
      const ann = await newPerson({ email });
      const token = await resetTokenOf(ann, email);
      const confirm = (new_password: string) =>
        call('POST', '/v1/auth/reset-password/confirm', { body: { token, new_password } });
      const replies = await Promise.all([1, 2, 3, 4].map((n) => confirm(`a hazel opens gate ${n}`)));
      assert.equal(replies.filter(({ status }) => status === 200).length, 1);
      assert.equal(codeOf(await confirm('a hazel opens gate 9')), '400 RESET_TOKEN_INVALID');
      assert.equal((await signIn(ann)).status, 401, 'the old password is none any more');
    },
  },
  {
    id: 'FLOW-05',
    source: 'ASVS 2.3.1, ASVS 6.3.3',
    says: 'a second factor that was set up and not confirmed is asked for nowhere, and proves nothing',
    guard: 'modules/access/mfa/service.ts: verifySetup',
    test: async () => {
      const ann = await newPerson();
      const { body } = await ann.call('POST', '/v1/auth/mfa/setup');
      const signed = await signIn(ann);
      assert.ok(signed.body.access_token, 'no challenge');
      const status = await ann.call('GET', '/v1/auth/mfa/status');
      assert.deepEqual([status.body.enabled, status.body.backup_codes_remaining], [false, 0]);
      const proof = { password: ann.password, backup_code: body.backup_codes[0] };
      assert.equal(codeOf(await ann.call('DELETE', '/v1/auth/mfa/disable', proof)), '409 MFA_NOT_ENABLED');
      // Nor does it stand in for the length that a password without a second factor needs.
      const short = { old_password: ann.password, new_password: 'walnut gate' };
      assert.equal(codeOf(await ann.call('POST', '/v1/auth/change-password', short)), '422 VALIDATION_ERROR');
    },
  },
  {
    id: 'FLOW-06',
    source: 'ASVS 2.3.3',
    says: 'a registration that fails leaves nothing: no identity, account, session or name',
    guard: 'modules/access/registration/service.ts: enrol',
    test: async () => {
      const admin = await newTenant('admin');
      const member = await newMember(admin, 'user');
      const { external_id: username } = (await admin.call('GET', `/v1/identity/${member.id}`)).body;
      const tables = ['identities', 'accounts', 'login_names', 'sessions', 'facts'];
      const rows = () => Promise.all(tables.map((table) => count(table, admin.tenant)));
      const before = await rows();
      const body = { username, password: goodPassword, email: newMailbox() };
      const reply = await admin.call('POST', '/v1/auth/register', body);
      assert.equal(codeOf(reply), '409 IDENTITY_EXISTS');
      assert.deepEqual(await rows(), before);
    },
  },
  {
    id: 'FLOW-07',
    source: 'RFC 6749 5.2, ASVS 2.3.1',
    says: 'an exchange of tokens that is refused leaves no grant',
    guard: 'modules/access/delegations/exchange.ts: checkRequest',
    test: async () => {
      const ann = await newTenant('admin');
      const agent = await newMember(ann, 'agent');
      const type = 'urn:ietf:params:oauth:token-type:access_token';
      const good = {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: ann.token,
        subject_token_type: type,
      };
      const ask = (more: Record<string, string>) =>
        call('POST', '/v1/oauth/token', {
          token: agent.token,
          payload: new URLSearchParams({ ...good, ...more }).toString(),
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
        });
      for (const more of [
        { scope: 'everything at all' },
        { audience: 'https://evil.example' },
        { resource: 'https://evil.example' },
        { requested_token_type: 'urn:ietf:params:oauth:token-type:refresh_token' },
        { grant_type: 'password' },
        { subject_token_type: 'urn:ietf:params:oauth:token-type:id_token' },
        { client_id: 'x' },
      ] as Record<string, string>[])
        assert.equal((await ask(more)).status, 400, JSON.stringify(more));
      assert.equal(await count('delegations', ann.tenant), 0);
      assert.equal((await ask({})).status, 200);
      assert.equal(await count('delegations', ann.tenant), 1);
    },
  },
  {
    id: 'FLOW-08',
    source: 'ASVS 6.2.3, ASVS 7.5.1',
    says: 'a password is changed by whoever knows it, and a wrong one changes and ends nothing',
    guard: 'modules/access/passwords/service.ts: changeOwnPassword',
    test: async () => {
      const ann = await newPerson();
      const other = (await signIn(ann)).body.access_token;
      const change = { old_password: 'not the right password', new_password: 'a hazel opens the gate' };
      const reply = await ann.call('POST', '/v1/auth/change-password', change);
      assert.ok([401, 403].includes(reply.status), reply.text);
      assert.equal((await signIn(ann)).status, 200);
      assert.equal((await call('GET', '/v1/identity/me', { token: other })).status, 200);
    },
  },
  {
    id: 'FLOW-09',
    source: 'RFC 9700 4.7, RFC 9700 4.11, ASVS 10.1.2',
    says: 'a callback or a code of a sign-in that nobody began starts no session and sends the browser nowhere',
    guard: 'modules/access/sso/service.ts: claimed',
    test: async () => {
      const ann = await newTenant('admin');
      const made = await ann.call('POST', '/v1/admin/identity/providers', {
        ...{ id: 'idp', name: 'One', issuer: 'https://idp.example', client_id: 'client', jit_enabled: true },
      });
      assert.equal(made.status, 201, made.text);
      const before = await count('sessions', ann.tenant);
      const browser = { cookie: `__Host-manushya-sso=${'A'.repeat(43)}` };
      for (const query of ['code=x&state=y', 'code=x', 'error=access_denied&state=y', ''])
        for (const headers of [{}, browser] as Record<string, string>[]) {
          const path = `/v1/sso/callback/${ann.tenant}.idp?${query}`;
          const reply = await call('GET', `${path}&return_to=https://evil.example`, { headers });
          assert.ok(reply.status >= 400 && reply.status < 500, reply.text);
          assert.equal(reply.headers.location, undefined);
        }
      const body = { code: `sso_${ann.tenant}_${'A'.repeat(43)}`, code_verifier: 'x'.repeat(43) };
      assert.equal(codeOf(await call('POST', '/v1/sso/exchange', { body })), '400 SSO_INVALID_CODE');
      assert.equal(await count('sessions', ann.tenant), before);
    },
  },
  {
    id: 'FLOW-10',
    source: 'RFC 9700 4.1, RFC 9700 4.11, ASVS 3.7.2, ASVS 10.4.1',
    says: 'a sign-in returns to no page that is not on the list, however it is dressed up',
    guard: 'modules/access/sso/service.ts: checkReturn',
    test: async () => {
      const ann = await newTenant('admin');
      const body = { id: 'idp', name: 'One', issuer: 'https://idp.example', client_id: 'client' };
      assert.equal((await ann.call('POST', '/v1/admin/identity/providers', body)).status, 201);
      const { app } = await testServer();
      const listed = app.config.SSO_RETURN_TO_ORIGINS;
      app.config.SSO_RETURN_TO_ORIGINS = ['https://app.example.com'];
      try {
        for (const page of [
          'https://evil.example/',
          'https://app.example.com.evil.example/',
          'https://app.example.com@evil.example/',
          'https://user:pw@app.example.com/',
          'http://app.example.com/',
          'https://app.example.com:8443/',
          '//evil.example/',
          '/v1/docs',
          'javascript:alert(1)',
          'https://app.example.com/#/fragment',
          'data:text/html,x',
        ]) {
          const query = new URLSearchParams({ return_to: page, code_challenge: 'x'.repeat(43) });
          const reply = await call('GET', `/v1/sso/login/${ann.tenant}.idp?${query}`);
          assert.equal(codeOf(reply), '400 SSO_RETURN_TO_NOT_ALLOWED', page);
          assert.equal(reply.headers.location, undefined);
        }
      } finally {
        app.config.SSO_RETURN_TO_ORIGINS = listed;
      }
    },
  },
]);
