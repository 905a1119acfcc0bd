import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import {
  type Caller,
  call,
  eventually,
  newMember,
  newTenant,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { countedAnew, statisticsOf } from '#test/statistics.ts';
import { removeExpired } from './jobs.ts';

useTestServer();

const note = (text: string, more: object = {}) => ({ text, type: 'note', ...more });

describe('remembering', () => {
  it('answers 201 with the resource, findable by its words before it has a vector', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const made = await ann.call(
      'POST',
      '/v1/memory/',
      note('Client meeting notes: Discussed retirement planning', { metadata: { client_id: 'CS001' } }),
    );
    assert.equal(made.status, 201);
    assert.deepEqual(made.body.metadata, { client_id: 'CS001' });
    assert.deepEqual(made.body.meta_data, made.body.metadata);
    assert.equal(made.body.embedding_status, 'pending');
    const found = await ann.call('POST', '/v1/memory/search', {
      query: 'retirement planning',
      similarity_threshold: 0.7,
    });
    assert.equal(found.body[0].id, made.body.id);
    assert.ok(found.body[0].score >= 0.7);
    assert.deepEqual(
      (await bob.call('POST', '/v1/memory/search', { query: 'retirement planning' })).body,
      [],
    );
  });

  it('gives every memory a vector and counts its words exactly once', async () => {
    const ann = await newTenant('user');
    for (const text of ['the quick fox', 'the lazy dog', 'a fox and a dog'])
      await ann.call('POST', '/v1/memory/', note(text));
    await eventually('vectors', async () =>
      (await ann.call('GET', '/v1/memory/')).body.every((m: any) => m.embedding_status === 'ready'),
    );
    await assertCounted(ann.tenant, ['the quick fox', 'the lazy dog', 'a fox and a dog']);
  });

  it('keeps statistics true through changes and deletions', async () => {
    const ann = await newTenant('user');
    const ids: string[] = [];
    for (const text of ['one apple', 'two pears', 'three plums'])
      ids.push((await ann.call('POST', '/v1/memory/', note(text))).body.id);
    await eventually('vectors', async () =>
      (await ann.call('GET', '/v1/memory/')).body.every((m: any) => m.embedding_status === 'ready'),
    );
    await ann.call('PUT', `/v1/memory/${ids[0]}`, { text: 'one cherry' });
    await ann.call('DELETE', `/v1/memory/${ids[1]}`);
    await ann.call('DELETE', `/v1/memory/${ids[2]}?hard_delete=true`);
    await eventually(
      'the new vector',
      async () => (await ann.call('GET', `/v1/memory/${ids[0]}`)).body.embedding_status === 'ready',
    );
    await assertCounted(ann.tenant, ['one cherry']);
  });

  it('changes what is sent, and the version grows', async () => {
    const ann = await newTenant('user');
    const { id } = (await ann.call('POST', '/v1/memory/', note('likes tea'))).body;
    const changed = await ann.call('PUT', `/v1/memory/${id}`, { metadata: { sure: true } });
    assert.equal(changed.body.version, 2);
    assert.equal(changed.body.text, 'likes tea');
    assert.deepEqual((await ann.call('GET', `/v1/memory/${id}`)).body.metadata, { sure: true });
  });

  it('refuses what it does not know or can not store, field by field', async () => {
    const ann = await newTenant('user');
    const cases: [object, string][] = [
      [{ text: 'x' }, '/type'],
      [{ text: '', type: 'note' }, '/text'],
      [{ text: '  \n ', type: 'note' }, '/text'],
      [{ text: 5, type: 'note' }, '/text'],
      [note('x', { tpye: 'y' }), '/tpye'],
      [note('x', { ttl_days: 0 }), '/ttl_days'],
      [note('x', { ttl_days: 1, expires_at: '2030-01-01T00:00:00Z' }), '/expires_at'],
      [note('x', { expires_at: '2020-01-01T00:00:00Z' }), '/expires_at'],
      [note('x'.repeat(10_001)), '/text'],
      [note('nul \u0000'), '/text'],
      [note('half \ud800'), '/text'],
      [note('x', { role: 'robot' }), '/role'],
      [note('x', { occurred_at: 'yesterday' }), '/occurred_at'],
    ];
    for (const [body, path] of cases) {
      const reply = await ann.call('POST', '/v1/memory/', body);
      assert.equal(reply.status, 422, JSON.stringify(body).slice(0, 80));
      assert.ok(
        reply.body.error.details.errors.some((problem: any) => problem.path === path),
        `${path} in ${reply.text}`,
      );
    }
  });

  it('takes metadata under both of its names only where they are equal, whichever way it comes', async () => {
    const ann = await newTenant('user');
    const differing = { metadata: { a: 1 }, meta_data: { a: 2 } };
    const equal = { metadata: { a: 1, b: [{ c: 2, d: 3 }] }, meta_data: { b: [{ d: 3, c: 2 }], a: 1 } };
    const { id } = (await ann.call('POST', '/v1/memory/', note('first'))).body;
    const message = 'must be equal to metadata where both are given';
    for (const [method, path, body] of [
      ['POST', '/v1/memory/', note('x')],
      ['PUT', `/v1/memory/${id}`, {}],
    ] as const) {
      const refused = await ann.call(method, path, { ...body, ...differing });
      assert.equal(refused.status, 422, refused.text);
      assert.deepEqual(refused.body.error.details.errors, [{ path: '/meta_data', message }]);
      const taken = await ann.call(method, path, { ...body, ...equal });
      assert.ok(taken.status < 300, taken.text);
      assert.deepEqual(taken.body.metadata, equal.metadata);
    }
    const memories = [note('second', equal), note('third', differing)];
    const bulk = await ann.call('POST', '/v1/memory/bulk', { memories });
    assert.deepEqual(
      [bulk.body.created.length, bulk.body.failed],
      [1, [{ index: 1, error: { code: 'VALIDATION_ERROR', message: `/meta_data ${message}` } }]],
    );
    const file = memories.map((memory) => `${JSON.stringify(memory)}\n`).join('');
    const { body: begun } = await call('POST', '/v1/memory/import', {
      token: ann.token,
      payload: file,
      headers: { 'content-type': 'application/x-ndjson' },
    });
    const state = await eventually('the import', async () => {
      const { body } = await ann.call('GET', begun.status_url);
      return body.status === 'succeeded' && body;
    });
    assert.deepEqual(
      [state.created, state.errors],
      [1, [{ line: 2, code: 'VALIDATION_ERROR', message: `/meta_data ${message}` }]],
    );
  });

  it('refuses what would be gone with the answer, whichever way it comes', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const past = '2020-01-01T00:00:00Z';
    const problemOf = ({ status, body }: { status: number; body: any }) => {
      const [{ path, message }] = body.error.details.errors;
      return `${status} ${path} ${message}`;
    };
    const { body: kept } = await ann.call('POST', '/v1/memory/', note('kept'));
    const { app } = await testServer();
    // Three days old: a time to live of one day ended the day before yesterday.
    await app.database.operator.run(sql`
      update memories set created_at = created_at - interval '3 days' where tenant_id = ${ann.tenant}`);
    const change = (body: object) => ann.call('PUT', `/v1/memory/${kept.id}`, body);
    assert.match(
      problemOf(await change({ expires_at: past })),
      /^422 \/expires_at must be in the future; it is /,
    );
    assert.match(
      problemOf(await change({ ttl_days: 1 })),
      /^422 \/ttl_days ends in the past, at .*created_at/,
    );
    assert.equal((await change({ ttl_days: 4 })).status, 200);
    assert.equal((await change({ expires_at: null })).body.version, 3);
    assert.match(
      problemOf(
        await ann.call('POST', '/v1/memory/infer', {
          messages: [{ role: 'user', content: 'hello' }],
          expires_at: past,
        }),
      ),
      /^422 \/expires_at must be/,
    );
    const bulk = await ann.call('POST', '/v1/memory/bulk', {
      memories: [note('gone', { expires_at: past }), note('there')],
    });
    assert.match(bulk.body.failed[0].error.message, /^\/expires_at must be in the future/);
    assert.deepEqual((await ann.call('GET', '/v1/memory/')).body.map(({ text }: any) => text).sort(), [
      'kept',
      'there',
    ]);
    assert.equal(
      (await bob.call('POST', '/v1/memory/', note('x', { expires_at: '2999-01-01T00:00:00Z' }))).status,
      201,
    );
  });
});

