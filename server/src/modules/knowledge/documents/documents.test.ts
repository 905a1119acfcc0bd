import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  callServer,
  eventually,
  newMember,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { countedAnew, statisticsOf } from '#test/statistics.ts';
import {
  codeOf,
  corpus,
  done,
  file,
  form,
  newLibrary,
  type Part,
  put,
  search,
  stored,
  upload,
} from '#test/uploads.ts';
import { documentSchedules } from './jobs.ts';

useTestServer();

/** The statistics of a corpus are what a recount of its chunks gives, and every chunk has its vector. */
async function assertCounted(caller: Caller, chunks?: number): Promise<void> {
  const db = (await testServer()).app.database.tenant(caller.tenant);
  const texts = (
    await db.rows(
      sql<{
        indexed: string;
      }>`select above || text as indexed from chunks where tenant_id = ${caller.tenant}`,
    )
  ).map(({ indexed }) => indexed);
  if (chunks !== undefined) assert.equal(texts.length, chunks);
  assert.deepEqual(await statisticsOf(db, caller.tenant, 'corpus:c1'), countedAnew(texts));
  const vectors = await db.one(
    sql<{ n: number }>`select count(*) as n from chunk_vectors where tenant_id = ${caller.tenant}`,
  );
  assert.equal(vectors?.n, texts.length);
}

const guide = `# Lighthouse guide

The lighthouse stands on the northern cliff and was built of granite in the year of the great storm, on the ruins of an older tower.

## Lamp

The lamp turns once every twelve seconds and burns colza oil, which is refilled at dusk by the keeper of the light.

## Fog horn

When fog comes in, the horn sounds three times each minute until the far shore can be seen again by the watch.
`;

