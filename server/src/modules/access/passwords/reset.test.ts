import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { call, eventually, newKey, type Reply, testServer, useTestServer } from '#test/harness.ts';
import {
  codeOf,
  enableMfa,
  factsOf,
  goodPassword,
  mailsTo,
  newPerson,
  type Person,
  resetTokenOf,
  signIn,
} from '#test/people.ts';
import type { Running } from '../../../app.ts';
import { resetMail } from './mails.ts';

useTestServer();

const other = 'a hazel opens the gate';
let mailboxes = 0;
const newMailbox = () => `box-${++mailboxes}-${Date.now()}@example.com`;

const query = async ({ app }: Running, text: string, values: unknown[] = []) =>
  (await app.database.operatorPool.query(text, values)).rows;
const confirm = (token: string, new_password = other): Promise<Reply> =>
  call('POST', '/v1/auth/reset-password/confirm', { body: { token, new_password } });
const ask = (body: object): Promise<Reply> => call('POST', '/v1/auth/reset-password', { body });
/** Everything that was asked for has been worked on. */
const settled = ({ server }: Person) =>
  eventually(
    'the requests',
    async () => (await query(server, 'select 1 from password_reset_requests')).length === 0,
  );
const works = async (token: string) => (await call('GET', '/v1/identity/me', { token })).status === 200;

describe('changing a password', () => {
  it('takes the old one, keeps this session, ends the others and no API key, and tells the owner', async () => {
    const mailbox = newMailbox();
    const ann = await newPerson({ email: mailbox });
    const elsewhere = (await signIn(ann)).body.access_token;
    const key = await newKey(ann);
    const change = (old_password: string, new_password: string) =>
      ann.call('POST', '/v1/auth/change-password', { old_password, new_password });
    const wrong = await change('not the right password', other);
    assert.deepEqual([wrong.status, wrong.body.error.code], [403, 'PASSWORD_INVALID']);
    for (const password of ['short', goodPassword, ann.username, 'qwertyuiop12345']) {
      const refused = await change(goodPassword, password);
      assert.equal(refused.status, 422, password);
      assert.equal(refused.body.error.details.errors[0].path, '/new_password');
    }
    assert.ok(await works(elsewhere));
    const changed = await change(goodPassword, other);
    assert.equal(changed.status, 200, changed.text);
    assert.equal(changed.body.sessions_revoked, 1);
    assert.equal(await works(elsewhere), false);
    assert.ok(await works(ann.token));
    assert.ok(await works(key.token));
    assert.equal((await signIn(ann)).status, 401);
    assert.equal((await signIn({ ...ann, password: other })).status, 200);
    await eventually('the notice', async () => (await mailsTo(mailbox)).length === 1);
    assert.ok((await factsOf(ann)).some(({ type }) => type === 'password.changed'));
  });

  it('is done once for an Idempotency-Key', async () => {
    const ann = await newPerson();
    const body = { old_password: goodPassword, new_password: other };
    const key = { 'idempotency-key': 'change-once' };
    const first = await ann.call('POST', '/v1/auth/change-password', body, key);
    assert.equal(first.status, 200, first.text);
    const second = await ann.call('POST', '/v1/auth/change-password', body, key);
    assert.equal(second.status, 200);
    assert.equal(second.headers['idempotency-replayed'], 'true');
    assert.equal((await ann.call('POST', '/v1/auth/change-password', body)).status, 403);
  });

  it('happens once when it is asked for twice at the same moment', async () => {
    const ann = await newPerson();
    const replies = await Promise.all(
      ['one', 'two', 'three'].map((word) =>
        ann.call('POST', '/v1/auth/change-password', {
          old_password: goodPassword,
          new_password: `${other} ${word}`,
        }),
      ),
    );
    assert.equal(replies.filter(({ status }) => status === 200).length, 1);
  });

  it('lets no sign-in with the old password slip through', async () => {
    const ann = await newPerson();
    for (let round = 0; round < 3; round++) {
      const [from, to] = round % 2 ? [other, goodPassword] : [goodPassword, other];
      const [changed, ...signed] = await Promise.all([
        ann.call('POST', '/v1/auth/change-password', { old_password: from, new_password: to }),
        ...Array.from({ length: 8 }, () => signIn({ ...ann, password: from })),
      ]);
      assert.equal(changed!.status, 200);
      for (const { status, body } of signed)
        if (status === 200) assert.equal(await works(body.access_token), false);
    }
  });
});

