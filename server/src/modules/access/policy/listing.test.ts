import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type Ctx, systemCtx } from '#platform/context.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import { type Caller, newMember, newTenant, testServer, useTestServer } from '#test/harness.ts';
import { type Listing, visiblePage } from './service.ts';

useTestServer();

/** More rows than are decided for one page. */
const stored = Array.from({ length: 40_000 }, (_, i) => ({ id: `row-${String(i).padStart(5, '0')}` }));
type Row = (typeof stored)[number];

describe('a page of rows that have to be decided one by one', () => {
  let read: number;
  let opened: string[];
  const listing: Listing<Row> = {
    rows: async ({ after, skip, limit }: PageFrom) => {
      const start = after ? stored.findIndex(({ id }) => id === after[0]) + 1 : 0;
      const rows = stored.slice(start + skip, start + skip + limit + 1);
      read += rows.length;
      return rows;
    },
    owned: false,
    target: ({ id }) => ({ id }),
    open: async (rows) => {
      opened.push(...rows.map(({ id }) => id));
      return rows;
    },
    position: ({ id }) => [id],
    size: 10,
  };
  let admin: Caller;
  let other: Caller;
  const asked = (id: string) => ({ '==': [{ substr: [{ var: 'target.id' }, -4] }, id.slice(-4)] });

  /** Somebody who may see the rows whose numbers end so. */
  async function seeing(owner: Caller, ends: string[]): Promise<Ctx> {
    const role = `sees-${ends.join('-') || 'nothing'}`;
    const rule = { and: [{ '==': [{ var: 'resource' }, 'memory'] }, { or: [false, ...ends.map(asked)] }] };
    const reply = await owner.call('POST', '/v1/policy/', { role, rule });
    assert.equal(reply.status, 201, reply.text);
    return ctxOf(await newMember(owner, role), role);
  }
  async function ctxOf(who: Caller, role: string): Promise<Ctx> {
    const { app } = await testServer();
    const actor = {
      type: 'identity' as const,
      identity_id: who.id,
      external_id: who.id,
      role,
      claims: {},
      credential: who.id,
    };
    return { ...systemCtx(app, who.tenant, uuidv7()), actor };
  }
  const ask = (ctx: Ctx, query: { cursor?: string; skip?: number; limit?: number }): Promise<Answer> => {
    read = 0;
    return visiblePage(ctx, 'memory:list', {}, query, listing);
  };
  async function pagesOf(ctx: Ctx, query: { skip?: number; limit?: number }): Promise<string[][]> {
    const pages: string[][] = [];
    let cursor: string | undefined;
    do {
      // Only the first page is told what to leave out: a cursor says itself what of it is left.
      const { body, headers } = await ask(
        ctx,
        cursor === undefined ? query : { limit: query.limit ?? 10, cursor },
      );
      assert.ok(read <= 11_000, `${read} rows were read for one page`);
      pages.push((body as Row[]).map(({ id }) => id));
      cursor = headers['x-next-cursor'];
    } while (cursor !== undefined);
    return pages;
  }
  const ids = (...ends: string[]) =>
    stored.map(({ id }) => id).filter((id) => ends.some((end) => id.endsWith(end)));

  before(async () => {
    [admin, other] = [await newTenant(), await newTenant()];
    opened = [];
  });

  it('ends after so many were decided, and its cursor leads on from there', async () => {
    const ctx = await seeing(admin, ['9999', '0003']);
    const expected = ids('9999', '0003');
    assert.equal(expected.length, 8);
    for (const limit of [1, 3, 10]) {
      const pages = await pagesOf(ctx, { limit });
      assert.deepEqual(pages.flat(), expected);
      assert.ok(pages.every((page) => page.length <= limit));
      assert.ok(pages.length >= 4, `${pages.length} pages`);
    }
    for (const skip of [1, 5, 8])
      assert.deepEqual((await pagesOf(ctx, { skip })).flat(), expected.slice(skip));
    // What is hidden is not opened either.
    assert.ok(opened.every((id) => expected.includes(id)));
    const nothing = await pagesOf(await seeing(admin, []), {});
    assert.deepEqual(nothing.flat(), []);
  });

  it('does not tell what it left out, nor take the cursor of another', async () => {
    const [ctx, theirs] = [await seeing(admin, ['none']), await seeing(other, ['none'])];
    const { body, headers } = await ask(ctx, { limit: 10 });
    assert.deepEqual(body, []);
    const cursor = String(headers['x-next-cursor']);
    assert.doesNotMatch(Buffer.from(cursor, 'base64url').toString('latin1'), /row-/);
    // The same place is never written alike, so two cursors can not be compared.
    assert.notEqual((await ask(ctx, { limit: 10 })).headers['x-next-cursor'], cursor);
    await assert.rejects(ask(theirs, { cursor }), { code: 'INVALID_CURSOR' });
    await assert.rejects(ask(ctx, { cursor: `${cursor.slice(0, -2)}AA` }), { code: 'INVALID_CURSOR' });
  });
});
