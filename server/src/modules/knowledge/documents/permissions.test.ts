import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  eventually,
  newKey,
  newMember,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { codeOf, corpus, done, file, newLibrary, put, search, stored, upload } from '#test/uploads.ts';

useTestServer();

const grant = (who: Caller, document: string, body: object) =>
  who.call('POST', `/v1/documents/${document}/permissions`, body);

const idsOf = ({ body }: { body: any }) => body.data.map(({ id }: { id: string }) => id);
const foundBy = async (who: Caller, query: string) =>
  (await search(who, query)).body.data.map(({ document_id }: any) => document_id);

/** A library with an open and a restricted document of its editor. */
async function newVault() {
  const admin = await newLibrary();
  const [owner, editor, reader] = [
    await newMember(admin, 'editor'),
    await newMember(admin, 'editor'),
    await newMember(admin, 'reader'),
  ];
  await stored(owner, 'open', 'the harbour vault opens at nine');
  await stored(owner, 'shut', 'the harbour vault has the number seven', { access: 'restricted' });
  return { admin, owner, editor, reader };
}

/** What somebody can do to the restricted document: the status of each attempt. */
async function reach(who: Caller) {
  const get = (await who.call('GET', '/v1/documents/shut')).status;
  const content = (await who.call('GET', '/v1/documents/shut/content')).status;
  const listed = idsOf(await who.call('GET', '/v1/documents')).includes('shut');
  const found = (await foundBy(who, 'vault number')).includes('shut');
  return { get, content, listed, found };
}
const closed = { get: 404, content: 404, listed: false, found: false };
const opened = { get: 200, content: 200, listed: true, found: true };

