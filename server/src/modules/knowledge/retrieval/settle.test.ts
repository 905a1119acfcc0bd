import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { raw, sql } from '#platform/db/sql.ts';
import { eventually, newTenant, testServer, useTestServer } from '#test/harness.ts';
import { countedAnew, statisticsOf } from '#test/statistics.ts';
import { countDimensions, countOf, mergeCounts, packCounts, unpackCounts } from './counts.ts';
import {
  analyzeDocument,
  countTexts,
  encodeSparse,
  forgetTerms,
  prepareQuery,
  settleCounts,
} from './service.ts';

useTestServer();

const scope = 'corpus:tried';

/** A context of a tenant of its own, and what it has counted. */
async function newScope() {
  const { app } = await testServer();
  const ctx = systemCtx(app, (await newTenant()).tenant, 'test');
  const count = (texts: string[], sign: 1 | -1) =>
    ctx.db.batch(
      countTexts(
        ctx.tenant,
        scope,
        texts.map((text) => analyzeDocument(text)),
        sign,
      ),
    );
  const rows = async () => {
    const [terms, changes] = await ctx.db.batch([
      sql`select texts from term_counts where tenant_id = ${ctx.tenant} and scope = ${scope}`,
      sql`select texts from term_changes where tenant_id = ${ctx.tenant} and scope = ${scope}`,
    ] as const);
    return { terms: terms.rows.length, changes: changes.rows.length };
  };
  return { ctx, count, rows, statistics: () => statisticsOf(ctx.db, ctx.tenant, scope) };
}

/** Texts with many words of their own. */
const texts = (from: number, many: number) =>
  Array.from(
    { length: many },
    (_, i) => `common word${from + i} ${(from + i) * 7919} pear${(from + i) % 50}`,
  );

describe('statistics of a scope', () => {
  it('are the same before and after changes are put together', async () => {
    const { ctx, count, rows, statistics } = await newScope();
    const other = await newScope();
    await other.count(['common elsewhere'], 1);
    const there: string[] = [];
    for (let i = 0; i < 20; i++) {
      await count(texts(i * 3, 3), 1);
      there.push(...texts(i * 3, 3));
    }
    await count(there.splice(5, 2), -1);
    assert.deepEqual(await statistics(), countedAnew(there));
    assert.equal((await rows()).changes, 21);
    await settleCounts(ctx, scope);
    // Small enough to have no row of its own for any term.
    assert.deepEqual(await rows(), { terms: 0, changes: 1 });
    assert.deepEqual(await statistics(), countedAnew(there));
    assert.deepEqual(await other.statistics(), countedAnew(['common elsewhere']));
  });

  it('of many terms go to the term counts in steps, and from there when texts go', async () => {
    const { ctx, count, rows, statistics } = await newScope();
    const there = texts(0, 3_200);
    for (let i = 0; i < 16; i++) await count(there.slice(i * 200, i * 200 + 200), 1);
    await settleCounts(ctx, scope);
    const { terms } = countedAnew(there);
    assert.ok(terms.size > 6_000);
    assert.deepEqual(await rows(), { terms: terms.size, changes: 0 });
    assert.deepEqual(await statistics(), countedAnew(there));
    await count(there.splice(100, 1_500), -1);
    await ctx.db.transaction((tx) => forgetTerms(tx, ctx.tenant, scope));
    assert.deepEqual(await statistics(), countedAnew(there));
    await count(there, -1);
    await ctx.db.transaction((tx) => forgetTerms(tx, ctx.tenant, scope));
    assert.deepEqual(await rows(), { terms: 0, changes: 0 });
    assert.deepEqual(await statistics(), countedAnew([]));
  });

  it('are what queries weigh words by, wherever they are', async () => {
    const { ctx, count } = await newScope();
    const seen = async () => {
      const { stats, vectors } = await prepareQuery(ctx, scope, 'common pear7');
      return [
        stats.documents,
        ...[...vectors.words.dimensions].map((one) => stats.df('words', one)).sort((a, b) => a - b),
      ];
    };
    for (let i = 0; i < 15; i++) await count(texts(i * 100, 100), 1);
    const before = await seen();
    assert.equal(before[0], 1_500);
    assert.equal(before.at(-1), 1_500);
    await count(texts(1_500, 100), 1);
    await settleCounts(ctx, scope);
    await count(texts(1_600, 100), 1);
    // In a large scope what was read is used for a moment.
    await new Promise((done) => setTimeout(done, 2_100));
    const after = await seen();
    assert.deepEqual([after[0], after.at(-1)], [1_700, 1_700]);
    assert.ok(after.includes(34), `${after}`);
  });

  it('are counted once, however many count and settle at once', async () => {
    const { ctx, count, rows, statistics } = await newScope();
    const there: string[] = [];
    for (let round = 0; round < 4; round++) {
      const now = texts(round * 400, 400);
      there.push(...now);
      await Promise.all([
        ...Array.from({ length: 20 }, (_, i) => count(now.slice(i * 20, i * 20 + 20), 1)),
        ...Array.from({ length: 4 }, () => settleCounts(ctx, scope)),
      ]);
    }
    await settleCounts(ctx, scope);
    assert.ok((await rows()).terms > 0);
    assert.deepEqual(await statistics(), countedAnew(there));
  });
});

