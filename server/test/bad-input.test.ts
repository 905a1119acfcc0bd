import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { TSchema } from 'typebox';
import { Value } from 'typebox/value';
import type { Route } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  address,
  type Caller,
  type CallOptions,
  call,
  newOperator,
  newTenant,
  type Reply,
  useTestServer,
} from '#test/harness.ts';
import { newLibrary, stored } from '#test/uploads.ts';
import { routes } from '../src/app.ts';

// Every route is asked what it can not answer, as its own schema tells it: the answer is a documented 4xx in the one
// error shape, at once. New routes join by themselves.

useTestServer();

/** Permanent codes a refusal may carry, by status. */
const documented: Record<number, string[]> = {
  400: [
    'BAD_REQUEST',
    'IDEMPOTENCY_KEY_INVALID',
    'INVALID_CURSOR',
    'INVALID_URL',
    'MALFORMED_JSON',
    'MALFORMED_MULTIPART',
    'RESET_TOKEN_INVALID',
    'SSO_INVALID_CODE',
    'SSO_INVALID_STATE',
    'SSO_RETURN_TO_NOT_ALLOWED',
    'TENANT_ID_NOT_ALLOWED',
  ],
  401: ['AUTH_UNAUTHORIZED', 'INVALID_CREDENTIALS', 'MFA_CODE_INVALID', 'MFA_TOKEN_INVALID'],
  403: ['AUTH_FORBIDDEN', 'AUTHZ_DENIED', 'MFA_CODE_INVALID', 'PASSWORD_INVALID', 'POLICY_DENIED'],
  404: ['AUTHZ_PERMISSION_NOT_FOUND', 'NOT_FOUND', 'SSO_PROVIDER_NOT_FOUND'],
  405: ['METHOD_NOT_ALLOWED'],
  409: [
    'API_KEY_REVOKED',
    'CORPUS_EXISTS',
    'DOCUMENT_EXISTS',
    'IDENTITY_EXISTS',
    'IDENTITY_INACTIVE',
    'IDEMPOTENCY_IN_PROGRESS',
    'IDEMPOTENCY_KEY_CONFLICT',
    'IDEMPOTENCY_ANSWER_ERASED',
    'KEY_LIMIT_REACHED',
    'TENANT_EXISTS',
    'MFA_NOT_ENABLED',
    'MFA_NOT_SET_UP',
    'NO_PASSWORD',
    'IDENTITY_PROVIDER_EXISTS',
    'INVITATION_EXISTS',
    'POLICY_BUILTIN',
    'POLICY_LOCKS_OUT',
    'POLICY_PROTECTED',
    'IMPORT_NOT_UPLOADING',
    'IMPORT_OFFSET_MISMATCH',
    'IMPORT_UPLOADING',
    'MEMORY_ERASED',
    'MEMORY_EXPIRED',
    'VERSION_CONFLICT',
  ],
  413: ['PAYLOAD_TOO_LARGE'],
  415: ['UNSUPPORTED_MEDIA_TYPE', 'INGEST_UNSUPPORTED_CONTENT_TYPE'],
  422: ['VALIDATION_ERROR', 'INGEST_VALIDATION_ERROR', 'NOTHING_STORED', 'POLICY_TESTS_FAILED'],
  431: ['HEADERS_TOO_LARGE'],
};

