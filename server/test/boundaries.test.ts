import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Import, importsOf, programSources, type Source, scan, sqlTemplates } from './sources.ts';

/** A rule of the house: what breaks it, one line each. */
type Rule = (sources: Source[]) => string[];

/** From the top of the house to its ground; imports go only downwards. */
const families = ['operate', 'knowledge', 'access', 'ledger'];

/** Files other than service.ts that another module, or a file outside all modules, may import, and why. */
const openFiles: Record<string, string> = {
  'src/modules/knowledge/documents/demo.ts': 'constants of the demo corpus, for the seed',
  'src/modules/knowledge/documents/blocks.ts':
    'a pure reader of structure; the answers of runs are cut with it',
  'src/modules/knowledge/retrieval/words.ts': 'pure; the words of the built-in embeddings and of questions',
  'src/modules/knowledge/retrieval/sparse.ts': 'pure; the hash that gives a word its dimension',
  'src/modules/knowledge/retrieval/stopwords.ts': 'pure; a list of words',
  'src/modules/knowledge/retrieval/bounded-cache.ts': 'pure; a map with a limit',
};

/** Files with SQL that are neither stores nor part of the database door, and why. */
const sqlFiles: Record<string, string> = {
  'src/platform/facts/record.ts': 'the one statement that writes a fact',
  'src/platform/facts/relay.ts': 'the order of facts',
  'src/platform/jobs/states.ts': 'the question what became of jobs',
  'src/platform/http/idempotency.ts': 'claims of idempotency keys',
  'src/platform/http/operations.ts': 'the question of /healthz',
  'src/modules/knowledge/runs/checkpoints.ts': 'the store behind the run graph',
};

const moduleOf = (path: string): { family: string; name: string } | undefined => {
  const [, family, name] = /^src\/modules\/([^/]+)\/([^/]+)\//.exec(path) ?? [];
  return family && name ? { family, name } : undefined;
};

const importsIn = (sources: Source[]): (Import & { to: string })[] =>
  sources.flatMap(importsOf).filter((one): one is Import & { to: string } => one.to !== undefined);

const shown = ({ from, to }: { from: string; to: string }) => `${from} imports ${to}`;

const platformKnowsNoFeature: Rule = (sources) =>
  importsIn(sources)
    .filter(({ from, to }) => from.startsWith('src/platform/') && !to.startsWith('src/platform/'))
    .map(shown);

const modulesStandOnTheGround: Rule = (sources) =>
  importsIn(sources)
    .filter(({ from, to }) => moduleOf(from) && !moduleOf(to) && !to.startsWith('src/platform/'))
    .map(shown);

const familiesImportDownwards: Rule = (sources) =>
  importsIn(sources)
    .filter(({ from, to }) => {
      const [upper, lower] = [moduleOf(from), moduleOf(to)];
      return upper && lower && families.indexOf(upper.family) > families.indexOf(lower.family);
    })
    .map(shown);

const familiesAreKnown: Rule = (sources) =>
  sources
    .filter(({ path }) => path.startsWith('src/modules/') && !families.includes(moduleOf(path)?.family ?? ''))
    .map(({ path }) => `${path} is in no family: ${families.join(', ')}`);

/** app.ts is the contents page: it alone also reads what a module registers. */
const registered = /\/(routes|jobs)\.ts$/;

const doorsAreServices: Rule = (sources) =>
  importsIn(sources)
    .filter(({ from, to }) => {
      const [here, there] = [moduleOf(from), moduleOf(to)];
      if (!there || (here && here.family === there.family && here.name === there.name)) return false;
      if (to.endsWith('/service.ts') || to in openFiles) return false;
      return !(from === 'src/app.ts' && registered.test(to));
    })
    .map((one) => `${shown(one)}, which is not its module's service.ts`);

const openFilesAreUsed: Rule = (sources) =>
  Object.keys(openFiles)
    .filter((file) => {
      const owner = moduleOf(file)!;
      return !importsIn(sources).some(({ from, to }) => {
        const user = moduleOf(from);
        return to === file && !(user?.family === owner.family && user.name === owner.name);
      });
    })
    .map((file) => `${file} is open to other modules, and none imports it: take it off the list`);