describe('a restricted document', () => {
  it('is there for whoever holds a grant of it, and for nobody else, admins included', async () => {
    const { admin, owner, editor, reader } = await newVault();
    assert.deepEqual(await reach(owner), opened);
    for (const who of [admin, editor, reader]) {
      assert.deepEqual(await reach(who), closed);
      assert.deepEqual(await foundBy(who, 'vault'), ['open']);
    }
    for (const [method, path, body] of [
      ['DELETE', '/v1/documents/shut', undefined],
      ['POST', '/v1/documents/shut/reindex', {}],
      ['PATCH', '/v1/documents/shut', { access: 'open' }],
      ['GET', '/v1/documents/shut/permissions', undefined],
      [
        'POST',
        '/v1/documents/shut/permissions',
        { principal_type: 'role', principal_id: 'editor', permission: 'owner' },
      ],
    ] as const)
      assert.deepEqual(
        codeOf(await editor.call(method, path, body)),
        [404, 'NOT_FOUND'],
        `${method} ${path}`,
      );
    const over = await put(editor, { document_id: 'shut', text: 'mine now', overwrite: true });
    assert.deepEqual(codeOf(over), [404, 'NOT_FOUND']);
    assert.deepEqual(await reach(owner), opened);
  });

  it('opens by a grant to a user, a role or an API key', async () => {
    const { owner, editor, reader } = await newVault();
    const key = await newKey(editor);
    for (const [who, body] of [
      [reader, { principal_type: 'user', principal_id: reader.id }],
      [key, { principal_type: 'api_key', principal_id: key.keyId }],
      [editor, { principal_type: 'role', principal_id: 'editor' }],
    ] as const) {
      assert.deepEqual(await reach(who), closed);
      const given = await grant(owner, 'shut', { ...body, permission: 'read' });
      assert.equal(given.status, 201, given.text);
      assert.deepEqual(
        [given.body.data.document_id, given.body.data.granted_by, given.body.data.expires_at],
        ['shut', owner.id, null],
      );
      assert.deepEqual(await reach(who), opened);
    }
    // The key's grant is the key's own.
    const list = (await owner.call('GET', '/v1/documents/shut/permissions')).body.data;
    assert.deepEqual(
      list.map(({ principal_type, permission }: any) => `${principal_type} ${permission}`),
      ['user owner', 'user read', 'api_key read', 'role read'],
    );
    const ofRole = list.find(({ principal_type }: any) => principal_type === 'role');
    const taken = await owner.call('DELETE', `/v1/documents/shut/permissions/${ofRole.id}`);
    assert.deepEqual([taken.status, taken.body.data.id], [200, ofRole.id]);
    assert.deepEqual([await reach(editor), await reach(key)], [closed, opened]);
    const again = await owner.call('DELETE', `/v1/documents/shut/permissions/${ofRole.id}`);
    assert.deepEqual(codeOf(again), [404, 'AUTHZ_PERMISSION_NOT_FOUND']);
  });

  // What each permission is enough for, as the table of the guide says.
  const table: Record<string, { write: boolean; reindex: boolean; share: boolean; delete: boolean }> = {
    read: { write: false, reindex: false, share: false, delete: false },
    write: { write: true, reindex: false, share: false, delete: false },
    reindex: { write: false, reindex: true, share: false, delete: false },
    delete: { write: true, reindex: false, share: false, delete: true },
    owner: { write: true, reindex: true, share: true, delete: true },
  };
  for (const [permission, may] of Object.entries(table)) {
    it(`lets a holder of ${permission} do what that is enough for`, async () => {
      const { owner, editor } = await newVault();
      await grant(owner, 'shut', { principal_type: 'user', principal_id: editor.id, permission });
      assert.deepEqual(await reach(editor), opened);
      const denied = (allowed: boolean, status: number) =>
        allowed ? [status, undefined] : [403, 'AUTHZ_DENIED'];
      const settled = () => done(owner, 'shut');
      const over = await put(editor, {
        document_id: 'shut',
        text: 'the vault number is eight',
        overwrite: true,
      });
      assert.deepEqual(codeOf(over), denied(may.write, 202));
      await settled();
      const change = await editor.call('PATCH', '/v1/documents/shut', { metadata_json: { a: 1 } });
      assert.deepEqual(codeOf(change), denied(may.write, 200));
      assert.deepEqual(
        codeOf(await editor.call('POST', '/v1/documents/shut/reindex', {})),
        denied(may.reindex, 202),
      );
      await settled();
      const share = await grant(editor, 'shut', {
        principal_type: 'role',
        principal_id: 'user',
        permission: 'read',
      });
      assert.deepEqual(codeOf(share), denied(may.share, 201));
      assert.deepEqual(
        codeOf(await editor.call('GET', '/v1/documents/shut/permissions')),
        denied(may.share, 200),
      );
      // Opening it for everybody is for owners, whatever else one may write.
      for (const attempt of [
        () => editor.call('PATCH', '/v1/documents/shut', { access: 'open' }),
        () => put(editor, { document_id: 'shut', text: 'x', overwrite: true, access: 'open' }),
      ])
        if (!may.share) assert.deepEqual(codeOf(await attempt()), [403, 'AUTHZ_DENIED']);
      assert.deepEqual(codeOf(await editor.call('DELETE', '/v1/documents/shut')), denied(may.delete, 204));
    });
  }

  it('closes again when a grant has run out', async () => {
    const { owner, reader } = await newVault();
    const to = { principal_type: 'user', principal_id: reader.id, permission: 'read' };
    const expires_at = new Date(Date.now() + 1_500).toISOString();
    const given = await grant(owner, 'shut', { ...to, expires_at });
    assert.deepEqual([given.status, given.body.data.expires_at], [201, expires_at]);
    assert.equal((await reader.call('GET', '/v1/documents/shut')).status, 200);
    await eventually(
      'the grant to run out',
      async () => (await reader.call('GET', '/v1/documents/shut')).status === 404,
    );
    assert.deepEqual(await reach(reader), closed);
    // Given again it is the same grant with a new end.
    const anew = await grant(owner, 'shut', to);
    assert.deepEqual([anew.body.data.id, anew.body.data.expires_at], [given.body.data.id, null]);
    assert.deepEqual(await reach(reader), opened);
  });

  it('never reaches the answer of a run', async () => {
    const { owner, reader } = await newVault();
    const ask = async (who: Caller) => {
      const reply = await who.call('POST', '/v1/run', {
        session_id: uuidv7(),
        corpus_id: 'c1',
        message: 'What number has the harbour vault?',
      });
      assert.equal(reply.status, 200);
      return reply.text;
    };
    assert.match(await ask(owner), /number seven/);
    const answer = await ask(reader);
    assert.match(answer, /message\.final/);
    assert.doesNotMatch(answer, /seven|document:\/\/shut/);
  });

  it('stays under what policies say: a grant opens nothing that they deny', async () => {
    const { owner, reader, editor } = await newVault();
    for (const who of [reader, editor])
      await grant(owner, 'shut', { principal_type: 'user', principal_id: who.id, permission: 'owner' });
    assert.equal(
      (await reader.call('DELETE', '/v1/documents/shut')).status,
      403,
      'the role may not delete at all',
    );
    const { app } = await testServer();
    const rule = {
      and: [{ in: [{ var: 'resource' }, ['documents']] }, { '==': [{ var: 'target.id' }, 'shut'] }],
    };
    await app.database.tenant(owner.tenant).run(sql`
      insert into policies (tenant_id, id, role, rule, effect, priority, is_active, created_at, updated_at)
      values (${owner.tenant}, ${uuidv7()}, 'editor', ${rule}, 'deny', 10, true, ${new Date()}, ${new Date()})`);
    app.shared.invalidate('policy', owner.tenant);
    assert.deepEqual(await reach(editor), closed);
    assert.deepEqual(await reach(reader), opened);
  });

  it('can be opened for all, and an open one be restricted', async () => {
    const { owner, reader, editor, admin } = await newVault();
    assert.equal(
      (await owner.call('PATCH', '/v1/documents/shut', { access: 'open' })).body.data.access,
      'open',
    );
    assert.deepEqual(await reach(reader), opened);
    assert.deepEqual(codeOf(await editor.call('PATCH', '/v1/documents/shut', { access: 'restricted' })), [
      403,
      'AUTHZ_DENIED',
    ]);
    assert.equal((await admin.call('PATCH', '/v1/documents/shut', { access: 'restricted' })).status, 200);
    assert.deepEqual(await reach(reader), closed);
    const facts = await (await testServer()).app.database.operator.rows(sql<{
      type: string;
      before: any;
      after: any;
    }>`
      select type, before, after from facts where tenant_id = ${owner.tenant} and resource_id = 'shut' and type = 'documents.updated' order by id`);
    assert.deepEqual(
      facts.map(({ before, after }) => [before.access, after.access]),
      [
        ['restricted', 'open'],
        ['open', 'restricted'],
      ],
    );
  });

  it('can be uploaded as such, and stays so when its content is replaced', async () => {
    const admin = await newLibrary();
    const [owner, reader] = [await newMember(admin, 'editor'), await newMember(admin, 'reader')];
    const parts = [
      corpus,
      { name: 'document_id', value: 'shut' },
      { name: 'access', value: 'restricted' },
      { name: 'metadata_json', value: '{"labels": {"level": "secret"}}' },
    ];
    assert.equal((await upload(owner, [...parts, file('the vault number is seven')])).status, 202);
    const document = await done(owner, 'shut');
    assert.deepEqual([document.access, document.metadata_json.labels], ['restricted', { level: 'secret' }]);
    assert.deepEqual(await reach(reader), closed);
    await put(owner, { document_id: 'shut', text: 'the vault number is eight', overwrite: true });
    assert.equal((await done(owner, 'shut')).access, 'restricted');
    assert.deepEqual(await reach(reader), closed);
    for (const [name, value] of [
      ['access', 'closed'],
      ['metadata_json', '[1]'],
      ['metadata_json', '{'],
      ['metadata_json', '{"labels": 1}'],
    ] as const) {
      const reply = await upload(owner, [corpus, { name, value }, file('x')]);
      assert.deepEqual(codeOf(reply), [422, 'VALIDATION_ERROR'], `${name} ${value}`);
    }
  });

  it('does not betray itself as a duplicate', async () => {
    const { reader: _, editor, owner } = await newVault();
    const same = { text: 'the harbour vault has the number seven' };
    assert.equal((await put(editor, same)).body.data.duplicate_of, undefined);
    assert.equal((await put(owner, same)).body.data.duplicate_of, 'shut');
  });
});

