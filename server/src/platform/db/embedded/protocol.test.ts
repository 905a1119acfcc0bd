import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type EmbeddedDatabase, openEmbedded } from './open.ts';

let db: EmbeddedDatabase;
let pool: pg.Pool;

before(async () => {
  db = await openEmbedded('memory://');
  pool = db.createPool({ max: 2 });
  await pool.query('CREATE TABLE item (id int PRIMARY KEY, name text)');
});

after(() => db.close());

interface WireConnection {
  stream: { cork(): void; uncork(): void };
  parse(message: { text: string }): void;
  bind(message: { values: string[] }): void;
  execute(message: object): void;
  sync(): void;
}

/** Sends several statements as one unit with a single Sync: an implicit transaction. */
function sendUnit(
  client: pg.PoolClient,
  statements: Array<{ text: string; values: string[] }>,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const unit = new pg.Query({ text: 'unit' });
    const callback = (error: Error | null, result: unknown) => (error ? reject(error) : resolve(result));
    const submit = (connection: WireConnection): null => {
      connection.stream.cork();
      for (const { text, values } of statements) {
        connection.parse({ text });
        connection.bind({ values });
        connection.execute({});
      }
      connection.sync();
      connection.stream.uncork();
      return null;
    };
    client.query(Object.assign(unit, { submit, callback }) as unknown as pg.Submittable);
  });
}

async function sqlState(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work;
  } catch (error) {
    return (error as pg.DatabaseError).code;
  }
  return undefined;
}

async function count(): Promise<number> {
  return (await pool.query('SELECT count(*)::int AS n FROM item')).rows[0].n;
}

test('a startup tells the version and settings of the server', async () => {
  const { rows } = await pool.query('SHOW server_version');
  assert.match(rows[0].server_version, /^\d+\.\d+/);
});

test('the extension vector is there', async () => {
  const { rows } = await pool.query("SELECT '[1,2]'::vector <-> '[1,4]'::vector AS distance");
  assert.equal(rows[0].distance, 2);
});

test('a syntax error leaves the connection usable', async () => {
  const client = await pool.connect();
  assert.equal(await sqlState(client.query('SELEC 1')), '42601');
  assert.equal(await sqlState(client.query('SELEC $1', [1])), '42601');
  assert.equal((await client.query('SELECT $1::int AS x', [7])).rows[0].x, 7);
  client.release();
});

test('a unique violation is known by its SQLSTATE', async () => {
  await pool.query("INSERT INTO item VALUES (1, 'a')");
  assert.equal(await sqlState(pool.query('INSERT INTO item VALUES ($1, $2)', [1, 'b'])), '23505');
  await pool.query('DELETE FROM item');
});

test('an error inside a transaction aborts it until rollback', async () => {
  const client = await pool.connect();
  await client.query('BEGIN');
  assert.equal(await sqlState(client.query('SELECT 1 / $1::int', [0])), '22012');
  assert.equal(await sqlState(client.query('SELECT 1')), '25P02');
  assert.equal(await sqlState(client.query('SELECT $1::int', [1])), '25P02');
  await client.query('ROLLBACK');
  assert.equal((await client.query('SELECT 1 AS x')).rows[0].x, 1);
  client.release();
});

test('several statements before one Sync are one transaction', async () => {
  const client = await pool.connect();
  const insert = 'INSERT INTO item VALUES ($1, $2)';
  await sendUnit(client, [
    { text: insert, values: ['1', 'a'] },
    { text: insert, values: ['2', 'b'] },
  ]);
  assert.equal(await count(), 2);
  const failed = sendUnit(client, [
    { text: insert, values: ['3', 'c'] },
    { text: insert, values: ['1', 'again'] },
    { text: insert, values: ['4', 'd'] },
  ]);
  assert.equal(await sqlState(failed), '23505');
  assert.equal(await count(), 2);
  assert.equal((await client.query('SELECT 5 AS x')).rows[0].x, 5);
  client.release();
  await pool.query('DELETE FROM item');
});

