import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import { firstUuidv7, uuidv7 } from '#platform/ids.ts';
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
import { findErasure } from './erasure-store.ts';
import { sweepErasure } from './sweep.ts';

useTestServer();

const note = (text: string, more: object = {}) => ({ text, type: 'note', ...more });
const make = async (who: Caller, body: object) => {
  const reply = await who.call('POST', '/v1/memory/', body);
  assert.equal(reply.status, 201, reply.text);
  return reply.body;
};
const erase = (who: Caller, body: object) => who.call('POST', '/v1/memory/erase', body);
const settled = (who: Caller) =>
  eventually('vectors', async () =>
    (await who.call('GET', '/v1/memory/?limit=1000')).body.every(
      (m: any) => m.embedding_status !== 'pending',
    ),
  );

/** Rows of a tenant in all tables that belong to memories, but for tombstones and the erasure itself. */
async function left(tenant: string): Promise<Record<string, number>> {
  const { app } = await testServer();
  const found: Record<string, number> = {};
  for (const table of [
    'memories',
    'memory_versions',
    'memory_vectors',
    'memory_queue',
    'memory_sources',
    'memory_derivations',
    'memory_import_chunks',
  ]) {
    const { rows } = await app.database.operatorPool.query(
      `select count(*)::int as count from ${table} where tenant_id = $1`,
      [tenant],
    );
    if (rows[0].count > 0) found[table] = rows[0].count;
  }
  const { terms } = await statisticsOf(app.database.tenant(tenant), tenant, 'memory');
  if (terms.size > 0) found.terms = terms.size;
  return found;
}

