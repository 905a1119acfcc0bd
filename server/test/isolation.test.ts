import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import pg from 'pg';
import { flushDecisions } from '#modules/access/decisions/service.ts';
import { runsHere } from '#modules/knowledge/runs/under-way.ts';
import type { Permission } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import type { Route } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import {
  type Caller,
  call,
  eventually,
  newKey,
  newMember,
  newSession,
  newTenant,
  type Reply,
  testServer,
  useTestServer,
} from '#test/harness.ts';
import { file, form } from '#test/uploads.ts';
import { routes as allRoutes } from '../src/app.ts';

// Two tenants on one server: the other one's ids must answer as ids that never existed, on every route. New routes
// join by themselves; where they need a way to make a resource or a valid body, the test says which row is missing.

useTestServer();

/** Those of the installation's operators are no tenant's; `tenants.test.ts` asks them. */
const routes = allRoutes.filter(({ permission }) => !permission?.startsWith('tenants:'));

/** How to make what a path parameter names, and where its owner looks at it. */
interface Resource {
  make: (owner: Caller) => Promise<string>;
  look: (id: string) => string;
  /** An id of the same form that never existed. */
  absent: () => string;
}

const slug = (): string => `never-was-${uuidv7().slice(-12)}`;
let made = 0;

let lastDocument = '';

const textDocument = async (owner: Caller, corpus: string) => {
  const reply = succeeded(
    await owner.call('POST', '/v1/documents/text', {
      corpus_id: corpus,
      text: 'The gate opens when every check is green.',
      filename: `gate-${++made}.md`,
    }),
  );
  const id: string = reply.body.data.document_id;
  await eventually(
    'the document',
    async () => (await owner.call('GET', `/v1/documents/${id}`)).body.data.status === 'succeeded',
  );
  lastDocument = id;
  return id;
};

/** By the name of the path parameter. */
const resources: Record<string, Resource> = {
  memory_id: {
    make: async (owner) => {
      const reply = await owner.call('POST', '/v1/memory/', {
        text: `walnut number ${++made}`,
        type: 'note',
      });
      return succeeded(reply).body.id;
    },
    look: (id) => `/v1/memory/${id}`,
    absent: uuidv7,
  },
  event_id: {
    make: (owner) => resources.memory_id!.make(owner),
    look: (id) => `/v1/memory/${id}`,
    absent: uuidv7,
  },
  import_id: {
    make: async (owner) => {
      const reply = await call('POST', '/v1/memory/import?complete=false', {
        token: owner.token,
        payload: `{"text":"walnut number ${++made}","type":"note"}\n`,
        headers: { 'content-type': 'application/x-ndjson' },
      });
      return succeeded(reply).body.import_id;
    },
    look: (id) => `/v1/memory/imports/${id}`,
    absent: uuidv7,
  },
  erasure_id: {
    make: async (owner) => {
      const memory_ids = [await resources.memory_id!.make(owner)];
      return succeeded(await owner.call('POST', '/v1/memory/erase', { memory_ids })).body.id;
    },
    look: (id) => `/v1/memory/erasures/${id}`,
    absent: uuidv7,
  },
  identity_id: {
    make: async (owner) => (await newMember(owner, 'user')).id,
    look: (id) => `/v1/identity/${id}`,
    absent: uuidv7,
  },
  rule_id: {
    make: async (owner) => {
      const rule = {
        scope: 'role',
        subject: `role-${++made}`,
        endpoint: 'read',
        limit: 5,
        window_seconds: 60,
      };
      return succeeded(await owner.call('PUT', '/v1/admin/rate-limits/rules', rule)).body.id;
    },
    look: () => '/v1/admin/rate-limits/rules',
    absent: uuidv7,
  },
  grant_id: {
    make: async (owner) => {
      const agent = await newMember(owner, 'agent');
      return succeeded(await owner.call('POST', `/v1/identity/${agent.id}/delegate`)).body.grant_id;
    },
    look: (id) => `/v1/delegations/${id}`,
    absent: uuidv7,
  },
  corpus_id: {
    make: async (owner) =>
      succeeded(await owner.call('POST', '/v1/corpora', { name: `Corpus ${++made}` })).body.data.id,
    look: (id) => `/v1/corpora/${id}`,
    absent: slug,
  },
  document_id: {
    make: async (owner) => textDocument(owner, await resources.corpus_id!.make(owner)),
    look: (id) => `/v1/documents/${id}`,
    absent: slug,
  },
  // Of the document that was made last: a permission is named together with its document.
  permission_id: {
    make: async (owner) => {
      const grant = { principal_type: 'role', principal_id: `role_${++made}`, permission: 'read' };
      const path = `/v1/documents/${lastDocument}/permissions`;
      return succeeded(await owner.call('POST', path, grant)).body.data.id;
    },
    look: () => `/v1/documents/${lastDocument}/permissions`,
    absent: uuidv7,
  },
  run_id: {
    make: async (owner) => {
      const corpus = await resources.corpus_id!.make(owner);
      const session = `session-${++made}`;
      succeeded(
        await owner.call('POST', '/v1/run', {
          session_id: session,
          corpus_id: corpus,
          message: 'When does the gate open?',
        }),
      );
      return eventually('the run', async () => {
        const { body } = await owner.call('GET', `/v1/runs?session_id=${session}`);
        return body.data[0]?.status === 'succeeded' && body.data[0].id;
      });
    },
    look: (id) => `/v1/runs/${id}`,
    absent: uuidv7,
  },
  // Written through the governance door, so that both doors show it; about something no other test does.
  policy_id: {
    make: async (owner) => {
      const reply = await owner.call('POST', '/v1/admin/governance/policies', {
        rule_key: 'dsar.execute',
        priority: ++made % 1_000,
        action_json: { type: 'deny' },
      });
      return succeeded(reply).body.data.id;
    },
    look: (id) => `/v1/policy/${id}`,
    absent: uuidv7,
  },
  version: { make: async () => '1', look: () => '/v1/policy/', absent: () => '1' },
  session_id: { make: async () => `session-${++made}`, look: () => '/v1/runs', absent: slug },
  'sessions session_id': {
    make: async (owner) => (await newSession(owner)).id,
    look: (id) => `/v1/sessions/${id}`,
    absent: uuidv7,
  },
  key_id: {
    make: async (owner) =>
      succeeded(await owner.call('POST', '/v1/api-keys/', { name: `key ${++made}` })).body.api_key.id,
    look: (id) => `/v1/api-keys/${id}`,
    absent: uuidv7,
  },
  inactive_key: {
    make: async (owner) => {
      const id = await resources.key_id!.make(owner);
      const { operatorPool } = (await testServer()).app.database;
      await operatorPool.query('update api_keys set created_at = $2 where id = $1', [id, '2020-01-01Z']);
      return id;
    },
    look: (id) => `/v1/api-keys/${id}`,
    absent: uuidv7,
  },
  invitation_id: {
    make: async (owner) => {
      const body = { email: `guest-${++made}@example.com`, role: 'user' };
      return succeeded(await owner.call('POST', '/v1/invitations/', body)).body.id;
    },
    look: (id) => `/v1/invitations/${id}`,
    absent: uuidv7,
  },
  provider_id: {
    make: async (owner) => {
      const id = `idp-${++made}`;
      const body = { id, name: 'One', issuer: 'https://idp.example', client_id: 'client' };
      succeeded(await owner.call('POST', '/v1/admin/identity/providers', body));
      return id;
    },
    look: (id) => `/v1/admin/identity/providers/${id}`,
    absent: slug,
  },
  audio_id: {
    make: async (owner) => {
      const reply = succeeded(
        await owner.call('POST', '/v1/run', {
          session_id: `session-${++made}`,
          corpus_id: await resources.corpus_id!.make(owner),
          message: 'When does the gate open?',
          audio: true,
        }),
      );
      return /"audio_id":"([^"]+)"/.exec(reply.text)![1]!;
    },
    look: (id) => `/v1/audio/${id}.mp3`,
    absent: uuidv7,
  },
};

