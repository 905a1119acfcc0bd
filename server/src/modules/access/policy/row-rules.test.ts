import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { sql } from '#platform/db/sql.ts';
import { newTenant, testServer, useTestServer } from '#test/harness.ts';
import type { RowColumns } from './attribute-store.ts';
import { BUILTIN } from './builtin.ts';
import { sqlOf } from './condition-store.ts';
import { type PolicyTarget, policyContext, withTarget } from './context.ts';
import { decide } from './decide.ts';
import { compilePolicies, type PolicyRow } from './policy-set.ts';
import { rowsLetThrough } from './row-rules.ts';

useTestServer();

const me = '01890000-0000-7000-8000-000000000001';
const agent = '01890000-0000-7000-8000-000000000002';
const other = '01890000-0000-7000-8000-000000000003';
const someIds = [me, agent, other];

interface Row {
  id: string;
  owner: string | null;
  type: string;
  metadata: Record<string, unknown>;
}

/** Rows of two kinds: memories, whose ids are uuids and which have an owner, and documents. */
const kinds = {
  memory: {
    columns: {
      id: { column: sql`m.id::uuid`, uuid: true },
      owner: { column: sql`m.owner::uuid`, uuid: true },
      type: { column: sql`m.type` },
      metadata: sql`m.metadata`,
    },
    targetOf: ({ id, owner, type, metadata }: Row): PolicyTarget => ({ id, owner, type, metadata }),
  },
  documents: {
    columns: {
      id: { column: sql`m.id` },
      owner: { column: sql`m.owner`, nullable: true },
      type: { column: sql`m.type` },
      metadata: sql`m.metadata`,
      labels: true,
    },
    targetOf: ({ id, owner, type, metadata }: Row): PolicyTarget => {
      const { labels } = metadata;
      const isObject = typeof labels === 'object' && labels !== null && !Array.isArray(labels);
      return { id, owner, type, metadata, ...(isObject ? { labels: labels as object } : {}) } as PolicyTarget;
    },
  },
} satisfies Record<string, { columns: RowColumns; targetOf: (row: Row) => PolicyTarget }>;

// Few values, so that they meet; among them those where the database and JavaScript might not agree.
const texts = fc.constantFrom(
  '', 'a', 'A', 'ab', 'b', 'note', '7', ' 7', '1e1', '0', 'true', 'null', 'é', '\u{1f600}', '￿', '[object Object]', 'a,b', ...someIds,
); // biome-ignore format: a list
const numbers = fc.constantFrom(
  0,
  1,
  -1,
  7,
  10,
  0.1,
  0.30000000000000004,
  1e21,
  1e300,
  9007199254740992,
  5e-324,
);
const plain: fc.Arbitrary<unknown> = fc.oneof(
  texts,
  numbers,
  fc.boolean(),
  fc.constant(null),
) as fc.Arbitrary<unknown>;
const json: fc.Arbitrary<unknown> = fc.oneof(
  { withCrossShrink: true },
  plain,
  fc.array(plain, { maxLength: 3 }),
  fc.dictionary(fc.constantFrom('a', 'b', '0', ''), plain, { maxKeys: 2 }),
);
const names = ['x', 'y', 'labels', 'deep', ''];
const rows = (ids: fc.Arbitrary<string>, owners: fc.Arbitrary<string | null>): fc.Arbitrary<Row> =>
  fc.record({
    id: ids,
    owner: owners,
    type: fc.constantFrom('note', 'a', '7', 'diary', 'é'),
    metadata: fc.dictionary(fc.constantFrom(...names), json, { maxKeys: 4 }),
  });
const ofKind = {
  memory: rows(fc.constantFrom(...someIds), fc.constantFrom(...someIds)),
  documents: rows(
    fc.constantFrom('a', 'doc-1', '7', ...someIds),
    fc.constantFrom(null, me, other, agent) as fc.Arbitrary<string | null>,
  ),
};

