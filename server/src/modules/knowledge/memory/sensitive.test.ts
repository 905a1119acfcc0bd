import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { rewrapDataKeys } from '#modules/access/data-keys/service.ts';
import { readConfig } from '#platform/config.ts';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import { createLog } from '#platform/log.ts';
import {
  type Caller,
  callServer,
  environmentOf,
  eventually,
  everythingOf,
  newMember,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { statisticsOf } from '#test/statistics.ts';
import { openApp } from '../../../app.ts';
import { tendRetiredKeys } from './reseal.ts';
import { getMemory } from './service.ts';

useTestServer();

const secret = (text: string, more: object = {}) => ({ text, type: 'health', sensitive: true, ...more });
const make = async (who: Caller, body: object) => {
  const reply = await who.call('POST', '/v1/memory/', body);
  assert.equal(reply.status, 201, reply.text);
  return reply.body;
};

describe('a sensitive memory', () => {
  it('is answered to who may read it, and stands nowhere in the clear', async () => {
    const [ann, bob] = [await newTenant('user'), await newTenant('admin')];
    const word = 'xylophonitis';
    const made = await make(ann, secret(`Diagnosed with ${word}`, { metadata: { ward: 'seven' } }));
    assert.deepEqual([made.sensitive, made.embedding_status], [true, 'none']);
    assert.equal(made.text, `Diagnosed with ${word}`);
    const read = await ann.call('GET', `/v1/memory/${made.id}`);
    assert.equal(read.body.text, made.text);
    assert.deepEqual(read.body.metadata, { ward: 'seven' });
    assert.equal((await ann.call('GET', '/v1/memory/?memory_type=health')).body[0].text, made.text);
    assert.equal((await bob.call('GET', `/v1/memory/${made.id}`)).status, 404);
    const changed = await ann.call('PUT', `/v1/memory/${made.id}`, { text: `No ${word} after all` });
    assert.deepEqual(
      [changed.body.text, changed.body.sensitive, changed.body.version],
      [`No ${word} after all`, true, 2],
    );
    const history = await ann.call('GET', `/v1/memory/${made.id}/history`);
    assert.deepEqual(
      history.body.map(({ text, sensitive }: any) => [text, sensitive]),
      [
        [`No ${word} after all`, true],
        [`Diagnosed with ${word}`, true],
      ],
    );
    const { body } = await ann.call('POST', '/v1/memory/bulk', { memories: [secret(`Bulk ${word}`)] });
    assert.equal((await ann.call('GET', `/v1/memory/${body.created[0].id}`)).body.text, `Bulk ${word}`);
    assert.doesNotMatch(await everythingOf(ann.tenant), new RegExp(word, 'i'));
  });

  it('is in no index: no search finds it unless it is asked to open them', async () => {
    const admin = await newTenant('admin');
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const made = await make(ann, secret('Allergic to peanuts and shellfish', { metadata: { by: 'doctor' } }));
    await make(ann, secret('Blood type is AB negative'));
    await make(ann, { text: 'Likes peanuts in the garden', type: 'note' });
    await eventually(
      'the other',
      async () => (await ann.call('GET', '/v1/memory/')).body[0].embedding_status === 'ready',
    );
    const find = async (who: Caller, more: object = {}) =>
      (await who.call('POST', '/v1/memory/search', { query: 'allergic to shellfish', ...more })).body;
    for (const mode of ['hybrid', 'text', 'vector'])
      assert.ok((await find(ann, { mode })).every((memory: any) => !memory.sensitive));
    const [hit] = await find(ann, { sensitive: true, similarity_threshold: 0.6 });
    assert.equal(hit.id, made.id);
    assert.equal(hit.text, 'Allergic to peanuts and shellfish');
    assert.equal((await find(ann, { sensitive: true, metadata: { by: 'nurse' } })).length, 0);
    assert.equal((await find(ann, { sensitive: true, metadata: { by: 'doctor' } })).length, 1);
    assert.deepEqual(await find(ben, { sensitive: true }), []);
    assert.equal(
      (await admin.call('POST', '/v1/memory/search', { query: 'x', sensitive: true })).status,
      422,
    );
    assert.equal((await find(admin, { sensitive: true, identity_id: ann.id }))[0].id, made.id);
    const { app } = await testServer();
    const db = app.database.tenant(admin.tenant);
    assert.equal((await statisticsOf(db, admin.tenant, 'memory')).texts, 1);
    const vectors = await db.rows(sql`select 1 from memory_vectors where tenant_id = ${admin.tenant}`);
    assert.equal(vectors.length, 1);
  });

  it('has no vector: a search by vectors alone that asks for such is refused', async () => {
    for (const who of [await newTenant('user'), await newTenant('user')]) {
      const search = (more: object) => who.call('POST', '/v1/memory/search', { query: 'words', ...more });
      const { status, body } = await search({ mode: 'vector', sensitive: true });
      assert.deepEqual(
        [status, ...body.error.details.errors.map(({ path }: { path: string }) => path)],
        [422, '/mode', '/sensitive'],
      );
      for (const more of [
        { mode: 'vector', sensitive: false },
        { mode: 'text', sensitive: true },
        { mode: 'hybrid', sensitive: true },
      ])
        assert.equal((await search(more)).status, 200);
    }
  });

  it('may become one and stop being one, and its words follow', async () => {
    const ann = await newTenant('user');
    const word = 'quadrilloquy';
    const { id } = await make(ann, { text: `first ${word}`, type: 'note' });
    await ann.call('PUT', `/v1/memory/${id}`, { text: `second ${word}` });
    await eventually(
      'its vector',
      async () => (await ann.call('GET', `/v1/memory/${id}`)).body.embedding_status === 'ready',
    );
    assert.match(await everythingOf(ann.tenant), new RegExp(`first ${word}`));
    const shut = await ann.call('PUT', `/v1/memory/${id}`, { sensitive: true });
    assert.deepEqual(
      [shut.body.text, shut.body.sensitive, shut.body.embedding_status],
      [`second ${word}`, true, 'none'],
    );
    const all = await everythingOf(ann.tenant);
    assert.doesNotMatch(all, new RegExp(word));
    assert.doesNotMatch(all, /^memory_vectors/m);
    assert.deepEqual((await ann.call('POST', '/v1/memory/search', { query: word })).body, []);
    assert.deepEqual(
      (await ann.call('GET', `/v1/memory/${id}/history`)).body.map(({ text }: any) => text),
      [`second ${word}`, `second ${word}`, `first ${word}`],
    );
    const opened = await ann.call('PUT', `/v1/memory/${id}`, { sensitive: false });
    assert.equal(opened.body.embedding_status, 'pending');
    assert.equal((await ann.call('POST', '/v1/memory/search', { query: word })).body[0].id, id);
    await eventually(
      'its vector again',
      async () => (await ann.call('GET', `/v1/memory/${id}`)).body.embedding_status === 'ready',
    );
    const { app } = await testServer();
    const { texts } = await statisticsOf(app.database.tenant(ann.tenant), ann.tenant, 'memory');
    assert.equal(texts, 1);
  });

  it('is deleted, restored and removed without touching statistics', async () => {
    const ann = await newTenant('user');
    await make(ann, { text: 'plain', type: 'note' });
    const { id } = await make(ann, secret('hidden'));
    await eventually('the plain one', async () =>
      (await ann.call('GET', '/v1/memory/')).body.every((m: any) => m.embedding_status !== 'pending'),
    );
    await ann.call('DELETE', `/v1/memory/${id}`);
    assert.equal((await ann.call('GET', '/v1/memory/?deleted=true')).body[0].text, 'hidden');
    const back = await ann.call('POST', `/v1/memory/${id}/restore`);
    assert.deepEqual([back.body.text, back.body.embedding_status], ['hidden', 'none']);
    assert.equal((await ann.call('GET', `/v1/memory/${id}`)).body.text, 'hidden');
    await ann.call('DELETE', `/v1/memory/${id}?hard_delete=true`);
    const { app } = await testServer();
    const { texts } = await statisticsOf(app.database.tenant(ann.tenant), ann.tenant, 'memory');
    assert.equal(texts, 1);
  });

  it('does not open in another place: each text is bound to tenant, row and version', async () => {
    const { app } = await testServer();
    const [ann, bob] = [await newTenant('user'), await newTenant('user')];
    const [one, two] = [await make(ann, secret('one')), await make(ann, secret('two'))];
    await make(bob, secret('of bob'));
    const move = (text: string, id: string) =>
      app.database.operatorPool.query(
        `update memories set sealed = (select sealed from memories where id = $1) where id = $2 and $3 = $3`,
        [id, two.id, text],
      );
    await move('another row', one.id);
    assert.equal((await ann.call('GET', `/v1/memory/${two.id}`)).status, 500);
    assert.equal((await ann.call('GET', `/v1/memory/${one.id}`)).status, 200);
    await app.database.operatorPool.query(`update memories set version = 2 where id = $1`, [one.id]);
    assert.equal((await ann.call('GET', `/v1/memory/${one.id}`)).status, 500);
  });

  it('is demanded for types that the installation names', async () => {
    const server = await startServer({ SENSITIVE_MEMORY_TYPES: 'health, salary' });
    try {
      const ann = await newTenant('user', server);
      const post = (body: object) => callServer(server, 'POST', '/v1/memory/', { token: ann.token, body });
      assert.equal((await post({ text: 'x', type: 'salary' })).body.sensitive, true);
      const refused = await post({ text: 'x', type: 'health', sensitive: false });
      assert.equal(refused.status, 422);
      assert.equal(refused.body.error.details.errors[0].path, '/sensitive');
      const plain = await post({ text: 'x', type: 'note' });
      assert.equal(plain.body.sensitive, false);
      const retyped = await callServer(server, 'PUT', `/v1/memory/${plain.body.id}`, {
        token: ann.token,
        body: { type: 'health' },
      });
      assert.equal(retyped.body.sensitive, true);
      assert.equal((await post({ text: 'x', type: 'health', infer: true })).status, 422);
    } finally {
      await server.stop();
    }
  });
});

describe('data keys', () => {
  const keysOf = async (admin: Caller) => (await admin.call('GET', '/v1/admin/encryption')).body;

  it('are rotated by admins: all is sealed anew, and the former key goes', async () => {
    const { app } = await testServer();
    const admin = await newTenant('admin');
    const ann = await newMember(admin, 'user');
    const texts = Array.from({ length: 30 }, (_, i) => `secret ${i}`);
    const ids: string[] = [];
    for (const text of texts) ids.push((await make(ann, secret(text))).id);
    await ann.call('PUT', `/v1/memory/${ids[0]}`, { text: 'secret changed' });
    assert.equal((await ann.call('POST', '/v1/admin/encryption/rotate')).status, 403);
    const [first] = await keysOf(admin);
    const rotated = await admin.call('POST', '/v1/admin/encryption/rotate');
    assert.equal(rotated.status, 202);
    assert.equal(rotated.body.retired_key_id, first.id);
    const after = await make(ann, secret('sealed with the new one'));
    const left = async () =>
      (
        await app.database.operator.rows(sql`
          select 1 from memories where tenant_id = ${admin.tenant} and key_id = ${first.id} union all
          select 1 from memory_versions where tenant_id = ${admin.tenant} and key_id = ${first.id}`)
      ).length;
    await eventually('the re-encryption', async () => (await left()) === 0);
    for (const [i, id] of ids.entries()) {
      const { body } = await ann.call('GET', `/v1/memory/${id}`);
      assert.equal(body.text, i === 0 ? 'secret changed' : texts[i]);
    }
    assert.equal((await ann.call('GET', `/v1/memory/${ids[0]}/history`)).body[1].text, 'secret 0');
    assert.equal((await ann.call('GET', `/v1/memory/${after.id}`)).body.text, 'sealed with the new one');
    // It may still be in a cache for a minute; its time passes faster here.
    await app.database.operator.run(sql`
      update data_keys set retired_at = ${new Date(Date.now() - 3_600_000)} where tenant_id = ${admin.tenant} and id = ${first.id}`);
    await tendRetiredKeys(app);
    await eventually('its end', async () => !(await keysOf(admin)).some(({ id }: any) => id === first.id));
    assert.equal((await keysOf(admin)).length, 2);
  });

  it('stay while something needs them, whatever anybody asks', async () => {
    const { app } = await testServer();
    const ann = await newTenant('admin');
    await make(ann, secret('needs its key'));
    const [key] = await keysOf(ann);
    await assert.rejects(
      app.database.operator.run(
        sql`delete from data_keys where tenant_id = ${ann.tenant} and id = ${key.id}`,
      ),
      { code: '23503' },
    );
  });

  it('are wrapped anew when ENCRYPTION_KEY changes, and what they sealed opens', async () => {
    // A database of its own on either engine: the keys of the shared one are wrapped with another.
    const environment = environmentOf({
      DATABASE_URL: '',
      REDIS_URL: '',
      ENCRYPTION_KEY: 'the first key of encryption, rather long',
    });
    const first = await startServer(environment);
    const ann = await newTenant('admin', first);
    const { id } = (
      await callServer(first, 'POST', '/v1/memory/', { token: ann.token, body: secret('from before') })
    ).body;
    const key = `idempotent-${id}`;
    const kept = {
      token: ann.token,
      body: secret('answered before'),
      headers: { 'idempotency-key': key },
    };
    const answered = await callServer(first, 'POST', '/v1/memory/', kept);
    await first.stop();
    const next = {
      ...environment,
      ENCRYPTION_KEY: 'the second key of encryption, as long as',
      ENCRYPTION_KEY_PREVIOUS: environment.ENCRYPTION_KEY!,
    };
    const second = await startServer(next);
    const read = async (server: typeof second) =>
      (await callServer(server, 'GET', `/v1/memory/${id}`, { token: ann.token })).body.text;
    try {
      assert.equal(await read(second), 'from before');
      assert.deepEqual((await callServer(second, 'POST', '/v1/memory/', kept)).body, answered.body);
      // The clock may have done so before.
      assert.equal((await rewrapDataKeys(second.app)).unopened, 0);
      assert.deepEqual(await rewrapDataKeys(second.app), { rewrapped: 0, unopened: 0 });
    } finally {
      await second.stop();
    }
    // Signing keys stay under the former one, so tokens need it; data keys do not.
    const { ENCRYPTION_KEY_PREVIOUS: _, ...without } = next;
    const { app, close } = await openApp(readConfig(without), createLog('fatal'));
    assert.equal((await getMemory(systemCtx(app, ann.tenant, 'x'), id)).text, 'from before');
    await close();
  });
});
