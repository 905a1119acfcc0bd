import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { flushDecisions } from '#modules/access/decisions/service.ts';
import { identityJobs } from '#modules/access/identity/jobs.ts';
import { type ForgetTenant, purgeTenants } from '#modules/access/tenants/jobs.ts';
import { findErasure } from '#modules/knowledge/memory/erasure-store.ts';
import { forgetMemoriesOf } from '#modules/knowledge/memory/service.ts';
import { sweepErasure } from '#modules/knowledge/memory/sweep.ts';
import { forgetRunsOf } from '#modules/knowledge/runs/service.ts';
import { systemCtx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  engine,
  eventually,
  newKey,
  newMember,
  newOperator,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { enableMfa, newPerson, type Person } from '#test/people.ts';
import { purgeDeletedTenants } from '../src/app.ts';

// What is removed for good is gone from every table there is. The tests ask the catalogue, so that a table which is made
// later is asked as well.

useTestServer();

const ask = async <Row extends Record<string, any>>(text: string, values: unknown[] = []): Promise<Row[]> =>
  (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;

const succeeded = (reply: Reply): any => {
  assert.ok(reply.status < 300, `${reply.status}: ${reply.text}`);
  return reply.body;
};

interface Column {
  name: string;
  type: string;
  wanted: boolean;
}

/** Tables with a tenant and their columns; copies of vectors come and go with other tests. */
async function tenantTables(): Promise<Map<string, Column[]>> {
  const rows = await ask<Column & { table: string }>(`
    select t.relname as table, a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
      a.attnotnull and not a.atthasdef as wanted
    from pg_class t join pg_namespace n on n.oid = t.relnamespace and n.nspname = 'public'
    join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    where t.relkind = 'r' and t.relname !~ '^segment_' and exists (
      select 1 from pg_attribute k where k.attrelid = t.oid and k.attname = 'tenant_id')
    order by 1, a.attnum`);
  return Map.groupBy(rows, ({ table }) => table);
}

const countIn = async (table: string, tenant: string): Promise<number> =>
  Number((await ask(`select count(*) from ${table} where tenant_id = $1`, [tenant]))[0]!.count);

function anyOf(type: string): string {
  const dimensions = /\((\d+)\)/.exec(type)?.[1];
  if (type === 'uuid') return `'${uuidv7()}'`;
  if (type.startsWith('timestamp')) return `'2030-01-01T00:00:00Z'`;
  if (type === 'boolean') return 'true';
  if (type === 'integer' || type === 'bigint') return '1';
  if (type === 'bytea') return `'\\x00'`;
  if (type === 'jsonb' || type === 'json') return `'{}'`;
  if (type.startsWith('vector')) return `'[1,2]'`;
  if (type.startsWith('sparsevec')) return `'{1:1}/${dimensions ?? 2}'`;
  if (type === 'text') return `'something'`;
  throw new Error(`the test has no value of the type ${type} yet`);
}

/** Puts a row into a table: what its constraints ask for, and otherwise anything. */
async function fill(table: string, columns: Column[], tenant: string): Promise<void> {
  const constraints = await ask<{ kind: string; text: string; columns: string[]; other: string | null; others: string[] }>(
    `select c.contype as kind, pg_get_constraintdef(c.oid) as text, c.confrelid::regclass::text as other,
       array(select attname::text from pg_attribute where attrelid = c.conrelid and attnum = any(c.conkey)
         order by array_position(c.conkey, attnum)) as columns,
       array(select attname::text from pg_attribute where attrelid = c.confrelid and attnum = any(c.confkey)
         order by array_position(c.confkey, attnum)) as others
     from pg_constraint c where c.conrelid = $1::regclass`,
    [table],
  ); // biome-ignore format: SQL
  const values = new Map(columns.filter(({ wanted }) => wanted).map(({ name, type }) => [name, anyOf(type)]));
  for (const { kind, text, columns: names } of constraints) {
    const literal = /'([a-z_]+)'::text/.exec(text)?.[1];
    if (kind === 'c' && names.length === 1 && literal && values.has(names[0]!)) values.set(names[0]!, `'${literal}'`);
  }
  values.set('tenant_id', `'${tenant}'`);
  for (const { kind, columns: names, other, others } of constraints) {
    if (kind !== 'f' || !names.some((name) => values.has(name) && name !== 'tenant_id')) continue;
    const [row] = await ask(`select ${others.join(', ')} from ${other} where tenant_id = $1 limit 1`, [tenant]);
    if (row) names.forEach((name, i) => void values.set(name, `'${row[others[i]!]}'`));
  }
  await ask(`insert into ${table} (${[...values.keys()].join(', ')}) values (${[...values.values()].join(', ')})`);
} // biome-ignore format: SQL

/** A tenant that has a row in every table, a spoken answer on the disk, and jobs. */
async function furnished(): Promise<Caller> {
  const admin = await newTenant('admin');
  filled.push(admin);
  const tables = await tenantTables();
  // Those that refer to others come again when these have a row.
  let empty = [...tables.keys()];
  for (let before = empty.length + 1; empty.length < before; ) {
    before = empty.length;
    const left: string[] = [];
    for (const table of empty) {
      if ((await countIn(table, admin.tenant)) > 0) continue;
      try {
        await fill(table, tables.get(table)!, admin.tenant);
      } catch (error) {
        const { code } = error as { code?: string };
        // Its own row came meanwhile: the relay works for it.
        if (code === '23505') continue;
        if (code !== '23503') throw error;
        left.push(table);
      }
    }
    empty = left;
  }
  assert.deepEqual(empty, [], 'the test can not fill these');
  const { app } = await testServer();
  const sound = async function* () {
    yield Buffer.from('sound');
  };
  await app.blobs.write(`audio/${admin.tenant}/${uuidv7()}.mp3`, sound(), 100);
  return admin;
}

/** How many rows of each table hold a word anywhere, of all tables of the database, the queue's included. */
async function rowsWith(word: string): Promise<Record<string, number>> {
  const tables = await ask<{ name: string }>(`
    select t.oid::regclass::text as name from pg_class t join pg_namespace n on n.oid = t.relnamespace
    where t.relkind = 'r' and n.nspname in ('public', 'pgboss')`);
  const found: Record<string, number> = {};
  for (const { name } of tables) {
    const [row] = await ask(`select count(*)::int from ${name} r where position($1 in r::text) > 0`, [word]);
    if (row!.count > 0) found[name] = row!.count;
  }
  return found;
}

const blobsOf = async ({ tenant }: Caller): Promise<string[]> => {
  const { app } = await testServer();
  return readdir(join(app.config.dataDir, 'audio', tenant)).catch(() => []);
};

const laterMs = 3_600_000;
/** Tenants with rows that mean nothing. */
const filled: Caller[] = [];

describe('a tenant that is deleted', () => {
  let operator: Caller;
  before(async () => {
    operator = await newOperator();
  });
  const path = ({ tenant }: Caller) => `/v1/admin/tenants/${tenant}`;

  it('leaves nothing in any table, the queue or the blobs, and takes nothing of another’s along', async () => {
    const { app } = await testServer();
    const [acme, other] = [await furnished(), await furnished()];
    const tables = [...(await tenantTables()).keys()];
    for (const table of tables) assert.ok((await countIn(table, acme.tenant)) > 0, `${table} has a row`);
    const rowsOf = ({ tenant }: Caller) => Promise.all(tables.map((table) => countIn(table, tenant)));
    const kept = await rowsOf(other);
    succeeded(await operator.call('PATCH', path(acme), { is_active: false }));
    const marked = await operator.call('DELETE', path(acme));
    assert.equal(marked.status, 202, marked.text);
    assert.ok(marked.body.data.deleted_at);
    await eventually('nobody else to be at work on it', async () =>
      (await purgeDeletedTenants(app)).purged.includes(acme.tenant),
    );
    assert.deepEqual(await blobsOf(acme), []);
    // The relay may have been at its facts; what it wrote goes with the next round.
    await eventually('the rows to be gone', async () => {
      await purgeDeletedTenants(app);
      const left = tables.filter((one) => one !== 'tenants');
      return (await Promise.all(left.map((table) => countIn(table, acme.tenant)))).every(
        (count) => count === 0,
      );
    });
    assert.equal((await operator.call('GET', path(acme))).status, 200, 'what is under way may still write');
    await ask(`insert into idempotency_keys (tenant_id, credential, method, path, key, request_hash, claim, claimed_until,
      created_at, expires_at) values ($1, 'c', 'POST', '/', 'k', '\\x00', $2, now(), now(), now())`, [acme.tenant, uuidv7()]); // biome-ignore format: SQL
    await eventually('all of it to be gone', async () => {
      await purgeDeletedTenants(app, Date.now() + laterMs);
      return (await countIn('tenants', acme.tenant)) === 0;
    });
    const { facts, ...elsewhere } = await rowsWith(acme.tenant);
    assert.deepEqual(elsewhere, {});
    const told = await ask('select tenant_id, type from facts where facts::text like $1 order by id', [
      `%${acme.tenant}%`,
    ]);
    assert.equal(told.length, facts);
    assert.ok(
      told.every(({ tenant_id }) => tenant_id === 'system'),
      'the operators’ ledger alone tells of it',
    );
    assert.deepEqual(
      told.map(({ type }) => type),
      ['tenant.deletion_requested', 'tenant.deleted'],
    );
    const left = await rowsOf(other);
    // Work of the tables that are queues goes on meanwhile.
    const still = [
      'api_keys',
      'chunks',
      'corpora',
      'documents',
      'facts',
      'identities',
      'memories',
      'policies',
      'sessions',
    ];
    for (const [i, table] of tables.entries())
      if (still.includes(table)) assert.ok(left[i]! >= kept[i]!, table);
    assert.equal((await blobsOf(other)).length, 1);
    assert.equal((await other.call('GET', '/v1/identity/me')).status, 200);
    assert.equal((await operator.call('GET', path(acme))).status, 404);
    assert.equal((await call('GET', '/v1/identity/me', { token: acme.token })).status, 401);
    assert.equal(
      (await operator.call('POST', '/v1/admin/tenants', { id: acme.tenant })).status,
      201,
      'free again',
    );
    assert.equal((await call('GET', '/v1/identity/me', { token: acme.token })).status, 401);
  });

  // Rows that are only there to be removed would occupy the schedules of the tests that follow.
  after(async () => {
    const { app } = await testServer();
    for (const one of filled) {
      await operator.call('PATCH', path(one), { is_active: false });
      await operator.call('DELETE', path(one));
    }
    await purgeDeletedTenants(app, Date.now() + laterMs);
  });

  const deleted = async (): Promise<Caller> => {
    const one = await newTenant('admin');
    succeeded(await operator.call('PATCH', path(one), { is_active: false }));
    assert.equal((await operator.call('DELETE', path(one))).status, 202);
    return one;
  };
  const isThere = async ({ tenant }: Caller) => (await countIn('tenants', tenant)) === 1;
  const later = () => Date.now() + laterMs;
  /** Until nobody else is at work on it, and its rows are gone, in two steps. */
  const purged = (one: Caller) =>
    eventually('the tenant to be gone', async () => {
      await purgeDeletedTenants((await testServer()).app, later());
      return !(await isThere(one));
    });

  it('goes also when one that was deleted before can not be removed', async () => {
    const { app } = await testServer();
    const [stuck, other] = [await deleted(), await deleted()];
    const failing: ForgetTenant = async (_, tenant) => {
      if (tenant === stuck.tenant) throw new Error('its blobs are away');
    };
    await eventually('the other to go', async () => {
      await purgeTenants(app, [failing], later());
      return !(await isThere(other));
    });
    assert.ok(await isThere(stuck));
    await purged(stuck);
  });

  it('stays while a job of its is at work', async () => {
    const { app } = await testServer();
    const [acme, other] = [await deleted(), await deleted()];
    await ask(
      `insert into pgboss.job (name, data, state) select name, $1, 'active' from pgboss.queue order by name limit 1`,
      [{ tenant_id: acme.tenant }],
    );
    await purged(other);
    await eventually('a purge that finds nothing else', async () => {
      const { purged } = await purgeTenants(app, [], later());
      return purged.includes(acme.tenant) && (await countIn('identities', acme.tenant)) === 0;
    });
    await purgeTenants(app, [], later());
    assert.ok(await isThere(acme));
    await ask(`delete from pgboss.job where data ->> 'tenant_id' = $1`, [acme.tenant]);
    await purged(acme);
  });

  // The embedded database has one process.
  if (engine === 'postgres')
    it('is removed by one process at a time', async () => {
      const { app } = await testServer();
      const [acme, other] = [await deleted(), await deleted()];
      let begun = false;
      const gate = Promise.withResolvers<void>();
      const waits: ForgetTenant = async (_, tenant) => {
        if (tenant !== acme.tenant) return;
        begun = true;
        await gate.promise;
      };
      const first = eventually('the first to be at it', async () => {
        await purgeTenants(app, [waits]);
        return begun;
      });
      await eventually('the first to have begun', async () => begun);
      await purged(other);
      assert.ok(!(await purgeTenants(app, [], later())).purged.includes(acme.tenant));
      assert.ok(await isThere(acme));
      gate.resolve();
      await first;
      await purged(acme);
    });

  it('has to be deactivated before, and does not come back', async () => {
    const [acme, other] = [await newTenant('admin'), await newTenant('admin')];
    const codeOf = async (reply: Promise<Reply>) => (await reply).body?.error?.code;
    assert.equal(await codeOf(operator.call('DELETE', path(acme))), 'TENANT_ACTIVE');
    assert.equal((await acme.call('GET', '/v1/identity/me')).status, 200);
    succeeded(await operator.call('PATCH', path(acme), { is_active: false }));
    const first = succeeded(await operator.call('DELETE', path(acme))).data.deleted_at;
    assert.equal(succeeded(await operator.call('DELETE', path(acme))).data.deleted_at, first);
    assert.equal(await codeOf(operator.call('PATCH', path(acme), { is_active: true })), 'TENANT_DELETED');
    assert.equal(await codeOf(other.call('DELETE', path(acme))), 'AUTH_FORBIDDEN');
    assert.equal(await codeOf(operator.call('DELETE', '/v1/admin/tenants/never-was')), 'NOT_FOUND');
    assert.equal(await codeOf(operator.call('DELETE', '/v1/admin/tenants/system')), 'NOT_FOUND');
  });
});

describe('an identity that is removed', () => {
  /** Somebody that has done, and was given, whatever leaves a trace. */
  async function busyPerson(admin: Caller): Promise<Person> {
    const email = `busy-${uuidv7().slice(-12)}@example.com`;
    const person = await newPerson({ by: admin, role: 'editor', email });
    const agent = await newMember(admin, 'agent');
    const { app } = await testServer();
    await enableMfa(person);
    await newKey(person);
    succeeded(await person.call('POST', `/v1/identity/${agent.id}/delegate`));
    const corpus = succeeded(await admin.call('POST', '/v1/corpora', { name: 'Corpus' })).data.id;
    const text = { corpus_id: corpus, text: 'The gate opens at nine.', filename: 'gate.md' };
    const document = succeeded(await person.call('POST', '/v1/documents/text', text)).data.document_id;
    const permissions = `/v1/documents/${document}/permissions`;
    const grant = { principal_type: 'user', principal_id: person.id, permission: 'write' };
    succeeded(await admin.call('POST', permissions, grant));
    succeeded(await person.call('POST', permissions, { ...grant, principal_type: 'role', principal_id: 'reader' }));
    const memory = (note: string, more: object = {}) =>
      person.call('POST', '/v1/memory/', { text: note, type: 'note', ...more });
    const changed = succeeded(await memory('The gate opens at nine.')).id;
    succeeded(await person.call('PUT', `/v1/memory/${changed}`, { text: 'The gate opens at ten.' }));
    succeeded(await memory('The code is swordfish.', { sensitive: true }));
    const erased = succeeded(await memory('To be erased.')).id;
    const erasure = succeeded(await person.call('POST', '/v1/memory/erase', { memory_ids: [erased] })).id;
    const line = `{"id":"one","text":"From a file.","type":"note"}\n`;
    const headers = { 'content-type': 'application/x-ndjson' };
    succeeded(await call('POST', '/v1/memory/import', { token: person.token, payload: line, headers }));
    const question = { session_id: 'talk', corpus_id: corpus, message: 'When does the gate open?', audio: true };
    succeeded(await person.call('POST', '/v1/run', question));
    const rule = { scope: 'identity', subject: person.id, endpoint: 'read', limit: 5, window_seconds: 60 };
    succeeded(await admin.call('PUT', '/v1/admin/rate-limits/rules', rule));
    const hers = succeeded(await admin.call('POST', '/v1/memory/', { text: 'The admin’s.', type: 'note' })).id;
    succeeded(await admin.call('PUT', `/v1/memory/${hers}`, { text: 'The admin’s own.' }));
    // What takes more than a moment, or another tenant's machinery, to come about.
    const now = new Date();
    await ask('update memory_versions set replaced_by = $2 where tenant_id = $1 and memory_id = $3', [admin.tenant, person.id, hers]);
    await ask('update memory_erasures set swept_at = $2 where id = $1', [erasure, now]);
    await ask(`insert into mails (tenant_id, id, kind, identity_id, status, created_at) values ($1, $2, 'notice', $3, 'failed', $4)`,
      [admin.tenant, uuidv7(), person.id, now]);
    await ask(`insert into sso_links (tenant_id, issuer, subject, identity_id, provider_id, created_at) values ($1, 'https://idp', $2::text, $2::uuid, 'idp', $3)`,
      [admin.tenant, person.id, now]);
    await ask(`insert into invitations (tenant_id, id, email, email_key, role, status, expires_in_days, expires_at, invited_by, mails_from, mails,
      created_at, updated_at) values ($1, $2::uuid, $2::text, $2::text, 'user', 'pending', 7, $3, $4, $3, 1, $3, $3)`,
      [admin.tenant, uuidv7(), now, person.id]);
    await flushDecisions(app, true);
    await eventually('document and import', async () => {
      const { status } = (await person.call('GET', `/v1/documents/${document}`)).body.data;
      const [imported] = await ask('select status from memory_imports where identity_id = $1', [person.id]);
      return status === 'succeeded' && imported?.status === 'succeeded';
    });
    return person;
  } // biome-ignore format: SQL

  /** Where an identity may still be named: the ledger and what is kept with it, which hold ids and nothing else of anybody. */
  const ledger = ['facts', 'policy_versions', 'memory_erasures'];

  it('leaves nothing but its id in the ledger, and takes nothing of anybody else’s along', async () => {
    const { app } = await testServer();
    const admin = await newTenant('admin');
    const [gone, stays] = [await busyPerson(admin), await busyPerson(admin)];
    const traces = async ({ id }: Caller) =>
      Object.fromEntries(
        Object.entries(await rowsWith(id)).filter(
          ([name]) => !ledger.includes(name) && !name.startsWith('pgboss.'),
        ),
      );
    const [before, kept] = [await traces(gone), await traces(stays)];
    for (const table of [
      'accounts', 'api_keys', 'delegations', 'document_permissions', 'documents', 'identities', 'invitations',
      'login_names', 'mails', 'memories', 'memory_imports', 'memory_sources', 'memory_tombstones', 'memory_versions',
      'mfa_backup_codes', 'mfa_factors', 'policy_decisions', 'rate_limit_rules', 'run_audio', 'run_checkpoints', 'run_messages',
      'run_sessions', 'runs', 'sessions', 'sso_links',
    ]) assert.ok(before[table]! > 0, `${table} names the person`); // biome-ignore format: a list
    assert.equal((await blobsOf(admin)).length, 2);
    succeeded(await admin.call('DELETE', `/v1/identity/${gone.id}?hard_delete=true`));
    // A process may have questions in mind that were asked before: the job comes again for those.
    await flushDecisions(app, true);
    await eventually('all traces to go', async () => Object.keys(await traces(gone)).length === 0).catch(
      async (error) => {
        throw new Error(`${error.message}: ${JSON.stringify(await traces(gone))}`);
      },
    );
    assert.equal((await blobsOf(admin)).length, 1);
    const [asked] = await ask('select identity_id, actor from memory_erasures where receipt::text like $1', [
      `%${gone.id}%`,
    ]);
    assert.deepEqual(
      asked,
      { identity_id: null, actor: {} },
      'a signed receipt is all that is left of an erasure',
    );
    const { policy_decisions, ...others } = await traces(stays);
    assert.ok(policy_decisions! >= kept.policy_decisions!);
    assert.deepEqual({ policy_decisions: kept.policy_decisions, ...others }, kept);
    const texts = (await stays.call('GET', '/v1/memory/')).body.map(({ text }: { text: string }) => text);
    assert.deepEqual(texts, ['From a file.', 'The code is swordfish.', 'The gate opens at ten.']);
    const facts = await ask('select before, after, data from facts where facts::text like $1', [
      `%${gone.id}%`,
    ]);
    assert.ok(facts.length > 10 && !JSON.stringify(facts).includes('swordfish'));
  });

  it('is not named by an erasure that ends after it was removed', async () => {
    const { app } = await testServer();
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const [gone, stays] = [await newMember(admin, 'user'), await newMember(other, 'user')];
    const erase = async (who: Caller): Promise<string> =>
      succeeded(await who.call('POST', '/v1/memory/erase', { memory_ids: [uuidv7()] })).id;
    const [late, kept] = [await erase(gone), await erase(stays)];
    // Not swept before the test does it.
    for (const id of [late, kept])
      await ask(`update memory_erasures set created_at = now() + interval '1 day', swept_at = null where id = $1`, [id]);
    succeeded(await admin.call('DELETE', `/v1/identity/${gone.id}?hard_delete=true`));
    const named = async (id: string) => {
      const [row] = await ask('select identity_id, actor from memory_erasures where id = $1', [id]);
      return [row!.identity_id, row!.actor.identity_id ?? null];
    };
    assert.deepEqual(await named(late), [gone.id, gone.id], 'it works on somebody’s behalf');
    for (const [{ tenant }, id] of [[admin, late], [other, kept]] as const) {
      const ctx = systemCtx(app, tenant, uuidv7());
      await sweepErasure(ctx, (await findErasure(ctx.db, id))!);
    }
    assert.deepEqual(await named(late), [null, null]);
    assert.deepEqual(await named(kept), [stays.id, stays.id]);
  }); // biome-ignore format: SQL

  it('goes in steps, and is tried again after it failed', async () => {
    const { app } = await testServer();
    const [admin, other] = [await newTenant('admin'), await newTenant('admin')];
    const [gone, stays] = [await newMember(admin, 'user'), await newMember(other, 'user')];
    for (const { tenant, id } of [gone, stays]) {
      await ask(`insert into run_sessions (tenant_id, identity_id, id, corpus_id, created_at, updated_at)
        select $1, $2, 's' || n, 'c', now(), now() from generate_series(1, 250) n`, [tenant, id]);
      await ask(`insert into run_checkpoints (tenant_id, thread_id, id, checkpoint, metadata, created_at)
        select $1, $2 || ':s' || n, 'k', '', '', now() from generate_series(1, 500) n`, [tenant, id]);
      await ask(`insert into memory_sources (tenant_id, identity_id, source_id, memory_id)
        select $1, $2, n::text, gen_random_uuid() from generate_series(1, 1200) n`, [tenant, id]);
    }
    const job = identityJobs([async (ctx, id) => forgetMemoriesOf(ctx, id), async (ctx, id) => forgetRunsOf(ctx, id)])[0]!;
    const asked: unknown[] = [];
    const ctx = systemCtx({ ...app, enqueue: async (...what) => void asked.push(what) }, gone.tenant, uuidv7());
    const payload = { tenant_id: gone.tenant, fact_id: uuidv7(), resource_id: gone.id, data: { kind: 'hard_deleted' } };
    await job.failed!(ctx, payload, new Error('the database was away'));
    const [[name, [again], afterMs]] = asked as [[string, [typeof payload], number]];
    assert.deepEqual([name, again.resource_id, again.data], [job.name, gone.id, payload.data]);
    assert.ok(again.fact_id !== payload.fact_id && afterMs > 0);
    await job.run(ctx, again);
    for (const table of ['run_sessions', 'run_checkpoints', 'memory_sources']) {
      assert.equal(await countIn(table, gone.tenant), 0, table);
      assert.ok((await countIn(table, stays.tenant)) >= 250, table);
    }
  }); // biome-ignore format: SQL
});
