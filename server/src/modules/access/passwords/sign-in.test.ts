import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hash as bcryptHash } from '@node-rs/bcrypt';
import {
  call,
  callServer,
  eventually,
  newKey,
  newMember,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { factsOf, goodPassword, newPerson, type Person, signIn } from '#test/people.ts';
import type { Running } from '../../../app.ts';

useTestServer();

const query = async (text: string, values: unknown[] = []) =>
  (await (await testServer()).app.database.operatorPool.query(text, values)).rows;

const hashesMade = async ({ app }: Running): Promise<number> => {
  const { values } = await app.metrics.passwordHash.get();
  return values
    .filter(({ metricName }) => metricName?.endsWith('_count'))
    .reduce((sum, { value }) => sum + value, 0);
};

describe('registering with a password', () => {
  it('makes a tenant of its own without a credential, whatever name is asked for', async () => {
    const first = await newPerson();
    const again = await newPerson({ username: first.username });
    assert.notEqual(again.tenant, first.tenant);
    const me = await again.call('GET', '/v1/identity/me');
    assert.deepEqual(
      [me.body.external_id, me.body.role, me.body.tenant_id],
      [first.username, 'admin', again.tenant],
    );
    assert.ok(!JSON.stringify(me.body).includes(goodPassword));
  });

  it('joins the tenant of an admin, who gives no role above its own', async () => {
    const admin = await newTenant('admin');
    const ann = await newPerson({ by: admin });
    assert.equal(ann.tenant, admin.tenant);
    assert.equal((await ann.call('GET', '/v1/identity/me')).body.role, 'user');
    const body = { username: 'somebody', password: goodPassword };
    const member = await newMember(admin, 'editor');
    assert.equal((await member.call('POST', '/v1/auth/register', body)).status, 403);
    assert.equal((await admin.call('POST', '/v1/auth/register', { ...body, role: 'system' })).status, 403);
    const narrowed = await newKey(admin, { scopes: ['identity:create'] });
    assert.equal((await narrowed.call('POST', '/v1/auth/register', body)).status, 403);
    const bad = await call('POST', '/v1/auth/register', { body, token: 'mk_no_key' });
    assert.equal(bad.status, 401);
  });

  it('takes a name once in a tenant, in whatever form it is written', async () => {
    const admin = await newTenant('admin');
    await newPerson({ by: admin, username: 'Straße' });
    for (const username of ['Straße', 'STRASSE', 'strasse', 'ＳＴＲＡＳＳＥ']) {
      const reply = await admin.call('POST', '/v1/auth/register', { username, password: goodPassword });
      assert.equal(reply.status, 409, username);
      assert.equal(reply.body.error.code, 'IDENTITY_EXISTS');
    }
    const identities = await admin.call('GET', '/v1/identity/');
    assert.equal(identities.body.length, 2, 'a refused name leaves no identity behind');
  });

  it('tells which field is wrong', async () => {
    for (const [body, path] of [
      [{ username: 'ann', password: 'short' }, '/password'],
      [{ username: 'ann', password: 'qwertyuiop12345' }, '/password'],
      [{ username: 'wilhelmina-walnut', password: 'wilhelmina walnut' }, '/password'],
      [{ username: 'ann ', password: goodPassword }, '/username'],
      [{ username: 'a\u200Bnn', password: goodPassword }, '/username'],
      [{ username: 'ann', password: goodPassword, email: 'a@b.example,c@d.example' }, '/email'],
      [{ username: 'ann', password: goodPassword, email: 'a@b.example\r\nBcc: c@d.example' }, '/email'],
      [{ username: 'ann', password: goodPassword, tenant: 't1' }, '/tenant'],
    ] as const) {
      const reply = await call('POST', '/v1/auth/register', { body });
      assert.equal(reply.status, 422, JSON.stringify(body));
      assert.equal(reply.body.error.details.errors[0].path, path, reply.text);
    }
  });

  it('is closed where registration is closed, before anything is hashed; and mails need a way to leave', async () => {
    const server = await startServer({ ENVIRONMENT: 'production' }, { serve: true, work: false });
    try {
      const before = await hashesMade(server);
      const body = { username: 'ann', password: goodPassword };
      assert.equal((await callServer(server, 'POST', '/v1/auth/register', { body })).status, 401);
      assert.equal(await hashesMade(server), before);
      const asked = { username: 'ann' };
      const reset = await callServer(server, 'POST', '/v1/auth/reset-password', { body: asked });
      assert.deepEqual([reset.status, reset.body.error.code], [503, 'MAIL_NOT_CONFIGURED']);
    } finally {
      await server.stop();
    }
  });

  it('is done once for an Idempotency-Key, and keeps nothing that a password could be guessed against', async () => {
    const admin = await newTenant('admin');
    const body = { username: 'only-once', password: goodPassword };
    const key = { 'idempotency-key': 'register-once' };
    const first = await admin.call('POST', '/v1/auth/register', body, key);
    const second = await admin.call('POST', '/v1/auth/register', body, key);
    assert.equal(second.headers['idempotency-replayed'], 'true');
    assert.deepEqual(second.body, first.body);
    const other = await admin.call(
      'POST',
      '/v1/auth/register',
      { ...body, password: `${goodPassword}!` },
      key,
    );
    assert.equal(other.body.error.code, 'IDEMPOTENCY_KEY_CONFLICT');
    const { createHash } = await import('node:crypto');
    const plain = createHash('sha256')
      .update(`[{"password":"${goodPassword}","username":"only-once"}]`)
      .digest();
    const [row] = await query('select request_hash from idempotency_keys where tenant_id = $1', [
      admin.tenant,
    ]);
    assert.ok(!plain.equals(row.request_hash));
  });
});

describe('signing in', () => {
  it('answers a session and the identity, and ends with it', async () => {
    const ann = await newPerson();
    const reply = await signIn(ann);
    assert.equal(reply.status, 200);
    assert.deepEqual(Object.keys(reply.body), [
      'access_token',
      'refresh_token',
      'token_type',
      'expires_in',
      'identity',
    ]);
    assert.equal(reply.body.identity.id, ann.id);
    const token = reply.body.access_token;
    assert.equal((await call('GET', '/v1/identity/me', { token })).status, 200);
    assert.equal((await call('POST', '/v1/auth/logout', { token })).status, 200);
    assert.equal((await call('GET', '/v1/identity/me', { token })).status, 401);
    assert.equal((await call('POST', '/v1/auth/logout', { token })).status, 401);
    assert.equal((await ann.call('GET', '/v1/identity/me')).status, 200, 'her other session lives');
    assert.equal((await call('POST', '/v1/auth/logout')).status, 401);
    const key = await newKey(ann);
    assert.equal((await key.call('POST', '/v1/auth/logout')).status, 401);
    assert.deepEqual(
      (await factsOf(ann)).map(({ type }) => type).filter((type) => /^auth/.test(type)),
      ['auth.registered', 'auth.login.succeeded', 'auth.logout'],
    );
  });

  it('takes the name in any case and Unicode form, and the password as it is normalised', async () => {
    const password = 'Crème brûlée für zwei';
    const ann = await newPerson({ username: `Zoë-${Date.now()}`, password: password.normalize('NFC') });
    for (const username of [ann.username.toUpperCase(), ann.username.normalize('NFD')])
      assert.equal((await signIn({ ...ann, username, password: password.normalize('NFD') })).status, 200);
    assert.equal((await signIn({ ...ann, password: password.toLowerCase() })).status, 401);
  });

  it('means the oldest account of a name where no tenant is said, and that of the tenant where one is', async () => {
    const first = await newPerson();
    const second = await newPerson({ username: first.username, password: 'another green gate' });
    const { tenant: _, ...anywhere } = second;
    assert.equal((await signIn({ ...first, tenant: undefined! })).body.identity.tenant_id, first.tenant);
    assert.equal((await signIn(anywhere)).status, 401, 'a later account does not take the name over');
    assert.equal((await signIn(second)).body.identity.tenant_id, second.tenant);
    assert.equal((await signIn({ ...second, tenant: first.tenant })).status, 401);
    const named = await call('POST', '/v1/auth/login', {
      body: { username: first.username, password: first.password, tenant_id: first.tenant },
    });
    assert.equal(named.body.error.code, 'TENANT_ID_NOT_ALLOWED');
  });

  it('a row that was made for it carries the name in no other form than a keyed hash', async () => {
    const ann = await newPerson({ email: 'only.here@example.com' });
    const rows = await query('select row_to_json(n)::text as text from login_names n where tenant_id = $1', [
      ann.tenant,
    ]);
    assert.equal(rows.length, 2);
    for (const { text } of rows) assert.ok(!text.includes(ann.username) && !text.includes('only.here'));
  });
});

describe('a sign-in that failed', () => {
  it('leaves a fact where somebody has the name, without words that were typed', async () => {
    const ann = await newPerson();
    await signIn({ ...ann, password: 'typed by mistake here' });
    await signIn({ ...ann, username: 'typed-by-mistake', password: 'typed by mistake here' });
    const failed = await eventually('the fact', async () =>
      (await factsOf(ann)).find(({ type }) => type === 'auth.login.failed'),
    );
    assert.match(failed.text, new RegExp(ann.id));
    for (const { text } of await factsOf(ann)) assert.doesNotMatch(text, /by.mistake/);
  });
});

describe('a stored hash', () => {
  const stored = async ({ tenant }: Person): Promise<string> =>
    (await query('select password_hash from accounts where tenant_id = $1', [tenant]))[0].password_hash;
  const store = (person: Person, hash: string) =>
    query('update accounts set password_hash = $2 where tenant_id = $1', [person.tenant, hash]);

  it('is argon2id with 19 MiB, two passes and one lane', async () => {
    assert.match(await stored(await newPerson()), /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  });

  it('of bcrypt is verified once, and is argon2id from then on', async () => {
    for (const version of ['2a', '2b', '2y']) {
      const ann = await newPerson();
      const old = (await bcryptHash(ann.password, 4)).replace(/^\$2[aby]\$/, `$${version}$`);
      await store(ann, old);
      assert.equal((await signIn({ ...ann, password: 'not this password' })).status, 401);
      assert.equal(await stored(ann), old);
      assert.equal((await signIn(ann)).status, 200, version);
      assert.match(await stored(ann), /^\$argon2id\$/);
      assert.equal((await signIn(ann)).status, 200);
    }
  });

  it('with weaker parameters is made anew on success', async () => {
    const { hash } = await import('@node-rs/argon2');
    const ann = await newPerson();
    const weak = await hash(ann.password, { memoryCost: 4096, timeCost: 1, parallelism: 1 });
    await store(ann, weak);
    assert.equal((await signIn(ann)).status, 200);
    assert.match(await stored(ann), /m=19456,t=2,p=1/);
  });

  it('that is none lets nobody in', async () => {
    const ann = await newPerson();
    for (const text of ['', 'plain', ann.password, '$1$salt$hash']) {
      await store(ann, text);
      assert.equal((await signIn({ ...ann, password: text || 'x' })).status, 401);
    }
  });
});
