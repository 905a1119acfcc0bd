import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type Caller, eventually, newMember, newTenant, useTestServer } from '#test/harness.ts';
import {
  BUILTIN,
  compilePolicies,
  decide,
  type PolicyTarget,
  policyContext,
} from '../../access/policy/service.ts';

useTestServer();

const v = (name: string) => ({ var: name });
const query = 'crane in the harbour of kiel';
const towns = ['bremen', 'kiel', 'rostock', 'emden', 'harbour'];

interface Stored {
  id: string;
  identity_id: string;
  type: string;
  metadata: Record<string, unknown>;
}

/** Follows the cursors of a list; answers what its pages held. */
async function pagesOf(who: Caller, path: string, limit: number): Promise<string[][]> {
  const pages: string[][] = [];
  for (let cursor = ''; ; ) {
    const page = await who.call('GET', `${path}limit=${limit}${cursor}`);
    assert.equal(page.status, 200, page.text);
    pages.push(page.body.map(({ id }: Stored) => id));
    const next = page.headers['x-next-cursor'];
    if (!next) return pages;
    cursor = `&cursor=${encodeURIComponent(String(next))}`;
  }
}

describe('what a policy about attributes of rows lets through', () => {
  let admin: Caller;
  let other: Caller;
  let stored: Stored[];
  let roles = 0;

  /** Somebody of a new role in both tenants, and which memories deciding each one leaves it. */
  async function withPolicies(policies: { rule: unknown; effect?: 'allow' | 'deny'; priority?: number }[]) {
    const role = `role-${++roles}`;
    for (const owner of [admin, other])
      for (const policy of policies) {
        const rule = { and: [{ '==': [v('resource'), 'memory'] }, policy.rule] };
        const reply = await owner.call('POST', '/v1/policy/', { ...policy, role, rule });
        assert.equal(reply.status, 201, reply.text);
      }
    const who = await newMember(admin, role);
    const set = compilePolicies(
      policies.map((policy, i) => ({
        effect: 'allow',
        priority: 0,
        ...policy,
        id: `p${i}`,
        role,
        is_active: true,
      })),
    );
    const seen = (target: PolicyTarget) =>
      decide(
        set,
        BUILTIN,
        policyContext({
          role,
          action: 'list',
          resource: 'memory',
          tenant_id: admin.tenant,
          identity: { id: who.id },
          target,
        }),
      ).allowed;
    return {
      who,
      theirs: await newMember(other, role),
      ids: stored
        .filter(({ id, identity_id, type, metadata }) => seen({ id, owner: identity_id, type, metadata }))
        .map(({ id }) => id),
    };
  }

  before(async () => {
    [admin, other] = [await newTenant(), await newTenant()];
    const members = [admin, await newMember(admin, 'editor'), await newMember(admin, 'user')];
    for (const [m, member] of [...members, other].entries()) {
      const memories = Array.from({ length: 160 }, (_, i) => ({
        text: `crane ${i} of ${m} in the ${towns[(i * 7 + m) % 5]} of ${towns[(i + m) % 5]}${i % 3 ? ' at dawn' : ''}`,
        type: ['note', 'diary', 'report'][i % 3],
        metadata: {
          n: i + 160 * m,
          at: new Date(Date.UTC(2026, 0, 1 + i)).toISOString(),
          tags: [`t${i % 4}`, `m${m}`],
          ...(i % 10 === 0 ? { n: `${i}` } : {}),
          ...(i % 2 ? { shared: i % 4 === 1 } : {}),
          client: i % 11 === 0 ? ['c1'] : `c${i % 3}`,
        },
      }));
      const reply = await member.call('POST', '/v1/memory/bulk', { memories });
      assert.equal(reply.body.failed.length, 0, reply.text);
    }
    for (const owner of [admin, other])
      await eventually('the vectors', async () => {
        const { body } = await owner.call('GET', '/v1/memory/?limit=1000');
        return body.every((memory: { embedding_status: string }) => memory.embedding_status === 'ready');
      });
    stored = (await admin.call('GET', '/v1/memory/?limit=1000')).body;
    assert.equal(stored.length, 480);
  });

  const id = (i: number) => stored[i * 40]!.id;
  const cases: Record<string, () => Parameters<typeof withPolicies>[0]> = {
    'some ids': () => [{ rule: { in: [v('target.id'), [id(1), id(5), id(9)]] } }],
    'all but some ids': () => [
      { rule: true },
      { rule: { '==': [v('target.id'), id(2)] }, effect: 'deny', priority: 1 },
    ],
    'a number in the metadata': () => [{ rule: { '<': [100, v('memory_metadata.n'), 300] } }],
    'a date, and not a flag': () => [
      {
        rule: { and: [{ '>=': [v('memory_metadata.at'), '2026-03'] }, { '!': v('memory_metadata.shared') }] },
      },
    ],
    'a tag of a list': () => [{ rule: { in: ['t2', v('memory_metadata.tags')] } }],
    'a client, as a text or in a list': () => [{ rule: { '==': [v('memory_metadata.client'), 'c1'] } }],
    'what is computed of the id': () => [
      { rule: { in: [{ substr: [v('target.id'), -1] }, ['1', '7', 'c']] } },
      { rule: { '==': [v('memory_type'), 'diary'] }, effect: 'deny', priority: 3 },
    ],
    'what is computed of a type': () => [{ rule: { '==': [{ cat: ['x', v('memory_type')] }, 'xnote'] } }],
    'nothing, by what is computed': () => [{ rule: { '==': [{ substr: [v('target.id'), -1] }, 'none'] } }],
  };
  for (const [what, policies] of Object.entries(cases))
    it(`is found, listed and exported as when each memory is decided: ${what}`, async () => {
      const { who, theirs, ids } = await withPolicies(policies());
      assert.deepEqual((await pagesOf(who, '/v1/memory/?', 7)).flat(), ids);
      assert.deepEqual((await pagesOf(who, '/v1/memory/?', 480)).flat(), ids);
      const skipped = await who.call('GET', '/v1/memory/?limit=5&skip=3');
      assert.deepEqual(
        skipped.body.map(({ id }: Stored) => id),
        ids.slice(3, 8),
      );
      const exported = await who.call('GET', '/v1/memory/export');
      const lines = exported.text.split('\n').filter(Boolean);
      assert.deepEqual(
        lines.map((line) => JSON.parse(line).id),
        ids.toReversed(),
      );
      // The same said so that no statement can ask for it.
      const rule = { in: [{ cat: [v('target.id')] }, ids] };
      const oneByOne = (await withPolicies([{ rule }])).who;
      for (const mode of ['hybrid', 'text', 'vector']) {
        const search = async (caller: Caller) => {
          const reply = await caller.call('POST', '/v1/memory/search', { query, mode, limit: 50 });
          assert.equal(reply.status, 200, reply.text);
          return reply.body.map((memory: Stored & { score: number }) => [memory.id, memory.score]);
        };
        const found = await search(who);
        assert.equal(found.length, Math.min(50, ids.length));
        assert.ok(found.every(([one]: [string]) => ids.includes(one)));
        assert.deepEqual(found, await search(oneByOne));
      }
      // Nothing of it is anything to the same role elsewhere.
      const elsewhere = (await pagesOf(theirs, '/v1/memory/?', 100)).flat();
      assert.ok(elsewhere.every((one) => !stored.some((memory) => memory.id === one)));
    });
});
