import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  callServer,
  eventually,
  giveBack,
  newKey,
  newMember,
  newTenant,
  type Reply,
  startServer,
  useOwnServer,
} from '#test/harness.ts';
import { type Mailbox, openMailbox } from '#test/mailbox.ts';
import type { Running } from '../../../app.ts';
import { expireInvitations } from './service.ts';

let mailbox: Mailbox;
let server: Running;
let ann: Caller;
let count = 0;

const page = 'https://app.example.com/#/invited?by={token}&x=1';

const someone = () => `guest-${++count}@example.com`;
const open = (method: string, url: string, body?: unknown) =>
  callServer(server, method, url, body === undefined ? {} : { body });
const validate = (token: string) => open('GET', `/v1/invitations/validate/${token}`);
const accept = (token: string, body: object = {}) => open('POST', `/v1/invitations/accept/${token}`, body);

function succeeded(reply: Reply): Reply {
  assert.equal(reply.status, 200, reply.text);
  return reply;
}

/** Invites somebody and reads the token out of the mail. */
async function invited(
  more: object = {},
  inviter: Caller = ann,
): Promise<{ id: string; email: string; token: string }> {
  const email = someone();
  const { body } = succeeded(
    await inviter.call('POST', '/v1/invitations/', { email, role: 'user', ...more }),
  );
  return { id: body.id, email, token: await tokenIn(email, 1) };
}

async function tokenIn(email: string, n: number): Promise<string> {
  const { text } = await mailbox.nth(email, n);
  return /by=(inv_[\w.-]+)&/.exec(text!)![1]!;
}

const factsOf = (id: string, tenant = ann.tenant) =>
  server.app.database.tenant(tenant).rows<{
    type: string;
    actor_type: string;
    actor_id: string;
    after: Record<string, unknown> | null;
    data: Record<string, unknown>;
  }>(sql`
    select type, actor_type, actor_id, after, data from facts
    where tenant_id = ${tenant} and resource_type = 'invitation' and resource_id = ${id} order by id`);

const code = ({ status, body }: Reply) => `${status} ${body.error.code}`;

/** Lets an invitation's time run out. */
async function age(id: string, tenant = ann.tenant): Promise<void> {
  await server.app.database
    .tenant(tenant)
    .run(
      sql`update invitations set expires_at = ${new Date(Date.now() - 1_000)} where tenant_id = ${tenant} and id = ${id}`,
    );
}