/** Parameters that are not ids of a tenant's things: a credential of its own, and the public name of a way to sign in. */
const forAnybody = ['token', 'provider'];

/** Where a route wants its resource in another state than the others do. */
const states: Record<string, Resource['make']> = {
  'POST /v1/runs/:run_id/cancel': async (owner) => {
    const { app } = await testServer();
    const id = uuidv7();
    await app.database.tenant(owner.tenant).run(sql`
      insert into runs (tenant_id, id, identity_id, session_id, corpus_id, status, process_id, lease_until, created_at)
      values (${owner.tenant}, ${id}, ${owner.id}, ${id}, 'none', 'running', ${runsHere(app).processId},
        ${new Date(Date.now() + 60_000)}, ${new Date()})`);
    return id;
  },
};

/** Routes that answer an id they do not know with a stream that says so. */
const toldInStream = ['GET /v1/runs/:run_id/events'];

/** Names that a client of mem0 gives to its users, agents, apps and runs are its own words; its project is that of the key. */
function namesOfMem0(): Record<string, null> {
  const names = ['user_id', 'agent_id', 'app_id', 'run_id', 'org_id', 'project_id'];
  const doors = routes.filter(({ tag }) => tag === 'mem0').map(({ method, path }) => `${method} ${path}`);
  return Object.fromEntries(doors.flatMap((route) => names.map((name) => [`${route} ${name}`, null])));
}

/** A valid body of each route that takes one and names something by id. `own` makes resources of the asking tenant. */
const bodies: Record<
  string,
  (own: (resource: string) => Promise<string>) => Promise<Record<string, unknown>>
> = {
  'PUT /v1/memory/:memory_id': async () => ({ metadata: { changed: true } }),
  'POST /v1/memory/': async () => ({ text: 'a note', type: 'note' }),
  'POST /v1/memory/search': async () => ({ query: 'walnut' }),
  'PUT /v1/memories/:memory_id/': async () => ({ text: 'a changed note' }),
  'POST /v3/memories/add/': async () => ({ messages: 'a note', user_id: 'ada' }),
  'POST /v2/memories/search/': async () => ({ query: 'walnut', user_id: 'ada' }),
  'POST /v3/memories/search/': async () => ({ query: 'walnut', user_id: 'ada' }),
  'POST /v1/memory/bulk-delete': async () => ({ memory_ids: [] }),
  'POST /v1/memory/infer': async () => ({ messages: [{ role: 'user', content: 'a note' }] }),
  'POST /v1/memory/erase': async () => ({}),
  'POST /v1/identity/': async () => ({ external_id: `somebody-${++made}`, role: 'user' }),
  'PUT /v1/identity/me': async () => ({ name: 'Somebody' }),
  'PUT /v1/identity/:identity_id': async () => ({ name: 'Somebody' }),
  'POST /v1/identity/bulk-delete': async () => ({ identity_ids: [] }),
  'POST /v1/identity/:identity_id/delegate': async () => ({}),
  'PUT /v1/admin/rate-limits/rules': async () => ({
    scope: 'tenant',
    endpoint: 'read',
    limit: 50,
    window_seconds: 60,
  }),
  'PUT /v1/admin/memory/sensitive-types': async () => ({ types: ['secret'] }),
  'POST /v1/invitations/': async () => ({ email: `guest-${++made}@example.com`, role: 'user' }),
  'POST /v1/admin/identity/providers': async () => ({
    id: `idp-${++made}`,
    name: 'Another',
    issuer: 'https://idp.example',
    client_id: 'client',
  }),
  'PATCH /v1/admin/identity/providers/:provider_id': async () => ({ name: 'Changed' }),
  'POST /v1/admin/identity/providers/:provider_id/rotate-secret-ref': async () => ({
    client_secret: 'another secret',
  }),
  'POST /v1/corpora': async () => ({ name: 'Another' }),
  'POST /v1/documents/text': async (own) => ({ corpus_id: await own('corpus_id'), text: 'Some words.' }),
  'POST /v1/documents/:document_id/reindex': async () => ({}),
  'PATCH /v1/documents/:document_id': async () => ({ metadata_json: { seen: true } }),
  'POST /v1/documents/:document_id/permissions': async () => ({
    principal_type: 'role',
    principal_id: 'reader',
    permission: 'read',
  }),
  'PATCH /v1/corpora/:corpus_id': async () => ({ name: 'Renamed' }),
  'POST /v1/run': async (own) => ({
    session_id: `session-${++made}`,
    corpus_id: await own('corpus_id'),
    message: 'When does the gate open?',
  }),
  'POST /v1/corpora/:corpus_id/search': async () => ({ query: 'gate' }),
  'POST /v1/api-keys/': async () => ({ name: 'A key' }),
  'PUT /v1/api-keys/:key_id': async () => ({ name: 'Renamed' }),
  'POST /v1/api-keys/:key_id/rotate': async () => ({}),
  'POST /v1/policy/': async () => ({ role: 'user', rule: false }),
  'PUT /v1/policy/:policy_id': async () => ({ description: 'changed' }),
  'POST /v1/policy/:policy_id/rollback': async () => ({ version: 1 }),
  'POST /v1/policy/bulk-delete': async () => ({ policy_ids: [] }),
  'POST /v1/policy/test': async () => ({ role: 'user', action: 'read', resource: 'memory' }),
  'POST /v1/policy/simulate': async () => ({ draft: { role: 'user', rule: false } }),
  'PATCH /v1/admin/governance/policies/:policy_id': async () => ({ enabled: false }),
};

