import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { migrationSources, programSources, type Source, scan, sqlTemplates } from './sources.ts';

// The rules a schema and its statements must keep so that tables can be distributed by tenant.

/** One statement as it stands in the source; every value is shown as `$?`. */
interface Written {
  /** `path#function` */
  place: string;
  /** In lower case, one space between words, without comments. */
  text: string;
  /** Source code before it, to see what it is handed to. */
  before: string;
}

/** Statements that look at all tenants; they run as the operator. Everything else names its tenant. */
const operatorStatements = [
  'src/modules/access/data-keys/store.ts#listTenantsWithRetiredKeys',
  'src/modules/access/data-keys/store.ts#listWrappedOtherwise',
  'src/modules/access/delegations/store.ts#pruneGrants',
  'src/modules/access/api-keys/store.ts#findKeyTenant',
  'src/modules/access/api-keys/store.ts#listTenantsWithExpired',
  'src/modules/access/decisions/store.ts#deleteOldDecisions',
  'src/modules/access/mails/store.ts#listUnsent',
  'src/modules/access/sessions/store.ts#listTenantsWithEnded',
  'src/modules/access/mfa/store.ts#pruneChallenges',
  'src/modules/access/mfa/store.ts#pruneSetups',
  'src/modules/access/passwords/store.ts#findAccountsByName',
  'src/modules/access/passwords/store.ts#pruneResets',
  'src/modules/access/invitations/store.ts#listTenantsWithExpired',
  'src/modules/access/sso/flow-store.ts#pruneCodes',
  'src/modules/access/sso/flow-store.ts#pruneStates',
  'src/modules/access/tenants/store.ts#listAllTenants',
  'src/modules/access/tenants/store.ts#listDeletedTenants',
  'src/modules/access/tenants/store.ts#listTenantsAfter',
  'src/modules/knowledge/corpora/store.ts#listDeletedCorpora',
  'src/modules/knowledge/documents/unfinished-store.ts#listUnfinished',
  'src/modules/knowledge/memory/erasure-store.ts#listOpenErasures',
  'src/modules/knowledge/memory/import-store.ts#listStalled',
  'src/modules/knowledge/memory/inference-store.ts#listWaitingInferences',
  'src/modules/knowledge/memory/sensitive-types-store.ts#listTenantsEncrypting',
  'src/modules/knowledge/memory/store.ts#listTenantsExpiring',
  'src/modules/knowledge/memory/store.ts#listTenantsWaiting',
  'src/modules/knowledge/memory/trash-store.ts#listTenantsTrashing',
  'src/modules/knowledge/retrieval/store.ts#listChanged',
  'src/modules/knowledge/runs/store.ts#listTenantsWithLostRuns',
  'src/modules/knowledge/vectors/renew-store.ts#listTenantsToRenew',
  'src/modules/knowledge/vectors/segment-store.ts#countAllSegments',
  'src/modules/knowledge/vectors/segment-store.ts#listAllSegments',
  'src/modules/knowledge/vectors/segment-store.ts#listLongTails',
  'src/modules/knowledge/runs/audio-store.ts#listTenantsWithOldAudio',
  'src/modules/knowledge/runs/event-store.ts#listTenantsWithOldEvents',
  'src/modules/knowledge/runs/store.ts#listRunning',
  'src/modules/knowledge/runs/store.ts#renewLeases',
  'src/platform/facts/relay.ts#createRelay',
  'src/platform/facts/relay.ts#relay',
  'src/platform/http/idempotency.ts#pruneIdempotencyKeys',
];

function statementsOf(source: Source): Written[] {
  const { code } = scan(source.text);
  return sqlTemplates(source).map(({ strings, at, owner }) => ({
    place: `${source.path}#${owner}`,
    text: flat(strings.join('$?')),
    before: code.slice(Math.max(0, at - 200), at).replace(/\s+/g, ' '),
  }));
}