describe('by mail', () => {
  const running = useOwnServer(async () => {
    mailbox = await openMailbox();
    return { SMTP_URL: mailbox.url, INVITATION_URL: page };
  });
  before(async () => {
    server = running();
    ann = await newTenant('admin', server);
  });
  after(() => mailbox.close());

  describe('an invitation', () => {
    it('leads from a mail to an identity with a session', async () => {
      const email = 'Grace.Hopper@Example.COM';
      const sent = succeeded(
        await ann.call('POST', '/v1/invitations/', {
          email,
          role: 'editor',
          claims: { team: 'navy', email: 'other@example.com', email_verified: 'maybe' },
          expires_in_days: 3,
        }),
      );
      const { id, created_at, updated_at, expires_at, ...shown } = sent.body;
      assert.deepEqual(shown, {
        email,
        role: 'editor',
        claims: { team: 'navy', email: 'other@example.com', email_verified: 'maybe' },
        status: 'pending',
        is_accepted: false,
        accepted_at: null,
        tenant_id: ann.tenant,
        invited_by: ann.id,
      });
      assert.equal(updated_at, created_at);
      assert.equal(Date.parse(expires_at) - Date.parse(created_at), 3 * 86_400_000);
      assert.doesNotMatch(sent.text, /inv_/, 'only the mail has the token');

      const mail = await mailbox.nth(email, 1);
      assert.match(mail.subject!, /^You are invited to /);
      const token = await tokenIn(email, 1);
      assert.ok(mail.text!.includes(page.replace('{token}', token)), mail.text);
      const link = page.replace('{token}', token).replaceAll('&', '&amp;');
      assert.ok((mail.html as string).includes(`<a href="${link}">`), String(mail.html));

      const valid = succeeded(await validate(token));
      assert.equal(valid.headers['cache-control'], 'no-store');
      assert.deepEqual(valid.body, {
        valid: true,
        email,
        role: 'editor',
        tenant_name: `Tenant for ${(await ann.call('GET', '/v1/identity/me')).body.external_id}`,
        expires_at,
      });

      const { body } = succeeded(await accept(token, { name: 'Grace' }));
      assert.deepEqual(Object.keys(body).sort(), [
        'access_token',
        'expires_in',
        'identity',
        'refresh_token',
        'token',
        'token_type',
      ]);
      assert.equal(body.token, body.access_token);
      assert.match(body.refresh_token, /^rt_/);
      const me = succeeded(await callServer(server, 'GET', '/v1/identity/me', { token: body.token })).body;
      assert.deepEqual(me, body.identity);
      assert.equal(me.external_id, 'grace.hopper@example.com');
      assert.equal(me.role, 'editor');
      assert.equal(me.name, 'Grace');
      assert.equal(me.tenant_id, ann.tenant);
      assert.deepEqual(me.claims, { team: 'navy', email: 'grace.hopper@example.com', email_verified: true });

      const after = succeeded(await ann.call('GET', `/v1/invitations/${id}`)).body;
      assert.equal(after.status, 'accepted');
      assert.equal(after.is_accepted, true);
      assert.ok(Date.parse(after.accepted_at) >= Date.parse(created_at));
      const facts = await factsOf(id);
      assert.deepEqual(
        facts.map(({ type }) => type),
        ['invitation.sent', 'invitation.accepted'],
      );
      assert.equal(facts[0]!.actor_id, ann.id);
      assert.equal(facts[1]!.actor_id, me.id);
      assert.doesNotMatch(JSON.stringify(facts), /inv_/);
    });

    it('keeps of its token a keyed hash, and of that nothing once it was used', async () => {
      const { id, token } = await invited();
      const hash = async () => {
        const row = await server.app.database
          .tenant(ann.tenant)
          .one<{ token_hash: Buffer | null; all: string }>(
            sql`select token_hash, invitations::text as all from invitations where tenant_id = ${ann.tenant} and id = ${id}`,
          );
        assert.ok(!row!.all.includes(token.slice(-43)));
        return row!.token_hash;
      };
      assert.equal((await hash())!.length, 32);
      succeeded(await accept(token));
      assert.equal(await hash(), null);
    });

    it('says names of strangers in its mail as text alone, and no links of theirs', async () => {
      const { database, shared } = server.app;
      const bob = await newTenant('admin', server);
      const invite = async (name: string) => {
        await database.operatorPool.query('update tenants set name = $2 where tenant_id = $1', [
          bob.tenant,
          name,
        ]);
        shared.invalidate('tenant', bob.tenant);
        const email = someone();
        succeeded(await bob.call('POST', '/v1/invitations/', { email, role: 'user' }));
        return mailbox.nth(email, 1);
      };
      const plain = await invite(`Bell & "Sons" o'clock`);
      assert.equal(plain.subject, `You are invited to Bell & "Sons" o'clock`);
      assert.match(plain.html as string, /Bell &amp; &quot;Sons&quot; o&#39;clock/);
      assert.doesNotMatch(plain.html as string, /Bell & "|"Sons"|o'clock/);
      for (const name of [
        '<img src=x onerror=alert(1)>',
        'Visit https://evil.example now',
        'Pay at evil.example',
        'Write to eve@evil',
        'x'.repeat(81),
        '',
      ]) {
        const mail = await invite(name);
        assert.equal(mail.subject, `You are invited to ${bob.tenant}`, name);
        const said = `${mail.text}${mail.html}`;
        assert.doesNotMatch(said, /evil|onerror|xxx/);
      }
      const lines = await invite('Two\r\nBcc lines\tand\u202e more');
      assert.equal(lines.subject, 'You are invited to Two Bcc lines and more');
      assert.equal(lines.bcc, undefined);
    });

    it('takes addresses that mails can be sent to, and nothing that reads as two', async () => {
      for (const email of [
        'nobody',
        'a@b@c.example',
        '"a b"@example.com',
        '"a@evil.example"@example.com',
        'a@[127.0.0.1]',
        'ann@example.com, eve@example.com',
        'ann@example.com\r\nBcc: eve@example.com',
        'ann <ann@example.com>',
        'ｅve@example.com',
        '\u212Aate@example.com',
        'a@-x.example',
        `${'a'.repeat(65)}@example.com`,
      ]) {
        const reply = await ann.call('POST', '/v1/invitations/', { email, role: 'user' });
        assert.equal(code(reply), '422 VALIDATION_ERROR', email);
        assert.equal(reply.body.error.details.errors[0].path, '/email');
      }
      for (const expires_in_days of [0, 31, 1.5])
        assert.equal(
          (await ann.call('POST', '/v1/invitations/', { email: someone(), role: 'user', expires_in_days }))
            .status,
          422,
        );
    });

    it('is live once an address, however it is written, under any concurrency', async () => {
      const email = someone();
      const replies = await Promise.all(
        Array.from({ length: 12 }, (_, i) =>
          ann.call('POST', '/v1/invitations/', { email: i % 2 ? email : email.toUpperCase(), role: 'user' }),
        ),
      );
      const made = replies.filter(({ status }) => status === 200);
      assert.equal(made.length, 1);
      const refused = replies.filter(({ status }) => status !== 200);
      for (const reply of refused) assert.equal(code(reply), '409 INVITATION_EXISTS');
      assert.match(
        refused[0]!.body.error.message,
        /^Active invitation already exists for guest-\d+@example\.com\.$/i,
      );
      const count = await server.app.database
        .tenant(ann.tenant)
        .one<{ n: number }>(
          sql`select count(*)::int as n from invitations where tenant_id = ${ann.tenant} and email_key = ${email}`,
        );
      assert.equal(count!.n, 1);
      const bob = await newTenant('admin', server);
      succeeded(await bob.call('POST', '/v1/invitations/', { email, role: 'user' }));
      succeeded(await ann.call('DELETE', `/v1/invitations/${made[0]!.body.id}`));
      succeeded(await ann.call('POST', '/v1/invitations/', { email, role: 'user' }));
    });

    it('never offers a role above the inviter’s, or more than a credential’s scopes', async () => {
      const body = (role: string) => ({ email: someone(), role });
      for (const role of ['editor', 'reader', 'agent', 'user']) {
        const member = await newMember(ann, role, server);
        assert.equal(
          code(await member.call('POST', '/v1/invitations/', body('user'))),
          '403 AUTH_FORBIDDEN',
          role,
        );
      }
      assert.equal(code(await ann.call('POST', '/v1/invitations/', body('system'))), '403 AUTH_FORBIDDEN');
      // A policy may let editors invite; what they may offer is still bound by what they are.
      const { database, shared } = server.app;
      const now = new Date();
      await database.tenant(ann.tenant).run(sql`
      insert into policies (tenant_id, id, role, rule, effect, priority, is_active, created_at, updated_at)
      values (${ann.tenant}, ${uuidv7()}, 'editor', ${{ '==': [{ var: 'resource' }, 'invitations'] }}, 'allow', 50, true, ${now}, ${now})`);
      shared.invalidate('policy', ann.tenant);
      const editor = await newMember(ann, 'editor', server);
      succeeded(await editor.call('POST', '/v1/invitations/', body('user')));
      succeeded(await editor.call('POST', '/v1/invitations/', body('editor')));
      for (const role of ['admin', 'auditor', 'system'])
        assert.equal(
          code(await editor.call('POST', '/v1/invitations/', body(role))),
          '403 AUTH_FORBIDDEN',
          role,
        );
      const { id } = await invited({ role: 'admin' });
      assert.equal(code(await editor.call('POST', `/v1/invitations/resend/${id}`)), '403 AUTH_FORBIDDEN');
      for (const scopes of [['invitations:create'], ['invitations:*'], ['write'], ['read', '*:create']]) {
        const key = await newKey(ann, { scopes, server });
        assert.equal(code(await key.call('POST', '/v1/invitations/', body('user'))), '403 AUTH_FORBIDDEN');
      }
      succeeded(
        await (await newKey(ann, { scopes: ['admin'], server })).call(
          'POST',
          '/v1/invitations/',
          body('user'),
        ),
      );
    });
  });

  describe('a token', () => {
    it('is worth nothing when who sent it could not send it any more, unless somebody else sends it again', async () => {
      const bob = await newTenant('admin', server);
      const [gone, off, demoted] = await Promise.all([1, 2, 3].map(() => newMember(ann, 'admin', server)));
      const ways: [Caller, () => Promise<Reply>][] = [
        [gone!, () => ann.call('DELETE', `/v1/identity/${gone!.id}`)],
        [off!, () => ann.call('PUT', `/v1/identity/${off!.id}`, { is_active: false })],
        [demoted!, () => ann.call('PUT', `/v1/identity/${demoted!.id}`, { role: 'user' })],
      ];
      const untouched = await invited({ role: 'admin' }, bob);
      for (const [inviter, end] of ways) {
        const { id, email, token } = await invited({ role: 'admin' }, inviter);
        const ended = await end();
        assert.ok(ended.status < 300, ended.text);
        assert.equal(code(await accept(token)), '404 NOT_FOUND');
        assert.equal((await callServer(server, 'GET', `/v1/invitations/validate/${token}`)).status, 404);
        const again = await ann.call('POST', `/v1/invitations/resend/${id}`);
        assert.equal(again.status, 200, again.text);
        assert.equal((await ann.call('GET', `/v1/invitations/${id}`)).body.invited_by, ann.id);
        succeeded(await accept(await tokenIn(email, 2)));
      }
      succeeded(await accept(untouched.token));
    });

    it('makes one identity, however many accept at once', async () => {
      const { id, token } = await invited();
      const replies = await Promise.all(
        Array.from({ length: 20 }, (_, i) => accept(token, { external_id: `twin-${id}-${i}` })),
      );
      assert.equal(replies.filter(({ status }) => status === 200).length, 1);
      for (const reply of replies.filter(({ status }) => status !== 200))
        assert.equal(code(reply), '404 NOT_FOUND');
      const made = await server.app.database
        .tenant(ann.tenant)
        .rows(
          sql`select id from identities where tenant_id = ${ann.tenant} and external_id like ${`twin-${id}-%`}`,
        );
      assert.equal(made.length, 1);
      assert.equal((await factsOf(id)).filter(({ type }) => type === 'invitation.accepted').length, 1);
    });

    it('stays good when the external id was taken', async () => {
      const { id, token } = await invited();
      await newMember(ann, 'user', server);
      const taken = (await ann.call('GET', '/v1/identity/me')).body.external_id;
      assert.equal(code(await accept(token, { external_id: taken })), '409 IDENTITY_EXISTS');
      assert.equal((await ann.call('GET', `/v1/invitations/${id}`)).body.status, 'pending');
      succeeded(await validate(token));
      succeeded(await accept(token, { external_id: `${taken}-2` }));
      assert.equal(code(await accept(token, { external_id: `${taken}-3` })), '404 NOT_FOUND');
    });

    it('that is revoked, replaced, expired, used, of a closed tenant, forged or none gets one and the same answer', async () => {
      const revoked = await invited();
      succeeded(await ann.call('DELETE', `/v1/invitations/${revoked.id}`));
      const replaced = await invited();
      succeeded(await ann.call('POST', `/v1/invitations/resend/${replaced.id}`));
      const expired = await invited();
      await age(expired.id);
      const used = await invited();
      succeeded(await accept(used.token));
      const bob = await newTenant('admin', server);
      const closed = await invited({}, bob);
      await server.app.database.operatorPool.query(
        'update tenants set is_active = false where tenant_id = $1',
        [bob.tenant],
      );
      const live = await invited();
      const secret = 'A'.repeat(43);
      const tokens: Record<string, string> = {
        revoked: revoked.token,
        replaced: replaced.token,
        expired: expired.token,
        used: used.token,
        closed: closed.token,
        'another secret': live.token.slice(0, -43) + secret,
        'another tenant': live.token.replace(ann.tenant, bob.tenant),
        'no tenant': `inv_nobody_${uuidv7().replaceAll('-', '')}_${secret}`,
        'no token': 'nonsense',
        'an access token': ann.token,
        'an id': live.id,
        'cut short': live.token.slice(0, -1),
        'too long': `${live.token}x`,
        upper: live.token.toUpperCase(),
      };
      const wanted = {
        status: 404,
        error: { code: 'NOT_FOUND', message: 'Invalid or expired invitation token.' },
      };
      const { database } = server.app;
      for (const [what, token] of Object.entries(tokens)) {
        const steps: number[] = [];
        for (const ask of [validate, accept]) {
          let asked = 0;
          const { tenant } = database;
          database.tenant = (id) => {
            const db = tenant(id);
            const one: typeof db.one = (statement) => {
              asked += 1;
              return db.one(statement);
            };
            return { ...db, one };
          };
          try {
            const { status, body } = await ask(token);
            assert.deepEqual({ status, error: body.error }, wanted, what);
          } finally {
            database.tenant = tenant;
          }
          steps.push(asked);
        }
        assert.deepEqual(steps, [1, 1], `${what} takes the steps that all take`);
      }
      succeeded(await validate(live.token));
    });

    it('of another tenant does nothing here, and a stale credential beside it is not looked at', async () => {
      const bob = await newTenant('admin', server);
      const { token, email } = await invited({ role: 'admin' }, bob);
      const reply = await callServer(server, 'POST', `/v1/invitations/accept/${token}`, {
        body: {},
        token: ann.token,
      });
      assert.equal(reply.body.identity.tenant_id, bob.tenant);
      assert.equal(reply.body.identity.external_id, email);
      assert.ok(!(await ann.call('GET', '/v1/identity/?limit=1000')).text.includes(email));
    });
  });

  describe('whoever invited', () => {
    it('sends it again: a new token, its full time, and an end to the earlier one', async () => {
      const { id, email, token } = await invited({ expires_in_days: 2 });
      const soon = new Date(Date.now() + 60_000);
      await server.app.database
        .tenant(ann.tenant)
        .run(sql`update invitations set expires_at = ${soon} where tenant_id = ${ann.tenant} and id = ${id}`);
      succeeded(await ann.call('POST', `/v1/invitations/resend/${id}`));
      const second = await tokenIn(email, 2);
      assert.notEqual(second, token);
      assert.equal((await validate(token)).status, 404);
      const { expires_at } = succeeded(await validate(second)).body;
      const left = Date.parse(expires_at) - Date.now();
      assert.ok(left > 47 * 3_600_000 && left <= 48 * 3_600_000, expires_at);
      assert.deepEqual(
        (await factsOf(id)).map(({ type }) => type),
        ['invitation.sent', 'invitation.resent'],
      );
      succeeded(await accept(second));
      assert.equal(code(await ann.call('POST', `/v1/invitations/resend/${id}`)), '409 INVITATION_ACCEPTED');
      assert.equal(code(await ann.call('DELETE', `/v1/invitations/${id}`)), '409 INVITATION_ACCEPTED');
    });

    it('sends it four times an hour and no more, even at once', async () => {
      const { id, email } = await invited();
      const resend = () => ann.call('POST', `/v1/invitations/resend/${id}`);
      const replies = await Promise.all(Array.from({ length: 8 }, resend));
      assert.equal(replies.filter(({ status }) => status === 200).length, 3);
      for (const reply of replies.filter(({ status }) => status !== 200)) {
        assert.equal(code(reply), '429 RATE_LIMITED');
        assert.equal(reply.headers['retry-after'], '3600');
      }
      await mailbox.nth(email, 4);
      const hourAgo = new Date(Date.now() - 3_600_001);
      await server.app.database
        .tenant(ann.tenant)
        .run(
          sql`update invitations set mails_from = ${hourAgo} where tenant_id = ${ann.tenant} and id = ${id}`,
        );
      succeeded(await resend());
      const token = await tokenIn(email, 5);
      succeeded(await validate(token));
    });

    it('sees what waits and what ran out, and what was accepted when it asks', async () => {
      const bob = await newTenant('admin', server);
      const waiting = await invited({}, bob);
      const late = await invited({}, bob);
      await age(late.id, bob.tenant);
      const done = await invited({}, bob);
      succeeded(await accept(done.token));
      const gone = await invited({}, bob);
      succeeded(await bob.call('DELETE', `/v1/invitations/${gone.id}`));
      const list = async (query = '') =>
        succeeded(await bob.call('GET', `/v1/invitations/${query}`)).body.map(
          ({ id, status }: { id: string; status: string }) => [id, status],
        );
      assert.deepEqual(await list(), [
        [late.id, 'expired'],
        [waiting.id, 'pending'],
      ]);
      assert.deepEqual(await list('?include_accepted=true'), [
        [done.id, 'accepted'],
        [late.id, 'expired'],
        [waiting.id, 'pending'],
      ]);
      const first = await bob.call('GET', '/v1/invitations/?include_accepted=true&limit=2');
      assert.match(String(first.headers.link), /include_accepted=true/);
      assert.deepEqual(
        await list(`?include_accepted=true&limit=2&cursor=${first.headers['x-next-cursor']}`),
        [[waiting.id, 'pending']],
      );
      assert.equal((await bob.call('GET', `/v1/invitations/${gone.id}`)).status, 404);
      assert.deepEqual(
        (await factsOf(gone.id, bob.tenant)).map(({ type }) => type),
        ['invitation.sent', 'invitation.revoked'],
      );
    });

    it('may invite anew what ran out, and the clock marks it once', async () => {
      const one = await invited();
      const two = await invited();
      await age(one.id);
      await age(two.id);
      assert.equal(
        code(await ann.call('POST', `/v1/invitations/resend/${one.id}`)),
        '409 INVITATION_EXPIRED',
      );
      succeeded(await ann.call('POST', '/v1/invitations/', { email: one.email, role: 'user' }));
      await Promise.all([expireInvitations(server.app), expireInvitations(server.app)]);
      for (const { id } of [one, two])
        assert.deepEqual(
          (await factsOf(id)).map(({ type }) => type),
          ['invitation.sent', 'invitation.expired'],
        );
      const again = await tokenIn(one.email, 2);
      succeeded(await validate(again));
    });
  });
});

describe('an invitation without a mail server', () => {
  const running = useOwnServer(async () => ({}));

  it('is a file of the outbox, with the page of the console', async () => {
    const bob = await newTenant('admin', running());
    const email = someone();
    succeeded(await bob.call('POST', '/v1/invitations/', { email, role: 'user' }));
    const outbox = join(running().app.config.dataDir, 'outbox');
    const text = await eventually('the file', async () => {
      const names = await readdir(outbox).catch(() => []);
      const texts = await Promise.all(names.map((name) => readFile(join(outbox, name), 'utf8')));
      return texts.find((one) => one.includes(email));
    });
    assert.match(text.replace(/=\n/g, ''), /http:\/\/manushya\.test\/console\/invitations\/inv_/);
  });

  it('is refused before anything else in production', async () => {
    const mute = await startServer(
      {
        ENVIRONMENT: 'production',
        OPEN_REGISTRATION: 'true',
        DEFAULT_PLAN: 'enterprise',
      },
      { serve: true, work: false },
    );
    try {
      const bob = await newTenant('admin', mute);
      const reply = await bob.call('POST', '/v1/invitations/', { email: someone(), role: 'system' });
      assert.equal(code(reply), '503 MAIL_NOT_CONFIGURED');
      assert.deepEqual((await bob.call('GET', '/v1/invitations/')).body, []);
    } finally {
      await mute.stop();
    }
  });

  it('lets strangers try tokens as often as one address may in an hour, and then has them wait', async () => {
    const strict = await startServer(
      { RATE_LIMIT_ENABLED: 'true', INVITATION_CALLS_PER_HOUR: '5' },
      { serve: true, work: false },
    );
    try {
      // Without it nobody may: it fails closed.
      await eventually('the limiter', () => strict.app.shared.reachable());
      const statuses: number[] = [];
      for (let i = 0; i < 4; i++) {
        statuses.push((await callServer(strict, 'GET', '/v1/invitations/validate/x')).status);
        statuses.push((await callServer(strict, 'POST', '/v1/invitations/accept/x', { body: {} })).status);
      }
      // One may be given back while they are asked.
      assert.deepEqual(statuses.slice(0, 5), [404, 404, 404, 404, 404]);
      assert.ok(statuses.slice(5).includes(429), String(statuses));
    } finally {
      await giveBack(strict, 'invitation');
      await strict.stop();
    }
  });
});