/** Which resource a field of a body or query names where its name does not say so. `null`: words of the caller's own. */
const fieldNames: Record<string, string | null> = {
  ...namesOfMem0(),
  'POST /v1/corpora id': 'corpus_id',
  'POST /v1/memory/bulk-delete memory_ids': 'memory_id',
  'POST /v1/memory/erase memory_ids': 'memory_id',
  'POST /v1/memory/import preserve_ids': null,
  'PUT /v1/memory/:memory_id session_id': null,
  'POST /v1/identity/ external_id': null,
  'POST /v1/identity/ owner_id': 'identity_id',
  'PUT /v1/identity/me external_id': null,
  'PUT /v1/identity/me owner_id': 'identity_id',
  'PUT /v1/identity/:identity_id external_id': null,
  'PUT /v1/identity/:identity_id owner_id': 'identity_id',
  'POST /v1/identity/bulk-delete identity_ids': 'identity_id',
  'GET /v1/delegations agent_id': 'identity_id',
  'GET /v1/delegations subject_id': 'identity_id',
  'POST /v1/invitations/accept/:token external_id': null,
  'POST /v1/admin/identity/providers id': 'provider_id',
  'POST /v1/admin/identity/providers client_id': null,
  'PATCH /v1/admin/identity/providers/:provider_id client_id': null,
  'POST /v1/policy/bulk-delete policy_ids': 'policy_id',
  'POST /v1/policy/test identity_id': null,
  'POST /v1/policy/test external_id': null,
  'POST /v1/documents/:document_id/permissions principal_id': 'identity_id',
};

/** What each list is a list of. */
const lists: Record<string, string> = {
  '/v1/memory/': 'memory_id',
  '/v1/memory/imports': 'import_id',
  '/v1/identity/': 'identity_id',
  '/v1/delegations': 'grant_id',
  '/v1/corpora': 'corpus_id',
  '/v1/documents': 'document_id',
  '/v1/documents/:document_id/permissions': 'permission_id',
  '/v1/runs': 'run_id',
  '/v1/sessions/': 'sessions session_id',
  '/v1/api-keys/': 'key_id',
  '/v1/api-keys/inactive': 'inactive_key',
  '/v1/self-serve/api-keys': 'key_id',
  '/v1/self-serve/api-keys/inactive-report': 'inactive_key',
  '/v1/invitations/': 'invitation_id',
  '/v1/admin/identity/providers': 'provider_id',
  '/v1/policy/': 'policy_id',
  '/v1/admin/governance/policies': 'policy_id',
};

/** Words that find what the other tenant made. */
const searches: Record<string, { resource: string; query: string }> = {
  'POST /v1/memory/search': { resource: 'memory_id', query: 'walnut number' },
  'POST /v1/corpora/:corpus_id/search': { resource: 'document_id', query: 'gate' },
};

const keyOf = ({ method, path }: Pick<Route, 'method' | 'path'>): string => `${method} ${path}`;
const parametersOf = ({ path }: Route): string[] =>
  [...path.matchAll(/:([a-z_]+)/g)].map(([, name]) => name!);
const fill = (path: string, ids: Record<string, string>): string =>
  path.replace(/:([a-z_]+)/g, (_, name: string) => encodeURIComponent(ids[name]!));
const fieldsOf = (schema: unknown): string[] =>
  Object.keys((schema as { properties?: object })?.properties ?? {});
/** The addresses a route answers under. */
const pathsOf = (route: Route): string[] => [
  route.path,
  ...(route.also ?? []),
  ...(route.legacy ? [route.path.replace(/^\/v1/, '')] : []),
];

function resourceOf(name: string, route: Route): Resource {
  // Parameters of one name may name different things: then the tag of the route stands before it.
  const resource = resources[`${route.tag} ${name}`] ?? resources[name];
  assert.ok(resource, `${keyOf(route)}: add a row to \`resources\` that makes what :${name} names`);
  return resource;
}

/** What has to be done to a resource before a route can succeed with it. */
const beforehand: Record<string, (owner: Caller, ids: Record<string, string>) => Promise<unknown>> = {
  'POST /v1/memory/:memory_id/restore': (owner, { memory_id }) =>
    owner.call('DELETE', `/v1/memory/${memory_id}`),
  'DELETE /v1/identity/:identity_id/delegations': (owner, { identity_id }) =>
    owner.call('POST', `/v1/identity/${identity_id}/delegate`),
  'POST /v1/corpora/:corpus_id/search': (owner, { corpus_id }) => textDocument(owner, corpus_id!),
};

/** Their bodies are files. */
const isUpload = ({ consumes }: Route): boolean =>
  consumes === 'multipart/form-data' || consumes === 'application/x-ndjson';

