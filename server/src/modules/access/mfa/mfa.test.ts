import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import { newKey, newMember, newTenant, testServer, useTestServer } from '#test/harness.ts';
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
  signIn,
  steadyClock,
  wrongCode,
} from '#test/people.ts';
import { mfaStatus } from './service.ts';

useTestServer();

const query = async (text: string, values: unknown[] = []) =>
  (await (await testServer()).app.database.operatorPool.query(text, values)).rows;

describe('setting up MFA', () => {
  it('shows a secret, its QR code, its address and ten backup codes, and asks for nothing until it is verified', async () => {
    const ann = await newPerson({ username: `ann ${Date.now()}@example.com` });
    const none = await ann.call('GET', '/v1/auth/mfa/status');
    assert.deepEqual(none.body, {
      enabled: false,
      setup_time: null,
      enabled_time: null,
      backup_codes_remaining: 0,
      backup_codes_regenerated: null,
    });
    const setup = await ann.call('POST', '/v1/auth/mfa/setup');
    assert.equal(setup.status, 200);
    assert.match(setup.body.secret, /^[A-Z2-7]{32}$/);
    const url = new URL(setup.body.setup_url);
    assert.equal(`${url.protocol}//${url.host}`, 'otpauth://totp');
    assert.equal(decodeURIComponent(url.pathname), `/Manushya.ai:${ann.username}`);
    assert.equal(url.searchParams.get('secret'), setup.body.secret);
    assert.equal(url.searchParams.get('issuer'), 'Manushya.ai');
    const png = Buffer.from(setup.body.qr_code.replace(/^data:image\/png;base64,/, ''), 'base64');
    assert.equal(png.subarray(1, 4).toString(), 'PNG');
    assert.equal(new Set(setup.body.backup_codes).size, 10);
    for (const code of setup.body.backup_codes) assert.match(code, /^[A-HJKMNP-Z2-9]{10}$/);
    assert.ok((await signIn(ann)).body.access_token, 'the password alone is enough until then');
    const pending = (await ann.call('GET', '/v1/auth/mfa/status')).body;
    assert.equal(pending.enabled, false);
    assert.ok(pending.setup_time);

    const verified = await ann.call('POST', '/v1/auth/mfa/verify', { token: codeOf(setup.body.secret) });
    assert.equal(verified.status, 200);
    assert.equal(verified.body.enabled, true);
    assert.equal(verified.body.backup_codes_remaining, 10);
    await awaited(ann);
    const again = await ann.call('POST', '/v1/auth/mfa/verify', { token: codeOf(setup.body.secret, 1) });
    assert.equal(again.body.error.code, 'MFA_NOT_SET_UP');
  });

  it('a code that verified it signs nobody in', async () => {
    const ann = await newPerson();
    const { secret } = (await ann.call('POST', '/v1/auth/mfa/setup')).body;
    await steadyClock();
    const token = codeOf(secret);
    assert.equal((await ann.call('POST', '/v1/auth/mfa/verify', { token })).status, 200);
    const mfa_token = await awaited(ann);
    assert.equal((await challenge(ann.server, { mfa_token, code: token })).status, 401);
    assert.equal((await challenge(ann.server, { mfa_token, code: codeOf(secret, 1) })).status, 200);
  });

  it('is verified by its own code only, of the newest setup, while it is fresh', async () => {
    const ann = await newPerson();
    const verify = (token: string) => ann.call('POST', '/v1/auth/mfa/verify', { token });
    assert.equal((await verify('123456')).body.error.code, 'MFA_NOT_SET_UP');
    const first = (await ann.call('POST', '/v1/auth/mfa/setup')).body.secret;
    const second = (await ann.call('POST', '/v1/auth/mfa/setup')).body.secret;
    assert.notEqual(first, second);
    for (const token of [wrongCode(second), codeOf(first), '', 'abcdef', '1234567'])
      assert.equal((await verify(token)).body.error.code, 'MFA_CODE_INVALID', token);
    await query(
      `update mfa_setups set created_at = created_at - interval '15 minutes' where tenant_id = $1`,
      [ann.tenant],
    );
    assert.equal((await verify(codeOf(second))).body.error.code, 'MFA_NOT_SET_UP');
    const third = (await ann.call('POST', '/v1/auth/mfa/setup')).body.secret;
    const code = codeOf(third);
    const replies = await Promise.all(
      Array.from({ length: 6 }, () => verify(`${code.slice(0, 3)} ${code.slice(3)}`)),
    );
    assert.equal(replies.filter(({ status }) => status === 200).length, 1);
  });

  it('that is enabled already needs a code, and stays until the new one is verified', async () => {
    const ann = await newPerson();
    const { secret, codes } = await enableMfa(ann);
    const setUp = (body?: object) => ann.call('POST', '/v1/auth/mfa/setup', body);
    assert.equal((await setUp()).body.error.details.errors[0].path, '/code');
    assert.equal((await setUp({ code: wrongCode(secret) })).body.error.code, 'MFA_CODE_INVALID');
    assert.equal((await setUp({ code: '1', backup_code: '2' })).status, 422);
    const next = (await setUp({ code: codeOf(secret) })).body;
    await forgetSteps(ann);
    const mfa_token = await awaited(ann);
    assert.equal((await challenge(ann.server, { mfa_token, code: codeOf(next.secret) })).status, 401);
    assert.equal((await challenge(ann.server, { mfa_token, code: codeOf(secret) })).status, 200);
    const waiting = await awaited(ann);
    const verified = await ann.call('POST', '/v1/auth/mfa/verify', { token: codeOf(next.secret) });
    assert.equal(verified.status, 200);
    await forgetSteps(ann);
    const over = await challenge(ann.server, { mfa_token: waiting, code: codeOf(next.secret) });
    assert.equal(over.body.error.code, 'MFA_TOKEN_INVALID', 'what waited for the old one is over');
    const token = await awaited(ann);
    for (const old of [{ code: codeOf(secret) }, { backup_code: codes[0] }])
      assert.equal((await challenge(ann.server, { mfa_token: token, ...old })).status, 401);
    assert.equal(
      (await challenge(ann.server, { mfa_token: token, backup_code: next.backup_codes[0] })).status,
      200,
    );
    // Whoever lost the authenticator sets up another one with a backup code.
    assert.equal((await setUp({ backup_code: next.backup_codes[1] })).status, 200);
    assert.equal((await setUp({ backup_code: next.backup_codes[1] })).status, 403);
  });

  it('bears names of any length in its picture', async () => {
    const ann = await newPerson({ username: '🌰'.repeat(120) });
    assert.equal((await ann.call('POST', '/v1/auth/mfa/setup')).status, 200);
  });

  it('keeps the secret out of claims, tokens, facts and the database’s plain text', async () => {
    const ann = await newPerson();
    const { secret, codes } = await enableMfa(ann);
    const me = await ann.call('GET', '/v1/identity/me');
    const facts = (await factsOf(ann)).map(({ text }) => text).join();
    const tables = await Promise.all(
      ['mfa_factors', 'mfa_backup_codes', 'mfa_setups', 'identities', 'accounts'].map((table) =>
        query(`select row_to_json(t)::text as text from ${table} t where tenant_id = $1`, [ann.tenant]),
      ),
    );
    const { Secret } = await import('otpauth');
    const hex = Buffer.from(Secret.fromBase32(secret).bytes).toString('hex');
    for (const text of [me.text, facts, JSON.stringify(tables), ann.token])
      for (const hidden of [secret, hex, ...codes]) assert.ok(!text.includes(hidden));
    assert.match(facts, /mfa\.enabled/);
  });
});

