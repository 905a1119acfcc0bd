import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  callServer,
  eventually,
  newKey,
  newMember,
  newTenant,
  type Reply,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { tellExpired } from './jobs.ts';
import { makeKeyText } from './secret.ts';
import { flushKeyUses } from './service.ts';

useTestServer();

const ask = async <Row extends Record<string, any>>(text: string, values: unknown[]): Promise<Row[]> =>
  (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;
const works = async (token: string): Promise<boolean> =>
  (await call('GET', '/v1/identity/me', { token })).status === 200;
const make = async (owner: Caller, more: Record<string, unknown> = {}) => {
  const reply = await owner.call('POST', '/v1/api-keys/', { name: 'a key', ...more });
  assert.equal(reply.status, 201, reply.text);
  return { ...reply.body.api_key, secret: reply.body.secret_key } as { id: string; secret: string } & Record<
    string,
    any
  >;
};
const as = (token: string) => (method: string, url: string, body?: unknown) =>
  call(method, url, { token, ...(body === undefined ? {} : { body }) });
const factsOf = async (id: string): Promise<string[]> =>
  (await ask('select type from facts where resource_id = $1 order by id', [id])).map(({ type }) => type);
const code = ({ status, body }: Reply) => [status, body.error?.code];
const inDays = (time: string) => Math.round((Date.parse(time) - Date.now()) / 86_400_000);
/** Changes a row behind the back of the server and has all processes know. */
const tamper = async (tenant: string, id: string, change: string, values: unknown[] = []) => {
  await ask(`update api_keys set ${change} where id = $1`, [id, ...values]);
  (await testServer()).app.shared.invalidate('api_key', `${tenant}/${id}`);
};

describe('API keys', () => {
  it('are made, seen, listed, changed and revoked', async () => {
    const ann = await newTenant('user');
    const reply = await ann.call('POST', '/v1/api-keys/', {
      name: 'Production Key',
      scopes: ['read', 'write'],
      expires_in_days: 365,
    });
    assert.equal(reply.status, 201);
    assert.deepEqual(Object.keys(reply.body).sort(), ['api_key', 'secret_key']);
    const { api_key, secret_key } = reply.body;
    assert.deepEqual(Object.keys(api_key).sort(), [
      'created_at',
      'expires_at',
      'id',
      'identity_id',
      'is_active',
      'last_used_at',
      'name',
      'revoked_at',
      'scopes',
      'tenant_id',
      'updated_at',
    ]);
    assert.match(secret_key, /^mk_/);
    assert.deepEqual(api_key.scopes, ['read', 'write']);
    assert.equal(inDays(api_key.expires_at), 365);
    assert.equal(api_key.tenant_id, ann.tenant);
    assert.equal(api_key.last_used_at, null);
    assert.deepEqual((await ann.call('GET', `/v1/api-keys/${api_key.id}`)).body, api_key);
    const second = await make(ann);
    assert.deepEqual(
      (await ann.call('GET', '/v1/api-keys/')).body.map(({ id }: { id: string }) => id),
      [second.id, api_key.id],
    );
    const changed = await ann.call('PUT', `/v1/api-keys/${api_key.id}`, {
      name: 'Renamed',
      scopes: ['memory:*'],
      expires_in_days: null,
    });
    assert.equal(changed.status, 200);
    assert.deepEqual(
      [changed.body.name, changed.body.scopes, changed.body.expires_at],
      ['Renamed', ['memory:*'], null],
    );
    assert.equal((await ann.call('DELETE', `/v1/api-keys/${api_key.id}`)).status, 204);
    assert.equal((await ann.call('DELETE', `/v1/api-keys/${api_key.id}`)).status, 204);
    const revoked = (await ann.call('GET', `/v1/api-keys/${api_key.id}`)).body;
    assert.equal(revoked.is_active, false);
    assert.ok(revoked.revoked_at);
    const list = async (query: string) =>
      (await ann.call('GET', `/v1/api-keys/?is_active=${query}`)).body.map(({ id }: { id: string }) => id);
    assert.deepEqual([await list('true'), await list('false')], [[second.id], [api_key.id]]);
    assert.deepEqual(await factsOf(api_key.id), ['api_key.created', 'api_key.updated', 'api_key.revoked']);
  });

  it('say whom they stand for, whatever their scopes, in either header', async () => {
    const ann = await newTenant('editor');
    const { secret } = await make(ann, { scopes: ['memory:create'] });
    const wanted = {
      message: 'API key authentication successful',
      identity: { id: ann.id, role: 'editor', tenant_id: ann.tenant },
    };
    for (const options of [{ token: secret }, { headers: { 'x-api-key': secret } }]) {
      const reply = await call('POST', '/v1/api-keys/test', options);
      assert.equal(reply.status, 200);
      const { external_id, ...identity } = reply.body.identity;
      assert.deepEqual({ ...reply.body, identity }, wanted);
    }
    for (const options of [{}, { token: ann.token }, { token: `${secret.slice(0, -1)}x` }]) {
      const reply = await call('POST', '/v1/api-keys/test', options);
      assert.deepEqual(code(reply), [401, 'AUTH_UNAUTHORIZED']);
      assert.equal(reply.headers['www-authenticate'], 'Bearer');
    }
  });

  it('belong to their identity, and the tenant’s admins see and end all', async () => {
    const admin = await newTenant('admin');
    const [ann, bob] = [await newMember(admin, 'user'), await newMember(admin, 'reader')];
    const key = await make(ann);
    for (const [method, path, body] of [
      ['GET', ''],
      ['PUT', '', { name: 'mine' }],
      ['DELETE', ''],
      ['POST', '/rotate', {}],
    ] as const)
      assert.equal((await bob.call(method, `/v1/api-keys/${key.id}${path}`, body)).status, 404, method);
    assert.deepEqual((await bob.call('GET', '/v1/api-keys/')).body, []);
    assert.ok(await works(key.secret));
    assert.equal((await admin.call('GET', '/v1/api-keys/')).body[0].id, key.id);
    assert.equal((await admin.call('DELETE', `/v1/api-keys/${key.id}`)).status, 204);
    assert.equal(await works(key.secret), false);
    const agent = await newMember(admin, 'agent');
    assert.equal((await agent.call('POST', '/v1/api-keys/', { name: 'own' })).status, 403);
  });

  it('are known by keyed hashes only, under an Idempotency-Key too', async () => {
    const ann = await newTenant('user');
    const headers = { 'idempotency-key': 'one-key' };
    const first = await ann.call('POST', '/v1/api-keys/', { name: 'once' }, headers);
    const again = await ann.call('POST', '/v1/api-keys/', { name: 'once' }, headers);
    assert.equal(again.headers['idempotency-replayed'], 'true');
    assert.deepEqual(again.body, first.body);
    assert.equal((await ann.call('GET', '/v1/api-keys/')).body.length, 1);
    const rotated = await ann.call('POST', `/v1/api-keys/${first.body.api_key.id}/rotate`, {}, headers);
    const rows = await ask<Record<string, unknown>>('select * from idempotency_keys where tenant_id = $1', [
      ann.tenant,
    ]);
    assert.equal(rows.length, 2);
    rows.push(...(await ask('select * from api_keys where tenant_id = $1', [ann.tenant])));
    rows.push(...(await ask('select * from facts where tenant_id = $1', [ann.tenant])));
    const stored = JSON.stringify(rows, (_, value) =>
      value?.type === 'Buffer' ? Buffer.from(value.data).toString('latin1') : value,
    );
    for (const { secret_key } of [first.body, rotated.body]) {
      const secret = secret_key.slice(-51, -8);
      for (const part of [secret_key, secret, Buffer.from(secret, 'base64url').toString('latin1')])
        assert.ok(!stored.includes(part));
    }
  });

  it('are refused for scopes that are none, which are named', async () => {
    const ann = await newTenant('admin');
    const { id } = await make(ann);
    for (const reply of [
      await ann.call('POST', '/v1/api-keys/', { name: 'x', scopes: ['read', 'nothing:known', 'fly'] }),
      await ann.call('PUT', `/v1/api-keys/${id}`, { scopes: ['read', 'nothing:known', 'fly'] }),
    ]) {
      assert.deepEqual(code(reply), [422, 'VALIDATION_ERROR']);
      assert.deepEqual(
        reply.body.error.details.errors.map(({ path }: { path: string }) => path),
        ['/scopes/1', '/scopes/2'],
      );
    }
  });
});

describe('a key never has more than its maker', () => {
  it('not for whom it acts: only for identities of lower roles, by those who may', async () => {
    const admin = await newTenant('admin');
    const [second, agent, user] = [
      await newMember(admin, 'admin'),
      await newMember(admin, 'agent'),
      await newMember(admin, 'user'),
    ];
    const forAgent = await make(admin, { identity_id: agent.id });
    const me = await call('GET', '/v1/identity/me', { token: forAgent.secret });
    assert.equal(me.body.id, agent.id);
    const wanted = (owner: Caller, identity_id: string) =>
      owner.call('POST', '/v1/api-keys/', { name: 'x', identity_id });
    assert.equal((await wanted(admin, second.id)).status, 403, 'an equal');
    assert.equal((await wanted(user, agent.id)).status, 403);
    assert.equal((await wanted(user, admin.id)).status, 403);
    assert.equal((await wanted(user, user.id)).status, 201);
    assert.equal((await wanted(admin, 'nonsense')).status, 404);
    await admin.call('POST', '/v1/identity/', { external_id: 'asleep', role: 'user', is_active: false });
    const [asleep] = await ask(`select id from identities where tenant_id = $1 and external_id = 'asleep'`, [
      admin.tenant,
    ]);
    assert.deepEqual(code(await wanted(admin, asleep!.id)), [409, 'IDENTITY_INACTIVE']);
  });

  it('not its scopes: wider ones are refused by name, and none asked for are its own', async () => {
    const admin = await newTenant('admin');
    const maker = await newKey(admin, { scopes: ['read', 'api_keys:*'] });
    const refused = await maker.call('POST', '/v1/api-keys/', {
      name: 'x',
      scopes: ['memory:read', 'memory:create', 'admin'],
    });
    assert.deepEqual(code(refused), [403, 'AUTH_FORBIDDEN']);
    assert.deepEqual(refused.body.error.details.scopes, ['memory:create', 'admin']);
    assert.match(refused.body.error.message, /memory:create, admin/);
    const made = await make(maker);
    assert.deepEqual(made.scopes, ['read', 'api_keys:*']);
    assert.deepEqual((await make(maker, { scopes: [] })).scopes, ['read', 'api_keys:*']);
    assert.equal((await as(made.secret)('POST', '/v1/memory/', { text: 'x', type: 'note' })).status, 403);
    // Nor does it widen itself or another one afterwards.
    for (const id of [maker.keyId, made.id, (await make(admin, { scopes: ['read'] })).id]) {
      const reply = await maker.call('PUT', `/v1/api-keys/${id}`, { scopes: ['write'] });
      assert.deepEqual(code(reply), [403, 'AUTH_FORBIDDEN'], id);
      const wide = await maker.call('PUT', `/v1/api-keys/${id}`, { scopes: [] });
      assert.deepEqual(wide.body.scopes, ['read', 'api_keys:*'], id);
    }
  });

  it('not its time, where it ends by itself', async () => {
    const admin = await newTenant('admin');
    const maker = await newKey(admin, { scopes: ['api_keys:*'], expires_in_days: 10 });
    assert.equal(inDays((await make(maker)).expires_at), 10);
    assert.equal(inDays((await make(maker, { expires_in_days: 3 })).expires_at), 3);
    const longer = await maker.call('POST', '/v1/api-keys/', { name: 'x', expires_in_days: 11 });
    assert.deepEqual(code(longer), [403, 'AUTH_FORBIDDEN']);
    const itself = (days: number | null) =>
      maker.call('PUT', `/v1/api-keys/${maker.keyId}`, { expires_in_days: days });
    assert.equal((await itself(300)).status, 403);
    assert.equal(inDays((await itself(null)).body.expires_at), 10);
    const forever = await make(admin, { scopes: ['api_keys:read'] });
    assert.equal((await maker.call('POST', `/v1/api-keys/${forever.id}/rotate`, {})).status, 403);
  });

  it('not by the way of another key’s new secret', async () => {
    const admin = await newTenant('admin');
    const unlimited = await make(admin);
    const maker = await newKey(admin, { scopes: ['api_keys:*'] });
    const stolen = await maker.call('POST', `/v1/api-keys/${unlimited.id}/rotate`, {});
    assert.deepEqual(code(stolen), [403, 'AUTH_FORBIDDEN']);
    assert.ok(await works(unlimited.secret));
    assert.equal((await maker.call('POST', `/v1/api-keys/${maker.keyId}/rotate`, {})).status, 200);
    // A role that may manage all keys is not above whom they stand for.
    const keeper = await newMember(admin, 'keeper');
    await ask(
      `insert into policies (tenant_id, id, role, rule, created_at, updated_at)
       values ($1, $2, 'keeper', '{"==": [{"var": "resource"}, "api_keys"]}', now(), now())`,
      [admin.tenant, keeper.id],
    );
    (await testServer()).app.shared.invalidate('policy', admin.tenant);
    assert.equal((await keeper.call('GET', `/v1/api-keys/${unlimited.id}`)).status, 200);
    assert.equal((await keeper.call('POST', `/v1/api-keys/${unlimited.id}/rotate`, {})).status, 403);
    const narrow = await newKey(admin, { scopes: ['read'] });
    const widen = { scopes: [] };
    assert.equal((await keeper.call('PUT', `/v1/api-keys/${narrow.keyId}`, widen)).status, 403);
    assert.equal((await admin.call('PUT', `/v1/api-keys/${narrow.keyId}`, widen)).status, 200);
    assert.equal(
      (await keeper.call('POST', '/v1/api-keys/', { name: 'x', identity_id: admin.id })).status,
      403,
    );
    assert.equal((await keeper.call('DELETE', `/v1/api-keys/${unlimited.id}`)).status, 204);
  });

  it('not its role: when the identity loses it, so does the key', async () => {
    const { app } = await testServer();
    const admin = await newTenant('admin');
    const key = await make(admin);
    assert.equal((await as(key.secret)('GET', '/v1/api-keys/inactive')).status, 200);
    await ask(`update identities set role = 'user' where id = $1`, [admin.id]);
    app.shared.invalidate('identity', `${admin.tenant}/${admin.id}`);
    assert.equal((await as(key.secret)('POST', '/v1/sessions/cleanup')).status, 403);
    await ask(`update identities set is_active = false where id = $1`, [admin.id]);
    app.shared.invalidate('identity', `${admin.tenant}/${admin.id}`);
    assert.equal(await works(key.secret), false);
    await ask('delete from identities where id = $1', [admin.id]);
    app.shared.invalidate('identity', `${admin.tenant}/${admin.id}`);
    assert.equal(await works(key.secret), false);
    assert.deepEqual(await ask('select id from api_keys where id = $1', [key.id]), []);
  });
});

describe('the life of a key', () => {
  it('ends at once when it is revoked, for good', async () => {
    const ann = await newTenant('user');
    const key = await make(ann);
    assert.ok(await works(key.secret));
    await ann.call('DELETE', `/v1/api-keys/${key.id}`);
    assert.equal(await works(key.secret), false);
    for (const [method, path, body] of [
      ['PUT', '', { is_active: true }],
      ['POST', '/rotate', {}],
    ] as const)
      assert.deepEqual(code(await ann.call(method, `/v1/api-keys/${key.id}${path}`, body)), [
        409,
        'API_KEY_REVOKED',
      ]);
    assert.equal(await works(key.secret), false);
  });

  it('pauses and goes on', async () => {
    const ann = await newTenant('user');
    const key = await make(ann);
    const set = (is_active: boolean) => ann.call('PUT', `/v1/api-keys/${key.id}`, { is_active });
    assert.equal((await set(false)).body.is_active, false);
    assert.equal(await works(key.secret), false);
    assert.equal((await set(true)).body.is_active, true);
    assert.ok(await works(key.secret));
  });

  it('ends to the millisecond when its time is over, which is put on record once', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const key = await make(ann, { expires_in_days: 1 });
    assert.ok(await works(key.secret));
    await tamper(ann.tenant, key.id, 'expires_at = $2', [new Date()]);
    assert.equal(await works(key.secret), false);
    assert.equal((await ann.call('GET', `/v1/api-keys/${key.id}`)).body.is_active, false);
    await tellExpired(app);
    await tellExpired(app);
    assert.deepEqual(await factsOf(key.id), ['api_key.created', 'api_key.expired']);
    // Given more time it works again; when that is over too, it is told again.
    assert.equal((await ann.call('PUT', `/v1/api-keys/${key.id}`, { expires_in_days: 2 })).status, 200);
    assert.ok(await works(key.secret));
    await tamper(ann.tenant, key.id, 'expires_at = $2', [new Date()]);
    await tellExpired(app);
    assert.equal((await factsOf(key.id)).filter((type) => type === 'api_key.expired').length, 2);
  });

  it('goes on under a new secret, the old one beside it until the overlap ends', async () => {
    const ann = await newTenant('user');
    const key = await make(ann, { scopes: ['read'] });
    const rotate = async (overlap_seconds?: number) => {
      const reply = await ann.call('POST', `/v1/api-keys/${key.id}/rotate`, { overlap_seconds });
      assert.equal(reply.status, 200);
      assert.equal(reply.body.api_key.id, key.id);
      return { secret: reply.body.secret_key as string, until: reply.body.old_secret_expires_at as string };
    };
    const second = await rotate(60);
    const third = await rotate();
    assert.equal(Math.round((Date.parse(third.until) - Date.now()) / 60_000), 60);
    for (const secret of [key.secret, second.secret, third.secret]) assert.ok(await works(secret));
    // The end of each overlap stands.
    await tamper(
      ann.tenant,
      key.id,
      `old_secrets = jsonb_set(old_secrets, '{1,until}', to_jsonb('2026-01-01T00:00:00.000Z'::text))`,
    );
    assert.deepEqual(
      [await works(key.secret), await works(second.secret), await works(third.secret)],
      [false, true, true],
    );
    const fourth = await rotate(0);
    assert.deepEqual(
      [await works(second.secret), await works(third.secret), await works(fourth.secret)],
      [false, false, true],
      'without an overlap all older ones end',
    );
    assert.equal((await as(fourth.secret)('POST', '/v1/memory/', { text: 'x', type: 'y' })).status, 403);
    assert.deepEqual(await factsOf(key.id), ['api_key.created', ...Array(3).fill('api_key.rotated')]);
    await ann.call('DELETE', `/v1/api-keys/${key.id}`);
    assert.equal(await works(fourth.secret), false);
  });

  it('of many rotations at once goes on with each new secret', async () => {
    const ann = await newTenant('user');
    const key = await make(ann);
    const replies = await Promise.all(
      Array.from({ length: 5 }, () => ann.call('POST', `/v1/api-keys/${key.id}/rotate`)),
    );
    for (const { body } of replies) assert.ok(await works(body.secret_key));
    assert.ok(await works(key.secret));
  });

  it('is known at once by a new secret, even where word of it has not come', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const key = await make(ann);
    assert.ok(await works(key.secret));
    const { invalidate } = app.shared;
    app.shared.invalidate = () => {};
    try {
      const { body } = await ann.call('POST', `/v1/api-keys/${key.id}/rotate`);
      assert.deepEqual(
        await Promise.all(Array.from({ length: 10 }, () => works(body.secret_key))),
        Array(10).fill(true),
      );
    } finally {
      app.shared.invalidate = invalidate;
    }
  });
});

