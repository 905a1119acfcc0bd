import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { rotateSigningKey } from '#modules/access/sessions/service.ts';
import { command } from '#test/command.ts';
import { createVictim, freePort, type Victim } from '#test/crash/processes.ts';
import {
  type Caller,
  callServer,
  emptyDatabase,
  engine,
  environmentOf,
  eventually,
  newKey,
  newMember,
  newOperator,
  newSession,
  newTenant,
  startServer,
} from '#test/harness.ts';
import { createProxy } from '#test/proxy.ts';
import type { Running } from '../src/app.ts';

// What is revoked by one process is refused by the others. It takes processes of their own over one database.

const apart = engine === 'postgres' && process.env.REDIS_URL !== undefined;
const describeApart: typeof describe = apart ? describe : ((() => {}) as unknown as typeof describe);

/** Another server process over the same database. */
interface Other {
  victim: Victim;
  url: string;
  status: (token: string) => Promise<number>;
}

async function startOther(overrides: Record<string, string> = {}): Promise<Other> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = environmentOf({ PORT: String(port), ...overrides });
  const victim = createVictim('other', ['serve', '--no-worker'], env, () =>
    fetch(`${url}/healthz`).then(
      ({ ok }) => ok,
      () => false,
    ),
  );
  victim.start();
  await victim.ready();
  const status = async (token: string) => {
    const reply = await fetch(`${url}/v1/sessions/?limit=1`, {
      headers: { authorization: `Bearer ${token}` },
    });
    await reply.arrayBuffer();
    return reply.status;
  };
  return { victim, url, status };
}

/**
 * Asks the other process without a pause while something is revoked, and fails when it answers anything but a refusal to
 * a request that was sent later than so long after the revocation had its answer.
 */
async function assertObeys(other: Other, token: string, revoke: () => Promise<unknown>, withinMs: number) {
  assert.equal(await other.status(token), 200);
  const answers: { at: number; status: number }[] = [];
  let going = true;
  const ask = async () => {
    while (going) {
      const at = performance.now();
      answers.push({ at, status: await other.status(token) });
    }
  };
  const asking = Promise.all([ask(), ask(), ask()]);
  await sleep(30);
  await revoke();
  const revokedAt = performance.now();
  const lateOnes = () => answers.filter(({ at }) => at > revokedAt + withinMs);
  await eventually('requests after it', async () => lateOnes().length > 10);
  going = false;
  await asking;
  const late = lateOnes();
  assert.deepEqual(
    late.filter(({ status }) => status !== 401),
    [],
    `${answers.length} requests, the last one accepted ${Math.round(Math.max(...answers.filter(({ status }) => status === 200).map(({ at }) => at)) - revokedAt)} ms after the answer`,
  );
}

