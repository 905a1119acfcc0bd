import assert from 'node:assert/strict';
import { request } from 'node:http';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  address,
  type Caller,
  call,
  callServer,
  eventually,
  newKey,
  newMember,
  newSession,
  newTenant,
  type Reply,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { createLines } from './import-upload.ts';
import { runImport, tendImports } from './import-work.ts';

useTestServer();

const ndjson = { 'content-type': 'application/x-ndjson' };
const note = (text: string, more: object = {}) => ({ text, type: 'note', ...more });
const fileOf = (lines: unknown[]) =>
  lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n');

const upload = (who: Caller, file: string | Buffer, query = '', headers: Record<string, string> = {}) =>
  call('POST', `/v1/memory/import${query}`, {
    token: who.token,
    payload: file,
    headers: { ...ndjson, ...headers },
  });

const ended = (who: Caller, { body }: Reply) =>
  eventually(
    'the import',
    async () => {
      const state = (await who.call('GET', body.status_url)).body;
      return ['succeeded', 'failed', 'canceled'].includes(state.status) && state;
    },
    30_000,
  );

async function imported(who: Caller, lines: unknown[], query = ''): Promise<any> {
  const reply = await upload(who, fileOf(lines), query);
  assert.equal(reply.status, 202, reply.text);
  return ended(who, reply);
}

const exported = async (who: Caller, query = ''): Promise<any[]> => {
  const reply = await who.call('GET', `/v1/memory/export${query}`);
  assert.equal(reply.status, 200);
  assert.match(String(reply.headers['content-type']), /^application\/x-ndjson/);
  return reply.text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
};

/** Calls `read` with what exports of a tenant read, before it is handed to them, and which export it is. */
async function watchExports(
  tenant: string,
  read: (page: unknown[], export_: number) => Promise<void>,
): Promise<() => void> {
  const { app } = await testServer();
  const original = app.database.tenant;
  let exports = 0;
  app.database.tenant = (id) => {
    const db = original(id);
    if (id !== tenant) return db;
    let own: number | undefined;
    return Object.assign(Object.create(db), {
      rows: async (statement: any) => {
        const rows = await db.rows(statement);
        if (!/order by m\.id limit/.test(statement.text)) return rows;
        own ??= exports++;
        await read(rows, own);
        return rows;
      },
    });
  };
  return () => {
    app.database.tenant = original;
  };
}