describe('a sign-in with MFA', () => {
  it('is over when the identity or its tenant is no longer active', async () => {
    for (const what of ['identity', 'tenant'] as const) {
      const ann = await newPerson();
      const { secret } = await enableMfa(ann);
      const mfa_token = await awaited(ann);
      if (what === 'identity') await query('update identities set is_active = false where id = $1', [ann.id]);
      else await query('update tenants set is_active = false where tenant_id = $1', [ann.tenant]);
      ann.server.app.shared.invalidate(what, what === 'identity' ? `${ann.tenant}/${ann.id}` : ann.tenant);
      assert.equal((await challenge(ann.server, { mfa_token, code: codeOf(secret) })).status, 401, what);
    }
  });
});

describe('backup codes', () => {
  it('are made anew by a code of the authenticator, which is used by it', async () => {
    const ann = await newPerson();
    const { secret, codes } = await enableMfa(ann);
    await steadyClock();
    const renew = (body: object) => ann.call('POST', '/v1/auth/mfa/backup-codes', body);
    assert.equal((await renew({})).status, 422);
    assert.equal((await renew({ backup_code: codes[0] })).status, 422);
    assert.equal((await renew({ code: wrongCode(secret) })).status, 403);
    const code = codeOf(secret);
    const renewed = await renew({ code });
    assert.equal(renewed.status, 200);
    assert.equal(renewed.body.backup_codes.length, 10);
    assert.equal((await renew({ code })).status, 403, 'a code works once, wherever it is used');
    const mfa_token = await awaited(ann);
    assert.equal((await challenge(ann.server, { mfa_token, code })).status, 401);
    assert.equal((await challenge(ann.server, { mfa_token, backup_code: codes[0] })).status, 401);
    const status = (await ann.call('GET', '/v1/auth/mfa/status')).body;
    assert.ok(status.backup_codes_regenerated);
    const good = await challenge(ann.server, { mfa_token, backup_code: renewed.body.backup_codes[9] });
    assert.equal(good.status, 200);
    const none = await newPerson();
    const off = await none.call('POST', '/v1/auth/mfa/backup-codes', { code: '123456' });
    assert.equal(off.body.error.code, 'MFA_NOT_ENABLED');
  });
});