/** What each of these is sent, so that it asks for all it can. What the lines of an import need is asked by its job. */
const files: Record<string, (owner: Caller) => Promise<SentFile>> = {
  'POST /v1/documents': async (owner) => {
    const corpus_id = await resources.corpus_id!.make(owner);
    const document_id = await textDocument(owner, corpus_id);
    const fields = Object.entries({ corpus_id, document_id }).map(([name, value]) => ({ name, value }));
    const asks: Permission[] = ['corpora:read', 'documents:read'];
    return { ...form([...fields, file('words')]), query: '', asks };
  },
  'POST /v1/memory/import': async () => ({ ...noLines, query: '?preserve_ids=true', asks: ['admin:create'] }),
  'PUT /v1/memory/imports/:import_id': async () => ({ ...noLines, query: '', asks: [] }),
};
const noLines = { payload: '', headers: { 'content-type': 'application/x-ndjson' } };

interface SentFile {
  payload: Buffer | string;
  headers: Record<string, string>;
  query: string;
  asks: Permission[];
}

async function bodyOf(route: Route, asker: Caller): Promise<Record<string, unknown> | undefined> {
  if (!route.body || isUpload(route)) return undefined;
  const make = bodies[keyOf(route)];
  assert.ok(make, `${keyOf(route)}: add a row to \`bodies\` with a valid body`);
  return make((resource) => resourceOf(resource, route).make(asker));
}

function succeeded(reply: Reply): Reply {
  assert.ok(reply.status >= 200 && reply.status < 300, `${reply.status}: ${reply.text.slice(0, 300)}`);
  return reply;
}