describe('an export', () => {
  it('is every memory the caller may see, one line each, in the order they were made', async () => {
    const [admin, stranger] = [await newTenant('admin'), await newTenant('admin')];
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const memories = Array.from({ length: 1_203 }, (_, i) => note(`number ${i}`, { metadata: { i } }));
    for (let at = 0; at < memories.length; at += 401)
      await ann.call('POST', '/v1/memory/bulk', { memories: memories.slice(at, at + 401) });
    await ben.call('POST', '/v1/memory/', note('of ben', { sensitive: true }));
    await stranger.call('POST', '/v1/memory/', note('elsewhere'));
    const soon = Date.now() + 300;
    await ann.call('POST', '/v1/memory/', note('expired', { expires_at: new Date(soon).toISOString() }));
    const gone = (await ann.call('POST', '/v1/memory/', note('deleted'))).body.id;
    await ann.call('DELETE', `/v1/memory/${gone}`);
    await sleep(soon - Date.now() + 5);
    const lines = await exported(ann);
    assert.deepEqual(
      lines.map(({ text }) => text),
      memories.map(({ text }) => text),
    );
    assert.deepEqual(lines[7].metadata, { i: 7 });
    assert.deepEqual(
      (await exported(ann, `?after=${lines[1_200].id}`)).map(({ text }) => text),
      ['number 1201', 'number 1202'],
    );
    assert.deepEqual(await exported(ann, `?identity_id=${ben.id}`), []);
    const all = await exported(admin);
    assert.equal(all.length, 1_204);
    assert.equal(all.at(-1).text, 'of ben');
    assert.deepEqual(
      (await exported(admin, `?identity_id=${ben.id}`)).map(({ text }) => text),
      ['of ben'],
    );
    assert.equal((await ann.call('GET', '/v1/memory/export?after=x')).status, 422);
    const { app } = await testServer();
    const facts = await app.database.operator.rows<{ data: any }>(
      sql`select data from facts where tenant_id = ${admin.tenant} and type = 'memory.exported' order by id`,
    );
    assert.equal(facts[0]!.data.exported_count, 1_203);
  });

  it('waits for a slow reader, and is broken off with it', async () => {
    const ann = await newTenant('user');
    const long = 'x'.repeat(9_000);
    for (let i = 0; i < 4; i++)
      await ann.call('POST', '/v1/memory/bulk', { memories: Array(500).fill(note(long)) });
    const url = `${await address()}/v1/memory/export`;
    const exportOf = () =>
      new Promise<import('node:http').IncomingMessage>((resolve) => {
        request(url, { headers: { authorization: `Bearer ${ann.token}` } }, resolve).end();
      });
    let memories = 0;
    const restore = await watchExports(ann.tenant, async (page) => {
      memories += page.length;
    });
    try {
      const stalled = await exportOf();
      await sleep(500);
      // 18 MB do not fit into what the sockets hold: it stopped long before the end.
      assert.ok(memories > 0 && memories < 1_500, `${memories} were read for a reader that takes nothing`);
      stalled.destroy();
      let bytes = 0;
      for await (const chunk of await exportOf()) bytes += chunk.length;
      assert.ok(bytes > 2_000 * 9_000);
    } finally {
      restore();
    }
  });

  it('is broken off when the credential of its reader ends', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const agent = await newMember(admin, 'agent');
    const ann = await newMember(admin, 'user');
    for (const owner of [admin, other])
      await owner.call('POST', '/v1/memory/bulk', { memories: Array(900).fill(note('of the harbour')) });
    const key = await newKey(admin);
    const grant = await admin.call('POST', `/v1/identity/${agent.id}/delegate`, {});
    const session = await newSession(admin);
    const ways: [token: string, path: string][] = [
      [key.token, `/v1/api-keys/${key.keyId}`],
      [grant.body.access_token, `/v1/delegations/${grant.body.grant_id}`],
      [session.access_token, `/v1/sessions/${session.id}`],
    ];
    const url = `${await address()}/v1/memory/export`;
    const read = async (token: string): Promise<boolean> => {
      const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
      return response.text().then(
        () => true,
        () => false,
      );
    };
    for (const [token, path] of ways) {
      let pages = 0;
      const restore = await watchExports(admin.tenant, async () => {
        pages += 1;
        if (pages === 1) assert.ok((await admin.call('DELETE', path)).status < 300);
      });
      try {
        assert.deepEqual([await read(token), pages], [false, 1], path);
      } finally {
        restore();
      }
    }
    assert.deepEqual(
      [await read(ann.token), await read(admin.token), await read(other.token)],
      [true, true, true],
    );
  });

  it('reads no further when its reader has left, also where it had nothing to write yet', async () => {
    const [admin, stranger] = [await newTenant('admin'), await newTenant('admin')];
    for (const owner of [admin, stranger]) {
      for (let i = 0; i < 3; i++)
        await owner.call('POST', '/v1/memory/bulk', { memories: Array(500).fill(note('of the harbour')) });
      // What no statement can ask for, and nothing is.
      const rule = { '==': [{ substr: [{ var: 'target.id' }, -1] }, 'none'] };
      const reply = await owner.call('POST', '/v1/policy/', { role: 'auditor', rule });
      assert.equal(reply.status, 201, reply.text);
    }
    const [auditor, theirs] = [await newMember(admin, 'auditor'), await newMember(stranger, 'auditor')];
    const { server } = await testServer();
    const pages: number[] = [];
    const url = `${await address()}/v1/memory/export`;
    const left = new Promise<void>((resolve) => {
      server!.server.once('request', (_request, response) => response.once('close', resolve));
    });
    const reader = request(url, { headers: { authorization: `Bearer ${auditor.token}` } });
    reader.on('error', () => {});
    const restore = await watchExports(admin.tenant, async (_page, export_) => {
      pages[export_] = (pages[export_] ?? 0) + 1;
      if (export_ > 0) return;
      reader.destroy();
      await left;
    });
    try {
      reader.end();
      await left;
      // Another one is read to its end meanwhile, as is that of another tenant.
      assert.equal((await auditor.call('GET', '/v1/memory/export')).text, '');
      assert.equal((await theirs.call('GET', '/v1/memory/export')).text, '');
      assert.deepEqual([pages[0], pages[1]! > 3], [1, true]);
    } finally {
      restore();
    }
  });
});