/** Words that tell how the server is made. */
const inside =
  /\bat .+:\d+:\d+|node_modules|\/src\/|\.ts\b|\bFST_|\bERR_|\bselect\b.+\bfrom\b|\binsert into\b|\bviolates\b|\brelation "|\bcolumn "|syntax error|SQLSTATE|postgres|pglite|fastify|typebox|\bundefined\b|\[object |TypeError|RangeError/i;

const longest = 2_000;

async function within<T>(what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer within ${longest} ms`)), longest);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** Not found, or for a stream of events: told in it that there are none. */
function assertUnknown(what: string, reply: Reply): void {
  if (reply.status === 200 && String(reply.headers['content-type']).startsWith('text/event-stream'))
    assert.match(reply.text, /^event: message\ndata: \{"type":"resume\.unsupported",/, what);
  else assertRefused(what, reply, [400, 404]);
}

const statusesOf = (wanted: number | number[]): number[] => (Array.isArray(wanted) ? wanted : [wanted]);

/** Refused as documented, with one of these statuses. */
function assertRefused(what: string, reply: Reply, wanted: number | number[]): void {
  const about = `${what}: ${reply.status} ${reply.text.slice(0, 400)}`;
  assert.ok(statusesOf(wanted).includes(reply.status), about);
  assert.match(String(reply.headers['content-type']), /^application\/json/, about);
  const { error, meta, ...others } = reply.body;
  if (others.jsonrpc !== undefined) {
    assertJsonRpcError(about, reply);
    return;
  }
  if (typeof error === 'string') {
    assertOauthError(about, reply);
    return;
  }
  assert.deepEqual(others, {}, about);
  assert.ok(documented[reply.status]?.includes(error.code), `an undocumented code: ${about}`);
  assert.match(error.message, /^[A-Z].+\.$/s, about);
  assert.deepEqual(
    Object.keys(error).filter((key) => !['code', 'message', 'details'].includes(key)),
    [],
    about,
  );
  assert.equal(meta.api_version, 'v1', about);
  assert.equal(meta.request_id, reply.headers['x-request-id'], about);
  assert.doesNotMatch(reply.text, inside, about);
  if (reply.status === 401) assert.match(String(reply.headers['www-authenticate']), /^Bearer/, about);
  if (error.code === 'VALIDATION_ERROR') {
    assert.ok(error.details.errors.length > 0, about);
    for (const { path, message } of error.details.errors)
      assert.ok(typeof path === 'string' && typeof message === 'string' && message.length > 0, about);
  }
}

const oauthErrors = [
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'invalid_scope',
  'unsupported_grant_type',
];

/** RFC 6749, section 5.2. */
function assertOauthError(about: string, { body, text }: Reply): void {
  assert.deepEqual(Object.keys(body).sort(), ['error', 'error_description', 'meta'], about);
  assert.ok(oauthErrors.includes(body.error), about);
  assert.match(body.error_description, /^[\x20-\x7e]+\.$/, about);
  assert.doesNotMatch(text, inside, about);
}

/** JSON-RPC 2.0, section 5.1. */
function assertJsonRpcError(about: string, { status, body, text }: Reply): void {
  assert.deepEqual([Object.keys(body).sort(), body.id], [['error', 'id', 'jsonrpc'], null], about);
  assert.ok(Number.isInteger(body.error.code), about);
  // What JSON-RPC answers with 400 for is 422 elsewhere as well.
  const codes = [status, ...(status === 400 ? [422] : [])].flatMap((one) => documented[one] ?? []);
  assert.ok(codes.includes(body.error.data.code), about);
  assert.doesNotMatch(text, inside, about);
}

/** Answered or refused, but never a failure of the server's own. Routes for anybody may take a credential in the body. */
function assertSound(what: string, reply: Reply, route?: Route): void {
  if (reply.status >= 200 && reply.status < 300) return;
  assertRefused(what, reply, [400, ...(route?.public ? [401] : []), 403, 404, 409, 413, 415, 422]);
}

/** AuthZEN 1.0, section 10.1: unknown fields are ignored, and what is missing or of another type answers 400. */
const isAuthzen = ({ path }: Route): boolean => path.startsWith('/access/v1/');

const keyOf = ({ method, path }: Route): string => `${method} ${path}`;
const bare = (path: string): string => path.replace(/\/$/, '');
const hasParameters = ({ path }: Route): boolean => path.includes(':');
const pathOf = ({ path }: Route, value: string = uuidv7()): string => path.replace(/:[a-z_]+/g, value);
type Schema = TSchema & Record<string, any>;
const fieldsOf = (schema: unknown): [string, Schema][] =>
  Object.entries((schema as { properties?: Record<string, Schema> })?.properties ?? {});

/** The smallest value a schema accepts. */
function sampleOf(schema: Schema): any {
  if ('const' in schema) return schema.const;
  if (schema.anyOf) return sampleOf(schema.anyOf[0]);
  switch (schema.type) {
    case 'object': {
      const required: string[] = schema.required ?? [];
      return Object.fromEntries(required.map((name) => [name, sampleOf(schema.properties[name])]));
    }
    case 'array':
      return Array.from({ length: schema.minItems ?? 0 }, () => sampleOf(schema.items));
    case 'integer':
    case 'number':
      return schema.minimum ?? 1;
    case 'boolean':
      return true;
    case 'null':
      return null;
    case 'string':
      if (schema.format === 'email') return 'user@example.com';
      return schema.format === 'date-time' ? '2026-01-01T00:00:00Z' : 'user';
    default:
      return 'anything';
  }
}

const oddValues = [
  5,
  -1,
  1.5,
  1e300,
  'x',
  '',
  true,
  false,
  null,
  [],
  {},
  [[]],
  [null],
  { a: {} },
  'x'.repeat(20_000),
];
/** Of these a value that a schema refuses. */
const refusedBy = (schema: Schema): unknown[] => oddValues.filter((value) => !Value.Check(schema, value));
const takesText = (schema: Schema): boolean =>
  ['user', 'user@example.com', '2026-01-01T00:00:00Z'].some((text) => Value.Check(schema, text));

/** The texts a schema lists, where it takes no others, as an answer shows them. */
const listedBy = (schema: Schema): string[] => {
  const texts = (one: Schema): string[] =>
    typeof one.const === 'string' ? [JSON.stringify(JSON.stringify(one.const)).slice(1, -1)] : [];
  if (!schema.anyOf) return texts(schema);
  return schema.anyOf.every((one: Schema) => 'const' in one || one.type === 'null')
    ? schema.anyOf.flatMap(texts)
    : [];
};

const oddTimes = [
  '9999-99-99T00:00:00Z', '2026-02-30T00:00:00Z', '0000-00-00T00:00:00Z', '0000-01-01T00:00:00Z', '0001-01-01T00:00:00Z',
  '9999-12-31T23:59:59.999Z', '+275760-09-13T00:00:00Z', '-271821-04-20T00:00:00Z', '-000001-01-01T00:00:00Z',
  '99999-01-01T00:00:00Z', '2026-12-31T23:59:60Z', '2026-12-31T24:00:00Z', '2026-01-01T00:00:00+99:99',
  '2026-01-01T00:00:00.123456789123456789Z', '2026-01-01', 'now', 'infinity', '1e9', '2026-01-01T00:00:00Z\n', '２０２６-01-01T00:00:00Z',
  '0001-01-01T00:00:00+23:59', '9999-12-31T23:59:59-23:59',
]; // biome-ignore format: a list
const oddTexts = [
  '\u{10FFFF}',
  '\uFFFF',
  '﷽',
  '\u202Eabc',
  '👩‍👩‍👧‍👦',
  '\u0001\u001f',
  '%s%n%x',
  "'; drop table memories; --",
  '$\u007b7*7}',
  '\\x00',
  '\\u0000',
  '<script>',
  '../../etc/passwd',
  '__proto__',
  'constructor',
  'null',
  '-0',
  '1e999',
  '\u00A0',
  '\u0301'.repeat(50),
  'a'.repeat(9_999),
];

const sixMegabytes = Buffer.concat([
  Buffer.from('{"x":"'),
  Buffer.alloc(6 * 1_048_576, 0x78),
  Buffer.from('"}'),
]);
const deep = 10_000;
const deepTexts = [
  `${'['.repeat(deep)}${']'.repeat(deep)}`,
  `${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}`,
  `{"metadata":${'{"a":['.repeat(deep)}1${']}'.repeat(deep)}}`,
  `{"no_such_field":${'['.repeat(deep)}${']'.repeat(deep)}}`,
];
const openBrackets = '['.repeat(500_000);
const millionItems = `[${'1,'.repeat(999_999)}1]`;
const manyFields = JSON.stringify(
  Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`f${i}`, i])),
);

let ann: Caller;
let operator: Caller;
const ask = (method: string, url: string, options: CallOptions = {}): Promise<Reply> =>
  within(`${method} ${url.slice(0, 80)}`, call(method, url, { token: callerOf(url).token, ...options }));
/** Who may ask at all: tenants are the operators' business. */
const callerOf = (url: string): Caller => (/^\/v1\/admin\/tenants\b/.test(url) ? operator : ann);
const json = (payload: string | Buffer, headers: Record<string, string> = {}): CallOptions => ({
  payload,
  headers: { 'content-type': 'application/json', ...headers },
});

before(async () => {
  ann = await newTenant('admin');
  operator = await newOperator();
});

describe('a body', () => {
  // What is wrong with a message of JSON-RPC is told in its own way: mcp.test.ts.
  for (const route of routes.filter((one) => one.body && !one.consumes && one.errors !== 'json-rpc')) {
    const schema = route.body as Schema;
    const limit = route.bodyLimit ?? 4_194_304;
    const refusal = isAuthzen(route) ? [400, 422] : 422;
    const send = (options: CallOptions) => ask(route.method, pathOf(route), options);
    const sendText = (text: string | Buffer) => send(json(text));

    it(`${keyOf(route)} refuses what is not JSON, or not an object`, async () => {
      for (const text of [
        '{"a":',
        "{'a':1}",
        'nonsense',
        '{"a":1}}',
        '{"a":1,}',
        '[1',
        '\u0000',
        'NaN',
        '{"a":01}',
        '"\\x"',
      ])
        assertRefused(text, await sendText(text), 400);
      for (const text of ['[]', '[{}]', '"x"', '5', '1e999', 'true'])
        assertRefused(text, await sendText(text), 422);
      const compressed = await send({
        payload: gzipSync('{}'),
        headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
      });
      assertRefused('a compressed body', compressed, 415);
      assert.equal(compressed.headers['accept-encoding'], 'identity');
      if (!route.bodyOptional) {
        for (const text of ['', 'null', ...(schema.required?.length ? ['{}'] : [])])
          assertRefused(`"${text}"`, await sendText(text), [400, 422]);
        if (schema.required?.length) assertRefused('no body', await send({}), [400, 415, 422]);
      }
      for (const bytes of [
        [0x22, 0xff, 0x22],
        [0x22, 0xc0, 0xaf, 0x22],
        [0x22, 0xed, 0xa0, 0x80, 0x22],
        [0xff, 0xfe, 0x7b, 0x00],
      ])
        assertRefused(`bytes ${bytes}`, await sendText(Buffer.from(bytes)), 400);
    });

    it(`${keyOf(route)} refuses unknown fields and wrong types, and names the field`, async () => {
      const names = (reply: Reply): string[] =>
        reply.body.error.details.errors.map(({ path }: { path: string }) => path);
      const sample = sampleOf(schema) as Record<string, unknown>;
      assert.ok(Value.Check(schema, sample), `teach sampleOf this schema: ${JSON.stringify(sample)}`);
      for (const name of ['no_such_field', 'constructor', 'toString', '', '$where', 'tenantId']) {
        const reply = await send({ body: { ...sample, [name]: 1 } });
        assertRefused(name, reply, refusal);
        if (isAuthzen(route)) continue;
        assert.ok(names(reply).includes(`/${name}`), reply.text);
      }
      for (const [name, field] of fieldsOf(schema)) {
        const values = refusedBy(field);
        assert.ok(values.length > 0 || Value.Check(field, {}), `${name} takes everything`);
        for (const value of values) {
          const reply = await send({ body: { ...sample, [name]: value } });
          const what = `${name}: ${JSON.stringify(value).slice(0, 60)}`;
          assertRefused(what, reply, 422);
          assert.ok(
            names(reply).some((path) => path === `/${name}` || path.startsWith(`/${name}/`)),
            `${what} ${reply.text}`,
          );
          for (const one of listedBy(field)) assert.ok(reply.text.includes(one), `${what} ${reply.text}`);
        }
      }
    });

    it(`${keyOf(route)} refuses text that can not be kept, however it is written`, async () => {
      const holders = fieldsOf(schema)
        .filter(([, field]) => takesText(field))
        .map(([name]) => `{"${name}":@}`);
      holders.push('{"metadata":{"deep":[{"er":@}]}}', '{@:1}', '{"claims":{@:1}}', '[@]');
      for (const holder of holders) {
        for (const text of [
          '"\\u0000"',
          '"a\\u0000b"',
          '"\\ud800"',
          '"\\uDFFF"',
          '"\\ud800\\ud800"',
          '"\\udc00\\ud800"',
          '"\\uD83D x"',
          '"__proto__\\u0000"',
        ])
          assertRefused(`${holder} ${text}`, await sendText(holder.replace('@', text)), 422);
      }
      for (const text of [
        '{"__proto__":{"admin":true}}',
        '{"metadata":{"__proto__":1}}',
        '{"\\u005f_proto__":1}',
      ])
        assertRefused(text, await sendText(text), refusal);
    });

    it(`${keyOf(route)} bears sizes and depths without end`, async () => {
      const big = 'x'.repeat(2_000_000);
      for (const [name, field] of fieldsOf(schema).filter(([, one]) => takesText(one))) {
        const reply = await send({ body: { ...(sampleOf(schema) as object), [name]: big } });
        if (field.maxLength) assertRefused(`${name} of 2 MB`, reply, [413, 422]);
        else assertSound(`${name} of 2 MB`, reply, route);
      }
      const unknown = await send({ body: { [big]: 1 } });
      assertRefused('an unknown field of 2 MB', unknown, [413, refusal].flat());
      const beyond = await sendText(sixMegabytes);
      assertRefused('6 MB', beyond, limit < sixMegabytes.length ? 413 : 422);
      assert.doesNotMatch(beyond.text, /x{100}/);
      for (const text of deepTexts) assertRefused(text.slice(0, 40), await sendText(text), 422);
      assertRefused('deep and open', await sendText(openBrackets), 400);
      assertRefused('100,000 fields', await sendText(manyFields), [413, 422]);
      for (const [name] of fieldsOf(schema).filter(([, field]) => field.type === 'array'))
        assertRefused(`a million of ${name}`, await sendText(`{"${name}":${millionItems}}`), [413, 422]);
    });

    it(`${keyOf(route)} refuses other content types`, async () => {
      const text = JSON.stringify(sampleOf(schema));
      for (const type of [
        'text/plain',
        'application/xml',
        'application/x-www-form-urlencoded',
        'application/octet-stream',
        'garbage',
        'application/jsonx',
        'multipart/form-data',
        'multipart/form-data; boundary=x',
        'multipart/mixed; boundary=x',
        ', ,',
        'a/b/c',
      ])
        assertRefused(type, await send({ payload: text, headers: { 'content-type': type } }), 415);
      const none = await send({ payload: text });
      assertRefused('none', none, 415);
      assert.deepEqual(none.body.error.details.allowed, ['application/json']);
      assert.match(none.body.error.message, /application\/json/);
      const form = '--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nabc\r\n--broken';
      assertRefused(
        'a broken form',
        await send({ payload: form, headers: { 'content-type': 'multipart/form-data; boundary=x' } }),
        415,
      );
    });

    it(`${keyOf(route)} survives absurd times, numbers and texts`, async () => {
      const sample = sampleOf(schema) as Record<string, unknown>;
      for (const [name, field] of fieldsOf(schema)) {
        if (JSON.stringify(field).includes('date-time'))
          for (const time of oddTimes)
            assertSound(`${name}: ${time}`, await send({ body: { ...sample, [name]: time } }), route);
        else if (takesText(field))
          for (const text of oddTexts)
            assertSound(
              `${name}: ${text.slice(0, 40)}`,
              await send({ body: { ...sample, [name]: text } }),
              route,
            );
        for (const number of [
          '1e400',
          '-1e400',
          '1e308',
          '9007199254740993',
          `${'9'.repeat(400)}`,
          '-0',
          '1e-400',
          '2147483648',
          '0.1e1',
        ]) {
          const rest = JSON.stringify({ ...sample, [name]: 0 }).replace(`"${name}":0`, `"${name}":${number}`);
          assertSound(`${name}: ${number.slice(0, 30)}`, await sendText(rest), route);
        }
        if (Value.Check(field, { a: 1 })) {
          for (const number of ['1e400', '-1e400', '9'.repeat(400)])
            assertRefused(
              `${name}.a: ${number.slice(0, 30)}`,
              await sendText(JSON.stringify({ ...sample, [name]: { a: '@' } }).replace('"@"', number)),
              422,
            );
          assertSound(
            `${name} of odd names`,
            await send({
              body: {
                ...sample,
                [name]: Object.fromEntries(oddTexts.map((text) => [text.slice(0, 190), text.slice(0, 100)])),
              },
            }),
          );
        }
      }
    });

    it(`${keyOf(route)} refuses a tenant named in body or query`, async () => {
      const sample = sampleOf(schema) as Record<string, unknown>;
      for (const value of ['another', ann.tenant.toUpperCase(), null, {}, [ann.tenant]]) {
        const reply = await send({ body: { ...sample, tenant_id: value } });
        assertRefused('tenant_id in the body', reply, 400);
        assert.equal(reply.body.error.code, 'TENANT_ID_NOT_ALLOWED');
      }
      const inQuery = await ask(route.method, `${pathOf(route)}?tenant_id=another`, { body: sample });
      assertRefused('tenant_id in the query', inQuery, 400);
      const own = callerOf(route.path).tenant;
      assertSound("one's own tenant", await send({ body: { ...sample, tenant_id: own } }), route);
    });

    it(`${keyOf(route)} refuses an Idempotency-Key that is none`, async () => {
      if (route.idempotent === false) return;
      for (const key of ['x'.repeat(129), 'ключ', 'a\tb', ' ', 'é'])
        assertRefused(
          `key ${key}`,
          await send({ body: sampleOf(schema), headers: { 'idempotency-key': key } }),
          400,
        );
    });
  }
});

describe('a search', () => {
  for (const route of routes.filter(({ body }) => fieldsOf(body).some(([name]) => name === 'query'))) {
    it(`${keyOf(route)} refuses a query of nothing`, async () => {
      for (const query of ['', ' ', ' \t\n\u00a0\u3000']) {
        const body = { ...(sampleOf(route.body as Schema) as object), query };
        const reply = await ask(route.method, pathOf(route), { body });
        assertRefused(JSON.stringify(query), reply, 422);
        const [problem, ...others] = reply.body.error.details.errors;
        assert.deepEqual([problem.path, others], ['/query', []]);
        if (query !== '') assert.equal(problem.message, 'must not be blank');
      }
    });
  }
});

describe('a name', () => {
  const named = routes
    .filter(({ body, consumes }) => body && !consumes)
    .flatMap((route) => fieldsOf(route.body).map(([field]) => ({ route, field })))
    // Searches and questions only tell names.
    .filter(
      ({ route, field }) =>
        ['name', 'external_id', 'session_id'].includes(field) && !/\/(search|test)$/.test(route.path),
    );

  it('that people give, of somebody, something or a conversation, is not blank', async () => {
    const other = await newTenant('admin');
    assert.ok(named.length > 15, 'they are found');
    for (const { route, field } of named)
      for (const who of [callerOf(route.path), other]) {
        const body = { ...(sampleOf(route.body as Schema) as object), [field]: ' \t\u3000' };
        const reply = await ask(route.method, pathOf(route), { token: who.token, body });
        // Of another tenant's routes an admin of this one is told less.
        if (who === other && reply.status === 403) continue;
        assertRefused(`${keyOf(route)} ${field}`, reply, 422);
        const message = 'must not be blank';
        assert.deepEqual(reply.body.error.details.errors, [{ path: `/${field}`, message }], keyOf(route));
      }
    const test = { name: '\n', context: { action: 'read', resource: 'memory' }, expect: 'match' };
    const policy = await ann.call('POST', '/v1/policy/', { role: 'user', rule: true, tests: [test] });
    assert.equal(policy.body.error.details.errors[0].path, '/tests/0/name');
  });
});

describe('a form', () => {
  for (const route of routes.filter(({ consumes }) => consumes === 'multipart/form-data')) {
    const send = (payload: string | Buffer, type = 'multipart/form-data; boundary=x') =>
      ask(route.method, pathOf(route), { payload, headers: { 'content-type': type } });
    const part = (head: string, content: string) =>
      `--x\r\nContent-Disposition: form-data; ${head}\r\n\r\n${content}\r\n`;

    it(`${keyOf(route)} refuses what is not a whole form of its own fields`, async () => {
      const file = 'name="file"; filename="a.txt"\r\nContent-Type: text/plain';
      for (const form of [
        '',
        '--x',
        '--x--',
        '--y--\r\n',
        part('name="corpus_id"', 'c1'),
        `${part(file, 'abc')}--x`,
        'x'.repeat(10_000),
      ])
        assertRefused(form.slice(0, 60), await send(form), [400, 422]);
      for (const form of [
        `${part('name="no_such_field"', '1')}${part(file, 'abc')}--x--`,
        `${part('name="corpus_id"', 'a\0b')}${part(file, 'abc')}--x--`,
        `${part('name="corpus_id"', 'c1')}${part('name="corpus_id"', 'c2')}${part(file, 'abc')}--x--`,
        `${part('name="corpus_id"', 'c1')}${part(file, 'abc')}${part(file, 'def')}--x--`,
        `${part('name="__proto__"', '1')}${part(file, 'abc')}--x--`,
        `${part('name="constructor"', '1')}${part(file, 'abc')}--x--`,
        `${part('name="corpus_id"', 'c1')}${part('name="document_id"', '../x')}${part(file, 'abc')}--x--`,
        `${part('name="corpus_id"', 'c1')}${part('name="document_id"', 'é'.repeat(300))}${part(file, 'abc')}--x--`,
        `${Array.from({ length: 40 }, (_, i) => part(`name="f${i}"`, '1')).join('')}--x--`,
        `${part(`name="${'n'.repeat(5_000)}"`, '1')}--x--`,
      ])
        assertRefused(form.slice(0, 90), await send(form), [400, 404, 422]);
      const named = await send(`${part('name="tenant_id"', 'other')}${part(file, 'abc')}--x--`);
      assertRefused('tenant_id', named, 400);
      assert.equal(named.body.error.code, 'TENANT_ID_NOT_ALLOWED');
      for (const type of [
        'application/json',
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data',
        'multipart/form-data; boundary=',
      ])
        assertRefused(type, await send('{}', type), [400, 415]);
      const invalidUtf8 = Buffer.concat([
        Buffer.from('--x\r\nContent-Disposition: form-data; name="corpus_id"\r\n\r\n'),
        Buffer.from([0xff, 0xfe]),
        Buffer.from('\r\n--x--'),
      ]);
      assertRefused('invalid UTF-8', await send(invalidUtf8), [400, 404, 422]);
    });
  }
});

describe('a charset', () => {
  const note = JSON.stringify({ text: 'Grüße aus Köln', type: 'note' });
  const send = (who: Caller, type: string, payload: string | Buffer) =>
    call('POST', '/v1/memory/', { token: who.token, payload, headers: { 'content-type': type } });

  it('other than UTF-8 is refused on every route that takes a body', async () => {
    const types: Record<string, string> = { 'multipart/form-data': 'multipart/form-data; boundary=x' };
    for (const route of routes.filter(({ body, consumes }) => body || consumes)) {
      const consumed = route.consumes ?? 'application/json';
      const headers = { 'content-type': `${types[consumed] ?? consumed}; charset=utf-16` };
      const reply = await ask(route.method, pathOf(route), {
        payload: Buffer.from(note, 'utf16le'),
        headers,
      });
      assert.equal(reply.status, 415, keyOf(route));
      assert.match(reply.text, /Send it in UTF-8/, keyOf(route));
    }
  });

  it('is read as it may be written, and stores nothing where it is refused', async () => {
    for (const who of [ann, await newTenant('admin')]) {
      const list = async () => (await who.call('GET', '/v1/memory/')).body;
      const stored = (await list()).length;
      for (const value of ['utf-16', '"UTF-16LE"', 'iso-8859-1', 'utf-80', 'latin1; x=utf-8', 'UTF-8-MAC'])
        assertRefused(value, await send(who, `application/json ;x=1; Charset=${value}`, note), 415);
      assert.equal((await list()).length, stored);
      for (const value of ['utf-8', 'UTF-8 ', '"utf-8"', 'utf8; x=1']) {
        const reply = await send(who, `application/json;charset=${value}`, note);
        assert.deepEqual([reply.status, reply.body.text], [201, 'Grüße aus Köln'], value);
      }
      const headers = { 'content-type': 'application/json; charset=iso-8859-1' };
      assert.equal((await call('GET', '/v1/memory/', { token: who.token, headers })).status, 200);
    }
  });
});

/** Routes that somebody else's program calls, with fields of its own: these are ignored. */
const lenient = ['GET /v1/sso/callback/:provider'];
/** Probes and scrapers ask these, with parameters of their own. */
const takesAnyQuery = ['GET /healthz', 'GET /v1/health', 'GET /metrics'];

describe('a query', () => {
  for (const route of routes.filter((one) => ![...lenient, ...takesAnyQuery].includes(keyOf(one)))) {
    it(`${keyOf(route)} refuses a parameter it does not know, and names it`, async () => {
      const body = route.body && !route.consumes ? { body: sampleOf(route.body as Schema) } : {};
      for (const name of ['no_such_parameter', 'Limit']) {
        const reply = await ask(route.method, `${pathOf(route)}?${name}=1`, body);
        assertRefused(name, reply, route.errors ? 400 : 422);
        assert.match(reply.text, route.errors ? /invalid/i : new RegExp(`"/${name}".*"is not a known`), name);
      }
    });
  }

  it('of a probe is not looked at', async () => {
    for (const key of takesAnyQuery) {
      const reply = await ask('GET', `${key.slice(4)}?t=1&probe=balancer`);
      assert.equal(reply.status, 200, `${key} ${reply.text}`);
    }
  });

  for (const route of routes.filter((one) => one.query && !takesAnyQuery.includes(keyOf(one)))) {
    const send = (query: string) => ask(route.method, `${pathOf(route)}?${query}`);
    const fields = fieldsOf(route.query);

    it(`${keyOf(route)} refuses what it does not know and values of other kinds`, async () => {
      for (const name of [
        'no_such_parameter',
        '__proto__',
        'constructor',
        'limit[]',
        'limit[a]',
        'LIMIT',
        '%20',
        '$gt',
      ])
        assertRefused(name, await send(`${name}=1`), lenient.includes(keyOf(route)) ? 400 : 422);
      assertRefused('tenant_id', await send('tenant_id=other'), 400);
      for (const [name, field] of fields) {
        assertRefused(`${name} twice`, await send(`${name}=1&${name}=2`), [400, 422]);
        assertRefused(`${name} with NUL`, await send(`${name}=a%00b`), 400);
        for (const text of ['%zz', '%', '%c3%28', '%ed%a0%80', '%ff', '%E0%A4%A', '%u0041'])
          assertRefused(`${name}=${text}`, await send(`${name}=${text}`), 400);
        assertSound(`${name}=+`, await send(`${name}=+`));
        for (const text of [
          '',
          ' ',
          '0',
          '-1',
          '1e9',
          '1e400',
          'abc',
          'NaN',
          'Infinity',
          '1.5',
          '0x10',
          'null',
          'undefined',
          '[]',
          '{}',
          'maybe',
          '２',
          '9'.repeat(400),
          'x'.repeat(5_000),
        ]) {
          const query = `${name}=${encodeURIComponent(text)}`;
          const fits = Value.Check(field, Value.Convert(field, text));
          if (fits) assertSound(query.slice(0, 60), await send(query));
          else assertRefused(query.slice(0, 60), await send(query), [400, 422]);
        }
        if (takesText(field))
          for (const text of oddTexts)
            assertSound(`${name}=${text.slice(0, 40)}`, await send(`${name}=${encodeURIComponent(text)}`));
      }
    });

    if (fields.some(([name]) => name === 'limit')) {
      it(`${keyOf(route)} refuses absurd limits`, async () => {
        for (const limit of [
          '0',
          '-1',
          '1e9',
          '1000000000',
          'abc',
          'NaN',
          '',
          '1.5',
          'Infinity',
          '-0.1',
          '0x7f',
          '1,2',
          'true',
        ])
          assertRefused(`limit=${limit}`, await send(`limit=${limit}`), 422);
      });
    }
    // A list within a resource that is not there is 404 first; its cursors are tested where it belongs.
    if (fields.some(([name]) => name === 'cursor') && !hasParameters(route)) {
      it(`${keyOf(route)} refuses cursors it did not make`, async () => {
        const real = await send('limit=1');
        const given = String(
          real.headers['x-next-cursor'] ?? Buffer.from(`${'A'.repeat(28)}["2026"]`).toString('base64url'),
        );
        for (const cursor of [
          '',
          'x',
          '.',
          '..',
          'a.b',
          given.slice(0, given.length / 2),
          given.slice(0, -1),
          given.slice(1),
          `x${given}`,
          `${given}x`,
          `${given}.`,
          `${given}.${given}`,
          given.toLowerCase(),
          Buffer.from('{"after":["2026-01-01T00:00:00.000Z","x"]}').toString('base64url'),
          `${given}=`,
          'null',
          '[]',
          encodeURIComponent("' or 1=1"),
          'x'.repeat(1_000),
        ]) {
          const reply = await send(`cursor=${cursor}`);
          assertRefused(`cursor ${cursor.slice(0, 60)}`, reply, 400);
          assert.equal(reply.body.error.code, 'INVALID_CURSOR');
        }
        assertRefused('a long cursor', await send(`cursor=${'x'.repeat(1_001)}`), [400, 422]);
      });
    }
  }
});

