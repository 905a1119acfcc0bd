import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
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
import { statisticsOf } from '#test/statistics.ts';
import { emptyTrash } from './trash.ts';

useTestServer();

const note = (text: string, more: object = {}) => ({ text, type: 'note', ...more });
const make = async (who: Caller, body: object) => (await who.call('POST', '/v1/memory/', body)).body;
/** A moment that is later than all that was, and earlier than all that comes. */
const moment = async (): Promise<string> => {
  await sleep(3);
  const now = new Date().toISOString();
  await sleep(3);
  return now;
};

describe('history', () => {
  it('keeps every former version, who replaced it and in which request, newest first', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const { id, created_at } = await make(ann, note('likes tea', { metadata: { sure: false } }));
    await ann.call('PUT', `/v1/memory/${id}`, { text: 'likes coffee' }, { 'x-request-id': 'second-1' });
    await ann.call('PUT', `/v1/memory/${id}`, { metadata: { sure: true }, type: 'fact', role: 'user' });
    const { status, body } = await ann.call('GET', `/v1/memory/${id}/history`);
    assert.equal(status, 200);
    assert.deepEqual(
      body.map(({ version, text, type, metadata, role, change }: any) => [
        version,
        text,
        type,
        metadata.sure,
        role,
        change,
      ]),
      [
        [3, 'likes coffee', 'fact', true, 'user', 'updated'],
        [2, 'likes coffee', 'note', false, null, 'updated'],
        [1, 'likes tea', 'note', false, null, 'created'],
      ],
    );
    assert.deepEqual(body[1].changed_by, { type: 'identity', id: ann.id, on_behalf_of: null });
    assert.equal(body[1].request_id, 'second-1');
    assert.equal(body[0].valid_until, null);
    assert.equal(body[0].valid_from, body[1].valid_until);
    assert.equal(body[1].valid_from, body[2].valid_until);
    assert.equal(body[2].valid_from, created_at);
    assert.equal((await bob.call('GET', `/v1/memory/${id}/history`)).status, 404);
  });

  it('comes in pages whose cursor is good for that memory only', async () => {
    const ann = await newTenant('user');
    const { id } = await make(ann, note('version 1'));
    const { id: other } = await make(ann, note('other 1'));
    for (let i = 2; i <= 5; i++) {
      await ann.call('PUT', `/v1/memory/${id}`, { text: `version ${i}` });
      await ann.call('PUT', `/v1/memory/${other}`, { text: `other ${i}` });
    }
    const seen: string[] = [];
    let url = `/v1/memory/${id}/history?limit=2`;
    for (let pages = 0; url; pages++) {
      assert.ok(pages < 5);
      const reply = await ann.call('GET', url);
      assert.equal(reply.status, 200, reply.text);
      seen.push(...reply.body.map(({ text, change }: any) => `${text} ${change}`));
      const cursor = reply.headers['x-next-cursor'];
      if (cursor) {
        const elsewhere = await ann.call('GET', `/v1/memory/${other}/history?limit=2&cursor=${cursor}`);
        assert.equal(elsewhere.body.error.code, 'INVALID_CURSOR');
        const forged = await ann.call('GET', `/v1/memory/${id}/history?limit=2&cursor=${cursor}x`);
        assert.equal(forged.body.error.code, 'INVALID_CURSOR');
      }
      url = /<([^>]+)>/.exec(String(reply.headers.link ?? ''))?.[1] ?? '';
    }
    assert.deepEqual(seen, [
      'version 5 updated',
      'version 4 updated',
      'version 3 updated',
      'version 2 updated',
      'version 1 created',
    ]);
  });

  it('is refused at another version than the one expected', async () => {
    const ann = await newTenant('user');
    const { id } = await make(ann, note('one'));
    const put = (body: object, headers?: Record<string, string>) =>
      ann.call('PUT', `/v1/memory/${id}`, body, headers);
    assert.equal((await put({ text: 'two', expected_version: 1 })).body.version, 2);
    for (const reply of [
      await put({ text: 'three', expected_version: 1 }),
      await put({ text: 'three' }, { 'if-match': '"1"' }),
      await put({ expected_version: 7 }),
    ]) {
      assert.equal(reply.status, 409);
      assert.equal(reply.body.error.code, 'VERSION_CONFLICT');
      assert.equal(reply.body.error.details.version, 2);
    }
    assert.equal((await put({ text: 'three' }, { 'if-match': '"2"' })).body.version, 3);
    assert.equal((await put({ text: 'four' }, { 'if-match': '3' })).body.version, 4);
    assert.equal((await put({ text: 'five' }, { 'if-match': '*' })).body.version, 5);
    assert.equal((await put({ text: 'six' }, { 'if-match': 'x' })).status, 400);
    for (const [inBody, inHeader] of [
      [5, '"4"'],
      [4, '"5"'],
    ])
      assert.equal(
        (await put({ text: 'six', expected_version: inBody }, { 'if-match': inHeader as string })).status,
        409,
        'both must be so',
      );
    const drop = (version: string, hard = '') =>
      ann.call('DELETE', `/v1/memory/${id}${hard}`, undefined, { 'if-match': version });
    for (const reply of [await drop('"4"'), await drop('"4"', '?hard_delete=true')])
      assert.equal(
        reply.body?.error.code,
        'VERSION_CONFLICT',
        'what was changed meanwhile is not deleted unseen',
      );
    // Of twenty writers that all read the same version one wins.
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, i) => put({ text: `race ${i}`, expected_version: 5 })),
    );
    assert.equal(replies.filter(({ status }) => status === 200).length, 1);
    assert.equal(replies.filter(({ status }) => status === 409).length, 19);
  });

  it('is gone with a hard deletion, also of the identity', async () => {
    const admin = await newTenant('admin');
    const ann = await newMember(admin, 'user');
    const ids: string[] = [];
    for (const text of ['first', 'second']) {
      const { id } = await make(ann, note(text));
      await ann.call('PUT', `/v1/memory/${id}`, { text: `${text} changed` });
      ids.push(id);
    }
    await ann.call('DELETE', `/v1/memory/${ids[0]}?hard_delete=true`);
    const versions = async () => {
      const { app } = await testServer();
      const db = app.database.tenant(admin.tenant);
      return (await db.rows(sql`select 1 from memory_versions where tenant_id = ${admin.tenant}`)).length;
    };
    assert.equal(await versions(), 1);
    await admin.call('DELETE', `/v1/identity/${ann.id}?hard_delete=true`);
    await eventually('the purge', async () => (await versions()) === 0);
  });

  it('moves a memory in its conversation, and counts words once whatever changes', async () => {
    const ann = await newTenant('user');
    const { id } = await make(ann, note('the apple', { session_id: 's1', role: 'user' }));
    const moved = await ann.call('PUT', `/v1/memory/${id}`, {
      session_id: 's2',
      role: null,
      occurred_at: '2025-01-01T00:00:00Z',
    });
    assert.deepEqual(
      [moved.body.session_id, moved.body.role, moved.body.occurred_at],
      ['s2', null, '2025-01-01T00:00:00.000Z'],
    );
    assert.deepEqual((await ann.call('GET', '/v1/memory/?session_id=s1')).body, []);
    assert.equal((await ann.call('GET', '/v1/memory/?session_id=s2')).body.length, 1);
  });
});

