import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { type Caller, eventually, newMember, startServer, testServer, useTestServer } from '#test/harness.ts';
import { codeOf, corpus, done, file, newLibrary, put, search, stored, upload } from '#test/uploads.ts';
import { documentSchedules } from './jobs.ts';

useTestServer();

/** Rows of a tenant that belong to a corpus, by table. */
async function rowsOf(caller: Caller) {
  const { operator } = (await testServer()).app.database;
  const row = await operator.one(sql<Record<string, number>>`
    select (select count(*) from corpora where tenant_id = ${caller.tenant}) as corpora,
      (select count(*) from documents where tenant_id = ${caller.tenant}) as documents,
      (select count(*) from document_permissions where tenant_id = ${caller.tenant}) as permissions,
      (select count(*) from chunks where tenant_id = ${caller.tenant}) as chunks,
      (select count(*) from chunk_vectors where tenant_id = ${caller.tenant}) as vectors,
      (select count(*) from text_counts where tenant_id = ${caller.tenant} and scope = 'corpus:c1') as totals,
      (select count(*) from term_counts where tenant_id = ${caller.tenant} and scope = 'corpus:c1') as terms,
      (select count(*) from term_changes where tenant_id = ${caller.tenant} and scope = 'corpus:c1') as changes`);
  return row!;
}

const factsOf = async (caller: Caller, type: string) =>
  (await testServer()).app.database.operator.rows(sql<{ data: any }>`
    select data from facts where tenant_id = ${caller.tenant} and type = ${type}`);

describe('deleting a corpus', () => {
  it('hides it and its documents at once, and leaves nothing of them', async () => {
    const mine = await newLibrary();
    await mine.call('POST', '/v1/corpora', { id: 'other', name: 'Other' });
    for (let i = 0; i < 60; i++)
      await put(mine, { document_id: `d-${i}`, text: `Harbour number ${i} has its own words.` });
    await stored(mine, 'kept', 'What is kept elsewhere.', { corpus_id: 'other' });
    for (let i = 0; i < 60; i++) await done(mine, `d-${i}`);
    const editor = await newMember(mine, 'editor');
    assert.equal((await editor.call('DELETE', '/v1/corpora/c1')).status, 403);
    const before = await rowsOf(mine);
    assert.deepEqual([before.corpora, before.documents], [2, 61]);
    assert.equal((await mine.call('DELETE', '/v1/corpora/c1')).status, 204);
    for (const [method, path, body] of [
      ['GET', '/v1/corpora/c1', undefined],
      ['DELETE', '/v1/corpora/c1', undefined],
      ['PATCH', '/v1/corpora/c1', { name: 'x' }],
      ['POST', '/v1/corpora/c1/search', { query: 'harbour' }],
      ['GET', '/v1/documents/d-1', undefined],
      ['GET', '/v1/documents/d-1/content', undefined],
      ['DELETE', '/v1/documents/d-1', undefined],
      ['POST', '/v1/documents/d-1/reindex', {}],
      ['POST', '/v1/documents/text', { corpus_id: 'c1', text: 'x' }],
    ] as const)
      assert.deepEqual(codeOf(await mine.call(method, path, body)), [404, 'NOT_FOUND'], `${method} ${path}`);
    assert.deepEqual(
      (await mine.call('GET', '/v1/corpora')).body.data.map(({ id }: any) => id),
      ['other'],
    );
    assert.deepEqual(
      (await mine.call('GET', '/v1/documents')).body.data.map(({ id }: any) => id),
      ['kept'],
    );
    const left = await eventually('the corpus to be empty', async () => {
      const rows = await rowsOf(mine);
      return rows.corpora === 1 && rows;
    });
    assert.deepEqual([left.documents, left.permissions, left.chunks, left.vectors], [1, 1, 1, 1]);
    assert.equal((await search(mine, 'kept elsewhere')).status, 404);
    assert.equal((await factsOf(mine, 'corpora.deleted')).length, 1);
    assert.equal((await factsOf(mine, 'corpora.purged'))[0]!.data.documents, 60);
    // Its name is free, and what comes under it begins with nothing.
    assert.equal((await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'Again' })).status, 201);
    await stored(mine, 'd-1', 'A new beginning.');
    assert.equal((await search(mine, 'harbour number')).body.data.length, 0);
  });

  it('is refused while documents of it are worked on, and changes nothing', async () => {
    const mine = await newLibrary();
    await stored(mine, 'a', 'words');
    const db = (await testServer()).app.database.tenant(mine.tenant);
    for (const status of ['queued', 'processing']) {
      await db.run(
        sql`update documents set status = ${status} where tenant_id = ${mine.tenant} and id = 'a'`,
      );
      assert.deepEqual(codeOf(await mine.call('DELETE', '/v1/corpora/c1')), [409, 'INGEST_IN_PROGRESS']);
    }
    await db.run(sql`update documents set status = 'failed' where tenant_id = ${mine.tenant} and id = 'a'`);
    assert.equal((await mine.call('GET', '/v1/corpora/c1')).status, 200);
    assert.equal((await mine.call('DELETE', '/v1/corpora/c1')).status, 204);
  });

  it('keeps its name until it is gone', async () => {
    const mine = await newLibrary();
    const { app } = await testServer();
    // As a killed process leaves it: deleted, and nobody working on it.
    await app.database.tenant(mine.tenant).run(sql`
      update corpora set deleted_at = now() - interval '1 minute', purge_job = ${uuidv7()} where tenant_id = ${mine.tenant}`);
    assert.deepEqual(codeOf(await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'x' })), [
      409,
      'CORPUS_EXISTS',
    ]);
    await documentSchedules.find(({ name }) => name === 'corpora.unpurged')!.run(app);
    await eventually('the corpus to be gone', async () => (await rowsOf(mine)).corpora === 0);
    assert.equal((await mine.call('POST', '/v1/corpora', { id: 'c1', name: 'x' })).status, 201);
  });

  it('goes on where it was broken off', async () => {
    const mine = await newLibrary();
    for (const id of ['a', 'b', 'c']) await stored(mine, id, `words of ${id}`);
    const { app } = await testServer();
    const job = uuidv7();
    const db = app.database.tenant(mine.tenant);
    await db.batch([
      sql`update corpora set deleted_at = now() - interval '1 minute', purge_job = ${job} where tenant_id = ${mine.tenant}`,
      sql`delete from chunk_vectors where tenant_id = ${mine.tenant}`,
      sql`delete from chunks where tenant_id = ${mine.tenant} and document_id = 'a'`,
    ]);
    const payload = { tenant_id: mine.tenant, fact_id: job, resource_id: 'c1', data: {} };
    // Twice at once: the second finds nothing to do.
    await app.enqueue('corpora.purge', [payload, { ...payload, fact_id: uuidv7() }]);
    await eventually('the corpus to be gone', async () => (await rowsOf(mine)).corpora === 0);
    assert.deepEqual(Object.values(await rowsOf(mine)).filter(Boolean), []);
    assert.equal((await factsOf(mine, 'corpora.purged')).length, 1);
  });
});