describe('texts that were read otherwise when they were stored', () => {
  it('leave statistics as they came', async () => {
    const [mine, other] = [await newTenant('admin'), await newTenant('admin')];
    const { app } = await testServer();
    for (const who of [mine, other]) {
      const ctx = systemCtx(app, who.tenant, 'test');
      const memories = ['pears are ripe', 'plums are not'].map((text) => ({ text, type: 'note' }));
      const { body } = await who.call('POST', '/v1/memory/bulk', { memories });
      await who.call('POST', '/v1/corpora', { id: 'c1', name: 'Fruit' });
      await who.call('POST', '/v1/documents/text', {
        corpus_id: 'c1',
        document_id: 'd',
        text: 'pears are ripe',
      });
      await eventually('the texts', async () => {
        const document = (await who.call('GET', '/v1/documents/d')).body.data;
        const list: { embedding_status: string }[] = (await who.call('GET', '/v1/memory/')).body;
        return (
          document.status === 'succeeded' &&
          list.every(({ embedding_status }) => embedding_status === 'ready')
        );
      });
      const [first, second]: string[] = body.created.map(({ id }: { id: string }) => id);
      // As if another analysis had known no more than this of all of them.
      const once = analyzeDocument('fruit');
      for (const [scope, table, many] of [
        ['memory', raw('memories'), 2],
        ['corpus:c1', raw('chunks'), 1],
      ] as const)
        await ctx.db.batch([
          sql`delete from term_changes where tenant_id = ${who.tenant} and scope = ${scope}`,
          sql`delete from term_counts where tenant_id = ${who.tenant} and scope = ${scope}`,
          sql`delete from text_counts where tenant_id = ${who.tenant} and scope = ${scope}`,
          ...countTexts(who.tenant, scope, Array<typeof once>(many).fill(once), 1),
          sql`
            update ${table} set words = ${encodeSparse(once.words)}, trigrams = ${encodeSparse(once.trigrams)}
            where tenant_id = ${who.tenant}`,
        ]);
      if (who === other) continue;
      await who.call('PUT', `/v1/memory/${first}`, { text: 'pears are gone' });
      await eventually(
        'the change',
        async () => (await who.call('GET', `/v1/memory/${first}`)).body.embedding_status === 'ready',
      );
      await who.call('DELETE', `/v1/memory/${second}?hard_delete=true`);
      const after = await statisticsOf(ctx.db, who.tenant, 'memory');
      assert.deepEqual([after.texts, Math.min(...after.terms.values())], [1, 1]);
      assert.ok(!after.terms.has(`w${once.words.dimensions[0]}`));
      assert.equal((await who.call('DELETE', '/v1/documents/d')).status, 204);
      assert.deepEqual(await statisticsOf(ctx.db, who.tenant, 'corpus:c1'), countedAnew([]));
    }
    const theirs = await statisticsOf(systemCtx(app, other.tenant, 'test').db, other.tenant, 'memory');
    assert.equal(theirs.texts, 2);
  });
});

describe('counts', () => {
  it('add up, and are stored as they are', () => {
    const vectors = [[1, 5, 9], [5], [5, 268_435_455]].map((some) => ({
      dimensions: Uint32Array.from(some),
    }));
    const counts = countDimensions(vectors, 1);
    assert.deepEqual([...counts.dimensions], [1, 5, 9, 268_435_455]);
    assert.deepEqual([...counts.texts], [1, 3, 1, 1]);
    assert.deepEqual(unpackCounts(packCounts(counts)), counts);
    const left = mergeCounts([counts, countDimensions(vectors.slice(1), -1)]);
    assert.deepEqual([...left.dimensions], [1, 5, 9]);
    assert.deepEqual(
      [1, 5, 9, 2, 268_435_455].map((dimension) => countOf(left, dimension)),
      [1, 1, 1, 0, 0],
    );
    assert.deepEqual(countDimensions([], 1), mergeCounts([]));
  });
});