describe('seeing', () => {
  it('shows a memory to its identity and to admins, and to nobody else', async () => {
    const [admin, stranger] = [await newTenant('admin'), await newTenant('admin')];
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const { id } = (await ann.call('POST', '/v1/memory/', note('a secret of ann'))).body;
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).status, 200);
    assert.equal((await admin.call('GET', `/v1/memory/${id}`)).status, 200);
    const never = '01a1fa8c-bfba-7536-8166-c082a1a99cd1';
    for (const other of [ben, stranger]) {
      for (const [method, path, body] of [
        ['GET', ''],
        ['PUT', '', { type: 'x' }],
        ['DELETE', ''],
      ] as const) {
        const [theirs, none] = [
          await other.call(method, `/v1/memory/${id}${path}`, body),
          await other.call(method, `/v1/memory/${never}${path}`, body),
        ];
        assert.equal(theirs.status, 404);
        assert.deepEqual(theirs.body.error, none.body.error);
      }
      assert.deepEqual((await other.call('GET', '/v1/memory/')).body, []);
    }
    assert.equal((await admin.call('GET', '/v1/memory/')).body.length, 1);
  });

  it('lists by pages whose cursors can not be forged or moved', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    for (let i = 0; i < 5; i++) await ann.call('POST', '/v1/memory/', note(`thing ${i}`));
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const reply = await ann.call('GET', `/v1/memory/?limit=2${cursor ? `&cursor=${cursor}` : ''}`);
      seen.push(...reply.body.map((memory: any) => memory.text));
      cursor = reply.headers['x-next-cursor'] as string | undefined;
      if (cursor) assert.match(String(reply.headers.link), /rel="next"/);
      if (cursor) {
        assert.equal(
          (await bob.call('GET', `/v1/memory/?limit=2&cursor=${cursor}`)).body.error.code,
          'INVALID_CURSOR',
        );
        assert.equal(
          (await ann.call('GET', `/v1/memory/?limit=2&cursor=${cursor}x`)).body.error.code,
          'INVALID_CURSOR',
        );
        assert.equal(
          (await ann.call('GET', `/v1/memory/?memory_type=a&cursor=${cursor}`)).body.error.code,
          'INVALID_CURSOR',
        );
      }
    } while (cursor);
    assert.deepEqual(seen, ['thing 4', 'thing 3', 'thing 2', 'thing 1', 'thing 0']);
  });

  it('removes for good what has expired, put away by then or not, and only for its tenant', async () => {
    const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
    const { app } = await testServer();
    const db = systemCtx(app, ann.tenant, 'test').db;
    for (const [isPutAway, way] of [
      [false, 'hard_delete'],
      [true, 'hard_delete'],
      [false, 'erase'],
    ] as const) {
      const expires = Date.now() + 1_500;
      const made = await ann.call('POST', '/v1/memory/', {
        ...note(`short lived ${way} ${isPutAway}`),
        expires_at: new Date(expires).toISOString(),
      });
      const path = `/v1/memory/${made.body.id}`;
      await eventually(
        'the vectors',
        async () => Date.now() >= expires || (await ann.call('GET', path)).body.embedding_status === 'ready',
      );
      await new Promise((resolve) => setTimeout(resolve, expires - Date.now() + 5));
      if (isPutAway) await removeExpired(app);
      assert.equal((await ann.call('DELETE', path)).status, 404);
      assert.equal((await bob.call('DELETE', `${path}?hard_delete=true`)).status, 404);
      const erase = { memory_ids: [made.body.id] };
      if (way === 'erase')
        assert.equal((await ann.call('POST', '/v1/memory/erase', erase)).body.counts.memories, 1);
      else assert.equal((await ann.call('DELETE', `${path}?hard_delete=true`)).status, 204);
      assert.equal((await ann.call('DELETE', `${path}?hard_delete=true`)).status, 404);
      assert.deepEqual(await db.rows(sql`select id from memories where tenant_id = ${ann.tenant}`), []);
      assert.deepEqual(await statisticsOf(db, ann.tenant, 'memory'), countedAnew([]));
    }
  });

  it('forgets an expired memory the moment it expires', async () => {
    const ann = await newTenant('user');
    const expires = Date.now() + 400;
    const { id } = (
      await ann.call(
        'POST',
        '/v1/memory/',
        note('short lived', { expires_at: new Date(expires).toISOString() }),
      )
    ).body;
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).status, 200);
    await new Promise((resolve) => setTimeout(resolve, expires - Date.now() + 5));
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).status, 404);
    assert.deepEqual((await ann.call('POST', '/v1/memory/search', { query: 'short lived' })).body, []);
    assert.deepEqual((await ann.call('GET', '/v1/memory/')).body, []);
  });
});

