import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { startChatServer } from '#test/chat-server.ts';
import { command, type Said } from '#test/command.ts';
import { callServer, environmentOf, startServer } from '#test/harness.ts';
import type { Running } from '../src/app.ts';

// The command line as an operator types it. The embedded database has one process at a time, so the server starts last.

describe('the command line', () => {
  const env = environmentOf();
  const tenant = `shop-${process.pid}`;
  const run = (...args: string[]): Promise<Said> => command(env, ...args);
  const keys: Record<string, string> = {};
  const idOf = (key: string): string =>
    /_([0-9a-f]{32})_/.exec(key)![1]!.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  let server: Running | undefined;
  after(() => server?.stop());

  const makeKey = async (name: string, ...args: string[]) => {
    const said = await run('keys', 'create', '--name', name, ...args);
    assert.equal(said.code, 0, said.err);
    assert.match(said.out, /^mk_\S+\n$/);
    assert.match(said.err, /^Key \S+ for tenant .*\n$/);
    keys[name] = said.out.trim();
  };

  it('makes tenants, keys in them, and operators', async () => {
    assert.match((await run('tenants', 'create', tenant, '--name', 'Shop')).out, /^Made tenant shop-/);
    const again = await run('tenants', 'create', tenant);
    assert.deepEqual([again.code, again.out], [1, '']);
    assert.match(again.err, /exists/);
    await makeKey('boss', '--tenant', tenant);
    await makeKey('robot', '--tenant', tenant, '--role', 'agent', '--scopes', 'memory:read,runs:*');
    await makeKey('operator', '--role', 'system');
    assert.ok(keys.operator!.startsWith('mk_system_'));
  });

  it('warns of a role that may do nothing yet', async () => {
    await run('tenants', 'create', `${tenant}-2`);
    const said = await run('keys', 'create', '--name', 'x', '--tenant', `${tenant}-2`, '--role', 'agnt');
    assert.deepEqual([said.code, said.out.startsWith('mk_')], [0, true]);
    assert.match(
      said.err,
      /^Warning: agnt is no built-in role, and no policy of the tenant names it: .* Nearest: agent, .*\.\nKey /,
    );
  });

  it('says what it did, and no word of what it closed when it was done', async () => {
    // The second has nothing to do, and ends while it still makes its connections.
    for (const _ of ['first', 'second'])
      assert.deepEqual(await command({ ...env, LOG_LEVEL: 'info' }, 'migrate'), {
        code: 0,
        out: 'The schema is up to date.\n',
        err: '',
      });
  });

  it('refuses what is misused, with exit code 2 and one line', async () => {
    for (const [args, about] of [
      [['keys', 'create', '--name', ' ', '--tenant', tenant], /--name must not be blank/],
      [['keys', 'create', '--name', 'x'], /--tenant must be a tenant id/],
      [['keys', 'create', '--name', 'x', '--tenant', tenant, '--scopes', 'read,fly'], /--scopes: fly/],
      [['keys', 'create', '--name', 'x', '--tenant', tenant, '--role', 'system'], /leave --tenant out/],
      [['keys', 'create', '--name', 'x', '--tenant', 'system'], /for --role system alone/],
    ] as const) {
      const said = await run(...args);
      assert.deepEqual([said.code, said.out], [2, ''], args.join(' '));
      assert.match(said.err, about);
      assert.equal(said.err.trim().split('\n').length, 1);
    }
    const nobody = await run('keys', 'create', '--name', 'x', '--tenant', 'no-such-tenant');
    assert.equal(nobody.code, 1);
    assert.match(nobody.err, /make it with: manushya tenants create/);
    assert.equal((await run('tenants', 'deactivate', 'system')).code, 1);
  });

  it('lists keys and tenants, revokes and deactivates', async () => {
    const list = await run('keys', 'list', '--tenant', tenant);
    assert.deepEqual(list.out.trim().split('\n').map((line) => line.split('\t')), [
      [idOf(keys.robot!), 'active', 'never used', 'memory:read,runs:*', 'robot'],
      [idOf(keys.boss!), 'active', 'never used', '*', 'boss'],
    ]); // biome-ignore format: a table
    assert.ok(!list.out.includes('mk_'));
    assert.match((await run('keys', 'revoke', keys.robot!)).out, /^Revoked /);
    assert.match((await run('keys', 'list', '--tenant', tenant)).out, /\trevoked\t.*\trobot\n/);
    assert.match((await run('tenants', 'deactivate', tenant)).out, /is deactivated/);
    assert.match(
      (await run('tenants', 'list')).out,
      new RegExp(`^${tenant}\\t.*\\tShop\\tdeactivated$`, 'm'),
    );
  });

  it('makes one signing key at a time', async () => {
    // The first one of an installation signs at once; what is made after it waits.
    const form = /^(Made the key|A rotation is under way:) (\S+); it signs from \S+ on\.\n$/;
    assert.match((await run('keys', 'rotate-signing')).out, form);
    const second = await run('keys', 'rotate-signing');
    assert.match(second.out, form);
    const third = await run('keys', 'rotate-signing');
    assert.equal(third.out, second.out.replace('Made the key', 'A rotation is under way:'));
  });

  it('tells with doctor what is well and what is not', { timeout: 120_000 }, async () => {
    const lines = ({ out }: Said): Record<string, string> =>
      Object.fromEntries(out.split('\n').filter(Boolean).map((line) => {
        const [, state, name, about] = /^(ok|FAILED) +(\w+) +(.*)$/.exec(line)!;
        return [name, `${state} ${about}`];
      })); // biome-ignore format: short
    const well = await run('doctor');
    assert.equal(well.code, 0, well.out + well.err);
    const found = lines(well);
    assert.deepEqual(Object.keys(found), [
      'configuration',
      'database',
      'extension',
      'role',
      'migrations',
      'redis',
      'embeddings',
      'answers',
      'reranker',
      'speech',
      'mail',
    ]);
    assert.match(found.database!, env.DATABASE_URL ? /^ok PostgreSQL 1\d/ : /^ok embedded PostgreSQL 1\d/);
    assert.match(found.extension!, /^ok vector \d/);
    assert.match(found.role!, /^ok \w+_app$/);
    assert.match(found.migrations!, /^ok \d+ applied$/);
    assert.match(found.redis!, env.REDIS_URL ? /^ok \S+:\d+/ : /^ok none/);
    const chat = await startChatServer();
    try {
      chat.answerWith((say) => ['Yes, ', 'I ', 'am.'].forEach(say));
      const model = { LLM_PROVIDER: 'openai-compatible', LLM_BASE_URL: chat.url, LLM_MODEL: 'talker' };
      const asked = await command({ ...env, ...model, FETCH_ALLOW_HOSTS: '127.0.0.1' }, 'doctor');
      assert.equal(asked.code, 0, asked.out + asked.err);
      assert.match(lines(asked).answers!, /^ok .*talker/);
    } finally {
      await chat.close();
    }
    const nowhere = 'redis://127.0.0.1:1/0';
    const away = {
      ...env,
      REDIS_URL: nowhere,
      SMTP_URL: 'smtp://127.0.0.1:1',
      RERANK_BASE_URL: 'http://127.0.0.1:1',
      JWT_SECRET_KEY: 'hush',
      ...(env.DATABASE_URL ? { DATABASE_URL: 'postgres://nobody:hidden@127.0.0.1:1/none' } : {}),
    };
    const ill = await command(away, 'doctor');
    assert.equal(ill.code, 1, ill.out + ill.err);
    const failed = Object.entries(lines(ill)).flatMap(([name, about]) =>
      about.startsWith('FAILED') ? [name] : [],
    );
    const database = env.DATABASE_URL ? ['database'] : [];
    assert.deepEqual(failed, [...database, 'redis', 'reranker', 'mail']);
    assert.match(lines(ill).configuration!, /JWT_SECRET_KEY is not used/);
    assert.ok(!/hidden|hush/.test(ill.out + ill.err));
    const misread = await command({ ...env, PORT: 'harbour' }, 'doctor');
    assert.equal(misread.code, 1);
    assert.match(misread.out, /^FAILED +configuration +PORT must be a whole number.*\n$/);
  });

  it('and the server does as it was told', async () => {
    server = await startServer({ DATA_DIR: env.DATA_DIR! }, { serve: true, work: false });
    const status = async (token: string, method = 'GET', url = '/v1/identity/me', body?: object) =>
      (await callServer(server!, method, url, { token, ...(body ? { body } : {}) })).status;
    assert.equal(await status(keys.robot!), 401);
    assert.equal(await status(keys.boss!), 401);
    const url = `/v1/admin/tenants/${tenant}`;
    assert.equal(await status(keys.operator!, 'PATCH', url, { is_active: true }), 200);
    assert.equal(await status(keys.boss!), 200);
    assert.equal(await status(keys.robot!), 401);
    const { body } = await callServer(server, 'GET', '/.well-known/jwks.json');
    assert.ok(body.keys.length >= 2, 'the new signing key is published');
  });
});
