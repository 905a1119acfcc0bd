import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import { parseOptions } from '@node-rs/argon2';
import { nobodysHash, parameters } from '#modules/access/passwords/hashing.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement as SqlStatement } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  call,
  eventually,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { goodPassword, mailsTo, newPerson, type Person, signIn } from '#test/people.ts';
import type { Running } from '../../src/app.ts';
import { prove } from './statement.ts';

useTestServer();

let named = 0;
const newName = () => `name-${++named}-${Date.now().toString(36)}`;
const newMailbox = () => `${newName()}@example.com`;

const query = async (text: string, values: unknown[] = []) =>
  (await (await testServer()).app.database.operatorPool.query(text, values)).rows;

/** What a caller can see of an answer, but for what differs each time. */
const seen = ({ status, body, headers }: Reply) => {
  const { date, 'x-request-id': id, ...others } = headers;
  assert.ok(id);
  return { status, error: body.error, message: body.message, headers: others };
};

const deactivate = async ({ server, tenant, id }: Person, what: 'identity' | 'tenant') => {
  if (what === 'identity')
    await query('update identities set is_active = false where tenant_id = $1 and id = $2', [tenant, id]);
  else await query('update tenants set is_active = false where tenant_id = $1', [tenant]);
  server.app.shared.invalidate(what, what === 'identity' ? `${tenant}/${id}` : tenant);
};

const hashesMade = async ({ app }: Running): Promise<number> => {
  const { values } = await app.metrics.passwordHash.get();
  return values
    .filter(({ metricName }) => metricName?.endsWith('_count'))
    .reduce((sum, { value }) => sum + value, 0);
};

let cases: Promise<Record<string, Person & { tenant?: string }>> | undefined;

/** Sign-ins that fail, each for another reason. */
const failing = () => {
  cases ??= (async () => {
    const known = await newPerson();
    const asleep = await newPerson();
    await deactivate(asleep, 'identity');
    const closed = await newPerson();
    await deactivate(closed, 'tenant');
    const without = await newPerson();
    await query('update accounts set password_hash = null where tenant_id = $1', [without.tenant]);
    return {
      'an unknown name': { ...known, username: 'nobody-has-this-name' },
      'a wrong password': { ...known, password: 'not the right password' },
      'an unknown tenant': { ...known, tenant: 'no-such-tenant' },
      'what can not be a tenant': { ...known, tenant: 'NO tenant\n' },
      'a name of another tenant': { ...known, tenant: (await newPerson()).tenant },
      'an inactive identity, with its password': asleep,
      'an inactive tenant, with a password of it': closed,
      'an account without a password': without,
    };
  })();
  return cases;
};

const watching = new AsyncLocalStorage<string[]>();

/** The statements about accounts, identities and tokens that something asks the database, in order; not what the background asks meanwhile. */
async function askedFor(work: () => Promise<unknown>): Promise<string[]> {
  const { database } = (await testServer()).app;
  const { tenant, operator } = database;
  const asked: string[] = [];
  const note = ({ text }: SqlStatement<unknown>) => {
    if (/accounts|login_names|password_reset|invitations|identities|attempts/.test(text))
      watching.getStore()?.push(text);
  };
  const watched = (db: Db): Db => ({
    ...db,
    batch: (statements) => {
      for (const one of statements) note(one);
      return db.batch(statements);
    },
    rows: (one) => {
      note(one);
      return db.rows(one);
    },
    one: (statement) => {
      note(statement);
      return db.one(statement);
    },
    run: (one) => {
      note(one);
      return db.run(one);
    },
    transaction: (inside) => db.transaction((tx) => inside(watched(tx))),
  });
  database.tenant = (id) => watched(tenant(id));
  database.operator = watched(operator);
  try {
    await watching.run(asked, work);
  } finally {
    database.tenant = tenant;
    database.operator = operator;
  }
  return asked;
}

