import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { before, describe, it } from 'node:test';
import {
  address,
  type Caller,
  call,
  newKey,
  newMember,
  newTenant,
  type Reply,
  useTestServer,
} from '#test/harness.ts';

// The client of npm, as its documentation uses it; and the paths of the open-source server, which has no client there.

useTestServer();
// It tells its makers of each call otherwise.
process.env.MEM0_TELEMETRY = 'false';
const { MemoryClient } = await import('mem0ai');

const conversation = [
  { role: 'user' as const, content: "Hi, I'm Alex. I'm a vegetarian and I'm allergic to nuts." },
  {
    role: 'assistant' as const,
    content: "Hello Alex! I've noted your nut allergy for any food we talk about.",
  },
];

describe('the client of mem0', () => {
  let ann: Caller;
  let hers: InstanceType<typeof MemoryClient>;
  let his: InstanceType<typeof MemoryClient>;
  const clientOf = async ({ token }: Caller) => {
    const client = new MemoryClient({ apiKey: token, host: await address() });
    await client.ping();
    return client;
  };

  before(async () => {
    ann = await newTenant();
    hers = await clientOf(await newKey(ann));
    his = await clientOf(await newKey(await newTenant()));
  });

  it('adds a conversation, searches, lists, and deletes it, for its own tenant only', async () => {
    const added: any = await hers.add(conversation, { userId: 'alex', metadata: { food: 'vegan' } });
    assert.equal(added.results.length, 2);
    assert.equal(added.results[0].memory, conversation[0]!.content);
    await hers.add([{ role: 'user', content: 'I am allergic to bees.' }], { userId: 'sam' });

    const filters = { user_id: 'alex' };
    const { results } = await hers.search('What is Alex allergic to?', { filters });
    assert.equal(results[0]!.memory, conversation[0]!.content);
    assert.deepEqual([results[0]!.userId, results[0]!.metadata], ['alex', { food: 'vegan' }]);
    assert.ok(results[0]!.score! > 0);
    assert.deepEqual(new Set(results.map(({ userId }) => userId)), new Set(['alex']));
    const { results: none } = await his.search('What is Alex allergic to?', { filters });
    assert.deepEqual(none, []);

    const page = await hers.getAll({ filters, pageSize: 1 });
    assert.deepEqual([page.results.length, page.count, page.previous], [1, null, null]);
    const next = await hers.getAll({ filters: { AND: [filters] }, page: 2, pageSize: 1 });
    assert.deepEqual([next.results.length, next.count, next.next], [1, 2, null]);
    const beyond = await hers.getAll({ filters, page: 99, pageSize: 10 });
    assert.deepEqual([beyond.results, beyond.count, beyond.next], [[], null, null]);
    assert.notEqual(next.results[0]!.id, page.results[0]!.id);
    assert.deepEqual((await his.getAll({ filters })).results, []);

    await his.deleteAll({ userId: 'alex' });
    assert.equal((await hers.getAll({ filters })).count, 2, 'his are not hers');
    await hers.deleteAll({ userId: 'alex' });
    assert.equal((await hers.getAll({ filters })).count, 0);
    assert.equal((await hers.getAll({ filters: { user_id: 'sam' } })).count, 1);
  });

  it('refuses filters that name somebody else than the search does', async () => {
    const stored = { text: 'I like tea', type: 'note', metadata: { user_id: 'kim' } };
    assert.equal((await ann.call('POST', '/v1/memory/', stored)).status, 201);
    const find = (body: object) => ann.call('POST', '/v3/memories/search/', { query: 'tea', ...body });
    for (const [named, filters] of [
      [{ user_id: 'alex' }, { user_id: 'kim' }],
      [{ run_id: 'r1' }, { AND: [{ run_id: 'r2' }] }],
      [{ user_id: 'alex' }, { metadata: { user_id: 'kim' } }],
    ])
      assert.equal((await find({ ...named, filters })).status, 422);
    const same = await find({ user_id: 'kim', filters: { user_id: 'kim' } });
    assert.deepEqual(
      same.body.results.map(({ user_id }: { user_id: string }) => user_id),
      ['kim'],
    );
    const odd = await find({ user_id: 'kim', filters: { metadata: { constructor: 'a name like others' } } });
    assert.deepEqual([odd.status, odd.body.results], [200, []]);
  });

  it('searches and lists only of somebody who is named', async () => {
    const [mine, other] = [await newTenant(), await newTenant()];
    for (const who of [mine, other]) {
      const client = await clientOf(who);
      const stored = {
        text: 'Sushi is on the table',
        type: 'note',
        metadata: { user_id: 'kim', topic: 'food' },
      };
      assert.equal((await who.call('POST', '/v1/memory/', stored)).status, 201);
      for (const filters of [
        undefined,
        {},
        { AND: [] },
        { OR: [{}] },
        { metadata: { topic: 'food' } },
        { metadata: { user_id: 'kim' } },
        { AND: [{ OR: [{ metadata: { topic: 'food' } }] }] },
      ]) {
        const given = filters ? { filters } : {};
        await assert.rejects(client.search('sushi', given), /is required, or agent_id/);
        await assert.rejects(client.getAll(given), /is required, or agent_id/);
        for (const [path, body] of [
          ['/v1/memories/search/', { query: 'sushi' }],
          ['/v2/memories/search/', { query: 'sushi', user_id: null }],
          ['/v3/memories/search/', { query: 'sushi' }],
          ['/search', { query: 'sushi' }],
          ['/v2/memories/', {}],
          ['/v2/memories/?page=1', {}],
          ['/v3/memories/', {}],
        ] as const) {
          const { status, body: answer } = await who.call('POST', path, { ...body, ...given });
          assert.deepEqual([status, answer.error.details.errors[0].path], [422, '/user_id'], path);
        }
      }
      for (const filters of [{ user_id: 'kim' }, { AND: [{ OR: [{ user_id: 'kim' }] }] }]) {
        assert.equal((await client.search('sushi', { filters })).results.length, 1);
        assert.equal((await client.getAll({ filters })).count, 1);
      }
      const several = { OR: [{ user_id: 'kim' }, { metadata: { topic: 'food' } }] };
      await assert.rejects(client.search('sushi', { filters: several }), /not supported/);
    }
  });

  it('does not take * for a name', async () => {
    const messages = 'Anybody';
    for (const name of ['user_id', 'agent_id', 'app_id', 'run_id'])
      for (const [method, path, body] of [
        ['POST', '/v3/memories/add/', { messages, [name]: '*' }],
        ['POST', '/v3/memories/search/', { query: 'x', [name]: '*' }],
        ['POST', '/v3/memories/search/', { query: 'x', filters: { [name]: '*' } }],
        ['POST', '/v3/memories/', { filters: { AND: [{ user_id: 'kim' }, { [name]: '*' }] } }],
        ['GET', `/v1/memories/?${name}=*`],
        ['DELETE', `/v1/memories/?${name}=*`],
        ['DELETE', `/memories?${name}=*`],
      ] as const)
        for (const who of [ann, await newTenant()]) {
          const { status, text } = await who.call(method, path, body);
          assert.equal(status, 422, `${method} ${path}`);
          assert.match(text, /not supported here/);
        }
  });

  it('takes an id of dots for one that is not there', async () => {
    const server = await address();
    // As it is: clients resolve such a path.
    const statusOf = async (method: string, path: string) => {
      const sent = request(server, { method, path, headers: { authorization: `Bearer ${ann.token}` } }).end();
      const [reply] = (await once(sent, 'response')) as [IncomingMessage];
      reply.resume();
      return reply.statusCode;
    };
    for (const id of ['%2e', '%2e%2e', '%2E.'])
      for (const [method, path] of [
        ['GET', `/v1/memories/${id}/`],
        ['DELETE', `/v1/memories/${id}/`],
        ['GET', `/v1/memories/${id}/history/`],
        ['GET', `/v1/event/${id}/`],
      ] as const)
        assert.equal(await statusOf(method, path), 404, `${method} ${path}`);
  });

  it('gets, updates and deletes one memory, and reads its history', async () => {
    const added: any = await hers.add([{ role: 'user', content: 'I live in Oslo' }], {
      userId: 'kim',
      runId: 'trip-1',
      infer: false,
      metadata: { topic: 'home' },
      expirationDate: '2099-12-31',
    });
    assert.equal(added.status, 'SUCCEEDED');
    const [{ id }] = added.results;
    const memory = await hers.get(id);
    assert.deepEqual(
      [memory.memory, memory.userId, memory.runId, memory.metadata, memory.expirationDate],
      ['I live in Oslo', 'kim', 'trip-1', { topic: 'home' }, '2099-12-31'],
    );
    await hers.update(id, { text: 'I live in Bergen' });
    await hers.update(id, { metadata: { topic: 'city' } });
    const after = await hers.get(id);
    assert.deepEqual(
      [after.memory, after.userId, after.metadata],
      ['I live in Bergen', 'kim', { topic: 'city' }],
      'whose it is stays',
    );
    const history = await hers.history(id);
    assert.deepEqual(
      history.map(({ event, oldMemory, newMemory }) => [event, oldMemory, newMemory]),
      [
        ['ADD', null, 'I live in Oslo'],
        ['UPDATE', 'I live in Oslo', 'I live in Bergen'],
        ['UPDATE', 'I live in Bergen', 'I live in Bergen'],
      ],
    );
    for (const attempt of [
      () => his.get(id),
      () => his.update(id, { text: 'Mine' }),
      () => his.delete(id),
      () => his.history(id),
    ])
      await assert.rejects(attempt, /not found/i);
    await hers.delete(id);
    await assert.rejects(hers.get(id), /not found/i);
    assert.equal((await ann.call('POST', `/v1/memory/${id}/restore`)).status, 200, 'the store is one');
  });

  it('says what it does not know, instead of finding nothing', async () => {
    await assert.rejects(
      hers.search('words', { filters: { OR: [{ user_id: 'a' }, { user_id: 'b' }] } }),
      /not supported/,
    );
    await assert.rejects(hers.getAll({ filters: { created_at: { gte: '2026-01-01' } } }), /not supported/);
    await assert.rejects(hers.getAll({ filters: { metadata: { age: { gt: 3 } } } }), /not supported/);
    await assert.rejects(hers.add(conversation, {}), /is required/);
    await assert.rejects(
      hers.add(conversation, { userId: 'alex', customInstructions: 'x' }),
      /not a known field/,
    );
  });
});