const modulesDoNotCircle: Rule = (sources) => {
  const edges = importsIn(sources).flatMap(({ from, to }) => {
    const [a, b] = [moduleOf(from), moduleOf(to)];
    return a && b ? [[`${a.family}/${a.name}`, `${b.family}/${b.name}`] as const] : [];
  });
  return circles(edges.filter(([a, b]) => a !== b));
};

/** What is imported as a type only is gone when the program runs, and may refer back. */
const filesDoNotCircle: Rule = (sources) =>
  circles(
    importsIn(sources)
      .filter(({ typeOnly }) => !typeOnly)
      .map(({ from, to }) => [from, to] as const),
  );

function circles(edges: (readonly [string, string])[]): string[] {
  const next = new Map<string, Set<string>>();
  for (const [a, b] of edges) next.set(a, (next.get(a) ?? new Set()).add(b));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (node: string, path: string[]) => {
    if (path.includes(node)) {
      found.push([...path.slice(path.indexOf(node)), node].join(' -> '));
      return;
    }
    if (done.has(node)) return;
    for (const other of next.get(node) ?? []) visit(other, [...path, node]);
    done.add(node);
  };
  for (const node of next.keys()) visit(node, []);
  return found;
}

const longest = 400;
const filesAreShort: Rule = (sources) =>
  sources
    .filter(({ path, text }) => !path.endsWith('.gen.ts') && text.trimEnd().split('\n').length > longest)
    .map(
      ({ path, text }) => `${path} has ${text.trimEnd().split('\n').length} lines; ${longest} is the limit`,
    );

const environmentIsReadOnce: Rule = (sources) =>
  sources
    .filter(({ path }) => !['src/processes.ts', 'src/commands.ts'].includes(path))
    .filter(({ text }) =>
      /\bprocess\s*(\?\.|\.)\s*env\b|\bprocess\s*\[|[{,]\s*env\b[^}]*\}\s*=\s*process\b/.test(
        scan(text).code,
      ),
    )
    .map(({ path }) => `${path} reads the environment; only the command line does`);

const sqlStandsInStores: Rule = (sources) =>
  sources
    .filter(
      ({ path }) =>
        !path.startsWith('src/platform/db/') && !/[/-]store\.ts$/.test(path) && !(path in sqlFiles),
    )
    .filter((source) => sqlTemplates(source).length > 0)
    .map(({ path }) => `${path} has SQL; it belongs into a store`);

/** What opens a way out of the process, and where it may be opened. */
const doors: Record<string, string> = {
  pg: 'src/platform/',
  ioredis: 'src/platform/',
  'pg-boss': 'src/platform/',
  undici: 'src/platform/',
  '@aws-sdk/client-bedrock-agent-runtime': 'src/platform/',
  '@smithy/node-http-handler': 'src/platform/',
  'google-auth-library': 'src/platform/',
};
const doorsArePlatform: Rule = (sources) =>
  sources
    .flatMap(importsOf)
    .filter(({ from, specifier, typeOnly }) => {
      const place = doors[specifier];
      return place !== undefined && !typeOnly && !from.startsWith(place);
    })
    .map(({ from, specifier }) => `${from} imports ${specifier}, which only the platform may`);

const testsStayOutside: Rule = (sources) =>
  importsIn(sources)
    .filter(({ to }) => to.startsWith('test/') || /\.test\.ts$/.test(to))
    .map(shown);