describe('storing a document', () => {
  it('answers 202 with the job, and the document goes from queued to succeeded', async () => {
    const mine = await newLibrary();
    const reply = await put(mine, {
      text: guide,
      document_id: 'doc-123',
      filename: 'guide.md',
      overwrite: false,
      metadata_json: { labels: { area: 'sea' } },
    });
    assert.equal(reply.status, 202, reply.text);
    const { document_id, status, job_id, status_url } = reply.body.data;
    assert.deepEqual([document_id, status, status_url], ['doc-123', 'queued', '/v1/documents/doc-123']);
    assert.match(job_id, /^[0-9a-f-]{36}$/);
    const document = await done(mine, 'doc-123');
    assert.equal(document.last_job_id, job_id);
    assert.equal(document.num_chunks, 3);
    assert.equal(document.content_type, 'text/markdown');
    assert.deepEqual(document.metadata_json, { labels: { area: 'sea' } });
    assert.equal(document.failure_reason, null);
    for (const time of ['queued_at', 'processing_started_at', 'completed_at'])
      assert.ok(document[time], time);
    for (const inner of ['attempt', 'options', 'content', 'created_by'])
      assert.equal(inner in document, false, inner);
    await assertCounted(mine, 3);
  });

  it('takes uploads of plain text, Markdown, and JSON with a text', async () => {
    const mine = await newLibrary();
    const plain = await upload(mine, [corpus, file('Some words to find.')]);
    assert.equal(plain.status, 202, plain.text);
    assert.match(plain.body.data.document_id, /^doc-[0-9a-f]{32}$/);
    const document = await done(mine, plain.body.data.document_id);
    assert.deepEqual(
      [document.filename, document.content_type, document.ingest_source],
      ['example.txt', 'text/plain', 'upload_file'],
    );
    const json = await upload(mine, [
      file('{"text": "# Inner\\n\\nwords"}', 'application/json', 'a.json'),
      corpus,
      { name: 'document_id', value: 'json' },
    ]);
    assert.equal(json.status, 202, json.text);
    assert.equal((await done(mine, 'json')).content_type, 'application/json');
    const unsure = await upload(mine, [
      corpus,
      file('# Title\n\nbody', 'application/octet-stream', '..\\..\\x/notes.md'),
    ]);
    const markdown = await done(mine, unsure.body.data.document_id);
    assert.deepEqual([markdown.filename, markdown.content_type], ['notes.md', 'text/markdown']);
    await assertCounted(mine);
  });

  it("takes a file's name as a browser's form escapes it, and refuses what it hides", async () => {
    const mine = await newLibrary();
    // What a browser makes of the name, by this very runtime; then what no browser escapes.
    const body = new FormData();
    body.set('corpus_id', 'c1');
    body.set('file', new File(['words'], 'a "b" 100%25 %2e.txt', { type: 'text/plain' }));
    const request = new Request('http://form', { method: 'POST', body });
    const payload = Buffer.from(await request.arrayBuffer());
    assert.match(payload.toString(), /filename="a %22b%22 100%25 %2e\.txt"/);
    const escaped = await callServer(await testServer(), 'POST', '/v1/documents', {
      token: mine.token,
      payload,
      headers: { 'content-type': request.headers.get('content-type')! },
    });
    assert.equal(escaped.status, 202, escaped.text);
    const { filename } = await done(mine, escaped.body.data.document_id);
    assert.equal(filename, 'a "b" 100%25 %2e.txt');
    for (const hidden of ['a%0Db.txt', 'a%0Ab.txt', 'a%0D%0Ab.txt']) {
      const refused = await upload(mine, [corpus, file('words', 'text/plain', hidden)]);
      assert.deepEqual(codeOf(refused), [422, 'VALIDATION_ERROR'], hidden);
      assert.equal(refused.body.error.details.errors[0].path, '/filename', hidden);
    }
  });

  it('answers 200 with what is there for an id that exists, and queues it again only to overwrite', async () => {
    const mine = await newLibrary();
    const [first, twin] = await Promise.all([
      put(mine, { document_id: 'a', text: 'first words' }),
      put(mine, { document_id: 'a', text: 'other words' }),
    ]);
    assert.deepEqual([first.status, twin.status].sort(), [200, 202]);
    assert.equal(first.body.data.job_id, twin.body.data.job_id);
    await done(mine, 'a');
    const unchanged = await put(mine, { document_id: 'a', text: 'new words' });
    assert.deepEqual(
      [unchanged.status, unchanged.body.data.status, unchanged.body.data.job_id],
      [200, 'succeeded', first.body.data.job_id],
    );
    const over = await put(mine, { document_id: 'a', text: 'entirely zebra', overwrite: true });
    assert.deepEqual([over.status, over.body.data.status], [202, 'queued']);
    assert.notEqual(over.body.data.job_id, first.body.data.job_id);
    await done(mine, 'a');
    assert.equal((await search(mine, 'zebra')).body.data[0].text, 'entirely zebra');
    await assertCounted(mine, 1);
  });

  it('refuses what can not be a document, saying why', async () => {
    const mine = await newLibrary();
    await mine.call('POST', '/v1/corpora', { id: 'c2', name: 'Other' });
    await stored(mine, 'here', 'words');
    for (const text of [' \n\u00a0', '\u200b\u00ad'])
      assert.deepEqual(codeOf(await put(mine, { text })), [422, 'INGEST_VALIDATION_ERROR']);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', corpus_id: 'c9' })), [404, 'NOT_FOUND']);
    assert.deepEqual(
      codeOf(await put(mine, { text: 'x', corpus_id: 'c2', document_id: 'here', overwrite: true })),
      [409, 'DOCUMENT_IN_OTHER_CORPUS'],
    );
    for (const document_id of ['../../etc/passwd', 'UPPER', 'a/b', '', 'x'.repeat(65)]) {
      assert.deepEqual(
        codeOf(await put(mine, { text: 'x', document_id })),
        [422, 'VALIDATION_ERROR'],
        document_id,
      );
    }
    assert.deepEqual(codeOf(await put(mine, { text: 'x', content_type: 'application/pdf' })), [
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ]);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', metadata_json: null })), [422, 'VALIDATION_ERROR']);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', metadata_json: { labels: ['a'] } })), [
      422,
      'VALIDATION_ERROR',
    ]);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', chunk_size_chars: 50, chunk_overlap_chars: 50 })), [
      422,
      'VALIDATION_ERROR',
    ]);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', tenant_id: 'another' })), [
      400,
      'TENANT_ID_NOT_ALLOWED',
    ]);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', typo: 1 })), [422, 'VALIDATION_ERROR']);
  });

  it('refuses bad uploads with the status that fits', async () => {
    const mine = await newLibrary();
    const bad: [string, Part[], [number, string]][] = [
      ['a PDF', [corpus, file('%PDF', 'application/pdf', 'a.pdf')], [415, 'UNSUPPORTED_MEDIA_TYPE']],
      [
        'an unknown ending',
        [corpus, file('x', 'application/octet-stream', 'a.bin')],
        [415, 'UNSUPPORTED_MEDIA_TYPE'],
      ],
      [
        'bytes that are not UTF-8',
        [corpus, file(Buffer.from([0x66, 0xff, 0xfe]))],
        [422, 'INGEST_VALIDATION_ERROR'],
      ],
      ['a NUL', [corpus, file('a\u0000b')], [422, 'INGEST_VALIDATION_ERROR']],
      ['nothing', [corpus, file('')], [422, 'INGEST_VALIDATION_ERROR']],
      [
        'JSON without a text',
        [corpus, file('{"txt": 1}', 'application/json')],
        [422, 'INGEST_VALIDATION_ERROR'],
      ],
      ['broken JSON', [corpus, file('{"text": ', 'application/json')], [422, 'INGEST_VALIDATION_ERROR']],
      ['no file', [corpus], [422, 'VALIDATION_ERROR']],
      ['a file that is a field', [corpus, { name: 'file', value: 'x' }], [422, 'VALIDATION_ERROR']],
      ['no corpus', [file('x')], [422, 'VALIDATION_ERROR']],
      [
        'an unknown field',
        [corpus, file('x'), { name: 'overwritten', value: 'true' }],
        [422, 'VALIDATION_ERROR'],
      ],
      ['a bad id', [corpus, file('x'), { name: 'document_id', value: '../x' }], [422, 'VALIDATION_ERROR']],
      [
        'another tenant',
        [corpus, file('x'), { name: 'tenant_id', value: 'another' }],
        [400, 'TENANT_ID_NOT_ALLOWED'],
      ],
      ['an unknown corpus', [{ name: 'corpus_id', value: 'c9' }, file('x')], [404, 'NOT_FOUND']],
    ];
    for (const [what, parts, expected] of bad)
      assert.deepEqual(codeOf(await upload(mine, parts)), expected, what);
    const { payload, headers } = form([corpus, file('x'.repeat(500))]);
    const cut = await call('POST', '/v1/documents', {
      token: mine.token,
      payload: payload.subarray(0, payload.length - 100),
      headers,
    });
    assert.deepEqual(codeOf(cut), [400, 'MALFORMED_MULTIPART']);
    assert.deepEqual(codeOf(await mine.call('POST', '/v1/documents', { corpus_id: 'c1' })), [
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ]);
    const { UPLOAD_LIMIT_BYTES } = (await testServer()).app.config;
    assert.deepEqual(codeOf(await upload(mine, [corpus, file(Buffer.alloc(UPLOAD_LIMIT_BYTES + 1, 'a '))])), [
      413,
      'PAYLOAD_TOO_LARGE',
    ]);
    assert.deepEqual((await mine.call('GET', '/v1/documents')).body.data, []);
  });

  it('stores once for an Idempotency-Key, uploads included', async () => {
    const mine = await newLibrary();
    const once = { 'idempotency-key': 'k1' };
    const [first, second] = [
      await put(mine, { text: 'words' }, once),
      await put(mine, { text: 'words' }, once),
    ];
    assert.deepEqual(second.body.data, first.body.data);
    assert.equal(second.headers['idempotency-replayed'], 'true');
    assert.deepEqual(codeOf(await put(mine, { text: 'others' }, once)), [409, 'IDEMPOTENCY_KEY_CONFLICT']);
    const [third, fourth] = [
      await upload(mine, [corpus, file('words')], once),
      await upload(mine, [corpus, file('words')], once),
    ];
    assert.equal(third.status, 202, third.text);
    assert.deepEqual(fourth.body.data, third.body.data);
    assert.equal(fourth.headers['idempotency-replayed'], 'true');
    assert.deepEqual(codeOf(await upload(mine, [corpus, file('others')], once)), [
      409,
      'IDEMPOTENCY_KEY_CONFLICT',
    ]);
    assert.deepEqual(codeOf(await upload(mine, [corpus, file('words', 'text/plain', 'b.txt')], once)), [
      409,
      'IDEMPOTENCY_KEY_CONFLICT',
    ]);
    assert.equal((await mine.call('GET', '/v1/documents')).body.data.length, 2);
  });
});