describe('asking for a reset', () => {
  it('answers the same for everybody, and writes only to accounts there are', async () => {
    const mailbox = newMailbox();
    const ann = await newPerson({ email: mailbox });
    const silent = await newPerson();
    const replies = [
      await ask({ username: ann.username }),
      await ask({ username: `${ann.username}-nobody` }),
      await ask({ username: silent.username }),
      await ask({ email: newMailbox() }),
      await ask({ username: ann.username, tenant: silent.tenant }),
      await ask({ username: ann.username, tenant: 'no such tenant' }),
    ];
    const [first] = replies;
    for (const reply of replies) {
      assert.deepEqual([reply.status, reply.body], [200, first!.body]);
      assert.deepEqual(Object.keys(reply.headers), Object.keys(first!.headers));
    }
    await settled(ann);
    await eventually('the mail', async () => (await mailsTo(mailbox)).length === 1);
    const [mail] = await mailsTo(mailbox);
    assert.match(mail!.text!, /rst_\S{80,}/);
    assert.ok(!mail!.text!.includes(ann.username), 'nothing that somebody chose for itself');
    const requested = (await factsOf(ann)).filter(({ type }) => type === 'password.reset_requested');
    assert.equal(requested.length, 1);
    assert.ok(!requested[0]!.text.includes('rst_'));
  });

  it('by an address means each account that has it, and one mail each within five minutes', async () => {
    const mailbox = newMailbox();
    const [ann, bea] = [
      await newPerson({ email: mailbox }),
      await newPerson({ email: mailbox.toUpperCase() }),
    ];
    for (let i = 0; i < 3; i++) await ask({ email: mailbox });
    await settled(ann);
    const resets = await query(
      ann.server,
      'select tenant_id from password_resets where tenant_id = any($1)',
      [[ann.tenant, bea.tenant]],
    );
    assert.equal(resets.length, 2);
    const requested = [...(await factsOf(ann)), ...(await factsOf(bea))].filter(
      ({ type }) => type === 'password.reset_requested',
    );
    assert.equal(requested.length, 2);
    assert.equal((await ask({})).status, 422);
    assert.equal((await ask({ email: mailbox, username: 'ann' })).status, 422);
  });

  it('writes to nobody whose identity or tenant is not active', async () => {
    for (const what of ['identity', 'tenant'] as const) {
      const mailbox = newMailbox();
      const ann = await newPerson({ email: mailbox });
      const token = await resetTokenOf(ann, mailbox);
      if (what === 'identity')
        await query(ann.server, 'update identities set is_active = false where id = $1', [ann.id]);
      else await query(ann.server, 'update tenants set is_active = false where tenant_id = $1', [ann.tenant]);
      ann.server.app.shared.invalidate(what, what === 'identity' ? `${ann.tenant}/${ann.id}` : ann.tenant);
      assert.equal((await confirm(token)).body.error.code, 'RESET_TOKEN_INVALID', what);
      await query(ann.server, 'delete from password_resets where tenant_id = $1', [ann.tenant]);
      await ask({ email: mailbox });
      await settled(ann);
      assert.deepEqual(
        await query(ann.server, 'select 1 from password_resets where tenant_id = $1', [ann.tenant]),
        [],
      );
    }
  });
});

describe('the mail with the token', () => {
  it('links to the page that was configured, with the token where no server sees it', async () => {
    const { app } = await testServer();
    const page = 'https://app.example.com/reset?a=1&b=2';
    const configured = { ...app, config: { ...app.config, PASSWORD_RESET_URL: page } };
    const { text, html } = resetMail(configured, 'ann@example.com', 't1', 'rst_token');
    assert.ok(text.includes(`\n${page}#token=rst_token\n`));
    const escaped = page.replace('&', '&amp;');
    assert.ok(html.includes(`<a href="${escaped}#token=rst_token">${escaped}#token=rst_token</a>`));
    assert.doesNotMatch(resetMail(app, 'ann@example.com', 't1', 'rst_token').html, /<a /);
  });
});

