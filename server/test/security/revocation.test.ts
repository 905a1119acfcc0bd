import assert from 'node:assert/strict';
import {
  type Caller,
  call,
  eventually,
  newKey,
  newMember,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { newPerson, signIn } from '#test/people.ts';
import { prove } from './statement.ts';

useTestServer();

const opens = async (token: string): Promise<boolean> =>
  (await call('GET', '/v1/identity/me', { token })).status === 200;
const refresh = (refresh_token: string): Promise<Reply> =>
  call('POST', '/v1/sessions/refresh', { body: { refresh_token } });

/**
 * Twelve at a time ask without a pause, before, while and after something is taken away.
 * Who asked after its answer was there gets in not once.
 */
async function neverAfter(
  asks: () => Promise<boolean>,
  takeAway: () => Promise<Reply | undefined>,
): Promise<void> {
  let gone = false;
  let before = 0;
  const late: boolean[] = [];
  const ask = async () => {
    while (late.length < 100) {
      const after = gone;
      const accepted = await asks();
      if (after) late.push(accepted);
      else if (accepted) before += 1;
    }
  };
  const asking = Promise.all(Array.from({ length: 12 }, ask));
  await eventually('requests to pass', async () => before > 20);
  const reply = await takeAway();
  gone = true;
  await asking;
  assert.ok(reply === undefined || reply.status < 300, reply?.text);
  assert.equal(late.filter((accepted) => accepted).length, 0);
}

const delegated = async (from: Caller, to: Caller): Promise<{ token: string; grant: string }> => {
  const { body } = await from.call('POST', `/v1/identity/${to.id}/delegate`, { scopes: ['read', 'write'] });
  return { token: body.access_token, grant: body.grant_id };
};

async function withAgent() {
  const admin = await newTenant('admin');
  return { admin, user: await newMember(admin, 'user'), agent: await newMember(admin, 'agent') };
}

prove('what was taken back', [
  {
    id: 'REV-01',
    source: 'ASVS 7.4.1, NIST 800-63B-4 5.1',
    says: 'a session that was ended is refused from its answer on, however many ask meanwhile',
    guard: 'modules/access/sessions/service.ts: endSession',
    test: async () => {
      const ann = await newTenant('user');
      const session = await newSession(ann);
      await neverAfter(
        () => opens(session.access_token),
        () => ann.call('DELETE', `/v1/sessions/${session.id}`),
      );
      assert.equal((await refresh(session.refresh_token)).status, 401);
      assert.ok(await opens(ann.token), 'another one goes on');
    },
  },
  {
    id: 'REV-02',
    source: 'ASVS 7.4.1',
    says: 'whoever signs out is out from the answer on',
    guard: 'modules/access/sessions/service.ts: endSession',
    test: async () => {
      const person = await newPerson();
      const { body } = await signIn(person);
      await neverAfter(
        () => opens(body.access_token),
        () => call('POST', '/v1/auth/logout', { token: body.access_token }),
      );
      assert.equal((await refresh(body.refresh_token)).status, 401);
    },
  },
  {
    id: 'REV-03',
    source: 'ASVS 7.4.5',
    says: 'all sessions that an admin ends for somebody are refused from the answer on',
    guard: 'modules/access/sessions/service.ts: revokeSessions',
    test: async () => {
      const { admin, user } = await withAgent();
      const tokens = [user.token, (await newSession(user)).access_token];
      let turn = 0;
      await neverAfter(
        () => opens(tokens[turn++ % 2]!),
        () => admin.call('DELETE', `/v1/sessions/?identity_id=${user.id}`),
      );
    },
  },
  {
    id: 'REV-04',
    source: 'ASVS 7.4.1, RFC 7009 2',
    says: 'an API key that was revoked is refused from the answer on, however many ask meanwhile',
    guard: 'modules/access/api-keys/service.ts: changed',
    test: async () => {
      const ann = await newTenant('user');
      const key = await newKey(ann);
      await neverAfter(
        () => opens(key.token),
        () => ann.call('DELETE', `/v1/api-keys/${key.keyId}`),
      );
    },
  },
  {
    id: 'REV-05',
    source: 'RFC 7009 2, ASVS 10.4.9',
    says: 'an agent acts for nobody any more from the answer on that took its grant back',
    guard: 'modules/access/delegations/service.ts: recordRevoked',
    test: async () => {
      const { user, agent } = await withAgent();
      const { token, grant } = await delegated(user, agent);
      await neverAfter(
        async () => (await call('GET', '/v1/memory/', { token })).status === 200,
        () => user.call('DELETE', `/v1/delegations/${grant}`),
      );
      assert.ok(await opens(agent.token), 'and is itself as before');
    },
  },
  {
    id: 'REV-06',
    source: 'ASVS 7.4.1, RFC 9700 4.14.2',
    says: 'a grant ends with the session it was made with',
    guard: 'modules/access/delegations/holds.ts: grantHolds',
    test: async () => {
      const { user, agent } = await withAgent();
      const session = await newSession(user);
      const given = await call('POST', `/v1/identity/${agent.id}/delegate`, { token: session.access_token });
      const token = given.body.access_token;
      await neverAfter(
        async () => (await call('GET', '/v1/memory/', { token })).status === 200,
        () => user.call('DELETE', `/v1/sessions/${session.id}`),
      );
    },
  },
  {
    id: 'REV-07',
    source: 'ASVS 8.3.2',
    says: 'a role that was taken away gives nothing from the answer on, to tokens and keys made before',
    guard: 'modules/access/identity/service.ts: identitiesChanged',
    test: async () => {
      const admin = await newTenant('admin');
      const second = await newMember(admin, 'admin');
      const tokens = [second.token, (await newKey(second)).token];
      let turn = 0;
      await neverAfter(
        async () =>
          (await call('GET', `/v1/identity/${admin.id}`, { token: tokens[turn++ % 2]! })).status === 200,
        () => admin.call('PUT', `/v1/identity/${second.id}`, { role: 'user' }),
      );
    },
  },
  {
    id: 'REV-08',
    source: 'RFC 9700 4.14.2, ASVS 10.4.5',
    says: 'a spent refresh token that comes again ends its whole family, and every access token of it',
    guard: 'modules/access/sessions/refresh.ts: judge',
    test: async () => {
      const session = await newSession(await newTenant('user'));
      const second = (await refresh(session.refresh_token)).body;
      const third = (await refresh(second.refresh_token)).body;
      assert.ok(await opens(third.access_token));
      assert.equal((await refresh(session.refresh_token)).status, 401);
      for (const { access_token, refresh_token } of [session, second, third]) {
        assert.equal(await opens(access_token), false);
        assert.equal((await refresh(refresh_token)).status, 401);
      }
    },
  },
  {
    id: 'REV-09',
    source: 'ASVS 7.4.3',
    says: 'a password that was changed ends every other session from the answer on',
    guard: 'modules/access/passwords/service.ts: revokeSessions',
    test: async () => {
      const person = await newPerson();
      const { body } = await signIn(person);
      const change = { old_password: person.password, new_password: 'a hazel opens the gate' };
      await neverAfter(
        () => opens(body.access_token),
        () => person.call('POST', '/v1/auth/change-password', change),
      );
      assert.ok(await opens(person.token), 'the one that changed it goes on');
      assert.equal((await refresh(body.refresh_token)).status, 401);
    },
  },
  {
    id: 'REV-10',
    source: 'ASVS 7.4.1',
    says: 'a look-up that began before a revocation does not bring the credential back to life',
    guard: 'platform/cache.ts: loadInto',
    test: async () => {
      const { app } = await testServer();
      const ann = await newTenant('user');
      const session = await newSession(ann);
      const { tenant } = app.database;
      const held = Promise.withResolvers<void>();
      const asked = Promise.withResolvers<void>();
      // The first look-up reads the row as it is now and answers later only.
      app.database.tenant = (id) => {
        const db = tenant(id);
        if (id !== ann.tenant) return db;
        app.database.tenant = tenant;
        const one: typeof db.one = async (statement) => {
          const row = await db.one(statement);
          asked.resolve();
          await held.promise;
          return row;
        };
        return { ...db, one };
      };
      const early = opens(session.access_token);
      await asked.promise;
      await ann.call('DELETE', `/v1/sessions/${session.id}`);
      held.resolve();
      await early;
      assert.equal(await opens(session.access_token), false);
    },
  },
]);