describe('the documents of a tenant', () => {
  it('are listed newest first, page by page, by corpus and status', async () => {
    const mine = await newLibrary();
    await mine.call('POST', '/v1/corpora', { id: 'c2', name: 'Second' });
    for (const id of ['a', 'b', 'c']) await stored(mine, id, `words of ${id}`);
    await stored(mine, 'd', 'elsewhere', { corpus_id: 'c2' });
    const ids = ({ body }: Reply) => body.data.map(({ id }: { id: string }) => id);
    const first = await mine.call('GET', '/v1/documents?corpus_id=c1&limit=2');
    assert.deepEqual(ids(first), ['c', 'b']);
    const next = /<([^>]+)>; rel="next"/.exec(String(first.headers.link))![1]!;
    assert.deepEqual(ids(await mine.call('GET', next)), ['a']);
    assert.deepEqual(ids(await mine.call('GET', '/v1/documents?status=succeeded')), ['d', 'c', 'b', 'a']);
    assert.deepEqual(ids(await mine.call('GET', '/v1/documents?status=failed')), []);
    const cursor = encodeURIComponent(String(first.headers['x-next-cursor']));
    assert.deepEqual(codeOf(await mine.call('GET', `/v1/documents?corpus_id=c2&cursor=${cursor}`)), [
      400,
      'INVALID_CURSOR',
    ]);
    assert.equal((await mine.call('GET', '/v1/documents?status=done')).status, 422);
    const bare = await mine.call('GET', '/documents?limit=1');
    assert.deepEqual(
      bare.body.map(({ id }: { id: string }) => id),
      ['d'],
    );
  });

  it('are not there for another tenant, under any verb', async () => {
    const [mine, other] = [await newLibrary(), await newLibrary()];
    await stored(mine, 'secret', 'the treasure lies under the old oak');
    for (const [method, path, body] of [
      ['GET', '/v1/documents/secret', undefined],
      ['DELETE', '/v1/documents/secret', undefined],
      ['POST', '/v1/documents/secret/reindex', {}],
    ] as const) {
      assert.deepEqual(codeOf(await other.call(method, path, body)), [404, 'NOT_FOUND'], `${method} ${path}`);
    }
    assert.deepEqual((await other.call('GET', '/v1/documents')).body.data, []);
    assert.deepEqual((await search(other, 'treasure oak')).body.data, []);
    await stored(other, 'secret', 'an id is taken in one tenant only');
    assert.equal((await search(mine, 'treasure oak')).body.data.length, 1);
  });

  it('are written by editors and only read by readers', async () => {
    const mine = await newLibrary();
    const [editor, reader] = [await newMember(mine, 'editor'), await newMember(mine, 'reader')];
    await stored(editor, 'a', 'words');
    assert.equal((await reader.call('GET', '/v1/documents/a')).status, 200);
    assert.equal((await search(reader, 'words')).body.data.length, 1);
    assert.equal((await put(reader, { text: 'x' })).status, 403);
    assert.equal((await reader.call('DELETE', '/v1/documents/a')).status, 403);
    assert.equal((await reader.call('POST', '/v1/documents/a/reindex', {})).status, 403);
    assert.equal((await editor.call('DELETE', '/v1/documents/a')).status, 204);
  });

  it('are found only by whom a policy lets read them', async () => {
    const mine = await newLibrary();
    const reader = await newMember(mine, 'reader');
    await stored(mine, 'open', 'the harbour opens at six');
    await stored(mine, 'closed', 'the harbour vault opens at nine', {
      metadata_json: { labels: { level: 'secret' } },
    });
    const { app } = await testServer();
    const rule = {
      and: [
        { in: [{ var: 'resource' }, ['documents']] },
        { '==': [{ var: 'target.labels.level' }, 'secret'] },
      ],
    };
    await app.database.tenant(mine.tenant).run(sql`
      insert into policies (tenant_id, id, role, rule, effect, priority, is_active, created_at, updated_at)
      values (${mine.tenant}, ${uuidv7()}, 'reader', ${rule}, 'deny', 10, true, ${new Date()}, ${new Date()})`);
    app.shared.invalidate('policy', mine.tenant);
    const found = (await search(reader, 'harbour opens')).body.data.map((chunk: any) => chunk.document_id);
    assert.deepEqual(found, ['open']);
    assert.deepEqual(codeOf(await reader.call('GET', '/v1/documents/closed')), [404, 'NOT_FOUND']);
    assert.deepEqual(
      (await reader.call('GET', '/v1/documents')).body.data.map((d: any) => d.id),
      ['open'],
    );
    assert.equal((await search(mine, 'harbour opens')).body.data.length, 2);
  });
});

