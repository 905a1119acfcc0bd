import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import type { Page } from '#test/browser.ts';
import { type Caller, callServer, giveBack, newTenant, useOwnServer } from '#test/harness.ts';
import { type OidcServer, openOidcServer } from '#test/oidc-server.ts';
import { signIn, toCallback } from '#test/sign-in.ts';

const door = {
  login: 'http://manushya.test/v1/sso/login/google',
  callback: 'http://manushya.test/v1/sso/callback/google',
};
const refused = (page: Page, wanted: string) =>
  assert.equal(`${page.status} ${page.body?.error?.code}`, wanted, page.text);

/** A provider that stands in for Google, with the client of the installation. */
async function openGoogle(): Promise<{ idp: OidcServer; settings: Record<string, string> }> {
  const idp = await openOidcServer();
  idp.register({ client_id: 'g', client_secret: 'of google', redirect_uris: [door.callback] });
  const settings = {
    FETCH_ALLOW_HOSTS: idp.host,
    GOOGLE_ISSUER: idp.issuer,
    GOOGLE_CLIENT_ID: 'g',
    GOOGLE_CLIENT_SECRET: 'of google',
  };
  return { idp, settings };
}

describe('sign-in by Google, where no tenant is named', () => {
  let idp: OidcServer;
  let people = 0;
  const server = useOwnServer(async () => {
    const google = await openGoogle();
    idp = google.idp;
    return google.settings;
  });
  after(() => idp.stop());

  const person = (more: object = {}) => {
    const id = `g${++people}`;
    idp.people.set(id, { email: `${id}@gmail.com`, email_verified: true, name: 'Gail', ...more });
    return id;
  };
  const enter = (user: string) => signIn(server(), idp, door, user);
  const me = async (page: Page) => {
    assert.equal(page.status, 200, page.text);
    return (await callServer(server(), 'GET', '/v1/identity/me', { token: page.body.access_token })).body;
  };
  const asOperator = (text: string, values: unknown[]) =>
    server().app.database.operatorPool.query(text, values);

  it('gives each person a tenant of their own, and the same one again', async () => {
    const [gail, gus] = [person(), person()];
    const first = await me(await enter(gail));
    assert.equal(first.role, 'admin');
    assert.equal(first.external_id, `google_${gail}`);
    assert.equal((await me(await enter(gail))).id, first.id);
    const other = await me(await enter(gus));
    assert.notEqual(other.tenant_id, first.tenant_id);
    const { rows } = await asOperator('select name from tenants where tenant_id = $1', [first.tenant_id]);
    assert.deepEqual(rows, [{ name: `Tenant for ${gail}@gmail.com` }]);
    const facts = await asOperator('select type from facts where tenant_id = $1 order by id', [
      first.tenant_id,
    ]);
    assert.deepEqual(
      facts.rows.map(({ type }) => type),
      [
        'tenant.created',
        'identity.created',
        'identity.linked',
        'session.created',
        'sso.login',
        'session.created',
        'sso.login',
      ],
    );
    const states = await asOperator(`select 1 from sso_states where tenant_id = '@google'`, []);
    assert.equal(states.rows.length, 0);
  });

  it('makes one tenant of somebody who comes ten times at once', async () => {
    const user = person();
    const flows = [];
    for (let i = 0; i < 10; i++) flows.push(await toCallback(server(), idp, door, user));
    const pages = await Promise.all(flows.map(({ browser, callback }) => browser.get(callback)));
    assert.deepEqual(new Set(pages.map(({ status }) => status)), new Set([200]));
    assert.equal(new Set(pages.map(({ body }) => body.user.id)).size, 1);
  });

  it('lets nobody back into a tenant whose administrators removed them', async () => {
    const user = person();
    const { id, tenant_id } = await me(await enter(user));
    await asOperator('update identities set is_active = false where tenant_id = $1 and id = $2', [
      tenant_id,
      id,
    ]);
    refused(await enter(user), '403 SSO_IDENTITY_INACTIVE');
    await asOperator('delete from identities where tenant_id = $1 and id = $2', [tenant_id, id]);
    refused(await enter(user), '403 SSO_JIT_DISABLED');
    await asOperator('update tenants set is_active = false where tenant_id = $1', [tenant_id]);
    server().app.shared.invalidate('tenant', tenant_id);
    refused(await enter(user), '403 SSO_IDENTITY_INACTIVE');
  });

  it('opens no tenants where registration is closed, and those that are there stay open', async () => {
    const known = person();
    const { id } = await me(await enter(known));
    const { config } = server().app;
    config.openRegistration = false;
    try {
      refused(await enter(person()), '403 SSO_JIT_DISABLED');
      assert.equal((await me(await enter(known))).id, id);
    } finally {
      config.openRegistration = true;
    }
  });

  it('counts as a sign-up of the address', async () => {
    const { config } = server().app;
    Object.assign(config, { RATE_LIMIT_ENABLED: true, SIGN_UPS_PER_HOUR: 1 });
    try {
      const pages = [await enter(person()), await enter(person()), await enter(person())];
      const refusal = pages.find(({ status }) => status === 429);
      assert.equal(refusal?.body.error.details.scope, 'address');
    } finally {
      await giveBack(server(), 'signup');
      Object.assign(config, { RATE_LIMIT_ENABLED: false, SIGN_UPS_PER_HOUR: 1_000_000 });
    }
  });
});

