import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
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

const note = { text: 'The gate opens at nine.', type: 'note' };
const codeOf = (reply: Reply) => `${reply.status} ${reply.body?.error?.code ?? ''}`.trim();

/** A person, an agent and an admin of one tenant. */
async function trio() {
  const admin = await newTenant('admin');
  const user = await newMember(admin, 'user');
  const agent = await newMember(admin, 'agent');
  return { admin, user, agent };
}

async function delegated(from: Caller, to: Caller, body: object = {}): Promise<Caller & { grant: string }> {
  const reply = await from.call('POST', `/v1/identity/${to.id}/delegate`, body);
  assert.equal(reply.status, 200, reply.text);
  return asToken(from, reply.body);
}

const asToken = (
  from: Pick<Caller, 'tenant' | 'id'>,
  { access_token: token, grant_id: grant }: { access_token: string; grant_id: string },
): Caller & { grant: string } => ({
  tenant: from.tenant,
  id: from.id,
  token,
  grant,
  call: (method, url, body, headers) =>
    call(method, url, { token, ...(body === undefined ? {} : { body }), ...(headers ? { headers } : {}) }),
});

async function addPolicy(
  tenant: string,
  role: string,
  rule: unknown,
  effect: 'allow' | 'deny',
): Promise<void> {
  const { app } = await testServer();
  const now = new Date();
  await app.database.tenant(tenant).run(sql`
    insert into policies (tenant_id, id, role, rule, effect, priority, created_at, updated_at)
    values (${tenant}, ${uuidv7()}, ${role}, ${rule}, ${effect}, 10, ${now}, ${now})`);
  app.shared.invalidate('policy', tenant);
}

