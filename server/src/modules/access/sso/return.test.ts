import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { readConfig } from '#platform/config.ts';
import { sql } from '#platform/db/sql.ts';
import { Browser, type Page } from '#test/browser.ts';
import {
  type Caller,
  callServer,
  environmentOf,
  newTenant,
  type Reply,
  useOwnServer,
} from '#test/harness.ts';
import { type OidcServer, openOidcServer } from '#test/oidc-server.ts';
import { type Door, openDoor, toCallback } from '#test/sign-in.ts';
import { pruneSignIns } from './service.ts';

const app = 'https://app.example.com/signed-in?tab=2';
const newVerifier = () => {
  const verifier = randomBytes(32).toString('base64url');
  return { verifier, challenge: createHash('sha256').update(verifier).digest('base64url') };
};

describe('a sign-in that returns to a front end', () => {
  let idp: OidcServer;
  let ann: Caller;
  let door: Door;
  let people = 0;
  const server = useOwnServer(async () => {
    idp = await openOidcServer();
    return {
      FETCH_ALLOW_HOSTS: idp.host,
      SSO_RETURN_TO_ORIGINS: 'https://app.example.com, http://localhost:3000/',
    };
  });
  before(async () => {
    ann = await newTenant('admin', server());
    door = await openDoor(ann, idp);
  });
  after(() => idp.stop());

  const person = (more: object = {}) => {
    const id = `returning-${++people}`;
    idp.people.set(id, { email: `${id}@example.com`, email_verified: true, name: 'Rea', ...more });
    return id;
  };
  const count = async (what: 'sessions' | 'codes') => {
    const [row] = await server()
      .app.database.tenant(ann.tenant)
      .rows<Record<string, number>>(sql`
        select (select count(*)::int from sessions where tenant_id = ${ann.tenant}) as sessions,
          (select count(*)::int from sso_codes where tenant_id = ${ann.tenant}) as codes`);
    return row![what]!;
  };
  const begin = (query: Record<string, string>): Promise<Page> =>
    new Browser(server()).get(`${door.login}?${new URLSearchParams(query)}`);
  const exchange = (code: string, code_verifier: string): Promise<Reply> =>
    callServer(server(), 'POST', '/v1/sso/exchange', { body: { code, code_verifier } });
  const codeOf = ({ status, body }: Reply | Page) => `${status} ${body?.error?.code}`;

  /** A sign-in as far as the page of the front end. */
  async function returned(user: string | null = person(), page = app, through = door) {
    const { verifier, challenge } = newVerifier();
    const query = { return_to: page, code_challenge: challenge };
    const { browser, callback } = await toCallback(server(), idp, through, user ?? undefined, query);
    const answer = await browser.get(callback);
    assert.equal(answer.status, 302, answer.text);
    return { verifier, answer, url: new URL(answer.headers.location!) };
  }

  it('brings a code that is exchanged for tokens once, and no session before', async () => {
    const sessions = await count('sessions');
    const { verifier, answer, url } = await returned();
    assert.equal(answer.text, '');
    assert.equal(answer.headers['cache-control'], 'no-store');
    assert.equal(answer.headers['referrer-policy'], 'no-referrer');
    assert.equal(url.origin + url.pathname, 'https://app.example.com/signed-in');
    assert.deepEqual([...url.searchParams.keys()], ['tab', 'code']);
    assert.equal(await count('sessions'), sessions);
    const code = url.searchParams.get('code')!;
    const reply = await exchange(code, verifier);
    assert.equal(reply.status, 200, reply.text);
    assert.equal(reply.headers['cache-control'], 'no-store');
    assert.equal(await count('sessions'), sessions + 1);
    const me = await callServer(server(), 'GET', '/v1/identity/me', { token: reply.body.access_token });
    assert.deepEqual(reply.body.user, {
      id: me.body.id,
      email: me.body.claims.email,
      name: 'Rea',
      provider: door.name,
    });
    assert.match(reply.body.refresh_token, /^rt_/);
    assert.equal(codeOf(await exchange(code, verifier)), '400 SSO_INVALID_CODE');
    assert.equal(await count('sessions'), sessions + 1);
  });

  it('gives its tokens to one of twenty who exchange at once', async () => {
    const { verifier, url } = await returned();
    const sessions = await count('sessions');
    const code = url.searchParams.get('code')!;
    const replies = await Promise.all(Array.from({ length: 20 }, () => exchange(code, verifier)));
    assert.equal(replies.filter(({ status }) => status === 200).length, 1);
    for (const reply of replies.filter(({ status }) => status !== 200))
      assert.equal(codeOf(reply), '400 SSO_INVALID_CODE');
    assert.equal(await count('sessions'), sessions + 1);
  });

  it('is worth nothing to whoever only saw the code', async () => {
    const { verifier, url } = await returned();
    const code = url.searchParams.get('code')!;
    const other = newVerifier();
    for (const wrong of [
      other.verifier,
      createHash('sha256').update(verifier).digest('base64url'),
      `${verifier}A`,
      verifier.slice(1),
      verifier.toUpperCase(),
      '',
    ])
      assert.equal(codeOf(await exchange(code, wrong)), '400 SSO_INVALID_CODE', wrong);
    for (const wrong of [
      code.slice(0, -43) + 'A'.repeat(43),
      code.replace(ann.tenant, 'nobody'),
      code.replace('sso_', ''),
      `${code}A`,
      'x',
      '',
    ])
      assert.equal(codeOf(await exchange(wrong, verifier)), '400 SSO_INVALID_CODE', wrong);
    const [row] = await server()
      .app.database.tenant(ann.tenant)
      .rows<{ all: string }>(
        sql`select sso_codes::text as all from sso_codes where tenant_id = ${ann.tenant}`,
      );
    assert.ok(!row!.all.includes(code.slice(-43)) && !row!.all.includes('@example.com'));
    assert.equal((await exchange(code, verifier)).status, 200);
  });

  it('is over after a minute, and swept away', async () => {
    const { verifier, url } = await returned();
    const { database } = server().app;
    const [row] = await database
      .tenant(ann.tenant)
      .rows<{ expires_at: string }>(sql`select expires_at from sso_codes where tenant_id = ${ann.tenant}`);
    const life = Date.parse(row!.expires_at) - Date.now();
    assert.ok(life > 50_000 && life <= 60_000);
    await database
      .tenant(ann.tenant)
      .run(
        sql`update sso_codes set expires_at = ${new Date(Date.now() - 1)} where tenant_id = ${ann.tenant}`,
      );
    assert.equal(codeOf(await exchange(url.searchParams.get('code')!, verifier)), '400 SSO_INVALID_CODE');
    assert.equal(await count('codes'), 1);
    await pruneSignIns(server().app);
    assert.equal(await count('codes'), 0);
  });

  it('gives nothing to an identity that was switched off in between', async () => {
    const { verifier, url } = await returned();
    const sessions = await count('sessions');
    const { database } = server().app;
    await database.tenant(ann.tenant).run(sql`
      update identities set is_active = false
      where tenant_id = ${ann.tenant} and id in (select identity_id from sso_codes where tenant_id = ${ann.tenant})`);
    assert.equal(
      codeOf(await exchange(url.searchParams.get('code')!, verifier)),
      '403 SSO_IDENTITY_INACTIVE',
    );
    assert.equal(await count('sessions'), sessions);
  });

  it('gives nothing while the tenant is switched off', async () => {
    const { verifier, url } = await returned();
    const sessions = await count('sessions');
    const { database, shared } = server().app;
    const set = async (active: boolean) => {
      await database.operatorPool.query('update tenants set is_active = $2 where tenant_id = $1', [
        ann.tenant,
        active,
      ]);
      shared.invalidate('tenant', ann.tenant);
    };
    await set(false);
    assert.equal(codeOf(await exchange(url.searchParams.get('code')!, verifier)), '400 SSO_INVALID_CODE');
    assert.equal(await count('sessions'), sessions);
    await set(true);
    assert.equal((await exchange(url.searchParams.get('code')!, verifier)).status, 200);
  });

  it('brings the reason where it fails, and nothing else', async () => {
    const closed = await openDoor(ann, idp, { jit_enabled: false });
    const { url } = await returned(person(), 'http://localhost:3000/?code=mine&error=mine', closed);
    assert.equal(url.href, 'http://localhost:3000/?error=SSO_JIT_DISABLED');
    const { url: refused } = await returned(null);
    assert.equal(refused.searchParams.get('error'), 'SSO_ACCESS_DENIED');
    assert.deepEqual([...refused.searchParams.keys()], ['tab', 'error']);
  });

  it('returns to no page but those of the origins on the list', async () => {
    const { challenge } = newVerifier();
    for (const return_to of [
      'https://evil.example/',
      'https://app.example.com.evil.example/',
      'https://app.example.com@evil.example/',
      'https://evil.example/https://app.example.com/',
      'https://evil.example\\@app.example.com/',
      'https://app.example.com:8443/',
      'https://xapp.example.com/',
      'https://sub.app.example.com/',
      'https://app.example.com./',
      'http://app.example.com/',
      'https://user@app.example.com/',
      'https://app.example.com/#x',
      '//app.example.com/',
      '/signed-in',
      'app.example.com',
      'javascript:alert(1)//https://app.example.com',
      'data:text/html,x',
      'http://localhost:3001/',
      'http://127.0.0.1:3000/',
      'null',
      '',
    ]) {
      const page = await begin({ return_to, code_challenge: challenge });
      assert.equal(codeOf(page), '400 SSO_RETURN_TO_NOT_ALLOWED', return_to);
      assert.equal(page.headers.location, undefined);
      assert.equal(page.headers['set-cookie'], undefined);
    }
    // Written otherwise, the same origin.
    assert.equal(
      (await begin({ return_to: 'HTTPS://APP.example.com:443/x', code_challenge: challenge })).status,
      302,
    );
    // Without a list there is none.
    const { config } = server().app;
    const origins = config.SSO_RETURN_TO_ORIGINS;
    config.SSO_RETURN_TO_ORIGINS = readConfig(environmentOf()).SSO_RETURN_TO_ORIGINS;
    try {
      const page = await begin({ return_to: app, code_challenge: challenge });
      assert.equal(codeOf(page), '400 SSO_RETURN_TO_NOT_ALLOWED');
    } finally {
      config.SSO_RETURN_TO_ORIGINS = origins;
    }
  });

  it('needs a challenge to return, and takes none without a page', async () => {
    for (const query of [
      { return_to: app },
      { return_to: app, code_challenge: 'short' },
      { return_to: app, code_challenge: 'x'.repeat(44) },
      { code_challenge: newVerifier().challenge },
    ])
      assert.equal(codeOf(await begin(query as never)), '422 VALIDATION_ERROR', JSON.stringify(query));
  });
});

describe('the settings of sign-in', () => {
  it('refuse to start with origins that are none', () => {
    for (const value of [
      '*',
      'https://*.example.com',
      'app.example.com',
      'https://app.example.com/path',
      'https://user@app.example.com',
      'ftp://app.example.com',
      'null',
    ])
      assert.throws(
        () => readConfig(environmentOf({ SSO_RETURN_TO_ORIGINS: value })),
        /^ConfigError: SSO_RETURN_TO_ORIGINS must be origins/,
        value,
      );
    assert.throws(() => readConfig(environmentOf({ GOOGLE_CLIENT_ID: 'x' })), /GOOGLE_CLIENT_SECRET/);
    assert.throws(() => readConfig(environmentOf({ GOOGLE_TENANT_ID: 'No Tenant' })), /GOOGLE_TENANT_ID/);
    assert.throws(
      () => readConfig(environmentOf({ INVITATION_URL: 'https://a.example/' })),
      /INVITATION_URL/,
    );
    assert.throws(() => readConfig(environmentOf({ INVITATION_URL: 'a:{token}' })), /INVITATION_URL/);
  });
});
