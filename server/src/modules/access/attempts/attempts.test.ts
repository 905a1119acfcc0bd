import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { networkOf } from '#platform/http/network.ts';
import { callServer, eventually, newTenant, type Reply, startServer, useTestServer } from '#test/harness.ts';
import {
  codeOf,
  enableMfa,
  factsOf,
  newPerson,
  type Person,
  resetTokenOf,
  signIn,
  steadyClock,
  wrongCode,
} from '#test/people.ts';
import type { Running } from '../../../app.ts';
import { workResetRequests } from '../passwords/reset.ts';

useTestServer();

let server: Running;

let addresses = 0;
const newAddress = () => `192.0.2.${++addresses}`;
const wrong = (person: Person): Person => ({ ...person, password: 'not the right password' });
/** As if everybody had waited as long as they were told to. */
const waited = () => server.app.database.operator.run(sql`update attempts set blocked_until = 0`);
/** Makes the waits that began long, however slow the machine that runs the test. */
const held = () =>
  server.app.database.operator.run(
    sql`update attempts set blocked_until = blocked_until + 3600000 where blocked_until > 0`,
  );
/** Seconds of the wait that began last. */
const lastWait = async (): Promise<number> => {
  const row = await server.app.database.operator.one(
    sql<{ ms: number }>`
      select blocked_until - last_at as ms from attempts where blocked_until > 0 order by last_at desc limit 1`,
  );
  return row!.ms / 1000;
};
const retryAfter = ({ headers }: Reply) => Number(headers['retry-after']);