describe('as of a time', () => {
  it('shows what was known then, deleted or not, and nothing that was removed', async () => {
    const admin = await newTenant('admin');
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const before = await moment();
    const kept = await make(ann, note('kept 1'));
    const soft = await make(ann, note('soft 1'));
    const hard = await make(ann, note('hard 1'));
    const first = await moment();
    await ann.call('PUT', `/v1/memory/${kept.id}`, { text: 'kept 2', type: 'fact' });
    const second = await moment();
    await ann.call('DELETE', `/v1/memory/${soft.id}`);
    await ann.call('DELETE', `/v1/memory/${hard.id}?hard_delete=true`);
    const third = await moment();
    const list = async (who: Caller, at: string, more = '') =>
      (await who.call('GET', `/v1/memory/?as_of=${at}${more}`)).body.map(({ text }: any) => text);
    assert.deepEqual(await list(ann, before), []);
    assert.deepEqual(await list(ann, first), ['soft 1', 'kept 1']);
    assert.deepEqual(await list(ann, second), ['soft 1', 'kept 2']);
    assert.deepEqual(await list(ann, third), ['kept 2']);
    assert.deepEqual(await list(ann, first, '&memory_type=fact'), []);
    assert.deepEqual(await list(ann, second, '&memory_type=fact'), ['kept 2']);
    assert.deepEqual(await list(ben, first), []);
    assert.deepEqual(await list(admin, first), ['soft 1', 'kept 1']);
    const get = (who: Caller, id: string, at: string) => who.call('GET', `/v1/memory/${id}?as_of=${at}`);
    const then = await get(ann, kept.id, first);
    assert.deepEqual([then.body.text, then.body.type, then.body.version], ['kept 1', 'note', 1]);
    assert.equal((await get(ann, kept.id, second)).body.text, 'kept 2');
    assert.equal((await get(ann, soft.id, second)).body.text, 'soft 1');
    for (const [who, id, at] of [
      [ann, kept.id, before],
      [ann, soft.id, third],
      [ann, hard.id, first],
      [ben, kept.id, first],
      [await newTenant('admin'), kept.id, first],
    ] as const)
      assert.equal((await get(who, id, at)).status, 404);
  });

  it('pages, and takes a cursor for its own time only', async () => {
    const ann = await newTenant('user');
    for (let i = 0; i < 5; i++) await make(ann, note(`thing ${i}`));
    const at = await moment();
    await make(ann, note('later'));
    const page = await ann.call('GET', `/v1/memory/?as_of=${at}&limit=3`);
    const cursor = String(page.headers['x-next-cursor']);
    const next = await ann.call('GET', `/v1/memory/?as_of=${at}&limit=3&cursor=${cursor}`);
    assert.deepEqual(
      [...page.body, ...next.body].map(({ text }: any) => text),
      ['thing 4', 'thing 3', 'thing 2', 'thing 1', 'thing 0'],
    );
    assert.equal(
      (await ann.call('GET', `/v1/memory/?limit=3&cursor=${cursor}`)).body.error.code,
      'INVALID_CURSOR',
    );
  });

  it('never shows an expired memory, for whatever time, and no version past its own time', async () => {
    const ann = await newTenant('user');
    const soon = Date.now() + 3_000;
    const short = await make(ann, note('short lived', { expires_at: new Date(soon).toISOString() }));
    const long = await make(ann, note('prolonged', { expires_at: new Date(soon).toISOString() }));
    const early = await moment();
    await ann.call('PUT', `/v1/memory/${long.id}`, { expires_at: null });
    assert.equal((await ann.call('GET', `/v1/memory/?as_of=${early}`)).body.length, 2);
    await sleep(soon - Date.now() + 5);
    assert.deepEqual(
      (await ann.call('GET', `/v1/memory/?as_of=${early}`)).body.map(({ text }: any) => text),
      ['prolonged'],
    );
    for (const path of ['', '/history', `?as_of=${early}`])
      assert.equal((await ann.call('GET', `/v1/memory/${short.id}${path}`)).status, 404, path);
    assert.equal((await ann.call('GET', `/v1/memory/${long.id}/history`)).body.length, 2);
  });

  it('is asked with a time that has come, and not of a search', async () => {
    const ann = await newTenant('user');
    const ask = async (url: string) => (await ann.call('GET', url)).status;
    assert.equal(await ask('/v1/memory/?as_of=yesterday'), 422);
    assert.equal(await ask('/v1/memory/?as_of=2999-01-01T00:00:00Z'), 422);
    assert.equal(await ask('/v1/memory/?as_of=2025-01-01T00:00:00Z&deleted=true'), 422);
    assert.equal(await ask('/v1/memory/?as_of=2025-01-01T00:00:00%2B02:00'), 200);
    const search = await ann.call('POST', '/v1/memory/search', { query: 'x', as_of: '2025-01-01T00:00:00Z' });
    assert.equal(search.status, 422);
  });

  it('asks policy about what a memory was and about what it is', async () => {
    const admin = await newTenant('admin');
    const ann = await newMember(admin, 'user');
    const [opened, shut] = [
      await make(ann, note('was secret', { type: 'secret' })),
      await make(ann, note('was open')),
    ];
    const at = await moment();
    await ann.call('PUT', `/v1/memory/${opened.id}`, { text: 'harmless', type: 'note' });
    await ann.call('PUT', `/v1/memory/${shut.id}`, { type: 'secret' });
    await denyReading(admin.tenant, 'secret');
    for (const { id } of [opened, shut])
      assert.equal((await ann.call('GET', `/v1/memory/${id}?as_of=${at}`)).status, 404);
    assert.deepEqual((await ann.call('GET', `/v1/memory/?as_of=${at}`)).body, []);
    const shown = await ann.call('GET', `/v1/memory/${opened.id}/history`);
    assert.deepEqual(
      shown.body.map(({ text }: any) => text),
      ['harmless'],
    );
  });
});

