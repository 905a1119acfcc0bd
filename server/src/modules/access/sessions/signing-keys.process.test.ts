import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  type Caller,
  callServer,
  eventually,
  newDataDir,
  newSession,
  newTenant,
  startServer,
} from '#test/harness.ts';
import type { Running } from '../../../app.ts';
import { retireSigningKeys, rotateSigningKey, rotateWhenDue } from './signing-keys.ts';

const publishS = 2;
const kidOf = (token: string): string =>
  JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()).kid;

describe('signing keys', () => {
  let server: Running;
  let ann: Caller;
  before(async () => {
    server = await startServer({ SIGNING_KEY_PUBLISH_S: String(publishS) });
    ann = await newTenant('user', server);
  });
  after(() => server.stop());

  const ask = async (text: string, values: unknown[] = []) =>
    (await server.app.database.operatorPool.query(text, values)).rows;
  const published = async () => {
    const reply = await callServer(server, 'GET', '/.well-known/jwks.json');
    return { headers: reply.headers, kids: reply.body.keys.map(({ kid }: { kid: string }) => kid) };
  };
  const works = async (token: string) =>
    (await callServer(server, 'GET', '/v1/identity/me', { token })).status === 200;
  const anotherToken = async () => (await newSession(ann, server)).access_token;
  /** As if all keys had been made so much earlier. */
  const age = (hours: number) =>
    ask('update signing_keys set signs_from = signs_from - make_interval(hours => $1)', [hours]);
  const signsBy = (kid: string) =>
    eventually('the key to sign', async () => kidOf(await anotherToken()) === kid);

  it('are published with a word on how long that holds, and without their private half', async () => {
    const { body, headers } = await callServer(server, 'GET', '/.well-known/jwks.json');
    assert.equal(headers['cache-control'], 'public, max-age=1');
    const key = body.keys.find(({ kid }: { kid: string }) => kid === kidOf(ann.token));
    assert.deepEqual(Object.keys(key).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x']);
    assert.equal(key.crv, 'Ed25519');
    const lasting = await startServer();
    try {
      const reply = await callServer(lasting, 'GET', '/.well-known/jwks.json');
      assert.equal(reply.headers['cache-control'], 'public, max-age=300');
    } finally {
      await lasting.stop();
    }
  });

  it('change without logging anybody out: the new one is published first and the old one goes on verifying', async () => {
    const before = await newSession(ann, server);
    const old = kidOf(before.access_token);
    const next = await rotateSigningKey(server.app);
    assert.ok(next.made && next.kid !== old);
    assert.ok(Date.parse(next.signs_from) - Date.now() > (publishS - 1) * 1_000);
    await eventually('the new key to be published', async () => (await published()).kids.includes(next.kid));
    const meanwhile = await anotherToken();
    if (Date.now() < Date.parse(next.signs_from)) assert.equal(kidOf(meanwhile), old);
    await signsBy(next.kid);
    assert.ok(Date.now() >= Date.parse(next.signs_from));
    for (const token of [ann.token, before.access_token, meanwhile, await anotherToken()])
      assert.ok(await works(token));
    assert.ok((await published()).kids.includes(old));
  });

  it('are one, however many make one at once, and none is made while one waits to sign', async () => {
    const rotations = await Promise.all(Array.from({ length: 12 }, () => rotateSigningKey(server.app)));
    assert.equal(rotations.filter(({ made }) => made).length, 1);
    assert.equal(new Set(rotations.map(({ kid }) => kid)).size, 1);
    const { kid } = rotations[0]!;
    const later = await rotateSigningKey(server.app);
    assert.deepEqual({ kid: later.kid, made: later.made }, { kid, made: false });
    const facts = await ask('select type from facts where resource_id = $1', [kid]);
    assert.deepEqual(facts, [{ type: 'signing_key.created' }]);
    await signsBy(kid);
  });

  it('change by themselves when they are old, and only then', async () => {
    const newest = async () =>
      (await ask('select kid from signing_keys where retired_at is null order by signs_from desc limit 1'))[0]
        .kid;
    const current = await newest();
    await rotateWhenDue(server.app);
    assert.equal(await newest(), current);
    await age(24 * 89);
    await rotateWhenDue(server.app);
    assert.equal(await newest(), current);
    await age(24);
    await Promise.all([rotateWhenDue(server.app), rotateWhenDue(server.app)]);
    const next = await newest();
    assert.notEqual(next, current);
    await rotateWhenDue(server.app);
    assert.equal(await newest(), next);
    await signsBy(next);
  });

  it('are retired when none of their tokens can live, private half and all', async () => {
    const session = await newSession(ann, server);
    const next = await rotateSigningKey(server.app);
    await signsBy(next.kid);
    assert.ok(await works(session.access_token));
    await age(24);
    await retireSigningKeys(server.app);
    assert.ok((await published()).kids.includes(kidOf(session.access_token)), 'not before');
    await age(2);
    await retireSigningKeys(server.app);
    await eventually('one key to be left', async () => {
      const { kids } = await published();
      return kids.length === 1 && kids[0] === next.kid;
    });
    const rows = await ask('select private_jwk from signing_keys where kid = $1', [
      kidOf(session.access_token),
    ]);
    assert.deepEqual(rows, [{ private_jwk: null }]);
    // What such a token was once found to be counts no more, and its session is whole.
    assert.equal(await works(session.access_token), false);
    const { body } = await callServer(server, 'POST', '/v1/sessions/refresh', {
      body: { refresh_token: session.refresh_token },
    });
    assert.ok(await works(body.access_token));
  });
});

it('a server with another ENCRYPTION_KEY says so at its start', async () => {
  const same = { DATA_DIR: newDataDir() };
  await (await startServer(same)).stop();
  await assert.rejects(
    startServer({ ...same, ENCRYPTION_KEY: 'a third secret that nothing was stored with' }),
    /signing keys can not be read: ENCRYPTION_KEY/,
  );
});