describe('the door of mem0', () => {
  let ann: Caller;
  let bob: Caller;
  before(async () => {
    ann = await newTenant();
    bob = await newTenant();
  });
  const ask = (who: Caller, method: string, url: string, body?: unknown): Promise<Reply> =>
    call(method, url, {
      headers: { authorization: `Token ${who.token}` },
      ...(body === undefined ? {} : { body }),
    });

  it('has the paths of the open-source server', async () => {
    const added = await ask(ann, 'POST', '/memories', {
      messages: 'Ada prefers tea',
      user_id: 'ada',
      agent_id: 'host',
    });
    assert.equal(added.status, 200, added.text);
    const [{ id, event }] = added.body.results;
    assert.equal(event, 'ADD');
    const found = await ask(ann, 'POST', '/search', { query: 'what does Ada prefer?', agent_id: 'host' });
    assert.deepEqual(
      found.body.results.map((one: any) => [one.id, one.user_id]),
      [[id, 'ada']],
    );
    const listed = await ask(ann, 'GET', '/memories?user_id=ada');
    assert.deepEqual(
      listed.body.results.map((one: any) => one.id),
      [id],
    );
    assert.equal((await ask(ann, 'PUT', `/memories/${id}`, { text: 'Ada prefers coffee' })).status, 200);
    assert.equal((await ask(ann, 'GET', `/memories/${id}`)).body.memory, 'Ada prefers coffee');
    assert.equal((await ask(ann, 'GET', `/memories/${id}/history`)).body.length, 2);
    assert.equal((await ask(ann, 'GET', `/v1/event/${id}/`)).body.status, 'SUCCEEDED');
    for (const [who, event] of [
      [bob, id],
      [ann, 'zzz'],
    ] as const) {
      const { status, body } = await ask(who, 'GET', `/v1/event/${event}/`);
      assert.deepEqual([status, body.error.message], [404, 'Event not found.']);
    }

    assert.deepEqual((await ask(bob, 'POST', '/search', { query: 'Ada', user_id: 'ada' })).body.results, []);
    assert.deepEqual((await ask(bob, 'GET', '/memories?user_id=ada')).body.results, []);
    for (const [method, path] of [
      ['GET', ''],
      ['GET', '/history'],
      ['DELETE', ''],
    ] as const)
      assert.equal((await ask(bob, method, `/memories/${id}${path}`)).status, 404);
    assert.equal((await ask(bob, 'DELETE', '/memories?user_id=ada')).status, 200);
    assert.equal((await ask(ann, 'DELETE', '/memories')).status, 422, 'whose must be said');
    assert.equal((await ask(ann, 'DELETE', `/memories/${id}`)).status, 200);
    assert.equal((await ask(ann, 'GET', `/memories/${id}`)).status, 404);
  });

  it('has the paths that former clients of the hosted service call, by what they say with each request', async () => {
    for (const [who, other] of [
      [ann, bob],
      [bob, ann],
    ] as const) {
      const pong = (await ask(who, 'GET', '/v1/ping')).body;
      const project = { org_id: pong.org_id, project_id: pong.project_id };
      const inQuery = new URLSearchParams(project);
      const send = async (method: string, path: string, more: object = {}) => {
        const reply = await ask(who, method, path, { ...project, ...more });
        assert.equal(reply.status, 200, `${method} ${path} ${reply.text}`);
        return reply.body;
      };
      const messages = [{ role: 'user', content: 'Ray keeps bees' }];
      const added = await send('POST', '/v1/memories/', {
        messages,
        user_id: 'ray',
        infer: false,
        version: 'v2',
        output_format: 'v1.1',
      });
      const [{ id }] = added.results;
      await send('POST', '/v1/memories', { messages: 'Ray sells honey', user_id: 'ray', infer: false });

      const search = { query: 'what does Ray keep?', top_k: 1, filter_memories: false };
      const filters = { AND: [{ user_id: 'ray' }] };
      for (const path of ['/v2/memories/search/', '/v2/memories/search', '/v1/memories/search/']) {
        const found = await send('POST', path, { ...search, filters });
        assert.deepEqual([Array.isArray(found), found.map((one: any) => one.id)], [true, [id]], path);
        const wrapped = await send('POST', path, { ...search, user_id: 'ray', output_format: 'v1.1' });
        assert.deepEqual(wrapped.results, found);
      }
      const all = await send('POST', '/v2/memories/', { filters });
      assert.deepEqual(
        all.map((one: any) => one.memory),
        ['Ray sells honey', 'Ray keeps bees'],
      );
      assert.deepEqual(await send('POST', '/v2/memories/', { user_id: 'ray' }), all);
      assert.deepEqual(
        (await send('POST', '/v2/memories/', { filters, output_format: 'v1.1' })).results,
        all,
      );
      const page = await send('POST', '/v2/memories/?page=1&page_size=1', { filters });
      assert.deepEqual([page.results, page.next], [[all[0]], '/v2/memories/?page=2&page_size=1']);
      const byQuery = (more = '') => ask(who, 'GET', `/v1/memories/?user_id=ray&${inQuery}${more}`);
      assert.deepEqual((await byQuery()).body, all);
      assert.deepEqual((await byQuery('&page=2&page_size=1')).body.results, [all[1]]);

      assert.equal((await ask(who, 'GET', `/v1/memories/${id}/?${inQuery}`)).body.memory, 'Ray keeps bees');
      assert.equal((await ask(who, 'GET', `/v1/memories/${id}/history/?${inQuery}`)).status, 200);
      const named = await ask(who, 'PUT', `/v1/memories/${id}/?${inQuery}`, { text: 'Ray keeps wasps' });
      assert.equal(named.status, 200);
      for (const reply of [
        await ask(other, 'POST', '/v2/memories/search/', { ...search, ...project, filters }),
        await ask(other, 'GET', `/v1/memories/?user_id=ray&${inQuery}`),
        await ask(who, 'POST', '/v2/memories/', { filters, project_id: 'another' }),
      ])
        assert.equal(reply.status, 422, 'of another organisation or project');
      assert.equal((await ask(who, 'DELETE', `/v1/memories/${id}/?${inQuery}`)).status, 200);
      assert.equal((await ask(who, 'DELETE', `/v1/memories/?user_id=ray&${inQuery}`)).status, 200);
      assert.deepEqual(await send('POST', '/v2/memories/', { filters }), []);
    }
  });

  it('names the day it can not keep a memory to as the client does', async () => {
    for (const who of [ann, bob])
      for (const expiration_date of ['2020-01-01', '2091-02-30', '2091-13-01']) {
        const { status, body } = await ask(who, 'POST', '/v1/memories/', {
          messages: 'for a while',
          user_id: 'ray',
          expiration_date,
        });
        assert.deepEqual([status, body.error.details.errors[0].path], [422, '/expiration_date']);
      }
  });

  it('takes nothing blank', async () => {
    for (const who of [ann, bob])
      for (const [path, body, field] of [
        ['/v3/memories/add/', { messages: ' \n', user_id: 'ray' }, '/messages'],
        [
          '/v1/memories/',
          { messages: [{ role: 'user', content: '\t' }], user_id: 'ray' },
          '/messages/0/content',
        ],
        ['/v2/memories/search/', { query: ' ', user_id: 'ray' }, '/query'],
        ['/v3/memories/add/', { messages: 'a word', user_id: ' ' }, '/user_id'],
        ['/v1/memories/', { messages: 'a word', user_id: 'ray', run_id: '\t' }, '/run_id'],
      ] as const) {
        const { status, body: answer } = await ask(who, 'POST', path, body);
        assert.equal(status, 422, path);
        assert.deepEqual(answer.error.details.errors, [{ path: field, message: 'must not be blank' }], path);
      }
  });

  it('finds what was stored by it where messages are always sensitive', async () => {
    const [admin, stranger] = [await newTenant(), await newTenant()];
    const ann = await newMember(admin, 'user');
    const types = { types: ['message'] };
    const note = { text: 'The clinic of Ida is closed', type: 'note', metadata: { agent_id: 'desk' } };
    await ann.call('POST', '/v1/memory/', note);
    assert.equal((await admin.call('PUT', '/v1/admin/memory/sensitive-types', types)).status, 200);
    for (const [who, user_id] of [
      [ann, 'ida'],
      [admin, 'ben'],
    ] as const) {
      await ask(who, 'POST', '/v1/memories/', {
        messages: `The clinic of ${user_id} opens at nine`,
        user_id,
        agent_id: 'desk',
      });
      for (const [path, body] of [
        ['/v3/memories/search/', { filters: { user_id } }],
        ['/search', { user_id }],
      ] as const) {
        const { results } = (await ask(who, 'POST', path, { query: 'when does the clinic open?', ...body }))
          .body;
        assert.deepEqual(
          results.map((one: any) => [one.memory, one.score > 0.6]),
          [[`The clinic of ${user_id} opens at nine`, true]],
        );
      }
    }
    const find = async (who: Caller, more: object = { agent_id: 'desk' }) =>
      (await ask(who, 'POST', '/search', { query: 'clinic', ...more })).body.results.map(
        (one: any) => one.memory,
      );
    assert.deepEqual(
      new Set(await find(ann)),
      new Set(['The clinic of ida opens at nine', 'The clinic of Ida is closed']),
    );
    assert.equal((await find(ann, { agent_id: 'desk', limit: 1 })).length, 1);
    assert.deepEqual(await find(admin, { user_id: 'ida' }), [], 'an admin opens its own only');
    assert.deepEqual(await find(stranger), []);
    // What is encrypted stays so when its type is taken away.
    assert.equal((await admin.call('PUT', '/v1/admin/memory/sensitive-types', { types: [] })).status, 200);
    await ask(ann, 'POST', '/memories', {
      messages: 'The clinic has a garden',
      user_id: 'ida',
      infer: false,
    });
    assert.deepEqual(
      new Set(await find(ann, { user_id: 'ida' })),
      new Set(['The clinic of ida opens at nine', 'The clinic has a garden']),
    );
    assert.deepEqual(await find(admin, { user_id: 'ben' }), ['The clinic of ben opens at nine']);
    const listed = (await ask(ann, 'GET', '/memories?user_id=ida')).body.results;
    assert.ok(listed.some(({ memory }: any) => memory === 'The clinic of ida opens at nine'));
    assert.deepEqual(await find(stranger), []);
    assert.ok(!(await find(admin, { user_id: 'ida' })).includes('The clinic of ida opens at nine'));
  });

  it('takes keys of either scheme, and only here', async () => {
    const key = await newKey(ann);
    const pong = { status: 'ok', org_id: ann.tenant, project_id: 'default' };
    assert.deepEqual((await ask(key, 'GET', '/v1/ping/')).body, pong);
    assert.equal((await key.call('GET', '/v1/ping/')).status, 200);
    assert.equal((await call('GET', '/v1/ping/', { headers: { 'x-api-key': key.token } })).status, 200);
    assert.equal((await ask(key, 'GET', '/v1/memory/')).status, 401, 'no other route knows the scheme');
    await ann.call('DELETE', `/v1/api-keys/${key.keyId}`);
    assert.equal((await ask(key, 'GET', '/v1/ping/')).status, 401);
  });

  it('asks for the permissions that the routes of memories ask for', async () => {
    const scoped = async (scope: string) => newKey(ann, { scopes: [scope] });
    const [searching, listing] = [await scoped('memory:search'), await scoped('memory:list')];
    const add = { messages: 'Words', user_id: 'ada' };
    const find = { query: 'words', user_id: 'ada' };
    assert.equal((await ask(searching, 'POST', '/search', find)).status, 200);
    for (const reply of [
      await ask(searching, 'POST', '/memories', add),
      await ask(searching, 'POST', '/v3/memories/', { user_id: 'ada' }),
      await ask(listing, 'POST', '/search', find),
    ])
      assert.deepEqual([reply.status, reply.body.error.code], [403, 'AUTH_FORBIDDEN']);
    const id = (await ask(ann, 'POST', '/memories', add)).body.results[0].id;
    assert.equal((await ask(listing, 'DELETE', `/memories/${id}`)).status, 403);
    assert.equal((await ask(listing, 'DELETE', '/memories?user_id=ada')).status, 403);
    const user = await newMember(ann, 'user');
    assert.equal((await ask(user, 'GET', `/memories/${id}`)).status, 404, 'of another identity');
    assert.deepEqual((await ask(user, 'GET', '/memories?user_id=ada')).body.results, []);
  });

  it('does once what comes twice with one Idempotency-Key', async () => {
    const send = () =>
      call('POST', '/v3/memories/add/', {
        token: ann.token,
        headers: { 'idempotency-key': 'once' },
        body: { messages: 'The key is under the fern', user_id: 'fern', infer: false },
      });
    const first = await send();
    assert.deepEqual((await send()).body.results, first.body.results);
    const listed = await ask(ann, 'GET', '/memories?user_id=fern');
    assert.equal(listed.body.results.length, 1);
  });
});
