import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { uuidv7 } from '#platform/ids.ts';
import { type Caller, callServer, eventually, newTenant, useOwnServer } from '#test/harness.ts';
import { type OidcServer, openOidcServer } from '#test/oidc-server.ts';
import {
  awaited,
  challenge,
  codeOf,
  enableMfa,
  mailsTo,
  newPerson,
  type Person,
  signIn,
} from '#test/people.ts';
import { openDoor, toCallback } from '#test/sign-in.ts';
import { insertMail } from '../mails/store.ts';
import { insertCode } from '../sso/flow-store.ts';

// What is under way for somebody who is deactivated ends, so that it is worth nothing when somebody activates it again.

const page = 'https://app.example.com/signed-in';

describe('what is under way for somebody who leaves', () => {
  let idp: OidcServer;
  const server = useOwnServer(async () => {
    idp = await openOidcServer();
    return { FETCH_ALLOW_HOSTS: idp.host, SSO_RETURN_TO_ORIGINS: new URL(page).origin };
  });
  after(() => idp.stop());

  const rows = (tenant: string, table: string, id: string) =>
    server()
      .app.database.operatorPool.query(`select 1 from ${table} where tenant_id = $1 and identity_id = $2`, [
        tenant,
        id,
      ])
      .then((found) => found.rows.length);
  const setActive = async (admin: Caller, id: string, is_active: boolean) =>
    assert.equal((await admin.call('PUT', `/v1/identity/${id}`, { is_active })).status, 200);
  /** As another process does it: this one has not heard of it yet. */
  const leaveElsewhere = (who: { tenant: string; id: string }) =>
    server().app.database.operatorPool.query(
      'update identities set is_active = false where tenant_id = $1 and id = $2',
      [who.tenant, who.id],
    );
  const leaveAndComeBack = async (admin: Caller, id: string) => {
    await setActive(admin, id, false);
    await setActive(admin, id, true);
  };
  /** Somebody of an admin's tenant, and somebody of another. */
  async function people(): Promise<{ admin: Caller; leaving: Person; staying: Person; mailbox: string }> {
    const [admin, other] = [await newTenant('admin', server()), await newTenant('admin', server())];
    const box = () => `leaving-${randomBytes(6).toString('hex')}@example.com`;
    const mailbox = box();
    const leaving = await newPerson({ server: server(), by: admin, email: mailbox });
    const staying = await newPerson({ server: server(), by: other, email: box() });
    return { admin, leaving, staying, mailbox };
  }

  it('is no session for who is made inactive, and nobody signs up inactive', async () => {
    const admin = await newTenant('admin', server());
    const body = { external_id: 'later', role: 'user', is_active: false };
    const made = await admin.call('POST', '/v1/identity/', body);
    assert.deepEqual([made.status, Object.keys(made.body)], [200, ['identity']]);
    const { id } = made.body.identity;
    assert.equal(await rows(admin.tenant, 'sessions', id), 0);
    await setActive(admin, id, true);
    assert.equal(await rows(admin.tenant, 'sessions', id), 0);
    const signUp = await callServer(server(), 'POST', '/v1/identity/', { body });
    assert.deepEqual([signUp.status, signUp.body.error.details.errors[0].path], [422, '/is_active']);
  });

  it('is no sign-in that waits for a second factor', async () => {
    const { admin, leaving, staying } = await people();
    const { secret } = await enableMfa(leaving);
    const others = await enableMfa(staying);
    const [token, kept] = [await awaited(leaving), await awaited(staying)];
    await leaveAndComeBack(admin, leaving.id);
    const late = await challenge(server(), { mfa_token: token, code: codeOf(secret) });
    assert.deepEqual([late.status, late.body.error.code], [401, 'MFA_TOKEN_INVALID']);
    assert.equal((await challenge(server(), { mfa_token: kept, code: codeOf(others.secret) })).status, 200);

    await awaited(leaving);
    await leaveElsewhere(leaving);
    const refused = await signIn(leaving);
    assert.deepEqual([refused.status, refused.body.error?.code], [401, 'INVALID_CREDENTIALS'], refused.text);
    assert.equal(await rows(leaving.tenant, 'mfa_challenges', leaving.id), 1, 'the one of before');
  });

  it('is no second factor that was set up and not verified', async () => {
    const { admin, leaving, staying } = await people();
    const [{ secret }, others] = await Promise.all(
      [leaving, staying].map(async (who) => (await who.call('POST', '/v1/auth/mfa/setup')).body),
    );
    await leaveAndComeBack(admin, leaving.id);
    const again = (await signIn(leaving)).body.access_token;
    const verify = (token: string) =>
      callServer(server(), 'POST', '/v1/auth/mfa/verify', { token, body: { token: codeOf(secret) } });
    const late = await verify(again);
    assert.deepEqual([late.status, late.body.error.code], [409, 'MFA_NOT_SET_UP']);
    const verified = await staying.call('POST', '/v1/auth/mfa/verify', { token: codeOf(others.secret) });
    assert.equal(verified.status, 200);
    await leaveElsewhere(leaving);
    const begun = await callServer(server(), 'POST', '/v1/auth/mfa/setup', { token: again });
    assert.ok([401, 404].includes(begun.status), begun.text);
    assert.equal(await rows(leaving.tenant, 'mfa_setups', leaving.id), 0);
  });

  it('is no reset of a password, asked for at that moment or waiting as a mail', async () => {
    const { admin, leaving, staying, mailbox } = await people();
    const db = server().app.database.tenant(leaving.tenant);
    const mail = (kind: string) =>
      insertMail(leaving.tenant, uuidv7(), kind, Buffer.from('sealed'), leaving.id, new Date());
    await db.batch([mail('password_reset'), mail('notice.changed')]);
    await leaveAndComeBack(admin, leaving.id);
    assert.equal(await rows(leaving.tenant, 'mails', leaving.id), 1, 'a notice still leaves');

    assert.equal((await signIn(leaving)).status, 200, 'this process knows it as active');
    await leaveElsewhere(leaving);
    for (const { username } of [leaving, staying]) {
      const asked = await callServer(server(), 'POST', '/v1/auth/reset-password', { body: { username } });
      assert.equal(asked.status, 200);
    }
    const { operatorPool } = server().app.database;
    await eventually(
      'the requests',
      async () => (await operatorPool.query('select 1 from password_reset_requests')).rows.length === 0,
    );
    assert.equal(await rows(leaving.tenant, 'password_resets', leaving.id), 0);
    assert.equal(await rows(staying.tenant, 'password_resets', staying.id), 1);
    assert.deepEqual(await mailsTo(mailbox), []);
  });

  it('is no code of a sign-in by a provider', async () => {
    const [admin, other] = [await newTenant('admin', server()), await newTenant('admin', server())];
    const returned = async (owner: Caller) => {
      const door = await openDoor(owner, idp);
      const person = `leaving-${randomBytes(6).toString('hex')}`;
      idp.people.set(person, { email: `${person}@example.com`, email_verified: true });
      const code_verifier = randomBytes(32).toString('base64url');
      const code_challenge = createHash('sha256').update(code_verifier).digest('base64url');
      const query = { return_to: page, code_challenge };
      const { browser, callback } = await toCallback(server(), idp, door, person, query);
      const { headers } = await browser.get(callback);
      return { code: new URL(headers.location!).searchParams.get('code')!, code_verifier };
    };
    const [left, stayed] = [await returned(admin), await returned(other)];
    const listed = (await admin.call('GET', '/v1/identity/')).body as { id: string }[];
    const { id } = listed.find((one) => one.id !== admin.id)!;
    await leaveAndComeBack(admin, id);
    const exchange = (body: object) => callServer(server(), 'POST', '/v1/sso/exchange', { body });
    const late = await exchange(left);
    assert.deepEqual([late.status, late.body.error.code], [400, 'SSO_INVALID_CODE']);
    assert.equal((await exchange(stayed)).status, 200);

    await leaveElsewhere({ tenant: admin.tenant, id });
    const row = { identity_id: id, sealed: Buffer.from('sealed') };
    const db = server().app.database.tenant(admin.tenant);
    const storing = db.run(
      insertCode(admin.tenant, randomBytes(32), 'x', row, new Date(Date.now() + 60_000)),
    );
    await assert.rejects(storing, { code: '23502', column: 'identity_id' });
  });
});
