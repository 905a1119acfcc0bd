import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { type EmbeddedDatabase, openEmbedded } from './open.ts';

let db: EmbeddedDatabase;
let owner: pg.Pool;
let app: pg.Pool;

before(async () => {
  db = await openEmbedded('memory://', { ownerWaitMs: 300 });
  owner = db.createPool({ max: 8 });
  app = db.createPool({ role: 'app', max: 8 });
  await owner.query(`
    CREATE ROLE app;
    CREATE ROLE reader;
    CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
    INSERT INTO account SELECT g, 1000 FROM generate_series(1, 20) g;
    CREATE TABLE note (tenant_id text NOT NULL, body text NOT NULL);
    ALTER TABLE note ENABLE ROW LEVEL SECURITY;
    ALTER TABLE note FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON note USING (tenant_id = current_setting('app.tenant_id', true));
    GRANT ALL ON note, account TO app;
    INSERT INTO note SELECT CASE WHEN g <= 3 THEN 'a' ELSE 'b' END, g::text FROM generate_series(1, 10) g;`);
});

after(() => db.close());

async function withClient<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    return await work(client);
  } finally {
    client.release();
  }
}

async function countNotes(client: pg.PoolClient | pg.Pool): Promise<number> {
  return (await client.query('SELECT count(*)::int AS n FROM note')).rows[0].n;
}

test('two connections use one statement name for two statements', async () => {
  await withClient(owner, async (first) => {
    await withClient(owner, async (second) => {
      await first.query({ name: 'same', text: 'SELECT 1 AS x' });
      await second.query({ name: 'same', text: 'SELECT 2 AS x' });
      assert.equal((await first.query({ name: 'same', text: 'SELECT 1 AS x' })).rows[0].x, 1);
      assert.equal((await second.query({ name: 'same', text: 'SELECT 2 AS x' })).rows[0].x, 2);
    });
  });
});

test('names too long for PostgreSQL are kept apart', async () => {
  const long = 'n'.repeat(61);
  await withClient(owner, async (client) => {
    assert.equal((await client.query({ name: `${long}a`, text: 'SELECT 1 AS x' })).rows[0].x, 1);
    assert.equal((await client.query({ name: `${long}b`, text: 'SELECT 2 AS x' })).rows[0].x, 2);
  });
});

test('the statements of a closed connection are deallocated', async () => {
  const pool = db.createPool({ max: 1 });
  await pool.query({ name: 'short_lived', text: 'SELECT 1' });
  const named = "SELECT count(*)::int AS n FROM pg_prepared_statements WHERE name LIKE '%short\\_lived'";
  assert.equal((await owner.query(named)).rows[0].n, 1);
  await pool.end();
  // pool.end() does not wait until its connections have said goodbye.
  await sleep(20);
  assert.equal((await owner.query(named)).rows[0].n, 0);
});

test('others wait while a transaction is open and see only what it committed', async () => {
  await withClient(owner, async (client) => {
    await client.query('BEGIN');
    await client.query('UPDATE account SET balance = 0 WHERE id = 1');
    const other = owner.query('SELECT balance FROM account WHERE id = 1');
    await sleep(30);
    await client.query('ROLLBACK');
    assert.equal((await other).rows[0].balance, 1000);
  });
});

test('waiting units run in order of arrival', async () => {
  const order: number[] = [];
  await withClient(owner, async (client) => {
    await client.query('BEGIN');
    const waiting = [1, 2, 3, 4].map((n) => app.query(`SELECT ${n}`).then(() => order.push(n)));
    await sleep(20);
    await client.query('COMMIT');
    await Promise.all(waiting);
  });
  assert.deepEqual(order, [1, 2, 3, 4]);
});

test('a connection that closes inside a transaction is rolled back', async () => {
  const client = await owner.connect();
  await client.query('BEGIN');
  await client.query('DELETE FROM account');
  client.release(true);
  assert.equal((await owner.query('SELECT count(*)::int AS n FROM account')).rows[0].n, 20);
});

test('the pool used inside an open transaction fails with 55P03 instead of waiting for ever', async () => {
  await withClient(owner, async (holder) => {
    await holder.query('BEGIN');
    await withClient(owner, async (waiter) => {
      const outcomes = await Promise.allSettled([
        waiter.query('BEGIN'),
        waiter.query('DELETE FROM account'),
        waiter.query('COMMIT'),
      ]);
      for (const outcome of outcomes) {
        assert.equal(outcome.status, 'rejected');
        assert.equal(outcome.status === 'rejected' && outcome.reason.code, '55P03');
        assert.match(String(outcome.status === 'rejected' && outcome.reason), /inside an open transaction/);
      }
      await holder.query('COMMIT');
      assert.equal((await waiter.query('SELECT count(*)::int AS n FROM account')).rows[0].n, 20);
    });
  });
});

