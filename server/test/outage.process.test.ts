import assert from 'node:assert/strict';
import dns from 'node:dns';
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { Writable } from 'node:stream';
import { after, afterEach, before, describe, it, mock } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { withoutTimeLimit } from '#platform/db/open.ts';
import { sql } from '#platform/db/sql.ts';
import { isDatabaseUnavailable } from '#platform/errors.ts';
import { uuidv7 } from '#platform/ids.ts';
import { createLog } from '#platform/log.ts';
import {
  type Caller,
  callServer,
  engine,
  eventually,
  newKey,
  newTenant,
  type Reply,
  startServer,
} from '#test/harness.ts';
import { createProxy, type Outage } from '#test/proxy.ts';
import type { Running } from '../src/app.ts';

// The database or Redis goes away under a working server and comes back. It needs both as processes of their own.

const apart = engine === 'postgres' && process.env.REDIS_URL !== undefined;
/** On the embedded engine there is nothing apart that could go away. */
const describeApart: typeof describe = apart ? describe : ((() => {}) as unknown as typeof describe);
const recoversWithinMs = 5_000;

const note = (text: string) => ({ text, type: 'note' });

function assertUnavailable(reply: Reply, code: string, about = ''): void {
  assert.equal(reply.status, 503, `${about} ${reply.status} ${reply.text}`);
  assert.equal(reply.body.error.code, code, about);
  assert.ok(Number(reply.headers['retry-after']) >= 1, about);
  assert.doesNotMatch(reply.text, /ECONN|127\.0\.0\.1|postgres|redis:|socket|terminated/i, about);
}

describe('a shutdown', () => {
  let server: Running;
  before(async () => {
    // As on a machine where the name has two addresses.
    const addresses = ['127.0.0.1', '127.0.0.2'].map((address) => ({ address, family: 4 }));
    const usual = dns.lookup as (...args: unknown[]) => void;
    const { mock: lookup } = mock.method(dns, 'lookup', ((host: string, options: unknown, done: any) =>
      host === 'localhost' && (options as { all?: boolean }).all
        ? done(null, addresses)
        : usual(host, options, done)) as typeof dns.lookup);
    server = await startServer({ HOST: 'localhost' }).finally(() => lookup.restore());
  });
  after(() => server.stop());

  it('has one listener to close, also for a name of two addresses', () => {
    assert.deepEqual(
      server.server!.addresses().map((bound) => (bound as AddressInfo).address),
      ['127.0.0.1'],
    );
  });

  it('is not held up by a request whose body never comes', { timeout: 60_000 }, async () => {
    const { port } = server.server!.server.address() as AddressInfo;
    const socket = connect(port, '127.0.0.1');
    const cut = once(socket, 'close');
    socket.on('error', () => {});
    // Who does not read is not told of an end.
    socket.resume();
    socket.write(
      'POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"a"',
    );
    const connections = () =>
      new Promise<number>((resolve) =>
        server.server!.server.getConnections((_error, count) => resolve(count)),
      );
    await eventually('the request to arrive', async () => (await connections()) > 0);
    await server.stop();
    await cut;
    await assert.rejects(server.app.database.operator.rows(sql`select 1`), 'the rest was closed too');
  });
});