async function invited(): Promise<{ id: string; token: string; email: string; admin: Person }> {
  const admin = await newPerson();
  const email = newMailbox();
  const reply = await admin.call('POST', '/v1/invitations/', { email, role: 'user' });
  const mail = await eventually('the mail', async () => (await mailsTo(email))[0]);
  return { id: reply.body.id, token: /inv_[\w.-]+/.exec(mail.text ?? '')![0], email, admin };
}

prove('who is here is not to be learned', [
  {
    id: 'ENUM-01',
    source: 'ASVS 6.3.8',
    says: 'a failed sign-in is answered with the same status, words and headers, whatever was wrong',
    guard: 'modules/access/passwords/sign-in.ts: login',
    test: async () => {
      const people = await failing();
      const wanted = seen(await signIn(people['an unknown name']!));
      assert.deepEqual([wanted.status, wanted.error.code], [401, 'INVALID_CREDENTIALS']);
      for (const [what, person] of Object.entries(people))
        assert.deepEqual(seen(await signIn(person)), wanted, what);
    },
  },
  {
    id: 'ENUM-02',
    source: 'ASVS 6.3.8, NIST 800-63B-4 3.1.1.2',
    says: 'a failed sign-in costs one hash of full cost, whether there is such an account or not',
    guard: 'modules/access/passwords/hashing.ts: nobodysHash',
    test: async () => {
      for (const [what, person] of Object.entries(await failing())) {
        const before = await hashesMade(person.server);
        await signIn(person);
        assert.equal((await hashesMade(person.server)) - before, 1, what);
      }
      const { memoryCost, timeCost, parallelism } = parseOptions(nobodysHash);
      assert.deepEqual({ memoryCost, timeCost, parallelism }, parameters);
    },
  },
  {
    id: 'ENUM-03',
    source: 'ASVS 6.3.8',
    says: 'a failed sign-in asks the database the same, whether there is such an account or not',
    guard: 'modules/access/passwords/sign-in.ts: loginFailed',
    test: async () => {
      const people = await failing();
      const wanted = await askedFor(() => signIn(people['an unknown name']!));
      assert.ok(wanted.some((text) => text.includes('login_names')));
      for (const what of ['a wrong password', 'an unknown tenant', 'an account without a password'])
        assert.deepEqual(await askedFor(() => signIn(people[what]!)), wanted, what);
    },
  },
  {
    id: 'ENUM-04',
    source: 'ASVS 6.3.8',
    says: 'a password reset is answered and worked on in the same way for names there are and names there are not',
    guard: 'modules/access/passwords/reset.ts: requestReset',
    test: async () => {
      const email = newMailbox();
      const ann = await newPerson({ email });
      const silent = await newPerson();
      const ask = (body: object) => call('POST', '/v1/auth/reset-password', { body });
      const wanted: { reply?: unknown; asked?: string[] } = {};
      for (const body of [
        { username: newName() },
        { username: ann.username },
        { username: silent.username },
        { email },
        { email: newMailbox() },
        { username: ann.username, tenant: silent.tenant },
        { username: ann.username, tenant: 'no such tenant' },
      ]) {
        let reply: unknown;
        const asked = await askedFor(async () => {
          reply = seen(await ask(body));
        });
        // What the background asks meanwhile is its own.
        const own = asked.filter((text) => text.includes('insert into password_reset_requests'));
        assert.ok(
          !asked.some((text) => text.includes('insert into password_resets')),
          'no mail in the request',
        );
        wanted.reply ??= reply;
        wanted.asked ??= own;
        assert.deepEqual([reply, own], [wanted.reply, wanted.asked], JSON.stringify(body));
      }
      assert.equal(wanted.asked?.length, 1);
    },
  },
  {
    id: 'ENUM-05',
    source: 'ASVS 6.3.8',
    says: 'a registration does not tell whether anybody else has the name, and costs the same',
    guard: 'modules/access/registration/service.ts: signUp',
    test: async () => {
      const { server, username } = await newPerson();
      const register = (name: string) =>
        call('POST', '/v1/auth/register', { body: { username: name, password: goodPassword } });
      const shapes: unknown[] = [];
      for (const name of [username, newName()]) {
        const before = await hashesMade(server);
        const reply = await register(name);

        shapes.push({
          status: reply.status,
          fields: Object.keys(reply.body),
          role: reply.body.identity.role,
          hashes: (await hashesMade(server)) - before,
          headers: Object.keys(seen(reply).headers),
        });
      }
      assert.deepEqual(shapes[0], shapes[1]);
    },
  },
  {
    id: 'ENUM-06',
    source: 'ASVS 6.3.8',
    says: 'an invitation does not tell whether the address has an identity, here or in another tenant',
    guard: 'modules/access/invitations/service.ts: createInvitation',
    test: async () => {
      const admin = await newTenant('admin');
      const elsewhere = newMailbox();
      await newPerson({ email: elsewhere, username: elsewhere });
      const here = newMailbox();
      await newPerson({ email: here, username: here, by: admin });
      const shapes = [];
      for (const email of [newMailbox(), elsewhere, here]) {
        const reply = await admin.call('POST', '/v1/invitations/', { email, role: 'user' });
        shapes.push({ status: reply.status, fields: Object.keys(reply.body), state: reply.body.status });
      }
      assert.equal(shapes[0]!.status, 200);
      for (const shape of shapes) assert.deepEqual(shape, shapes[0]);
    },
  },
  {
    id: 'ENUM-07',
    source: 'ASVS 6.3.8, ASVS 6.6.2',
    says: 'tokens of invitations that are wrong get one answer after one and the same look-up',
    guard: 'modules/access/invitations/token.ts: placeOf',
    test: async () => {
      const revoked = await invited();
      await revoked.admin.call('DELETE', `/v1/invitations/${revoked.id}`);
      const live = await invited();
      const texts: Record<string, string> = {
        'none at all': 'nonsense',
        'a revoked one': revoked.token,
        'another secret': live.token.slice(0, -43) + 'A'.repeat(43),
        'of another tenant': live.token.replace(live.admin.tenant, revoked.admin.tenant),
        'of no tenant': `inv_nobody_${uuidv7().replaceAll('-', '')}_${randomBytes(32).toString('base64url')}`,
      };
      for (const [method, path] of [
        ['GET', 'validate'],
        ['POST', 'accept'],
      ] as const) {
        let wanted: unknown[] | undefined;
        for (const [what, token] of Object.entries(texts)) {
          let reply: unknown;
          const asked = await askedFor(async () => {
            reply = seen(
              await call(method, `/v1/invitations/${path}/${token}`, method === 'GET' ? {} : { body: {} }),
            );
          });
          const own = asked.filter((text) => text.includes('from invitations i'));
          wanted ??= [reply, own];
          assert.equal(own.length, 1, what);
          assert.deepEqual([reply, own], wanted, what);
        }
      }
      assert.equal((await call('GET', `/v1/invitations/validate/${live.token}`)).status, 200);
    },
  },
  {
    id: 'ENUM-08',
    source: 'ASVS 6.3.8, ASVS 8.4.1',
    says: 'an external id that another tenant has is free, so that nobody learns of it by trying',
    guard: 'modules/access/identity/store.ts: insertIdentity',
    test: async () => {
      const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
      const external_id = newName();
      assert.equal((await ann.call('POST', '/v1/identity/', { external_id, role: 'user' })).status, 200);
      assert.equal((await bob.call('POST', '/v1/identity/', { external_id, role: 'user' })).status, 200);
      const member = await newMember(bob, 'user');
      const taken = newName();
      await ann.call('POST', '/v1/identity/', { external_id: taken, role: 'user' });
      const changed = await bob.call('PUT', `/v1/identity/${member.id}`, { external_id: taken });
      assert.equal(changed.status, 200, changed.text);
    },
  },
]);