describe('searching a corpus', () => {
  it('finds the passage that answers, with where it stands', async () => {
    const mine = await newLibrary();
    await stored(mine, 'guide', guide, { filename: 'guide.md', metadata_json: { year: 1850 } });
    await stored(mine, 'bread', 'Bread needs flour, water, salt and a long night of rest.');
    const reply = await search(mine, 'how often does the horn sound in fog?', { top_k: 2 });
    assert.equal(reply.status, 200, reply.text);
    const [best] = reply.body.data;
    assert.deepEqual(best.heading_path, ['Lighthouse guide', 'Fog horn']);
    assert.equal(guide.slice(best.offset_start, best.offset_end), best.text);
    assert.deepEqual(
      [best.document_id, best.filename, best.corpus_id, best.position],
      ['guide', 'guide.md', 'c1', 2],
    );
    assert.deepEqual(best.document_metadata, { year: 1850 });
    assert.ok(best.score >= 0.5 && best.score <= 1, `${best.score}`);
    assert.equal('indexed' in best, false);
    const vector = await search(mine, 'flour water salt', { mode: 'vector', top_k: 1 });
    assert.equal(vector.body.data[0].document_id, 'bread');
    const text = await search(mine, 'granite lighthouse', { mode: 'text' });
    assert.equal(text.body.data[0].position, 0);
    assert.deepEqual((await search(mine, 'parliament of owls', { min_score: 0.6 })).body.data, []);
  });

  it('takes top_k_default of the corpus where nothing is said, and refuses what is not a search', async () => {
    const mine = await newTenant();
    await mine.call('POST', '/v1/corpora', {
      id: 'c1',
      name: 'x',
      provider_config_json: { retrieval: { top_k_default: 2 } },
    });
    for (const id of ['a', 'b', 'c']) await stored(mine, id, `boats and ${id}`);
    assert.equal((await search(mine, 'boats')).body.data.length, 2);
    assert.equal((await search(mine, 'boats', { top_k: 3 })).body.data.length, 3);
    assert.equal((await search(mine, 'boats', { top_k: 51 })).status, 422);
    assert.equal((await search(mine, '')).status, 422);
    assert.equal((await mine.call('POST', '/v1/corpora/c9/search', { query: 'x' })).status, 404);
  });
});

