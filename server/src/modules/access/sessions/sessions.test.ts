import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  callServer,
  eventually,
  newKey,
  newMember,
  newSession,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import type { Running } from '../../../app.ts';
import { cleanUpAll } from './cleanup.ts';
import { flushSessionUses, revokeSessions } from './service.ts';

useTestServer();

const ask = async <Row extends Record<string, any>>(text: string, values: unknown[]): Promise<Row[]> =>
  (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;
const works = async (token: string): Promise<boolean> =>
  (await call('GET', '/v1/identity/me', { token })).status === 200;
const idsOf = async (caller: Caller, query = ''): Promise<string[]> =>
  (await caller.call('GET', `/v1/sessions/${query}`)).body.map(({ id }: { id: string }) => id);
const factsOf = (id: string) =>
  ask('select type, data, actor_id, ip from facts where resource_id = $1 order by id', [id]);

describe('sessions', () => {
  it('are started by a sign-up, with what signed in, and on record', async () => {
    const userAgent =
      'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0';
    const { body } = await call('POST', '/v1/identity/', {
      body: { external_id: 'ann', role: 'user' },
      headers: { 'user-agent': userAgent },
    });
    const list = await call('GET', '/v1/sessions/', { token: body.access_token });
    assert.equal(list.status, 200);
    assert.equal(list.body.length, 1);
    const [session] = list.body;
    assert.deepEqual(Object.keys(session).sort(), [
      'created_at',
      'device_info',
      'expires_at',
      'id',
      'identity_id',
      'ip_address',
      'is_active',
      'is_current',
      'last_used_at',
      'tenant_id',
      'updated_at',
      'user_agent',
    ]);
    assert.deepEqual(session.device_info, {
      user_agent: userAgent,
      ip_address: '127.0.0.1',
      platform: 'windows',
      browser: 'edge',
    });
    assert.equal(session.is_current, true);
    assert.equal(session.tenant_id, body.identity.tenant_id);
    assert.equal(Date.parse(session.expires_at) - Date.parse(session.created_at), 30 * 86_400_000);
    const [created] = await factsOf(session.id);
    assert.equal(created!.type, 'session.created');
    assert.equal(created!.data.identity_id, body.identity.id);
    assert.equal(created!.ip, '127.0.0.1');
    const one = await call('GET', `/v1/sessions/${session.id}`, { token: body.access_token });
    assert.deepEqual(one.body, session);
  });

  it('of one’s own are listed, last used first, page by page', async () => {
    const ann = await newTenant('user');
    const [current] = await idsOf(ann);
    const ids: string[] = [];
    for (let i = 0; i < 4; i++) {
      const { id } = await newSession(ann);
      await ask(`update sessions set last_used_at = '2020-01-01Z'::timestamptz + make_interval(days => $2) where id = $1`, [
        id,
        i,
      ]); // biome-ignore format: one line of SQL
      ids.unshift(id);
    }
    assert.deepEqual(await idsOf(ann), [current, ...ids]);
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const page = await ann.call('GET', `/v1/sessions/?limit=2${cursor}`);
      seen.push(...page.body.map(({ id }: { id: string }) => id));
      const next = page.headers['x-next-cursor'];
      if (!next) break;
      cursor = `&cursor=${encodeURIComponent(String(next))}`;
    }
    assert.deepEqual(seen, [current, ...ids]);
  });

  it('of others are seen and ended by those who may, and are nobody else’s', async () => {
    const admin = await newTenant('admin');
    const [ann, bob] = [await newMember(admin, 'user'), await newMember(admin, 'agent')];
    const [hers] = await idsOf(ann);
    assert.deepEqual(await idsOf(admin, `?identity_id=${ann.id}`), [hers]);
    assert.equal((await admin.call('GET', `/v1/sessions/${hers}`)).status, 200);
    assert.deepEqual(await idsOf(bob, `?identity_id=${ann.id}`), []);
    assert.equal((await bob.call('GET', `/v1/sessions/${hers}`)).status, 404);
    assert.equal((await bob.call('DELETE', `/v1/sessions/${hers}`)).status, 404);
    assert.equal((await bob.call('DELETE', `/v1/sessions/?identity_id=${ann.id}`)).status, 403);
    assert.ok(await works(ann.token));
    const ended = await admin.call('DELETE', `/v1/sessions/?identity_id=${ann.id}`);
    assert.deepEqual(ended.body, { message: 'Revoked 1 sessions', revoked_count: 1 });
    assert.equal(await works(ann.token), false);
    assert.equal((await admin.call('GET', `/v1/sessions/${hers}`)).body.is_active, false);
  });

  it('end at once, one or all, and stay ended', async () => {
    const ann = await newTenant('user');
    const [one, two] = [await newSession(ann), await newSession(ann)];
    assert.ok(await works(one.access_token));
    assert.equal((await ann.call('DELETE', `/v1/sessions/${one.id}`)).status, 204);
    assert.equal(await works(one.access_token), false);
    assert.ok(await works(two.access_token));
    assert.equal((await ann.call('DELETE', `/v1/sessions/${one.id}`)).status, 204);
    const types = (await factsOf(one.id)).map(({ type }) => type);
    assert.deepEqual(types, ['session.created', 'session.revoked'], 'ended once');
    const all = await ann.call('DELETE', '/v1/sessions/');
    assert.deepEqual(all.body, { message: 'Revoked 2 sessions', revoked_count: 2 });
    for (const token of [ann.token, two.access_token]) assert.equal(await works(token), false);
  });

  it('end but one, as a changed password asks for', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const keep = await newSession(ann);
    const ctx = systemCtx(app, ann.tenant, uuidv7());
    assert.equal(await revokeSessions(ctx, ann.id, keep.id), 1);
    assert.equal(await works(ann.token), false);
    assert.ok(await works(keep.access_token));
  });

  it('know when and from where they were used, without a request waiting for it', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const { id, access_token } = await newSession(ann);
    await ask(`update sessions set last_used_at = '2026-01-01Z' where id = $1`, [id]);
    const headers = { 'user-agent': 'a client of its own' };
    await call('GET', '/v1/identity/me', { token: access_token, headers });
    const session = await eventually('the use to be written', async () => {
      await flushSessionUses(app);
      const { body } = await ann.call('GET', `/v1/sessions/${id}`);
      return Date.parse(body.last_used_at) > Date.parse('2026-01-02') && body;
    });
    assert.equal(session.user_agent, 'a client of its own');
  });

  it('say who is signed in, to any session and to nothing else', async () => {
    const admin = await newTenant('admin');
    const stranger = await newMember(admin, 'a-role-without-rights');
    const reply = await stranger.call('POST', '/v1/sessions/test');
    assert.equal(reply.status, 200);
    assert.equal(reply.body.message, 'Session authentication successful');
    assert.equal(reply.body.identity.id, stranger.id);
    const { token } = await newKey(admin);
    assert.equal((await call('POST', '/v1/sessions/test', { token })).status, 401);
    assert.equal((await call('POST', '/v1/sessions/test')).status, 401);
  });

  it('are removed some days after their end, by the clock and by who may end them all', async () => {
    const { app } = await testServer();
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const member = await newMember(admin, 'user');
    const days = (count: number) => new Date(Date.now() - count * 86_400_000);
    const end = async (owner: Caller, column: string, ago: number) => {
      const { id } = await newSession(owner);
      await ask(`update sessions set ${column} = $2, is_active = ${column === 'expires_at'} where id = $1`, [
        id,
        days(ago),
      ]);
      return id;
    };
    const longGone = [await end(admin, 'expires_at', 8), await end(member, 'revoked_at', 8)];
    const kept = [await end(admin, 'expires_at', 6), await end(admin, 'revoked_at', 6)];
    const foreign = await end(other, 'expires_at', 8);
    assert.equal((await member.call('POST', '/v1/sessions/cleanup')).status, 403);
    const reply = await admin.call('POST', '/v1/sessions/cleanup');
    assert.deepEqual(reply.body, { message: 'Cleaned up 2 expired sessions', cleaned_count: 2 });
    const left = async () =>
      (await ask('select id from sessions where id = any($1)', [[...longGone, ...kept, foreign]])).map(
        ({ id }) => id,
      );
    assert.deepEqual((await left()).sort(), [...kept, foreign].sort());
    await cleanUpAll(app);
    assert.deepEqual((await left()).sort(), [...kept].sort());
    assert.ok(await works(admin.token));
  });
});

describe('refreshing', () => {
  let server: Running;
  before(async () => {
    server = await startServer({ RATE_LIMIT_ENABLED: 'true', REFRESHES_PER_HOUR: '5' });
  });
  after(() => server.stop());

  it('is limited for one address', async () => {
    const body = { refresh_token: 'nonsense' };
    const replies = await Promise.all(
      Array.from({ length: 8 }, () => callServer(server, 'POST', '/v1/sessions/refresh', { body })),
    );
    assert.equal(replies.filter(({ status }) => status === 401).length, 5);
    assert.equal(replies.filter(({ status }) => status === 429).length, 3);
  });
});