describe('searching', () => {
  it('filters by type, metadata, identity and time', async () => {
    const admin = await newTenant('admin');
    const ann = await newMember(admin, 'agent');
    await ann.call('POST', '/v1/memory/', {
      text: 'invoice for garden chairs',
      type: 'invoice',
      metadata: { year: 2025, tags: ['home'] },
    });
    await admin.call('POST', '/v1/memory/', { text: 'letter about garden chairs', type: 'letter' });
    const find = async (body: object) =>
      (await admin.call('POST', '/v1/memory/search', { query: 'garden chairs', ...body })).body
        .map((m: any) => m.type)
        .sort();
    assert.deepEqual(await find({}), ['invoice', 'letter']);
    assert.deepEqual(await find({ type: 'letter' }), ['letter']);
    assert.deepEqual(await find({ memory_types: ['invoice', 'letter'] }), ['invoice', 'letter']);
    assert.deepEqual(await find({ metadata: { tags: ['home'] } }), ['invoice']);
    assert.deepEqual(await find({ identity_id: ann.id }), ['invoice']);
    assert.deepEqual(await find({ identity_id: 'nobody' }), []);
    assert.deepEqual(await find({ created_from: '2100-01-01T00:00:00Z' }), []);
    assert.deepEqual(await find({ created_to: '2100-01-01T00:00:00Z' }), ['invoice', 'letter']);
  });

  it('finds in every mode and explains on request', async () => {
    const ann = await newTenant('user');
    await ann.call('POST', '/v1/memory/', note('The user prefers dark mode interfaces'));
    await ann.call('POST', '/v1/memory/', note('The weather was cloudy on Tuesday'));
    await eventually('vectors', async () =>
      (await ann.call('GET', '/v1/memory/')).body.every((m: any) => m.embedding_status === 'ready'),
    );
    for (const mode of ['hybrid', 'text', 'vector']) {
      const reply = await ann.call('POST', '/v1/memory/search', {
        query: 'user interface preferences',
        mode,
        explain: true,
      });
      assert.match(reply.body[0].text, /dark mode/, mode);
      assert.ok(reply.body[0].parts);
    }
    const sure = await ann.call('POST', '/v1/memory/search', {
      query: 'user interface preferences',
      similarity_threshold: 0.6,
    });
    assert.equal(sure.body.length, 1);
  });

  it('finds misspelt words', async () => {
    const ann = await newTenant('user');
    await ann.call('POST', '/v1/memory/', note('Client meeting notes: Discussed retirement planning'));
    await ann.call('POST', '/v1/memory/', note('Bought new shoes'));
    const reply = await ann.call('POST', '/v1/memory/search', { query: 'retirment plannning' });
    assert.match(reply.body[0]?.text ?? '', /retirement/);
  });
});

