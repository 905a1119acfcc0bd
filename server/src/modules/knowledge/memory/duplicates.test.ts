import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Caller, newKey, newMember, newTenant, useTestServer } from '#test/harness.ts';

useTestServer();

const note = (text: string, more: object = {}) => ({ text, type: 'note', ...more });
const post = async (who: Caller, body: object) => {
  const reply = await who.call('POST', '/v1/memory/', body);
  assert.equal(reply.status, 201, reply.text);
  return reply.body;
};

describe('what is stored twice', () => {
  it('is stored, and told on request with what it repeats or may contradict', async () => {
    const admin = await newTenant('admin');
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const [first, home, retyped] = [
      await post(ann, note('The user prefers dark mode interfaces')),
      await post(ann, note('The user lives in Berlin')),
      await post(ann, note('The user prefers dark mode interfaces', { type: 'other' })),
    ];
    await post(ben, note('The user prefers dark mode interfaces'));
    assert.equal(first.duplicates, undefined);
    const same = await post(ann, note('the user prefers dark mode interfaces.', { check: 'duplicates' }));
    assert.deepEqual(same.duplicates, [{ id: first.id, score: 1 }]);
    assert.equal(same.contradictions, undefined);
    const near = await post(ann, note('User prefers the dark mode interface', { check: 'all' }));
    assert.deepEqual(near.duplicates.map(({ id }: any) => id).sort(), [first.id, same.id].sort());
    assert.deepEqual(near.contradictions, []);
    const moved = await post(ann, note('The user lives in Paris', { check: 'contradictions' }));
    assert.deepEqual(
      moved.contradictions.map(({ id, reason }: any) => [id, reason]),
      [[home.id, 'value']],
    );
    assert.equal(moved.duplicates, undefined);
    const alone = await post(ann, note('Bought new shoes', { check: 'all' }));
    assert.deepEqual([alone.duplicates, alone.contradictions], [[], []]);
    assert.ok(retyped.id);
    const list = await ann.call('GET', '/v1/memory/');
    assert.ok(list.body.every((memory: any) => !('duplicates' in memory)));
  });

  it('is compared by what it says, however its verbs and numbers are written', async () => {
    const [ann, other] = [await newTenant('user'), await newTenant('user')];
    const [jazz, deposit] = [
      await post(ann, note('The user likes jazz')),
      await post(ann, note('The deposit is 5000 euros')),
    ];
    const denied = await post(ann, note('The user does not like jazz', { check: 'all' }));
    assert.deepEqual(
      denied.contradictions.map(({ id, reason }: any) => [id, reason]),
      [[jazz.id, 'negation']],
    );
    const again = await post(ann, note('The deposit is 5,000.00 euros', { check: 'all' }));
    assert.deepEqual([again.duplicates, again.contradictions], [[{ id: deposit.id, score: 0.99 }], []]);
    const theirs = await post(other, note('The user does not like jazz', { check: 'all' }));
    assert.deepEqual([theirs.duplicates, theirs.contradictions], [[], []]);
  });

  it('is not looked for among what is deleted, expired or sensitive', async () => {
    const ann = await newTenant('user');
    const gone = await post(ann, note('the same words'));
    await ann.call('DELETE', `/v1/memory/${gone.id}`);
    await post(ann, note('the same words', { sensitive: true }));
    const soon = Date.now() + 200;
    await post(ann, note('the same words', { expires_at: new Date(soon).toISOString() }));
    await new Promise((resolve) => setTimeout(resolve, soon - Date.now() + 5));
    assert.deepEqual((await post(ann, note('the same words', { check: 'all' }))).duplicates, []);
    const sensitive = await post(ann, note('the same words', { check: 'all', sensitive: true }));
    assert.deepEqual(sensitive.duplicates, []);
  });

  it('is not told to a key that may not search, which stores nothing then', async () => {
    const ann = await newTenant('user');
    await post(ann, note('the account is DE11'));
    const key = await newKey(ann, { scopes: ['memory:create'] });
    const probe = note('the account is DE11', { check: 'all' });
    for (const [path, body] of [
      ['/v1/memory/', probe],
      ['/v1/memory/bulk', { memories: [note('another'), probe] }],
    ] as const) {
      const reply = await key.call('POST', path, body);
      assert.deepEqual([reply.status, reply.body.error.code], [403, 'AUTH_FORBIDDEN'], reply.text);
    }
    assert.equal((await ann.call('GET', '/v1/memory/')).body.length, 1);
    await post(key, note('the account is DE11'));
    const searching = await newKey(ann, { scopes: ['memory:create', 'memory:search'] });
    assert.equal((await post(searching, probe)).duplicates.length, 2);
  });

  it('is told in a bulk request for each row that asks, also of rows before it', async () => {
    const ann = await newTenant('user');
    const old = await post(ann, note('an old friend'));
    const { body } = await ann.call('POST', '/v1/memory/bulk', {
      memories: [
        note('An old friend', { check: 'duplicates' }),
        note('twins', { check: 'all' }),
        note('Twins!', { check: 'all' }),
        note('does not ask'),
      ],
    });
    assert.deepEqual(body.created[0].duplicates, [{ id: old.id, score: 1 }]);
    assert.deepEqual(body.created[1].duplicates, []);
    assert.deepEqual(body.created[2].duplicates, [{ id: body.created[1].id, score: 1 }]);
    assert.equal('duplicates' in body.created[3], false);
    const many = await ann.call('POST', '/v1/memory/bulk', {
      memories: Array.from({ length: 102 }, (_, i) => note(`row ${i}`, { check: 'all' })),
    });
    assert.deepEqual(
      many.body.failed.map(({ index, error }: any) => [index, error.code]),
      [
        [100, 'VALIDATION_ERROR'],
        [101, 'VALIDATION_ERROR'],
      ],
    );
  });
});