describeApart('two processes', () => {
  let here: Running;

  before(async () => {
    await emptyDatabase(process.env.DATABASE_URL!);
  });
  after(() => here.stop());

  it('that start at once on an empty database sign with one key', async () => {
    const [one, two] = await Promise.all([startServer(), startServer({}, { serve: true, work: false })]);
    here = one;
    const [ann, bob] = [await newTenant('user', one), await newTenant('user', two)];
    const kids = [ann, bob].map(({ token }) =>
      JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()),
    );
    assert.deepEqual(kids[0], kids[1]);
    const crossed = [
      callServer(one, 'GET', '/v1/identity/me', bob),
      callServer(two, 'GET', '/v1/identity/me', ann),
    ];
    assert.deepEqual((await Promise.all(crossed)).map(({ status }) => status), [200, 200]); // biome-ignore format: short
    const rotations = await Promise.all([one, two, one, two].map(({ app }) => rotateSigningKey(app)));
    assert.equal(rotations.filter(({ made }) => made).length, 1);
    assert.equal(new Set(rotations.map(({ kid }) => kid)).size, 1);
    await two.stop();
  });

  /** Each way to take a credential away, by the process here. */
  const ways: Record<string, (admin: Caller) => Promise<{ token: string; revoke: () => Promise<unknown> }>> =
    {
      'a session that is ended': async (admin) => {
        const { id, access_token } = await newSession(admin, here);
        return { token: access_token, revoke: () => admin.call('DELETE', `/v1/sessions/${id}`) };
      },
      'all sessions of an identity': async (admin) => {
        const user = await newMember(admin, 'user', here);
        return {
          token: user.token,
          revoke: () => admin.call('DELETE', `/v1/sessions/?identity_id=${user.id}`),
        };
      },
      'a key that is revoked': async (admin) => {
        const { token, keyId } = await newKey(admin, { server: here });
        return { token, revoke: () => admin.call('DELETE', `/v1/api-keys/${keyId}`) };
      },
      'a key whose secret is replaced': async (admin) => {
        const { token, keyId } = await newKey(admin, { server: here });
        return {
          token,
          revoke: () => admin.call('POST', `/v1/api-keys/${keyId}/rotate`, { overlap_seconds: 0 }),
        };
      },
      'a session whose refresh token is replayed': async (admin) => {
        const { access_token, refresh_token } = await newSession(admin, here);
        const refresh = async (token: string): Promise<string> => {
          const body = { refresh_token: token };
          return (await callServer(here, 'POST', '/v1/sessions/refresh', { body })).body.refresh_token;
        };
        await refresh(await refresh(refresh_token));
        return { token: access_token, revoke: () => refresh(refresh_token) };
      },
      'an identity that is deactivated': async (admin) => {
        const user = await newMember(admin, 'user', here);
        const { token } = await newKey(user, { server: here });
        const revoke = () => admin.call('PUT', `/v1/identity/${user.id}`, { is_active: false });
        return { token, revoke };
      },
      'an identity that is removed': async (admin) => {
        const user = await newMember(admin, 'user', here);
        return {
          token: user.token,
          revoke: () => admin.call('DELETE', `/v1/identity/${user.id}?hard_delete=true`),
        };
      },
      'an agent that is deactivated while it acts for somebody': async (admin) => {
        const agent = await newMember(admin, 'agent', here);
        const given = await admin.call('POST', `/v1/identity/${agent.id}/delegate`);
        const revoke = () => admin.call('PUT', `/v1/identity/${agent.id}`, { is_active: false });
        return { token: given.body.access_token, revoke };
      },
      'a tenant that is deactivated': async (admin) => {
        const operator = await newOperator(here);
        return {
          token: admin.token,
          revoke: () => operator.call('PATCH', `/v1/admin/tenants/${admin.tenant}`, { is_active: false }),
        };
      },
    };

  describe('with one Redis', () => {
    let other: Other;
    before(async () => {
      other = await startOther();
    });
    after(() => other.victim.stop());

    for (const [what, prepare] of Object.entries(ways)) {
      it(`${what}: the other one obeys within 100 ms`, async () => {
        const { token, revoke } = await prepare(await newTenant('admin', here));
        await assertObeys(other, token, revoke, 100);
      });
    }

    it('a command that ends right after it: they obey within 100 ms', async () => {
      const env = environmentOf({ REDIS_URL: process.env.REDIS_URL! });
      const admin = await newTenant('admin', here);
      const { token, keyId } = await newKey(admin, { server: here });
      const revoked = () => command(env, 'keys', 'revoke', keyId);
      await assertObeys(other, token, revoked, 100);
      const deactivated = () => command(env, 'tenants', 'deactivate', admin.tenant);
      await assertObeys(other, admin.token, deactivated, 100);
      assert.equal((await command(env, 'tenants', 'activate', admin.tenant)).code, 0);
      await sleep(100);
      assert.equal(await other.status(admin.token), 200);
    });

    it('one refresh token at both at once is spent once', async () => {
      const admin = await newTenant('admin', here);
      const { id, refresh_token } = await newSession(admin, here);
      const body = { refresh_token };
      const there = async () => {
        const reply = await fetch(`${other.url}/v1/sessions/refresh`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body),
        });
        return (await reply.json()) as { refresh_token: string };
      };
      const replies = await Promise.all(
        Array.from({ length: 50 }, async (_, i) =>
          i % 2 ? there() : (await callServer(here, 'POST', '/v1/sessions/refresh', { body })).body,
        ),
      );
      assert.equal(new Set(replies.map((reply) => reply.refresh_token)).size, 1);
      assert.match(replies[0].refresh_token, /^rt_/);
      const { rows } = await here.app.database.operatorPool.query(
        `select count(*)::int as refreshed from facts where resource_id = $1 and type = 'session.refreshed'`,
        [id],
      );
      assert.deepEqual(rows, [{ refreshed: 1 }]);
    });

    it('signing keys that are trusted no more: access tokens end, sessions do not', async () => {
      const admin = await newTenant('admin', here);
      const session = await newSession(admin, here);
      const leaked = () => rotateSigningKey(here.app, { compromised: true });
      await assertObeys(other, session.access_token, leaked, 100);
      const { body } = await callServer(here, 'POST', '/v1/sessions/refresh', {
        body: { refresh_token: session.refresh_token },
      });
      assert.equal(await other.status(body.access_token), 200);
      const { rows } = await here.app.database.operatorPool.query(
        'select count(*)::int as keys from signing_keys where retired_at is null and private_jwk is not null',
      );
      assert.deepEqual(rows, [{ keys: 1 }]);
    });

    it('a process killed between a refresh and its answer locks nobody out', async () => {
      const admin = await newTenant('admin', here);
      const killed = await startOther();
      try {
        for (let i = 0; i < 3; i++) {
          if (i > 0) {
            killed.victim.start();
            await killed.victim.ready();
          }
          const { refresh_token } = await newSession(admin, here);
          const body = JSON.stringify({ refresh_token });
          const headers = { 'content-type': 'application/json' };
          const lost = fetch(`${killed.url}/v1/sessions/refresh`, { method: 'POST', headers, body }).then(
            (reply) => reply.json() as Promise<{ refresh_token: string }>,
            () => undefined,
          );
          await sleep(i * 4);
          await killed.victim.kill();
          const answered = await lost;
          const again = await callServer(here, 'POST', '/v1/sessions/refresh', { body: { refresh_token } });
          assert.equal(again.status, 200, `killed after ${i * 4} ms`);
          if (answered) assert.equal(again.body.refresh_token, answered.refresh_token);
          assert.equal(await other.status(again.body.access_token), 200);
        }
      } finally {
        await killed.victim.kill();
      }
    });

    it('when Redis is gone for the one that revokes, the other learns of it when it is back', async () => {
      const proxy = await createProxy(process.env.REDIS_URL!);
      const alone = await startServer({ REDIS_URL: proxy.url }, { serve: true, work: false });
      try {
        const admin = await newTenant('admin', alone);
        const { token, keyId } = await newKey(admin, { server: alone });
        assert.equal(await other.status(token), 200);
        await proxy.cut();
        assert.equal((await admin.call('DELETE', `/v1/api-keys/${keyId}`)).status, 204);
        assert.equal((await callServer(alone, 'GET', '/v1/sessions/', { token })).status, 401);
        await proxy.restore();
        await eventually('the word to come', async () => (await other.status(token)) === 401, 5_000);
      } finally {
        await alone.stop();
        await proxy.close();
      }
    });
  });

  describe('without Redis', () => {
    let other: Other;
    before(async () => {
      other = await startOther({ REDIS_URL: '' });
    });
    after(() => other.victim.stop());

    for (const what of ['a session that is ended', 'a key that is revoked', 'a tenant that is deactivated']) {
      it(`${what}: the other one obeys within two seconds`, async () => {
        const { token, revoke } = await ways[what]!(await newTenant('admin', here));
        await assertObeys(other, token, revoke, 2_000);
      });
    }

    it('signing keys that are trusted no more: the other one obeys within two seconds', async () => {
      const session = await newSession(await newTenant('admin', here), here);
      const leaked = () => rotateSigningKey(here.app, { compromised: true });
      await assertObeys(other, session.access_token, leaked, 2_000);
    });
  });

  it('when Redis is silent or gone for one of them, it obeys within two seconds', async () => {
    const proxy = await createProxy(process.env.REDIS_URL!);
    const other = await startOther({ REDIS_URL: proxy.url });
    try {
      for (const take of [async () => proxy.freeze(), proxy.cut]) {
        const { token, revoke } = await ways['a key that is revoked']!(await newTenant('admin', here));
        await assertObeys(
          other,
          token,
          async () => {
            await take();
            await revoke();
          },
          2_000,
        );
        await proxy.restore();
        await sleep(2_000);
      }
    } finally {
      await other.victim.stop();
      await proxy.close();
    }
  });
});
