import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { systemCtx } from '#platform/context.ts';
import { listSegmentTables, makeSegmentTable, segmentTableName } from '#platform/db/segment-tables.ts';
import { identifier, sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { type EmbeddingServer, meaningOf, startEmbeddingServer } from '#test/embedding-server.ts';
import {
  type Caller,
  emptyDatabase,
  engine,
  eventually,
  newMember,
  newTenant,
  startServer,
} from '#test/harness.ts';
import type { Running } from '../../../app.ts';
import { memoryVectors } from '../memory/service.ts';
import { analyzeDocument, encodeSparse } from '../retrieval/service.ts';
import { repairTenant, sweepSegments } from './repair.ts';
import { toMerge } from './tend.ts';

const dimensions = 32;
const model = `meaning-${dimensions}`;
let embeddings: EmbeddingServer;
let server: Running;

before(async () => {
  if (engine === 'postgres') await emptyDatabase(process.env.DATABASE_URL!);
  embeddings = await startEmbeddingServer({ dimensions });
  server = await startServer({
    EMBEDDING_BASE_URL: embeddings.url,
    EMBEDDING_MODEL: 'meaning',
    EMBEDDING_DIMENSIONS: String(dimensions),
    VECTOR_INDEX_FROM: '60',
    VECTOR_TAIL_ROWS: '40',
    VECTOR_SEGMENTS_MAX: '40',
  });
});
after(async () => {
  await server.stop();
  await embeddings.close();
});

interface Space {
  vectors: number;
  indexed: number;
  scanned: number;
  segments: number;
}

const spaceOf = async (who: Caller): Promise<Space & { waiting: number }> => {
  const { body } = await who.call('GET', '/v1/ops/embeddings');
  const memories = body.data.collections.find(({ scope }: { scope: string }) => scope === 'memory');
  const none = { vectors: 0, indexed: 0, scanned: 0, segments: 0 };
  return { ...none, ...memories?.models[0], waiting: memories?.waiting ?? 0 };
};

const words = ['apple', 'river', 'cloud', 'stone', 'tiger', 'piano', 'lemon', 'rocket'];
const textOf = (i: number) => `${words[i % 8]} ${words[(i >> 3) % 8]} ${words[(i >> 6) % 8]} number ${i}`;

interface Made {
  id: string;
  text: string;
}

async function remember(who: Caller, from: number, count: number, more: object = {}): Promise<Made[]> {
  const memories = Array.from({ length: count }, (_, i) => ({
    text: textOf(from + i),
    type: 'note',
    ...more,
  }));
  const { body } = await who.call('POST', '/v1/memory/bulk', { memories });
  return body.created.map(({ id }: { id: string }, i: number) => ({ id, text: memories[i]!.text }));
}

const sealed = (who: Caller, vectors: number, least = 1) =>
  eventually(
    `${vectors} vectors in ${least} segments or more`,
    async () => {
      const space = await spaceOf(who);
      return (
        space.waiting === 0 &&
        space.vectors === vectors &&
        space.segments >= least &&
        space.scanned < 40 &&
        space
      );
    },
    60_000,
  );

const near = async (who: Caller, query: string, more: object = {}): Promise<string[]> => {
  const { body } = await who.call('POST', '/v1/memory/search', { query, mode: 'vector', limit: 10, ...more });
  return body.map(({ text }: { text: string }) => text);
};

/** What an exact search would say. */
function nearest(made: Made[], query: string, limit = 10): string[] {
  const target = meaningOf(query, dimensions, 'meaning');
  const cosine = (text: string) => {
    const vector = meaningOf(text, dimensions, 'meaning');
    const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
    return dot(vector, target) / Math.sqrt(dot(vector, vector) * dot(target, target));
  };
  return (
    made
      .map(({ text }) => ({ text, score: cosine(text) }))
      // What points the other way has a score of 0 and is no answer.
      .filter(({ score }) => score > 0)
      .sort((a, b) => b.score - a.score)
      .slice(0, limit)
      .map(({ text }) => text)
  );
}

const queries = ['apple river', 'tiger piano lemon', 'rocket', 'cloud stone number 17'];

async function assertFindsNearest(who: Caller, made: Made[]): Promise<void> {
  for (const query of queries) {
    const found = await near(who, query);
    const wanted = nearest(made, query);
    assert.equal(found.length, wanted.length);
    const recall = wanted.filter((text) => found.includes(text)).length / wanted.length;
    assert.ok(recall >= 0.9, `recall ${recall} for ${query}`);
  }
}

const ctxOf = (who: Caller) => systemCtx(server.app, who.tenant, uuidv7());

const segmentsOf = async (who: Caller) =>
  (
    await server.app.database.operator.rows<{ id: string; state: string; rows: number }>(
      sql`select id, state, rows from vector_segments where tenant_id = ${who.tenant} and state = 'live' order by first`,
    )
  ).map(({ id, rows }) => ({ id, rows, table: segmentTableName(id) }));

const copiesOf = async (who: Caller, ids: string[]): Promise<number> => {
  let copies = 0;
  for (const { table } of await segmentsOf(who)) {
    const found = await server.app.database.operator.one<{ count: number }>(
      sql`select count(*)::int as count from ${identifier(table)} where tenant_id = ${who.tenant} and id = any(${ids}::uuid[])`,
    );
    copies += found!.count;
  }
  return copies;
};

describe('a tenant that grows', () => {
  let ann: Caller;
  let made: Made[] = [];
  before(async () => {
    ann = await newTenant('admin', server);
  });

  it('is scanned exactly while it is small', async () => {
    made = await remember(ann, 0, 50);
    await eventually('its vectors', async () => (await spaceOf(ann)).vectors === 50);
    await assertFindsNearest(ann, made);
    assert.equal((await spaceOf(ann)).segments, 0);
  });

  it('gets segments when it is large, and finds the same', async () => {
    made.push(...(await remember(ann, 50, 100)));
    const space = await sealed(ann, 150);
    assert.equal(space.indexed + space.scanned, 150);
    await assertFindsNearest(ann, made);
  });

  it('finds what is new in the tail beside what is sealed', async () => {
    const [fresh] = await remember(ann, 1_000, 1);
    made.push(fresh!);
    await eventually('its vector', async () => (await spaceOf(ann)).vectors === 151);
    assert.equal((await near(ann, fresh!.text))[0], fresh!.text);
  });

  it('has never many segments: neighbours are merged', async () => {
    for (let i = 0; i < 6; i++) {
      made.push(...(await remember(ann, 2_000 + 45 * i, 45)));
      await sealed(ann, made.length);
    }
    await eventually('few segments', async () => (await spaceOf(ann)).segments <= 4, 60_000);
    const segments = await segmentsOf(ann);
    const space = await spaceOf(ann);
    assert.equal(
      segments.reduce((sum, { rows }) => sum + rows, 0),
      space.indexed,
    );
    await assertFindsNearest(ann, made);
  });

  it('answers with as many rows as asked for whatever a condition leaves', async () => {
    const rare = await remember(ann, 5_000, 12, { type: 'rare', metadata: { colour: 'blue' } });
    made.push(...rare);
    await eventually('their vectors', async () => (await spaceOf(ann)).vectors === made.length);
    for (const query of queries) {
      assert.deepEqual(new Set(await near(ann, query, { type: 'rare' })), new Set(nearest(rare, query)));
      const blue = await near(ann, query, { metadata: { colour: 'blue' }, limit: 12 });
      assert.equal(blue.length, nearest(rare, query, 12).length);
      assert.equal((await near(ann, query, { limit: 100 })).length, nearest(made, query, 100).length);
    }
    const other = await newMember(ann, 'user', server);
    assert.deepEqual(await near(other, 'apple river'), []);
  });

  it('forgets what is deleted, copies included', async () => {
    const gone = made.splice(10, 30);
    assert.ok(
      (await copiesOf(
        ann,
        gone.map(({ id }) => id),
      )) > 0,
    );
    const reply = await ann.call('POST', '/v1/memory/bulk-delete', {
      memory_ids: gone.map(({ id }) => id),
      hard_delete: true,
    });
    assert.equal(reply.status, 200, reply.text);
    assert.equal(
      await copiesOf(
        ann,
        gone.map(({ id }) => id),
      ),
      0,
    );
    for (const { text } of gone.slice(0, 3)) assert.ok(!(await near(ann, text)).includes(text));
    await assertFindsNearest(ann, made);
  });

  it('finds a changed text by its new meaning alone', async () => {
    const [changed] = made;
    await ann.call('PUT', `/v1/memory/${changed!.id}`, { text: 'zebra xylophone quartz' });
    await eventually('its new vector', async () => {
      const { waiting, vectors } = await spaceOf(ann);
      return waiting === 0 && vectors === made.length;
    });
    assert.equal((await near(ann, 'zebra xylophone quartz'))[0], 'zebra xylophone quartz');
    assert.ok(!(await near(ann, changed!.text)).includes('zebra xylophone quartz'));
    made[0] = { ...changed!, text: 'zebra xylophone quartz' };
  });

  it('does not show a memory that has expired', async () => {
    const brief = await remember(ann, 7_000, 20);
    await eventually('their vectors', async () => (await near(ann, brief[0]!.text)).includes(brief[0]!.text));
    const soon = new Date(Date.now() + 5_000).toISOString();
    for (const { id } of brief)
      assert.equal((await ann.call('PUT', `/v1/memory/${id}`, { expires_at: soon })).status, 200);
    await eventually('their end', async () => !(await near(ann, brief[0]!.text)).includes(brief[0]!.text));
    assert.equal((await near(ann, brief[0]!.text)).length, 10);
  });

  it('keeps its copies from other tenants, in the database too', async () => {
    const ben = await newTenant('admin', server);
    await remember(ben, 0, 5);
    await eventually('the vectors', async () => (await spaceOf(ben)).vectors === 5);
    assert.equal((await near(ben, 'apple river')).length, 5);
    for (const { table } of await segmentsOf(ann)) {
      const seen = await server.app.database
        .tenant(ben.tenant)
        .rows(sql`select 1 from ${identifier(table)} where tenant_id = ${ann.tenant}`);
      assert.equal(seen.length, 0);
    }
    // Functions that look past row-level security look no further than the tenant that was entered.
    for (const { id } of await segmentsOf(ann)) {
      const words = analyzeDocument(textOf(0)).words;
      const ask = (who: Caller) =>
        server.app.database
          .tenant(who.tenant)
          .rows(
            sql`select id from words_in_segment(${id}, ${encodeSparse(words)}::sparsevec, ${[...words.dimensions]}::int[], 10)`,
          );
      assert.equal((await ask(ben)).length, 0);
      assert.ok((await ask(ann)).length > 0);
    }
  });

  it('asks the graph, and no other way', async () => {
    const [segment] = await segmentsOf(ann);
    const plan = await server.app.database.operator.transaction(async (tx) => {
      const { rows } = (
        await tx.batch([
          sql<{
            config: string[];
          }>`select proconfig as config from pg_proc where proname = 'near_in_segment'`,
        ])
      )[0];
      // The settings the function runs under, and the statement it runs.
      for (const setting of rows[0]!.config) {
        const [name, value] = setting.split('=');
        await tx.run(sql`select set_config(${name}, ${value}, true)`);
      }
      const target = `[${meaningOf('apple', dimensions).join(',')}]`;
      const type = server.app.database.engine === 'embedded' ? identifier('vector') : identifier('halfvec');
      return tx.rows<{ 'QUERY PLAN': string }>(sql`
        explain select s.id from ${identifier(segment!.table)} s where s.tenant_id = ${ann.tenant}
        order by s.embedding <=> ${target}::${type} limit 10`);
    });
    const text = plan.map((line) => line['QUERY PLAN']).join('\n');
    assert.match(text, /Index Scan using segment_\w+_near/);
    assert.doesNotMatch(text, /Sort|Seq Scan/);
  });

  it('goes back to scanning when little is left', async () => {
    const gone = made.splice(5);
    for (let at = 0; at < gone.length; at += 100)
      await ann.call('POST', '/v1/memory/bulk-delete', {
        memory_ids: gone.slice(at, at + 100).map(({ id }) => id),
        hard_delete: true,
      });
    await repairTenant(ctxOf(ann), [memoryVectors.collection]);
    await server.app.enqueue('vectors.tend', [
      { tenant_id: ann.tenant, fact_id: uuidv7(), resource_id: null, data: {} },
    ]);
    await eventually('no segments', async () => (await spaceOf(ann)).segments === 0);
    await assertFindsNearest(ann, made);
  });
});

describe('words among segments', () => {
  let large: Caller;
  const texts = Array.from(
    { length: 200 },
    (_, i) => `${textOf(i)} ${i % 7 === 0 ? 'quarterly' : 'weekly'} report`,
  );
  const find = async (who: Caller, query: string, more: object = {}) => {
    const { body } = await who.call('POST', '/v1/memory/search', { query, mode: 'text', limit: 50, ...more });
    return body.map(({ text, score }: { text: string; score: number }) => `${score} ${text}`).sort();
  };
  const store = async (who: Caller, some: string[], more: object = {}) => {
    const memories = some.map((text) => ({ text, type: 'note', ...more }));
    return (await who.call('POST', '/v1/memory/bulk', { memories })).body.created as { id: string }[];
  };

  before(async () => {
    large = await newTenant('admin', server);
    await store(large, texts);
    await sealed(large, 200);
  });

  /** Compares all texts: a condition that all fulfil and few texts do. */
  const compared = (query: string) => find(large, query, { created_from: '2000-01-01T00:00:00Z' });

  it('find what comparing all texts finds, with the same scores', async () => {
    for (const query of ['quarterly report', 'apple river weekly', 'number 17', 'tiger quarterly piano']) {
      const found = await find(large, query);
      assert.ok(found.length > 0, query);
      assert.deepEqual(found, await compared(query), query);
    }
  });

  it('are found although they are misspelt', async () => {
    const found = await find(large, 'quartrely', { limit: 10 });
    assert.ok(found.length > 0);
    assert.ok(found.every((line: string) => line.includes('quarterly')));
  });

  it('are found before they have a vector, and not after they are deleted', async () => {
    embeddings.fail({ kind: 'slow', ms: 3_000 });
    const [fresh] = await store(large, ['a pangolin in the garden']);
    assert.match((await find(large, 'pangolin'))[0]!, /pangolin in the garden/);
    embeddings.fail({ kind: 'none' });
    await eventually('its vector', async () => (await spaceOf(large)).waiting === 0);
    assert.match((await find(large, 'pangolin'))[0]!, /pangolin in the garden/);
    await large.call('DELETE', `/v1/memory/${fresh!.id}`);
    assert.deepEqual(await find(large, 'pangolin'), []);
  });

  it('of a text that was in a segment and is another are found before and after it has its vector', async () => {
    const [changed] = await store(large, ['a stone of no interest']);
    await store(large, texts.slice(0, 60));
    await sealed(large, 261);
    const { rows } = await server.app.database.operatorPool.query(
      `select segment, (select max(until::text) from vector_segments where tenant_id = $1 and state = 'live') as until
       from memory_vectors where tenant_id = $1 and memory_id = $2`,
      [large.tenant, changed!.id],
    );
    assert.ok(rows[0].segment !== null && changed!.id < rows[0].until);
    embeddings.fail({ kind: 'slow', ms: 3_000 });
    await large.call('PUT', `/v1/memory/${changed!.id}`, { text: 'an axolotl by the pond' });
    assert.match((await find(large, 'axolotl'))[0]!, /axolotl by the pond/);
    embeddings.fail({ kind: 'none' });
    await eventually('its vector', async () => (await spaceOf(large)).waiting === 0);
    assert.match((await find(large, 'axolotl'))[0]!, /axolotl by the pond/);
    assert.ok(!(await find(large, 'stone')).some((line: string) => line.includes('interest')));
  });

  it('are found where it is not known how far a segment reaches', async () => {
    const before = await find(large, 'axolotl quarterly');
    await server.app.database.operatorPool.query(
      'update vector_segments set until = null where tenant_id = $1',
      [large.tenant],
    );
    // What a search knows of segments it believes for a moment.
    await new Promise((done) => setTimeout(done, 5_100));
    assert.deepEqual(await find(large, 'axolotl quarterly'), before);
    assert.deepEqual(before, await compared('axolotl quarterly'));
  });

  it('are found under a condition', async () => {
    await store(large, ['the quarterly plan'], { type: 'plan' });
    assert.match((await find(large, 'quarterly', { type: 'plan' }))[0]!, /the quarterly plan/);
    assert.deepEqual(await find(large, 'quarterly', { type: 'nothing' }), []);
  });
});

describe('what is off', () => {
  let ann: Caller;
  let made: Made[];
  before(async () => {
    ann = await newTenant('admin', server);
    made = await remember(ann, 0, 150);
    await sealed(ann, 150);
  });
  const run = (statement: Parameters<Running['app']['database']['operator']['run']>[0]) =>
    server.app.database.operator.run(statement);
  const repair = () => repairTenant(ctxOf(ann), [memoryVectors.collection]);

  it('nothing, at first', async () => {
    assert.deepEqual(await repair(), {
      rows_without_segment: 0,
      rows_without_copy: 0,
      ghosts: 0,
      segments_without_index: 0,
    });
  });

  it('rows of a segment that is not there are found, and mended', async () => {
    await run(
      sql`update memory_vectors set segment = 999 where tenant_id = ${ann.tenant} and memory_id = ${made[0]!.id}`,
    );
    assert.equal((await repair()).rows_without_segment, 1);
    await assertFindsNearest(ann, made);
    assert.equal((await near(ann, made[0]!.text))[0], made[0]!.text);
  });

  it('rows whose copy is lost are found, and mended', async () => {
    const { table } = (await segmentsOf(ann))[0]!;
    const lost = await server.app.database.operator.rows<{ id: string }>(sql`
      delete from ${identifier(table)} where id in (select id from ${identifier(table)} limit 3) returning id`);
    assert.equal((await repair()).rows_without_copy, lost.length);
    await assertFindsNearest(ann, made);
  });

  it('copies without a row are removed', async () => {
    const { table } = (await segmentsOf(ann))[0]!;
    await run(sql`
      insert into ${identifier(table)} (tenant_id, id, embedding)
      select tenant_id, ${uuidv7()}, embedding from ${identifier(table)} limit 1`);
    assert.equal((await repair()).ghosts, 1);
    assert.equal((await repair()).ghosts, 0);
  });

  it('a segment without an index is given up, and its rows are sealed again', async () => {
    const before = await segmentsOf(ann);
    await run(sql`select drop_segment_table(${before[0]!.table})`);
    assert.equal((await near(ann, 'apple river')).length, 10);
    assert.equal((await repair()).segments_without_index, 1);
    await assertFindsNearest(ann, made);
  });

  it('what a killed process was building is removed, and tables nobody knows', async () => {
    const id = uuidv7();
    const past = new Date(Date.now() - 1_000).toISOString();
    const ctx = ctxOf(ann);
    await ctx.db.run(sql`
      insert into vector_segments (tenant_id, scope, model, id, first, last, state, created_at, lease_until)
      values (${ann.tenant}, 'memory', ${model}, ${id}, 500, 500, 'building', ${past}, ${past})`);
    const table = { name: segmentTableName(id), kind: 'vector', dimensions, near: true } as const;
    await makeSegmentTable(server.app.database, table);
    const orphan = { ...table, name: segmentTableName(uuidv7()) };
    await makeSegmentTable(server.app.database, orphan);
    await sweepSegments(server.app);
    const names = async () => (await listSegmentTables(server.app.database)).map(({ name }) => name);
    assert.ok(!(await names()).includes(orphan.name));
    assert.ok((await names()).includes(table.name));
    await server.app.enqueue('vectors.tend', [
      { tenant_id: ann.tenant, fact_id: uuidv7(), resource_id: null, data: {} },
    ]);
    await eventually('the remains to be gone', async () => !(await names()).includes(table.name));
    await assertFindsNearest(ann, made);
  });
});

describe('merging', () => {
  const of = (...rows: number[]) =>
    rows.map((count, i) => ({
      scope: 'memory',
      model,
      id: String(i),
      first: i,
      last: i,
      state: 'live' as const,
      rows: count,
      until: null,
      joined: true,
      lease_until: '',
    }));
  it('takes the two smallest neighbours, only when there are too many, and never makes one too large', () => {
    assert.deepEqual(toMerge(of(10, 10, 10, 10), 100), []);
    assert.deepEqual(
      toMerge(of(80, 40, 10, 10, 20), 100).map(({ rows }) => rows),
      [10, 10],
    );
    assert.deepEqual(toMerge(of(80, 80, 80, 80, 80), 100), []);
  });
});