describe('reindexing and deleting', () => {
  it('cuts a document anew with the sizes asked for', async () => {
    const mine = await newLibrary();
    const text = Array.from({ length: 40 }, (_, i) => `Sentence number ${i} speaks of item ${i * 7}.`).join(
      ' ',
    );
    const before = await stored(mine, 'a', text);
    assert.equal(before.last_reindexed_at, null);
    const reply = await mine.call('POST', '/v1/documents/a/reindex', {
      chunk_size_chars: 200,
      chunk_overlap_chars: 0,
    });
    assert.deepEqual(
      [reply.status, reply.body.data.status, reply.body.data.document_id],
      [202, 'queued', 'a'],
    );
    const after = await done(mine, 'a');
    assert.ok(after.num_chunks > before.num_chunks, `${after.num_chunks} chunks`);
    assert.ok(after.last_reindexed_at);
    await assertCounted(mine, after.num_chunks);
    assert.equal((await mine.call('POST', '/v1/documents/a/reindex')).status, 202, 'without a body');
    assert.equal((await done(mine, 'a')).num_chunks, after.num_chunks, 'the sizes are kept');
    const wrong = await mine.call('POST', '/v1/documents/a/reindex', {
      chunk_size_chars: 100,
      chunk_overlap_chars: 100,
    });
    assert.deepEqual(codeOf(wrong), [422, 'VALIDATION_ERROR']);
    assert.equal((await mine.call('POST', '/v1/documents/a/reindex', { chunk_size_chars: 0 })).status, 422);
    assert.equal((await mine.call('POST', '/v1/documents/nope/reindex', {})).status, 404);
    assert.equal((await done(mine, 'a')).status, 'succeeded');
  });

  it('removes chunks, vectors and statistics with a document', async () => {
    const mine = await newLibrary();
    await stored(mine, 'keep', 'what is kept');
    await stored(mine, 'gone', guide, { filename: 'guide.md' });
    await assertCounted(mine, 4);
    assert.equal((await mine.call('DELETE', '/v1/documents/gone')).status, 204);
    assert.equal((await mine.call('GET', '/v1/documents/gone')).status, 404);
    assert.equal((await mine.call('DELETE', '/v1/documents/gone')).status, 404);
    assert.deepEqual((await search(mine, 'fog horn')).body.data, []);
    await assertCounted(mine, 1);
  });

  it('refuses to touch a document that is being worked on', async () => {
    const mine = await newLibrary();
    await stored(mine, 'a', 'words');
    const db = (await testServer()).app.database.tenant(mine.tenant);
    for (const status of ['queued', 'processing']) {
      await db.run(
        sql`update documents set status = ${status} where tenant_id = ${mine.tenant} and id = 'a'`,
      );
      assert.deepEqual(codeOf(await mine.call('DELETE', '/v1/documents/a')), [409, 'INGEST_IN_PROGRESS']);
      assert.deepEqual(codeOf(await mine.call('POST', '/v1/documents/a/reindex', {})), [
        409,
        'INGEST_IN_PROGRESS',
      ]);
      const again = await put(mine, { document_id: 'a', text: 'new', overwrite: true });
      assert.deepEqual([again.status, again.body.data.status], [200, status]);
    }
  });
});