describe('resetting a password', () => {
  let ann: Person;
  let mailbox: string;
  let token: string;
  before(async () => {
    mailbox = newMailbox();
    ann = await newPerson({ email: mailbox });
    token = await resetTokenOf(ann, mailbox);
  });

  it('takes no token but the one that was sent', async () => {
    const bob = await newPerson({ email: newMailbox() });
    const [, tenant, id, secret] = /^rst_(.+)_([0-9a-f]{32})_(.{43})$/.exec(token)!;
    const his = bob.id.replaceAll('-', '');
    for (const bad of [
      '',
      'rst_',
      'nonsense',
      ann.token.slice(0, 300),
      `rst_${bob.tenant}_${id}_${secret}`,
      `rst_${bob.tenant}_${his}_${secret}`,
      `rst_${tenant}_${his}_${secret}`,
      `rst_${tenant}_${id}_${'A'.repeat(43)}`,
      `mfa_${tenant}_${id}_${secret}`,
      token.slice(0, -1),
      `${token}A`,
    ]) {
      const reply = await confirm(bad);
      assert.deepEqual([reply.status, reply.body.error.code], [400, 'RESET_TOKEN_INVALID'], bad);
    }
    assert.equal((await call('GET', '/v1/identity/me', { token })).status, 401);
    assert.equal((await confirm(token, 'short')).status, 422, 'a bad password leaves the token as it was');
    assert.equal((await confirm(token, ann.username)).status, 422);
  });

  it('works once, however many ask at once; it ends all sessions and no API key, and tells the owner', async () => {
    const key = await newKey(ann);
    const replies = await Promise.all(Array.from({ length: 10 }, (_, i) => confirm(token, `${other} ${i}`)));
    assert.equal(replies.filter(({ status }) => status === 200).length, 1);
    assert.equal(replies.filter(({ body }) => body.error?.code === 'RESET_TOKEN_INVALID').length, 9);
    const winner = replies.findIndex(({ status }) => status === 200);
    assert.equal((await confirm(token)).status, 400);
    assert.equal(await works(ann.token), false);
    assert.ok(await works(key.token));
    assert.equal((await signIn(ann)).status, 401);
    assert.equal((await signIn({ ...ann, password: `${other} ${winner}` })).status, 200);
    await eventually('the notice', async () =>
      (await mailsTo(mailbox)).some(({ text }) => /was reset/.test(text!)),
    );
    assert.ok((await factsOf(ann)).some(({ type }) => type === 'password.reset'));
  });

  it('is over after an hour, after the next mail, and after the password was changed', async () => {
    const box = newMailbox();
    const bob = await newPerson({ email: box });
    const first = await resetTokenOf(bob, box);
    await query(
      bob.server,
      `update password_resets set created_at = created_at - interval '6 minutes' where tenant_id = $1`,
      [bob.tenant],
    );
    const second = await resetTokenOf(bob, box);
    assert.equal((await confirm(first)).status, 400);
    await query(
      bob.server,
      `update password_resets set expires_at = expires_at - interval '1 hour' where tenant_id = $1`,
      [bob.tenant],
    );
    assert.equal((await confirm(second)).status, 400);
    await query(bob.server, 'delete from password_resets where tenant_id = $1', [bob.tenant]);
    const third = await resetTokenOf(bob, box);
    const changed = await bob.call('POST', '/v1/auth/change-password', {
      old_password: goodPassword,
      new_password: other,
    });
    assert.equal(changed.status, 200);
    assert.equal((await confirm(third)).status, 400);
  });

  it('leaves the second factor in place, and ends sign-ins that wait for it', async () => {
    const box = newMailbox();
    const bob = await newPerson({ email: box });
    const { secret } = await enableMfa(bob);
    const waiting = (await signIn(bob)).body.mfa_token;
    assert.equal((await confirm(await resetTokenOf(bob, box), 'wl7 gate')).status, 200, 'eight beside MFA');
    const over = await call('POST', '/v1/auth/mfa/challenge', {
      body: { mfa_token: waiting, code: codeOf(secret) },
    });
    assert.equal(over.body.error.code, 'MFA_TOKEN_INVALID');
    assert.equal((await signIn({ ...bob, password: 'wl7 gate' })).body.mfa_required, true);
  });
});