describe('an agent that acts for somebody', () => {
  it('works on what is that person’s, is named in the token, in /me and in each fact', async () => {
    const { user, agent } = await trio();
    const acting = await delegated(user, agent, { reason: 'calendar' });
    const claims = decodeJwt(acting.token);
    assert.equal(decodeProtectedHeader(acting.token).typ, 'at+jwt');
    assert.equal(claims.sub, user.id);
    assert.deepEqual(claims.act, { sub: agent.id });
    assert.equal(claims.scope, 'read write');
    const made = await acting.call('POST', '/v1/memory/', note);
    assert.equal(made.status, 201, made.text);
    assert.equal(made.body.identity_id, user.id);
    assert.equal((await user.call('GET', `/v1/memory/${made.body.id}`)).status, 200);
    assert.equal(codeOf(await agent.call('GET', `/v1/memory/${made.body.id}`)), '404 NOT_FOUND');
    assert.equal((await acting.call('GET', '/v1/memory/')).body.length, 1);
    const found = await acting.call('POST', '/v1/memory/search', { query: 'when does the gate open' });
    assert.deepEqual(
      found.body.map(({ id }: { id: string }) => id),
      [made.body.id],
    );
    const me = (await acting.call('GET', '/v1/identity/me')).body;
    assert.equal(me.id, user.id);
    assert.deepEqual(
      me.delegation.agents.map(({ id }: { id: string }) => id),
      [agent.id],
    );
    assert.deepEqual(me.delegation.scopes, [['read', 'write']]);
    const { app } = await testServer();
    const facts = await app.database.tenant(user.tenant).rows<{ actor_id: string; on_behalf_of: string }>(sql`
      select actor_id, on_behalf_of from facts where tenant_id = ${user.tenant} and type = 'memory.created'`);
    assert.deepEqual(facts, [{ actor_id: agent.id, on_behalf_of: user.id }]);
  });

  it('may what both of them may, and no more', async () => {
    const { admin, user, agent } = await trio();
    const reader = await newMember(admin, 'reader');
    const forReader = await delegated(reader, agent);
    assert.equal((await forReader.call('GET', '/v1/memory/')).status, 200);
    assert.equal(
      codeOf(await forReader.call('POST', '/v1/memory/', note)),
      '403 AUTH_FORBIDDEN',
      'the person may not',
    );
    const forAdmin = await delegated(admin, agent, { scopes: ['admin'] });
    assert.equal(
      codeOf(await forAdmin.call('POST', '/v1/corpora', { name: 'x' })),
      '403 AUTH_FORBIDDEN',
      'the agent may not',
    );
    const hers = await user.call('POST', '/v1/memory/', note);
    assert.equal((await admin.call('GET', `/v1/memory/${hers.body.id}`)).status, 200);
    assert.equal(codeOf(await forAdmin.call('GET', `/v1/memory/${hers.body.id}`)), '404 NOT_FOUND');
    assert.deepEqual((await forAdmin.call('GET', '/v1/memory/')).body, [], 'only what is the admin’s own');
    assert.deepEqual((await forAdmin.call('POST', '/v1/memory/search', { query: 'gate' })).body, []);
    assert.equal(
      codeOf(await forAdmin.call('POST', '/v1/identity/', { external_id: 'x', role: 'user' })),
      '403 AUTH_FORBIDDEN',
    );
  });

  it('is held by the scopes of its grant', async () => {
    const { user, agent } = await trio();
    const readOnly = await delegated(user, agent, { scopes: ['memory:list'] });
    assert.equal((await readOnly.call('GET', '/v1/memory/')).status, 200);
    assert.equal(codeOf(await readOnly.call('POST', '/v1/memory/', note)), '403 AUTH_FORBIDDEN');
    assert.equal(
      codeOf(await readOnly.call('POST', '/v1/memory/search', { query: 'x' })),
      '403 AUTH_FORBIDDEN',
    );
    const usual = await delegated(user, agent);
    assert.equal(codeOf(await usual.call('PUT', '/v1/identity/me', { name: 'x' })), '403 AUTH_FORBIDDEN');
    assert.equal(codeOf(await usual.call('DELETE', `/v1/delegations/${usual.grant}`)), '403 AUTH_FORBIDDEN');
    for (const scopes of [[], ['everything'], ['read write'], ['memory:'], [1]])
      assert.equal(
        codeOf(await user.call('POST', `/v1/identity/${agent.id}/delegate`, { scopes })),
        '422 VALIDATION_ERROR',
      );
  });

  it('is seen by policies, which may stop agents from what people may', async () => {
    const { user, agent } = await trio();
    const deletes = { and: [{ '!!': { var: 'agent.id' } }, { '==': [{ var: 'action' }, 'delete'] }] };
    await addPolicy(user.tenant, '*', deletes, 'deny');
    const acting = await delegated(user, agent);
    const { body } = await acting.call('POST', '/v1/memory/', note);
    assert.equal(codeOf(await acting.call('DELETE', `/v1/memory/${body.id}`)), '403 POLICY_DENIED');
    assert.equal((await user.call('DELETE', `/v1/memory/${body.id}`)).status, 204);
  });

  it('passes on what it was given to another agent, never more, and both are named', async () => {
    const { admin, user, agent } = await trio();
    const second = await newMember(admin, 'agent');
    const usual = await delegated(user, agent);
    assert.equal(
      codeOf(await usual.call('POST', `/v1/identity/${second.id}/delegate`)),
      '403 AUTH_FORBIDDEN',
      'not without the scope',
    );
    const first = await delegated(user, agent, { scopes: ['memory:*', 'delegations:create'] });
    const nested = await delegated(first, second, { scopes: ['admin'] });
    assert.deepEqual(decodeJwt(nested.token).act, { sub: second.id, act: { sub: agent.id } });
    assert.equal((await nested.call('POST', '/v1/memory/', note)).status, 201);
    assert.equal(
      codeOf(await nested.call('GET', '/v1/corpora')),
      '403 AUTH_FORBIDDEN',
      'the first grant did not cover it',
    );
    const me = await newNestedMe(user, agent, second);
    assert.deepEqual(
      me.agents.map(({ id }: { id: string }) => id),
      [second.id, agent.id],
    );
    assert.equal(
      codeOf(await first.call('POST', `/v1/identity/${agent.id}/delegate`)),
      '400 DELEGATION_CIRCULAR',
    );
    assert.equal(codeOf(await user.call('POST', `/v1/identity/${user.id}/delegate`)), '403 AUTH_FORBIDDEN');
    assert.equal((await user.call('DELETE', `/v1/delegations/${first.grant}`)).status, 204);
    assert.equal(
      (await nested.call('GET', '/v1/memory/')).status,
      401,
      'it ends with the grant it was made from',
    );
  });

  async function newNestedMe(user: Caller, agent: Caller, second: Caller) {
    const first = await delegated(user, agent, { scopes: ['*'] });
    const nested = await delegated(first, second, { scopes: ['*'] });
    return (await nested.call('GET', '/v1/identity/me')).body.delegation;
  }

  it('at most four deep', async () => {
    const { admin, user } = await trio();
    let from: Caller = user;
    for (let depth = 1; depth <= 4; depth++)
      from = await delegated(from, await newMember(admin, 'agent'), { scopes: ['*'] });
    assert.equal((await from.call('GET', '/v1/memory/')).status, 200);
    const fifth = await newMember(admin, 'agent');
    assert.equal(
      codeOf(await from.call('POST', `/v1/identity/${fifth.id}/delegate`)),
      '400 DELEGATION_TOO_DEEP',
    );
  });
});

