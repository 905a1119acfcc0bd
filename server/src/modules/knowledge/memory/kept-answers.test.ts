import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import {
  type Caller,
  eventually,
  newKey,
  newMember,
  newTenant,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { removeExpired } from './jobs.ts';
import { emptyTrash } from './trash.ts';

// What is kept to answer a repeated request, once the memory it shows is gone: for every key of the tenant, and for no other.

useTestServer();

describe('answers that show a memory', () => {
  let admin: Caller;
  let stranger: Caller;
  before(async () => {
    [admin, stranger] = [await newTenant(), await newTenant()];
  });

  interface Asked {
    repeat: () => ReturnType<Caller['call']>;
    id: string;
  }

  const asking = async (who: Caller, method: string, path: string, body: object): Promise<Asked> => {
    const headers = { 'idempotency-key': 'the same of all' };
    const repeat = () => who.call(method, path, body, headers);
    const { status, body: answer, text } = await repeat();
    assert.ok(status < 300, text);
    assert.equal((await repeat()).headers['idempotency-replayed'], 'true');
    return { repeat, id: answer.id ?? answer.created[0].id };
  };

  const told = async (asked: Asked[]) =>
    Promise.all(asked.map(async ({ repeat }) => (await repeat()).body.error?.code ?? 'told'));

  /** Who removes it, whose it is, and how. */
  interface Way {
    is: string;
    remove: (id: string, owner: Caller) => Promise<unknown>;
  }
  const succeeds = async (reply: ReturnType<Caller['call']>) => {
    const { status, text } = await reply;
    assert.ok(status < 300, text);
  };
  const inThePast = (id: string, column: 'deleted_at' | 'expires_at') => {
    const then = new Date(Date.now() - 31 * 86_400_000);
    return column === 'deleted_at'
      ? sql`update memories set deleted_at = ${then} where tenant_id = ${admin.tenant} and id = ${id}`
      : sql`update memories set expires_at = ${then} where tenant_id = ${admin.tenant} and id = ${id}`;
  };
  const ways: Way[] = [
    {
      is: 'deleted for good',
      remove: (id) => succeeds(admin.call('DELETE', `/v1/memory/${id}?hard_delete=true`)),
    },
    {
      is: 'deleted for good with others',
      remove: (id) =>
        succeeds(admin.call('POST', '/v1/memory/bulk-delete', { memory_ids: [id], hard_delete: true })),
    },
    { is: 'erased', remove: (id) => succeeds(admin.call('POST', '/v1/memory/erase', { memory_ids: [id] })) },
    {
      is: 'removed with whose it is',
      remove: async (id, owner) => {
        await succeeds(admin.call('DELETE', `/v1/identity/${owner.id}?hard_delete=true`));
        await eventually('the memories to be gone', async () => {
          const { app } = await testServer();
          const left = await app.database
            .tenant(admin.tenant)
            .rows(sql`select id from memories where tenant_id = ${admin.tenant} and id = ${id}`);
          return left.length === 0;
        });
      },
    },
    {
      is: 'swept from the trash',
      remove: async (id) => {
        const { app } = await testServer();
        await succeeds(admin.call('DELETE', `/v1/memory/${id}`));
        await app.database.operator.run(inThePast(id, 'deleted_at'));
        await emptyTrash(app);
      },
    },
    {
      is: 'expired',
      remove: async (id) => {
        const { app } = await testServer();
        await app.database.operator.run(inThePast(id, 'expires_at'));
        await removeExpired(app);
      },
    },
  ];
  for (const { is, remove } of ways)
    it(`are forgotten when it is ${is}`, async () => {
      const owner = await newMember(admin, 'user');
      const text = `The lamp that is ${is}`;
      const stored = await asking(owner, 'POST', '/v1/memory/', { text, type: 'note' });
      const path = `/v1/memory/${stored.id}`;
      const [one, two] = [await newKey(admin), await newKey(admin)];
      const changed = [
        await asking(one, 'PUT', path, { metadata: { seen: 1 } }),
        await asking(two, 'PUT', path, { metadata: { seen: 2 } }),
      ];
      const others = [
        await asking(await newKey(one), 'POST', '/v1/memory/', { text: 'Another lamp', type: 'note' }),
        await asking(await newKey(stranger), 'POST', '/v1/memory/', { text, type: 'note' }),
      ];
      await remove(stored.id, owner);
      assert.deepEqual(await told(changed), ['IDEMPOTENCY_ANSWER_ERASED', 'IDEMPOTENCY_ANSWER_ERASED']);
      const his = (await told([stored]))[0];
      assert.equal(
        his,
        is === 'removed with whose it is' ? 'AUTH_UNAUTHORIZED' : 'IDEMPOTENCY_ANSWER_ERASED',
      );
      assert.deepEqual(await told(others), ['told', 'told']);
    });

  it('stay while it can be restored', async () => {
    const key = await newKey(admin);
    const stored = await asking(key, 'POST', '/v1/memory/', { text: 'The lamp comes back', type: 'note' });
    await succeeds(admin.call('DELETE', `/v1/memory/${stored.id}`));
    assert.deepEqual(await told([stored]), ['told']);
    await succeeds(admin.call('POST', `/v1/memory/${stored.id}/restore`));
  });
});
