import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CircuitState } from 'cockatiel';
import { createBreaker, outsideCalls, stateOf } from './resilience.ts';

const hangs = ({ signal }: { signal: AbortSignal }) =>
  new Promise<never>((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

test('callers that leave do not take the service away from the others', async () => {
  const breaker = createBreaker();
  const calls = outsideCalls({ timeoutMs: 5_000, retries: 3, breaker });
  for (let i = 0; i < 10; i++) {
    const caller = new AbortController();
    const call = calls.execute(hangs, caller.signal);
    caller.abort(new Error('gone'));
    await assert.rejects(call, /gone/);
  }
  assert.equal(stateOf(breaker), 'closed');
  assert.equal(await calls.execute(async () => 'an answer'), 'an answer');
});

test('a service that fails or hangs five times in a row is left alone', async () => {
  for (const fails of [hangs, () => Promise.reject(new Error('down'))]) {
    const breaker = createBreaker();
    const calls = outsideCalls({ timeoutMs: 5, retries: 0, breaker });
    for (let i = 0; i < 5; i++) await assert.rejects(calls.execute(fails));
    assert.equal(stateOf(breaker), 'open');
    await assert.rejects(
      calls.execute(async () => 'an answer'),
      { isBrokenCircuitError: true },
    );
  }
});

test('a caller that leaves while a service is tried again does not speak for it', async () => {
  const breaker = createBreaker(undefined, 50);
  const calls = outsideCalls({ timeoutMs: 5_000, retries: 0, breaker });
  for (let i = 0; i < 5; i++) await assert.rejects(calls.execute(() => Promise.reject(new Error('down'))));
  assert.equal(stateOf(breaker), 'open');
  await sleep(60);
  const caller = new AbortController();
  const call = calls.execute(hangs, caller.signal);
  assert.equal(breaker.state, CircuitState.HalfOpen);
  caller.abort(new Error('gone'));
  await assert.rejects(call, /gone/);
  assert.equal(breaker.state, CircuitState.Open);
  // Nor does it keep the next one from trying: else who comes and goes all the time would keep the service from all.
  assert.equal(stateOf(breaker), 'half_open');
  assert.equal(await calls.execute(async () => 'an answer'), 'an answer');
  assert.equal(breaker.state, CircuitState.Closed);
});
