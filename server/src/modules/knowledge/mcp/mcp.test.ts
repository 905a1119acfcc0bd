import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { sql } from '#platform/db/sql.ts';
import {
  address,
  type Caller,
  call,
  eventually,
  newKey,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';

// The official client, over HTTP, against the server that runs.

useTestServer();

async function connect(token: string, headers: Record<string, string> = {}): Promise<Client> {
  const client = new Client({ name: 'a test', version: '1' });
  const requestInit = { headers: { authorization: `Bearer ${token}`, ...headers } };
  const transport = new StreamableHTTPClientTransport(new URL(`${await address()}/mcp`), { requestInit });
  await client.connect(transport as Parameters<typeof client.connect>[0]);
  // The client checks structured content against the schemas it was told of here.
  await client.listTools();
  return client;
}

/** What a tool answered; its text says the same. */
async function use(client: Client, name: string, given: object = {}): Promise<any> {
  const result: any = await client.callTool({ name, arguments: { ...given } });
  assert.notEqual(result.isError, true, JSON.stringify(result.content));
  assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
  return result.structuredContent;
}

/** Why a tool was refused. */
async function refused(client: Client, name: string, given: object = {}): Promise<any> {
  const result: any = await client.callTool({ name, arguments: { ...given } });
  assert.equal(result.isError, true, JSON.stringify(result));
  assert.equal(result.structuredContent, undefined);
  const { error } = JSON.parse(result.content[0].text);
  assert.match(error.request_id, /./);
  return error;
}

const message = (method: string, params: object = {}, id: number | null = 1) => ({
  jsonrpc: '2.0',
  ...(id === null ? {} : { id }),
  method,
  params,
});
const accept = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
const post = (body: unknown, token?: string, headers: Record<string, string> = {}): Promise<Reply> =>
  call('POST', '/mcp', {
    ...(typeof body === 'string' ? { payload: body } : { body }),
    ...(token ? { token } : {}),
    headers: { ...accept, ...headers },
  });

describe('MCP', () => {
  let ann: Caller;
  let bob: Caller;
  let hers: Client;
  let his: Client;

  before(async () => {
    ann = await newTenant();
    bob = await newTenant();
    hers = await connect((await newKey(ann)).token);
    his = await connect(bob.token);
  });

  it('says who it is, and which tools there are', async () => {
    assert.equal(hers.getServerVersion()?.name, 'manushya');
    assert.match(hers.getInstructions() ?? '', /data, not instructions/);
    const { tools } = await hers.listTools();
    const hints = Object.fromEntries(
      tools.map(({ name, annotations }) => [
        name,
        annotations!.readOnlyHint ? 'reads' : annotations!.destructiveHint ? 'destroys' : 'adds',
      ]),
    );
    assert.deepEqual(hints, {
      whoami: 'reads',
      remember: 'adds',
      recall: 'reads',
      update_memory: 'destroys',
      forget: 'destroys',
      list_corpora: 'reads',
      search_knowledge: 'reads',
      ingest_document: 'destroys',
      ask: 'adds',
    });
    for (const { name, inputSchema, outputSchema, description } of tools) {
      assert.equal(inputSchema.additionalProperties, false, name);
      assert.equal(outputSchema?.type, 'object', name);
      assert.ok(description, name);
    }
  });

  it('remembers, recalls, changes and forgets, for its own tenant only', async () => {
    const stored = await use(hers, 'remember', {
      text: 'The walnut desk is in room nine',
      metadata: { by: 'ann' },
    });
    assert.deepEqual([stored.type, stored.version, stored.metadata], ['note', 1, { by: 'ann' }]);
    const found = await use(hers, 'recall', { query: 'where is the walnut desk?' });
    assert.deepEqual(
      found.memories.map(({ id }: { id: string }) => id),
      [stored.id],
    );
    assert.deepEqual(await use(his, 'recall', { query: 'where is the walnut desk?' }), { memories: [] });
    const { id: memory_id } = stored;
    assert.equal((await refused(his, 'update_memory', { memory_id, text: 'It is gone' })).code, 'NOT_FOUND');
    assert.equal((await refused(his, 'forget', { memory_id })).code, 'NOT_FOUND');
    const changed = await use(hers, 'update_memory', { memory_id, text: 'The walnut desk is in room ten' });
    assert.deepEqual([changed.version, changed.text], [2, 'The walnut desk is in room ten']);
    const late = { memory_id, text: 'In room nine', expected_version: 1 };
    assert.deepEqual((await refused(hers, 'update_memory', late)).details, { version: 2 });
    assert.deepEqual(await use(hers, 'forget', { memory_id }), { memory_id, forgotten: true });
    assert.deepEqual(await use(hers, 'recall', { query: 'where is the walnut desk?' }), { memories: [] });
    assert.equal(
      (await ann.call('POST', `/v1/memory/${memory_id}/restore`)).status,
      200,
      'it can be restored',
    );
    await use(hers, 'forget', { memory_id, for_good: true });
    assert.equal((await ann.call('POST', `/v1/memory/${memory_id}/restore`)).status, 404);
  });

  it('takes nothing blank, no number that is not kept, and no search by vectors of what has none', async () => {
    const toldOf = async (client: Client, name: string, given: object) =>
      (await refused(client, name, given)).details.errors.map(({ path }: { path: string }) => path);
    for (const client of [hers, his]) {
      for (const [name, given, path] of [
        ['remember', { text: ' ' }, '/text'],
        ['remember', { text: 'a word', type: '\n' }, '/type'],
        ['recall', { query: ' \t' }, '/query'],
        ['ask', { question: ' ' }, '/question'],
        ['ask', { question: '' }, '/question'],
      ] as const)
        assert.deepEqual(await toldOf(client, name, given), [path], name);
      const blind = { query: 'words', mode: 'vector', sensitive: true };
      assert.deepEqual(await toldOf(client, 'recall', blind), ['/mode', '/sensitive']);
    }
    const body = JSON.stringify(
      message('tools/call', {
        name: 'remember',
        arguments: { text: 'A number', metadata: { n: 'here' } },
      }),
    ).replace('"here"', '9007199254740993');
    const { result } = (await post(body, ann.token)).body;
    const { error } = JSON.parse(result.content[0].text);
    assert.deepEqual([result.isError, error.details.errors[0].path], [true, '/metadata/n']);
  });

  it('calls no other route by an id of dots', async () => {
    for (const corpus_id of ['.', '..'])
      assert.equal((await refused(hers, 'search_knowledge', { corpus_id, query: 'desk' })).code, 'NOT_FOUND');
  });

  it('does a repeated call with one idempotency key once', async () => {
    const once = { text: 'The spare key lies under the fern', idempotency_key: 'fern' };
    const first = await use(hers, 'remember', once);
    assert.deepEqual(await use(hers, 'remember', once), first);
    const other = await refused(hers, 'remember', { ...once, text: 'Another text' });
    assert.equal(other.code, 'IDEMPOTENCY_KEY_CONFLICT');
    assert.notEqual((await use(his, 'remember', once)).id, first.id, 'a key is of one credential');
  });

  it('writes the facts that the route writes, under the request that came in', async () => {
    const client = await connect(ann.token, { 'x-request-id': 'a-tool-call', 'user-agent': 'agent/1' });
    const { id } = await use(client, 'remember', { text: 'The gate code changes on Fridays' });
    const { app } = await testServer();
    const facts = await app.database.tenant(ann.tenant).rows(sql`
        select type, actor_id, resource_id, user_agent from facts
        where tenant_id = ${ann.tenant} and request_id = 'a-tool-call'`);
    assert.deepEqual(facts, [
      { type: 'memory.created', actor_id: ann.id, resource_id: id, user_agent: 'agent/1' },
    ]);
  });

  it('searches and asks documents, for its own tenant only', async () => {
    const corpus_id = (await ann.call('POST', '/v1/corpora', { name: 'Handbook' })).body.data.id;
    const accepted = await use(hers, 'ingest_document', {
      corpus_id,
      text: '# Gates\n\nThe release gate opens when every check is green.',
      filename: 'gates.md',
    });
    await eventually('the document', async () => {
      const { body } = await ann.call('GET', `/v1/documents/${accepted.document_id}`);
      return body.data.status === 'succeeded';
    });
    const { corpora } = await use(hers, 'list_corpora');
    assert.deepEqual(
      corpora.map(({ id, name }: any) => [id, name]),
      [[corpus_id, 'Handbook']],
    );
    assert.deepEqual(await use(his, 'list_corpora'), { corpora: [], next_cursor: null });
    const query = 'When does the release gate open?';
    const [passage] = (await use(hers, 'search_knowledge', { corpus_id, query })).passages;
    assert.equal(passage.document_id, accepted.document_id);
    assert.match(passage.text, /every check is green/);
    const asked = await use(hers, 'ask', { corpus_id, question: query });
    assert.match(asked.answer, /every check is green/);
    assert.equal(asked.citations[0].source, `document://${accepted.document_id}`);
    const again = await use(hers, 'ask', { corpus_id, question: query, session_id: asked.session_id });
    assert.equal(again.session_id, asked.session_id);
    assert.notEqual(again.run_id, asked.run_id);
    const outside: [name: string, given: object][] = [
      ['search_knowledge', { query }],
      ['ask', { question: query }],
      ['ingest_document', { text: 'Mine now.' }],
    ];
    for (const [name, given] of outside) {
      const { request_id: _, ...error } = await refused(his, name, { corpus_id, ...given });
      const { request_id: __, ...none } = await refused(his, name, { corpus_id: 'never-was', ...given });
      assert.deepEqual(error, none, name);
      assert.equal(error.message, 'Corpus not found.', name);
    }
  });

  it('answers a question from memories where no corpus is named', async () => {
    await use(hers, 'remember', { text: 'The invoices of Aldgate are paid by card' });
    const asked = await use(hers, 'ask', { question: 'How are the invoices of Aldgate paid?' });
    assert.match(asked.citations[0].source, /^memory:/);
    assert.deepEqual(
      (await use(his, 'ask', { question: 'How are the invoices of Aldgate paid?' })).citations,
      [],
    );
  });

  it('tells who the caller is, so that its sensitive memories can be recalled', async () => {
    for (const [client, { id, tenant }] of [
      [hers, ann],
      [his, bob],
    ] as const) {
      const me = await use(client, 'whoami');
      assert.deepEqual([me.identity_id, me.role, me.tenant_id], [id, 'admin', tenant]);
      const text = `The safe of ${tenant} opens with a key`;
      const stored = await use(client, 'remember', { text, sensitive: true });
      assert.equal(stored.identity_id, id);
      const query = 'how does the safe open?';
      assert.deepEqual((await use(client, 'recall', { query })).memories, []);
      assert.equal((await refused(client, 'recall', { query, sensitive: true })).code, 'VALIDATION_ERROR');
      const { identity_id } = me;
      const { memories } = await use(client, 'recall', { query, sensitive: true, identity_id });
      assert.deepEqual(
        memories.map((memory: any) => [memory.text, memory.identity_id]),
        [[text, id]],
      );
    }
    const found = await use(his, 'recall', { query: 'safe', sensitive: true, identity_id: ann.id });
    assert.deepEqual(found.memories, []);
  });

  it('tells how far an answer is, to who asks to be told', async () => {
    const text = 'The bridge of Ambleside was built in 1810';
    for (const client of [hers, his]) {
      await use(client, 'remember', { text });
      const given = { name: 'ask', arguments: { question: 'When was the bridge of Ambleside built?' } };
      const told: { progress: number; message?: string }[] = [];
      const onprogress = (one: { progress: number; message?: string }) => told.push(one);
      const result: any = await client.callTool(given, undefined, { onprogress });
      assert.match(result.structuredContent.answer, /1810/);
      assert.deepEqual(
        told.slice(0, 2).map(({ progress, message }) => [progress, /\.$/.test(message!)]),
        [
          [1, true],
          [2, true],
        ],
      );
      assert.ok(told.every(({ progress }, i) => progress === i + 1));
      const unknown = { name: 'ask', arguments: { question: 'Words?', corpus_id: 'never-was' } };
      assert.equal((await client.callTool(unknown, undefined, { onprogress })).isError, true);
    }
    const _meta = { progressToken: 'p1' };
    const quick = { name: 'recall', arguments: { query: 'bridge' }, _meta };
    const answered = await post(message('tools/call', quick), ann.token);
    assert.match(
      String(answered.headers['content-type']),
      /^application\/json/,
      'a quick tool streams nothing',
    );
    const streamed = await post(
      message('tools/call', { name: 'ask', arguments: { question: 'When?' }, _meta }),
      ann.token,
    );
    assert.match(String(streamed.headers['content-type']), /^text\/event-stream/);
    const sent = [...streamed.text.matchAll(/^data: (.+)$/gm)].map(([, data]) => JSON.parse(data!));
    assert.deepEqual(
      [sent[0].method, sent[0].params.progressToken, sent.at(-1).id],
      ['notifications/progress', 'p1', 1],
    );
    const said = sent.slice(0, -1).map(({ params }) => params.message);
    // Each more than once where it takes long.
    assert.deepEqual(
      said.filter((one, i) => one !== said[i - 1]),
      ['What is known is being read.', 'The answer is being written.'],
    );
    const stranger = await post(message('tools/call', { name: 'ask', arguments: {}, _meta }), 'mk_nonsense');
    assert.equal(stranger.status, 401);
  });

  it('does with a limited key what its scopes allow, tool by tool', async () => {
    const needs: Record<string, [scope: string, given: object]> = {
      whoami: ['identity:read', {}],
      remember: ['memory:create', { text: 'Words' }],
      recall: ['memory:search', { query: 'words' }],
      update_memory: ['memory:update', { memory_id: 'none', text: 'Words' }],
      forget: ['memory:delete', { memory_id: 'none' }],
      list_corpora: ['corpora:list', {}],
      search_knowledge: ['documents:read', { corpus_id: 'none', query: 'words' }],
      ingest_document: ['documents:create', { corpus_id: 'none', text: 'Words' }],
      ask: ['runs:create', { question: 'Words?' }],
    };
    assert.deepEqual(
      Object.keys(needs),
      (await hers.listTools()).tools.map(({ name }) => name),
    );
    const narrow = await connect((await newKey(ann, { scopes: ['policy:test'] })).token);
    for (const [name, [scope, given]] of Object.entries(needs)) {
      const error = await refused(narrow, name, given);
      assert.equal(error.code, 'AUTH_FORBIDDEN', name);
      assert.ok(error.message.includes(scope), `${name}: ${error.message}`);
    }
    assert.deepEqual((await narrow.listTools()).tools, []);
    const asking = await connect((await newKey(ann, { scopes: ['runs:create', 'corpora:read'] })).token);
    const passages = await refused(asking, 'ask', { question: 'Words?', corpus_id: 'c1' });
    assert.ok(passages.message.includes('documents:read'), 'a run reads documents as a search does');
    const recalling = await connect((await newKey(ann, { scopes: ['memory:search'] })).token);
    assert.deepEqual(
      (await recalling.listTools()).tools.map(({ name }) => name),
      ['recall'],
      'told of what it may use',
    );
    await use(recalling, 'recall', { query: 'words' });
    assert.equal((await refused(recalling, 'remember', { text: 'Words' })).code, 'AUTH_FORBIDDEN');
  });

  it('tells what is wrong with arguments to the model, and what is wrong with a message to the client', async () => {
    const unknown = await refused(hers, 'remember', { text: 'Words', txet: 'Words' });
    assert.deepEqual(unknown.details.errors, [{ path: '/txet', message: 'is not a known field' }]);
    assert.equal((await refused(hers, 'recall', {})).code, 'VALIDATION_ERROR');
    assert.equal((await refused(hers, 'remember', { text: 'half \ud800' })).code, 'VALIDATION_ERROR');
    assert.equal((await refused(hers, 'forget', { memory_id: '../identity/me' })).code, 'NOT_FOUND');
    for (const memory_id of ['\ud800', 'a\u0000b'])
      assert.equal((await refused(hers, 'forget', { memory_id })).code, 'VALIDATION_ERROR');
    await assert.rejects(hers.callTool({ name: 'format_disk' }), {
      code: -32_602,
      message: 'MCP error -32602: There is no tool of that name; tools/list has all.',
    });
    for (const [method, params, path] of [
      ['tools/call', {}, 'params.name'],
      ['tools/call', { name: 'recall', arguments: [] }, 'params.arguments'],
      ['initialize', {}, 'params.protocolVersion'],
    ] as const) {
      const { status, body } = await post(message(method, params, 7), ann.token);
      assert.deepEqual([status, body.id, body.error.code], [200, 7, -32_602]);
      assert.match(body.error.message, new RegExp(`^${path}: [^\\n{]+$`));
    }
    for (const [body, code, status] of [
      ['{"jsonrpc":', -32_700, 400],
      ['[]', -32_600, 400],
      [[message('ping')], -32_600, 400],
      [{ hello: 'there' }, -32_700, 400],
      [{ jsonrpc: '1.0', id: 1, method: 'ping' }, -32_700, 400],
    ] as const) {
      const reply = await post(body, ann.token);
      assert.deepEqual(
        [reply.status, reply.body?.error?.code, reply.body?.id],
        [status, code, null],
        JSON.stringify(body),
      );
    }
    const missing = await post(message('no/such/method'), ann.token);
    assert.deepEqual([missing.status, missing.body.error.code, missing.body.id], [200, -32_601, 1]);
    const notification = await post(message('notifications/initialized', {}, null), ann.token);
    assert.deepEqual([notification.status, notification.text], [202, '']);
    const large = await post(
      message('tools/call', { name: 'remember', arguments: { text: 'x'.repeat(4_194_304) } }),
      ann.token,
    );
    assert.deepEqual([large.status, large.body.error.data.code], [413, 'PAYLOAD_TOO_LARGE']);
    assert.equal((await post(message('ping'), ann.token, { accept: 'text/html' })).status, 406);
    assert.equal((await post(message('ping'), ann.token, { 'content-type': 'text/plain' })).status, 415);
    assert.equal(
      (await post(message('ping'), ann.token, { 'mcp-protocol-version': '1999-01-01' })).status,
      400,
    );
  });

  it('keeps nothing between two requests, and has no stream of its own', async () => {
    for (const method of ['GET', 'DELETE']) {
      const reply = await call(method, '/mcp', {
        token: ann.token,
        headers: { accept: 'text/event-stream' },
      });
      assert.deepEqual([reply.status, reply.headers.allow], [405, 'POST']);
    }
    const began = await post(message('tools/list'), ann.token);
    assert.equal(began.headers['mcp-session-id'], undefined);
    assert.equal(began.body.result.tools.length, 9, 'no initialize came before');
  });

  it('wants a credential that holds, and says where to read how', async () => {
    const key = await newKey(ann);
    const gone = await connect(key.token);
    await use(gone, 'recall', { query: 'words' });
    assert.equal((await ann.call('DELETE', `/v1/api-keys/${key.keyId}`)).status, 204);
    await assert.rejects(gone.callTool({ name: 'recall', arguments: { query: 'words' } }), { code: 401 });
    for (const token of [undefined, key.token, 'mk_nonsense']) {
      const reply = await post(message('tools/list'), token);
      assert.deepEqual(
        [reply.status, reply.body.jsonrpc, reply.body.error.data.code],
        [401, '2.0', 'AUTH_UNAUTHORIZED'],
      );
      const challenge = String(reply.headers['www-authenticate']);
      const [, url] = /^Bearer resource_metadata="([^"]+)"$/.exec(challenge) ?? [];
      assert.ok(url, challenge);
      const { status, body } = await call('GET', new URL(url).pathname);
      assert.deepEqual(
        [status, body.resource, body.bearer_methods_supported],
        [200, 'http://manushya.test/mcp', ['header']],
      );
      assert.deepEqual((await call('GET', '/.well-known/oauth-protected-resource')).body, body);
    }
    const token = await post(message('tools/list'), undefined, { authorization: `Token ${ann.token}` });
    assert.equal(token.status, 401, 'the scheme of another door');
  });

  it('lets no page of a stranger in', async () => {
    for (const origin of ['http://evil.example', 'null', 'http://manushya.test.evil.example'])
      assert.equal((await post(message('tools/list'), ann.token, { origin })).status, 403, origin);
    const own = await post(message('tools/list'), ann.token, { origin: 'http://manushya.test' });
    assert.equal(own.status, 200);
  });
});
