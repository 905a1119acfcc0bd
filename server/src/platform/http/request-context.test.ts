import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, it } from 'node:test';
import { RequestContext } from './request-context.ts';

describe('the signal of a request', () => {
  const contextOf = (raw: object): RequestContext =>
    new (RequestContext as any)(
      { closing: new AbortController().signal, database: { tenant: () => ({}) } },
      't1',
      {},
      { id: 'r1', method: 'GET', url: '/', params: {}, headers: {} },
      { raw },
      { method: 'GET', path: '/' },
    );
  const response = (state: object) => Object.assign(new EventEmitter(), { writableFinished: false }, state);

  it('is aborted when the client leaves, also when it left before anybody asked for it', () => {
    const raw = response({ destroyed: false });
    const { signal } = contextOf(raw);
    assert.equal(signal.aborted, false);
    raw.emit('close');
    assert.equal(signal.aborted, true);
    assert.equal(contextOf(response({ destroyed: true })).signal.aborted, true);
    assert.equal(contextOf(response({ destroyed: true, writableFinished: true })).signal.aborted, false);
  });
});