describe('disabling MFA', () => {
  const disable = (person: Person, body?: object) => person.call('DELETE', '/v1/auth/mfa/disable', body);

  it('takes the password and a code, and leaves nothing of it', async () => {
    const ann = await newPerson();
    const { secret, codes } = await enableMfa(ann);
    const waiting = await awaited(ann);
    assert.equal((await disable(ann)).status, 422);
    assert.equal(
      (await disable(ann, { code: codeOf(secret) })).body.error.details.errors[0].path,
      '/password',
    );
    assert.equal((await disable(ann, { password: ann.password })).body.error.details.errors[0].path, '/code');
    const wrong = await disable(ann, { password: 'not the right password', code: codeOf(secret) });
    assert.equal(wrong.body.error.code, 'PASSWORD_INVALID');
    const guessed = await disable(ann, { password: ann.password, code: wrongCode(secret) });
    assert.equal(guessed.body.error.code, 'MFA_CODE_INVALID');
    await awaited(ann);
    assert.equal((await disable(ann, { password: ann.password, backup_code: codes[3] })).status, 200);
    assert.ok((await signIn(ann)).body.access_token);
    const over = await challenge(ann.server, { mfa_token: waiting, code: codeOf(secret) });
    assert.equal(over.body.error.code, 'MFA_TOKEN_INVALID');
    for (const table of ['mfa_factors', 'mfa_backup_codes', 'mfa_setups', 'mfa_challenges'])
      assert.deepEqual(await query(`select 1 from ${table} where tenant_id = $1`, [ann.tenant]), [], table);
    const again = await disable(ann, { password: ann.password, code: '123456' });
    assert.equal(again.body.error.code, 'MFA_NOT_ENABLED');
    assert.ok((await factsOf(ann)).some(({ type }) => type === 'mfa.disabled'));
  });

  it('is refused while the password is too short to stand alone', async () => {
    const ann = await newPerson();
    const { secret } = await enableMfa(ann);
    const change = (old_password: string, new_password: string) =>
      ann.call('POST', '/v1/auth/change-password', { old_password, new_password });
    assert.equal((await change(ann.password, 'wl7 gat')).status, 422);
    assert.equal(
      (await change(ann.password, 'wl7 gate')).status,
      200,
      'eight will do beside a second factor',
    );
    await forgetSteps(ann);
    const code = codeOf(secret);
    const refused = await disable(ann, { password: 'wl7 gate', code });
    assert.equal(refused.status, 422);
    assert.equal(refused.body.error.details.errors[0].path, '/password');
    await awaited({ ...ann, password: 'wl7 gate' });
    assert.equal((await change('wl7 gate', ann.password)).status, 200);
    // What was refused used no code.
    assert.equal((await disable(ann, { password: ann.password, code })).status, 200);
  });

  it('asks nobody for a password who has none', async () => {
    const admin = await newTenant('admin');
    const member = await newMember(admin, 'user');
    const person = { ...member, username: '', password: '', server: await testServer() };
    const { secret } = await enableMfa(person);
    assert.equal((await disable(person, { code: codeOf(secret) })).status, 200);
  });
});