describe('keys that open nothing', () => {
  it('cost an address no look-up once it has made up too many, and hold up nobody whose key is known', async () => {
    const server = await startServer(
      { RATE_LIMIT_ENABLED: 'true', AUTH_FAILURES_PER_HOUR: '3', SIGN_UPS_PER_HOUR: '1000000' },
      { serve: true, work: false },
    );
    try {
      const [ann, bob] = [await newTenant('admin', server), await newTenant('admin', server)];
      const [hers, his] = [await newKey(ann, { server }), await newKey(bob, { server })];
      // Of one subscriber, who has not called in an earlier run.
      const network = `2001:db8:${randomBytes(2).toString('hex')}:${randomBytes(2).toString('hex')}`;
      const ask = async (token: string, remoteAddress: string) => {
        const headers = { authorization: `Bearer ${token}` };
        const url = '/v1/identity/me';
        return server.server!.inject({ method: 'GET', url, headers, remoteAddress });
      };
      assert.equal((await ask(hers.token, `${network}::1`)).statusCode, 200);
      for (let i = 0; i < 3; i++)
        assert.equal((await ask(makeKeyText(ann.tenant, uuidv7()), `${network}::${i}`)).statusCode, 401);
      const { database } = server.app;
      const { tenant } = database;
      let lookUps = 0;
      database.tenant = (name) => {
        lookUps += 1;
        return tenant.call(database, name);
      };
      for (const forged of [makeKeyText(ann.tenant, uuidv7()), makeKeyText(ann.tenant, hers.keyId)]) {
        const refused = await ask(forged, `${network}::5`);
        assert.deepEqual([refused.statusCode, refused.json().error.code], [429, 'RATE_LIMITED']);
        assert.ok(Number(refused.headers['retry-after']) > 1);
      }
      assert.equal(lookUps, 0);
      database.tenant = tenant;
      assert.equal((await ask(hers.token, `${network}::1`)).statusCode, 200);
      assert.equal((await ask(his.token, '203.0.113.7')).statusCode, 200, 'from elsewhere');
    } finally {
      await server.stop();
    }
  });
});