describe('guessing', () => {
  before(async () => {
    server = await startServer({
      LOGIN_FREE_FAILURES: '5',
      TRUST_PROXY: '1',
      RATE_LIMIT_ENABLED: 'true',
    });
  });
  after(() => server.stop());

  describe('guessing at a name', () => {
    it('has to wait after five failures, twice as long each time, and never longer than a quarter of an hour', async () => {
      const ann = await newPerson({ server });
      for (let i = 0; i < 5; i++) assert.equal((await signIn(wrong(ann), newAddress())).status, 401);
      const waits: number[] = [];
      for (let i = 0; i < 13; i++) {
        waits.push(await lastWait());
        await held();
        const refused = await signIn(wrong(ann), newAddress());
        assert.equal(refused.status, 429);
        assert.equal(refused.body.error.code, 'TOO_MANY_ATTEMPTS');
        const ms = refused.body.error.details.retry_after_ms;
        const seconds = Math.ceil(ms / 1000);
        assert.equal(retryAfter(refused), seconds);
        const told = refused.headers;
        assert.deepEqual(
          [
            told['x-ratelimit-limit'],
            told['x-ratelimit-remaining'],
            told['ratelimit-policy'],
            told.ratelimit,
          ],
          ['5', '0', '"attempts";q=5', `"attempts";r=0;t=${seconds}`],
        );
        assert.ok(Number(told['x-ratelimit-reset']) > Date.now() / 1000);
        await waited();
        assert.equal((await signIn(wrong(ann), newAddress())).status, 401);
      }
      assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
      // The right password ends it.
      await waited();
      assert.equal((await signIn(ann, newAddress())).status, 200);
      for (let i = 0; i < 5; i++) assert.equal((await signIn(wrong(ann), newAddress())).status, 401);
      const locked = await eventually('the fact', async () =>
        (await factsOf(ann)).find(({ type }) => type === 'auth.locked'),
      );
      assert.match(locked.text, /"failures": ?5/);
    });

    it('does not show whether anybody has it', async () => {
      const ann = await newPerson({ server });
      const nobody = { ...wrong(ann), username: `${ann.username}-nobody` };
      const course = async (person: Person, tenant?: string) => {
        const statuses: unknown[] = [];
        for (let i = 0; i < 7; i++) {
          const { tenant: _, ...one } = person;
          const reply = await signIn(tenant ? { ...one, tenant } : (one as Person), newAddress());
          if (i === 4) await held();
          statuses.push([reply.status, reply.body.error.message, Math.ceil(retryAfter(reply) / 100)]);
        }
        return statuses;
      };
      const known = await course(wrong(ann));
      assert.deepEqual(
        known.slice(4).map((one) => (one as number[])[0]),
        [401, 429, 429],
      );
      assert.deepEqual(await course(nobody), known);
      // What was counted without a tenant does not tell in which one the name is.
      assert.deepEqual(await course(wrong(ann), ann.tenant), known);
      assert.deepEqual(await course(wrong(ann), 'another-tenant'), known);
    });

    it('lets no more through when many guess at the same moment', async () => {
      const ann = await newPerson({ server });
      const replies = await Promise.all(Array.from({ length: 20 }, () => signIn(wrong(ann), newAddress())));
      assert.equal(replies.filter(({ status }) => status === 401).length, 5);
      assert.equal(replies.filter(({ status }) => status === 429).length, 15);
    });

    it('does not keep the owner out who signed in from there before, and the owner does not help whoever guesses', async () => {
      const ann = await newPerson({ server });
      const home = newAddress();
      assert.equal((await signIn(ann, home)).status, 200);
      for (let i = 0; i < 5; i++) await signIn(wrong(ann), newAddress());
      await held();
      assert.equal((await signIn(ann, newAddress())).status, 429, 'from elsewhere she waits as well');
      assert.equal((await signIn(ann, home)).status, 200);
      assert.equal((await signIn(wrong(ann), newAddress())).status, 429, 'they still wait');
      // Somebody at her address is counted as well, by itself.
      for (let i = 0; i < 5; i++) assert.equal((await signIn(wrong(ann), home)).status, 401);
      await held();
      assert.equal((await signIn(ann, home)).status, 429);
    });

    it('is not charged while it has to wait, so that no wait grows by asking', async () => {
      const ann = await newPerson({ server });
      for (let i = 0; i < 5; i++) await signIn(wrong(ann), newAddress());
      await held();
      for (let i = 0; i < 20; i++) assert.ok(retryAfter(await signIn(wrong(ann), newAddress())) <= 3_601);
      const again = await signIn(wrong(ann), newAddress());
      assert.ok(retryAfter(again) > 3_000);
      await waited();
      assert.equal((await signIn(wrong(ann), newAddress())).status, 401);
      assert.equal(await lastWait(), 2, 'the sixth failure, not the thirtieth');
    });

    it('does not show from which address its owner signed in', async () => {
      const ann = await newPerson({ server });
      const nobody = { ...wrong(ann), username: `${ann.username}-nobody` };
      const home = newAddress();
      await signIn(ann, home);
      for (const person of [wrong(ann), nobody]) {
        for (let i = 0; i < 5; i++) assert.equal((await signIn(person, home)).status, 401);
        await held();
        for (const address of [home, newAddress()]) assert.equal((await signIn(person, address)).status, 429);
      }
      assert.equal((await signIn(ann, home)).status, 429);
    });
  });

  describe('guessing from an address', () => {
    it('has to wait after fifty failures, whatever the names, and keeps no others waiting', async () => {
      const address = newAddress();
      const ann = await newPerson({ server });
      const bob = await newPerson({ server });
      assert.equal((await signIn(bob, address)).status, 200);
      for (let i = 0; i < 50; i++)
        assert.equal(
          (await signIn({ ...wrong(ann), username: `spray-${i}` }, address)).status,
          401,
          String(i),
        );
      await held();
      const refused = await signIn(ann, address);
      assert.equal(refused.status, 429);
      assert.equal(refused.body.error.code, 'TOO_MANY_ATTEMPTS');
      assert.equal((await signIn(ann, newAddress())).status, 200);
      assert.equal((await signIn(bob, address)).status, 200, 'who signed in from there before goes on');
      // Names are not charged for what an address that waits would have tried.
      for (let i = 0; i < 10; i++) await signIn(wrong(ann), address);
      assert.equal((await signIn(ann, newAddress())).status, 200);
      await waited();
      let longest = 0;
      for (let i = 0; i < 8; i++) {
        assert.equal((await signIn({ ...wrong(ann), username: `spray-on-${i}` }, address)).status, 401);
        longest = await lastWait();
        await waited();
      }
      assert.equal(longest, 60, 'at most a minute');
    });

    it('counts the /64 of IPv6, and an IPv4 address in whatever form', () => {
      const of = networkOf;
      assert.equal(of('2001:db8:1:2::1'), of('2001:0db8:0001:0002:ffff:1:2:3'));
      assert.notEqual(of('2001:db8:1:2::1'), of('2001:db8:1:3::1'));
      assert.equal(of('::1'), of('0:0:0:0:0:0:0:2'));
      assert.equal(of('fe80::1%eth0'), of('fe80::2'));
      assert.equal(of('::ffff:192.0.2.1'), of('192.0.2.1'));
      assert.notEqual(of('192.0.2.1'), of('192.0.2.2'));
    });
  });

  describe('guessing at what only its owner reaches', () => {
    const challenge = (body: object) => callServer(server, 'POST', '/v1/auth/mfa/challenge', { body });
    const forgotten = () =>
      server.app.database.operator.run(sql`delete from attempts where trusted_until = 0`);

    it('is counted over all sign-ins that wait for the second factor, whoever knows the password', async () => {
      await forgotten();
      const ann = await newPerson({ server });
      const { secret } = await enableMfa(ann);
      const awaited = async () => (await signIn(ann, newAddress())).body.mfa_token;
      for (let i = 0; i < 5; i++)
        assert.equal((await challenge({ mfa_token: await awaited(), code: wrongCode(secret) })).status, 401);
      const mfa_token = await awaited();
      await held();
      const refused = await challenge({ mfa_token, code: codeOf(secret) });
      assert.equal(refused.status, 429);
      assert.ok(retryAfter(refused) > 3_000);
      await waited();
      await steadyClock();
      assert.equal((await challenge({ mfa_token, code: codeOf(secret) })).status, 200);
    });

    it('is counted although an Idempotency-Key undoes what failed', async () => {
      const ann = await newPerson({ server });
      const { secret } = await enableMfa(ann);
      const next = { new_password: 'a hazel opens the gate' };
      for (const [method, path, body] of [
        ['POST', 'mfa/backup-codes', { code: wrongCode(secret) }],
        ['POST', 'mfa/setup', { code: wrongCode(secret) }],
        ['DELETE', 'mfa/disable', { password: ann.password, code: wrongCode(secret) }],
        ['POST', 'change-password', { ...next, old_password: 'not the right password' }],
      ] as const) {
        await forgotten();
        const statuses: number[] = [];
        for (let i = 0; i < 6; i++) {
          const headers = { 'idempotency-key': `guess-${path}-${i % 2}` };
          if (i === 5) await held();
          statuses.push((await ann.call(method, `/v1/auth/${path}`, body, headers)).status);
        }
        assert.deepEqual(statuses, [403, 403, 403, 403, 403, 429], path);
      }
    });

    it('keeps nobody out who resets the password by mail', async () => {
      const mailbox = `owner-${Date.now()}@example.com`;
      const bob = await newPerson({ server, email: mailbox });
      for (let i = 0; i < 5; i++) await signIn(wrong(bob), newAddress());
      await held();
      const home = newAddress();
      assert.equal((await signIn(bob, home)).status, 429);
      const token = await resetTokenOf(bob, mailbox);
      const password = 'a hazel opens the gate';
      const reset = await callServer(server, 'POST', '/v1/auth/reset-password/confirm', {
        body: { token, new_password: password },
        headers: { 'x-forwarded-for': home },
      });
      assert.equal(reset.status, 200);
      assert.equal((await signIn({ ...bob, password }, home)).status, 200);
      const { tenant: _, ...anywhere } = bob;
      assert.equal((await signIn({ ...anywhere, password }, home)).status, 200);
    });

    it('has an end for an address that tries too often in an hour, even rightly', async () => {
      const ann = await newPerson({ server });
      const address = `2001:db8:${Date.now().toString(16).slice(-4)}::1`;
      const perHour = server.app.config.LOGINS_PER_HOUR;
      const key = `@:login:${networkOf(address)}`;
      await server.app.shared.take([{ key, rate: perHour / 3600, burst: perHour, cost: perHour - 2 }]);
      assert.equal((await signIn(ann, address)).status, 200);
      assert.equal((await signIn(ann, address)).status, 200);
      assert.equal((await signIn(ann, `${address}2`)).body.error.code, 'RATE_LIMITED', 'of the same network');
      assert.equal((await signIn(ann, newAddress())).status, 200);
    });
  });
});

