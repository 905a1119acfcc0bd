import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type Caller, eventually, newMember, newTenant, useTestServer } from '#test/harness.ts';

useTestServer();

const is = (name: string, value: unknown) => ({ '==': [{ var: name }, value] });
const query = 'crane in the harbour';
/** Of others, and each nearer to the query than what is looked for. */
const crowd = Array.from({ length: 450 }, (_, i) => ({
  text: `crane in the harbour ${i}`,
  type: i % 2 ? 'note' : 'diary',
  metadata: { client: `c${i % 7}` },
}));
const far = (type: string, n: number, metadata: object = {}) =>
  Array.from({ length: n }, (_, i) => ({
    text: `The ${type} ${i} says that nobody was near the old crane when the ferry left at night.`,
    type,
    metadata,
  }));

async function remember(who: Caller, memories: object[]): Promise<string[]> {
  const reply = await who.call('POST', '/v1/memory/bulk', { memories });
  assert.equal(reply.body.failed.length, 0, reply.text);
  return reply.body.created.map(({ id }: { id: string }) => id);
}

interface Found {
  id: string;
  score: number;
}

async function search(who: Caller, more: object = {}): Promise<Found[]> {
  const reply = await who.call('POST', '/v1/memory/search', { query, limit: 20, ...more });
  assert.equal(reply.status, 200, reply.text);
  return reply.body;
}

const idsOf = (rows: { id: string }[]) => rows.map(({ id }) => id).sort();

async function pages(who: Caller, limit: number): Promise<string[]> {
  const ids: string[] = [];
  for (let cursor = ''; ; ) {
    const page = await who.call('GET', `/v1/memory/?limit=${limit}${cursor}`);
    assert.equal(page.status, 200, page.text);
    ids.push(...page.body.map(({ id }: Found) => id));
    const next = page.headers['x-next-cursor'];
    if (!next) return ids.sort();
    cursor = `&cursor=${encodeURIComponent(String(next))}`;
  }
}

async function exported(who: Caller): Promise<string[]> {
  const { text } = await who.call('GET', '/v1/memory/export');
  return idsOf(
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line)),
  );
}

describe('searching where policies look at memories, among hundreds that are not shown', () => {
  let admin: Caller;
  let other: Caller;
  let somebody: Caller;
  const ids: Record<string, string[]> = {};
  const who: Record<string, Caller> = {};

  before(async () => {
    [admin, other] = [await newTenant(), await newTenant()];
    somebody = await newMember(admin, 'editor');
    for (const role of ['agent', 'user', 'reporter', 'keeper']) who[role] = await newMember(admin, role);
    await remember(somebody, crowd);
    ids.shared = await remember(somebody, far('plan', 4, { shared: true }));
    ids.report = await remember(somebody, far('report', 5));
    ids.agent = await remember(who.agent!, far('note', 6));
    ids.secret = await remember(who.agent!, far('secret', 3));
    ids.user = await remember(who.user!, far('note', 3));
    await remember(other, [
      ...far('plan', 2, { shared: true }),
      ...far('report', 2),
      ...far('note', 2),
      ...far('diary', 2),
    ]);
    for (const owner of [admin, other])
      for (const policy of [
        {
          role: 'agent',
          effect: 'deny',
          priority: 10,
          rule: { and: [is('resource', 'memory'), is('action', 'read'), is('memory_type', 'secret')] },
        },
        {
          role: 'user',
          rule: { and: [is('resource', 'memory'), is('action', 'read'), is('memory_metadata.shared', true)] },
        },
        {
          role: 'reporter',
          rule: { and: [is('resource', 'memory'), is('action', 'read'), is('memory_type', 'report')] },
        },
        {
          role: 'keeper',
          rule: { and: [is('resource', 'memory'), { in: [{ var: 'target.id' }, ids.report!.slice(0, 2)] }] },
        },
      ]) {
        const reply = await owner.call('POST', '/v1/policy/', policy);
        assert.equal(reply.status, 201, reply.text);
      }
    for (const one of [admin, other])
      await eventually('the vectors', async () => {
        const { body } = await one.call('GET', '/v1/memory/?limit=1000');
        return body.every((memory: { embedding_status: string }) => memory.embedding_status === 'ready');
      });
  });

  for (const mode of ['hybrid', 'text', 'vector']) {
    const cases: [what: string, role: string, seen: () => string[]][] = [
      ['a deny leaves the caller’s other memories', 'agent', () => ids.agent!],
      ['an allow adds to the caller’s own', 'user', () => [...ids.user!, ...ids.shared!]],
      ['a role that may read one type finds it', 'reporter', () => ids.report!],
      ['a rule about ids finds those', 'keeper', () => ids.report!.slice(0, 2)],
    ];
    for (const [what, role, seen] of cases)
      it(`${mode}: ${what}`, async () => {
        const all = await search(who[role]!, { mode });
        assert.deepEqual(idsOf(all), seen().toSorted());
        assert.deepEqual(await search(who[role]!, { mode, limit: 2 }), all.slice(0, 2));
        // What is shown is rounded.
        const middle = all[1]!.score - 0.0001;
        const above = await search(who[role]!, { mode, similarity_threshold: middle });
        assert.ok(above.length >= 2 && above.every(({ score }) => score >= middle));
        assert.deepEqual(await search(who[role]!, { mode, similarity_threshold: 1 }), []);
      });
  }

  it('keeps to the filters of a search, and to the tenant', async () => {
    const { agent, user, reporter } = who as Record<string, Caller>;
    assert.deepEqual(idsOf(await search(user!, { identity_id: somebody.id })), ids.shared!.toSorted());
    assert.deepEqual(idsOf(await search(user!, { type: 'note' })), ids.user!.toSorted());
    assert.deepEqual(await search(reporter!, { type: 'note' }), []);
    assert.deepEqual(await search(agent!, { identity_id: somebody.id }), []);
    assert.deepEqual(await search(agent!, { type: 'secret' }), []);
    const theirs = await newMember(other, 'reporter');
    assert.equal((await search(theirs)).length, 2);
  });

  it('shows the same in lists, page by page, and in an export', async () => {
    for (const [role, seen] of [
      ['agent', ids.agent!],
      ['user', [...ids.user!, ...ids.shared!]],
      ['reporter', ids.report!],
    ] as const) {
      assert.deepEqual(await pages(who[role]!, 2), seen.toSorted(), role);
      assert.deepEqual(await exported(who[role]!), seen.toSorted(), role);
    }
  });

  it('deletes no more than the caller may', async () => {
    const cleaner = await newMember(admin, 'cleaner');
    const own = await remember(admin, far('junk', 2, { batch: 'b' }));
    const kept = await remember(admin, far('gem', 2, { batch: 'b' }));
    const policy = { role: 'cleaner', rule: { and: [is('resource', 'memory'), is('memory_type', 'junk')] } };
    assert.equal((await admin.call('POST', '/v1/policy/', policy)).status, 201);
    const reply = await cleaner.call('POST', '/v1/memory/bulk-delete', { memory_ids: [...own, ...kept] });
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(idsOf(await search(admin, { metadata: { batch: 'b' } })), kept.toSorted());
    const erased = await cleaner.call('POST', '/v1/memory/erase', { metadata: { batch: 'b' } });
    // What was deleted goes as well.
    assert.equal(erased.body.counts?.memories, own.length, erased.text);
    assert.deepEqual(idsOf(await search(admin, { metadata: { batch: 'b' } })), kept.toSorted());
  });
});