describe('who manages permissions', () => {
  it('admins may, so that a document without an owner is not lost', async () => {
    const { admin, owner } = await newVault();
    assert.deepEqual(await reach(admin), closed);
    const list = await admin.call('GET', '/v1/documents/shut/permissions');
    assert.equal(list.status, 200);
    assert.deepEqual([list.body.data[0].principal_id, list.body.data[0].permission], [owner.id, 'owner']);
    const to = { principal_type: 'user', principal_id: admin.id, permission: 'owner' };
    assert.equal((await grant(admin, 'shut', to)).status, 201);
    assert.deepEqual(await reach(admin), opened);
    const facts = await (await testServer()).app.database.operator.rows(sql<{ data: any; actor_id: string }>`
      select data, actor_id from facts where tenant_id = ${admin.tenant} and type = 'documents.permission.granted'`);
    assert.deepEqual(
      [facts[0]!.actor_id, facts[0]!.data.principal_id, facts[0]!.data.permission],
      [admin.id, admin.id, 'owner'],
    );
  });

  it('an admin needs no grant where the server says so', async () => {
    const server = await startServer({ AUTHZ_ADMIN_BYPASS_DOCUMENT_ACL: 'true' });
    try {
      const admin = await newLibrary(server);
      const owner = await newMember(admin, 'editor', server);
      const reader = await newMember(admin, 'reader', server);
      await stored(owner, 'shut', 'the vault number is seven', { access: 'restricted' });
      assert.deepEqual(await reach(admin), opened);
      assert.deepEqual(await reach(reader), closed);
      assert.equal((await admin.call('DELETE', '/v1/documents/shut')).status, 204);
    } finally {
      await server.stop();
    }
  });

  it('a grant names somebody of the tenant, and ends in the future', async () => {
    const { owner } = await newVault();
    const stranger = await newTenant();
    const good = { principal_type: 'role', principal_id: 'editor', permission: 'read' };
    for (const [body, path] of [
      [{ principal_type: 'user', principal_id: stranger.id, permission: 'read' }, '/principal_id'],
      [{ principal_type: 'user', principal_id: 'nobody', permission: 'read' }, '/principal_id'],
      [{ principal_type: 'api_key', principal_id: 'mk_x', permission: 'read' }, '/principal_id'],
      [{ principal_type: 'role', principal_id: 'Not a role!', permission: 'read' }, '/principal_id'],
      [{ principal_type: 'group', principal_id: 'staff', permission: 'read' }, '/principal_type'],
      [{ ...good, permission: 'execute' }, '/permission'],
      [{ ...good, expires_at: '2020-01-01T00:00:00Z' }, '/expires_at'],
      [{ ...good, expires_at: 'tomorrow' }, '/expires_at'],
      [{ ...good, note: 'x' }, '/note'],
    ] as const) {
      const reply = await grant(owner, 'shut', body);
      assert.deepEqual(codeOf(reply), [422, 'VALIDATION_ERROR'], JSON.stringify(body));
      assert.equal(reply.body.error.details.errors[0].path, path, reply.text);
    }
    assert.equal((await owner.call('GET', '/v1/documents/shut/permissions')).body.data.length, 1);
    assert.deepEqual(codeOf(await owner.call('DELETE', '/v1/documents/shut/permissions/nothing')), [
      404,
      'AUTHZ_PERMISSION_NOT_FOUND',
    ]);
    assert.deepEqual(codeOf(await stranger.call('GET', '/v1/documents/shut/permissions')), [
      404,
      'NOT_FOUND',
    ]);
  });

  it('grants leave with their document', async () => {
    const { owner, reader } = await newVault();
    await grant(owner, 'shut', { principal_type: 'user', principal_id: reader.id, permission: 'read' });
    assert.equal((await owner.call('DELETE', '/v1/documents/shut')).status, 204);
    await stored(owner, 'shut', 'another vault number under the same id', { access: 'restricted' });
    assert.deepEqual(await reach(reader), closed);
  });
});

