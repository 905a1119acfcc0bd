import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { uuidv7 } from '#platform/ids.ts';
import {
  call,
  engine,
  eventually,
  newMember,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { newRefreshToken } from './refresh-token.ts';

useTestServer();

const refresh = (refresh_token: string, headers: Record<string, string> = {}) =>
  call('POST', '/v1/sessions/refresh', { body: { refresh_token }, headers });

const ask = async <Row extends Record<string, any>>(text: string, values: unknown[]): Promise<Row[]> =>
  (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;

/** As if the token had been changed so long ago. */
const age = (id: string, seconds: number) =>
  ask(`update sessions set rotated_at = rotated_at - make_interval(secs => $2) where id = $1`, [id, seconds]);

const factsOf = async (id: string): Promise<string[]> =>
  (await ask('select type from facts where resource_id = $1 order by id', [id])).map(({ type }) => type);

const works = async (token: string): Promise<boolean> =>
  (await call('GET', '/v1/identity/me', { token })).status === 200;

const error = ({ status, body, headers }: Reply) => ({
  status,
  error: body.error,
  challenge: headers['www-authenticate'],
});

describe('a refresh token', () => {
  it('is spent for new tokens, of the same session and with the same end', async () => {
    const ann = await newTenant('user');
    const session = await newSession(ann);
    const before = (await ann.call('GET', `/v1/sessions/${session.id}`)).body;
    const reply = await refresh(session.refresh_token);
    assert.equal(reply.status, 200);
    assert.deepEqual(Object.keys(reply.body).sort(), [
      'access_token',
      'expires_in',
      'refresh_token',
      'token_type',
    ]);
    assert.equal(reply.body.expires_in, 900);
    assert.equal(reply.body.token_type, 'bearer');
    assert.notEqual(reply.body.refresh_token, session.refresh_token);
    assert.ok(await works(reply.body.access_token));
    assert.ok(await works(session.access_token), 'an access token lives its time');
    const { sid, sub } = JSON.parse(
      Buffer.from(reply.body.access_token.split('.')[1], 'base64url').toString(),
    );
    assert.deepEqual({ sid, sub }, { sid: session.id, sub: ann.id });
    const after = (await ann.call('GET', `/v1/sessions/${session.id}`)).body;
    assert.equal(after.expires_at, before.expires_at);
    // And so on: each new one works once.
    let token = reply.body.refresh_token;
    for (let i = 0; i < 5; i++) {
      const next = await refresh(token);
      assert.equal(next.status, 200);
      token = next.body.refresh_token;
    }
    assert.deepEqual(await factsOf(session.id), ['session.created', ...Array(6).fill('session.refreshed')]);
  });

  it('is kept as a keyed hash only, and so is what follows it', async () => {
    const ann = await newTenant('user');
    const session = await newSession(ann);
    const { refresh_token } = (await refresh(session.refresh_token)).body;
    const [row] = await ask<Record<string, unknown>>('select * from sessions where id = $1', [session.id]);
    const facts = await ask('select * from facts where resource_id = $1', [session.id]);
    const stored = JSON.stringify([row, facts], (_, value) =>
      value?.type === 'Buffer' ? Buffer.from(value.data).toString('latin1') : value,
    );
    for (const token of [session.refresh_token, refresh_token]) {
      const secret = token.slice(token.lastIndexOf(session.id.replaceAll('-', '')) + 33);
      assert.equal(secret.length, 65);
      for (const part of [token, secret, Buffer.from(secret.slice(0, 43), 'base64url').toString('latin1')])
        assert.ok(!stored.includes(part));
    }
  });

  it('of fifty calls at once is spent once, and all are answered with the same successor', async () => {
    const ann = await newTenant('user');
    const session = await newSession(ann);
    // All of them are there before the first is decided.
    const { database } = (await testServer()).app;
    const gate = await database.operatorPool.connect();
    let asked: Promise<Reply>[];
    try {
      await gate.query('begin');
      await gate.query('select 1 from sessions where id = $1 for update', [session.id]);
      asked = Array.from({ length: 50 }, () => refresh(session.refresh_token));
      const waiting = 'select count(*)::int as waiting from pg_locks where not granted';
      if (engine === 'postgres')
        await eventually('calls to wait', async () => (await gate.query(waiting)).rows[0].waiting >= 8);
    } finally {
      await gate.query('commit');
      gate.release();
    }
    const replies = await Promise.all(asked);
    assert.deepEqual(new Set(replies.map(({ status }) => status)), new Set([200]));
    assert.equal(new Set(replies.map(({ body }) => body.refresh_token)).size, 1);
    assert.deepEqual(await factsOf(session.id), ['session.created', 'session.refreshed']);
    assert.ok(await works(replies[49]!.body.access_token));
    assert.equal((await refresh(replies[0]!.body.refresh_token)).status, 200);
  });

  it('whose answer was lost is answered again within ten seconds, and ends the session after that', async () => {
    const ann = await newTenant('user');
    const session = await newSession(ann);
    const first = await refresh(session.refresh_token);
    await age(session.id, 9);
    const second = await refresh(session.refresh_token);
    assert.equal(second.body.refresh_token, first.body.refresh_token);
    assert.ok(await works(first.body.access_token));
    await age(session.id, 2);
    const refused = await refresh(session.refresh_token);
    assert.equal(refused.status, 401);
    for (const { body } of [first, second]) {
      assert.equal(await works(body.access_token), false);
      assert.equal((await refresh(body.refresh_token)).status, 401);
    }
    assert.deepEqual(await factsOf(session.id), [
      'session.created',
      'session.refreshed',
      'session.replayed',
      'session.revoked',
    ]);
    assert.ok(await works(ann.token), 'other sessions of the identity live on');
  });

  it('however old ends its session, but one that was made up does nothing', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const session = await newSession(ann);
    let token = session.refresh_token;
    for (let i = 0; i < 4; i++) token = (await refresh(token)).body.refresh_token;
    await age(session.id, 3_600);
    const hex = session.id.replaceAll('-', '');
    const another = { ...app.keys, refresh: Buffer.alloc(32, 7) };
    const forged = newRefreshToken(another, ann.tenant, session.id);
    for (const made of [
      `rt_${ann.tenant}_${hex}_${'A'.repeat(65)}`,
      forged,
      `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`,
      token.replace(hex, uuidv7().replaceAll('-', '')),
      token.replace(ann.tenant, 't1'),
    ])
      assert.equal((await refresh(made)).status, 401);
    const current = await refresh(token);
    assert.equal(current.status, 200, 'the session lives');
    assert.equal((await refresh(session.refresh_token)).status, 401);
    assert.equal((await refresh(current.body.refresh_token)).status, 401, 'now it does not');
  });

  it('that was made up never reaches the database', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const session = await newSession(ann);
    const { tenant } = app.database;
    app.database.tenant = (id) => {
      if (id === ann.tenant) throw new Error('the database was asked');
      return tenant(id);
    };
    try {
      assert.equal((await refresh(`${session.refresh_token.slice(0, -2)}xx`)).status, 401);
    } finally {
      app.database.tenant = tenant;
    }
  });

  it('is refused with the same words whatever is wrong with it', async () => {
    const { app } = await testServer();
    const admin = await newTenant('admin');
    const gone = await newSession(admin);
    await ask('delete from sessions where id = $1', [gone.id]);
    const revoked = await newSession(admin);
    assert.equal((await admin.call('DELETE', `/v1/sessions/${revoked.id}`)).status, 204);
    const expired = await newSession(admin);
    await ask(`update sessions set expires_at = now() - interval '1 second' where id = $1`, [expired.id]);
    const idle = await newSession(await newMember(admin, 'user'));
    await ask(
      'update identities set is_active = false where id = (select identity_id from sessions where id = $1)',
      [idle.id],
    );
    const closed = await newTenant('user');
    const inClosed = await newSession(closed);
    await ask('update tenants set is_active = false where tenant_id = $1', [closed.tenant]);
    const tokens = {
      'no token': 'nonsense',
      'an access token': admin.token,
      'of no session': newRefreshToken(app.keys, admin.tenant, uuidv7()),
      'of no tenant': newRefreshToken(app.keys, 'nobody', uuidv7()),
      'of a session that was removed': gone.refresh_token,
      'of a revoked session': revoked.refresh_token,
      'of an expired session': expired.refresh_token,
      'of an identity that is not active': idle.refresh_token,
      'of a tenant that is not active': inClosed.refresh_token,
    };
    const [wanted, ...others] = await Promise.all(
      Object.entries(tokens).map(async ([what, token]) => [what, error(await refresh(token))] as const),
    );
    assert.equal(wanted![1].status, 401);
    assert.equal(wanted![1].challenge, 'Bearer');
    for (const [what, answer] of others) assert.deepEqual(answer, wanted![1], what);
    assert.deepEqual(await factsOf(idle.id), ['session.created'], 'nothing changed');
  });

  it('says where and with what its session was used last, beside what signed in', async () => {
    const ann = await newTenant('user');
    const session = await newSession(ann);
    const userAgent = 'Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0';
    await refresh(session.refresh_token, { 'user-agent': userAgent });
    const { body } = await ann.call('GET', `/v1/sessions/${session.id}`);
    assert.equal(body.user_agent, userAgent);
    assert.equal(body.ip_address, '127.0.0.1');
    assert.equal(body.device_info.user_agent, null, 'made by the test itself, without a request');
  });
});
