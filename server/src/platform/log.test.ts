import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { ApiError, unavailable } from './errors.ts';
import { uuidv7 } from './ids.ts';
import { createLog } from './log.ts';

const away = (text = 'connect ECONNREFUSED 10.0.0.1:5432') =>
  Object.assign(new Error(text), { code: 'ECONNREFUSED' });

function listening() {
  const lines: any[] = [];
  const clock = { ms: 0 };
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  return { log: createLog('info', sink, () => clock.ms), lines, clock };
}

describe('the log, while the database is away or the server is full', () => {
  it('says the same once, and then every ten seconds with how often it was left out', () => {
    const { log, lines, clock } = listening();
    for (const ms of [0, 1, 9_999, 10_000, 10_001, 20_000, 40_000]) {
      clock.ms = ms;
      log.warn({ err: away() }, 'facts could not be relayed yet');
    }
    assert.deepEqual(
      lines.map(({ left_out }) => left_out),
      [undefined, 2, 1, undefined],
    );
  });

  it('takes for the same what meets several schedules, tenants and requests', () => {
    const { log, lines } = listening();
    for (const name of ['one', 'two'])
      log
        .child({ request_id: name })
        .warn({ err: away(), schedule: name, tenant_id: name, request_id: name }, 'failed');
    assert.equal(lines.length, 1);
    assert.equal(lines[0].schedule, 'one');
  });

  it('says once for all requests of a route that the server is full, and each refusal that is not for now', () => {
    const { log, lines } = listening();
    for (const route of ['/v1/memory/', '/v1/memory/', '/v1/run'])
      log.warn({ err: unavailable('SERVICE_BUSY', 'full', 1), route, request_id: uuidv7() }, 'SERVICE_BUSY');
    for (let i = 0; i < 2; i++)
      log.error({ err: new ApiError(500, 'INTERNAL_ERROR', 'x') }, 'INTERNAL_ERROR');
    assert.deepEqual(
      lines.map(({ route, msg }) => route ?? msg),
      ['/v1/memory/', '/v1/run', 'INTERNAL_ERROR', 'INTERNAL_ERROR'],
    );
  });

  it('hides nothing that is different, and no other error however often it comes', () => {
    const { log, lines } = listening();
    log.warn({ err: away() }, 'one');
    log.warn({ err: away() }, 'two');
    log.warn({ err: away('connect ECONNREFUSED 10.0.0.2:5432') }, 'one');
    log.warn({ err: away(), job: 'a', last: false }, 'one');
    log.warn({ err: away(), job: 'a', last: true }, 'one');
    const deadlock = Object.assign(new Error('deadlock detected'), { code: '40P01' });
    for (const err of [deadlock, deadlock, new TypeError('x'), new TypeError('x')]) log.warn({ err }, 'one');
    log.warn('one');
    log.warn('one');
    assert.equal(lines.length, 11);
  });
});
