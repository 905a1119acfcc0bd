import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { queueMail, sendMail } from '#modules/access/mails/service.ts';
import { readConfig } from '#platform/config.ts';
import { systemCtx } from '#platform/context.ts';
import type { Resealed } from '#platform/db/reseal.ts';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { createLog } from '#platform/log.ts';
import { command } from '#test/command.ts';
import { type Caller, callServer, emptyDatabase, engine, environmentOf, newTenant } from '#test/harness.ts';
import { type Mailbox, openMailbox } from '#test/mailbox.ts';
import { codeOf, enableMfa, forgetSteps, newPerson, type Person } from '#test/people.ts';
import { openApp, type Running, rewrapAll, sealedColumns, start } from '../src/app.ts';

// The key that encrypts is changed, everything is encrypted anew by one command, and the old key is not needed any more.

/** Bytes that ENCRYPTION_KEY does not seal, and why. A new column of bytes belongs here or into `sealedColumns`. */
const otherwise: Record<string, string> = {
  'api_keys.secret_hash': 'a keyed hash',
  'attempts.key': 'a keyed hash',
  'data_keys.wrapped': 'wrapped by the key of data keys, which the command changes as well',
  'documents.content': 'the document',
  'documents.content_hash': 'a hash',
  'documents.next_content': 'the document',
  'idempotency_keys.request_hash': 'a keyed hash',
  'invitations.token_hash': 'a keyed hash',
  'login_names.name_hash': 'a keyed hash',
  'memories.sealed': 'sealed with a data key',
  'memory_erased.hash': 'a keyed hash',
  'memory_import_chunks.sealed': 'sealed with a data key',
  'memory_tombstones.hash': 'a keyed hash',
  'memory_versions.sealed': 'sealed with a data key',
  'mfa_backup_codes.code_hash': 'a keyed hash',
  'mfa_challenges.token_hash': 'a keyed hash',
  'password_reset_requests.name_hash': 'a keyed hash',
  'password_resets.token_hash': 'a keyed hash',
  'policy_decisions.hash': 'a hash',
  'run_checkpoint_writes.value': 'state of a run',
  'run_checkpoints.checkpoint': 'state of a run',
  'run_checkpoints.metadata': 'state of a run',
  'sessions.previous_hash': 'a keyed hash',
  'sessions.refresh_hash': 'a keyed hash',
  'sessions.successor_salt': 'a salt',
  'sso_codes.code_hash': 'a keyed hash',
  'sso_states.browser_hash': 'a keyed hash',
  'sso_states.state_hash': 'a keyed hash',
  'term_changes.trigrams': 'how many texts have which trigrams, by their hashes',
  'term_changes.words': 'how many texts have which words, by their hashes',
};

const firstKey = 'the first key of encryption, rather long';
const secondKey = 'the second key of encryption, as long as';
const mail = { to: 'ann@example.com', subject: 'On its way', text: 'swordfish', html: '<p>swordfish</p>' };

