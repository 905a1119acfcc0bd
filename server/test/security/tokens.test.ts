import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { decodeJwt, exportJWK, exportSPKI, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose';
import { ringOf, signerOf } from '#modules/access/sessions/signing-keys.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  newMember,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { prove } from './statement.ts';

useTestServer();

const nowS = () => Math.floor(Date.now() / 1000);
const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const use = (token: string): Promise<Reply> => call('GET', '/v1/identity/me', { token });

/** A token like one of somebody's session, signed with our own key as ours are, except for what is said otherwise. */
async function signed(
  owner: Pick<Caller, 'token'>,
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
  key?: Parameters<SignJWT['sign']>[0],
): Promise<string> {
  const { kid, key: ours } = signerOf(await ringOf((await testServer()).app));
  const { crit } = header as { crit?: string[] };
  return new SignJWT({ ...decodeJwt(owner.token), ...claims })
    .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt', ...header })
    .sign(key ?? ours, crit ? { crit: Object.fromEntries(crit.map((name) => [name, true])) } : {});
}

async function isRefused(token: string, what = 'the token'): Promise<void> {
  const reply = await use(token);
  assert.equal(reply.status, 401, `${what}: ${reply.text}`);
  assert.equal(reply.body.error.code, 'AUTH_UNAUTHORIZED', what);
  assert.equal(reply.headers['www-authenticate'], 'Bearer', what);
}

/** The same token is accepted without what is wrong with it. */
async function refusedFor(
  claims: Record<string, unknown>,
  header: Record<string, unknown> = {},
): Promise<void> {
  const ann = await newTenant('user');
  assert.equal((await use(await signed(ann))).status, 200, 'ours as they are');
  await isRefused(await signed(ann, claims, header), JSON.stringify({ ...claims, ...header }));
}

/** A key of an attacker. */
const attackers = () => generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });

async function ourPublicJwk(): Promise<JWK> {
  const { kid } = signerOf(await ringOf((await testServer()).app));
  const { body } = await call('GET', '/.well-known/jwks.json');
  return body.keys.find((key: JWK) => key.kid === kid);
}