/** Each rule with a snippet that breaks it, so that a rule that sees nothing is noticed. */
const rules: [sentence: string, rule: Rule, violation: Source[]][] = [
  [
    'the platform knows no feature',
    platformKnowsNoFeature,
    [{ path: 'src/platform/cache.ts', text: `import { a } from '#modules/access/policy/service.ts';` }],
  ],
  [
    'modules import modules and the platform, nothing above them',
    modulesStandOnTheGround,
    [
      {
        path: 'src/modules/access/policy/service.ts',
        text: `const { routes } = await import('../../../app.ts');`,
      },
    ],
  ],
  [
    'every module belongs to a known family',
    familiesAreKnown,
    [{ path: 'src/modules/common/strings/service.ts', text: '' }],
  ],
  [
    'families import only downwards',
    familiesImportDownwards,
    [
      {
        path: 'src/modules/access/policy/service.ts',
        text: `import {\n  type A,\n  b,\n} from '../../knowledge/memory/service.ts';`,
      },
    ],
  ],
  [
    'another module is imported through its service.ts',
    doorsAreServices,
    [
      {
        path: 'src/modules/knowledge/memory/service.ts',
        text: `import type { Row } from '../retrieval/store.ts';`,
      },
    ],
  ],
  [
    'the list of open files is short and used',
    openFilesAreUsed,
    [{ path: 'src/modules/knowledge/retrieval/service.ts', text: `export { analyze } from './analyze.ts';` }],
  ],
  [
    'modules do not import each other in a circle',
    modulesDoNotCircle,
    [
      { path: 'src/modules/access/a/service.ts', text: `import { b } from '../b/service.ts';` },
      { path: 'src/modules/access/b/service.ts', text: `export * from '../c/service.ts';` },
      { path: 'src/modules/access/c/service.ts', text: `import type { A } from '../a/service.ts';` },
    ],
  ],
  [
    'files do not import each other in a circle',
    filesDoNotCircle,
    [
      { path: 'src/platform/a.ts', text: `import b from './b.ts';` },
      { path: 'src/platform/b.ts', text: `import * as a from './a.ts';` },
    ],
  ],
  ['files are short', filesAreShort, [{ path: 'src/app.ts', text: 'x;\n'.repeat(longest + 1) }]],
  [
    'only the command line reads the environment',
    environmentIsReadOnce,
    [{ path: 'src/platform/config.ts', text: 'export const port = process.env.PORT;' }],
  ],
  [
    'SQL stands in stores',
    sqlStandsInStores,
    [{ path: 'src/modules/access/a/service.ts', text: 'db.run(sql<{ id: string }>`select 1`)' }],
  ],
  [
    'only the platform opens ways out of the process',
    doorsArePlatform,
    [{ path: 'src/modules/access/a/service.ts', text: `import pg from 'pg';` }],
  ],
  [
    'the program does not import its tests',
    testsStayOutside,
    [{ path: 'src/app.ts', text: `import { call } from '#test/harness.ts';` }],
  ],
];

describe('the house', () => {
  const sources = programSources();

  it('is read whole', () => {
    assert.ok(sources.length > 50);
    const app = sources.find(({ path }) => path === 'src/app.ts')!;
    const written = app.text.match(/^import\b/gm)!.length;
    assert.equal(importsOf(app).length, written);
    const missing = importsIn(sources).filter(({ to }) => !sources.some(({ path }) => path === to));
    assert.deepEqual(missing.map(shown), []);
  });

  for (const [sentence, rule, violation] of rules) {
    it(sentence, () => assert.deepEqual(rule(sources), []));
    it(`${sentence}: a violation is seen`, () => assert.notEqual(rule(violation).length, 0));
  }

  it('takes comments, strings and templates for what they are', () => {
    const text = [
      `// import { a } from './a.ts';`,
      `const b = "import { a } from './a.ts'";`,
      "const c = `import { a } from './a.ts' \u0024{/* process.env */ sql`select \u0024{1}`}`;",
      `const d = /import '.\\/a.ts'/;`,
    ].join('\n');
    assert.deepEqual(importsOf({ path: 'src/x.ts', text }), []);
    assert.deepEqual(environmentIsReadOnce([{ path: 'src/x.ts', text }]), []);
    assert.deepEqual(
      sqlTemplates({ path: 'src/x.ts', text }).map(({ strings, values, owner }) => ({
        strings,
        values,
        owner,
      })),
      [{ strings: ['select ', ''], values: ['1'], owner: 'c' }],
    );
  });

  it('lets types refer back, but not modules', () => {
    const sources = [
      { path: 'src/platform/a.ts', text: `import { b } from './b.ts';` },
      {
        path: 'src/platform/b.ts',
        text: `import type { A } from './a.ts';\nexport type { A } from './a.ts';`,
      },
    ];
    assert.deepEqual(filesDoNotCircle(sources), []);
  });
});