describe('many at once', () => {
  it('stores the valid ones and tells the others', async () => {
    const ann = await newTenant('user');
    const memories = [
      note('first'),
      { text: 'no type' },
      note('third'),
      note(''),
      'text',
      note('sixth', { metadata: { a: 'quote " and \\ slash, {brace}' } }),
    ];
    const reply = await ann.call('POST', '/v1/memory/bulk', { memories });
    assert.equal(reply.status, 201);
    assert.deepEqual(
      reply.body.created.map((made: any) => made.index),
      [0, 2, 5],
    );
    assert.deepEqual(
      reply.body.failed.map((lost: any) => lost.index),
      [1, 3, 4],
    );
    assert.ok(
      reply.body.failed.every((lost: any) => lost.error.code === 'VALIDATION_ERROR' && lost.error.message),
    );
    const sixth = await ann.call('GET', `/v1/memory/${reply.body.created[2].id}`);
    assert.deepEqual(sixth.body.metadata, { a: 'quote " and \\ slash, {brace}' });
    assert.equal((await ann.call('POST', '/v1/memory/bulk', { memories: [] })).status, 422);
    assert.equal(
      (await ann.call('POST', '/v1/memory/bulk', { memories: Array(1_001).fill(note('x')) })).status,
      422,
    );
  });

  it('answers 422, with the same reasons, where none of many could be stored', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const memories = [note(''), { text: 'no type' }];
    const send = (who: Caller, key?: string) =>
      who.call('POST', '/v1/memory/bulk', { memories }, key ? { 'idempotency-key': key } : {});
    for (const reply of [await send(ann), await send(bob, 'again'), await send(bob, 'again')]) {
      assert.deepEqual([reply.status, reply.body.error.code], [422, 'NOTHING_STORED']);
      const { created, failed } = reply.body.error.details;
      assert.deepEqual([created, failed.map(({ index }: any) => index)], [[], [0, 1]]);
      assert.deepEqual(failed[1].error, { code: 'VALIDATION_ERROR', message: '/type is required' });
    }
    assert.deepEqual((await ann.call('GET', '/v1/memory/')).body, []);
  });

  it('takes no text or type that is blank', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const { id } = (await ann.call('POST', '/v1/memory/', note('kept'))).body;
    const theirs = (await bob.call('POST', '/v1/memory/', note('theirs'))).body.id;
    const blank = ' \t\u00a0\n';
    const unseen = '\u200b\u00ad';
    for (const reply of [
      await ann.call('POST', '/v1/memory/', note(blank)),
      await ann.call('POST', '/v1/memory/', { text: 'a word', type: blank }),
      await ann.call('PUT', `/v1/memory/${id}`, { text: blank }),
      await ann.call('POST', '/v1/memory/', note(unseen)),
      await ann.call('PUT', `/v1/memory/${id}`, { text: unseen }),
      await ann.call('POST', '/v1/memory/infer', { messages: [{ role: 'user', content: blank }] }),
      await bob.call('PUT', `/v1/memory/${theirs}`, { type: blank }),
    ]) {
      assert.deepEqual(
        [reply.status, reply.body.error.details.errors[0].message],
        [422, 'must not be blank'],
        reply.text,
      );
    }
    const { body } = await ann.call('POST', '/v1/memory/bulk', { memories: [note(blank), note('a word')] });
    assert.equal(body.failed[0].error.message, '/text must not be blank');
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).body.text, 'kept');
  });

  it('deletes many, also those of others only for admins', async () => {
    const [admin, stranger] = [await newTenant('admin'), await newTenant('admin')];
    const ann = await newMember(admin, 'user');
    const mine = (await ann.call('POST', '/v1/memory/', note('mine'))).body.id;
    const boss = (await admin.call('POST', '/v1/memory/', note('of the admin'))).body.id;
    const theirs = (await stranger.call('POST', '/v1/memory/', note('elsewhere'))).body.id;
    const reply = await ann.call('POST', '/v1/memory/bulk-delete', {
      memory_ids: [mine, boss, theirs, 'nonsense'],
    });
    assert.equal(reply.body.deleted_count, 1);
    assert.deepEqual(
      reply.body.failed_memories.map((lost: any) => lost.memory_id),
      [boss, theirs, 'nonsense'],
    );
    assert.equal(
      (await admin.call('POST', '/v1/memory/bulk-delete', { memory_ids: [boss], hard_delete: true })).body
        .deleted_count,
      1,
    );
    assert.equal((await stranger.call('GET', `/v1/memory/${theirs}`)).status, 200);
  });
});