async function denyReading(tenant: string, type: string): Promise<void> {
  const { app } = await testServer();
  await app.database.operator.run(sql`
    insert into policies (tenant_id, id, role, rule, effect, priority, is_active, created_at, updated_at)
    values (${tenant}, ${crypto.randomUUID()}, '*', ${{ and: [{ '==': [{ var: 'memory_type' }, type] }, { in: [{ var: 'action' }, ['read', 'list', 'search']] }] }},
      'deny', 100, true, ${new Date()}, ${new Date()})`);
  app.shared.invalidate('policy', tenant);
}

describe('restoring', () => {
  it('brings a deleted memory back, found and counted again', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const { id } = await make(ann, note('retirement planning'));
    const known = await moment();
    await ann.call('DELETE', `/v1/memory/${id}`);
    const gone = await moment();
    const trash = await ann.call('GET', '/v1/memory/?deleted=true');
    assert.deepEqual(
      trash.body.map((memory: any) => memory.id),
      [id],
    );
    assert.ok(trash.body[0].deleted_at < gone);
    assert.deepEqual((await bob.call('GET', '/v1/memory/?deleted=true')).body, []);
    assert.equal((await bob.call('POST', `/v1/memory/${id}/restore`)).status, 404);
    const back = await ann.call('POST', `/v1/memory/${id}/restore`);
    assert.equal(back.status, 200);
    assert.deepEqual([back.body.version, back.body.embedding_status], [2, 'pending']);
    assert.equal((await ann.call('POST', `/v1/memory/${id}/restore`)).status, 404);
    assert.deepEqual((await ann.call('GET', '/v1/memory/?deleted=true')).body, []);
    await eventually(
      'its vector',
      async () => (await ann.call('GET', `/v1/memory/${id}`)).body.embedding_status === 'ready',
    );
    assert.equal(
      (await ann.call('POST', '/v1/memory/search', { query: 'retirement planning' })).body[0].id,
      id,
    );
    // It was not known while it was deleted.
    const as = async (at: string) => (await ann.call('GET', `/v1/memory/${id}?as_of=${at}`)).status;
    assert.deepEqual([await as(known), await as(gone), await as(await moment())], [200, 404, 200]);
    const [now, then] = (await ann.call('GET', `/v1/memory/${id}/history`)).body;
    assert.equal(now.change, 'restored');
    assert.equal(then.valid_until, trash.body[0].deleted_at);
    assert.ok(now.valid_from > then.valid_until);
    const { app } = await testServer();
    const db = app.database.tenant(ann.tenant);
    assert.equal((await statisticsOf(db, ann.tenant, 'memory')).texts, 1);
  });

  it('ends where a deleted memory is removed for good, once', async () => {
    const { app } = await testServer();
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const { id } = await make(ann, note('to be gone'));
    const kept = await make(ann, note('to stay'));
    const counted = () => statisticsOf(app.database.tenant(ann.tenant), ann.tenant, 'memory');
    await eventually('both to be counted', async () => (await counted()).texts === 2);
    for (const both of ['hard_delete=true&hard=false', 'hard_delete=false&hard=true'])
      for (const who of [ann, bob]) {
        const { status, body } = await who.call('DELETE', `/v1/memory/${id}?${both}`);
        assert.deepEqual([status, body.error.details.errors[0].path], [422, '/hard'], both);
      }
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).status, 200, 'neither has deleted it');
    assert.equal((await ann.call('DELETE', `/v1/memory/${id}?hard_delete=false&hard=false`)).status, 204);
    assert.equal((await ann.call('DELETE', `/v1/memory/${id}`)).status, 404);
    assert.equal((await bob.call('DELETE', `/v1/memory/${id}?hard_delete=true`)).status, 404);
    assert.equal((await ann.call('DELETE', `/v1/memory/${id}?hard_delete=true`)).status, 204);
    assert.deepEqual((await ann.call('GET', '/v1/memory/?deleted=true')).body, []);
    assert.equal((await ann.call('POST', `/v1/memory/${id}/restore`)).status, 404);
    assert.equal((await ann.call('DELETE', `/v1/memory/${id}?hard_delete=true`)).status, 404);
    const left = await app.database
      .tenant(ann.tenant)
      .rows(sql`select id from memories where tenant_id = ${ann.tenant}`);
    assert.deepEqual(left, [{ id: kept.id }]);
    assert.equal((await counted()).texts, 1);
  });

  it('is over when the trash is emptied, and never brings back what was removed or has expired', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const [old, hard, expired] = [
      await make(ann, note('old')),
      await make(ann, note('hard')),
      await make(ann, note('expired', { ttl_days: 1 })),
    ];
    await ann.call('PUT', `/v1/memory/${old.id}`, { text: 'older' });
    for (const { id } of [old, expired]) await ann.call('DELETE', `/v1/memory/${id}`);
    await ann.call('DELETE', `/v1/memory/${hard.id}?hard_delete=true`);
    const days = (count: number) => new Date(Date.now() - count * 86_400_000);
    await app.database.operator.batch([
      sql`update memories set deleted_at = ${days(30)} where tenant_id = ${ann.tenant} and id = ${old.id}`,
      sql`update memories set expires_at = ${days(1)} where tenant_id = ${ann.tenant} and id = ${expired.id}`,
    ]);
    assert.equal((await ann.call('POST', `/v1/memory/${old.id}/restore`)).status, 404);
    assert.equal((await ann.call('POST', `/v1/memory/${hard.id}/restore`)).status, 404);
    assert.equal(
      (await ann.call('POST', `/v1/memory/${expired.id}/restore`)).body.error.code,
      'MEMORY_EXPIRED',
    );
    assert.deepEqual((await ann.call('GET', '/v1/memory/?deleted=true')).body, []);
    await emptyTrash(app);
    const left = await app.database.operator.rows(sql`
      select id from memories where tenant_id = ${ann.tenant} union all
      select memory_id from memory_versions where tenant_id = ${ann.tenant}`);
    assert.deepEqual(left, [{ id: expired.id }]);
  });
});

