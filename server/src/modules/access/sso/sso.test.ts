import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { Browser, type Page } from '#test/browser.ts';
import { type Caller, callServer, giveBack, newMember, newTenant, useOwnServer } from '#test/harness.ts';
import { type OidcServer, openOidcServer } from '#test/oidc-server.ts';
import { type Door, openDoor, signIn, toCallback } from '#test/sign-in.ts';
import { pruneSignIns } from './service.ts';

describe('sign-in by a provider', () => {
  let idp: OidcServer;
  /** Another one, whose id tokens say no more than who somebody is. */
  let thin: OidcServer;
  let ann: Caller;
  let door: Door;
  let people = 0;
  const server = useOwnServer(async () => {
    idp = await openOidcServer();
    thin = await openOidcServer(false);
    return { FETCH_ALLOW_HOSTS: `${idp.host},${thin.host}`, EXT_RETRY_MAX_ATTEMPTS: '0' };
  });
  before(async () => {
    ann = await newTenant('admin', server());
    door = await openDoor(ann, idp);
  });
  after(() => Promise.all([idp.stop(), thin.stop()]));

  /** Somebody the provider knows. */
  function person(more: Record<string, unknown> = {}): string {
    const id = `person-${++people}`;
    idp.people.set(id, {
      email: `${id}@example.com`,
      email_verified: true,
      name: `Person ${people}`,
      ...more,
    });
    return id;
  }
  const enter = (user: string | undefined, through = door) => signIn(server(), idp, through, user);
  const approach = (user: string | undefined, through = door) => toCallback(server(), idp, through, user);
  const refused = (page: Page, wanted: string, what = '') =>
    assert.equal(`${page.status} ${page.body?.error?.code}`, wanted, `${what}: ${page.text}`);
  const accepted = (page: Page): Page => {
    assert.equal(page.status, 200, page.text);
    return page;
  };
  const me = async (page: Page) => {
    const reply = await callServer(server(), 'GET', '/v1/identity/me', {
      token: accepted(page).body.access_token,
    });
    assert.equal(reply.status, 200, reply.text);
    return reply.body;
  };
  const inTenant = <Row>(statement: Parameters<ReturnType<typeof db>['rows']>[0]) =>
    db().rows(statement) as Promise<Row[]>;
  const db = (tenant = ann.tenant) => server().app.database.tenant(tenant);
  const sessionsOf = async (tenant = ann.tenant) =>
    (await db(tenant).rows(sql`select 1 from sessions where tenant_id = ${tenant}`)).length;

  it('leads through the provider to an identity with tokens, and again to the same one', async () => {
    const user = person({ name: 'Ada Lovelace', email: 'Ada@Example.com' });
    const browser = new Browser(server());
    const first = await browser.get(door.login);
    assert.equal(first.status, 302);
    assert.equal(first.text, '');
    assert.equal(first.headers['cache-control'], 'no-store');
    const location = new URL(first.headers.location!);
    assert.equal(location.origin, idp.issuer);
    const asked = Object.fromEntries(location.searchParams);
    const { state, nonce, code_challenge, client_id, ...rest } = asked;
    assert.deepEqual(rest, {
      redirect_uri: door.callback,
      response_type: 'code',
      scope: 'openid email profile',
      code_challenge_method: 'S256',
    });
    for (const value of [state, nonce, code_challenge]) assert.match(value!, /^[\w-]{43}$/);
    const [cookie] = browser.set;
    assert.match(
      cookie!,
      /^__Host-manushya-sso=[\w-]{43}; Path=\/; Max-Age=600; Secure; HttpOnly; SameSite=Lax$/,
    );
    // What is kept of it tells nobody anything.
    const [row] = await inTenant<{ all: string }>(
      sql`select sso_states::text as all from sso_states where tenant_id = ${ann.tenant}`,
    );
    for (const secret of [state!, nonce!, code_challenge!, cookie!.slice(20, 63)]) {
      assert.ok(!row!.all.includes(secret));
      assert.ok(!row!.all.includes(Buffer.from(secret).toString('hex')));
    }

    idp.user = user;
    const page = accepted(await browser.go(location.href));
    assert.equal(page.headers['cache-control'], 'no-store');
    assert.deepEqual(Object.keys(page.body).sort(), [
      'access_token',
      'expires_in',
      'refresh_token',
      'token_type',
      'user',
    ]);
    const identity = await me(page);
    assert.deepEqual(page.body.user, {
      id: identity.id,
      email: 'ada@example.com',
      name: 'Ada Lovelace',
      provider: door.name,
    });
    assert.equal(identity.external_id, `${door.name.split('.').at(-1)}_${user}`);
    assert.equal(identity.role, 'user');
    assert.equal(identity.name, 'Ada Lovelace');
    assert.equal(identity.tenant_id, ann.tenant);
    assert.deepEqual(identity.claims, { email: 'ada@example.com', email_verified: true });

    assert.equal((await me(await enter(user))).id, identity.id);
    const facts = await inTenant<{ type: string; actor_id: string; data: object }>(sql`
      select type, actor_id, data from facts
      where tenant_id = ${ann.tenant} and resource_id = ${identity.id} order by id`);
    assert.deepEqual(
      facts.map(({ type }) => type),
      ['identity.created', 'identity.linked', 'sso.login', 'sso.login'],
    );
    assert.ok(facts.every(({ actor_id }) => actor_id === identity.id));
    assert.deepEqual(
      facts.slice(2).map(({ data }) => data),
      [
        { provider: door.name, found: 'new' },
        { provider: door.name, found: 'link' },
      ],
    );
  });

  it('asks userinfo where the id token says no more than who it is', async () => {
    const through = await openDoor(ann, thin);
    thin.people.set('u', { email: 'thin@example.com', email_verified: true, name: 'Thin' });
    const page = accepted(await signIn(server(), thin, through, 'u'));
    assert.equal(page.body.user.email, 'thin@example.com');
    assert.equal((await me(page)).name, 'Thin');
    assert.equal(thin.asked.get('/me'), 1);
  });

  describe('ends once, and in the browser it began in', () => {
    it('whatever else is replayed', async () => {
      const { browser, callback } = await approach(person());
      accepted(await browser.get(callback));
      const sessions = await sessionsOf();
      refused(await browser.get(callback), '400 SSO_INVALID_STATE');
      assert.equal(await sessionsOf(), sessions);
    });

    it('even when twenty callbacks come at once', async () => {
      const { browser, callback } = await approach(person());
      const sessions = await sessionsOf();
      const pages = await Promise.all(Array.from({ length: 20 }, () => browser.get(callback)));
      assert.equal(pages.filter(({ status }) => status === 200).length, 1);
      for (const page of pages.filter(({ status }) => status !== 200)) refused(page, '400 SSO_INVALID_STATE');
      assert.equal(await sessionsOf(), sessions + 1);
    });

    it('not in a browser without its cookie, or with another one, and stays there for its own', async () => {
      const mallory = await approach(person());
      // A stranger's callback, brought to somebody's browser, would sign it in as the stranger.
      refused(await new Browser(server()).get(mallory.callback), '400 SSO_INVALID_STATE', 'no cookie');
      const victim = await approach(person());
      refused(await victim.browser.get(mallory.callback), '400 SSO_INVALID_STATE', 'another cookie');
      const { app } = server();
      const [secret] = [...mallory.browser.cookies.get(app.config.publicUrl)!.values()];
      for (const cookie of [
        `manushya-sso=${secret}`,
        `__Host-manushya-sso=${secret}; __Host-manushya-sso=${secret}`,
        `__Host-manushya-sso="${secret}"`,
        `__Host-manushya-sso=${secret}x`,
        `__Host-manushya-sso=`,
        '__Host-manushya-sso',
      ]) {
        const { pathname, search } = new URL(mallory.callback);
        const reply = await callServer(server(), 'GET', pathname + search, { headers: { cookie } });
        assert.equal(reply.status, 400, cookie);
      }
      accepted(await victim.browser.get(victim.callback));
      accepted(await mallory.browser.get(mallory.callback));
    });

    it('with several under way in as many tabs', async () => {
      idp.user = person();
      const browser = new Browser(server());
      const first = await browser.go(door.login, door.callback);
      const second = await browser.go(door.login, door.callback);
      assert.equal(browser.set.filter((line) => line.startsWith('__Host-')).length, 2);
      accepted(await browser.get(first.url));
      accepted(await browser.get(second.url));
    });

    it('within ten minutes', async () => {
      const { browser, callback } = await approach(person());
      await db().run(
        sql`update sso_states set expires_at = ${new Date(Date.now() - 1)} where tenant_id = ${ann.tenant}`,
      );
      refused(await browser.get(callback), '400 SSO_INVALID_STATE');
      await approach(person());
      await pruneSignIns(server().app);
      const left = await inTenant<{ expires_at: string }>(
        sql`select expires_at from sso_states where tenant_id = ${ann.tenant}`,
      );
      assert.equal(left.length, 1, 'what is not over stays');
      const life = Date.parse(left[0]!.expires_at) - Date.now();
      assert.ok(life > 590_000 && life <= 600_000);
    });

    it('with a state of its own, at the provider it was begun for', async () => {
      const other = await openDoor(ann, idp);
      const bob = await newTenant('admin', server());
      const bobs = await openDoor(bob, idp);
      const { browser, callback } = await approach(person());
      const with_ = (name: string, value: string) => {
        const url = new URL(callback);
        url.searchParams.set(name, value);
        return url.href;
      };
      for (const url of [
        with_('state', 'A'.repeat(43)),
        with_('state', ''),
        callback.replace(/state=[^&]+&?/, ''),
        callback.replace(door.callback, other.callback),
        callback.replace(door.callback, bobs.callback),
        callback.replace(door.callback, `${door.callback}x`),
        callback.replace(ann.tenant, 'nobody'),
      ])
        refused(await browser.get(url), '400 SSO_INVALID_STATE', url);
      accepted(await browser.get(callback));
    });

    it('with a code that was not used before', async () => {
      const user = person();
      const first = await approach(user);
      accepted(await first.browser.get(first.callback));
      const code = new URL(first.callback).searchParams.get('code')!;
      const second = await approach(user);
      const url = new URL(second.callback);
      url.searchParams.set('code', code);
      const sessions = await sessionsOf();
      refused(await second.browser.get(url.href), '502 SSO_TOKEN_EXCHANGE_FAILED');
      refused(await second.browser.get(second.callback), '400 SSO_INVALID_STATE', 'the state is used up');
      assert.equal(await sessionsOf(), sessions);
    });

    it('not with the code of somebody else’s sign-in, whose verifier it does not have', async () => {
      const victim = await approach(person());
      const mallory = await approach(person());
      const url = new URL(mallory.callback);
      url.searchParams.set('code', new URL(victim.callback).searchParams.get('code')!);
      refused(await mallory.browser.get(url.href), '502 SSO_TOKEN_EXCHANGE_FAILED');
    });
  });

  it('is refused when the person does not want to, without a word of the provider', async () => {
    const { browser, callback } = await approach(undefined);
    assert.equal(new URL(callback).searchParams.get('error'), 'access_denied');
    const page = await browser.get(callback);
    refused(page, '403 SSO_ACCESS_DENIED');
    assert.doesNotMatch(page.text, /want to|<b>/);
    refused(await browser.get(callback), '400 SSO_INVALID_STATE');
    const [fact] = await inTenant<{ outcome: string; data: object }>(sql`
      select outcome, data from facts where tenant_id = ${ann.tenant} and type = 'sso.login_failed' order by id desc limit 1`);
    assert.deepEqual(fact, { outcome: 'failure', data: { provider: door.name, code: 'SSO_ACCESS_DENIED' } });
  });

  it('waits for a provider that is away, and leaves nothing behind meanwhile', async () => {
    const { browser, callback } = await approach(person());
    const states = async () =>
      (await inTenant(sql`select 1 from sso_states where tenant_id = ${ann.tenant}`)).length;
    idp.broken = 503;
    try {
      const sessions = await sessionsOf();
      const page = await browser.get(callback);
      refused(page, '503 SSO_PROVIDER_UNAVAILABLE');
      assert.equal(page.headers['retry-after'], '30');
      assert.equal(await sessionsOf(), sessions);
    } finally {
      idp.broken = undefined;
    }
    const before = await states();
    accepted(await enter(person()));
    assert.equal(await states(), before);
  });

  it('gives a new identity what the provider’s groups are worth, the first that fits, and its default otherwise', async () => {
    const mapped = await openDoor(ann, idp, {
      default_role: 'reader',
      role_claim: 'groups',
      role_mapping: [
        { value: 'writers', role: 'editor' },
        { value: 'bosses', role: 'admin' },
      ],
    });
    const roleOf = async (groups: unknown) => (await me(await enter(person({ groups }), mapped))).role;
    assert.equal(await roleOf(['bosses', 'writers']), 'editor');
    assert.equal(await roleOf('bosses'), 'admin');
    assert.equal(await roleOf(['Bosses', 5, null, { bosses: true }]), 'reader');
    assert.equal(await roleOf(undefined), 'reader');
    // It is given once: what an administrator changes stays.
    const user = person({ groups: 'bosses' });
    const { id } = await me(await enter(user, mapped));
    await db().run(sql`update identities set role = 'reader' where tenant_id = ${ann.tenant} and id = ${id}`);
    server().app.shared.invalidate('identity', `${ann.tenant}/${id}`);
    assert.equal((await me(await enter(user, mapped))).role, 'reader');
  });

  describe('finds who has an identity already', () => {
    const member = async (
      email: string,
      claims: object = { email, email_verified: true },
      role = 'editor',
    ) => {
      const reply = await ann.call('POST', '/v1/identity/', { external_id: `m-${++people}`, role, claims });
      assert.equal(reply.status, 200, reply.text);
      return reply.body.identity.id as string;
    };
    const email = () => `known-${++people}@example.com`;

    it('by an e-mail that both sides know to be theirs, once and for all', async () => {
      const address = email();
      const id = await member(address);
      const user = person({ email: address.toUpperCase() });
      const identity = await me(await enter(user));
      assert.equal(identity.id, id);
      assert.equal(identity.role, 'editor');
      // From here on by who they are: another e-mail makes them nobody else.
      idp.people.set(user, { email: email(), email_verified: true });
      assert.equal((await me(await enter(user))).id, id);
      const [fact] = await inTenant<{ data: object }>(sql`
        select data from facts where tenant_id = ${ann.tenant} and type = 'identity.linked' and resource_id = ${id}`);
      assert.deepEqual(fact!.data, { provider: door.name, issuer: idp.issuer, subject: user, by: 'email' });
    });

    it('but by none that the provider, or this side, has not verified', async () => {
      for (const email_verified of [false, undefined, 'true', 1]) {
        const address = email();
        const id = await member(address);
        const identity = await me(await enter(person({ email: address, email_verified })));
        assert.notEqual(identity.id, id, String(email_verified));
        assert.deepEqual(identity.claims, { email: address, email_verified: false });
      }
      for (const email_verified of [false, undefined, 'true', 1]) {
        const address = email();
        const id = await member(address, { email: address, email_verified });
        assert.notEqual((await me(await enter(person({ email: address })))).id, id, String(email_verified));
      }
    });

    it('but not where two have it, or another tenant does', async () => {
      const address = email();
      const ids = [await member(address), await member(address)];
      assert.ok(!ids.includes((await me(await enter(person({ email: address })))).id));
      const bob = await newTenant('admin', server());
      const there = email();
      const reply = await bob.call('POST', '/v1/identity/', {
        external_id: 'b',
        role: 'admin',
        claims: { email: there, email_verified: true },
      });
      const identity = await me(await enter(person({ email: there })));
      assert.notEqual(identity.id, reply.body.identity.id);
      assert.equal(identity.tenant_id, ann.tenant);
    });

    it('but not where the address came to somebody else at the provider', async () => {
      const address = email();
      const id = await member(address);
      assert.equal((await me(await enter(person({ email: address })))).id, id);
      assert.notEqual((await me(await enter(person({ email: address })))).id, id);
    });

    it('but not by an e-mail that an identity gave itself', async () => {
      const mallory = await newMember(ann, 'user', server());
      const address = email();
      // Whatever may be changed of oneself, this is not.
      await mallory.call('PUT', '/v1/identity/me', { claims: { email: address, email_verified: true } });
      assert.notEqual((await me(await enter(person({ email: address })))).id, mallory.id);
    });

    it('and lets nobody in whose identity is not active', async () => {
      const user = person();
      const { id } = await me(await enter(user));
      await db().run(
        sql`update identities set is_active = false where tenant_id = ${ann.tenant} and id = ${id}`,
      );
      server().app.shared.invalidate('identity', `${ann.tenant}/${id}`);
      const sessions = await sessionsOf();
      refused(await enter(user), '403 SSO_IDENTITY_INACTIVE');
      const address = email();
      const other = await member(address);
      await db().run(
        sql`update identities set is_active = false where tenant_id = ${ann.tenant} and id = ${other}`,
      );
      refused(await enter(person({ email: address })), '403 SSO_IDENTITY_INACTIVE');
      assert.equal(await sessionsOf(), sessions + 1, 'but the one that making the member began');
    });

    it('and takes over no identity that only has the external id a sign-in would make', async () => {
      const user = person();
      const external_id = `${door.name.split('.').at(-1)}_${user}`;
      const reply = await ann.call('POST', '/v1/identity/', { external_id, role: 'admin' });
      assert.equal(reply.status, 200);
      refused(await enter(user), '409 SSO_IDENTITY_CONFLICT');
    });
  });

  it('makes one identity of somebody who comes ten times at once', async () => {
    const user = person();
    const flows = [];
    for (let i = 0; i < 10; i++) flows.push(await approach(user));
    const pages = await Promise.all(flows.map(({ browser, callback }) => browser.get(callback)));
    const ids = new Set(pages.map((page) => accepted(page).body.user.id));
    assert.equal(ids.size, 1);
  });

  it('lets in nobody but whom the provider may bring', async () => {
    const closed = await openDoor(ann, idp, { jit_enabled: false });
    const count = async () =>
      (await inTenant(sql`select 1 from identities where tenant_id = ${ann.tenant}`)).length;
    const before = await count();
    refused(await enter(person(), closed), '403 SSO_JIT_DISABLED');
    const acme = await openDoor(ann, idp, { allowed_email_domains: ['acme.example', 'Acme.Test'] });
    for (const more of [
      {},
      { email: 'a@acme.example.evil.example' },
      { email: 'a@sub.acme.example' },
      { email: 'acme.example@evil.example' },
      { email: 'a@acme.example', email_verified: false },
      { email: undefined },
    ])
      refused(await enter(person(more), acme), '403 SSO_EMAIL_NOT_ALLOWED', JSON.stringify(more));
    assert.equal(await count(), before);
    const user = person({ email: 'a@ACME.test' });
    accepted(await enter(user, acme));
    // Also somebody who was let in before: what is allowed now counts.
    idp.people.set(user, { email: 'a@evil.example', email_verified: true });
    refused(await enter(user, acme), '403 SSO_EMAIL_NOT_ALLOWED');
  });

  it('keeps two tenants with providers of one id apart', async () => {
    const [tom, sue] = [await newTenant('admin', server()), await newTenant('admin', server())];
    const toms = await openDoor(tom, idp, { id: 'same' });
    const sues = await openDoor(sue, idp, { id: 'same', default_role: 'reader' });
    const user = person();
    const [his, hers] = [await me(await enter(user, toms)), await me(await enter(user, sues))];
    assert.deepEqual([his.tenant_id, his.role], [tom.tenant, 'user']);
    assert.deepEqual([hers.tenant_id, hers.role], [sue.tenant, 'reader']);
    assert.equal(his.external_id, hers.external_id);
    assert.notEqual(his.id, hers.id);
  });

  it('is offered under the names of open providers, and every other name gets one answer', async () => {
    const bob = await newTenant('admin', server());
    const off = await openDoor(bob, idp, { enabled: false });
    const gone = await openDoor(bob, idp);
    await bob.call('DELETE', `/v1/admin/identity/providers/${gone.name.split('.').at(-1)}`);
    const late = await openDoor(bob, idp);
    const underWay = await approach(person(), late);
    const wanted = (await new Browser(server()).get('http://manushya.test/v1/sso/login/nobody.nothing')).body
      .error;
    assert.equal(wanted.code, 'SSO_PROVIDER_NOT_FOUND');
    const { app } = server();
    const names = [
      off.name,
      gone.name,
      `${bob.tenant}.never`,
      'google',
      'okta',
      bob.tenant,
      `${bob.tenant}.`,
      `.${late.name}`,
      late.name.toUpperCase(),
      `${late.name}.x`,
      uuidv7(),
    ];
    for (const name of names) {
      const page = await new Browser(server()).get(`http://manushya.test/v1/sso/login/${name}`);
      assert.deepEqual([page.status, page.body.error], [404, wanted], name);
      assert.equal(page.headers['set-cookie'], undefined);
    }
    await app.database.operatorPool.query('update tenants set is_active = false where tenant_id = $1', [
      bob.tenant,
    ]);
    refused(await new Browser(server()).get(late.login), '404 SSO_PROVIDER_NOT_FOUND');
    refused(await underWay.browser.get(underWay.callback), '404 SSO_PROVIDER_NOT_FOUND');
  });

  it('does not outlive a change of whom it is begun with', async () => {
    const changed = await openDoor(ann, idp);
    const { browser, callback } = await approach(person(), changed);
    const path = `/v1/admin/identity/providers/${changed.name.split('.').at(-1)}`;
    assert.equal((await ann.call('PATCH', path, { client_id: 'another' })).status, 200);
    refused(await browser.get(callback), '400 SSO_INVALID_STATE');
  });

  it('is limited by address', async () => {
    const { app } = server();
    const { RATE_LIMIT_ENABLED, SSO_CALLS_PER_HOUR } = app.config;
    Object.assign(app.config, { RATE_LIMIT_ENABLED: true, SSO_CALLS_PER_HOUR: 3 });
    try {
      const statuses = [];
      for (let i = 0; i < 3; i++) {
        statuses.push((await callServer(server(), 'GET', '/v1/sso/login/a.b')).status);
        statuses.push((await callServer(server(), 'GET', '/v1/sso/callback/a.b')).status);
        const body = { code: 'x', code_verifier: 'y' };
        statuses.push((await callServer(server(), 'POST', '/v1/sso/exchange', { body })).status);
      }
      assert.deepEqual(statuses.slice(0, 3), [404, 400, 400]);
      assert.ok(statuses.filter((status) => status === 429).length >= 5, String(statuses));
    } finally {
      await giveBack(server(), 'sso');
      assert.deepEqual(await app.shared.levels('@:sso:127.0.0.1', 1), []);
      Object.assign(app.config, { RATE_LIMIT_ENABLED, SSO_CALLS_PER_HOUR });
    }
  });
});