describe('a corpus of thousands of documents', () => {
  it('is searched among those the caller may read alone, whoever that is', async () => {
    const { admin, owner, reader } = await newVault();
    const { app } = await testServer();
    const db = app.database.tenant(admin.tenant);
    // Copies of the restricted document under other ids, chunks and vectors included; every other one open.
    const ids = Array.from({ length: 2_000 }, (_, i) => `copy-${i}`);
    await db.batch([
      sql`
        insert into documents (tenant_id, id, corpus_id, filename, content_type, source, ingest_source, content, content_hash, status,
          attempt, num_chunks, access, created_at, updated_at)
        select d.tenant_id, r.id, d.corpus_id, d.filename, d.content_type, d.source, d.ingest_source, d.content, d.content_hash,
          'succeeded', 1, 1, case r.n % 2 when 0 then 'open' else 'restricted' end, d.created_at, d.updated_at
        from documents d, unnest(${ids}::text[]) with ordinality as r (id, n) where d.tenant_id = ${admin.tenant} and d.id = 'shut'`,
      sql`
        insert into chunks (tenant_id, id, document_id, corpus_id, position, text, offset_start, offset_end, words, trigrams)
        select c.tenant_id, md5(r.id)::uuid, r.id, c.corpus_id, 0, c.text, 0, 10, c.words, c.trigrams
        from chunks c, unnest(${ids}::text[]) as r (id) where c.tenant_id = ${admin.tenant} and c.document_id = 'shut'`,
    ]);
    const found = async (who: Caller) => (await search(who, 'vault number seven', { top_k: 50 })).body.data;
    const even = (id: string) => id === 'open' || Number(id.slice(5)) % 2 === 1;
    for (const who of [reader, admin]) {
      const chunks = await found(who);
      assert.equal(chunks.length, 50, 'as many as were asked for, though half are closed');
      for (const { document_id } of chunks) assert.ok(even(document_id), document_id);
    }
    assert.ok((await found(owner)).some(({ document_id }: any) => document_id === 'shut'));
    const page = await reader.call('GET', '/v1/documents?limit=100');
    assert.equal(page.body.data.length, 100);
    for (const { id } of page.body.data) assert.ok(even(id), id);
  });
});