describe('the use of a key', () => {
  it('is written behind the requests, at most once a minute', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const key = await make(ann);
    const lastUsed = async () => (await ann.call('GET', `/v1/api-keys/${key.id}`)).body.last_used_at;
    assert.equal(await lastUsed(), null);
    assert.ok(await works(key.secret));
    const first = await eventually('the use to be written', async () => {
      await flushKeyUses(app);
      return (await lastUsed()) ?? undefined;
    });
    assert.ok(Math.abs(Date.parse(first) - Date.now()) < 30_000);
    for (let i = 0; i < 5; i++) assert.ok(await works(key.secret));
    await flushKeyUses(app);
    assert.equal(await lastUsed(), first);
    await tamper(ann.tenant, key.id, `last_used_at = last_used_at - interval '61 seconds'`);
    assert.ok(await works(key.secret));
    await eventually('the next use', async () => {
      await flushKeyUses(app);
      return Date.parse(await lastUsed()) >= Date.parse(first);
    });
  });

  it('is written when the server stops', async () => {
    const server = await startServer({}, { serve: true, work: false });
    let stopped = false;
    try {
      const ann = await newTenant('user', server);
      const { body } = await ann.call('POST', '/v1/api-keys/', { name: 'last' });
      const { app } = server;
      await callServer(server, 'GET', '/v1/identity/me', { token: body.secret_key });
      const written: unknown[] = [];
      const { tenant } = app.database;
      app.database.tenant = (id) => {
        const db = tenant(id);
        return { ...db, run: async (statement) => {
          const count = await db.run(statement);
          if (statement.text.includes('update api_keys set last_used_at')) written.push(count);
          return count;
        } };
      }; // biome-ignore format: short
      await server.stop();
      stopped = true;
      assert.deepEqual(written, [1]);
    } finally {
      if (!stopped) await server.stop();
    }
  });

  it('tells which are not used any more', async () => {
    const admin = await newTenant('admin');
    const [fresh, idle, young, paused] = [
      await make(admin),
      await make(admin),
      await make(admin),
      await make(admin),
    ];
    const old = new Date(Date.now() - 100.5 * 86_400_000);
    await tamper(admin.tenant, fresh.id, 'created_at = $2, last_used_at = $3', [old, new Date()]);
    await tamper(admin.tenant, idle.id, 'created_at = $2, last_used_at = $2', [old]);
    await tamper(admin.tenant, paused.id, 'created_at = $2, is_active = false', [old]);
    const report = async (query = '') =>
      (await admin.call('GET', `/v1/api-keys/inactive${query}`)).body.map(
        ({ id, inactive_days }: Record<string, unknown>) => [id, inactive_days],
      );
    assert.deepEqual(await report(), [[idle.id, 100]]);
    assert.deepEqual(await report('?days=101'), []);
    assert.ok(young.id);
    const user = await newMember(admin, 'user');
    assert.deepEqual((await user.call('GET', '/v1/api-keys/inactive')).body, []);
  });

  it('can be asked for: a key that nobody used for too long is refused until somebody wants it', async () => {
    const server = await startServer({ API_KEY_INACTIVE_DAYS: '90' }, { serve: true, work: false });
    try {
      const ann = await newTenant('user', server);
      const key = (await ann.call('POST', '/v1/api-keys/', { name: 'idle' })).body;
      const { id } = key.api_key;
      const status = async () =>
        (await callServer(server, 'GET', '/v1/identity/me', { token: key.secret_key })).status;
      const age = async (days: number) => {
        const then = new Date(Date.now() - days * 86_400_000);
        await server.app.database.operatorPool.query(
          'update api_keys set created_at = $2, updated_at = $2, last_used_at = $2 where id = $1',
          [id, then],
        );
        server.app.shared.invalidate('api_key', `${ann.tenant}/${id}`);
      };
      assert.equal(await status(), 200);
      await age(91);
      assert.equal(await status(), 401);
      await age(89);
      assert.equal(await status(), 200);
      await age(91);
      await ann.call('PUT', `/v1/api-keys/${id}`, { is_active: true });
      assert.equal(await status(), 200);
    } finally {
      await server.stop();
    }
  });
});