describe('without the limiter', () => {
  it('nobody signs in, registers or resets anything', async () => {
    const lost = await startServer(
      { RATE_LIMIT_ENABLED: 'true', REDIS_URL: 'redis://127.0.0.1:1' },
      { serve: true, work: false },
    );
    try {
      const credentials = { username: 'ann', password: 'a walnut opens the gate' };
      for (const [path, body] of [
        ['login', credentials],
        ['register', credentials],
        ['reset-password', { username: 'ann' }],
        ['reset-password/confirm', { token: 'rst_x', new_password: 'a walnut opens the gate' }],
        ['mfa/challenge', { mfa_token: 'mfa_x', code: '123456' }],
      ] as const) {
        const reply = await callServer(lost, 'POST', `/v1/auth/${path}`, { body });
        assert.equal(reply.status, 503, path);
        assert.equal(reply.body.error.code, 'RATE_LIMIT_UNAVAILABLE', path);
        assert.ok(retryAfter(reply) >= 1);
      }
    } finally {
      await lost.stop();
    }
  });
});

describe('a flood of sign-ins', () => {
  let busy: Running;
  before(async () => {
    const settings = {
      LOGIN_FREE_FAILURES: '1000000',
      PASSWORD_HASH_QUEUE: '4',
      PASSWORD_HASH_CONCURRENCY: '2',
    };
    busy = await startServer(settings, { serve: true, work: false });
  });
  after(() => busy.stop());

  it('is refused at once when the queue is full, and everybody else is served meanwhile', async () => {
    const ann = await newTenant('admin', busy);
    let going = true;
    const replies: Reply[] = [];
    const flood = Array.from({ length: 60 }, async (_, i) => {
      for (let round = 0; going; round++) {
        const body = { username: `flood-${i}-${round}`, password: 'not the right password' };
        replies.push(await callServer(busy, 'POST', '/v1/auth/login', { body }));
        // Refusals come at once: without a pause the flood would be nothing but them.
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    });
    await eventually('the first refusal', async () => replies.some(({ status }) => status === 503));
    for (let i = 0; i < 25; i++) {
      const before = replies.length;
      assert.equal((await ann.call('GET', '/v1/memory/')).status, 200);
      const note = { text: `note ${i}`, type: 'note' };
      assert.equal((await ann.call('POST', '/v1/memory/', note)).status, 201);
      await eventually('the flood to go on', async () => replies.length > before);
    }
    going = false;
    await Promise.all(flood);
    const refused = replies.filter(({ status }) => status === 503);
    const tried = replies.filter(({ status }) => status === 401);
    assert.deepEqual(
      replies.filter(({ status }) => status !== 401 && status !== 503).map(({ text }) => text),
      [],
    );
    assert.ok(refused.length > 0 && tried.length > 0);
    for (const reply of refused) {
      assert.equal(reply.body.error.code, 'SERVICE_BUSY');
      assert.ok(retryAfter(reply) >= 1);
    }
    const late = await newPerson({ server: busy });
    assert.equal((await signIn(late)).status, 200, 'and after it people sign in again');
  });

  it('charges nobody for what was never tried', async () => {
    const ann = await newPerson({ server: busy });
    const charged = () =>
      busy.app.database.operator.one(sql<{ n: number }>`select sum(failures)::int as n from attempts`);
    const before = await charged();
    const replies = await Promise.all(Array.from({ length: 40 }, () => signIn(ann)));
    assert.ok(replies.filter(({ status }) => status === 503).length > 20);
    assert.deepEqual(
      replies.filter(({ status }) => status !== 200 && status !== 503).map(({ text }) => text),
      [],
    );
    assert.deepEqual(await charged(), before);
  });

  it('of resets is one row each, with a name or without an account, and the name is not in it', async () => {
    const mailbox = `flood-${Date.now()}@example.com`;
    const ann = await newPerson({ server: busy, email: mailbox });
    const rows = () =>
      busy.app.database.operator.rows(
        sql<{ text: string }>`select row_to_json(r)::text as text from password_reset_requests r`,
      );
    for (const email of [mailbox, `nobody-${mailbox}`]) {
      const reply = await callServer(busy, 'POST', '/v1/auth/reset-password', { body: { email } });
      assert.equal(reply.status, 200);
    }
    for (const { text } of await rows()) assert.ok(!text.includes('flood-'));
    // Twice, as after a crash or in two processes at once: one reset is made of it.
    await Promise.all([workResetRequests(busy.app), workResetRequests(busy.app)]);
    assert.deepEqual(await rows(), []);
    const requested = (await factsOf(ann)).filter(({ type }) => type === 'password.reset_requested');
    assert.equal(requested.length, 1);
  });
});
