import assert from 'node:assert/strict';
import { call, eventually, testServer, useTestServer } from '#test/harness.ts';
import {
  awaited,
  challenge,
  codeOf,
  enableMfa,
  factsOf,
  forgetSteps,
  goodPassword,
  newPerson,
  type Person,
  steadyClock,
  wrongCode,
} from '#test/people.ts';
import { prove } from './statement.ts';

useTestServer();

const query = async (text: string, values: unknown[] = []) =>
  (await (await testServer()).app.database.operatorPool.query(text, values)).rows;

const sessionsOf = async ({ tenant, id }: Person): Promise<number> =>
  (
    await query('select count(*)::int as n from sessions where tenant_id = $1 and identity_id = $2', [
      tenant,
      id,
    ])
  )[0].n;

prove('second factors', [
  {
    id: 'MFA-01',
    source: 'RFC 6238 5.2, ASVS 6.5.1',
    says: 'a code of an authenticator is taken once, and none that is older',
    guard: 'modules/access/mfa/store.ts: useStep',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      await steadyClock();
      const pass = async (steps: number) =>
        (await challenge(ann.server, { mfa_token: await awaited(ann), code: codeOf(secret, steps) })).status;
      assert.equal(await pass(0), 200);
      assert.equal(await pass(0), 401);
      assert.equal(await pass(-1), 401);
      assert.equal(await pass(1), 200);
      assert.equal(await pass(0), 401);
    },
  },
  {
    id: 'MFA-02',
    source: 'RFC 6238 5.2, RFC 6238 6, ASVS 6.5.5',
    says: 'a code is taken in its own time step and the two beside it, and in no other',
    guard: 'modules/access/mfa/codes.ts: stepOf',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      for (const [steps, status] of [
        [-2, 401],
        [-1, 200],
        [0, 200],
        [1, 200],
        [3, 401],
      ] as const) {
        await steadyClock();
        await forgetSteps(ann);
        const reply = await challenge(ann.server, {
          mfa_token: await awaited(ann),
          code: codeOf(secret, steps),
        });
        assert.equal(reply.status, status, `${steps} steps: ${reply.text}`);
        if (status !== 200) continue;
        const me = await call('GET', '/v1/identity/me', { token: reply.body.access_token });
        assert.equal(me.body.id, ann.id);
        assert.equal(reply.body.identity.id, ann.id);
      }
      const signed = (await factsOf(ann)).filter(({ type }) => type === 'auth.login.succeeded');
      assert.equal(signed.length, 3);
      assert.match(signed[0]!.text, /totp/);
    },
  },
  {
    id: 'MFA-03',
    source: 'RFC 6238 5.2, ASVS 15.4.2',
    says: 'of twenty who bring one code at once, with one sign-in or with many, one gets in',
    guard: 'modules/access/mfa/store.ts: useStep',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      for (const tokens of [1, 20]) {
        await steadyClock();
        await forgetSteps(ann);
        const given: string[] = [];
        for (let i = 0; i < tokens; i++) given.push(await awaited(ann));
        const before = await sessionsOf(ann);
        const code = codeOf(secret);
        const replies = await Promise.all(
          Array.from({ length: 20 }, (_, i) => challenge(ann.server, { mfa_token: given[i % tokens], code })),
        );
        assert.equal(replies.filter(({ status }) => status === 200).length, 1, `${tokens} tokens`);
        assert.deepEqual(
          replies.filter(({ status }) => status !== 200 && status !== 401).map(({ text }) => text),
          [],
        );
        assert.equal((await sessionsOf(ann)) - before, 1);
      }
    },
  },
  {
    id: 'MFA-04',
    source: 'NIST 800-63B-4 3.1.2.2, ASVS 6.5.1',
    says: 'a backup code is taken once, and from its owner only',
    guard: 'modules/access/mfa/store.ts: useBackupCode',
    test: async () => {
      const ann = await newPerson();
      const { codes } = await enableMfa(ann);
      const spelled = ` ${codes[0]!.slice(0, 5).toLowerCase()}-${codes[0]!.slice(5)} `;
      const [first, second] = [await awaited(ann), await awaited(ann)];
      const both = await Promise.all(
        [first, second].map((mfa_token) => challenge(ann.server, { mfa_token, backup_code: spelled })),
      );
      assert.deepEqual(both.map(({ status }) => status).sort(), [200, 401]);
      assert.equal((await ann.call('GET', '/v1/auth/mfa/status')).body.backup_codes_remaining, 9);
      const bob = await newPerson();
      const his = await enableMfa(bob);
      const crossed = await challenge(ann.server, {
        mfa_token: await awaited(ann),
        backup_code: his.codes[0],
      });
      assert.equal(crossed.status, 401);
    },
  },
  {
    id: 'MFA-05',
    source: 'NIST 800-63B-4 3.2.2, ASVS 6.6.3',
    says: 'a sign-in is over after five wrong codes, also for the right one',
    guard: 'modules/access/mfa/store.ts: countAttempt',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      const mfa_token = await awaited(ann);
      for (const left of [4, 3, 2, 1]) {
        const reply = await challenge(ann.server, { mfa_token, code: wrongCode(secret) });
        assert.equal(reply.body.error.code, 'MFA_CODE_INVALID');
        assert.equal(reply.body.error.details.attempts_left, left);
        assert.equal(reply.headers['www-authenticate'], 'Bearer');
      }
      const fifth = await challenge(ann.server, { mfa_token, code: wrongCode(secret) });
      assert.equal(fifth.body.error.code, 'MFA_TOKEN_INVALID');
      const right = await challenge(ann.server, { mfa_token, code: codeOf(secret) });
      assert.equal(right.body.error.code, 'MFA_TOKEN_INVALID');
      await eventually(
        'the facts',
        async () => (await factsOf(ann)).filter(({ type }) => type === 'mfa.challenge_failed').length === 5,
      );
    },
  },
  {
    id: 'MFA-06',
    source: 'NIST 800-63B-4 3.2.2, ASVS 15.4.2',
    says: 'no sixth code is tried when many are sent at once',
    guard: 'modules/access/mfa/store.ts: countAttempt',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      const mfa_token = await awaited(ann);
      const code = wrongCode(secret);
      const replies = await Promise.all(
        Array.from({ length: 20 }, () => challenge(ann.server, { mfa_token, code })),
      );
      const tried = replies.filter(({ body }) => body.error.code === 'MFA_CODE_INVALID');
      assert.deepEqual(tried.map(({ body }) => body.error.details.attempts_left).sort(), [1, 2, 3, 4]);
      const failures = async () =>
        (await factsOf(ann)).filter(({ type }) => type === 'mfa.challenge_failed').length;
      await eventually('the facts', async () => (await failures()) >= 5);
      assert.equal(await failures(), 5);
    },
  },
  {
    id: 'MFA-07',
    source: 'ASVS 6.6.2, ASVS 9.2.2',
    says: 'a sign-in is completed by its own token only: not changed, over, of another kind or tenant',
    guard: 'modules/access/mfa/store.ts: findChallenge',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      const token = await awaited(ann);
      const bob = await newPerson();
      const [, tenant, id, key] = /^mfa_(.+)_([0-9a-f]{32})_(.{43})$/.exec(token)!;
      const code = codeOf(secret);
      for (const mfa_token of [
        '',
        'mfa_',
        ann.token.slice(0, 300),
        `mfa_${bob.tenant}_${id}_${key}`,
        `mfa_${tenant}_${id}_${'A'.repeat(43)}`,
        `mfa_${tenant}_${'0'.repeat(32)}_${key}`,
        `rst_${tenant}_${id}_${key}`,
        `${token}A`,
      ]) {
        const reply = await challenge(ann.server, { mfa_token, code });
        assert.equal(reply.body.error.code, 'MFA_TOKEN_INVALID', mfa_token);
        assert.equal(reply.status, 401);
      }
      await query(`update mfa_challenges set expires_at = now() - interval '1 second' where tenant_id = $1`, [
        ann.tenant,
      ]);
      assert.equal(
        (await challenge(ann.server, { mfa_token: token, code })).body.error.code,
        'MFA_TOKEN_INVALID',
      );
      await steadyClock();
      const fresh = await awaited(ann);
      assert.equal((await challenge(ann.server, { mfa_token: fresh, code: codeOf(secret) })).status, 200);
      assert.equal((await challenge(ann.server, { mfa_token: fresh, code: codeOf(secret, 1) })).status, 401);
    },
  },
  {
    id: 'MFA-08',
    source: 'ASVS 2.3.1, ASVS 6.3.3',
    says: 'a sign-in without its second factor leaves no session and nothing that is a credential',
    guard: 'modules/access/passwords/sign-in.ts: enter',
    test: async () => {
      const ann = await newPerson();
      await enableMfa(ann);
      const before = await sessionsOf(ann);
      const token = await awaited(ann);
      assert.equal(await sessionsOf(ann), before);
      const refused = await call('GET', '/v1/identity/me');
      for (const [name, value] of [
        ['authorization', `Bearer ${token}`],
        ['x-api-key', token],
      ] as const) {
        const reply = await call('GET', '/v1/identity/me', { headers: { [name]: value } });
        assert.deepEqual([reply.status, reply.body.error], [401, refused.body.error]);
      }
      const refreshed = await call('POST', '/v1/sessions/refresh', { body: { refresh_token: token } });
      assert.ok(refreshed.status >= 400 && refreshed.status < 500, refreshed.text);
      const confirmed = await call('POST', '/v1/auth/reset-password/confirm', {
        body: { token, new_password: 'a hazel opens the gate' },
      });
      assert.equal(confirmed.body.error.code, 'RESET_TOKEN_INVALID');
    },
  },
  {
    id: 'MFA-09',
    source: 'ASVS 7.5.1, NIST 800-63B-4 3.2.2',
    says: 'whoever holds only a session neither replaces nor removes the second factor, nor makes new backup codes',
    guard: 'modules/access/mfa/service.ts: setUp',
    test: async () => {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      const wrong = wrongCode(secret);
      const tries: [method: string, path: string, body: object, status: number][] = [
        ['POST', 'setup', {}, 422],
        ['POST', 'setup', { code: wrong }, 403],
        ['POST', 'backup-codes', { code: wrong }, 403],
        ['DELETE', 'disable', { code: wrong, password: goodPassword }, 403],
        ['DELETE', 'disable', { code: codeOf(secret), password: 'not the right password' }, 403],
      ];
      for (const [method, path, body, status] of tries) {
        const reply = await ann.call(method, `/v1/auth/mfa/${path}`, body);
        assert.equal(reply.status, status, `${method} ${path} ${JSON.stringify(body)}: ${reply.text}`);
      }
      const { body } = await ann.call('GET', '/v1/auth/mfa/status');
      assert.deepEqual([body.enabled, body.backup_codes_remaining], [true, 10]);
      await awaited(ann);
    },
  },
]);
