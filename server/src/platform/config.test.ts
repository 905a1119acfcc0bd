import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { environmentOf } from '#test/harness.ts';
import { ConfigError, readConfig, withoutEffect } from './config.ts';

describe('settings of the originals', () => {
  const lifeOf = (more: Record<string, string>) =>
    readConfig({ ...environmentOf(), ACCESS_TOKEN_TTL_S: '', ...more }).ACCESS_TOKEN_TTL_S;

  it('say the life of an access token in minutes', () => {
    assert.equal(lifeOf({}), 900);
    assert.equal(lifeOf({ JWT_EXPIRATION_MINUTES: '30' }), 1_800);
    assert.equal(lifeOf({ JWT_EXPIRATION_MINUTES: '2', ACCESS_TOKEN_TTL_S: '120' }), 120);
  });

  it('are refused where they are out of bounds, or say something else than ours', () => {
    assert.throws(
      () => lifeOf({ JWT_EXPIRATION_MINUTES: '30', ACCESS_TOKEN_TTL_S: '900' }),
      (error: Error) =>
        error instanceof ConfigError &&
        /JWT_EXPIRATION_MINUTES=30 and ACCESS_TOKEN_TTL_S=900/.test(error.message),
    );
    for (const bad of ['0', '1441', '2.5', 'soon'])
      assert.throws(() => lifeOf({ JWT_EXPIRATION_MINUTES: bad }), /JWT_EXPIRATION_MINUTES must be/);
  });

  it('that have no effect are told, without what they hold', () => {
    assert.deepEqual(withoutEffect(readConfig(environmentOf())), []);
    const [sentence, ...more] = withoutEffect(readConfig(environmentOf({ JWT_SECRET_KEY: 'hush' })));
    assert.match(sentence!, /^JWT_SECRET_KEY is not used/);
    assert.ok(!sentence!.includes('hush'));
    assert.deepEqual(more, []);
  });
});