test('200 concurrent transfers on 8 connections keep the sum', async () => {
  await Promise.all(
    Array.from({ length: 200 }, (_, n) =>
      withClient(n % 2 ? owner : app, async (client) => {
        const [from, to] = [1 + (n % 20), 1 + ((n * 7 + 3) % 20)];
        const update = { name: 'update', text: 'UPDATE account SET balance = balance + $2 WHERE id = $1' };
        await client.query('BEGIN');
        await client.query({ ...update, values: [from, -n] });
        if (n % 3 === 0) await sleep(1);
        await Promise.all([
          client.query({ ...update, values: [to, n] }),
          client.query(n % 5 === 0 ? 'ROLLBACK' : 'COMMIT'),
        ]);
      }),
    ),
  );
  const { rows } = await owner.query('SELECT sum(balance)::int AS total FROM account');
  assert.equal(rows[0].total, 20_000);
});

test('row security holds for the app role and not for the owner, interleaved', async () => {
  await owner.query('ALTER ROLE postgres BYPASSRLS');
  const inTenant = (tenant: string) =>
    withClient(app, async (client) => {
      const answers = await Promise.all([
        client.query('BEGIN'),
        client.query({
          name: 'enter',
          text: "SELECT set_config('app.tenant_id', $1, true)",
          values: [tenant],
        }),
        client.query({
          name: 'notes',
          text: 'SELECT count(*)::int AS n, current_user::text AS role FROM note',
        }),
        client.query('COMMIT'),
      ]);
      return answers[2].rows[0];
    });
  const seen = await Promise.all(
    Array.from({ length: 60 }, (_, n) =>
      n % 3 === 0 ? countNotes(owner) : n % 3 === 1 ? inTenant('a') : inTenant('b'),
    ),
  );
  seen.forEach((answer, n) => {
    const expected = [10, { n: 3, role: 'app' }, { n: 7, role: 'app' }][n % 3];
    assert.deepEqual(answer, expected);
  });
  assert.equal(await countNotes(app), 0);
});

test('a role changed by a client does not leak into another connection', async () => {
  await withClient(app, async (first) => {
    await withClient(app, async (second) => {
      const roleOf = async (client: pg.PoolClient) =>
        (await client.query('SELECT current_user::text AS role')).rows[0].role;
      const changes = [
        ['SET ROLE reader'],
        ['RESET ROLE'],
        ['BEGIN', 'SET ROLE reader', 'COMMIT'],
        ['BEGIN', 'RESET ROLE', 'ROLLBACK'],
        ['BEGIN', 'SET LOCAL ROLE reader', 'SELECT 1', 'COMMIT'],
        ["DO $$ BEGIN PERFORM set_config('ro' || 'le', 'reader', false); END $$"],
        ['SET SESSION AUTHORIZATION reader'],
      ];
      for (const texts of changes) {
        for (const text of texts) await first.query(text);
        assert.equal(await roleOf(second), 'app', texts.join('; '));
        assert.equal(await roleOf(first), 'app', texts.join('; '));
      }
    });
  });
  assert.equal((await owner.query('SELECT current_user::text AS role')).rows[0].role, 'postgres');
});

test('session settings of one connection do not leak into another', async () => {
  await withClient(owner, async (first) => {
    await withClient(owner, async (second) => {
      const show = async (name: string) =>
        (await second.query('SELECT current_setting($1, true) AS value', [name])).rows[0].value;
      await first.query("SET application_name = 'mine'; SET search_path = pg_catalog");
      assert.equal(await show('application_name'), '');
      assert.equal(await show('search_path'), 'public');
      await first.query({
        name: 'set',
        text: "SELECT set_config('app.tenant_id', $1, false)",
        values: ['a'],
      });
      assert.equal(await show('app.tenant_id'), '');
      await first.query({
        name: 'set',
        text: "SELECT set_config('app.tenant_id', $1, false)",
        values: ['b'],
      });
      assert.equal(await show('app.tenant_id'), '');
    });
  });
});

test('a role that does not exist fails the query and nothing else', async () => {
  const nobody = db.createPool({ role: 'nobody "here"', max: 1 });
  await assert.rejects(nobody.query('SELECT 1'), { code: '22023' });
  await assert.rejects(nobody.query('SELECT $1::int', [1]), { code: '22023' });
  assert.equal(await countNotes(app), 0);
  await nobody.end();
});