describe('what outlives a grant', () => {
  it('is not made by an agent that acts, whatever its scopes and policies allow', async () => {
    const { admin, user, agent } = await trio();
    const allowed = {
      in: [{ var: 'resource' }, ['api_keys', 'identity', 'invitations', 'credentials', 'identity_providers']],
    };
    await addPolicy(admin.tenant, '*', allowed, 'allow');
    const key = (await user.call('POST', '/v1/api-keys/', { name: 'mine' })).body.api_key.id;
    const acting = await delegated(user, agent, { scopes: ['admin'] });
    const oidc = { id: 'idp', name: 'IdP', issuer: 'https://idp.example', client_id: 'client' };
    const attempts: [string, string, object?][] = [
      ['POST', '/v1/api-keys/', { name: 'lasting' }],
      ['PUT', `/v1/api-keys/${key}`, { expires_in_days: 3_000 }],
      ['POST', `/v1/api-keys/${key}/rotate`, {}],
      ['POST', '/v1/self-serve/api-keys', { role: 'user' }],
      ['POST', '/v1/identity/', { external_id: 'somebody', role: 'user' }],
      ['POST', '/v1/auth/register', { username: 'somebody', password: 'a long enough pass phrase' }],
      ['POST', '/v1/invitations/', { email: 'guest@example.com', role: 'user' }],
      ['POST', '/v1/admin/identity/providers', oidc],
      ['POST', '/v1/auth/change-password', { old_password: 'one', new_password: 'a long enough pass phrase' }],
      ['POST', '/v1/auth/mfa/setup', {}],
      ['POST', '/v1/auth/mfa/verify', { token: '123456' }],
      ['POST', '/v1/auth/mfa/backup-codes', { code: '123456' }],
      ['DELETE', '/v1/auth/mfa/disable', { code: '123456' }],
    ]; // biome-ignore format: one line each
    for (const [method, path, body] of attempts) {
      const { status, body: answer, text } = await acting.call(method, path, body);
      assert.equal(status, 403, `${method} ${path}: ${text}`);
      assert.match(answer.error.message, /outlive its grant/, `${method} ${path}`);
    }
    assert.deepEqual((await user.call('GET', '/v1/api-keys/')).body.length, 1);
    assert.equal((await user.call('POST', '/v1/api-keys/', { name: 'by the person' })).status, 201);
    assert.equal((await acting.call('DELETE', `/v1/api-keys/${key}`)).status, 204, 'taking away it may');
  });

  it('is no further grant: it ends with the first, however long it was asked for', async () => {
    const { admin, user, agent } = await trio();
    const second = await newMember(admin, 'agent');
    const first = await delegated(user, agent, { scopes: ['admin'], expires_in: 60 });
    const passed = await first.call('POST', `/v1/identity/${second.id}/delegate`, { expires_in: 900 });
    assert.ok(passed.body.expires_in <= 60, passed.text);
    const [further] = (await user.call('GET', `/v1/delegations?agent_id=${second.id}`)).body;
    const [given] = (await user.call('GET', `/v1/delegations?agent_id=${agent.id}`)).body;
    assert.ok(further.expires_at <= given.expires_at);
  });
});