describe('ingestion that goes wrong', () => {
  it('ends failed with the reason when the content can not be read, and what was found before stays', async () => {
    const mine = await newLibrary();
    await stored(mine, 'a', 'a sound beginning');
    const db = (await testServer()).app.database.tenant(mine.tenant);
    await db.run(
      sql`update documents set content = ${Buffer.from([0xff, 0xfe, 0x00])} where tenant_id = ${mine.tenant} and id = 'a'`,
    );
    await mine.call('POST', '/v1/documents/a/reindex', {});
    const failed = await done(mine, 'a', 'failed');
    assert.match(failed.failure_reason, /UTF-8/);
    assert.equal(failed.num_chunks, null);
    assert.equal((await search(mine, 'sound beginning')).body.data.length, 1);
    assert.equal((await put(mine, { document_id: 'a', text: 'mended', overwrite: true })).status, 202);
    assert.equal((await done(mine, 'a')).failure_reason, null);
    await assertCounted(mine, 1);
  });

  it('leaves an overwritten document all it was until the new content is read, also when that fails', async () => {
    const [mine, other] = [await newLibrary(), await newLibrary()];
    const send = async (who: typeof mine, name: string, content: string | Buffer, more: object = {}) => {
      const reply = await upload(who, [
        corpus,
        { name: 'document_id', value: 'rules' },
        { name: 'overwrite', value: 'true' },
        ...Object.entries(more).map(([field, value]) => ({
          name: field,
          value: typeof value === 'string' ? value : JSON.stringify(value),
        })),
        file(content, 'application/octet-stream', name),
      ]);
      assert.equal(reply.status, 202, reply.text);
    };
    const shownOf = async (who: typeof mine) => {
      const { filename, content_type, metadata_json } = (await who.call('GET', '/v1/documents/rules')).body
        .data;
      const [found] = (await search(who, 'rules of mice')).body.data;
      const original = await who.call('GET', '/v1/documents/rules/content?original=true');
      return [filename, content_type, metadata_json, found.filename, found.text, original.text];
    };
    for (const who of [mine, other]) {
      await send(who, 'old.md', 'rules of mice', { metadata_json: { year: 1 } });
      await done(who, 'rules');
    }
    const before = ['old.md', 'text/markdown', { year: 1 }, 'old.md', 'rules of mice', 'rules of mice'];
    assert.deepEqual(await shownOf(mine), before);
    const broken = Buffer.concat([Buffer.from('%PDF-1.7\n'), Buffer.alloc(64, 7)]);
    await send(mine, 'new.pdf', broken, { metadata_json: { year: 2 } });
    assert.match((await done(mine, 'rules', 'failed')).failure_reason, /^new\.pdf: \S/);
    assert.deepEqual(await shownOf(mine), before);
    // It is tried again, and not what is found in its place.
    await mine.call('POST', '/v1/documents/rules/reindex', {});
    assert.match((await done(mine, 'rules', 'failed')).failure_reason, /^new\.pdf: \S/);
    // It is closed at once, and opened only with what was sent to be open.
    for (const access of ['restricted', 'open']) {
      await send(mine, 'new.pdf', broken, { access });
      assert.equal((await done(mine, 'rules', 'failed')).access, 'restricted');
    }
    const text = `rules of mice and men ${'word '.repeat(25_000)}`;
    const long = { document_id: 'rules', overwrite: true, access: 'open', metadata_json: { year: 3 }, text };
    await put(mine, { ...long, filename: 'long.txt', chunk_size_chars: 1 });
    assert.match((await done(mine, 'rules', 'failed')).failure_reason, /^long\.txt: .*chunk_size_chars/);
    assert.deepEqual(await shownOf(mine), before);
    // What is said of the document meanwhile is not taken back by what was sent before.
    await mine.call('PATCH', '/v1/documents/rules', { metadata_json: { year: 4 } });
    await mine.call('POST', '/v1/documents/rules/reindex', { chunk_size_chars: 100_000 });
    const { access, failure_reason } = await done(mine, 'rules');
    assert.deepEqual([access, failure_reason], ['open', null]);
    const [filename, type, metadata, cited, found, original] = await shownOf(mine);
    assert.deepEqual([filename, type, metadata, cited], ['long.txt', 'text/plain', { year: 4 }, 'long.txt']);
    assert.ok(found.startsWith('rules of mice and men') && original === text);
    assert.deepEqual(await shownOf(other), before);
    await assertCounted(mine);
  });

  it('ends failed when a document would make too many chunks', async () => {
    const mine = await newLibrary();
    await put(mine, { document_id: 'a', text: 'word '.repeat(25_000), chunk_size_chars: 1 });
    assert.match((await done(mine, 'a', 'failed')).failure_reason, /chunk_size_chars/);
    await assertCounted(mine, 0);
  });

  it('gives a document whose job has died another one, and gives up after a few', async () => {
    const mine = await newLibrary();
    await stored(mine, 'a', 'words of a');
    await stored(mine, 'b', 'words of b');
    const { app } = await testServer();
    const db = app.database.tenant(mine.tenant);
    // As a worker leaves it that is killed with the last attempt of its job.
    await db.run(sql`
      update documents set status = 'processing', queued_at = now() - interval '1 minute', requeues = case id when 'b' then 3 else 0 end
      where tenant_id = ${mine.tenant}`);
    await documentSchedules[0]!.run(app);
    await done(mine, 'a');
    assert.match((await done(mine, 'b', 'failed')).failure_reason, /again and again/);
    // As it is when the queue has never heard of the job.
    await db.run(sql`
      update documents set status = 'queued', queued_at = now() - interval '1 minute', last_job_id = ${uuidv7()}
      where tenant_id = ${mine.tenant} and id = 'a'`);
    await documentSchedules[0]!.run(app);
    await done(mine, 'a');
    await assertCounted(mine, 2);
  });

  it('makes a document of several thousand chunks findable in one step', async () => {
    const mine = await newLibrary();
    const text = Array.from(
      { length: 3_000 },
      (_, i) =>
        `## Entry ${i}\n\nThe number of this entry is n${i * 13}, and beside it stands ${'filler '.repeat(14)}text.`,
    ).join('\n\n');
    const sizes = new Set<number>();
    await put(mine, { document_id: 'big', text, filename: 'big.md' });
    const { num_chunks } = await eventually(
      'the big document',
      async () => {
        sizes.add((await search(mine, 'number of this entry', { top_k: 50 })).body.data.length);
        const { data } = (await mine.call('GET', '/v1/documents/big')).body;
        return data.status === 'succeeded' && data;
      },
      60_000,
    );
    assert.ok(num_chunks > 1_000, `${num_chunks} chunks`);
    assert.deepEqual(
      [...sizes].filter((size) => size !== 0 && size !== 50),
      [],
    );
    assert.match((await search(mine, 'n13013', { top_k: 1 })).body.data[0].text, /Entry 1001/);
    await assertCounted(mine, num_chunks);
  });
});