describe('an address', () => {
  const isTenant = async (id: string) =>
    (await ask('GET', `/v1/admin/tenants/${id}`, { token: operator.token })).body?.data?.id === id;

  for (const route of routes.filter(hasParameters)) {
    it(`${keyOf(route)} finds nothing under ids of other forms, and refuses addresses that are none`, async () => {
      const body = route.body ? { body: sampleOf(route.body as Schema) } : {};
      // Somebody who has nothing, since others may have made what is called `constructor`.
      const somebody = await newTenant('admin');
      const token = callerOf(route.path) === ann ? somebody.token : operator.token;
      const send = (id: string) => ask(route.method, pathOf(route, id), { ...body, token });
      for (const id of ['%zz', '%', '%c3%28', '%ed%a0%80', '%c0%af', '%E0%A4%A', 'a%00b', '%00'])
        assertRefused(id, await send(id), 400);
      // A client resolves dots before it sends them, so this may name a path above.
      for (const id of [
        'x',
        '0',
        '-1',
        ...oddTexts.filter((text) => text !== '../../etc/passwd').map(encodeURIComponent),
        '..%2f..%2fetc%2fpasswd',
        // It leads a step up, where another route may be.
        ...(routes.some(({ path }) => bare(path) === bare(route.path.replace(/[^/]+\/:[a-z_]+$/, '')))
          ? []
          : ['%2e%2e']),
        `${uuidv7()}x`,
        uuidv7().replaceAll('-', ''),
        `%7B${uuidv7()}%7D`,
        'x'.repeat(900),
        'x'.repeat(1_001),
        'x'.repeat(9_000),
      ]) {
        // Operators see what all have: a tenant was called `constructor` above.
        if (callerOf(route.path) === operator && (await isTenant(id))) continue;
        const reply = await send(id);
        assertUnknown(id.slice(0, 60), reply);
      }
    });
  }

  it('that no route has is 404, and another method of a known one is 405 with Allow', async () => {
    for (const path of [
      '/v1/nothing',
      '/v2/memory/',
      '/v1',
      '/v1/memory/a/b/c',
      '/V1/memory/',
      '//v1/memory/',
      '/v1//memory/',
      '/.env',
      '/v1/memory/..%2f..',
      `/${'x'.repeat(5_000)}`,
    ])
      for (const method of ['GET', 'POST', 'DELETE'])
        assertRefused(`${method} ${path}`, await ask(method, path), [404, 405]);
    const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'];
    const pathsOf = (route: Route) => [
      route.path,
      ...(route.also ?? []),
      ...(route.legacy ? [route.path.replace(/^\/v1/, '')] : []),
    ];
    const patterns = new Set(routes.flatMap(pathsOf));
    // A fixed path is no id of the routes beside it, but where ids are text: a document may be called `text`.
    const fits = (pattern: string, route: Route) =>
      pathsOf(route).some((path) =>
        pattern.includes('/:') || path.endsWith('/:document_id')
          ? new RegExp(`^${path.replace(/\/$/, '').replace(/:[a-z_]+/g, '[^/]+')}$`).test(
              pattern.replace(/\/$/, ''),
            )
          : path.replace(/\/$/, '') === pattern.replace(/\/$/, ''),
      );
    for (const pattern of patterns) {
      const known = new Set<string>(
        routes.filter((route) => fits(pattern, route)).map(({ method }) => method),
      );
      for (const method of methods.filter((one) => !known.has(one))) {
        const reply = await ask(method, pattern.replace(/:[a-z_]+/g, uuidv7()));
        assertRefused(`${method} ${pattern}`, reply, 405);
        assert.deepEqual(new Set(String(reply.headers.allow).split(', ')), known, pattern);
      }
    }
    const search = await call('GET', '/v1/memory/search/?query=words');
    assert.deepEqual([search.status, search.headers.allow], [405, 'POST'], 'whoever asks');
    for (const who of [await newLibrary(), await newLibrary()]) {
      await stored(who, 'text', 'A document of that name');
      assert.equal((await who.call('GET', '/v1/documents/text')).body.data.id, 'text');
    }
  });
});