describeApart('the database goes away', () => {
  let proxy: Outage;
  let server: Running;
  let ann: Caller;
  const health = async () => (await callServer(server, 'GET', '/healthz')).body;

  before(async () => {
    proxy = await createProxy(process.env.DATABASE_URL!);
    server = await startServer({ DATABASE_URL: proxy.url });
    ann = await newTenant('admin', server);
  });
  after(async () => {
    await proxy.restore();
    await server.stop();
    await proxy.close();
  });
  afterEach(() => proxy.restore());

  const recovered = () =>
    eventually(
      'the server to recover by itself',
      async () =>
        (await ann.call('GET', '/v1/memory/')).status === 200 &&
        (await ann.call('POST', '/v1/memory/', note('back'))).status === 201,
      recoversWithinMs,
    );

  it('refuses with 503 and Retry-After, says so in /healthz, and recovers by itself', async () => {
    const { body: memory } = await ann.call('POST', '/v1/memory/', note('before the outage'));
    const unseen = await newKey(ann, { server });
    await proxy.cut();
    for (const [method, path, body] of [
      ['GET', '/v1/memory/'],
      ['GET', `/v1/memory/${memory.id}`],
      ['POST', '/v1/memory/', note('lost')],
      ['POST', '/v1/memory/search', { query: 'outage' }],
      ['PUT', `/v1/memory/${memory.id}`, { text: 'lost' }],
      ['DELETE', `/v1/memory/${memory.id}`],
    ] as const) {
      assertUnavailable(await ann.call(method, path, body), 'DATABASE_UNAVAILABLE', `${method} ${path}`);
      assertUnavailable(
        await ann.call(method, path, body, { 'idempotency-key': uuidv7() }),
        'DATABASE_UNAVAILABLE',
        `${method} ${path} with a key`,
      );
    }
    // A credential that can not be looked up is not a wrong one.
    assertUnavailable(
      await unseen.call('GET', '/v1/memory/'),
      'DATABASE_UNAVAILABLE',
      'a key not seen before',
    );
    const signUp = await callServer(server, 'POST', '/v1/identity/', {
      body: { external_id: 'x', role: 'user' },
    });
    assertUnavailable(signUp, 'DATABASE_UNAVAILABLE', 'a sign-up');
    assert.deepEqual(await health(), { database: false, redis: true, status: 'degraded' });
    const { body } = await callServer(server, 'GET', '/v1/health');
    assert.equal(body.data.status, 'degraded');
    assert.equal((await callServer(server, 'GET', '/metrics')).status, 200);
    assert.equal((await callServer(server, 'GET', '/v1/nothing')).status, 404);

    await proxy.restore();
    await recovered();
    assert.deepEqual(await health(), { database: true, redis: true, status: 'ok' });
    assert.equal((await unseen.call('GET', `/v1/memory/${memory.id}`)).body.text, 'before the outage');
  });

  it('is told of once and then every ten seconds, however often something is asked of it', async () => {
    const lines: any[] = [];
    const { app } = server;
    const usual = app.log;
    const sink = new Writable({
      write: (chunk, _encoding, done) => {
        lines.push(JSON.parse(String(chunk)));
        done();
      },
    });
    const since = performance.now();
    app.log = createLog('info', sink);
    try {
      await proxy.cut();
      // Each has the relay look again.
      for (let i = 0; i < 40; i++)
        assertUnavailable(await ann.call('POST', '/v1/memory/', note('lost')), 'DATABASE_UNAVAILABLE');
      const relayed = 'facts could not be relayed yet';
      await eventually('the relay to tell of it', async () => lines.some(({ msg }) => msg === relayed));
      const told = Map.groupBy(lines, ({ msg, err }) => `${msg}: ${err?.message}`);
      const most = 1 + Math.floor((performance.now() - since) / 10_000);
      for (const [what, { length }] of told) assert.ok(length <= most, `${what}: ${length} times`);
      assert.ok(lines.some(({ msg }) => msg === 'DATABASE_UNAVAILABLE'));
    } finally {
      app.log = usual;
    }
  });

  it('does the background work that waited, once it is back', async () => {
    await ann.call('POST', '/v1/memory/', note('waits for its vector'));
    await proxy.cut();
    await sleep(1_200);
    await proxy.restore();
    await recovered();
    await eventually('the vectors', async () =>
      (await ann.call('GET', '/v1/memory/')).body.every(
        (one: { embedding_status: string }) => one.embedding_status === 'ready',
      ),
    );
  });

  it('keeps every write it promised, and answers each of the others with 503', async () => {
    const writer = await newTenant('admin', server);
    let going = true;
    const replies: Reply[] = [];
    const write = async (name: number) => {
      for (let i = 0; going; i++) {
        replies.push(await writer.call('POST', '/v1/memory/', note(`writer ${name} number ${i}`)));
        await sleep(1);
      }
    };
    const writers = [0, 1, 2, 3].map(write);
    for (let i = 0; i < 3; i++) {
      await sleep(150);
      proxy.reset();
    }
    await sleep(100);
    await proxy.cut();
    await sleep(100);
    await proxy.restore();
    await eventually('writes to pass again', async () => replies.at(-1)?.status === 201, recoversWithinMs);
    going = false;
    await Promise.all(writers);
    const statuses = new Set(replies.map(({ status }) => status));
    assert.deepEqual([...statuses].sort(), [201, 503]);
    for (const reply of replies.filter(({ status }) => status === 503))
      assertUnavailable(reply, 'DATABASE_UNAVAILABLE');
    const stored = new Set<string>();
    let cursor = '';
    do {
      const page = await writer.call('GET', `/v1/memory/?limit=1000${cursor && `&cursor=${cursor}`}`);
      assert.equal(page.status, 200, page.text);
      for (const { id } of page.body) stored.add(id);
      cursor = encodeURIComponent(String(page.headers['x-next-cursor'] ?? ''));
    } while (cursor);
    const promised = replies.filter(({ status }) => status === 201).map(({ body }) => body.id);
    assert.deepEqual(
      promised.filter((id) => !stored.has(id)),
      [],
    );
    assert.ok(promised.length > 0);
  });

  it('a repeated request with its Idempotency-Key is done once, whatever was lost on the way', async () => {
    const writer = await newTenant('admin', server);
    const headers = { 'idempotency-key': uuidv7() };
    const attempts = Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        await sleep(i * 10);
        return writer.call('POST', '/v1/memory/', note('once'), headers);
      }),
    );
    await sleep(60);
    proxy.reset();
    await sleep(120);
    proxy.reset();
    for (const reply of await attempts)
      assert.ok([201, 409, 503].includes(reply.status), `${reply.status} ${reply.text}`);
    const { body } = await writer.call('GET', '/v1/memory/');
    assert.ok(body.length <= 1, `${body.length} memories`);
  });

  it('a database that is there and silent does not silence /healthz, nor those who wait for it', {
    timeout: 90_000,
  }, async () => {
    await ann.call('GET', '/v1/memory/');
    const { operator, operatorPool } = server.app.database;
    proxy.freeze();
    const since = performance.now();
    const background = Promise.all(
      [operator.run(sql`select 1`), operatorPool.query('select 1')].map((work) =>
        assert.rejects(work, isDatabaseUnavailable),
      ),
    );
    const waiting = Promise.all([
      ann.call('GET', '/v1/memory/'),
      ann.call('GET', '/v1/corpora/c1'),
      ann.call('POST', '/v1/memory/', note('said into the silence')),
    ]);
    assert.equal((await health()).database, false);
    for (const reply of await waiting) assertUnavailable(reply, 'DATABASE_UNAVAILABLE');
    await background;
    assert.ok(performance.now() - since < 45_000, 'the operator gives it up as soon as a tenant');
    await proxy.restore();
    await recovered();
  });

  it('what takes long is not taken for a silent database: maintenance, and a connection that is held for a lock', {
    timeout: 90_000,
  }, async () => {
    const { operatorPool } = server.app.database;
    const [busy, holder] = [await operatorPool.connect(), await operatorPool.connect()];
    await holder.query('select pg_advisory_lock(42)');
    await withoutTimeLimit(busy, () => busy.query('select pg_sleep(37)'));
    const { rows } = await holder.query('select pg_advisory_unlock(42) as held');
    assert.deepEqual(rows, [{ held: true }]);
    assert.deepEqual((await busy.query('show statement_timeout')).rows, [{ statement_timeout: '30s' }]);
    for (const client of [busy, holder]) client.release();
  });
});

