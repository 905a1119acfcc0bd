import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type Caller,
  callServer,
  engine,
  eventually,
  newMember,
  newTenant,
  startServer,
  testServer,
  useTestServer,
} from '#test/harness.ts';

useTestServer();

const rule = { and: [{ '==': [{ var: 'resource' }, 'memory'] }, { '==': [{ var: 'action' }, 'list'] }] };

// The embedded database has one process.
const withProcesses: typeof it = engine === 'postgres' ? it : ((() => {}) as unknown as typeof it);

describe('a change of a policy', () => {
  for (const redis of process.env.REDIS_URL ? [true, false] : [false]) {
    withProcesses(`is obeyed by another process ${redis ? 'with' : 'without'} Redis`, async () => {
      await testServer();
      const settings: Record<string, string> = redis ? {} : { REDIS_URL: '' };
      const [one, two] = [
        await startServer(settings, { serve: true, work: false }),
        await startServer(settings, { serve: true, work: false }),
      ];
      try {
        const admin = await newTenant('admin', one);
        const user: Caller = await newMember(admin, 'user', one);
        const there = () => callServer(two, 'GET', '/v1/memory/', { token: user.token });
        assert.equal((await there()).status, 200, 'and keeps in mind what it read');
        const { body } = await admin.call('POST', '/v1/policy/', { role: 'user', rule, effect: 'deny' });
        await eventually('the denial', async () => (await there()).status === 403);
        assert.equal((await admin.call('DELETE', `/v1/policy/${body.id}`)).status, 204);
        await eventually('its end', async () => (await there()).status === 200);
      } finally {
        await one.stop();
        await two.stop();
      }
    });
  }

  it('is obeyed by the next request to the process that made it', async () => {
    const admin = await newTenant();
    const user = await newMember(admin, 'user');
    for (let i = 0; i < 5; i++) {
      const { body } = await admin.call('POST', '/v1/policy/', { role: 'user', rule, effect: 'deny' });
      assert.equal((await user.call('GET', '/v1/memory/')).status, 403);
      await admin.call('POST', `/v1/policy/bulk-delete`, { policy_ids: [body.id] });
      assert.equal((await user.call('GET', '/v1/memory/')).status, 200);
    }
  });
});
