import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import {
  address,
  type Caller,
  call,
  callServer,
  engine,
  eventually,
  everythingOf,
  newKey,
  newMember,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { countedAnew, statisticsOf } from '#test/statistics.ts';
import { encryptDemanded } from './demanded.ts';
import { lockUnchanged, readTexts } from './store.ts';

useTestServer();

const path = '/v1/admin/memory/sensitive-types';
const demand = async (admin: Caller, ...types: string[]) => {
  const reply = await admin.call('PUT', path, { types });
  assert.equal(reply.status, 200, reply.text);
  return reply.body;
};
const encrypted = (admin: Caller) =>
  eventually('the encryption', async () => {
    const { encryption } = (await admin.call('GET', path)).body;
    return encryption.status === 'completed' && encryption;
  });
const make = async (who: Caller, body: object) => {
  const reply = await who.call('POST', '/v1/memory/', body);
  assert.equal(reply.status, 201, reply.text);
  return reply.body;
};
const read = async (who: Caller, id: string) => (await who.call('GET', `/v1/memory/${id}`)).body;
const embedded = (who: Caller) =>
  eventually('the vectors', async () =>
    (await who.call('GET', '/v1/memory/')).body.every((m: any) => m.embedding_status !== 'pending'),
  );
const imported = async (who: Caller, lines: object[]) => {
  const { body } = await call('POST', '/v1/memory/import', {
    token: who.token,
    payload: lines.map((line) => JSON.stringify(line)).join('\n'),
    headers: { 'content-type': 'application/x-ndjson' },
  });
  return eventually('the import', async () => {
    const state = (await who.call('GET', body.status_url)).body;
    return state.status === 'succeeded' && state;
  });
};

describe('types that a tenant demands to be sensitive', () => {
  it('are set and read by its admins, in the ledger and for no other tenant', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const ann = await newMember(admin, 'user');
    assert.deepEqual((await admin.call('GET', path)).body, {
      types: [],
      installation_types: [],
      encryption: null,
      updated_at: null,
    });
    for (const method of ['GET', 'PUT'])
      assert.equal((await ann.call(method, path, method === 'PUT' ? { types: [] } : undefined)).status, 403);
    for (const types of [undefined, 'health', [''], [7], ['x'.repeat(101)]])
      assert.equal((await admin.call('PUT', path, { types })).status, 422);
    const set = await demand(admin, 'salary', 'health', 'salary');
    assert.deepEqual(set.types, ['health', 'salary']);
    const { updated_at } = await demand(admin, 'health', 'salary');
    assert.equal(updated_at, set.updated_at, 'nothing has changed');
    assert.deepEqual((await admin.call('GET', path)).body.types, ['health', 'salary']);
    assert.deepEqual((await other.call('GET', path)).body.types, []);
    await demand(admin);
    const { app } = await testServer();
    const facts = await app.database.tenant(admin.tenant).rows(sql`
      select before, after, actor_id from facts
      where tenant_id = ${admin.tenant} and type = 'memory.sensitive_types_set' order by id`);
    const types = ['health', 'salary'];
    assert.deepEqual(facts, [
      { before: { types: [] }, after: { types }, actor_id: admin.id },
      { before: { types }, after: { types: [] }, actor_id: admin.id },
    ]);
  });

  describe('hold for whoever writes:', () => {
    const word = 'xylophonitis';
    let admin: Caller;
    let ann: Caller;
    let bob: Caller;
    before(async () => {
      [admin, bob] = [await newTenant('admin'), await newTenant('user')];
      ann = await newMember(admin, 'user');
      await demand(admin, 'health', 'message', 'conversation');
    });
    const health = (more: object = {}) => ({ text: `Has ${word}`, type: 'health', ...more });

    it('one memory', async () => {
      const made = await make(ann, health());
      assert.deepEqual([made.sensitive, made.embedding_status], [true, 'none']);
      assert.equal((await read(ann, made.id)).text, `Has ${word}`);
      const refused = await ann.call('POST', '/v1/memory/', health({ sensitive: false }));
      assert.equal(refused.status, 422);
      assert.equal(refused.body.error.details.errors[0].path, '/sensitive');
      assert.equal((await ann.call('POST', '/v1/memory/', health({ infer: true }))).status, 422);
      assert.equal((await make(ann, { text: 'plain', type: 'note' })).sensitive, false);
      assert.equal((await make(bob, { text: 'of another tenant', type: 'health' })).sensitive, false);
    });

    it('one memory with an idempotency key', async () => {
      const headers = { 'idempotency-key': 'once' };
      const { body } = await ann.call('POST', '/v1/memory/', health(), headers);
      assert.equal(body.sensitive, true);
    });

    it('many memories', async () => {
      const memories = [health(), health({ sensitive: false }), { text: 'plain', type: 'note' }];
      const { body } = await ann.call('POST', '/v1/memory/bulk', { memories });
      assert.deepEqual(
        body.created.map(({ index }: any) => index),
        [0, 2],
      );
      assert.match(body.failed[0].error.message, /always sensitive/);
      assert.equal((await read(ann, body.created[0].id)).sensitive, true);
      assert.equal((await read(ann, body.created[1].id)).sensitive, false);
    });

    it('a change of the type', async () => {
      const { id } = await make(ann, { text: `Had ${word}`, type: 'note' });
      await embedded(ann);
      const refused = await ann.call('PUT', `/v1/memory/${id}`, { type: 'health', sensitive: false });
      assert.equal(refused.status, 422);
      const { body } = await ann.call('PUT', `/v1/memory/${id}`, { type: 'health' });
      assert.deepEqual([body.sensitive, body.text, body.version], [true, `Had ${word}`, 2]);
    });

    it('a file, also one that says what was not encrypted where it came from', async () => {
      const at = (day: number) => `2024-05-0${day}T10:00:00.000Z`;
      const former = { type: 'health', metadata: {}, session_id: null, role: null, occurred_at: null };
      const state = await imported(ann, [
        { id: 'one', ...health({ sensitive: false }) },
        {
          id: 'two',
          text: 'well again',
          type: 'note',
          sensitive: false,
          created_at: at(1),
          updated_at: at(2),
          version: 2,
          versions: [
            {
              ...former,
              version: 1,
              text: `Has ${word}`,
              ttl_days: null,
              expires_at: null,
              valid_from: at(1),
              valid_until: at(2),
            },
          ],
        },
      ]);
      assert.deepEqual([state.created, state.failed], [2, 0], JSON.stringify(state.errors));
      const [two, one] = (await ann.call('GET', '/v1/memory/?limit=2')).body;
      assert.deepEqual([one.sensitive, two.sensitive], [true, false]);
      const { body } = await ann.call('GET', `/v1/memory/${two.id}/history`);
      assert.deepEqual(
        body.map(({ text, sensitive }: any) => [text, sensitive]),
        [
          ['well again', false],
          [`Has ${word}`, true],
        ],
      );
    });

    it('agents over MCP', async () => {
      const { token } = await newKey(ann);
      const client = new Client({ name: 'a test', version: '1' });
      const requestInit = { headers: { authorization: `Bearer ${token}` } };
      const transport = new StreamableHTTPClientTransport(new URL(`${await address()}/mcp`), { requestInit });
      await client.connect(transport as Parameters<typeof client.connect>[0]);
      await client.callTool({ name: 'remember', arguments: health() });
      const [memory] = (await ann.call('GET', '/v1/memory/?limit=1')).body;
      assert.deepEqual([memory.text, memory.sensitive], [`Has ${word}`, true]);
      await client.close();
    });

    it('clients of mem0, whose messages are stored without inferring from them', async () => {
      const add = (more: object) =>
        ann.call('POST', '/v3/memories/add/', { messages: `Has ${word}`, user_id: 'kim', ...more });
      for (const more of [{}, { infer: false }]) {
        const { body, status } = await add(more);
        assert.equal(status, 200, JSON.stringify(body));
        assert.equal(body.status, 'SUCCEEDED');
        assert.equal((await read(ann, body.event_id)).sensitive, true);
      }
      assert.equal((await add({ infer: true })).status, 422);
      const messages = [{ role: 'user', content: `Has ${word}` }];
      assert.equal((await ann.call('POST', '/v1/memory/infer', { messages })).status, 422);
    });

    it('all that was written so far, of which nothing stands in the clear', async () => {
      assert.doesNotMatch(await everythingOf(admin.tenant), new RegExp(word, 'i'));
    });

    it('runs that remember', async () => {
      const memory = { recall: true, remember: true };
      await make(ann, { text: 'The colour of the door is green.', type: 'note' });
      const run = { session_id: 'talk', message: 'What is the colour of the door?', memory };
      const reply = await ann.call('POST', '/v1/run', run);
      assert.match(reply.text, /message\.final/);
      const { body } = await ann.call('GET', '/v1/memory/?memory_type=conversation');
      assert.deepEqual(
        body.map(({ sensitive, role }: any) => [sensitive, role]),
        [
          [true, 'assistant'],
          [true, 'user'],
        ],
      );
    });
  });

  it('are encrypted where they were stored before, with what they were, and it says how far', async () => {
    const [admin, bob] = [await newTenant('admin'), await newTenant('user')];
    const ann = await newMember(admin, 'user');
    const word = 'quadrilloquy';
    const health = (n: number) => ({ text: `${word} ${n}`, type: 'health' });
    const known = await make(ann, { text: `first ${word}`, type: 'note' });
    await ann.call('PUT', `/v1/memory/${known.id}`, health(1));
    const deleted = await make(ann, health(2));
    const memories = Array.from({ length: 250 }, (_, n) => health(10 + n));
    const { created } = (await ann.call('POST', '/v1/memory/bulk', { memories })).body;
    const healed = await make(ann, health(3));
    await ann.call('PUT', `/v1/memory/${healed.id}`, { text: 'well again', type: 'note' });
    const his = await make(bob, health(4));
    await embedded(ann);
    await ann.call('DELETE', `/v1/memory/${deleted.id}`);
    // Still in the queue when they are demanded, or just embedded.
    const late = await make(ann, health(5));
    const { encryption } = await demand(admin, 'health');
    assert.deepEqual([encryption.status, encryption.encrypted], ['running', 0]);
    const done = await encrypted(admin);
    // The first version of the note as well: it is sealed with the memory.
    assert.deepEqual([done.found, done.encrypted], [255, 255]);
    assert.ok(done.completed_at >= done.started_at);

    const all = await everythingOf(admin.tenant);
    assert.doesNotMatch(all, new RegExp(word));
    const { app } = await testServer();
    const db = app.database.tenant(admin.tenant);
    const [vectors, queue] = await db.batch([
      sql`select memory_id from memory_vectors where tenant_id = ${admin.tenant}`,
      sql`select memory_id from memory_queue where tenant_id = ${admin.tenant}`,
    ]);
    assert.deepEqual(await statisticsOf(db, admin.tenant, 'memory'), countedAnew(['well again']));
    assert.deepEqual([vectors.rows, queue.rows], [[{ memory_id: healed.id }], []]);

    const now = await read(ann, known.id);
    assert.deepEqual(
      [now.text, now.sensitive, now.version, now.embedding_status],
      [`${word} 1`, true, 2, 'none'],
    );
    const historyOf = async (id: string) =>
      (await ann.call('GET', `/v1/memory/${id}/history`)).body.map(({ text, sensitive }: any) => [
        text,
        sensitive,
      ]);
    assert.deepEqual(await historyOf(known.id), [
      [`${word} 1`, true],
      [`first ${word}`, true],
    ]);
    assert.deepEqual(await historyOf(healed.id), [
      ['well again', false],
      [`${word} 3`, true],
    ]);
    assert.equal((await read(ann, created[200].id)).text, `${word} 210`);
    assert.equal((await read(ann, late.id)).sensitive, true);
    const back = await ann.call('POST', `/v1/memory/${deleted.id}/restore`);
    assert.deepEqual(
      [back.body.text, back.body.sensitive, back.body.embedding_status],
      [`${word} 2`, true, 'none'],
    );
    assert.equal((await read(ann, deleted.id)).text, `${word} 2`);
    const find = async (more: object) =>
      (await ann.call('POST', '/v1/memory/search', { query: `${word} 210`, ...more })).body;
    assert.deepEqual(await find({}), []);
    assert.equal((await find({ sensitive: true }))[0].text, `${word} 210`);
    assert.deepEqual(
      [(await read(bob, his.id)).sensitive, (await everythingOf(bob.tenant)).includes(word)],
      [false, true],
    );
  });

  it('stay encrypted when they are not demanded any more, and are again with what came between', async () => {
    const admin = await newTenant('admin');
    const one = await make(admin, { text: 'one', type: 'health' });
    await demand(admin, 'health');
    await encrypted(admin);
    await demand(admin);
    const two = await make(admin, { text: 'two', type: 'health' });
    assert.deepEqual([(await read(admin, one.id)).sensitive, two.sensitive], [true, false]);
    const opened = await admin.call('PUT', `/v1/memory/${one.id}`, { sensitive: false });
    assert.equal(opened.body.sensitive, false);
    const { encryption } = await demand(admin, 'health', 'salary');
    assert.equal(encryption.status, 'running');
    await encrypted(admin);
    for (const { id } of [one, two]) assert.equal((await read(admin, id)).sensitive, true);
  });

  it('are found and shown to models as if they were encrypted, as soon as they are demanded', async () => {
    const admin = await newTenant('admin');
    const word = 'mellifluosity';
    const { id } = await make(admin, { text: `The ${word} is high`, type: 'health' });
    await make(admin, { text: 'something else', type: 'note' });
    await embedded(admin);
    const { app } = await testServer();
    const db = app.database.tenant(admin.tenant);
    // As if the job did not come to it.
    const now = new Date();
    await demand(admin, 'salary');
    await encrypted(admin);
    await db.run(sql`
      update memory_settings set sensitive_types = '["health"]', demanded_at = ${now}, swept_at = null, completed_at = ${now}
      where tenant_id = ${admin.tenant}`);
    app.shared.invalidate('memory_settings', admin.tenant);
    const find = async (more: object) =>
      (await admin.call('POST', '/v1/memory/search', { query: word, ...more })).body.map((m: any) => m.id);
    for (const mode of ['hybrid', 'text', 'vector']) assert.ok(!(await find({ mode })).includes(id));
    assert.deepEqual(await find({ sensitive: true, identity_id: admin.id }), [id]);
    assert.deepEqual(await readTexts(db, [id]), []);
    await db.run(sql`
      update memory_settings set demanded_at = ${new Date(0)}, completed_at = null where tenant_id = ${admin.tenant}`);
    await encryptDemanded(systemCtx(app, admin.tenant, 'a test'));
    assert.deepEqual(await find({}), []);
    assert.deepEqual(await find({ sensitive: true, identity_id: admin.id }), [id]);
    // Whoever read the text before may not store a vector of it any more: its version is the same.
    const unchanged = await db.transaction((tx) => lockUnchanged(tx, [{ id, version: 1 }]));
    assert.equal(unchanged.size, 0);
  });

  it('are encrypted once, however many workers do it', async () => {
    const admin = await newTenant('admin');
    const memories = Array.from({ length: 450 }, (_, n) => ({ text: `the text ${n}`, type: 'health' }));
    await admin.call('POST', '/v1/memory/bulk', { memories });
    const { app } = await testServer();
    await demand(admin, 'health');
    await Promise.all([1, 2].map((n) => encryptDemanded(systemCtx(app, admin.tenant, `test ${n}`))));
    const { found, encrypted: done } = await encrypted(admin);
    assert.deepEqual([found, done], [450, 450]);
    const left = await statisticsOf(app.database.tenant(admin.tenant), admin.tenant, 'memory');
    assert.deepEqual(left, countedAnew([]));
  });

  it('are encrypted by whoever restores or changes what the job has not come to', async () => {
    const admin = await newTenant('admin');
    const word = 'brouhaharama';
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      const { id } = await make(admin, { text: `first ${word}`, type: 'note' });
      await admin.call('PUT', `/v1/memory/${id}`, { text: `second ${word}` });
      ids.push(id);
    }
    await admin.call('DELETE', `/v1/memory/${ids[0]}`);
    await demand(admin, 'health');
    await encrypted(admin);
    const { app } = await testServer();
    await app.database
      .tenant(admin.tenant)
      .run(sql`update memories set type = 'health' where tenant_id = ${admin.tenant}`);
    const restored = await admin.call('POST', `/v1/memory/${ids[0]}/restore`);
    assert.deepEqual([restored.body.sensitive, restored.body.text], [true, `second ${word}`]);
    assert.equal((await admin.call('PUT', `/v1/memory/${ids[1]}`, { metadata: {} })).body.sensitive, true);
    const healed = await admin.call('PUT', `/v1/memory/${ids[2]}`, { text: 'well again', type: 'note' });
    assert.equal(healed.body.sensitive, false);
    assert.doesNotMatch(await everythingOf(admin.tenant), new RegExp(word));
    for (const id of ids)
      assert.match((await admin.call('GET', `/v1/memory/${id}/history`)).body.at(-1).text, /first/);
  });

  it('are looked through once more when every process must know', async () => {
    const admin = await newTenant('admin');
    const { id } = await make(admin, { text: 'from a process that had not heard', type: 'note' });
    await demand(admin, 'health');
    await encrypted(admin);
    const { app } = await testServer();
    const db = app.database.tenant(admin.tenant);
    await db.batch([
      sql`update memories set type = 'health' where tenant_id = ${admin.tenant} and id = ${id}`,
      sql`update memory_settings set demanded_at = ${new Date(Date.now() - 3_600_000)}, swept_at = null
        where tenant_id = ${admin.tenant}`,
    ]);
    await encryptDemanded(systemCtx(app, admin.tenant, 'a test'));
    assert.equal((await read(admin, id)).sensitive, true);
    const [settings] = await db.rows<{ swept_at: string | null }>(
      sql`select swept_at from memory_settings where tenant_id = ${admin.tenant}`,
    );
    assert.ok(settings!.swept_at);
  });

  it('are those of the installation as well', async () => {
    const server = await startServer({ SENSITIVE_MEMORY_TYPES: 'salary' });
    try {
      const admin = await newTenant('admin', server);
      assert.deepEqual((await admin.call('GET', path)).body.installation_types, ['salary']);
      await demand(admin, 'health');
      for (const type of ['salary', 'health'])
        assert.equal((await make(admin, { text: 'x', type })).sensitive, true);
      await demand(admin);
      assert.equal((await make(admin, { text: 'x', type: 'salary' })).sensitive, true);
    } finally {
      await server.stop();
    }
  });

  // The embedded database has one process.
  const withProcesses: typeof it = engine === 'postgres' ? it : ((() => {}) as unknown as typeof it);
  for (const redis of process.env.REDIS_URL ? [true, false] : [false]) {
    withProcesses(`are obeyed by every process at once ${redis ? 'with' : 'without'} Redis`, async () => {
      const settings: Record<string, string> = redis ? {} : { REDIS_URL: '' };
      const [one, two] = [
        await startServer(settings, { serve: true, work: false }),
        await startServer(settings, { serve: true, work: false }),
      ];
      try {
        const admin = await newTenant('admin', one);
        const there = async () => {
          const body = { text: 'x', type: 'health' };
          return (await callServer(two, 'POST', '/v1/memory/', { token: admin.token, body })).body.sensitive;
        };
        for (let i = 0; i < 3; i++) {
          assert.equal(await there(), false, 'and keeps in mind what it read');
          await demand(admin, 'health');
          assert.equal(await there(), true);
          await demand(admin);
        }
      } finally {
        await one.stop();
        await two.stop();
      }
    });
  }
});