describeApart('Redis goes away', () => {
  for (const mode of ['open', 'closed'] as const) {
    describe(`with RL_FAIL_MODE=${mode}`, () => {
      let proxy: Outage;
      let server: Running;
      let ann: Caller;
      before(async () => {
        proxy = await createProxy(process.env.REDIS_URL!);
        server = await startServer(
          {
            REDIS_URL: proxy.url,
            RL_FAIL_MODE: mode,
            RATE_LIMIT_ENABLED: 'true',
            DEFAULT_PLAN: 'enterprise',
          },
          { serve: true, work: false },
        );
        await eventually('the limiter', async () => (await callServer(server, 'GET', '/healthz')).body.redis);
        ann = await newTenant('admin', server);
      });
      after(async () => {
        await proxy.restore();
        await server.stop();
        await proxy.close();
      });

      it(mode === 'open' ? 'requests pass and say so' : 'requests are refused with 503', async () => {
        const list = () => ann.call('GET', '/v1/memory/');
        const before = await list();
        assert.equal(before.headers['x-ratelimit-status'], undefined);
        assert.ok(Number(before.headers['x-ratelimit-limit']) > 0);
        for (const take of [proxy.cut, async () => proxy.freeze()]) {
          await take();
          const during = await Promise.all(Array.from({ length: 10 }, list));
          for (const reply of during) {
            if (mode === 'open') {
              assert.equal(reply.status, 200);
              assert.equal(reply.headers['x-ratelimit-status'], 'degraded');
            } else assertUnavailable(reply, 'RATE_LIMIT_UNAVAILABLE');
          }
          // What hands out credentials fails closed in either mode.
          const signUp = await callServer(server, 'POST', '/v1/identity/', {
            body: { external_id: uuidv7(), role: 'user' },
          });
          assertUnavailable(signUp, 'RATE_LIMIT_UNAVAILABLE', 'a sign-up');
          for (const [method, path] of [
            ['GET', '/v1/admin/rate-limits'],
            ['DELETE', '/v1/admin/rate-limits'],
            ['GET', '/v1/monitoring/rate-limits'],
          ] as const)
            assertUnavailable(await ann.call(method, path), 'RATE_LIMIT_UNAVAILABLE', `${method} ${path}`);
          const { body } = await callServer(server, 'GET', '/healthz');
          assert.deepEqual(body, { database: true, redis: false, status: 'degraded' });
          const { text } = await callServer(server, 'GET', '/metrics');
          assert.match(text, /^dependency_up\{dependency="redis"\} 0$/m);
          // By now it is known: nobody waits for an answer any more, though Redis still takes connections.
          const slowest = await Promise.all(
            Array.from({ length: 4 }, async (_, i) => {
              await sleep(i * 700);
              const since = performance.now();
              await list();
              return performance.now() - since;
            }),
          );
          assert.ok(Math.max(...slowest) < 900, `${slowest}`);
          await proxy.restore();
          await eventually(
            'the limits to be back',
            async () => {
              const { status, headers } = await list();
              return (
                status === 200 &&
                headers['x-ratelimit-status'] === undefined &&
                Number(headers['x-ratelimit-limit']) > 0
              );
            },
            recoversWithinMs,
          );
          assert.equal((await callServer(server, 'GET', '/healthz')).body.status, 'ok');
        }
      });

      it('a revoked key is refused all the same within two seconds', async () => {
        const key = await newKey(ann, { server });
        await eventually(
          'the key to work',
          async () => (await key.call('GET', '/v1/memory/')).status === 200,
        );
        await proxy.cut();
        // Another process revokes: this one gets no word of it.
        await server.app.database
          .tenant(key.tenant)
          .run(
            (await import('#modules/access/api-keys/store.ts')).revokeApiKeyRow(
              key.tenant,
              key.keyId,
              new Date(),
            ),
          );
        await eventually(
          'the key to be refused',
          async () => (await key.call('GET', '/v1/memory/')).status === 401,
          2_500,
        );
        await proxy.restore();
      });
    });
  }
});
