import assert from 'node:assert/strict';
import { after, beforeEach, describe, it, mock } from 'node:test';
import { exportJWK, exportSPKI, generateKeyPair, importJWK, type JWK } from 'jose';
import { sql } from '#platform/db/sql.ts';
import { Browser, type Page } from '#test/browser.ts';
import { type Caller, newTenant, useOwnServer } from '#test/harness.ts';
import { type HostileHost, type HostileOidc, openHostileHost, type Said } from '#test/hostile-oidc.ts';

// What a real provider would never send: each must end without an identity, a link or a session.

const base64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const seconds = (more = 0) => Math.floor(Date.now() / 1000) + more;

describe('a provider that is not to be trusted', () => {
  let host: HostileHost;
  let idp: HostileOidc;
  let ann: Caller;
  const server = useOwnServer(async () => {
    host = await openHostileHost();
    return { FETCH_ALLOW_HOSTS: host.host, EXT_CALL_TIMEOUT_MS: '3000', EXT_RETRY_MAX_ATTEMPTS: '0' };
  });
  beforeEach(async () => {
    idp = host.fresh();
    ann = await newTenant('admin', server());
    await configure();
  });
  after(() => host.stop());

  async function configure(more: object = {}): Promise<void> {
    const made = await ann.call('POST', '/v1/admin/identity/providers', {
      id: 'idp',
      name: 'Hostile',
      issuer: idp.issuer,
      client_id: 'client-1',
      client_secret: 'the secret: of the client',
      jit_enabled: true,
      ...more,
    });
    assert.equal(made.status, 201, made.text);
  }

  interface Flow {
    browser: Browser;
    state: string;
    nonce: string;
  }

  const at = (what: 'login' | 'callback') => `http://manushya.test/v1/sso/${what}/${ann.tenant}.idp`;

  async function begin(): Promise<Flow> {
    const browser = new Browser(server());
    const page = await browser.get(at('login'));
    assert.equal(page.status, 302, page.text);
    const { searchParams } = new URL(page.headers.location!);
    return { browser, state: searchParams.get('state')!, nonce: searchParams.get('nonce')! };
  }

  const end = ({ browser, state }: Flow, more: Record<string, string> = { code: 'any' }): Promise<Page> =>
    browser.get(`${at('callback')}?${new URLSearchParams({ state, ...more })}`);

  const claimsOf = ({ nonce }: Flow, more: object = {}): Record<string, unknown> => ({
    iss: idp.issuer,
    aud: 'client-1',
    sub: 'somebody',
    nonce,
    iat: seconds(),
    exp: seconds(300),
    email: 'somebody@example.com',
    email_verified: true,
    ...more,
  });

  const tokens = (id_token: string, more: object = {}): Said => ({
    body: { access_token: 'opaque', token_type: 'Bearer', expires_in: 60, id_token, ...more },
  });

  /** One whole sign-in with an id token of the test's making. */
  async function signIn(make: (flow: Flow) => Promise<string>): Promise<Page> {
    const flow = await begin();
    idp.token = async () => tokens(await make(flow));
    return end(flow);
  }

  async function nothingCame(): Promise<void> {
    const { database } = server().app;
    const [left] = await database.tenant(ann.tenant).rows<Record<string, number>>(sql`
      select (select count(*)::int from identities where tenant_id = ${ann.tenant}) as identities,
        (select count(*)::int from sessions where tenant_id = ${ann.tenant}) as sessions,
        (select count(*)::int from sso_links where tenant_id = ${ann.tenant}) as links,
        (select count(*)::int from sso_states where tenant_id = ${ann.tenant}) as states`);
    // Ann and her session.
    assert.deepEqual(left, { identities: 1, sessions: 1, links: 0, states: 0 });
  }

  async function refused(page: Page, wanted: string, what = ''): Promise<void> {
    assert.equal(`${page.status} ${page.body?.error?.code}`, wanted, `${what}: ${page.text}`);
    assert.doesNotMatch(page.text, /access_token|secret|http:|opaque/);
    await nothingCame();
  }

  it('is believed when all is right, so that what follows is refused for its own reason', async () => {
    const page = await signIn((flow) => idp.sign(claimsOf(flow)));
    assert.equal(page.status, 200, page.text);
    assert.equal(page.body.user.email, 'somebody@example.com');
  });

  const wrongClaims: Record<string, object> = {
    'another nonce': { nonce: 'another' },
    'no nonce': { nonce: undefined },
    'another issuer': { iss: 'https://accounts.google.com' },
    'another audience': { aud: 'client-2' },
    'an audience more, without azp': { aud: ['client-1', 'client-2'] },
    'an audience more, and azp of it': { aud: ['client-1', 'client-2'], azp: 'client-2' },
    'no audience': { aud: undefined },
    'a time that is over': { exp: seconds(-3_600) },
    'no end of its time': { exp: undefined },
    'an end that is no number': { exp: '9999999999' },
    'a time that has not begun': { nbf: seconds(3_600) },
    'no time of issue': { iat: undefined },
    'no subject': { sub: undefined },
    'a subject that is no text': { sub: 5 },
    'an empty subject': { sub: '' },
    'a subject with NUL': { sub: 'a\0b' },
    'a subject without end': { sub: 'x'.repeat(256) },
  };
  for (const [what, more] of Object.entries(wrongClaims)) {
    it(`is not believed with ${what}`, async () => {
      const page = await signIn((flow) => idp.sign(claimsOf(flow, more)));
      await refused(page, '401 SSO_ID_TOKEN_INVALID');
    });
  }

  it('is not believed with a signature that is not by its published key', async () => {
    const other = await generateKeyPair('RS256', { extractable: true });
    const otherJwk = { ...(await exportJWK(other.publicKey)), alg: 'RS256' };
    const forgeries: Record<string, (flow: Flow) => Promise<string>> = {
      'by an unknown key': (flow) => idp.sign(claimsOf(flow), { kid: 'two' }, other.privateKey),
      'by an unknown key under the known name': (flow) => idp.sign(claimsOf(flow), {}, other.privateKey),
      'by a key it brings along': (flow) =>
        idp.sign(claimsOf(flow), { jwk: otherJwk as never }, other.privateKey),
      'by a key at an address it brings along': (flow) =>
        idp.sign(claimsOf(flow), { kid: 'two', jku: `${idp.issuer}/other` }, other.privateKey),
      'with other claims than were signed': async (flow) => {
        const [head, , signature] = (await idp.sign(claimsOf(flow))).split('.');
        return `${head}.${base64(claimsOf(flow, { sub: 'admin' }))}.${signature}`;
      },
      'without signature': async (flow) => (await idp.sign(claimsOf(flow))).replace(/[^.]*$/, ''),
      'of no form': async () => 'a.b.c',
      'of five parts': async () => 'a.b.c.d.e',
      'of two parts': async () => 'a.b',
      'with an extension nobody knows': async (flow) => {
        const [, body, signature] = (await idp.sign(claimsOf(flow))).split('.');
        return `${base64({ alg: 'RS256', kid: 'one', crit: ['x'], x: 1 })}.${body}.${signature}`;
      },
    };
    for (const [what, make] of Object.entries(forgeries))
      await refused(await signIn(make), '401 SSO_ID_TOKEN_INVALID', what);
    assert.equal(idp.asked('/other'), 0);
  });

  it('can not talk the server into an algorithm without a key pair, whatever it publishes', async () => {
    idp.metadata = { ...idp.metadata, id_token_signing_alg_values_supported: ['none', 'HS256', 'RS256'] };
    const [published] = idp.keys as [JWK];
    const spki = await exportSPKI((await importJWK({ ...published }, 'RS256')) as never);
    const hmac = (key: string) => (flow: Flow) =>
      idp.sign(claimsOf(flow), { alg: 'HS256' }, Buffer.from(key));
    const unsigned =
      (header: object, signature = '') =>
      async (flow: Flow) =>
        `${base64(header)}.${base64(claimsOf(flow))}.${signature}`;
    const tricks: Record<string, (flow: Flow) => Promise<string>> = {
      none: unsigned({ alg: 'none' }),
      'None with a kid': unsigned({ alg: 'None', kid: 'one' }),
      'none with a signature': unsigned({ alg: 'none' }, 'AAAA'),
      'no algorithm': unsigned({ kid: 'one' }, 'AAAA'),
      'HS256 by the public key as PEM': hmac(spki),
      'HS256 by the public key as JWK': hmac(JSON.stringify(published)),
      'HS256 by the modulus': hmac(published.n!),
      'HS256 by the secret of the client': hmac('the secret: of the client'),
      'HS256 by nothing': (flow) => idp.sign(claimsOf(flow), { alg: 'HS256' }, new Uint8Array(32)),
    };
    for (const [what, make] of Object.entries(tricks))
      await refused(await signIn(make), '401 SSO_ID_TOKEN_INVALID', what);
    idp = host.fresh();
    idp.metadata = { ...idp.metadata, id_token_signing_alg_values_supported: ['none', 'HS256'] };
    await ann.call('PATCH', '/v1/admin/identity/providers/idp', {
      issuer: idp.issuer,
      client_secret: 'x'.repeat(32),
    });
    await refused(await signIn(hmac('x'.repeat(32))), '401 SSO_ID_TOKEN_INVALID', 'HS256 alone');
  });

  it('has its keys used for the algorithm they were published for, and for no other', async () => {
    idp.metadata = { ...idp.metadata, id_token_signing_alg_values_supported: ['RS256', 'PS256', 'RS512'] };
    const pss = await generateKeyPair('PS256', { extractable: true });
    idp.keys = [{ ...(await exportJWK(pss.publicKey)), kid: 'one', alg: 'RS256', use: 'sig' }];
    const page = await signIn((flow) => idp.sign(claimsOf(flow), { alg: 'PS256' }, pss.privateKey));
    await refused(page, '401 SSO_ID_TOKEN_INVALID');
  });

  for (const alg of ['RS512', 'PS384', 'ES256', 'ES512', 'EdDSA']) {
    it(`may sign with ${alg}`, async () => {
      const pair = await generateKeyPair(alg, { extractable: true });
      idp.keys = [{ ...(await exportJWK(pair.publicKey)), kid: 'k', alg }];
      idp.metadata = { ...idp.metadata, id_token_signing_alg_values_supported: [alg] };
      const page = await signIn((flow) => idp.sign(claimsOf(flow), { alg, kid: 'k' }, pair.privateKey));
      assert.equal(page.status, 200, page.text);
    });
  }

  it('has its keys asked for again for an unknown one, at most once a minute', async () => {
    const next = await generateKeyPair('RS256', { extractable: true });
    const byNext = (flow: Flow) => idp.sign(claimsOf(flow), { kid: 'two' }, next.privateKey);
    for (let i = 0; i < 3; i++) await refused(await signIn(byNext), '401 SSO_ID_TOKEN_INVALID');
    assert.equal(idp.asked('/jwks'), 1);
    // It changes its keys. Those it publishes now are seen a minute after the last look.
    idp.keys = [{ ...(await exportJWK(next.publicKey)), kid: 'two', alg: 'RS256', use: 'sig' }];
    await refused(await signIn(byNext), '401 SSO_ID_TOKEN_INVALID');
    const { now } = Date;
    const later = mock.method(Date, 'now', () => now() + 61_000);
    try {
      const page = await signIn(byNext);
      assert.equal(page.status, 200, page.text);
      assert.equal(idp.asked('/jwks'), 2);
      for (let i = 0; i < 3; i++) {
        const unknown = await signIn((flow) => idp.sign(claimsOf(flow), { kid: 'three' }, next.privateKey));
        assert.equal(unknown.status, 401);
      }
      assert.equal(idp.asked('/jwks'), 2);
    } finally {
      later.mock.restore();
    }
    assert.equal(idp.asked('/.well-known/openid-configuration'), 1);
  });

  it('gets the code with the verifier of the challenge, and the secret by the way it names', async () => {
    const seen: { form: URLSearchParams; authorization: unknown }[] = [];
    const look = async () => {
      const flow = await begin();
      idp.token = async (form, { authorization }) => {
        seen.push({ form, authorization });
        return tokens(await idp.sign(claimsOf(flow)));
      };
      assert.equal((await end(flow, { code: 'c-1' })).status, 200);
    };
    await look();
    const [{ form, authorization }] = seen as [(typeof seen)[0]];
    assert.equal(form.get('grant_type'), 'authorization_code');
    assert.equal(form.get('code'), 'c-1');
    assert.equal(form.get('redirect_uri'), at('callback'));
    assert.match(form.get('code_verifier')!, /^[\w.~-]{43,128}$/);
    assert.equal(form.get('client_secret'), null);
    // RFC 6749, section 2.3.1: both halves are form-encoded first.
    const basic = Buffer.from(String(authorization).replace('Basic ', ''), 'base64').toString();
    assert.equal(basic, 'client-1:the+secret%3A+of+the+client'.replace('client-1', 'client%2D1'));
    idp = host.fresh();
    idp.metadata = { ...idp.metadata, token_endpoint_auth_methods_supported: ['client_secret_post'] };
    const change = { issuer: idp.issuer, client_secret: 'posted' };
    assert.equal((await ann.call('PATCH', '/v1/admin/identity/providers/idp', change)).status, 200);
    await look();
    assert.equal(seen[1]!.form.get('client_secret'), 'posted');
    assert.equal(seen[1]!.authorization, undefined);
  });

  it('that does not give tokens for the code is answered with 502', async () => {
    const flows: Record<string, Said> = {
      'an error': { status: 400, body: { error: 'invalid_grant', error_description: 'opaque secret' } },
      'an error about the client': {
        status: 401,
        body: { error: 'invalid_client' },
        headers: { 'www-authenticate': 'Basic' },
      },
      'no id token': { body: { access_token: 'opaque', token_type: 'Bearer' } },
      'an id token that is no text': { body: { access_token: 'opaque', token_type: 'Bearer', id_token: {} } },
      nothing: { body: {} },
      'a list': { body: [] },
      'a page': { body: '<html>', headers: { 'content-type': 'text/html' } },
      'another address': { status: 302, headers: { location: `${idp.issuer}/elsewhere` } },
      'another status': { status: 204, body: '' },
    };
    for (const [what, said] of Object.entries(flows)) {
      const flow = await begin();
      idp.token = () => said;
      await refused(await end(flow), '502 SSO_TOKEN_EXCHANGE_FAILED', what);
    }
    assert.equal(idp.asked('/elsewhere'), 0);
    const flow = await begin();
    idp.token = async () => tokens(await idp.sign(claimsOf(flow)), { access_token: undefined });
    await refused(await end(flow), '401 SSO_ID_TOKEN_INVALID', 'no access token');
  });

  it('that is away, slow, or says too much is answered with 503 and when to come again, and called once', async () => {
    const flows: Record<string, Said> = {
      'an error of its own': { status: 500 },
      'too many requests': { status: 429 },
      'nothing at all': { hang: true },
      'a megabyte': { body: { access_token: 'x'.repeat(1_000_000) } },
    };
    for (const [what, said] of Object.entries(flows)) {
      const flow = await begin();
      const before = idp.asked('/token');
      idp.token = () => said;
      const page = await end(flow);
      assert.equal(page.headers['retry-after'], '30');
      await refused(page, '503 SSO_PROVIDER_UNAVAILABLE', what);
      assert.equal(idp.asked('/token'), before + 1, what);
    }
  });

  it('that fails again and again is left alone for a while', async () => {
    const flows = await Promise.all(Array.from({ length: 6 + 8 }, begin));
    idp.token = () => ({ status: 503 });
    // What a client has asked too often says nothing about the others of the issuer.
    idp.token = () => ({ status: 429 });
    for (const flow of flows.slice(0, 6)) await refused503(flow);
    assert.equal(idp.asked('/token'), 6);
    idp.token = () => ({ status: 503 });
    for (const flow of flows.slice(6)) await refused503(flow);
    assert.equal(idp.asked('/token'), 6 + 5);
  });
  async function refused503(flow: Flow): Promise<void> {
    const page = await end(flow);
    assert.equal(`${page.status} ${page.body.error.code}`, '503 SSO_PROVIDER_UNAVAILABLE');
  }

  it('that can not be asked about itself begins no sign-in', async () => {
    const broken: Record<string, Partial<HostileOidc>> = {
      'an error': { always: { status: 500 } },
      'no such page': { always: { status: 404 } },
      'another address': { always: { status: 302, headers: { location: 'https://example.com/' } } },
      'a page': { always: { body: '<html>', headers: { 'content-type': 'text/html' } } },
      'a megabyte': { always: { body: { issuer: 'x'.repeat(1_000_000) } } },
      silence: { always: { hang: true } },
      'the word of another issuer': { metadata: { ...idp.metadata, issuer: 'https://accounts.google.com' } },
    };
    for (const [what, more] of Object.entries(broken)) {
      idp = Object.assign(host.fresh(), more);
      const change = { issuer: idp.issuer, client_secret: 'x' };
      assert.equal((await ann.call('PATCH', '/v1/admin/identity/providers/idp', change)).status, 200);
      const page = await new Browser(server()).get(at('login'));
      assert.equal(page.headers['retry-after'], '30', what);
      assert.equal(page.headers['set-cookie'], undefined, what);
      await refused(page, '503 SSO_PROVIDER_UNAVAILABLE', what);
      // Once it has come to its senses, so does the sign-in.
      const { metadata } = host.fresh();
      Object.assign(idp, { always: undefined });
      idp.metadata = Object.fromEntries(
        Object.entries(metadata).map(([name, value]) => [
          name,
          typeof value === 'string' ? value.replace(String(metadata.issuer), idp.issuer) : value,
        ]),
      );
      assert.equal((await new Browser(server()).get(at('login'))).status, 302, what);
      await server()
        .app.database.tenant(ann.tenant)
        .run(sql`delete from sso_states where tenant_id = ${ann.tenant}`);
    }
  });

  it('can not have the server call what is not public, or send a browser to what is no page', async () => {
    for (const endpoint of ['https://127.0.0.1:1/token', 'https://localhost:1/token']) {
      idp = host.fresh();
      idp.metadata = { ...idp.metadata, token_endpoint: endpoint };
      await ann.call('PATCH', '/v1/admin/identity/providers/idp', { issuer: idp.issuer, client_secret: 'x' });
      const page = await end(await begin());
      await refused(page, '503 SSO_PROVIDER_UNAVAILABLE', endpoint);
    }
    idp = host.fresh();
    idp.metadata = { ...idp.metadata, jwks_uri: 'https://[::1]:1/jwks' };
    await ann.call('PATCH', '/v1/admin/identity/providers/idp', { issuer: idp.issuer, client_secret: 'x' });
    await refused(await signIn((flow) => idp.sign(claimsOf(flow))), '503 SSO_PROVIDER_UNAVAILABLE');
    for (const name of ['authorization_endpoint', 'token_endpoint', 'jwks_uri'])
      for (const endpoint of ['javascript:alert(1)', 'http://example.com/x', 'nonsense', 5, undefined]) {
        idp = host.fresh();
        idp.metadata = { ...idp.metadata, [name]: endpoint };
        await ann.call('PATCH', '/v1/admin/identity/providers/idp', {
          issuer: idp.issuer,
          client_secret: 'x',
        });
        const page = await new Browser(server()).get(at('login'));
        await refused(page, '503 SSO_PROVIDER_UNAVAILABLE', `${name} ${endpoint}`);
      }
  });

  it('can not answer for another provider, or without a code', async () => {
    const wrong: Record<string, string>[] = [
      { code: 'any', iss: 'https://accounts.google.com' },
      { iss: idp.issuer },
      { code: '' },
      {},
    ];
    for (const more of wrong)
      await refused(await end(await begin(), more), '400 SSO_INVALID_STATE', JSON.stringify(more));
    idp = host.fresh();
    idp.metadata = { ...idp.metadata, authorization_response_iss_parameter_supported: true };
    await ann.call('PATCH', '/v1/admin/identity/providers/idp', { issuer: idp.issuer, client_secret: 'x' });
    await refused(await end(await begin()), '400 SSO_INVALID_STATE', 'a promised iss that is missing');
    assert.equal(idp.asked('/token'), 0);
  });

  it('is asked at userinfo for what the id token does not say, and must speak of the same person there', async () => {
    const silent = (flow: Flow) => idp.sign(claimsOf(flow, { email: undefined, email_verified: undefined }));
    idp.userinfo = { body: { sub: 'somebody else', email: 'boss@example.com', email_verified: true } };
    await refused(await signIn(silent), '502 SSO_TOKEN_EXCHANGE_FAILED');
    idp.userinfo = { status: 401, headers: { 'www-authenticate': 'Bearer' } };
    await refused(await signIn(silent), '502 SSO_TOKEN_EXCHANGE_FAILED');
    idp.userinfo = {
      body: {
        sub: 'somebody',
        email: 'Me@Example.com',
        email_verified: true,
        name: `M\u0000e \ud800${'!'.repeat(300)}`,
      },
    };
    const page = await signIn(silent);
    assert.equal(page.status, 200, page.text);
    assert.equal(page.body.user.email, 'me@example.com');
    assert.match(page.body.user.name, /^M e \ufffd!{200,}$/);
  });

  it('has its odd claims borne: an e-mail that is none is no e-mail', async () => {
    let n = 0;
    for (const email of [
      5,
      null,
      {},
      [],
      '',
      'nobody',
      'a@b@c',
      '"a b"@c.example',
      'k\u212A@example.com',
      'x'.repeat(300),
    ]) {
      n += 1;
      const page = await signIn((flow) =>
        idp.sign(claimsOf(flow, { sub: `odd-${n}`, email, name: { a: 1 } })),
      );
      assert.equal(page.status, 200, `${JSON.stringify(email)}: ${page.text}`);
      assert.equal(page.body.user.email, null);
      assert.equal(page.body.user.name, null);
    }
  });
});