describe('once only', () => {
  it('answers a repeated key with the same memory and refuses another payload', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const key = { 'idempotency-key': 'remember-1' };
    const first = await ann.call('POST', '/v1/memory/', note('only once'), key);
    const again = await ann.call('POST', '/v1/memory/', note('only once'), key);
    assert.deepEqual(again.body, first.body);
    assert.equal(again.headers['idempotency-replayed'], 'true');
    assert.equal(
      (await ann.call('POST', '/v1/memory/', note('something else'), key)).body.error.code,
      'IDEMPOTENCY_KEY_CONFLICT',
    );
    assert.equal(
      (await bob.call('POST', '/v1/memory/', note('only once'), key)).headers['idempotency-replayed'],
      undefined,
    );
    assert.equal((await ann.call('GET', '/v1/memory/')).body.length, 1);
  });

  it('knows a repeated request however its path is written', async () => {
    const ann = await newTenant();
    const key = { 'idempotency-key': 'spelt otherwise' };
    const first = await ann.call('POST', '/v1/memory/', note('only once'), key);
    assert.equal(first.status, 201, first.text);
    for (const path of ['/v1/memory', '/v1/mem%6Fry/', '/v1/memory/?']) {
      const again = await ann.call('POST', path, note('only once'), key);
      assert.deepEqual([again.body, again.headers['idempotency-replayed']], [first.body, 'true'], path);
    }
    const corpus = { id: 'once', name: 'Once' };
    assert.equal((await ann.call('POST', '/v1/corpora', corpus, key)).status, 201);
    const alias = await ann.call('POST', '/corpora/', corpus, key);
    assert.deepEqual([alias.status, alias.headers['idempotency-replayed']], [201, 'true'], alias.text);
    assert.equal((await ann.call('GET', '/v1/memory/')).body.length, 1);
  });

  it('makes one row of a thousand concurrent twins', async () => {
    const ann = await newTenant('user');
    const replies = await Promise.all(
      Array.from({ length: 1_000 }, () =>
        ann.call('POST', '/v1/memory/', note('twins'), { 'idempotency-key': 'twins' }),
      ),
    );
    const made = replies.filter(({ status }) => status === 201);
    assert.ok(made.length >= 1);
    for (const { body } of made) assert.deepEqual(body, made[0]!.body);
    for (const { status, body, headers } of replies)
      assert.ok(
        status === 201 ||
          (status === 409 &&
            body.error.code === 'IDEMPOTENCY_IN_PROGRESS' &&
            Number(headers['retry-after']) >= 1),
        `${status}`,
      );
    assert.equal((await ann.call('GET', '/v1/memory/')).body.length, 1);
  });

  it('frees the key when the request was refused', async () => {
    const ann = await newTenant('user');
    const key = { 'idempotency-key': 'retry' };
    const never = '01a1fa8c-bfba-7536-8166-c082a1a99cd1';
    assert.equal((await ann.call('PUT', `/v1/memory/${never}`, { type: 'x' }, key)).status, 404);
    assert.equal((await ann.call('PUT', `/v1/memory/${never}`, { type: 'y' }, key)).status, 404);
    assert.equal(
      (
        await call('POST', '/v1/memory/', {
          token: ann.token,
          body: note('x'),
          headers: { 'idempotency-key': 'x'.repeat(129) },
        })
      ).body.error.code,
      'IDEMPOTENCY_KEY_INVALID',
    );
  });
});