describe('a delegation', () => {
  const works = async (who: Caller) => (await who.call('GET', '/v1/memory/')).status === 200;

  it('is taken back by grant, by agent and by person, at once', async () => {
    const { admin, user, agent } = await trio();
    const grants = await Promise.all([1, 2, 3].map(() => delegated(user, agent)));
    assert.equal((await user.call('DELETE', `/v1/delegations/${grants[0]!.grant}`)).status, 204);
    assert.deepEqual(await Promise.all(grants.map(works)), [false, true, true]);
    const byAgent = await user.call('DELETE', `/v1/identity/${agent.id}/delegations`);
    assert.deepEqual(byAgent.body, { message: 'Revoked 2 delegations', revoked_count: 2 });
    assert.deepEqual(await Promise.all(grants.map(works)), [false, false, false]);
    const again = await delegated(user, agent);
    const adminsOwn = await delegated(admin, agent);
    assert.equal((await admin.call('DELETE', `/v1/identity/${user.id}/delegations`)).body.revoked_count, 1);
    assert.deepEqual([await works(again), await works(adminsOwn)], [false, true]);
    assert.equal((await user.call('DELETE', `/v1/identity/${admin.id}/delegations`)).body.revoked_count, 0);
    assert.ok(await works(adminsOwn), 'nobody takes back what another gave');
    const list = (await user.call('GET', '/v1/delegations?is_active=false')).body;
    assert.equal(list.length, 4);
    assert.ok(list.every(({ revoked_at }: { revoked_at: string }) => revoked_at !== null));
    assert.equal((await admin.call('GET', `/v1/delegations?agent_id=${agent.id}`)).body.length, 1);
  });

  it('ends with the session or the key it was made with, and with either identity', async () => {
    const { admin, user, agent } = await trio();
    const key = await newKey(user);
    const byKey = await delegated(key, agent);
    const bySession = await delegated(user, agent);
    assert.ok((await works(byKey)) && (await works(bySession)));
    const { app } = await testServer();
    const { revokeApiKey } = await import('../api-keys/service.ts');
    const { revokeSessions } = await import('../sessions/service.ts');
    const { systemCtx } = await import('#platform/context.ts');
    const ctx = systemCtx(app, user.tenant, uuidv7());
    await revokeApiKey(ctx, key.keyId);
    assert.deepEqual([await works(byKey), await works(bySession)], [false, true]);
    await revokeSessions(ctx, user.id);
    assert.equal(await works(bySession), false);
    const byAdmin = await delegated(admin, agent);
    assert.equal((await admin.call('PUT', `/v1/identity/${agent.id}`, { is_active: false })).status, 200);
    assert.equal(await works(byAdmin), false);
    assert.equal(codeOf(await admin.call('POST', `/v1/identity/${agent.id}/delegate`)), '404 NOT_FOUND');
  });

  it('made with a key is held by the key’s scopes as well', async () => {
    const { admin, user, agent } = await trio();
    const key = await newKey(user, { scopes: ['memory:list', 'delegations:create'] });
    const acting = await delegated(key, agent, { scopes: ['*'] });
    assert.ok(await works(acting));
    assert.equal(codeOf(await acting.call('POST', '/v1/memory/', note)), '403 AUTH_FORBIDDEN');
    const narrow = await newKey(admin, { scopes: ['read', 'write'] });
    assert.equal(
      codeOf(await narrow.call('POST', `/v1/identity/${agent.id}/delegate`)),
      '403 AUTH_FORBIDDEN',
    );
  });

  it('ends when its time is over, which is never longer than allowed', async () => {
    const { user, agent } = await trio();
    const short = await user.call('POST', `/v1/identity/${agent.id}/delegate`, { expires_in: 10 });
    assert.equal(short.body.expires_in, 10);
    const { exp, iat } = decodeJwt(short.body.access_token);
    assert.equal(exp! - iat!, 10);
    for (const expires_in of [3_601, 9, 0, -1, 1.5])
      assert.equal(
        codeOf(await user.call('POST', `/v1/identity/${agent.id}/delegate`, { expires_in })),
        '422 VALIDATION_ERROR',
      );
    const { app } = await testServer();
    const acting = asToken(user, short.body);
    assert.ok(await works(acting));
    await app.database.tenant(user.tenant).run(sql`
      update delegations set expires_at = ${new Date(Date.now() - 1)} where tenant_id = ${user.tenant} and id = ${acting.grant}`);
    app.shared.invalidate('delegation', `${user.tenant}/${acting.grant}`);
    assert.equal(await works(acting), false);
  });

  it('is to an agent: a person lets no other person act for it, and nobody of another tenant', async () => {
    const { user } = await trio();
    const other = await trio();
    const colleague = await newMember(other.admin, 'user');
    assert.equal(
      codeOf(await other.user.call('POST', `/v1/identity/${colleague.id}/delegate`)),
      '403 AUTH_FORBIDDEN',
    );
    assert.equal(codeOf(await user.call('POST', `/v1/identity/${other.agent.id}/delegate`)), '404 NOT_FOUND');
  });
});

