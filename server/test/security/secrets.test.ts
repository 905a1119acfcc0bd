import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { Secret } from 'otpauth';
import { flushDenials } from '#platform/facts/denials.ts';
import { redacted } from '#platform/facts/record.ts';
import { createLog, type Log } from '#platform/log.ts';
import { call, eventually, newMember, type Reply, testServer, useTestServer } from '#test/harness.ts';
import {
  codeOf,
  enableMfa,
  goodPassword,
  mailsTo,
  newPerson,
  resetTokenOf,
  signIn,
  wrongCode,
} from '#test/people.ts';
import { prove } from './statement.ts';

useTestServer();

/** A logger that says everything, and what it said. */
function listening(): { log: Log; lines: string[] } {
  const lines: string[] = [];
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  return { log: createLog('trace', sink), lines };
}

const query = async <Row extends Record<string, any>>(text: string, values: unknown[] = []): Promise<Row[]> =>
  (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;

interface Journey {
  tenant: string;
  /** By what they are. */
  secrets: Map<string, string>;
  lines: string[];
  /** Answers that came after the ones which show a secret once. */
  later: Reply[];
  /** Answers to what was wrong. */
  refusals: Reply[];
}

let gone: Promise<Journey> | undefined;

/** Everything that secrets are made, sent or spent by, once, with a log that says everything. */
const journey = (): Promise<Journey> => {
  gone ??= travel();
  return gone;
};

async function travel(): Promise<Journey> {
  const { app } = await testServer();
  const { log, lines } = listening();
  const usual = app.log;
  app.log = log;
  try {
    const secrets = new Map<string, string>();
    const keep = (what: string, text: string) => {
      assert.ok(text.length >= 10, what);
      secrets.set(`${what}-${secrets.size}`, text);
      return text;
    };
    const tokens = ({ body }: Reply) => {
      keep('access token', body.access_token.split('.')[2]);
      keep('refresh token', body.refresh_token.slice(-60));
    };
    const email = `secret-${Date.now()}@example.com`;
    const ann = await newPerson({ email });
    keep('password', goodPassword);
    keep('access token', ann.token.split('.')[2]!);
    const refusals = [
      await signIn({ ...ann, password: keep('wrong password', 'a wrong walnut 8473') }),
      await ann.call('POST', '/v1/auth/change-password', {
        old_password: keep('wrong password', 'another wrong walnut'),
        new_password: keep('new password', 'never to become one 91'),
      }),
      await ann.call('POST', '/v1/auth/register', {
        username: 'second',
        password: keep('short password', 'short 84x1'),
      }),
    ];
    const signed = await signIn(ann);
    tokens(signed);
    tokens(
      await call('POST', '/v1/sessions/refresh', { body: { refresh_token: signed.body.refresh_token } }),
    );
    const replayed = { 'idempotency-key': 'a key of a key' };
    const key = await ann.call('POST', '/v1/api-keys/', { name: 'a key' }, replayed);
    keep('API key', key.body.secret_key.slice(-40));
    await ann.call('POST', '/v1/api-keys/', { name: 'a key' }, replayed);
    const rotated = await ann.call('POST', `/v1/api-keys/${key.body.api_key.id}/rotate`, {});
    keep('API key', rotated.body.secret_key.slice(-40));
    await call('GET', '/v1/identity/me', { token: rotated.body.secret_key });
    refusals.push(await call('GET', '/v1/identity/me', { token: `${rotated.body.secret_key}x` }));
    const provider = await ann.call('POST', '/v1/admin/identity/providers', {
      ...{ id: 'idp', name: 'One', issuer: 'https://idp.example', client_id: 'client' },
      client_secret: keep('client secret', 'the secret of a client'),
    });
    assert.equal(provider.status, 201, provider.text);
    const guest = `guest-${Date.now()}@example.com`;
    await ann.call('POST', '/v1/invitations/', { email: guest, role: 'user' });
    const mail = await eventually('the mail', async () => (await mailsTo(guest))[0]);
    const invitation = keep('invitation', /inv_[\w.-]+/.exec(mail.text ?? '')![0]);
    await call('GET', `/v1/invitations/validate/${invitation}`);
    tokens(await call('POST', `/v1/invitations/accept/${invitation}`, { body: {} }));
    refusals.push(await call('POST', `/v1/invitations/accept/${invitation}`, { body: {} }));
    const agent = await newMember(ann, 'agent');
    const given = await ann.call('POST', `/v1/identity/${agent.id}/delegate`, { reason: 'calendar' });
    keep('delegated token', given.body.access_token.split('.')[2]);
    const { secret, codes } = await enableMfa(ann);
    keep('authenticator', secret);
    keep('authenticator', Buffer.from(Secret.fromBase32(secret).bytes).toString('hex'));
    for (const code of codes) keep('backup code', code);
    const waiting = keep('mfa_token', (await signIn(ann)).body.mfa_token);
    const challenge = (body: object) => call('POST', '/v1/auth/mfa/challenge', { body });
    refusals.push(await challenge({ mfa_token: waiting, code: wrongCode(secret) }));
    refusals.push(
      await challenge({ mfa_token: waiting, backup_code: keep('wrong backup code', 'ZZZZZ99999') }),
    );
    tokens(await challenge({ mfa_token: waiting, code: codeOf(secret) }));
    const reset = keep('reset token', await resetTokenOf(ann, email));
    const confirm = { token: reset, new_password: keep('password', 'a hazel opens the gate') };
    assert.equal((await call('POST', '/v1/auth/reset-password/confirm', { body: confirm })).status, 200);
    refusals.push(await call('POST', '/v1/auth/reset-password/confirm', { body: confirm }));
    const again = (await signIn({ ...ann, password: confirm.new_password })).body.mfa_token;
    const back = await challenge({ mfa_token: keep('mfa_token', again), backup_code: codes[0] });
    tokens(back);
    const look = (path: string) => call('GET', path, { token: back.body.access_token });
    const later = [
      await look('/v1/identity/me'),
      await look('/v1/identity/'),
      await look('/v1/sessions/'),
      await look('/v1/api-keys/'),
      await look(`/v1/api-keys/${key.body.api_key.id}`),
      await look('/v1/self-serve/api-keys'),
      await look('/v1/invitations/?include_accepted=true'),
      await look('/v1/delegations'),
      await look('/v1/admin/identity/providers'),
      await look('/v1/auth/mfa/status'),
      await call('GET', '/.well-known/jwks.json'),
      await call('GET', '/metrics'),
    ];
    for (const reply of later) assert.equal(reply.status, 200, reply.text);
    await look('/v1/tenants');
    await flushDenials(app);
    return { tenant: ann.tenant, secrets, lines, later, refusals };
  } finally {
    app.log = usual;
  }
}

/** That none of the secrets is in a text, as it is or as databases and logs write bytes. */
function holdsNone(secrets: Map<string, string>, text: string, where: string): void {
  for (const [what, secret] of secrets) {
    const bytes = Buffer.from(secret);
    for (const form of [secret, bytes.toString('hex'), bytes.toString('base64url').slice(0, -2)])
      assert.ok(!text.includes(form), `${what} is in ${where}`);
  }
}

prove('secrets', [
  {
    id: 'SEC-01',
    source: 'ASVS 16.2.5, RFC 9700 4.3',
    says: 'no password, token, key or code is in the log, even when it says everything',
    guard: 'platform/http/server.ts: hooks',
    test: async () => {
      const { secrets, lines } = await journey();
      assert.ok(secrets.size > 25 && lines.length > 20, `${secrets.size} secrets, ${lines.length} lines`);
      holdsNone(secrets, lines.join(''), 'the log');
    },
  },
  {
    id: 'SEC-02',
    source: 'ASVS 16.2.5, ASVS 14.2.4',
    says: 'no password, token, key or code is in the facts of what happened',
    guard: 'platform/facts/record.ts: factRow',
    test: async () => {
      const { secrets, tenant } = await journey();
      const rows = await query('select row_to_json(f)::text as text from facts f where tenant_id = $1', [
        tenant,
      ]);
      assert.ok(rows.length > 20);
      holdsNone(secrets, rows.map(({ text }) => text).join('\n'), 'a fact');
    },
  },
  {
    id: 'SEC-03',
    source: 'ASVS 13.3.1, ASVS 6.5.2, NIST 800-63B-4 3.1.1.2',
    says: 'no table holds a password, token, key or code that could be used',
    guard: 'platform/crypto.ts: encrypt',
    test: async () => {
      const { secrets, tenant } = await journey();
      const tables = await query<{ name: string; tenant: boolean }>(
        `select c.relname as name, exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id') as tenant
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'public' and c.relkind = 'r' order by 1`,
      );
      assert.ok(tables.length > 20);
      for (const { name, tenant: owned } of tables) {
        const rows = await query(
          `select row_to_json(t)::text as text from "${name}" t ${owned ? 'where tenant_id = $1' : ''}`,
          owned ? [tenant] : [],
        );
        holdsNone(secrets, rows.map(({ text }) => text).join('\n'), name);
      }
    },
  },
  {
    id: 'SEC-04',
    source: 'ASVS 15.3.1, ASVS 14.2.6',
    says: 'what is shown once is shown once: no later answer has a secret, a hash or a private key',
    guard: 'modules/access/api-keys/service.ts: shown',
    test: async () => {
      const { secrets, later } = await journey();
      const texts = later.map(({ text }) => text).join('\n');
      holdsNone(secrets, texts, 'an answer');
      assert.doesNotMatch(texts, /_hash"|"d":|\$argon2|"(client_)?secret"/);
    },
  },
  {
    id: 'SEC-05',
    source: 'ASVS 16.5.1, ASVS 14.2.6',
    says: 'a refusal does not repeat the password, token or code that it refuses',
    guard: 'platform/errors.ts: ApiError',
    test: async () => {
      const { secrets, refusals } = await journey();
      for (const { status, text } of refusals) assert.ok(status >= 400, text);
      holdsNone(secrets, refusals.map(({ text }) => text).join('\n'), 'a refusal');
      const key = 'mk_t1_not_a_key_at_all';
      const echoed = await call('GET', '/v1/identity/me', { token: key });
      assert.ok(!echoed.text.includes(key));
    },
  },
  {
    id: 'SEC-06',
    source: 'ASVS 16.2.5',
    says: 'a field that by its name holds a secret is cut out of a fact, at any depth',
    guard: 'platform/facts/record.ts: redacted',
    test: async () => {
      const given = {
        password: 'a',
        old_password: 'a',
        token: 'a',
        api_key: 'a',
        client_secret: 'a',
        inner: { refresh: 'a', deeper: { private_key: 'a', kept: 1 } },
        tokens_used: 7,
      };
      assert.deepEqual(redacted(given), {
        password: '[REDACTED]',
        old_password: '[REDACTED]',
        token: '[REDACTED]',
        api_key: '[REDACTED]',
        client_secret: '[REDACTED]',
        inner: { refresh: '[REDACTED]', deeper: { private_key: '[REDACTED]', kept: 1 } },
        tokens_used: 7,
      });
    },
  },
  {
    id: 'SEC-07',
    source: 'ASVS 16.2.5, ASVS 16.4.1',
    says: 'a field that by its name holds a secret is cut out of the log, and no text begins a line of its own',
    guard: 'platform/log.ts: createLog',
    test: async () => {
      const { log, lines } = listening();
      const hidden = 'only here 5521';
      log.info(
        { password: hidden, token: hidden, request: { authorization: hidden, api_key: hidden } },
        'one',
      );
      log.warn({ err: Object.assign(new Error('two'), { parameters: [hidden], config: { hidden } }) }, 'two');
      log.info({ name: 'x"}\n{"level":"error","msg":"forged"}' }, 'three\n{"forged":1}');
      assert.equal(lines.length, 3);
      assert.ok(!lines.join('').includes(hidden));
      for (const line of lines) assert.equal(line.trimEnd().split('\n').length, 1, line);
    },
  },
]);
