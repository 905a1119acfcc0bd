import assert from 'node:assert/strict';
import { it } from 'node:test';
import { call, newKey, newTenant, useTestServer } from '#test/harness.ts';

useTestServer();

it('a key without the scope to read what it changes is told so, and not whether it is there', async () => {
  const [ann, stranger] = [await newTenant(), await newTenant()];
  for (const tenant of [ann, stranger])
    assert.equal((await tenant.call('POST', '/v1/corpora', { id: 'shelf', name: 'Shelf' })).status, 201);
  const text = { corpus_id: 'shelf', text: 'The harbour opens at six.' };
  assert.equal((await ann.call('POST', '/v1/documents/text', { ...text, document_id: 'there' })).status, 202);
  const asked: [
    scope: string,
    method: string,
    url: (id: string) => string,
    body: unknown,
    missing: string,
  ][] = [
    ['documents:update', 'PATCH', (id) => `/v1/documents/${id}`, { metadata_json: {} }, 'documents:read'],
    ['documents:reindex', 'POST', (id) => `/v1/documents/${id}/reindex`, {}, 'documents:read'],
    ['documents:delete', 'DELETE', (id) => `/v1/documents/${id}`, undefined, 'documents:read'],
    ['corpora:update', 'PATCH', (id) => `/v1/corpora/${id}`, { name: 'x' }, 'corpora:read'],
    ['corpora:delete', 'DELETE', (id) => `/v1/corpora/${id}`, undefined, 'corpora:read'],
    ['documents:read', 'POST', (id) => `/v1/corpora/${id}/search`, { query: 'harbour' }, 'corpora:read'],
    ['identity:update', 'PUT', (id) => `/v1/identity/${id}`, { name: 'x' }, 'identity:read'],
    ['identity:delete', 'DELETE', (id) => `/v1/identity/${id}`, undefined, 'identity:read'],
  ];
  const there: Record<string, string> = { documents: 'there', corpora: 'shelf', identity: ann.id };
  for (const [scope, method, url, body, missing] of asked) {
    const { token } = await newKey(ann, { scopes: [scope] });
    const kind = url('').split('/')[2]!;
    for (const id of [there[kind]!, 'never-was']) {
      const reply = await call(method, url(id), { token, ...(body === undefined ? {} : { body }) });
      assert.deepEqual([reply.status, reply.body.error.code], [403, 'AUTH_FORBIDDEN'], `${scope} ${id}`);
      assert.equal(
        reply.body.error.message,
        `This credential does not have the scope for ${missing}.`,
        scope,
      );
    }
  }
  const { token: deleting } = await newKey(ann, { scopes: ['identity:delete'] });
  const body = { identity_ids: [ann.id] };
  assert.equal((await call('POST', '/v1/identity/bulk-delete', { token: deleting, body })).status, 403);
  const { token } = await newKey(ann, { scopes: ['documents:create', 'corpora:read'] });
  const again = await call('POST', '/v1/documents/text', { token, body: { ...text, document_id: 'there' } });
  assert.equal(again.body.error.message, 'This credential does not have the scope for documents:read.');
  const fresh = await call('POST', '/v1/documents/text', { token, body: { ...text, document_id: 'new' } });
  assert.equal(fresh.status, 202, 'what is new need not be read');
  const { token: adding } = await newKey(ann, {
    scopes: ['documents:create', 'documents:read', 'corpora:read'],
  });
  const other = { ...text, text: 'The harbour is closed.', document_id: 'there', overwrite: true };
  const over = await call('POST', '/v1/documents/text', { token: adding, body: other });
  assert.deepEqual(
    [over.status, over.body.error.message],
    [403, 'This credential does not have the scope for documents:update.'],
  );
  assert.equal((await stranger.call('GET', '/v1/documents/there')).status, 404);
});