describe('an import', () => {
  it('of an export gives the same memories, with their history, in another tenant', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const made: any[] = [];
    for (const body of [
      note('plain', { metadata: { a: [1, { b: 'ü "x" \n' }] } }),
      note('turn', { session_id: 's1', role: 'assistant', occurred_at: '2024-05-01T10:00:00Z' }),
      note('short', { ttl_days: 3 }),
      note('dated', { expires_at: '2090-01-01T00:00:00Z' }),
      note('secret', { sensitive: true, type: 'health' }),
    ])
      made.push((await ann.call('POST', '/v1/memory/', body)).body);
    await ann.call('PUT', `/v1/memory/${made[0].id}`, { text: 'plain, changed', metadata: { a: 2 } });
    await ann.call('PUT', `/v1/memory/${made[4].id}`, { text: 'secret, changed' });
    const lines = await exported(ann, '?history=true');
    const state = await imported(bob, lines);
    assert.deepEqual(
      [state.status, state.processed, state.created, state.failed],
      ['succeeded', 5, 5, 0],
      JSON.stringify(state.errors),
    );
    const copied = await exported(bob, '?history=true');
    const bare = ({ id: _i, identity_id: _o, ...line }: any) => line;
    assert.deepEqual(copied.map(bare), lines.map(bare));
    assert.ok(copied.every(({ identity_id }) => identity_id === bob.id));
    assert.ok(copied.every(({ id }) => !lines.some((line) => line.id === id)));
    const history = await bob.call('GET', `/v1/memory/${copied[4].id}/history`);
    assert.deepEqual(
      history.body.map(({ version, text, sensitive }: any) => [version, text, sensitive]),
      [
        [2, 'secret, changed', true],
        [1, 'secret', true],
      ],
    );
    assert.equal(history.body[0].change, 'imported');
    assert.equal(
      (await bob.call('POST', '/v1/memory/search', { query: 'plain changed' })).body[0].id,
      copied[0].id,
    );
    await eventually('its vectors', async () =>
      (await bob.call('GET', '/v1/memory/')).body.every((m: any) => m.embedding_status !== 'pending'),
    );
    // The same file again makes nothing twice; a changed line changes its memory.
    const again = await imported(bob, lines);
    assert.deepEqual([again.created, again.updated, again.unchanged], [0, 0, 5]);
    const edited = await imported(bob, [{ ...lines[1], text: 'turn, edited' }]);
    assert.deepEqual([edited.created, edited.updated, edited.unchanged], [0, 1, 0]);
    const after = await exported(bob);
    assert.equal(after.length, 5);
    assert.deepEqual([after[1].text, after[1].version], ['turn, edited', 2]);
  });

  it('keeps ids and owners where an admin says so', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const ann = await newMember(admin, 'user');
    await ann.call('POST', '/v1/memory/', note('of ann'));
    await admin.call('POST', '/v1/memory/', note('of the admin'));
    const lines = await exported(admin);
    assert.equal((await upload(ann, fileOf(lines), '?preserve_ids=true')).status, 403);
    const state = await imported(other, lines, '?preserve_ids=true');
    assert.deepEqual([state.created, state.failed], [2, 0]);
    assert.deepEqual(
      (await exported(other)).map(({ id, text, identity_id }) => [id, text, identity_id]),
      lines.map(({ id, text }) => [id, text, other.id]),
    );
    // Into the tenant it came from it is what is there already, of whoever it was.
    const back = await imported(admin, lines, '?owner=keep');
    assert.deepEqual([back.created, back.updated, back.unchanged, back.failed], [0, 0, 2, 0]);
    const foreign = await imported(other, lines.slice(0, 1), '?owner=keep');
    assert.equal(foreign.errors[0].code, 'VALIDATION_ERROR');
    assert.match(foreign.errors[0].message, /identity_id/);
    const denied = await imported(ann, [note('for the admin', { identity_id: admin.id })], '?owner=keep');
    assert.equal(denied.errors[0].code, 'POLICY_DENIED');
    const taken = await imported(admin, [{ ...lines[0], text: 'mine now' }], '?preserve_ids=true');
    assert.deepEqual([taken.failed, taken.errors[0].code], [1, 'ID_TAKEN']);
  });

  it('is done with the rights that whoever began it has when it is done', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const [second, ann] = [await newMember(admin, 'admin'), await newMember(admin, 'user')];
    const begun = await upload(second, '', '?complete=false&owner=keep');
    const ids = await upload(second, '', '?complete=false&preserve_ids=true');
    const demoted = await admin.call('PUT', `/v1/identity/${second.id}`, { role: 'user' });
    assert.equal(demoted.status, 200, demoted.text);
    const goOn = async (who: Caller, { body }: Reply, line: object) =>
      call('PUT', body.status_url, { token: who.token, payload: `${fileOf([line])}\n`, headers: ndjson });
    const line = note('in the name of ann', { identity_id: ann.id });
    const went = await goOn(second, begun, line);
    assert.equal(went.status, 202, went.text);
    const state = await ended(second, went);
    assert.deepEqual([state.created, state.errors[0]?.code], [0, 'POLICY_DENIED']);
    assert.deepEqual((await ann.call('GET', '/v1/memory/')).body, []);
    const kept = await ended(second, await goOn(second, ids, note('an id of its own', { id: uuidv7() })));
    assert.deepEqual([kept.status, kept.failure_code, kept.created], ['failed', 'AUTH_FORBIDDEN', 0]);
    // Whoever stays an admin may still.
    const still = await upload(other, '', '?complete=false&preserve_ids=true');
    const done = await ended(other, await goOn(other, still, note('an id of its own', { id: uuidv7() })));
    assert.deepEqual([done.status, done.created], ['succeeded', 1]);
  });

  it('is gone on with by no agent, and no narrowed key, with the rights of whoever began it', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const [agent, ann] = [await newMember(admin, 'agent'), await newMember(admin, 'user')];
    const grant = await admin.call('POST', `/v1/identity/${agent.id}/delegate`, { scopes: ['write'] });
    const key = await newKey(admin, { scopes: ['memory:create', 'memory:read'] });
    const line = `${fileOf([note('in the name of ann', { identity_id: ann.id })])}\n`;
    const goOn = (token: string, { body }: Reply) =>
      call('PUT', body.status_url, { token, payload: line, headers: ndjson });
    const begun = await upload(admin, '', '?complete=false&owner=keep');
    for (const token of [grant.body.access_token, key.token])
      assert.equal((await goOn(token, begun)).status, 403);
    assert.equal((await goOn(other.token, begun)).status, 404);
    const own = await upload(key, '', '?complete=false');
    assert.equal((await goOn(key.token, own)).status, 202);
    assert.equal((await goOn(admin.token, begun)).status, 202);
  });

  it('changes nothing that is there by a key that may only create', async () => {
    const ann = await newTenant('user');
    const { body: old } = await ann.call('POST', '/v1/memory/', note('the account is DE11'));
    const key = await newKey(ann, { scopes: ['memory:create', 'memory:read'] });
    const state = await imported(key, [note('the account is DE22', { id: old.id }), note('new')]);
    assert.deepEqual([state.created, state.updated, state.failed], [1, 0, 1]);
    assert.deepEqual([state.errors[0].line, state.errors[0].code], [1, 'AUTH_FORBIDDEN']);
    const { body: now } = await ann.call('GET', `/v1/memory/${old.id}`);
    assert.deepEqual([now.text, now.version], ['the account is DE11', 1]);
    const changing = await newKey(ann, { scopes: ['memory:create', 'memory:read', 'memory:update'] });
    const changed = await imported(changing, [note('the account is DE22', { id: old.id })]);
    assert.equal(changed.updated, 1);
  });

  it('fails lines alone, and names the first hundred with their numbers', async () => {
    const ann = await newTenant('user');
    const lines = [
      note('good'),
      '{"text": "broken',
      '',
      { text: 'no type' },
      note('unknown', { colour: 'red' }),
      note('x'.repeat(10_001)),
      '{"text":"nul \\u0000","type":"note"}',
      note('expired', { expires_at: '2020-01-01T00:00:00Z' }),
      note('future', { created_at: '2990-01-01T00:00:00Z' }),
      note('tenant', { tenant_id: 'another' }),
      note('nowhere', { session_id: ' ' }),
      '[]',
      note('last', { id: 'row-12', created_at: '2020-01-01T00:00:00Z' }),
    ];
    const state = await imported(ann, lines);
    assert.deepEqual([state.processed, state.created, state.failed], [13, 2, 10]);
    const said = new Map(state.errors.map(({ line, message }: any) => [line, message]));
    assert.deepEqual([said.get(4), said.get(5)], ['/type is required', '/colour is not a known field']);
    const memories = [{ type: 'note' }, note('unknown', { colour: 'red' })];
    const { failed } = (await ann.call('POST', '/v1/memory/bulk', { memories })).body.error.details;
    assert.deepEqual(
      failed.map(({ error }: any) => error.message),
      ['/text is required', '/colour is not a known field'],
      'in the words of every refusal',
    );
    assert.deepEqual(
      state.errors.map(({ line, code }: any) => [line, code]),
      [
        [2, 'MALFORMED_JSON'],
        [4, 'VALIDATION_ERROR'],
        [5, 'VALIDATION_ERROR'],
        [6, 'VALIDATION_ERROR'],
        [7, 'VALIDATION_ERROR'],
        [8, 'MEMORY_EXPIRED'],
        [9, 'VALIDATION_ERROR'],
        [10, 'VALIDATION_ERROR'],
        [11, 'VALIDATION_ERROR'],
        [12, 'VALIDATION_ERROR'],
      ],
    );
    const [newest] = (await ann.call('GET', '/v1/memory/')).body;
    assert.deepEqual([newest.text, newest.created_at], ['last', '2020-01-01T00:00:00.000Z']);
    const many = await imported(ann, Array(250).fill('{'));
    assert.deepEqual([many.failed, many.errors.length, many.errors[99].line], [250, 100, 100]);
  });

  it('keeps no unfinished line of a part, and goes on behind the last whole one where no offset is given', async () => {
    for (const ann of [await newTenant('user'), await newTenant('user')]) {
      const [first, second] = [`${fileOf([note('the first')])}\n`, fileOf([note('the second')])];
      const begun = await upload(ann, first + second.slice(0, 9), '?complete=false');
      assert.equal(begun.body.received_bytes, Buffer.byteLength(first));
      const rest = await call('PUT', begun.body.status_url, {
        token: ann.token,
        payload: second,
        headers: ndjson,
      });
      const state = await ended(ann, rest);
      assert.deepEqual([state.created, state.failed], [2, 0]);
    }
  });

  it('says of every line what became of it, of blank ones too', async () => {
    for (const who of [await newTenant('user'), await newTenant('user')]) {
      await imported(who, [note('same', { id: 'a' }), note('old', { id: 'b' })]);
      const again = [note('same', { id: 'a' }), '', note('new', { id: 'b' }), ' \t\r', '{', note('more')];
      const { received_lines, processed, created, updated, unchanged, failed, blank } = await imported(
        who,
        again,
      );
      assert.deepEqual([received_lines, processed], [6, 6]);
      assert.deepEqual([created, updated, unchanged, failed, blank], [1, 1, 1, 1, 2]);
    }
  });

  it('takes a file of many pieces, and one that ends without a line feed', async () => {
    const ann = await newTenant('user');
    const count = 2_345;
    const lines = Array.from({ length: count }, (_, i) =>
      note(`memory ${i} ${'word '.repeat(60)}`, { id: `r${i}` }),
    );
    const state = await imported(ann, lines);
    assert.deepEqual(
      [state.status, state.received_lines, state.processed, state.created],
      ['succeeded', count, count, count],
    );
    assert.equal(state.received_bytes, Buffer.byteLength(fileOf(lines)));
    const { app } = await testServer();
    const left = await app.database.operator.rows(
      sql`select 1 from memory_import_chunks where tenant_id = ${ann.tenant}`,
    );
    assert.deepEqual(left, []);
  });

  it('of the same source twice in one file is a memory and its change', async () => {
    const ann = await newTenant('user');
    const state = await imported(ann, [
      note('first', { id: 'a' }),
      note('between', { id: 'b' }),
      note('second', { id: 'a' }),
    ]);
    assert.deepEqual([state.created, state.updated, state.failed], [2, 1, 0]);
    assert.deepEqual(
      (await exported(ann)).map(({ text, version }) => [text, version]),
      [
        ['second', 2],
        ['between', 1],
      ],
    );
  });

  it('is taken up again where its upload broke off', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const file = `${fileOf(Array.from({ length: 3_000 }, (_, i) => note(`memory ${i} ${'word '.repeat(40)}`)))}\n`;
    const broken = await new Promise<void>((resolve, reject) => {
      void address().then((base) => {
        const sending = request(`${base}/v1/memory/import`, {
          method: 'POST',
          headers: {
            ...ndjson,
            authorization: `Bearer ${ann.token}`,
            'content-length': Buffer.byteLength(file),
            'idempotency-key': 'upload-1',
          },
        });
        sending.on('error', () => resolve());
        sending.on('response', () => reject(new Error('it was answered')));
        sending.write(file.slice(0, 500_000), () => setTimeout(() => sending.destroy(), 100));
      });
    });
    assert.equal(broken, undefined);
    const [row] = await eventually('the upload', async () => {
      const { body } = await ann.call('GET', '/v1/memory/imports?status=uploading');
      return body.length === 1 && body[0].received_bytes > 0 && body;
    });
    assert.ok(row.received_bytes <= 500_000 && row.received_lines > 0);
    const again = await upload(ann, file, '', { 'idempotency-key': 'upload-1' });
    assert.equal(again.body.error.code, 'IMPORT_UPLOADING');
    const { import_id } = again.body.error.details;
    const rest = (query: string, payload: string, who = ann) =>
      call('PUT', `/v1/memory/imports/${import_id}${query}`, { token: who.token, payload, headers: ndjson });
    assert.equal((await rest('?offset=5', 'x')).body.error.code, 'IMPORT_OFFSET_MISMATCH');
    assert.equal((await rest('', 'x', bob)).status, 404);
    const { received_bytes } = (await ann.call('GET', `/v1/memory/imports/${import_id}`)).body;
    const middle = received_bytes + 100_000;
    const more = await rest(`?offset=${received_bytes}&complete=false`, file.slice(received_bytes, middle));
    assert.deepEqual([more.status, more.body.status], [202, 'uploading']);
    assert.ok(more.body.received_bytes <= middle);
    const done = await rest(`?offset=${more.body.received_bytes}`, file.slice(more.body.received_bytes));
    assert.equal(done.status, 202);
    const state = await ended(ann, done);
    assert.deepEqual(
      [state.created, state.failed, state.received_bytes],
      [3_000, 0, Buffer.byteLength(file)],
    );
    const replayed = await upload(ann, file, '', { 'idempotency-key': 'upload-1' });
    assert.equal(replayed.headers['idempotency-replayed'], 'true');
    assert.equal(replayed.body.import_id, import_id);
    assert.equal((await rest('', '')).body.error.code, 'IMPORT_NOT_UPLOADING');
  });

  it('can be canceled, and one that nobody goes on with is dropped', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const part = () => upload(ann, `${fileOf([note('kept in a piece')])}\n`, '?complete=false');
    const [one, two] = [(await part()).body, (await part()).body];
    const gone = await ann.call('DELETE', `/v1/memory/imports/${one.import_id}`);
    assert.equal(gone.body.status, 'canceled');
    await app.database.operator.run(sql`
      update memory_imports set updated_at = ${new Date(Date.now() - 25 * 3_600_000)}
      where tenant_id = ${ann.tenant} and id = ${two.import_id}`);
    await tendImports(app);
    const state = (await ann.call('GET', `/v1/memory/imports/${two.import_id}`)).body;
    assert.deepEqual([state.status, state.failure_code], ['failed', 'UPLOAD_ABANDONED']);
    assert.deepEqual(
      await app.database.operator.rows(
        sql`select 1 from memory_import_chunks where tenant_id = ${ann.tenant}`,
      ),
      [],
    );
    assert.deepEqual((await ann.call('GET', '/v1/memory/')).body, []);
  });

  it('is limited in size and in the length of its lines', async () => {
    const server = await startServer({ IMPORT_LIMIT_BYTES: '5000', IMPORT_LINE_LIMIT_BYTES: '1024' });
    try {
      const ann = await newTenant('user', server);
      const send = (payload: string) =>
        callServer(server, 'POST', '/v1/memory/import', { token: ann.token, payload, headers: ndjson });
      const large = `${JSON.stringify(note('x'))}\n`.repeat(200);
      assert.equal((await send(large)).status, 413);
      // One that does not say its size is stopped when it is too large, and ends.
      const { port } = server.server!.server.address() as { port: number };
      const unsized = await fetch(`http://127.0.0.1:${port}/v1/memory/import`, {
        method: 'POST',
        headers: { ...ndjson, authorization: `Bearer ${ann.token}` },
        body: ReadableStream.from(
          [large.slice(0, 3_000), large.slice(3_000)].map((part) => Buffer.from(part)),
        ),
        duplex: 'half',
      } as RequestInit);
      assert.equal(unsized.status, 413);
      const [failed] = (await callServer(server, 'GET', '/v1/memory/imports', { token: ann.token })).body;
      assert.deepEqual([failed.status, failed.failure_code], ['failed', 'PAYLOAD_TOO_LARGE']);
      const file = fileOf([note('before'), note('x'.repeat(2_000)), note('after')]);
      const { body } = await send(file);
      const state = await eventually('the import', async () => {
        const reply = await callServer(server, 'GET', body.status_url, { token: ann.token });
        return reply.body.status === 'succeeded' && reply.body;
      });
      assert.deepEqual([state.created, state.failed], [2, 1]);
      assert.deepEqual([state.errors[0].line, state.errors[0].code], [2, 'LINE_TOO_LONG']);
    } finally {
      await server.stop();
    }
  });

  it('takes lines of JSON and nothing else, and other routes take no lines', async () => {
    const ann = await newTenant('user');
    const send = (type: string, url = '/v1/memory/import') =>
      call('POST', url, { token: ann.token, payload: '{}', headers: { 'content-type': type } });
    for (const type of ['application/json', 'text/plain', 'multipart/form-data; boundary=x'])
      assert.equal((await send(type)).status, 415, type);
    assert.equal((await send('application/x-ndjson', '/v1/memory/')).status, 415);
    assert.equal((await upload(ann, '{}', '?owner=everybody')).status, 422);
    assert.equal((await upload(ann, '{}', '', { 'idempotency-key': 'ключ' })).status, 400);
    const empty = await imported(ann, []);
    assert.deepEqual([empty.status, empty.processed], ['succeeded', 0]);
  });

  it('is stored once, however many workers have it in hand', async () => {
    const { app } = await testServer();
    const ann = await newTenant('user');
    const lines = Array.from({ length: 2_500 }, (_, i) => note(`memory ${i}`));
    const { body } = await upload(ann, `${fileOf(lines)}\n`);
    const ctx = systemCtx(app, ann.tenant, 'another worker');
    const payload = { tenant_id: ann.tenant, fact_id: '', resource_id: body.import_id, data: {} };
    await Promise.all([runImport(ctx, payload), runImport(ctx, payload), runImport(ctx, payload)]);
    const state = await eventually('the import', async () => {
      const reply = (await ann.call('GET', body.status_url)).body;
      return reply.status === 'succeeded' && reply;
    });
    assert.deepEqual([state.processed, state.created], [2_500, 2_500]);
    assert.equal((await exported(ann)).length, 2_500);
  });

  it('stores nothing more when who asked for it may store nothing any more', async () => {
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(other, 'user')];
    const begun = [];
    for (const who of [ann, ben])
      begun.push(await upload(who, `${fileOf([note('x')])}\n`, '?complete=false'));
    await admin.call('PUT', `/v1/identity/${ann.id}`, { role: 'reader' });
    const { app } = await testServer();
    await app.database.operator.run(
      sql`update memory_imports set status = 'queued', updated_at = ${new Date(0)} where tenant_id in (${admin.tenant}, ${other.tenant})`,
    );
    await tendImports(app);
    const [mine, theirs] = [await ended(ann, begun[0]!), await ended(ben, begun[1]!)];
    assert.deepEqual([mine.created, mine.errors[0]?.code], [0, 'POLICY_DENIED']);
    assert.deepEqual([theirs.created, theirs.failed], [1, 0]);
  });

  it('ends when who asked for it may do nothing any more', async () => {
    const admin = await newTenant('admin');
    const ann = await newMember(admin, 'user');
    const { body } = await upload(ann, `${fileOf([note('x')])}\n`, '?complete=false');
    await admin.call('PUT', `/v1/identity/${ann.id}`, { is_active: false });
    const { app } = await testServer();
    await app.database.operator.run(
      sql`update memory_imports set status = 'queued', updated_at = ${new Date(0)} where tenant_id = ${admin.tenant}`,
    );
    await tendImports(app);
    const state = await eventually('the end', async () => {
      const reply = (await admin.call('GET', body.status_url)).body;
      return reply.status === 'failed' && reply;
    });
    assert.deepEqual([state.failure_code, state.created], ['IDENTITY_INACTIVE', 0]);
  });
});

describe('lines of a stream', () => {
  it('are the same however the bytes are cut', () => {
    const file = Buffer.from('one\ntwo ü\n\nlonger than ten bytes\nfive\nlast');
    const wanted = 'one\ntwo ü\n\n!line too long\nfive\nlast\n';
    for (let size = 1; size <= file.length; size++) {
      const lines = createLines(10);
      let text = '';
      let count = 0;
      let bytes = 0;
      const take = (isLast: boolean) => {
        const piece = lines.take(isLast);
        text += piece.text;
        count += piece.lines;
        bytes += piece.bytes;
      };
      for (let at = 0; at < file.length; at += size) {
        lines.add(file.subarray(at, at + size));
        if (at % 3 === 0) take(false);
      }
      take(true);
      assert.deepEqual([text, count, bytes], [wanted, 6, file.length], `pieces of ${size}`);
    }
  });
});