/** The tenant's statistics are what counting all of its texts anew would say. */
async function assertCounted(tenant: string, texts: string[]): Promise<void> {
  const { app } = await testServer();
  const db = app.database.tenant(tenant);
  assert.deepEqual(await statisticsOf(db, tenant, 'memory'), countedAnew(texts));
  const vectors = await db.one<{ count: number }>(
    sql`select count(*) as count from memory_vectors where tenant_id = ${tenant}`,
  );
  assert.equal(vectors?.count, texts.length);
}

describe('text from outside', () => {
  it('stays a value, whatever shape it has', async () => {
    const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
    await bob.call('POST', '/v1/memory/', note('only of bob'));
    const hostile = { text: `(select jsonb_agg(t) from tenants t)`, values: [], name: 'x' };
    const made = await ann.call('POST', '/v1/memory/', note('a note', { metadata: hostile }));
    assert.equal(made.status, 201);
    assert.deepEqual(made.body.metadata, hostile);
    assert.deepEqual((await ann.call('GET', `/v1/memory/${made.body.id}`)).body.metadata, hostile);
    const found = await ann.call('POST', '/v1/memory/search', { query: 'a note', metadata: hostile });
    assert.equal(found.body.length, 1);
    const changed = await ann.call('PUT', `/v1/memory/${made.body.id}`, {
      metadata: { ...hostile, deep: hostile },
    });
    assert.deepEqual(changed.body.metadata.deep, hostile);
    const person = await call('POST', '/v1/identity/', {
      body: { external_id: `hostile-${Date.now()}`, role: 'user', claims: hostile },
    });
    assert.deepEqual(person.body.identity.claims, hostile);
  });
});