const v = (name: string, ...more: unknown[]) => ({ var: more.length > 0 ? [name, ...more] : name });
const attribute = fc.constantFrom<unknown>(
  v('target.id'), v('target.owner'), v('target.type'), v('memory_type'), v('target.metadata.x'), v('memory_metadata.x'),
  v('target.metadata.y'), v('target.metadata.deep.a'), v('target.metadata.deep.0'), v('target.metadata.'), v('target.labels.a'),
  v('target.labels'), v('target.role'), v('target.nothing'), v('target.id.more'), v('target.metadata'), v('target.metadata.x', 7),
); // biome-ignore format: a list
const constant = fc.oneof(
  plain,
  fc.constantFrom<unknown>(
    v('identity_id'),
    v('claims.team'),
    v('claims.teams'),
    v('claims.none'),
    v('claims.level'),
    [],
    ['a', 7, null, true],
    { cat: ['a', v('claims.team')] },
    { '/': [0, 0] },
    { '/': [1, 0] },
  ),
  fc.array(plain, { maxLength: 3 }),
);
const { rule } = fc.letrec<{ rule: unknown; operand: unknown }>((tie) => {
  const op = (operators: string[], ...args: fc.Arbitrary<unknown>[]) =>
    fc.tuple(fc.constantFrom(...operators), fc.tuple(...args)).map(([name, list]) => ({ [name]: list }));
  const several = (operators: string[]) =>
    fc
      .tuple(fc.constantFrom(...operators), fc.array(tie('operand'), { minLength: 1, maxLength: 3 }))
      .map(([name, list]) => ({ [name]: list }));
  const relations = ['==', '===', '!=', '!==', '<', '<=', '>', '>=', 'in'];
  return {
    operand: fc.oneof({ maxDepth: 3, withCrossShrink: true }, tie('rule'), attribute, constant),
    rule: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      { weight: 4, arbitrary: op(relations, attribute, constant) },
      { weight: 3, arbitrary: op(relations, constant, attribute) },
      { weight: 1, arbitrary: op(relations, attribute, attribute) },
      { weight: 1, arbitrary: op(['<', '<=', '>', '>='], constant, attribute, constant) },
      { weight: 3, arbitrary: several(['and', 'or']) },
      { weight: 2, arbitrary: several(['if', '?:']) },
      { weight: 2, arbitrary: op(['!', '!!'], tie('operand')) },
      {
        weight: 1,
        arbitrary: op(['!', '!!'], fc.constant({ missing: ['target.metadata.x', 'claims.none'] })),
      },
      { weight: 1, arbitrary: op(['!'], fc.constant({ missing: 'target.owner' })) },
      {
        weight: 1,
        arbitrary: op(['==', '<'], fc.constant({ substr: [v('target.id'), -1] }), constant),
      },
      // Spends more than a rule may, where the list is long.
      { weight: 1, arbitrary: fc.constant({ some: [v('target.metadata.x'), { '==': [v(''), 'a'] }] }) },
      { weight: 1, arbitrary: fc.constant({ '==': [v('target.metadata.long'), 'a'] }) },
      { weight: 1, arbitrary: fc.constant({ in: ['a', v('target.metadata.long')] }) },
      attribute,
      fc.constant(true),
    ),
  };
});
const policies: fc.Arbitrary<PolicyRow[]> = fc
  .array(
    fc.record({
      rule,
      effect: fc.constantFrom<'allow' | 'deny'>('allow', 'deny'),
      priority: fc.integer({ min: 0, max: 2 }),
      isBroken: fc.integer({ min: 0, max: 30 }).map((n) => n === 0),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((list) =>
    list.map(({ isBroken, ...one }, i) => ({
      ...one,
      rule: isBroken ? { nonsense: 1 } : one.rule,
      id: `p${i}`,
      role: '*',
      is_active: true,
    })),
  );

describe('what policies let through, asked of the database', () => {
  for (const kind of ['memory', 'documents'] as const)
    it(`is what deciding each row says: ${kind}`, async () => {
      const { app } = await testServer();
      const { tenant } = await newTenant();
      const db = app.database.tenant(tenant);
      const { columns, targetOf } = kinds[kind];
      const told = { sure: 0, all: 0 };
      const property = fc.asyncProperty(
        policies,
        fc.array(ofKind[kind], { minLength: 1, maxLength: 12 }),
        fc.constantFrom('user', 'admin', 'stranger'),
        fc.boolean(),
        async (list, some, role, isAgent) => {
          const long = { ...some[0]!, metadata: { long: Array(12_000).fill('b') } };
          const read = [...some, long];
          const set = compilePolicies(list);
          // Where an agent acts for somebody, the things of that person are its own.
          const renamed = new Map(isAgent ? [[me, agent]] : []);
          const asWhom = isAgent ? agent : me;
          const context = policyContext({
            role,
            action: 'read',
            resource: kind,
            tenant_id: tenant,
            identity: { id: asWhom, claims: { team: 'a', teams: ['a', 7], level: 1 } },
            target: null,
          });
          const condition = rowsLetThrough(set, BUILTIN, { context, columns, renamed });
          const answers = await db.rows(sql<{ seen: boolean | null }>`
            select ${sqlOf(condition)} as seen from unnest(${read.map(({ id }) => id)}::text[], ${read.map(({ owner }) => owner)}::text[],
              ${read.map(({ type }) => type)}::text[], ${read.map(({ metadata }) => JSON.stringify(metadata))}::jsonb[])
              with ordinality as m (id, owner, type, metadata, place) order by place`);
          answers.forEach(({ seen }, i) => {
            const called = (id: string | null | undefined) => (id == null ? null : (renamed.get(id) ?? id));
            const target = targetOf(read[i]!);
            const asked = withTarget(context, {
              ...target,
              id: called(target.id),
              owner: called(target.owner),
            });
            told.all += 1;
            if (seen === null) {
              assert.ok(typeof condition !== 'boolean' && condition?.total !== true);
              return;
            }
            told.sure += 1;
            assert.equal(seen, decide(set, BUILTIN, asked).allowed, JSON.stringify(read[i]).slice(0, 500));
          });
        },
      );
      await fc.assert(property, { numRuns: Number(process.env.POLICY_RUNS ?? 150) });
      // It would hold of a condition that never says anything.
      assert.ok(told.sure > told.all / 3, `${told.sure} of ${told.all} rows were told`);
    });
});