/** An answer without what differs from one request to the next, and with the id that was asked for made the same. */
function comparable({ status, text }: Reply, asked: string): { status: number; text: string } {
  return {
    status,
    text: text
      .replaceAll(asked, '<asked>')
      // The second of two requests finds what the first one stored.
      .replace(/,"duplicate_of":"[^"]*"/g, '')
      .replace(/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, '<uuid>')
      .replace(/\b\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
      .replace(/"[0-9a-f]{64}"/g, '"<hash>"')
      .replace(/\b(session|doc|corpus|cor|gate|somebody|never-was)-[\w-]+/g, '<made>'),
  };
}

const state = ({ status, text }: Reply) => ({
  status,
  text: text.replace(/"request_id":"[^"]*"/g, '').replace(/"embedding_status":"[^"]*"/g, ''),
});

describe('another tenant’s ids', () => {
  let ann: Caller;
  let bob: Caller;

  before(async () => {
    ann = await newTenant('admin');
    // A key, not a token: the strongest credential an outsider can have in its own tenant.
    bob = await newKey(await newTenant('admin'), { scopes: ['admin'] });
  });

  const namesSomething = (route: Route) => parametersOf(route).some((name) => !forAnybody.includes(name));
  for (const route of routes.filter(namesSomething)) {
    for (const path of pathsOf(route)) {
      it(`${route.method} ${path} answers as for ids that never existed`, async () => {
        const hers: Record<string, string> = {};
        const nobodys: Record<string, string> = {};
        for (const name of parametersOf(route)) {
          const resource = resourceOf(name, route);
          hers[name] = await (states[keyOf(route)] ?? resource.make)(ann);
          nobodys[name] = resource.absent();
        }
        await beforehand[keyOf(route)]?.(ann, hers);
        const looks = parametersOf(route).map((name) => resourceOf(name, route).look(hers[name]!));
        const look = () => Promise.all(looks.map(async (url) => state(await ann.call('GET', url))));
        const earlier = await look();
        const body = await bodyOf(route, bob);
        const ask = (who: Caller, ids: Record<string, string>, headers?: Record<string, string>) =>
          who.call(route.method, fill(path, ids), body, headers);
        const wanted = comparable(await ask(bob, nobodys), Object.values(nobodys)[0]!);
        if (toldInStream.includes(keyOf(route))) {
          assert.equal(wanted.status, 200, wanted.text);
          assert.match(
            wanted.text,
            /^event: message\ndata: \{"type":"resume\.unsupported",[^\n]*\n\nevent: message\ndata: \{"type":"done",[^\n]*\n\n$/,
          );
        } else {
          assert.equal(wanted.status, 404, wanted.text);
          assert.equal(JSON.parse(wanted.text).error.code, 'NOT_FOUND');
        }
        assert.deepEqual(comparable(await ask(bob, hers), Object.values(hers)[0]!), wanted);
        const upper = Object.fromEntries(Object.entries(hers).map(([name, id]) => [name, id.toUpperCase()]));
        assert.deepEqual(comparable(await ask(bob, upper), Object.values(upper)[0]!), wanted);
        assert.deepEqual(await look(), earlier, 'what she has is as it was');
        // Hers she reaches, and what was stored under her Idempotency-Key is not replayed to him.
        const headers = { 'idempotency-key': `isolation-${++made}` };
        succeeded(await ask(ann, hers, headers));
        assert.deepEqual(comparable(await ask(bob, hers, headers), Object.values(hers)[0]!), wanted);
      });
    }
  }

  for (const route of routes) {
    // Forms have a test of their own below, and lines are read by a job of the tenant.
    const inBody = isUpload(route) ? [] : fieldsOf(route.body).map((field) => ({ field, in: 'body' }));
    const inQuery = fieldsOf(route.query).map((field) => ({ field, in: 'query' }));
    for (const place of [...inBody, ...inQuery].filter(({ field }) => /^id$|_ids?$/.test(field))) {
      const { field } = place;
      const name = fieldNames[`${keyOf(route)} ${field}`];
      if (name === null) continue;
      it(`${keyOf(route)} takes another tenant’s ${field} for one that never existed`, async () => {
        const resource = resources[name ?? field];
        assert.ok(resource, `${keyOf(route)}: say in \`fieldNames\` what ${field} names`);
        const hers = await resource.make(ann);
        const nobodys = resource.absent();
        const earlier = state(await ann.call('GET', resource.look(hers)));
        const ownIds: Record<string, string> = {};
        for (const parameter of parametersOf(route))
          ownIds[parameter] = await resourceOf(parameter, route).make(bob);
        const body = await bodyOf(route, bob);
        const ask = (id: string) => {
          const value = field.endsWith('_ids') ? [id] : id;
          const path = fill(route.path, ownIds);
          if (place.in === 'body') return bob.call(route.method, path, { ...body, [field]: value });
          return bob.call(route.method, `${path}?${field}=${encodeURIComponent(id)}`, body);
        };
        assert.deepEqual(comparable(await ask(hers), hers), comparable(await ask(nobodys), nobodys));
        assert.deepEqual(state(await ann.call('GET', resource.look(hers))), earlier);
      });
    }
  }

  describe('its own, by a key of the permissions that the contract names', () => {
    for (const route of routes.filter(({ permission, hidden }) => permission && !hidden)) {
      // What only concerns the caller itself has no row there, and asks for nothing else.
      if (route.body && !isUpload(route) && !bodies[keyOf(route)]) continue;
      it(keyOf(route), async () => {
        // Some end the credentials of who asks.
        const ann = await newTenant('admin');
        const declared = (route.alsoNeeds ?? []).map(({ permission }) => permission);
        const always = (route.alsoNeeds ?? [])
          .filter(({ when }) => !when)
          .map(({ permission }) => permission);
        const ids: Record<string, string> = {};
        for (const name of parametersOf(route))
          ids[name] = await (states[keyOf(route)] ?? resourceOf(name, route).make)(ann);
        await beforehand[keyOf(route)]?.(ann, ids);
        const body = await bodyOf(route, ann);
        const sent = isUpload(route) ? await files[keyOf(route)]!(ann) : undefined;
        // Each answer names one that is missing.
        const asked: Permission[] = [];
        let isMalformed = false;
        for (;;) {
          const key = await newKey(ann, { scopes: [route.permission!, ...asked] });
          const path = fill(route.path, ids);
          const reply = sent
            ? await call(route.method, `${path}${sent.query}`, { token: key.token, ...sent })
            : await key.call(route.method, path, body);
          isMalformed = reply.status === 422;
          const [, missing] = /does not have the scope for ([a-z_]+:[a-z_]+)\./.exec(reply.text) ?? [];
          if (!missing || asked.includes(missing as Permission)) break;
          asked.push(missing as Permission);
        }
        assert.deepEqual(
          asked.filter((one) => !declared.includes(one)),
          [],
          'asked, and not declared',
        );
        assert.deepEqual(
          isMalformed ? [] : always.filter((one) => !asked.includes(one)),
          [],
          'declared, and not asked',
        );
        if (sent) assert.deepEqual([asked, isMalformed], [sent.asks, false]);
      });
    }
  });

  // Lists within a resource are asked for by its id, above; their cursors are tested where they belong.
  const tenantLists = routes.filter(
    ({ path, query }) => fieldsOf(query).includes('cursor') && !path.includes(':'),
  );
  for (const route of tenantLists) {
    it(`${keyOf(route)} lists a tenant’s own, and takes no cursor of another’s`, async () => {
      const name = lists[route.path];
      assert.ok(name, `${keyOf(route)}: say in \`lists\` what it is a list of`);
      // A list below something: each looks below what is its own.
      const listOf = async (who: Caller) => {
        const ids: Record<string, string> = {};
        for (const parameter of parametersOf(route))
          ids[parameter] = await resourceOf(parameter, route).make(who);
        return fill(route.path, ids);
      };
      const [his, list] = [await listOf(bob), await listOf(ann)];
      const hers = [await resources[name]!.make(ann), await resources[name]!.make(ann)];
      const page = succeeded(await ann.call('GET', `${list}?limit=1`));
      const cursor = String(page.headers['x-next-cursor']);
      assert.ok(page.headers['x-next-cursor'], 'there is a next page');
      const all = succeeded(await ann.call('GET', `${list}?limit=100`));
      for (const id of hers) assert.ok(all.text.includes(id));
      const shown = succeeded(await bob.call('GET', `${his}?limit=100`));
      for (const id of [...hers, ann.tenant]) assert.ok(!shown.text.includes(id));
      const taken = await bob.call('GET', `${his}?limit=1&cursor=${encodeURIComponent(cursor)}`);
      assert.equal(taken.status, 400);
      assert.equal(taken.body.error.code, 'INVALID_CURSOR');
    });
  }

  for (const route of routes.filter(({ path }) => path.endsWith('/search'))) {
    it(`${keyOf(route)} finds a tenant’s own only`, async () => {
      const row = searches[keyOf(route)];
      assert.ok(row, `${keyOf(route)}: add a row to \`searches\``);
      const hers = await resources[row.resource]!.make(ann);
      const corpusOf = async (owner: Caller, document?: string): Promise<string> =>
        document === undefined
          ? resources.corpus_id!.make(owner)
          : (await owner.call('GET', `/v1/documents/${document}`)).body.data.corpus_id;
      const ids = async (owner: Caller, document?: string) =>
        Object.fromEntries(
          await Promise.all(parametersOf(route).map(async (name) => [name, await corpusOf(owner, document)])),
        );
      const found = succeeded(
        await ann.call('POST', fill(route.path, await ids(ann, hers)), { query: row.query }),
      );
      assert.ok(found.text.includes(hers), 'she finds it');
      const other = succeeded(await bob.call('POST', fill(route.path, await ids(bob)), { query: row.query }));
      assert.ok(!other.text.includes(hers) && !other.text.includes(ann.tenant), 'he does not');
    });
  }

  it('an upload into another tenant’s corpus answers as for one that never existed', async () => {
    const hers = await resources.corpus_id!.make(ann);
    const upload = async (corpus: string) => {
      const fields = [
        'name="corpus_id"\r\n\r\n@'.replace('@', corpus),
        'name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nwords',
      ];
      const payload = `${fields.map((field) => `--x\r\nContent-Disposition: form-data; ${field}\r\n`).join('')}--x--\r\n`;
      const headers = { 'content-type': 'multipart/form-data; boundary=x' };
      return call('POST', '/v1/documents', { token: bob.token, payload, headers });
    };
    const nobodys = slug();
    const wanted = comparable(await upload(nobodys), nobodys);
    assert.equal(wanted.status, 404, wanted.text);
    assert.deepEqual(comparable(await upload(hers), hers), wanted);
    assert.deepEqual((await ann.call('GET', `/v1/documents?corpus_id=${hers}`)).body.data, []);
    assert.equal((await upload(await resources.corpus_id!.make(bob))).status, 202);
    for (const { path } of routes.filter(({ consumes }) => consumes === 'multipart/form-data'))
      assert.equal(path, '/v1/documents', `${path}: add an upload like this one`);
  });

  it('one Idempotency-Key in two tenants is two requests', async () => {
    const headers = { 'idempotency-key': `shared-${++made}` };
    const note = { text: 'the same words', type: 'note' };
    const hers = succeeded(await ann.call('POST', '/v1/memory/', note, headers));
    const his = succeeded(await bob.call('POST', '/v1/memory/', note, headers));
    assert.notEqual(his.body.id, hers.body.id);
    assert.equal(his.headers['idempotency-replayed'], undefined);
    assert.equal((await bob.call('GET', `/v1/memory/${hers.body.id}`)).status, 404);
  });

  it('a tenant named by the caller is refused on every route, whatever its id', async () => {
    for (const route of routes.filter((one) => !one.public && one.body && !one.consumes)) {
      const path = route.path.replace(/:[a-z_]+/g, 'x');
      const reply = await bob.call(route.method, path, { tenant_id: ann.tenant });
      assert.equal(reply.status, 400, keyOf(route));
      const { error } = reply.body;
      assert.equal(error.data?.code ?? error.code, 'TENANT_ID_NOT_ALLOWED', keyOf(route));
    }
  });
});

/** Where a row is put to policy under another permission than that of the route, which is not about rows. */
const askedAs: Record<string, string> = { 'POST /v1/policy/:policy_id/test': 'policy:read' };

describe('a row that a route names', () => {
  let ann: Caller;
  const query = async (text: string, values: unknown[]) =>
    (await (await testServer()).app.database.operatorPool.query(text, values)).rows;

  before(async () => {
    ann = await newTenant('admin');
    // It matches nothing, and looks at rows: so each of them has to be decided, and is recorded with its id and owner.
    const never = ['id', 'owner'].map((name) => ({ '==': [{ var: `target.${name}` }, 'never'] }));
    const policy = { role: '*', effect: 'deny', rule: { and: never }, priority: 1 };
    succeeded(await ann.call('POST', '/v1/policy/', policy));
  });

  /** The rows that policy was asked about, by the permission of the route, while it answered. */
  async function rowsAsked(route: Route, ask: () => Promise<Reply>): Promise<{ reply: Reply; rows: any[] }> {
    const { app } = await testServer();
    await flushDecisions(app, ann.tenant);
    await query('delete from policy_decisions where tenant_id = $1', [ann.tenant]);
    const reply = await ask();
    await flushDecisions(app, ann.tenant);
    const [resource, action] = (askedAs[keyOf(route)] ?? route.permission!).split(':');
    const asked = await query(
      `select question -> 'target' as target from policy_decisions
       where tenant_id = $1 and question ->> 'resource' = $2 and question ->> 'action' = $3`,
      [ann.tenant, resource, action],
    );
    const rows = asked.map(({ target }) => target).filter((target) => typeof target === 'object' && target);
    return { reply, rows };
  }

  const named = routes.filter(
    (route) => route.permission && parametersOf(route).some((name) => !forAnybody.includes(name)),
  );
  for (const route of named) {
    it(`is put to policy by ${keyOf(route)}, and the route says so`, async () => {
      const ids: Record<string, string> = {};
      for (const name of parametersOf(route)) {
        const resource = resourceOf(name, route);
        ids[name] = await (states[keyOf(route)] ?? resource.make)(ann);
      }
      await beforehand[keyOf(route)]?.(ann, ids);
      const body = await bodyOf(route, ann);
      const { reply, rows } = await rowsAsked(route, () =>
        ann.call(route.method, fill(route.path, ids), body),
      );
      succeeded(reply);
      assert.ok(
        rows.some(({ id, owner, own, itself }) => id ?? owner ?? own ?? itself),
        `${route.permission} was asked about ${JSON.stringify(rows)}`,
      );
      assert.equal(
        route.decidesRows ?? false,
        !(keyOf(route) in askedAs),
        'whether it declares `decidesRows`',
      );
    });
  }

  for (const [path, name] of Object.entries(lists).filter(([list]) => !list.includes(':'))) {
    it(`is put to policy by the list ${path}, and the route says so`, async () => {
      const route = routes.find((one) => one.method === 'GET' && one.path === path)!;
      await resources[name]!.make(ann);
      const { reply, rows } = await rowsAsked(route, () => ann.call('GET', path));
      succeeded(reply);
      assert.ok(rows.length > 0, `${route.permission} was asked about no row`);
      assert.ok(route.decidesRows, 'it has to declare `decidesRows`');
    });
  }
});

/** Tables of the whole installation: no tenant, and nothing for the restricted role. */
const installationTables = ['attempts', 'password_reset_requests', 'schema_migrations', 'signing_keys'];

/** What the restricted role may do where it is not everything. */
const narrowed: Record<string, string[]> = {
  facts: ['INSERT', 'SELECT'],
  fact_positions: ['SELECT'],
  policy_versions: ['INSERT', 'SELECT'],
};

describe('the catalogue', () => {
  let tables: string[];
  let appRole: string;
  const ask = async <Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> =>
    (await (await testServer()).app.database.operatorPool.query<Row>(text, values)).rows;

  before(async () => {
    ({ appRole } = (await testServer()).app.database);
    const rows = await ask<{ name: string }>(
      `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = 'public' and c.relkind in ('r', 'p') order by 1`,
    );
    tables = rows.map(({ name }) => name);
  });
  const tenantTables = () => tables.filter((name) => !installationTables.includes(name));

  it('has a tenant in every table but those of the installation', async () => {
    const rows = await ask<{
      table_name: string;
      data_type: string;
      is_nullable: string;
      ordinal_position: number;
      collation_name: string | null;
    }>(
      `select table_name, data_type, is_nullable, ordinal_position, collation_name from information_schema.columns
       where table_schema = 'public' and column_name = 'tenant_id' order by table_name`,
    );
    assert.deepEqual(
      rows.map(({ table_name }) => table_name),
      tenantTables(),
    );
    for (const row of rows) {
      const { table_name, ...column } = row;
      assert.deepEqual(
        column,
        { data_type: 'text', is_nullable: 'NO', ordinal_position: 1, collation_name: null },
        table_name,
      );
    }
  });

  it('has the tenant first in every key, unique index and reference', async () => {
    const indexes = await ask<{ table: string; name: string; first: string; primary: boolean }>(
      `select t.relname as table, i.relname as name, a.attname as first, x.indisprimary as primary
       from pg_index x join pg_class t on t.oid = x.indrelid join pg_class i on i.oid = x.indexrelid
       join pg_namespace n on n.oid = t.relnamespace left join pg_attribute a on a.attrelid = t.oid and a.attnum = x.indkey[0]
       where n.nspname = 'public' and x.indisunique and t.relname <> all($1)`,
      [installationTables],
    );
    assert.deepEqual(
      indexes.filter(({ first }) => first !== 'tenant_id'),
      [],
    );
    const keyed = new Set(indexes.filter(({ primary }) => primary).map(({ table }) => table));
    assert.deepEqual(
      tenantTables().filter((name) => !keyed.has(name)),
      [],
      'without a primary key',
    );

    const references = await ask<{
      name: string;
      here: string;
      there: string;
      on_delete: string;
      on_update: string;
    }>(
      `select c.conname as name, a.attname as here, b.attname as there, c.confdeltype as on_delete, c.confupdtype as on_update
       from pg_constraint c join pg_namespace n on n.oid = c.connamespace
       join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
       join pg_attribute b on b.attrelid = c.confrelid and b.attnum = c.confkey[1]
       where c.contype = 'f' and n.nspname = 'public'`,
    );
    assert.ok(references.length >= 5);
    for (const { name, ...reference } of references) {
      assert.equal(`${reference.here} ${reference.there}`, 'tenant_id tenant_id', name);
      assert.ok(
        !['n', 'd'].includes(reference.on_delete),
        `${name} sets null or default when its target is deleted`,
      );
      assert.equal(reference.on_update, 'a', name);
    }
  });

  it('has no triggers of its own, no counted columns, and no defaults from the clock', async () => {
    assert.deepEqual(
      await ask(`select t.tgname, c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid
                 join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and not t.tgisinternal`),
      [],
    );
    assert.deepEqual(
      await ask(
        `select table_name, column_name from information_schema.columns
                 where table_schema = 'public' and table_name <> all($1) and (is_identity = 'YES' or column_default like '%nextval%'
                   or column_default ~ 'now\\(|CURRENT_|random|uuid\\(|clock')`,
        [installationTables],
      ),
      [],
    );
  });

  it('keeps no samples of what people say, which would outlive its erasure', async () => {
    assert.deepEqual(
      await ask(
        `select c.relname as table_name, a.attname as column_name
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           join pg_type t on t.oid = a.atttypid
         where c.relnamespace = 'public'::regnamespace and c.relname = any($1) and coalesce(a.attstattarget, -1) <> 0
           and (t.typname in ('jsonb', 'bytea', 'vector', 'halfvec', 'sparsevec')
             or a.attname ~ '^(text|extracted_text|filename|name|description|reason|email|username|user_agent)$')`,
        [tenantTables()],
      ),
      [],
    );
  });

  it('forces row-level security with exactly the two policies of the stamp', async () => {
    const rows = await ask<{ name: string; enabled: boolean; forced: boolean }>(
      `select c.relname as name, c.relrowsecurity as enabled, c.relforcerowsecurity as forced from pg_class c
       where c.relnamespace = 'public'::regnamespace and c.relname = any($1) order by 1`,
      [tenantTables()],
    );
    assert.deepEqual(
      rows.filter(({ enabled, forced }) => !enabled || !forced),
      [],
    );
    const policies = await ask<{
      tablename: string;
      policyname: string;
      roles: string;
      permissive: string;
      cmd: string;
      qual: string;
      with_check: string;
    }>(
      `select tablename, policyname, array_to_string(roles, ',') as roles, permissive, cmd, qual, with_check from pg_policies
       where schemaname = 'public' order by tablename, policyname`,
    );
    const [{ owner }] = (await ask<{ owner: string }>(`select current_user as owner`)) as [{ owner: string }];
    const entered = "(tenant_id = current_setting('app.tenant_id'::text, true))";
    const wanted = tenantTables().flatMap((tablename) => [
      {
        tablename,
        policyname: 'operator',
        roles: owner,
        permissive: 'PERMISSIVE',
        cmd: 'ALL',
        qual: 'true',
        with_check: 'true',
      },
      {
        tablename,
        policyname: 'tenant_isolation',
        roles: appRole,
        permissive: 'PERMISSIVE',
        cmd: 'ALL',
        qual: entered,
        with_check: entered,
      },
    ]);
    assert.deepEqual(policies, wanted);
  });

  it('grants the restricted role what each table is meant to allow, and nothing else', async () => {
    const rows = await ask<{ name: string; privileges: string[] }>(
      `select c.relname as name, array_remove(array_agg(distinct g.privilege_type order by g.privilege_type), null) as privileges
       from pg_class c left join lateral aclexplode(c.relacl) g on g.grantee = (select oid from pg_roles where rolname = $1) or g.grantee = 0
       where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S') group by 1 order by 1`,
      [appRole],
    );
    const everything = ['DELETE', 'INSERT', 'SELECT', 'UPDATE'];
    for (const { name, privileges } of rows) {
      const list = Array.isArray(privileges)
        ? privileges
        : String(privileges).replace(/[{}]/g, '').split(',').filter(Boolean);
      const wanted = installationTables.includes(name) ? [] : (narrowed[name] ?? everything);
      assert.deepEqual(list, wanted, name);
    }
  });

  it('knows the restricted role as one that can not bypass, own or stamp', async () => {
    const [role] = await ask(
      `select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
         (select count(*)::int from pg_class where relowner = r.oid) as owns,
         (select count(*)::int from pg_auth_members where member = r.oid) as member_of,
         has_function_privilege(r.oid, 'stamp_tenant_table(regclass, text)', 'execute') as may_stamp,
         has_schema_privilege(r.oid, 'public', 'create') as may_create
       from pg_roles r where rolname = $1`,
      [appRole],
    );
    assert.deepEqual(role, {
      rolsuper: false,
      rolbypassrls: false,
      rolcreaterole: false,
      rolcreatedb: false,
      rolreplication: false,
      owns: 0,
      member_of: 0,
      may_stamp: false,
      may_create: false,
    });
  });

  it('has no function that runs with its owner’s rights, and no view that does', async () => {
    // These look past row-level security, because under it an index over arrays can not be used; so they must take the
    // tenant from where the policies take it, and from no argument.
    const trusted = ['trigrams_in_segment', 'words_in_segment'];
    const functions = (await ask(
      `select p.proname, p.prosrc, pg_get_function_identity_arguments(p.oid) as arguments from pg_proc p
       where p.pronamespace = 'public'::regnamespace and p.prosecdef order by p.proname`,
    )) as { proname: string; prosrc: string; arguments: string }[];
    assert.deepEqual(
      functions.map(({ proname }) => proname),
      trusted,
    );
    for (const { prosrc, arguments: given } of functions) {
      assert.match(
        prosrc,
        /where t\.tenant_id = \$1 and [\s\S]*using current_setting\('app\.tenant_id', true\), /,
      );
      assert.doesNotMatch(given, /tenant/);
    }
    assert.deepEqual(
      await ask(`select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('v', 'm')
                 and not coalesce(array_to_string(c.reloptions, ',') like '%security_invoker=true%', false)`),
      [],
    );
  });

  describe('under the restricted role', () => {
    /** Speaks to the database as the restricted role, without a tenant unless one is entered, and takes all of it back. */
    async function restricted<T>(work: (query: pg.ClientBase['query']) => Promise<T>): Promise<T> {
      const { app } = await testServer();
      const { database } = app;
      if (database.engine === 'embedded') {
        const client = await database.operatorPool.connect();
        try {
          await client.query('begin');
          await client.query(`set local role ${pg.escapeIdentifier(appRole)}`);
          return await work(client.query.bind(client) as pg.ClientBase['query']);
        } finally {
          await client.query('rollback');
          client.release();
        }
      }
      const url = new URL(app.config.DATABASE_APP_URL ?? app.config.DATABASE_URL!);
      if (!app.config.DATABASE_APP_URL) {
        url.username = encodeURIComponent(appRole);
        url.password = encodeURIComponent(app.keys.databaseRole);
      }
      const client = new pg.Client({ connectionString: url.href });
      await client.connect();
      try {
        await client.query('begin');
        return await work(client.query.bind(client) as pg.ClientBase['query']);
      } finally {
        await client.query('rollback');
        await client.end();
      }
    }

    it('no table shows a row before a tenant is entered', async () => {
      await newTenant('admin');
      await restricted(async (query) => {
        for (const name of tenantTables()) {
          const { rows } = await query(`select count(*)::int as rows from ${pg.escapeIdentifier(name)}`);
          assert.deepEqual(rows, [{ rows: 0 }], name);
        }
      });
      for (const name of installationTables) {
        const refused = restricted((query) => query(`select 1 from ${name}`));
        await assert.rejects(refused, { code: '42501' }, name);
      }
    });

    it('an entered tenant sees its own rows, and can not write, move or take another’s', async () => {
      const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
      const inAnn = <T>(work: (query: pg.ClientBase['query']) => Promise<T>) =>
        restricted(async (query) => {
          await query('select enter($1)', [ann.tenant]);
          return work(query);
        });
      await inAnn(async (query) => {
        const { rows } = await query('select distinct tenant_id from identities');
        assert.deepEqual(rows, [{ tenant_id: ann.tenant }]);
        const { rowCount } = await query('update identities set role = $2 where tenant_id = $1', [
          bob.tenant,
          'user',
        ]);
        assert.equal(rowCount, 0);
        assert.equal((await query('delete from sessions where tenant_id = $1', [bob.tenant])).rowCount, 0);
      });
      await assert.rejects(
        inAnn((query) => query('update identities set tenant_id = $1', [bob.tenant])),
        { code: '42501' },
      );
      await inAnn(async (query) => {
        for (const nobody of ['', 'Not a tenant', null]) {
          await query('select enter($1)', [nobody]);
          assert.deepEqual((await query('select tenant_id from identities')).rows, []);
        }
      });
      await assert.rejects(
        inAnn((query) => query(`update facts set type = 'x'`)),
        { code: '42501' },
      );
      await assert.rejects(
        inAnn((query) => query('delete from facts')),
        { code: '42501' },
      );
      await assert.rejects(
        inAnn((query) => query('truncate memories')),
        { code: '42501' },
      );
    });

    it('a row of another tenant is refused by every table', async () => {
      const [ann, bob] = [await newTenant('admin'), await newTenant('admin')];
      const columns = await ask<{ table_name: string; column_name: string; udt_name: string }>(
        `select table_name, column_name, udt_name from information_schema.columns
         where table_schema = 'public' and table_name = any($1) and is_nullable = 'NO' and column_default is null
         order by table_name, ordinal_position`,
        [tenantTables()],
      );
      const samples: Record<string, string> = {
        text: "'x'",
        uuid: `'${uuidv7()}'`,
        timestamptz: "'2026-01-01Z'",
        bytea: "'\\x00'",
        json: "'[]'",
        jsonb: "'{}'",
        int4: '1',
        int8: '1',
        bool: 'true',
        sparsevec: "'{1:1}/8'",
        vector: "'[1]'",
        float8: '1',
        date: "'2026-01-01'",
        float4: '1',
        numeric: '1',
      };
      for (const name of tenantTables().filter((one) => (narrowed[one] ?? ['INSERT']).includes('INSERT'))) {
        const own = columns.filter(({ table_name }) => table_name === name);
        const values = own.map(({ column_name, udt_name }) => {
          if (column_name === 'tenant_id') return pg.escapeLiteral(bob.tenant);
          const sample = samples[udt_name];
          assert.ok(sample, `add a value of type ${udt_name} to \`samples\``);
          return sample;
        });
        const insert = `insert into ${name} (${own.map(({ column_name }) => pg.escapeIdentifier(column_name))}) values (${values})`;
        const refused = restricted(async (query) => {
          await query('select enter($1)', [ann.tenant]);
          await query(insert);
        });
        await assert.rejects(refused, { code: '42501' }, name);
      }
    });
  });
});