describe('a list of memories', () => {
  it('is narrowed to one identity, for who sees others', async () => {
    const [admin, stranger] = [await newTenant('admin'), await newTenant('admin')];
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    for (const who of [ann, ben]) {
      const gone = await who.call('POST', '/v1/memory/', note('gone'));
      await who.call('POST', '/v1/memory/', note('kept'));
      await who.call('DELETE', `/v1/memory/${gone.body.id}`);
    }
    const owners = async (who: Caller, query: string) =>
      (await who.call('GET', `/v1/memory/?${query}`)).body.map((memory: any) => memory.identity_id);
    for (const more of ['', '&deleted=true', `&as_of=${new Date().toISOString()}`])
      assert.deepEqual(await owners(admin, `identity_id=${ann.id.toUpperCase()}${more}`), [ann.id], more);
    assert.deepEqual(await owners(ben, `identity_id=${ann.id}`), []);
    assert.deepEqual(await owners(ben, `identity_id=${ben.id}`), [ben.id]);
    assert.deepEqual(await owners(stranger, `identity_id=${ann.id}`), []);
    assert.deepEqual(await owners(admin, 'identity_id=nobody'), []);
  });

  it('is narrowed by metadata', async () => {
    const [ann, bob] = [await newTenant(), await newTenant()];
    const note = (metadata: object) =>
      ann.call('POST', '/v1/memory/', { text: 'A note', type: 'note', metadata });
    const red = (await note({ colour: 'red', size: 1 })).body.id;
    await note({ colour: 'blue' });
    const list = (who: Caller, metadata: string, more = '') =>
      who.call('GET', `/v1/memory/?metadata=${encodeURIComponent(metadata)}${more}`);
    assert.deepEqual(
      (await list(ann, '{"colour":"red"}')).body.map(({ id }: any) => id),
      [red],
    );
    assert.equal((await list(ann, '{}')).body.length, 2);
    assert.deepEqual((await list(bob, '{"colour":"red"}')).body, []);
    for (const text of ['red', '[]', 'null', '{"a":"\\u0000"}'])
      assert.equal((await list(ann, text)).status, 422, text);
    assert.equal((await list(ann, '{}', '&deleted=true')).status, 422);
    const first = await list(ann, '{}', '&limit=1');
    const cursor = `&limit=1&cursor=${encodeURIComponent(String(first.headers['x-next-cursor']))}`;
    assert.equal((await list(ann, '{}', cursor)).body.length, 1);
    assert.equal((await list(ann, '{"colour":"red"}', cursor)).status, 400, 'a cursor is of one list');
  });
});