describe('an encryption key that is changed', () => {
  let env: Record<string, string>;
  let mailbox: Mailbox;
  let server: Running | undefined;
  /** Without a worker: mails wait, and nothing is encrypted anew but by the command. */
  const begin = async (more: Record<string, string>) => {
    server = await start(readConfig({ ...env, ...more }), createLog('fatal'), { serve: true, work: false });
    return server;
  };
  const end = async () => {
    await server?.stop();
    server = undefined;
  };
  before(async () => {
    if (engine === 'postgres') await emptyDatabase(process.env.DATABASE_URL!);
    mailbox = await openMailbox();
    env = environmentOf({ SMTP_URL: mailbox.url, MAIL_FROM: 'House <house@example.com>' });
  });
  after(async () => {
    await end();
    mailbox.close();
  });

  /** What the command does, without another process. */
  async function rewrapped(more: Record<string, string>): Promise<Pick<Resealed, 'resealed' | 'unopened'>> {
    const { app, close } = await openApp(readConfig({ ...env, ...more }), createLog('silent'));
    const done = await rewrapAll(app);
    await close();
    const sum = (name: 'resealed' | 'unopened') => done.reduce((total, one) => total + one[name], 0);
    return { resealed: sum('resealed'), unopened: sum('unopened') };
  }

  let ann: Person;
  let other: Caller;
  let secret = '';
  const ids: Record<string, string> = {};
  const provider = {
    id: 'idp',
    name: 'One',
    issuer: 'https://idp.example',
    client_id: 'client',
    client_secret: 'the secret of the client',
  };
  const answered = {
    body: { text: 'answered before', type: 'note', sensitive: true },
    headers: { 'idempotency-key': 'once' },
  };

  it('has encrypted something in each of its columns', async () => {
    const { app } = await begin({ ENCRYPTION_KEY: firstKey });
    ann = await newPerson({ server: server! });
    other = await newTenant('admin', server);
    ({ secret } = await enableMfa(ann));
    for (const who of [ann, other]) {
      const made = await callServer(server!, 'POST', '/v1/memory/', { token: who.token, ...answered });
      assert.equal(made.status, 201, made.text);
      ids[who.tenant] = made.body.id;
      const provided = await callServer(server!, 'POST', '/v1/admin/identity/providers', {
        token: who.token,
        body: provider,
      });
      assert.equal(provided.status, 201, provided.text);
    }
    const setup = await callServer(server!, 'POST', '/v1/auth/mfa/setup', { token: other.token });
    assert.equal(setup.status, 200, setup.text);
    ids.setup = setup.body.secret;
    const ctx = systemCtx(app, ann.tenant, uuidv7());
    await ctx.db.batch(queueMail(ctx, 'greeting', mail));
    for (const { table, column } of sealedColumns.filter((one) => !one.table.startsWith('sso_'))) {
      const { rows } = await app.database.operatorPool.query(
        `select 1 from ${table} where ${column} is not null`,
      );
      assert.ok(rows.length > 0, `${table}.${column}`);
    }
    await end();
  });

  it('is replaced by one command, for every column', async () => {
    const keys = { ENCRYPTION_KEY: secondKey, ENCRYPTION_KEY_PREVIOUS: firstKey };
    const { unopened } = await rewrapped({ ENCRYPTION_KEY: secondKey });
    assert.ok(unopened > 0, 'without the old key it says what it can not open');
    const said = await command({ ...env, ...keys }, 'keys', 'rewrap');
    assert.equal(said.code, 0, said.err);
    const counts = Object.fromEntries(
      said.out.trim().split('\n').map((line) => line.split('\t').slice(0, 2)),
    ); // biome-ignore format: short
    assert.deepEqual(counts, {
      data_keys: '4',
      signing_keys: '1',
      mfa_factors: '1',
      mfa_setups: '1',
      identity_providers: '2',
      sso_states: '0',
      sso_codes: '0',
      mails: '1',
      idempotency_keys: '2',
    });
    assert.deepEqual(await rewrapped(keys), { resealed: 0, unopened: 0 });
  });

  it('is not needed any more: tokens, second factors, providers, memories, answers and mails work without it', async () => {
    const { app } = await begin({ ENCRYPTION_KEY: secondKey });
    const as = (who: Caller, method: string, url: string, more: object = {}) =>
      callServer(server!, method, url, { token: who.token, ...more });
    for (const who of [ann, other]) {
      const read = await as(who, 'GET', `/v1/memory/${ids[who.tenant]}`);
      assert.equal(read.body.text, 'answered before', read.text);
      const replayed = await as(who, 'POST', '/v1/memory/', answered);
      assert.equal(replayed.headers['idempotency-replayed'], 'true');
      assert.equal(replayed.body.id, ids[who.tenant]);
    }
    const published = (await callServer(server!, 'GET', '/.well-known/jwks.json')).body;
    assert.equal(published.keys.length, 1, 'no new signing key was needed');
    const { username, password } = ann;
    const signIn = { body: { username, password } };
    const awaited = (await callServer(server!, 'POST', '/v1/auth/login', signIn)).body;
    await forgetSteps({ ...ann, server: server! });
    const passed = await callServer(server!, 'POST', '/v1/auth/mfa/challenge', {
      body: { mfa_token: awaited.mfa_token, code: codeOf(secret) },
    });
    assert.equal(passed.status, 200, passed.text);
    const verified = await as(other, 'POST', '/v1/auth/mfa/verify', { body: { token: codeOf(ids.setup!) } });
    assert.equal(verified.status, 200, verified.text);
    const [waiting] = await app.database.tenant(ann.tenant).rows<{ id: string }>(
      sql`select id from mails where tenant_id = ${ann.tenant}`,
    ); // biome-ignore format: short
    await sendMail(systemCtx(app, ann.tenant, uuidv7()), waiting!.id);
    assert.match((await mailbox.nth(mail.to, 1)).text!, /swordfish/);
    const { secretOf } = await import('#modules/access/sso/providers.ts');
    const { findProvider } = await import('#modules/access/sso/store.ts');
    for (const { tenant } of [ann, other]) {
      const row = await findProvider(app.database.tenant(tenant), provider.id);
      assert.equal(secretOf(app, row!), provider.client_secret);
    }
  });

  it('seals every column of bytes that is not on the list of others', async () => {
    const { rows } = await server!.app.database.operatorPool.query<{ name: string }>(`
      select t.relname || '.' || a.attname as name from pg_attribute a
      join pg_class t on t.oid = a.attrelid and t.relkind = 'r'
      join pg_namespace n on n.oid = t.relnamespace and n.nspname = 'public'
      where a.atttypid = 'bytea'::regtype and not a.attisdropped order by 1`);
    const known = [
      ...Object.keys(otherwise),
      ...sealedColumns.map(({ table, column }) => `${table}.${column}`),
    ];
    assert.deepEqual(rows.map(({ name }) => name), known.sort()); // biome-ignore format: short
  });
});
