import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { sql } from '#platform/db/sql.ts';
import { type Caller, newTenant, testServer } from '#test/harness.ts';

describe('short reads of many tenants share connections', () => {
  let callers: Caller[];
  before(async () => {
    callers = await Promise.all(Array.from({ length: 6 }, () => newTenant('admin')));
    for (const caller of callers)
      await caller.call('POST', '/v1/memory/', { text: `of ${caller.tenant}`, type: 'note' });
  });

  it('each sees its own rows, whoever is asked for on the same trip', async () => {
    const { app } = await testServer();
    const asked = Array.from({ length: 300 }, (_, i) => callers[(i * 7) % callers.length]!);
    const answers = await Promise.all(
      asked.map(({ tenant }) =>
        // Without a condition: what keeps tenants apart here is row-level security alone.
        app.database
          .glance(tenant)
          .rows<{ tenant_id: string; text: string }>(
            sql`select tenant_id, text from memories where tenant_id is not null`,
          ),
      ),
    );
    for (const [i, rows] of answers.entries())
      assert.deepEqual(rows, [{ tenant_id: asked[i]!.tenant, text: `of ${asked[i]!.tenant}` }]);
  });

  it('one that fails fails alone, and leaves its tenant to nobody', async () => {
    const { app } = await testServer();
    const asked = Array.from({ length: 90 }, (_, i) => callers[i % callers.length]!);
    const answers = await Promise.allSettled(
      asked.map(({ tenant }, i) => {
        const db = app.database.glance(tenant);
        return i % 3 === 0
          ? db.rows(sql`select 1 / ${0}::int as failure`)
          : db.rows<{ text: string }>(sql`select text from memories where tenant_id is not null`);
      }),
    );
    for (const [i, answer] of answers.entries()) {
      if (i % 3 === 0) assert.equal(answer.status === 'rejected' && answer.reason.code, '22012');
      else assert.deepEqual(answer, { status: 'fulfilled', value: [{ text: `of ${asked[i]!.tenant}` }] });
    }
    const [operator] = await app.database.operator.rows<{ tenant: string | null }>(
      sql`select nullif(current_setting('app.tenant_id', true), '') as tenant`,
    );
    assert.equal(operator!.tenant, null);
  });
});
