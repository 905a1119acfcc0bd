import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import {
  type Caller,
  call,
  engine,
  eventually,
  newKey,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { newPerson } from '#test/people.ts';

// Two requests at the same rows at once. The embedded database does one transaction after another.
useTestServer();

const describeAtOnce: typeof describe =
  engine === 'postgres' ? describe : ((() => {}) as unknown as typeof describe);

const at = ({ id }: { id: string }) => `/v1/identity/${id}`;
const codeOf = ({ status, body }: Reply) => `${status} ${body?.error?.code ?? ''}`.trim();

/** So many statements that hold this text wait for a lock. */
async function waiting({ tenant }: Caller, text: string, count = 1): Promise<void> {
  const { app } = await testServer();
  // As the role whose statements they are: nobody else is shown them.
  const db = app.database.tenant(tenant);
  await eventually(`${count} to wait at ${text}`, async () => {
    const rows = await db.rows(sql`
      select 1 from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock' and position(${text} in query) > 0`);
    return rows.length >= count;
  });
}

/** Works while a row of a tenant is locked, and what `work` started may then end. */
async function whileLocked<T>(tenant: string, row: Statement, work: (tx: Db) => Promise<T>): Promise<T> {
  const { app } = await testServer();
  return app.database.tenant(tenant).transaction(async (tx) => {
    assert.equal((await tx.rows(row)).length, 1);
    return work(tx);
  });
}

describeAtOnce('a credential that is made while its identity is deactivated', () => {
  /**
   * Stops a deactivation after it has locked the identity, where it ends the identity's keys; makes a credential; and lets
   * both go on.
   */
  async function madeMeanwhile(
    admin: Caller,
    leaving: Caller,
    table: string,
    make: () => Promise<Reply>,
    leave: () => Promise<Reply>,
  ) {
    const held = await newKey(leaving);
    const row = sql`select id from api_keys where tenant_id = ${admin.tenant} and id = ${held.keyId} for update`;
    const [left, made] = await whileLocked(admin.tenant, row, async () => {
      const left = leave();
      await waiting(admin, 'update api_keys');
      const made = make();
      await waiting(admin, `insert into ${table}`);
      return [left, made] as const;
    });
    assert.equal((await left).status, 200, (await left).text);
    return made;
  }

  const deactivation = (admin: Caller, who: Caller) => () => admin.call('PUT', at(who), { is_active: false });
  const activate = async (admin: Caller, who: Caller) =>
    assert.equal((await admin.call('PUT', at(who), { is_active: true })).status, 200);

  for (const way of ['deactivated', 'deleted softly'] as const)
    it(`is no key of somebody ${way}`, async () => {
      const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
      const [user, stays] = [await newMember(admin, 'user'), await newMember(other, 'user')];
      const leave = way === 'deactivated' ? deactivation(admin, user) : () => admin.call('DELETE', at(user));
      const key = { name: 'kept' };
      const make = () => user.call('POST', '/v1/api-keys/', key);
      const made = await madeMeanwhile(admin, user, 'api_keys', make, leave);
      assert.equal(codeOf(made), '409 IDENTITY_INACTIVE');
      await activate(admin, user);
      const { app } = await testServer();
      const live = await app.database.tenant(admin.tenant).rows(sql`
        select id from api_keys where tenant_id = ${admin.tenant} and identity_id = ${user.id} and revoked_at is null`);
      assert.deepEqual(live, []);
      assert.equal((await stays.call('POST', '/v1/api-keys/', key)).status, 201);
    });

  it('is no session', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const [person, stays] = [await newPerson({ by: admin }), await newPerson({ by: other })];
    const signIn = ({ username, password }: typeof person) =>
      call('POST', '/v1/auth/login', { body: { username, password } });
    const leave = deactivation(admin, person);
    const made = await madeMeanwhile(admin, person, 'sessions', () => signIn(person), leave);
    assert.equal(codeOf(made), '401 INVALID_CREDENTIALS');
    await activate(admin, person);
    const { app } = await testServer();
    const live = await app.database.tenant(admin.tenant).rows(sql`
      select id from sessions where tenant_id = ${admin.tenant} and identity_id = ${person.id} and is_active`);
    assert.deepEqual(live, []);
    assert.equal((await signIn(stays)).status, 200);
  });

  it('is no leave to act, given or taken', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    for (const leaves of ['agent', 'user'] as const) {
      const [user, agent] = [await newMember(admin, 'user'), await newMember(admin, 'agent')];
      const make = () => user.call('POST', `${at(agent)}/delegate`);
      const who = leaves === 'agent' ? agent : user;
      const made = await madeMeanwhile(admin, who, 'delegations', make, deactivation(admin, who));
      assert.equal(codeOf(made), '404 NOT_FOUND');
      const { app } = await testServer();
      const live = await app.database.tenant(admin.tenant).rows(sql`
        select id from delegations where tenant_id = ${admin.tenant} and agent_id = ${agent.id} and revoked_at is null`);
      assert.deepEqual(live, []);
    }
    const agent = await newMember(other, 'agent');
    assert.equal((await other.call('POST', `${at(agent)}/delegate`)).status, 200);
  });
});