describe('sign-in by Google into a tenant', () => {
  let idp: OidcServer;
  let ann: Caller;
  let people = 0;
  const server = useOwnServer(async () => {
    const google = await openGoogle();
    idp = google.idp;
    return { ...google.settings, GOOGLE_TENANT_ID: 'acme', GOOGLE_ALLOWED_DOMAINS: 'Acme.example' };
  });
  before(async () => {
    const { app } = server();
    // A tenant of that name, made as the command line makes it, with somebody in it.
    ann = await newTenant('admin', server());
    await app.database.operatorPool.query(
      `insert into tenants (tenant_id, name, created_at, updated_at) values ('acme', 'Acme', now(), now())`,
    );
    app.shared.invalidate('tenant', 'acme');
    const now = new Date();
    for (const [id, email] of [
      ['0190aaaa-0000-7000-8000-000000000001', 'boss@gmail.com'],
      ['0190aaaa-0000-7000-8000-000000000002', 'old@elsewhere.example'],
    ])
      await app.database.tenant('acme').run(sql`
        insert into identities (tenant_id, id, external_id, role, claims, created_at, updated_at)
        values (${'acme'}, ${id}, ${email}, 'editor', ${{ email, email_verified: true }}, ${now}, ${now})`);
  });
  after(() => idp.stop());

  const person = (more: object) => {
    const id = `t${++people}`;
    idp.people.set(id, { email_verified: true, ...more });
    return id;
  };
  const enter = (user: string) => signIn(server(), idp, door, user);

  it('brings in new people of its domains as users, and nobody else', async () => {
    const page = await enter(person({ email: 'new@acme.example', hd: 'acme.example' }));
    assert.equal(page.status, 200, page.text);
    const { body } = await callServer(server(), 'GET', '/v1/identity/me', { token: page.body.access_token });
    assert.deepEqual([body.tenant_id, body.role], ['acme', 'user']);
    assert.notEqual(body.tenant_id, ann.tenant);
    refused(await enter(person({ email: 'new@gmail.com' })), '403 SSO_JIT_DISABLED');
    refused(await enter(person({ email: 'x@evil.example', hd: 'evil.example' })), '403 SSO_JIT_DISABLED');
    const unverified = { email: 'x@acme.example', email_verified: false, hd: 'acme.example' };
    refused(await enter(person(unverified)), '403 SSO_JIT_DISABLED');
  });

  it('knows those who are there, where Google can know whose the address is', async () => {
    const boss = await enter(person({ email: 'Boss@gmail.com' }));
    assert.equal(boss.body.user?.id, '0190aaaa-0000-7000-8000-000000000001', boss.text);
    // An account made long ago with an address of a domain that Google does not host.
    refused(await enter(person({ email: 'old@elsewhere.example' })), '403 SSO_JIT_DISABLED');
    refused(await enter(person({ email: 'x@acme.example' })), '403 SSO_JIT_DISABLED');
    const hosted = await enter(person({ email: 'old@elsewhere.example', hd: 'elsewhere.example' }));
    assert.equal(hosted.body.user?.id, '0190aaaa-0000-7000-8000-000000000002', hosted.text);
  });

  it('is not offered while the tenant is switched off', async () => {
    const { app } = server();
    const set = async (active: boolean) => {
      await app.database.operatorPool.query(`update tenants set is_active = $1 where tenant_id = 'acme'`, [
        active,
      ]);
      app.shared.invalidate('tenant', 'acme');
    };
    const login = () => callServer(server(), 'GET', '/v1/sso/login/google');
    await set(false);
    assert.equal((await login()).status, 404);
    await set(true);
    assert.equal((await login()).status, 302);
  });
});