describe('who may speak of passwords and second factors', () => {
  it('neither keys, nor agents, nor whoever acts for somebody', async () => {
    const admin = await newPerson();
    const agent = await newMember(admin, 'agent');
    const keys = await Promise.all(
      [undefined, ['admin'], ['write'], ['credentials:update', 'credentials:read']].map((scopes) =>
        newKey(admin, scopes ? { scopes } : {}),
      ),
    );
    const { app } = await testServer();
    for (const who of [agent, ...keys]) {
      for (const [method, path, body] of [
        ['POST', 'mfa/setup', undefined],
        ['POST', 'mfa/verify', { token: '123456' }],
        ['POST', 'mfa/backup-codes', { code: '123456' }],
        ['GET', 'mfa/status', undefined],
        ['DELETE', 'mfa/disable', { password: goodPassword, code: '123456' }],
        ['POST', 'change-password', { old_password: goodPassword, new_password: 'a hazel opens the gate' }],
      ] as const) {
        const reply = await who.call(method, `/v1/auth/${path}`, body);
        assert.equal(reply.status, 403, `${path} ${reply.text}`);
        assert.equal(reply.body.error.code, 'AUTH_FORBIDDEN');
      }
    }
    const ctx = {
      ...systemCtx(app, admin.tenant, uuidv7()),
      actor: {
        type: 'identity' as const,
        identity_id: admin.id,
        external_id: admin.username,
        role: 'admin',
        claims: {},
        credential: uuidv7(),
        delegation: {
          grant_id: uuidv7(),
          agents: [{ identity_id: agent.id, external_id: 'agent', role: 'admin', claims: {} }],
          scopes: [['admin']],
        },
      },
    };
    await assert.rejects(mfaStatus(ctx), { status: 403 });
  });
});

describe('an identity that is deleted', () => {
  it('takes its account, names, resets and factor with it', async () => {
    const ann = await newPerson({ email: 'gone@example.com' });
    await enableMfa(ann);
    await awaited(ann);
    await ann.call('POST', '/v1/auth/mfa/setup', {});
    await query(
      `insert into password_resets (tenant_id, identity_id, token_hash, created_at, expires_at) values ($1, $2, '\\x00', now(), now())`,
      [ann.tenant, ann.id],
    );
    await query('delete from identities where tenant_id = $1 and id = $2', [ann.tenant, ann.id]);
    for (const table of [
      'accounts',
      'login_names',
      'password_resets',
      'mfa_factors',
      'mfa_backup_codes',
      'mfa_challenges',
      'mfa_setups',
    ])
      assert.deepEqual(await query(`select 1 from ${table} where tenant_id = $1`, [ann.tenant]), [], table);
    assert.equal((await signIn(ann)).status, 401);
  });
});
