import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type Caller, newTenant, testServer, useTestServer } from '#test/harness.ts';

// Memories that are stored at the same moment share transactions, whatever their tenants.

useTestServer();

describe('memories of several tenants at once', () => {
  const tenants = 4;
  const each = 30;
  let callers: Caller[];
  before(async () => {
    callers = await Promise.all(Array.from({ length: tenants }, () => newTenant()));
  });

  const remember = (who: Caller, text: string) => who.call('POST', '/v1/memory/', { text, type: 'note' });
  /** Texts of all callers, in turn, all on their way at once. */
  const rememberAll = (textOf: (caller: number, i: number) => string) =>
    Promise.all(
      Array.from({ length: tenants * each }, async (_, i) => {
        const [caller, text] = [i % tenants, textOf(i % tenants, Math.floor(i / tenants))];
        return { caller, text, reply: await remember(callers[caller]!, text) };
      }),
    );
  const textsOf = async (who: Caller): Promise<string[]> => {
    const { body } = await who.call('GET', '/v1/memory/?limit=100');
    return body.map(({ text }: { text: string }) => text).sort();
  };

  it('are each their own tenant’s, with a fact each', async () => {
    const made = await rememberAll((caller, i) => `tenant ${caller} remembers ${i}`);
    for (const { reply, text } of made) {
      assert.equal(reply.status, 201, reply.text);
      assert.equal(reply.body.text, text);
    }
    for (const [i, who] of callers.entries()) {
      const own = made.filter(({ caller }) => caller === i);
      assert.deepEqual(await textsOf(who), own.map(({ text }) => text).sort());
      const { rows } = await (await testServer()).app.database.operatorPool.query(
        `select resource_id from facts where tenant_id = $1 and type = 'memory.created'`,
        [who.tenant],
      );
      assert.deepEqual(
        rows.map(({ resource_id }) => resource_id).sort(),
        own.map(({ reply }) => reply.body.id).sort(),
      );
    }
  });

  it('fail alone', async () => {
    const { operatorPool } = (await testServer()).app.database;
    await operatorPool.query(
      `alter table memories add constraint refused check (text not like 'refused %') not valid`,
    );
    try {
      const before = await Promise.all(callers.map(textsOf));
      const made = await rememberAll((caller, i) =>
        caller === 1 && i % 10 === 3 ? `refused ${i}` : `${caller} again ${i}`,
      );
      for (const { text, reply } of made)
        assert.equal(reply.status, text.startsWith('refused') ? 500 : 201, reply.text);
      for (const [i, who] of callers.entries()) {
        const own = made.filter(({ caller, reply }) => caller === i && reply.status === 201);
        assert.deepEqual(await textsOf(who), [...before[i]!, ...own.map(({ text }) => text)].sort());
      }
    } finally {
      await operatorPool.query('alter table memories drop constraint refused');
    }
  });
});