describe('a credential', () => {
  const broken: Record<string, string>[] = [
    { authorization: '' }, { authorization: 'Bearer' }, { authorization: 'Bearer ' }, { authorization: 'Basic YTpi' },
    { authorization: 'Bearer a b' }, { authorization: 'Bearer a.b.c' }, { authorization: `Bearer ${'x'.repeat(9_000)}` },
    { authorization: `Bearer ${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from('{"sub":"x"}').toString('base64url')}.` },
    { authorization: 'Bearer mk_' }, { authorization: `Bearer mk_t1_${'0'.repeat(32)}_${'A'.repeat(43)}00000000` }, { authorization: 'Bearer é' },
    { authorization: 'Bearer rt_t1_x' }, { authorization: 'Token x' }, { authorization: ', ,' }, { authorization: 'Bearer __proto__' },
    { 'x-api-key': '' }, { 'x-api-key': 'x' }, { 'x-api-key': 'mk_' }, { 'x-api-key': 'x'.repeat(9_000) }, { 'x-api-key': 'é' },
  ]; // biome-ignore format: a list
  // Routes for anybody do not look at one: clients send stale tokens along when they sign in anew.
  for (const route of routes.filter(({ public: open }) => open !== true)) {
    it(`${keyOf(route)} refuses one that is none, before it reads the body`, async () => {
      for (const headers of broken) {
        const what = JSON.stringify(headers).slice(0, 80);
        const reply = await within(
          what,
          call(route.method, pathOf(route), {
            headers: { 'content-type': 'application/json', ...headers },
            ...(route.method === 'GET' ? {} : { payload: '{"broken' }),
          }),
        );
        assertRefused(what, reply, 401);
      }
    });
  }
});