describe('an erasure', () => {
  it('takes along what was kept to answer a repeated request, and lets nothing be done again', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const key = (name: string) => ({ 'idempotency-key': name });
    const twice = async (who: Caller, name: string, body: object) => {
      const first = await who.call('POST', '/v1/memory/', body, key(name));
      const again = await who.call('POST', '/v1/memory/', body, key(name));
      assert.deepEqual([first.status, again.headers['idempotency-replayed']], [201, 'true'], again.text);
      return first.body.id as string;
    };
    const [gone, kept, theirs, removed] = [
      await twice(ann, 'one', note('the secret of the lamp')),
      await twice(ann, 'two', note('the oil of the lamp')),
      await twice(bob, 'one', note('the secret of the lamp')),
      await twice(ann, 'three', note('the wick of the lamp')),
    ];
    const changed = { metadata: { seen: true } };
    assert.equal((await ann.call('PUT', `/v1/memory/${gone}`, changed, key('change'))).status, 200);
    assert.equal((await erase(ann, { memory_ids: [gone] })).body.status, 'completed');
    assert.equal((await ann.call('DELETE', `/v1/memory/${removed}?hard_delete=true`)).status, 204);
    const repeated = await Promise.all([
      ann.call('POST', '/v1/memory/', note('the secret of the lamp'), key('one')),
      ann.call('PUT', `/v1/memory/${gone}`, changed, key('change')),
      ann.call('POST', '/v1/memory/', note('the wick of the lamp'), key('three')),
    ]);
    for (const { status, body, text } of repeated) {
      assert.deepEqual([status, body.error?.code], [409, 'IDEMPOTENCY_ANSWER_ERASED'], text);
      assert.doesNotMatch(text, /lamp/);
    }
    for (const [who, name, text, id] of [
      [ann, 'two', 'the oil of the lamp', kept],
      [bob, 'one', 'the secret of the lamp', theirs],
    ] as const)
      assert.equal((await who.call('POST', '/v1/memory/', note(text), key(name))).body.id, id);
    assert.equal((await ann.call('GET', '/v1/memory/')).body.length, 1);
  });

  it('removes memories, deleted ones too, with all that was made from them, and gives a receipt', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const plain = await make(ann, note('a plain walnut'));
    await ann.call('PUT', `/v1/memory/${plain.id}`, { text: 'a changed walnut' });
    const secret = await make(ann, note('a secret walnut', { sensitive: true }));
    const trashed = await make(ann, note('a trashed walnut'));
    const kept = await make(ann, note('an almond that stays'));
    await settled(ann);
    await ann.call('DELETE', `/v1/memory/${trashed.id}`);
    const ids = [plain.id, secret.id, trashed.id];
    const theirs = await erase(bob, { memory_ids: ids });
    assert.deepEqual([theirs.body.counts.memories, theirs.body.missing], [0, ids]);
    assert.deepEqual([theirs.body.receipt.found, theirs.body.receipt.missing], [false, ids]);
    const never = [uuidv7(), 'nonsense'];
    const reply = await erase(ann, { memory_ids: [...ids, ...never], reason: 'asked by mail' });
    assert.equal(reply.status, 200, reply.text);
    const { id, status, counts, missing, receipt } = reply.body;
    assert.deepEqual([status, missing], ['completed', never]);
    assert.deepEqual([receipt.found, receipt.missing], [true, never]);
    assert.deepEqual(counts, { memories: 3, derived: 0, versions: 1, vectors: 1, imports: 0 });
    assert.equal(receipt.reason, 'asked by mail');
    assert.deepEqual(receipt.requested_by, { type: 'identity', id: ann.id, on_behalf_of: null });
    assert.deepEqual(
      receipt.hashes.map((one: any) => one.memory_id),
      [...ids].sort(),
    );
    assert.match(receipt.hashes[0].hash, /^[0-9a-f]{64}$/);
    for (const gone of ids) {
      assert.equal((await ann.call('GET', `/v1/memory/${gone}`)).status, 404);
      assert.equal((await ann.call('GET', `/v1/memory/${gone}/history`)).status, 404);
      assert.equal((await ann.call('POST', `/v1/memory/${gone}/restore`)).status, 404);
    }
    assert.deepEqual((await ann.call('POST', '/v1/memory/search', { query: 'walnut' })).body, []);
    assert.equal((await ann.call('POST', '/v1/memory/search', { query: 'almond' })).body[0].id, kept.id);
    assert.deepEqual(await left(ann.tenant), {
      memories: 1,
      memory_vectors: 1,
      terms: countedAnew([kept.text]).terms.size,
    });
    const again = await ann.call('GET', reply.body.status_url);
    assert.equal(again.body.is_verified, true);
    assert.deepEqual([again.body.receipt, again.body.missing], [receipt, never]);
    assert.equal((await bob.call('GET', `/v1/memory/erasures/${id}`)).status, 404);
    const { app } = await testServer();
    await app.database.operator.run(sql`
      update memory_erasures set receipt = jsonb_set(receipt, '{reason}', '"another"') where tenant_id = ${ann.tenant} and id = ${id}`);
    assert.equal((await ann.call('GET', `/v1/memory/erasures/${id}`)).body.is_verified, false);
  });

  it('of what was never there signs that nothing was found, whatever named it', async () => {
    const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
    await make(bob, note('a walnut of somebody else'));
    for (const body of [
      { memory_ids: [uuidv7(), 'nonsense', 'nonsense'] },
      { identity_id: uuidv7() },
      { identity_id: bob.id },
      { metadata: { project: 'none' } },
    ]) {
      const reply = await erase(ann, body);
      assert.equal(reply.status, 200, reply.text);
      const { receipt, missing } = (await ann.call('GET', reply.body.status_url)).body;
      const named = body.memory_ids && [...new Set(body.memory_ids)];
      assert.deepEqual(
        [receipt.found, receipt.hashes, receipt.missing, missing],
        [false, [], named, named],
        reply.text,
      );
    }
    assert.equal((await bob.call('GET', '/v1/memory/')).body.length, 1);
  });

  it('keeps what was erased from being learned again, in whatever spelling and by whatever way', async () => {
    const admin = await newTenant('admin');
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const { id } = await make(ann, note('Ann had a crash in 2019.'));
    await ann.call('PUT', `/v1/memory/${id}`, { text: 'Ann had two crashes' });
    const other = await make(ann, note('something else'));
    await erase(ann, { memory_ids: [id] });
    const refused = [
      await ann.call('POST', '/v1/memory/', note('Ann had two crashes')),
      await ann.call('POST', '/v1/memory/', note(' ann had  a crash in 2019')),
      await ann.call('POST', '/v1/memory/', note('Ann had two crashes', { sensitive: true })),
      await ann.call('PUT', `/v1/memory/${other.id}`, { text: 'Ann had TWO crashes!' }),
      await ann.call('POST', '/v1/memory/', note('Ann had two crashes'), { 'idempotency-key': uuidv7() }),
      await ann.call('POST', '/v1/memory/infer', {
        messages: [{ role: 'user', content: 'Ann had two crashes' }],
      }),
    ];
    for (const reply of refused)
      assert.deepEqual([reply.status, reply.body.error?.code], [409, 'MEMORY_ERASED'], reply.text);
    const bulk = await ann.call('POST', '/v1/memory/bulk', {
      memories: [note('fine'), note('Ann had two crashes'), note('fine too')],
    });
    assert.deepEqual(
      bulk.body.created.map(({ index }: any) => index),
      [0, 2],
    );
    assert.deepEqual([bulk.body.failed[0].index, bulk.body.failed[0].error.code], [1, 'MEMORY_ERASED']);
    const former = {
      version: 1,
      text: 'Ann had two crashes',
      type: 'note',
      metadata: {},
      session_id: null,
      role: null,
      occurred_at: null,
      ttl_days: null,
      expires_at: null,
      valid_from: '2024-01-01T00:00:00Z',
      valid_until: '2024-02-01T00:00:00Z',
    };
    const file = await call('POST', '/v1/memory/import', {
      token: ann.token,
      payload: [note('Ann had two crashes'), note('harmless now', { version: 2, versions: [former] })]
        .map((line) => JSON.stringify(line))
        .join('\n'),
      headers: { 'content-type': 'application/x-ndjson' },
    });
    const state = await eventually('the import', async () => {
      const { body } = await ann.call('GET', file.body.status_url);
      return body.status === 'succeeded' && body;
    });
    assert.deepEqual(
      [state.created, state.errors.map(({ code }: any) => code)],
      [0, ['MEMORY_ERASED', 'MEMORY_ERASED']],
    );
    // Nor from a file that says it was hers, whoever imports it, and makes it its own.
    const backup = await call('POST', '/v1/memory/import', {
      token: admin.token,
      payload: JSON.stringify({ ...note('Ann had two crashes'), identity_id: ann.id.toUpperCase() }),
      headers: { 'content-type': 'application/x-ndjson' },
    });
    const restored = await eventually('the import of a backup', async () => {
      const { body } = await admin.call('GET', backup.body.status_url);
      return body.status === 'succeeded' && body;
    });
    assert.deepEqual([restored.created, restored.errors[0]?.code], [0, 'MEMORY_ERASED']);
    // It was erased for ann, not for everybody.
    assert.equal((await ben.call('POST', '/v1/memory/', note('Ann had two crashes'))).status, 201);
    // Only an admin lets it be learned again.
    const relearn = note('Ann had two crashes', { relearn: true });
    assert.equal((await ann.call('POST', '/v1/memory/', relearn)).status, 403);
    assert.equal((await admin.call('POST', '/v1/memory/', relearn)).status, 201);
    assert.equal((await ann.call('POST', '/v1/memory/', note('Ann had two crashes'))).status, 409);
  });

  it('is lifted by an admin for its own texts', async () => {
    const admin = await newTenant('admin');
    const { id } = await make(admin, note('a mistake'));
    await erase(admin, { memory_ids: [id] });
    assert.equal((await admin.call('POST', '/v1/memory/', note('a mistake'))).status, 409);
    const bulk = await admin.call('POST', '/v1/memory/bulk', {
      memories: [note('a mistake', { relearn: true })],
    });
    assert.equal(bulk.body.created.length, 1);
    assert.equal((await admin.call('POST', '/v1/memory/', note('a mistake'))).status, 201);
  });

  it('takes all of an identity, or all with some metadata, in steps when they are many', async () => {
    const admin = await newTenant('admin');
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    for (let i = 0; i < 2; i++)
      await ann.call('POST', '/v1/memory/bulk', {
        memories: Array.from({ length: 700 }, (_, j) =>
          note(`memory ${i} ${j}`, { metadata: { case: j % 2 } }),
        ),
      });
    const his = await make(ben, note('of ben', { metadata: { case: 1 } }));
    await call('POST', '/v1/memory/import?complete=false', {
      token: ann.token,
      payload: `${JSON.stringify(note('half a file'))}\n`,
      headers: { 'content-type': 'application/x-ndjson' },
    });
    const done = (url: string, who = ann) =>
      eventually('the erasure', async () => {
        const { body } = await who.call('GET', url);
        return body.status === 'completed' && body;
      });
    // Somebody's own view is that of its own memories, whatever it names.
    const other = await erase(ann, { identity_id: ben.id });
    assert.deepEqual([other.body.status, other.body.counts.memories], ['completed', 0]);
    // Nor does it take longer where there is more.
    const many = await erase(ben, { identity_id: ann.id, metadata: { case: 1 } });
    assert.deepEqual([many.body.status, many.body.counts.memories], ['completed', 0]);
    const some = await erase(ann, { metadata: { case: 1 } });
    assert.deepEqual([some.status, some.body.status], [202, 'running']);
    assert.equal((await done(some.body.status_url)).counts.memories, 700);
    const rest = await erase(admin, { identity_id: ann.id });
    const all = await done(rest.body.status_url, admin);
    assert.deepEqual([all.counts.memories, all.counts.imports], [700, 1]);
    assert.equal(all.receipt.hashes.length, 700);
    assert.equal((await ben.call('GET', `/v1/memory/${his.id}`)).status, 200);
    assert.deepEqual((await ann.call('GET', '/v1/memory/')).body, []);
    assert.equal((await left(admin.tenant)).memories, 1);
    const { app } = await testServer();
    const facts = await app.database.operator.rows<{ ids: string[] }>(sql`
      select data->'memory_ids' as ids from facts where tenant_id = ${admin.tenant} and type = 'memory.erased'`);
    assert.equal(facts.flatMap(({ ids }) => ids).length, 1_400);
    for (const body of [{}, { memory_ids: [his.id], identity_id: ben.id }, { metadata: {} }])
      assert.equal((await erase(admin, body)).status, 422);
  });

  it('erases what came of a memory, and what came of that', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const [source, child, grandchild, other] = [
      await make(ann, note('the source')),
      await make(ann, note('inferred from it')),
      await make(ann, note('inferred from that')),
      await make(ann, note('unrelated')),
    ];
    await app.database.operator.run(sql`
      insert into memory_derivations (tenant_id, source_id, memory_id)
      values (${ann.tenant}, ${source.id}, ${child.id}), (${ann.tenant}, ${child.id}, ${grandchild.id})`);
    // The link in the middle was removed before; what came of it is found all the same.
    await ann.call('DELETE', `/v1/memory/${child.id}?hard_delete=true`);
    const { body } = await erase(ann, { memory_ids: [source.id] });
    assert.deepEqual([body.counts.memories, body.counts.derived], [2, 1]);
    assert.deepEqual(
      (await ann.call('GET', '/v1/memory/')).body.map(({ id }: any) => id),
      [other.id],
    );
    assert.equal((await ann.call('POST', '/v1/memory/', note('inferred from that'))).status, 409);
    assert.equal((await left(ann.tenant)).memory_derivations, undefined);
  });

  it('sweeps what another process stored in the moment before it knew', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const { id } = await make(ann, note('short memory'));
    const { body } = await erase(ann, { memory_ids: [id] });
    // As a process that has not heard of the tombstone would: past the check.
    const late = firstUuidv7(Date.now());
    await app.database.operator.run(sql`
      insert into memories (tenant_id, id, identity_id, text, type, created_at, updated_at, words, trigrams)
      values (${ann.tenant}, ${late}, ${ann.id}, 'Short memory.', 'note', ${new Date()}, ${new Date()}, '{}/268435456', '{}/268435456')`);
    await app.database.operator.run(
      sql`insert into memory_queue (tenant_id, memory_id, created_at) values (${ann.tenant}, ${late}, ${new Date()})`,
    );
    const ctx = systemCtx(app, ann.tenant, 'sweep');
    await sweepErasure(ctx, (await findErasure(ctx.db, body.id))!);
    assert.equal((await ann.call('GET', `/v1/memory/${late}`)).status, 404);
    const swept = (await ann.call('GET', body.status_url)).body;
    assert.deepEqual([swept.counts.memories, swept.is_verified], [2, true]);
    assert.equal(swept.receipt.hashes.length, 2);
  });
});