test('pipelined queries get their own answers, errors included', async () => {
  const client = await pool.connect();
  const answers = await Promise.allSettled([
    client.query('SELECT $1::int AS x', [1]),
    client.query('SELECT 1 / $1::int', [0]),
    client.query({ name: 'third', text: 'SELECT $1::int AS x', values: [3] }),
    client.query('SELECT 4 AS x'),
  ]);
  assert.deepEqual(
    answers.map((answer) => (answer.status === 'fulfilled' ? answer.value.rows[0].x : answer.reason.code)),
    [1, '22012', 3, 4],
  );
  client.release();
});

test('a parameter of 10 MB comes back whole', async () => {
  const bytes = Buffer.alloc(10_000_000, 'abcdefg');
  const { rows } = await pool.query('SELECT $1::bytea AS b', [bytes]);
  assert.ok(bytes.equals(rows[0].b));
  const text = await pool.query('SELECT $1::text AS t', ['x'.repeat(10_000_000)]);
  assert.equal(text.rows[0].t.length, 10_000_000);
});

test('results can be binary', async () => {
  const query = {
    text: 'SELECT 258::int AS i, $1::bool AS b',
    values: [true],
    binary: true,
  };
  const { rows } = await pool.query(query);
  assert.deepEqual(rows, [{ i: 258, b: true }]);
});

test('a result of 20,000 rows is whole and in order', async () => {
  const { rows } = await pool.query('SELECT g, md5(g::text) AS m FROM generate_series(1, 20000) g');
  assert.equal(rows.length, 20_000);
  assert.ok(rows.every((row, index) => row.g === index + 1 && row.m.length === 32));
});

test('notices reach the client that caused them', async () => {
  const client = await pool.connect();
  const notices: string[] = [];
  client.on('notice', (notice) => notices.push(notice.message ?? ''));
  await client.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$");
  assert.deepEqual(notices, ['hello']);
  client.release();
});

test('rows can be fetched in portions, and others wait meanwhile', async () => {
  const cursors = db.createPool({ max: 2, pipeline: false });
  const portions = cursors.query({
    text: 'SELECT g FROM generate_series(1, 10) g',
    rows: 3,
  } as pg.QueryConfig);
  const other = cursors.query('SELECT 1 AS x');
  assert.equal((await portions).rows.length, 10);
  assert.equal((await other).rows[0].x, 1);
  await cursors.end();
});

test('COPY FROM STDIN fails cleanly in every form', async () => {
  const client = await pool.connect();
  assert.equal(await sqlState(client.query('COPY item FROM STDIN')), '57014');
  assert.equal(await sqlState(client.query({ text: '/* c */ COPY item FROM STDIN', name: 'copy' })), '57014');
  const failed = sendUnit(client, [
    { text: "INSERT INTO item VALUES (9, 'z')", values: [] },
    { text: 'COPY item FROM STDIN', values: [] },
    { text: 'SELECT 1', values: [] },
  ]);
  assert.equal(await sqlState(failed), '57014');
  assert.equal((await client.query('SELECT 6 AS x')).rows[0].x, 6);
  assert.equal(await count(), 0);
  await client.query('COPY (SELECT 1) TO STDOUT');
  client.release();
});

test('DISCARD ALL and DEALLOCATE ALL are refused', async () => {
  const client = await pool.connect();
  await client.query({ name: 'kept', text: 'SELECT 1 AS x' });
  for (const text of ['DISCARD ALL', ' deallocate prepare all', 'DEALLOCATE ALL']) {
    assert.equal(await sqlState(client.query(text)), '0A000');
  }
  assert.equal(await sqlState(client.query({ name: 'discard', text: 'DISCARD ALL' })), '0A000');
  assert.equal((await client.query({ name: 'kept', text: 'SELECT 1 AS x' })).rows[0].x, 1);
  client.release();
});

test('an empty query and several statements in one query are answered', async () => {
  assert.equal((await pool.query('')).rows.length, 0);
  const results = (await pool.query('SELECT 1 AS x; SELECT 2 AS x')) as unknown as pg.QueryResult[];
  assert.deepEqual(
    results.map((result) => result.rows[0].x),
    [1, 2],
  );
});