const flat = (text: string): string =>
  text
    .replace(/--.*$/gm, '')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .toLowerCase()
    .replace(/\s+/g, ' ')
    .trim();

const migrations = migrationSources();

/** Tables with a tenant, as the migrations make them. */
const tenantTables = new Set(
  migrations
    .flatMap(({ text }) => tablesOf(text))
    .flatMap(({ name, body }) => (body.includes('tenant_id') ? [name] : [])),
);

function tablesOf(text: string): { name: string; body: string; end: number }[] {
  const found: { name: string; body: string; end: number }[] = [];
  const shown = text.replace(/--.*$/gm, (comment) => ' '.repeat(comment.length)).toLowerCase();
  for (const match of shown.matchAll(
    /create (?:unlogged )?table (?:if not exists )?(?:public\.)?(\w+)\s*\(/g,
  )) {
    const from = match.index + match[0].length;
    let depth = 1;
    let i = from;
    for (; i < shown.length && depth > 0; i++) depth += shown[i] === '(' ? 1 : shown[i] === ')' ? -1 : 0;
    found.push({
      name: match[1]!,
      body: shown
        .slice(from, i - 1)
        .replace(/\s+/g, ' ')
        .trim(),
      end: i,
    });
  }
  return found;
}

const keywords = new Set(
  'as on where set values select using order group limit join inner left right cross returning for union with natural full'.split(
    ' ',
  ),
);

/** Tenant tables a statement reads or writes, with the names it calls them by. */
function tablesIn(text: string): { table: string; alias: string }[] {
  const found: { table: string; alias: string }[] = [];
  const form =
    /\b(?:from|join|into|update(?! set)|using|,)\s+(?:only )?(?:public\.)?([a-z_]+)(?=(?: as)?(?: ([a-z_]\w*))?)/g;
  for (const { 1: table, 2: alias } of text.matchAll(form)) {
    if (table && tenantTables.has(table))
      found.push({ table, alias: alias && !keywords.has(alias) ? alias : table });
  }
  return found;
}

const isInsert = (text: string) => /\binsert into\b/.test(text);
const literalTenant = /\btenant_id = \$\?/;
const insertsTenant =
  /insert into \w+(?: as \w+)? ?\( ?tenant_id\b[^)]*\) ?(?:values ?\( ?\$\?|select (?:distinct )?\$\?|select (\w+)\.tenant_id\b)/;

type StatementRule = (statement: Written) => string | false | undefined;

const forbidden =
  (form: RegExp, why: string): StatementRule =>
  ({ text }) => {
    const match = form.exec(text);
    return match ? `${match[0].trim()}: ${why}` : undefined;
  };

const namesItsTenant: StatementRule = ({ place, text }) => {
  const tables = tablesIn(text);
  if (tables.length === 0 || operatorStatements.includes(place)) return;
  // A fragment is judged where it is put in.
  const whole = /^(select|insert|update|delete|with|merge)\b/.test(text);
  if (whole && !literalTenant.test(text) && !insertsTenant.test(text)) {
    return `names ${tables[0]!.table} without a literal tenant_id`;
  }
  if (isInsert(text) && !insertsTenant.test(text)) return 'inserts without the tenant as its first column';
  for (const { table, alias } of tables) {
    const named = new RegExp(`\\b${alias}\\.tenant_id\\b|(?<![.\\w])tenant_id\\b`);
    if (!named.test(text)) return `joins ${table} without its tenant_id`;
  }
  return;
};

const operatorsSayWho: StatementRule = ({ place, before }) =>
  operatorStatements.includes(place) && !/\boperator ?(?:\. ?)(?:rows|one|run|batch)\b[^;]*$/.test(before)
    ? 'looks at all tenants and is not handed to the operator'
    : undefined;

const locksNameTheirTenant: StatementRule = ({ text }) =>
  /\bfor (no key )?(update|key share|share)\b/.test(text) && !literalTenant.test(text)
    ? 'locks rows without a literal tenant_id'
    : undefined;

const conflictsNameTheTenant: StatementRule = ({ text }) => {
  if (!tablesIn(text).length) return;
  for (const { 1: target } of text.matchAll(/\bon conflict ?(\(?[^)]{0,40})/g))
    if (!/^\( ?tenant_id\b/.test(target!)) return 'has ON CONFLICT whose columns do not begin with tenant_id';
  return;
};

const unnestAnswers: StatementRule = ({ text }) =>
  /\binsert into\b.*\bselect\b.*\bfrom unnest ?\(/.test(text) && !/\bon conflict\b|\breturning\b/.test(text)
    ? 'INSERT … SELECT FROM unnest needs RETURNING or ON CONFLICT: without them a distributed table is filled by COPY, which row-level security refuses'
    : undefined;

const tenantsStayPut: StatementRule = ({ text }) =>
  /\bupdate \w+(?: as)?(?: \w+)? set (?:[^;]*, ?)?tenant_id =/.test(text.replace(/\bwhere\b.*$/, ''))
    ? 'changes tenant_id'
    : undefined;

const entersInOnePlace: StatementRule = ({ place, text }) =>
  /\benter ?\(/.test(text) && !place.startsWith('src/platform/db/database.ts#')
    ? 'enters a tenant; only the database door does'
    : undefined;

const statementRules: [sentence: string, rule: StatementRule, violations: string[]][] = [
  [
    'every statement names its tenant literally, in every table it joins',
    namesItsTenant,
    [
      'select text from memories where id = $?',
      'select m.text from memories m join memory_vectors v on v.memory_id = m.id where m.tenant_id = $?',
      'update memories set text = $? where tenant_id = current_setting($?)',
      'delete from memories where tenant_id in ($?)',
      'insert into memories (id, tenant_id) values ($?, $?)',
      "insert into memories (tenant_id, id) values ('t1', $?)",
      'with a as (select id from facts limit 1) delete from memories using a where memories.id = a.id',
    ],
  ],
  [
    'rows are locked within a tenant only',
    locksNameTheirTenant,
    ['select id from facts where seq is null order by id for update skip locked'],
  ],
  [
    'a conflict is told by columns that begin with the tenant',
    conflictsNameTheTenant,
    ['insert into identities (tenant_id, id) values ($?, $?) on conflict (external_id) do nothing'],
  ],
  [
    'there is no MERGE',
    forbidden(/\bmerge into\b/, 'not possible on a distributed table'),
    ['merge into memories m using v on m.tenant_id = $? when matched then delete'],
  ],
  [
    'times and ids come from the application',
    forbidden(
      /\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|gen_random_uuid|uuidv?[47]\w*|nextval|lastval) ?\(|\b(current_timestamp|current_time|current_date|localtimestamp|localtime)\b/,
      'pass it as a parameter',
    ),
    [
      'update memories set updated_at = now() where tenant_id = $?',
      'select 1 from memories where tenant_id = $? and expires_at > CURRENT_TIMESTAMP',
      'insert into memories (tenant_id, id) values ($?, gen_random_uuid())',
    ],
  ],
  [
    'a tenant is entered in one place and settings are nobody else’s business',
    (statement) =>
      entersInOnePlace(statement) ||
      forbidden(
        /\bset_config ?\(|^set (?:local|session|role)\b|^set \w+(?:\.\w+)? ?(?:=|to)\b|^reset\b/,
        'only enter() sets the tenant',
      )(statement),
    ["select set_config('app.tenant_id', $?, true)", "set local app.tenant_id = 't1'", 'select enter($?)'],
  ],
  [
    'order never comes from transaction ids',
    forbidden(
      /\bpg_(current_)?snapshot\w*|\btxid_\w+|\bpg_current_xact_id\w*|\bxmin\b/,
      'they differ between nodes',
    ),
    ['select id from facts where tenant_id = $? and xid < pg_snapshot_xmin(pg_current_snapshot())'],
  ],
  [
    'nothing needs the coordinator',
    forbidden(
      /\bpg_(try_)?advisory\w*|^(listen|notify)\b|\bpg_notify\b|^(create|alter|drop|truncate|copy|vacuum|cluster|lock)\b/,
      'works on one node only',
    ),
    [
      'select pg_advisory_xact_lock($?)',
      "notify jobs, 'x'",
      'truncate memories',
      'create temp table t (a int)',
    ],
  ],
  [
    'forms a distributed planner refuses are not used',
    forbidden(/\bfull (outer )?join\b|\) = \( ?select\b/, 'refused or wrong on distributed tables'),
    [
      'select 1 from a full join b using (memory_id) where a.tenant_id = $?',
      'update facts set (a, b) = (select 1, 2) where tenant_id = $?',
    ],
  ],
  [
    'rows made from arrays say what became of them',
    unnestAnswers,
    ['insert into memory_queue (tenant_id, memory_id) select $?, id from unnest($?::uuid[]) as r (id)'],
  ],
  [
    'a row stays with its tenant',
    tenantsStayPut,
    ['update memories set text = $?, tenant_id = $? where tenant_id = $?'],
  ],
];

const stripped = ({ path, text }: Source): Source => ({ path, text: scan(text).code });

/** Rules about the code round the statements. */
const codeRules: [sentence: string, rule: (source: Source) => boolean, violation: Source][] = [
  [
    'statements are templates: text is never put together',
    (source) =>
      /(?<![\w$.])sql ?\(/.test(stripped(source).text) ||
      [...source.text.matchAll(/(?<![\w$.])raw\(\s*(.)/g)].some(
        ([, first]) => !/['"`]/.test(first!) && source.path !== 'src/platform/db/sql.ts',
      ),
    { path: 'src/modules/access/a/store.ts', text: 'db.run(raw(text));' },
  ],
  [
    'only the database door and the queue speak to connections directly',
    (source) =>
      !/^src\/platform\/(db|jobs)\//.test(source.path) && /\.query\s*\(/.test(stripped(source).text),
    { path: 'src/modules/access/a/store.ts', text: `await app.database.operatorPool.query('select 1');` },
  ],
  [
    'errors are told by SQLSTATE, not by the names of constraints',
    (source) => /\.constraint\b/.test(stripped(source).text),
    {
      path: 'src/modules/access/a/service.ts',
      text: `if (error.constraint === 'identities_pkey') throw conflict();`,
    },
  ],
];

const broken = (rule: StatementRule, statements: Written[]): string[] =>
  statements.flatMap((statement) => {
    const why = rule(statement);
    return why ? [`${statement.place}: ${why}`] : [];
  });

const asWritten = (text: string): Written => ({
  place: 'src/modules/access/a/store.ts#find',
  text: flat(text),
  before: '',
});

describe('statements', () => {
  const sources = programSources();
  const statements = sources.filter(({ path }) => path !== 'src/platform/db/sql.ts').flatMap(statementsOf);

  it('are found', () => {
    assert.ok(tenantTables.size >= 18, 'the migrations make at least 18 tenant tables');
    assert.ok(statements.length >= 50);
    const written = sources.reduce(
      (sum, { text }) => sum + (text.match(/\bsql(<[^`;]*>)?`/g)?.length ?? 0),
      0,
    );
    assert.ok(
      statements.length >= written * 0.9,
      `${statements.length} statements read, about ${written} written`,
    );
  });

  for (const [sentence, rule, violations] of statementRules) {
    it(sentence, () => assert.deepEqual(broken(rule, statements), []));
    it(`${sentence}: a violation is seen`, () => {
      for (const text of violations) assert.equal(broken(rule, [asWritten(text)]).length, 1, text);
    });
  }

  it('that look at all tenants are on the list, are still there, and run as the operator', () => {
    assert.deepEqual(broken(operatorsSayWho, statements), []);
    const needless = operatorStatements.filter(
      (place) => !statements.some((one) => one.place === place && tablesIn(one.text).length > 0),
    );
    assert.deepEqual(needless, [], 'on the list without such a statement');
    const violation = { ...asWritten('select tenant_id from tenants'), place: operatorStatements[0]! };
    assert.equal(broken(operatorsSayWho, [violation]).length, 1);
  });

  it('of the right forms are accepted', () => {
    for (const text of [
      'select text from memories where tenant_id = $? and id = $? for update',
      'select m.text from memories m join memory_vectors v on v.tenant_id = m.tenant_id and v.memory_id = m.id where m.tenant_id = $?',
      'insert into memory_queue (tenant_id, memory_id) select $?, id from unnest($?::uuid[]) as r (id) on conflict (tenant_id, memory_id) do nothing',
      'update memories m set text = $? from memory_queue q where q.tenant_id = m.tenant_id and m.tenant_id = $?',
    ]) {
      for (const [, rule] of statementRules) assert.deepEqual(broken(rule, [asWritten(text)]), [], text);
    }
  });

  for (const [sentence, rule, violation] of codeRules) {
    it(sentence, () =>
      assert.deepEqual(
        sources.filter(rule).map(({ path }) => path),
        [],
      ),
    );
    it(`${sentence}: a violation is seen`, () => assert.ok(rule(violation)));
  }
});

type MigrationRule = (source: Source) => string[];

const lacks =
  (form: RegExp, why: string): MigrationRule =>
  ({ path, text }) =>
    [...flat(text).matchAll(new RegExp(form, 'g'))].map(([found]) => `${path}: ${found}: ${why}`);

const eachTable =
  (judge: (table: { name: string; body: string; after: string }) => string[]): MigrationRule =>
  ({ path, text }) =>
    tablesOf(text)
      .filter(({ body }) => /\btenant_id\b/.test(body))
      .flatMap((table) =>
        judge({ ...table, after: flat(text.slice(table.end)) }).map((why) => `${path}: ${table.name} ${why}`),
      );

const columnsBegin = (body: string, form: RegExp): string[] =>
  [...body.matchAll(form)].filter(([, columns]) => !/^ ?tenant_id\b/.test(columns!)).map(([found]) => found);

const migrationRules: [sentence: string, rule: MigrationRule, violations: string[]][] = [
  [
    'there are no triggers',
    lacks(
      /create (or replace )?(constraint )?trigger|returns (event_)?trigger/,
      'a distributed table has none',
    ),
    ['create trigger t before insert on memories for each row execute function f();'],
  ],
  [
    'there are no numbers the database counts',
    lacks(
      /\b(big|small)?serial\b|\bgenerated (always|by default) as identity\b|\bcreate sequence\b/,
      'ids come from the application',
    ),
    [
      'create table a (tenant_id text not null, id bigserial);',
      'create table a (n bigint generated always as identity);',
    ],
  ],
  [
    'no reference is set to null by a deletion',
    lacks(/on (delete|update) set (null|default)/, 'refused when the tenant is part of the reference'),
    ['alter table a add foreign key (tenant_id, b) references b (tenant_id, id) on delete set null;'],
  ],
  [
    'no column takes its value from the clock or from chance',
    lacks(
      /default (now\(\)|current_timestamp|gen_random_uuid\(\)|random\(\)|clock_timestamp\(\))/,
      'the application gives it',
    ),
    ['create table a (tenant_id text not null, created_at timestamptz not null default now());'],
  ],
  [
    'every table with a tenant is stamped',
    eachTable(({ name, after }) =>
      new RegExp(`select stamp_tenant_table\\('${name}'`).test(after)
        ? []
        : ['is not stamped after it is made'],
    ),
    [
      'create table a (tenant_id text not null, primary key (tenant_id));',
      `select stamp_tenant_table('a'); create table a (tenant_id text not null, primary key (tenant_id));`,
    ],
  ],
  [
    'the tenant is text, there, and the first column of every key',
    eachTable(({ body }) => [
      ...(/^tenant_id text not null\b(?! collate)/.test(body)
        ? []
        : ['does not begin with tenant_id text not null']),
      ...(/\bprimary key \( ?tenant_id\b/.test(body)
        ? []
        : ['has no primary key that begins with tenant_id']),
      ...columnsBegin(body, /\bunique (?:nulls not distinct )?\(([^)]*)\)/g).map((found) => `has ${found}`),
      ...columnsBegin(body, /\bforeign key \(([^)]*)\)/g).map((found) => `has ${found}`),
      ...columnsBegin(body, /\breferences \w+ ?\(([^)]*)\)/g).map((found) => `has ${found}`),
      ...[...body.matchAll(/, (\w+) \w+[^,]*\b(references|unique|primary key)\b/g)]
        .filter(([, column]) => !['primary', 'unique', 'foreign', 'constraint', 'check'].includes(column!))
        .map(([, column, kind]) => `has ${kind} on ${column} alone`),
    ]),
    [
      'create table a (id uuid not null, tenant_id text not null, primary key (tenant_id, id));',
      'create table a (tenant_id text not null, id uuid primary key);',
      'create table a (tenant_id text not null, id uuid, primary key (id, tenant_id));',
      'create table a (tenant_id text not null, b text, primary key (tenant_id), unique (b));',
      'create table a (tenant_id text not null, b uuid references b (id), primary key (tenant_id));',
      'create table a (tenant_id varchar not null, primary key (tenant_id));',
    ],
  ],
  [
    'every reference is to a table with a tenant',
    eachTable(({ body }) =>
      [...body.matchAll(/\breferences (\w+)/g)]
        .filter(([, table]) => !tenantTables.has(table!))
        .map(([, table]) => `refers to ${table}, which has no tenant`),
    ),
    [
      'create table a (tenant_id text not null, primary key (tenant_id), foreign key (tenant_id) references signing_keys (kid));',
    ],
  ],
  [
    'every unique index begins with the tenant',
    ({ path, text }) =>
      columnsBegin(
        flat(text),
        /create unique index (?:concurrently )?\w+ on \w+(?: using \w+)? ?\(([^)]*)\)/g,
      ).map((found) => `${path}: ${found}`),
    ['create unique index a_b on a (b, tenant_id);'],
  ],
  [
    'the tenant is set by enter() alone',
    ({ path, text }) =>
      [...flat(text).matchAll(/set_config ?\(|set (?:local |session )?app\./g)]
        .filter(
          ({ index }) =>
            !/create function enter\(tenant text\)[^;]*(?:;[^$]*)?$/.test(flat(text).slice(0, index)),
        )
        .map(() => `${path}: sets the tenant outside enter()`),
    [
      `create function other() returns void language sql as $$ select set_config('app.tenant_id', 't1', true) $$;`,
    ],
  ],
  [
    'indexes are dropped one by one',
    lacks(/drop index (concurrently )?(if exists )?\w+ ?,/, 'one statement each'),
    ['drop index a, b;'],
  ],
];

describe('migrations', () => {
  for (const [sentence, rule, violations] of migrationRules) {
    it(sentence, () => assert.deepEqual(migrations.flatMap(rule), []));
    it(`${sentence}: a violation is seen`, () => {
      for (const text of violations)
        assert.notEqual(rule({ path: 'migrations/0000_x.sql', text }).length, 0, text);
    });
  }

  it('are numbered without gaps, one concern each', () => {
    const numbers = migrations.map(({ path }) => Number(/(\d{4})_[a-z0-9_]+\.sql$/.exec(path)?.[1]));
    assert.deepEqual(
      numbers,
      numbers.map((_, i) => i + 1),
    );
  });
});