describe('on the wire', () => {
  /** What the server answers to these bytes, to its end. */
  async function raw(bytes: string): Promise<Reply> {
    const { hostname, port } = new URL(await address());
    const text = await within(
      'raw bytes',
      new Promise<string>((resolve, reject) => {
        const socket = connect(Number(port), hostname, () => socket.write(bytes, 'latin1'));
        let received = '';
        socket.setEncoding('utf8');
        socket.on('data', (chunk) => {
          received += chunk;
          if (/\r\n\r\n[\s\S]*\}$/.test(received)) socket.end();
        });
        socket.on('close', () => resolve(received));
        socket.on('error', (error) => (received ? resolve(received) : reject(error)));
      }),
    );
    const [head = '', body = ''] = text.split(/\r\n\r\n([\s\S]*)/);
    const headers = Object.fromEntries(
      head
        .split('\r\n')
        .slice(1)
        .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]),
    );
    assert.notEqual(body, '', `an answer with a body: ${text.slice(0, 200)}`);
    return { status: Number(head.split(' ')[1]), headers, text: body, body: JSON.parse(body) };
  }
  const get = (headers: string, path = '/v1/memory/') => `GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;

  it('headers beyond all bounds are refused in the one error shape', async () => {
    assertRefused('one long header', await raw(get(`X-Long: ${'x'.repeat(40_000)}\r\n`)), 431);
    assertRefused(
      'many headers',
      await raw(get(Array.from({ length: 3_000 }, (_, i) => `X-H${i}: ${i}\r\n`).join(''))),
      [431, 401],
    );
    assertRefused('a long address', await raw(get('', `/v1/memory/${'x'.repeat(40_000)}`)), 431);
  });

  it('what is not HTTP is refused in the one error shape', async () => {
    for (const bytes of [
      'nonsense\r\n\r\n',
      'GET / HTTP/9.9\r\n\r\n',
      'GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n',
      get('Broken header\r\n'),
      get('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'),
      get('Content-Length: -1\r\n'),
      get('Content-Length: x\r\n'),
    ])
      assertRefused(JSON.stringify(bytes.slice(0, 60)), await raw(bytes), 400);
  });

  it('two credentials, strange request ids and raw bytes in headers are borne', async () => {
    assertRefused(
      'two credentials',
      await raw(get('Authorization: Bearer a\r\nAuthorization: Bearer b\r\n')),
      401,
    );
    assertRefused('bytes', await raw(get('Authorization: Bearer \xff\xfe\r\n')), 401);
    for (const id of ['x'.repeat(129), 'a b', '<script>', '"', 'é']) {
      const reply = await raw(get(`X-Request-Id: ${id}\r\n`));
      assertRefused(id.slice(0, 20), reply, 401);
      assert.match(String(reply.headers['x-request-id']), /^[0-9a-f-]{36}$/);
    }
    const echoed = await raw(get('X-Request-Id: my-id.1\r\n'));
    assert.equal(echoed.body.meta.request_id, 'my-id.1');
  });

  it('after all of it the server answers as before', async () => {
    assert.equal((await ask('GET', '/v1/memory/')).status, 200);
    assert.deepEqual((await call('GET', '/healthz')).body, { database: true, redis: true, status: 'ok' });
  });
});