describe('a bulk request', () => {
  it('fails a row with text that can not be kept, and that row only', async () => {
    const ann = await newTenant('user');
    const memories = [
      '{"text":"good","type":"note"}',
      '{"text":"nul \\u0000","type":"note"}',
      '{"text":"half \\ud800","type":"note"}',
      '{"text":"deep","type":"note","metadata":{"a":[{"b\\udfff":1}]}}',
      '{"text":"proto","type":"note","metadata":{"__proto__":1}}',
      '{"text":"whole \\ud83d\\ude00","type":"note"}',
    ];
    const reply = await call('POST', '/v1/memory/bulk', {
      token: ann.token,
      payload: `{"memories":[${memories}]}`,
      headers: { 'content-type': 'application/json' },
    });
    assert.equal(reply.status, 201, reply.text);
    assert.deepEqual(
      reply.body.created.map(({ index }: any) => index),
      [0, 5],
    );
    assert.deepEqual(
      reply.body.failed.map(({ index, error }: any) => [index, error.code]),
      [1, 2, 3, 4].map((index) => [index, 'VALIDATION_ERROR']),
    );
    assert.match(reply.body.failed[0].error.message, /\/text contains a NUL/);
    assert.deepEqual(
      (await ann.call('GET', '/v1/memory/')).body.map(({ text }: any) => text),
      ['whole 😀', 'good'],
    );
  });
});