describe('token exchange', () => {
  const grantType = 'urn:ietf:params:oauth:grant-type:token-exchange';
  const accessToken = 'urn:ietf:params:oauth:token-type:access_token';
  const exchange = (fields: Record<string, string>, headers: Record<string, string> = {}) =>
    call('POST', '/v1/oauth/token', {
      payload: new URLSearchParams(fields).toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    });
  const request = (subject: Caller, more: Record<string, string> = {}) => ({
    grant_type: grantType,
    subject_token: subject.token,
    subject_token_type: accessToken,
    ...more,
  });
  const bearer = (who: Caller) => ({ authorization: `Bearer ${who.token}` });
  const outcome = ({ status, body }: Reply) => `${status} ${body.error}`;

  it('gives an agent a token that acts for the person whose token it brings', async () => {
    const { user, agent } = await trio();
    const reply = await exchange(request(user, { scope: 'memory:create memory:list' }), bearer(agent));
    assert.equal(reply.status, 200, reply.text);
    assert.equal(reply.headers['cache-control'], 'no-store');
    assert.equal(reply.body.issued_token_type, accessToken);
    assert.equal(reply.body.token_type, 'Bearer');
    assert.equal(reply.body.scope, 'memory:create memory:list');
    const acting = asToken(user, reply.body);
    assert.equal((await acting.call('POST', '/v1/memory/', note)).body.identity_id, user.id);
    assert.equal(codeOf(await acting.call('GET', '/v1/corpora')), '403 AUTH_FORBIDDEN');
    const inBody = { actor_token: agent.token, actor_token_type: accessToken };
    assert.equal((await exchange(request(user, inBody))).status, 200);
    const json = await call('POST', '/v1/oauth/token', { body: request(user, inBody) });
    assert.equal(json.status, 200, 'as JSON too');
    const key = await newKey(agent);
    assert.equal((await exchange(request(user), bearer(key))).status, 200, 'with a key of the agent');
  });

  it('gives no scope that is none', async () => {
    const { user, agent } = await trio();
    const scopes = ['memory:read', 'memry:read'];
    const reply = await user.call('POST', `/v1/identity/${agent.id}/delegate`, { scopes });
    assert.equal(reply.status, 422);
    assert.equal(reply.body.error.details.errors[0].path, '/scopes/1');
    assert.equal(
      outcome(await exchange(request(user, { scope: 'memry:read' }), bearer(agent))),
      '400 invalid_scope',
    );
  });

  it('gives an agent with a narrowed key no more than the key has', async () => {
    const { user, agent } = await trio();
    const key = await newKey(agent, { scopes: ['memory:read', 'memory:list'] });
    const given = await exchange(request(user), bearer(key));
    assert.equal(given.body.scope, 'memory:read memory:list', given.text);
    const acting = asToken(user, given.body);
    assert.equal((await acting.call('GET', '/v1/memory/')).status, 200);
    assert.equal(codeOf(await acting.call('POST', '/v1/memory/', note)), '403 AUTH_FORBIDDEN');
    const narrower = await exchange(request(user, { scope: 'memory:list' }), bearer(key));
    assert.equal(narrower.body.scope, 'memory:list');
    for (const scope of ['memory:create', 'memory:list write', '*'])
      assert.equal(
        outcome(await exchange(request(user, { scope }), bearer(key))),
        '400 invalid_scope',
        scope,
      );
  });

  it('chains: an agent brings a token by which another acts', async () => {
    const { admin, user, agent } = await trio();
    const second = await newMember(admin, 'agent');
    const first = await delegated(user, agent, { scopes: ['memory:*', 'delegations:create'] });
    const reply = await exchange(request(first), bearer(second));
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(decodeJwt(reply.body.access_token).act, { sub: second.id, act: { sub: agent.id } });
    assert.equal(
      outcome(await exchange(request(await delegated(user, agent)), bearer(second))),
      '403 access_denied',
    );
  });

  it('refuses in the words of OAuth', async () => {
    const { admin, user, agent } = await trio();
    const other = await trio();
    const lent = await delegated(user, agent);
    const person = await newMember(admin, 'user');
    const refusals: [string, Promise<Reply>][] = [
      ['400 unsupported_grant_type', exchange({ ...request(user), grant_type: 'password' }, bearer(agent))],
      ['400 invalid_request', exchange({ grant_type: grantType }, bearer(agent))],
      ['400 invalid_request', exchange({ ...request(user), subject_token_type: 'urn:x' }, bearer(agent))],
      ['400 invalid_request', exchange(request(user, { actor_token: agent.token }))],
      ['400 invalid_request', exchange(request(user, { surprise: 'x' }), bearer(agent))],
      ['400 invalid_scope', exchange(request(user, { scope: 'everything' }), bearer(agent))],
      [
        '400 invalid_target',
        exchange(request(user, { audience: 'https://elsewhere.example' }), bearer(agent)),
      ],
      ['401 invalid_client', exchange(request(user))],
      ['401 invalid_client', exchange(request(user), bearer({ ...agent, token: 'nonsense' }))],
      ['401 invalid_client', exchange(request(user), bearer(lent))],
      ['400 invalid_grant', exchange({ ...request(user), subject_token: 'nonsense' }, bearer(agent))],
      ['400 invalid_grant', exchange(request(other.user), bearer(agent))],
      ['403 access_denied', exchange(request(user), bearer(person))],
      ['400 invalid_request', exchange(request(agent), bearer(agent))],
    ];
    for (const [wanted, reply] of refusals) assert.equal(outcome(await reply), wanted, (await reply).text);
    const twice = await call('POST', '/v1/oauth/token', {
      payload: `grant_type=${grantType}&grant_type=x`,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
    assert.equal(outcome(twice), '400 invalid_request');
    const foreign = await exchange(request(other.user), bearer(agent));
    const broken = await exchange({ ...request(user), subject_token: 'mk_nothing' }, bearer(agent));
    assert.equal(foreign.body.error_description, broken.body.error_description);
  });
});