describe('more than can be taken', () => {
  it('is answered 503 SERVICE_BUSY when a tenant has as many documents waiting as may, others are served', async () => {
    const server = await startServer({ INGEST_MAX_QUEUED: '3' }, { serve: true, work: false });
    try {
      const [mine, other] = [await newLibrary(server), await newLibrary(server)];
      for (const id of ['a', 'b', 'c'])
        assert.equal((await put(mine, { document_id: id, text: id })).status, 202);
      const busy = await put(mine, { document_id: 'd', text: 'd' });
      assert.deepEqual(codeOf(busy), [503, 'SERVICE_BUSY']);
      assert.ok(Number(busy.headers['retry-after']) > 0);
      assert.equal((await mine.call('GET', '/v1/documents/d')).status, 404);
      // What is there is told all the same.
      assert.equal((await put(mine, { document_id: 'a', text: 'a' })).status, 200);
      assert.equal((await put(other, { document_id: 'a', text: 'a' })).status, 202);
    } finally {
      await server.stop();
    }
  });

  it('is answered 503 SERVICE_BUSY when as many uploads are being taken as may', async () => {
    const server = await startServer({ UPLOAD_MAX_CONCURRENCY: '2' });
    try {
      const mine = await newLibrary(server);
      const big = Buffer.alloc(2_000_000, 'words and ');
      const replies = await Promise.all(
        Array.from({ length: 12 }, () => upload(mine, [corpus, file(big)], {}, server)),
      );
      const statuses = new Set(replies.map(({ status }) => status));
      assert.deepEqual([...statuses].sort(), [202, 503]);
      for (const reply of replies.filter(({ status }) => status === 503))
        assert.deepEqual(codeOf(reply), [503, 'SERVICE_BUSY']);
      assert.equal((await upload(mine, [corpus, file('small')], {}, server)).status, 202);
    } finally {
      await server.stop();
    }
  });
});