prove('access tokens', [
  {
    id: 'JWT-01',
    source: 'RFC 8725 3.1, ASVS 9.1.2',
    says: 'a token signed with HS256 by our public key, in whatever form, is refused',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      const ann = await newTenant('user');
      const jwk = await ourPublicJwk();
      const spki = await exportSPKI(
        (await importJWK(jwk, 'EdDSA', { extractable: true })) as Parameters<typeof exportSPKI>[0],
      );
      const secrets = [spki, spki.trim(), JSON.stringify(jwk), Buffer.from(jwk.x!, 'base64url'), jwk.x!];
      for (const secret of secrets)
        for (const alg of ['HS256', 'HS512'])
          await isRefused(await signed(ann, {}, { alg }, Buffer.from(secret as string)), alg);
    },
  },
  {
    id: 'JWT-02',
    source: 'RFC 8725 3.2, ASVS 9.1.2',
    says: 'a token that says it needs no signature is refused, however it spells none',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      const ann = await newTenant('user');
      const [head, claims, signature] = ann.token.split('.');
      const { kid } = JSON.parse(Buffer.from(head!, 'base64url').toString());
      for (const alg of ['none', 'None', 'NONE', 'nOnE', '', null])
        for (const end of ['', signature!])
          await isRefused(`${part({ alg, kid, typ: 'at+jwt' })}.${claims}.${end}`, `${alg} ${end}`);
    },
  },
  {
    id: 'JWT-03',
    source: 'RFC 8725 3.3, ASVS 9.1.1',
    says: 'claims that were changed under a signature of ours are refused',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      const ann = await newTenant('admin');
      const bob = await newMember(ann, 'user');
      const [head, , signature] = bob.token.split('.');
      const { sub, sid } = decodeJwt(ann.token);
      await isRefused(`${head}.${part({ ...decodeJwt(bob.token), sub, sid })}.${signature}`);
      await isRefused(`${head}.${part({ ...decodeJwt(bob.token), exp: nowS() + 1e6 })}.${signature}`);
    },
  },
  {
    id: 'JWT-04',
    source: 'RFC 8725 3.3, ASVS 9.1.1',
    says: 'a key of somebody else does not sign under the name of ours',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      const ann = await newTenant('user');
      await isRefused(await signed(ann, {}, {}, (await attackers()).privateKey));
    },
  },
  {
    id: 'JWT-05',
    source: 'RFC 8725 3.10, ASVS 9.1.3',
    says: 'a key that a token brings along in jwk or x5c is not used',
    guard: 'modules/access/sessions/tokens.ts: ringWith',
    test: async () => {
      const ann = await newTenant('user');
      const { publicKey, privateKey } = await attackers();
      const jwk = await exportJWK(publicKey);
      for (const header of [{ jwk }, { jwk, kid: undefined }, { x5c: [jwk.x], kid: 'mine' }])
        await isRefused(await signed(ann, {}, header, privateKey), Object.keys(header).join());
    },
  },
  {
    id: 'JWT-06',
    source: 'RFC 8725 3.10, ASVS 9.1.3',
    says: 'an address of keys in jku or x5u is never asked',
    guard: 'modules/access/sessions/tokens.ts: ringWith',
    test: async () => {
      const ann = await newTenant('user');
      const { publicKey, privateKey } = await attackers();
      const jwk = { ...(await exportJWK(publicKey)), kid: 'mine', alg: 'EdDSA' };
      let asked = 0;
      const server = createServer((_request, response) => {
        asked += 1;
        response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: [jwk] }));
      });
      await once(server.listen(0, '127.0.0.1'), 'listening');
      try {
        const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`;
        for (const header of [{ jku: at, kid: 'mine' }, { x5u: at }, { jku: at }])
          await isRefused(await signed(ann, {}, header, privateKey), Object.keys(header).join());
        assert.equal(asked, 0);
      } finally {
        server.close();
      }
    },
  },
  {
    id: 'JWT-07',
    source: 'RFC 8725 3.10',
    says: 'a kid is a name in our own list and nothing else: no path, no SQL, no property of an object',
    guard: 'modules/access/sessions/tokens.ts: ringWith',
    test: async () => {
      for (const kid of [
        '../../../../dev/null',
        '/etc/passwd',
        "' or '1'='1",
        "x' union select 'AAAA' --",
        '__proto__',
        'constructor',
        '',
        'x'.repeat(4_000),
        'kid\u0000',
      ])
        await refusedFor({}, { kid });
      for (const kid of [{ $ne: null }, ['a'], 1, true, null])
        await refusedFor({}, { kid: kid as unknown as string });
    },
  },
  {
    id: 'JWT-08',
    source: 'RFC 8725 3.10',
    says: 'a token that names no key is not tried with those there are',
    guard: 'modules/access/sessions/tokens.ts: ringWith',
    test: () => refusedFor({}, { kid: undefined }),
  },
  {
    id: 'JWT-09',
    source: 'RFC 7515 4.1.11, RFC 8725 3.10',
    says: 'a token with a critical extension that we do not know is refused',
    guard: 'modules/access/sessions/tokens.ts: jwtVerify',
    test: async () => {
      await refusedFor({}, { crit: ['https://example.com/odd'], 'https://example.com/odd': true });
      await refusedFor({}, { crit: ['exp'], exp: 1 });
    },
  },
  {
    id: 'JWT-10',
    source: 'RFC 8725 3.9, ASVS 9.2.3',
    says: 'a token for another audience, or for none, is refused',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      for (const aud of ['somebody-else', undefined, [], ['a', 'b'], 'manushya2', ''])
        await refusedFor({ aud });
    },
  },
  {
    id: 'JWT-11',
    source: 'RFC 8725 3.8, ASVS 10.3.3',
    says: 'a token of another issuer, or of none, is refused',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      for (const iss of [
        'https://evil.example',
        'http://manushya.test/',
        undefined,
        ['http://manushya.test'],
      ])
        await refusedFor({ iss });
    },
  },
  {
    id: 'JWT-12',
    source: 'RFC 8725 3.11, RFC 9068 4, ASVS 9.2.2',
    says: 'a token that is not typed as an access token is refused',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      for (const typ of ['JWT', undefined, 'id+jwt', 'logout+jwt', 'at+jwt2']) await refusedFor({}, { typ });
    },
  },
  {
    id: 'JWT-13',
    source: 'RFC 7519 4.1.4, ASVS 9.2.1',
    says: 'a token is refused when its time is over, with no more than five seconds for clocks that differ',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      await refusedFor({ exp: nowS() - 6 });
      await refusedFor({ exp: 0 });
    },
  },
  {
    id: 'JWT-14',
    source: 'RFC 7519 4.1.5, ASVS 9.2.1',
    says: 'a token is refused before its time has come',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: () => refusedFor({ nbf: nowS() + 60 }),
  },
  {
    id: 'JWT-15',
    source: 'ASVS 9.2.1, ASVS 7.4.1',
    says: 'a token that was verified before is not taken beyond its time because it is remembered',
    guard: 'modules/access/sessions/tokens.ts: verifyAccessToken',
    test: async () => {
      // Over, and still within the five seconds for clocks that differ when it comes first.
      const token = await signed(await newTenant('user'), { exp: nowS() - 1 });
      assert.equal((await use(token)).status, 200);
      await isRefused(token);
    },
  },
  {
    id: 'JWT-16',
    source: 'RFC 9068 2.2, ASVS 9.2.1',
    says: 'a token without an end is refused, and so is one whose end is no number',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      for (const exp of [undefined, null, String(nowS() + 600), {}]) await refusedFor({ exp });
    },
  },
  {
    id: 'JWT-17',
    source: 'RFC 9068 2.2',
    says: 'a token without subject, time of issue or id is refused',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      for (const name of ['sub', 'iat', 'jti']) await refusedFor({ [name]: undefined });
    },
  },
  {
    id: 'JWT-18',
    source: 'RFC 8725 3.8, ASVS 10.3.3',
    says: 'the session of one person does not carry the name of another',
    guard: 'modules/access/sessions/service.ts: livingSession',
    test: async () => {
      const admin = await newTenant('admin');
      const bob = await newMember(admin, 'user');
      await isRefused(await signed(bob, { sub: admin.id }));
      await isRefused(await signed(bob, { sid: decodeJwt(admin.token).sid }));
    },
  },
  {
    id: 'JWT-19',
    source: 'ASVS 8.4.1',
    says: 'a session is one of its tenant only, whatever tenant a token names',
    guard: 'modules/access/sessions/store.ts: findSessionState',
    test: async () => {
      const [ann, bob] = [await newTenant('user'), await newTenant('user')];
      for (const tid of [bob.tenant, 't1', 'nobody', '', undefined, "t1' or '1'='1"])
        await isRefused(await signed(ann, { tid }), String(tid));
    },
  },
  {
    id: 'JWT-20',
    source: 'RFC 8725 3.12',
    says: 'a token is one of a session or one of a grant, and never both',
    guard: 'modules/access/sessions/tokens.ts: bound',
    test: async () => {
      const admin = await newTenant('admin');
      const agent = await newMember(admin, 'agent');
      const given = await admin.call('POST', `/v1/identity/${agent.id}/delegate`);
      const grant = { token: given.body.access_token };
      assert.equal((await use(await signed(grant))).status, 200);
      await isRefused(await signed(grant, { sid: decodeJwt(admin.token).sid }), 'both');
      await isRefused(await signed(admin, { sid: undefined }), 'neither');
    },
  },
  {
    id: 'JWT-21',
    source: 'RFC 8693 4.1, ASVS 10.3.2',
    says: 'what a grant allows is read from the grant: a token that names wider scopes or no agent gains nothing',
    guard: 'modules/access/delegations/holds.ts: authenticateGrant',
    test: async () => {
      const admin = await newTenant('admin');
      const agent = await newMember(admin, 'agent');
      const path = `/v1/identity/${agent.id}/delegate`;
      const given = await admin.call('POST', path, { scopes: ['memory:list'] });
      const token = await signed({ token: given.body.access_token }, { scope: 'admin', act: undefined });
      assert.equal((await call('GET', '/v1/memory/', { token })).status, 200);
      assert.equal((await call('GET', '/v1/identity/', { token })).status, 403);
    },
  },
  {
    id: 'JWT-22',
    source: 'ASVS 4.2.5, ASVS 15.2.2',
    says: 'a token beyond 8,192 characters is refused before anything is computed for it',
    guard: 'platform/http/credential.ts: bearerOf',
    test: async () => {
      const ann = await newTenant('user');
      assert.equal((await use(await signed(ann, { more: 'x'.repeat(2_000) }))).status, 200);
      await isRefused(await signed(ann, { more: 'x'.repeat(8_000) }));
      const key = { headers: { 'x-api-key': `mk_${'x'.repeat(9_000)}` } };
      assert.equal((await call('GET', '/v1/identity/me', key)).status, 401);
    },
  },
  {
    id: 'JWT-23',
    source: 'RFC 8725 3.10',
    says: 'ids inside a token that are none are refused without a question to the database',
    guard: 'modules/access/sessions/tokens.ts: verify',
    test: async () => {
      const ann = await newTenant('user');
      const { app } = await testServer();
      const tokens = [];
      for (const sid of ["' or true --", uuidv7().slice(1), '', {}, 7])
        tokens.push(await signed(ann, { sid }));
      for (const sub of ["' or true --", 'me', {}]) tokens.push(await signed(ann, { sub }));
      const { tenant } = app.database;
      let asked = 0;
      app.database.tenant = (id) => {
        if (id === ann.tenant) asked += 1;
        return tenant(id);
      };
      try {
        for (const token of tokens) await isRefused(token);
        assert.equal(asked, 0);
      } finally {
        app.database.tenant = tenant;
      }
    },
  },
  {
    id: 'JWT-24',
    source: 'RFC 8725 3.12, RFC 9700 2.2.2, ASVS 9.2.2',
    says: 'a refresh token is no access token, and an access token no refresh token',
    guard: 'modules/access/sessions/refresh-token.ts: parseRefreshToken',
    test: async () => {
      const session = await newSession(await newTenant('user'));
      await isRefused(session.refresh_token);
      const asKey = { headers: { 'x-api-key': session.refresh_token } };
      assert.equal((await call('GET', '/v1/identity/me', asKey)).status, 401);
      const body = { refresh_token: session.access_token };
      assert.equal((await call('POST', '/v1/sessions/refresh', { body })).status, 401);
      assert.equal((await use(session.access_token)).status, 200, 'and it harmed nobody');
    },
  },
]);
