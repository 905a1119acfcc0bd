import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import {
  type EmbeddingServer,
  meaningOf,
  startEmbeddingServer,
  type Trouble,
} from '#test/embedding-server.ts';
import {
  type Caller,
  callServer,
  emptyDatabase,
  engine,
  eventually,
  newDataDir,
  newTenant,
  startServer,
} from '#test/harness.ts';
import type { Running } from '../../../app.ts';

// Servers with embedding models of their own: two workers of different models on one database would each embed what the
// other has embedded. So these tests have the database to themselves.

const model = 'meaning-32';
const hashed = 'hashed-384-v1';
const directory = newDataDir();
let embeddings: EmbeddingServer;
let server: Running;

const quick = {
  EXT_CALL_TIMEOUT_MS: '1500',
  EXT_RETRY_MAX_ATTEMPTS: '1',
  EMBEDDING_QUERY_TIMEOUT_MS: '1500',
  EMBEDDING_BREAKER_MS: '300',
  DATA_DIR: directory,
};

const withModel = (name = 'meaning', more: Record<string, string> = {}) =>
  startServer({
    ...quick,
    EMBEDDING_BASE_URL: embeddings.url,
    EMBEDDING_MODEL: name,
    EMBEDDING_DIMENSIONS: '32',
    ...more,
  });

before(async () => {
  if (engine === 'postgres') await emptyDatabase(process.env.DATABASE_URL!);
});

/** Somebody who speaks to whichever server runs just now. */
const follower = async (): Promise<Caller> => {
  const who = await newTenant('admin', server);
  return {
    ...who,
    call: (method, url, body) =>
      callServer(server, method, url, { token: who.token, ...(body === undefined ? {} : { body }) }),
  };
};

interface ModelState {
  model: string;
  vectors: number;
  renewal: { to: string; state: string; remaining: number; refused: number; done: number } | null;
}

async function stateOf(who: Caller) {
  const { status, body } = await who.call('GET', '/v1/ops/embeddings');
  assert.equal(status, 200, JSON.stringify(body));
  const memories = body.data.collections.find(({ scope }: { scope: string }) => scope === 'memory');
  const models: ModelState[] = memories?.models ?? [];
  return {
    links: body.data.links as {
      provider: string;
      state: string;
      breaker: string;
      last_failure: { kind: string; message: string | null } | null;
    }[],
    waiting: memories?.waiting as number,
    models,
    /** Vectors by model. */
    vectors: Object.fromEntries(models.map((one) => [one.model, one.vectors])),
  };
}

const remember = async (who: Caller, ...texts: string[]): Promise<string[]> => {
  const reply = await who.call('POST', '/v1/memory/bulk', {
    memories: texts.map((text) => ({ text, type: 'note' })),
  });
  assert.equal(reply.status, 201);
  return reply.body.created.map(({ id }: { id: string }) => id);
};

const search = async (who: Caller, query: string, mode = 'hybrid'): Promise<string[]> => {
  const reply = await who.call('POST', '/v1/memory/search', { query, mode });
  assert.equal(reply.status, 200, reply.text);
  return reply.body.map(({ text }: { text: string }) => text);
};

const embedded = (who: Caller, vectors: Record<string, number>) =>
  eventually(
    `vectors ${JSON.stringify(vectors)}`,
    async () => {
      const state = await stateOf(who);
      const there = Object.entries(vectors).every(([name, count]) => (state.vectors[name] ?? 0) === count);
      return (
        state.waiting === 0 && there && Object.keys(state.vectors).every((name) => name in vectors) && state
      );
    },
    60_000,
  );

describe('with an embeddings server', () => {
  let ann: Caller;
  before(async () => {
    embeddings = await startEmbeddingServer();
    server = await withModel();
  });
  beforeEach(async () => {
    ann = await newTenant('admin', server);
  });
  afterEach(async () => {
    embeddings.fail({ kind: 'none' });
    // Otherwise one test's breaker is the next one's failure.
    await eventually('the model to answer', async () => {
      const other = await newTenant('admin', server);
      await remember(other, 'anybody there');
      const { vectors } = await eventually('a vector', async () => {
        const state = await stateOf(other);
        return state.waiting === 0 && Object.keys(state.vectors).length > 0 && state;
      });
      return vectors[model] === 1;
    });
  });
  after(async () => {
    await server.stop();
    await embeddings.close();
  });

  it('a search finds what no word says', async () => {
    await remember(ann, 'Talked about the pension', 'The weather was fine');
    await embedded(ann, { [model]: 2 });
    assert.equal((await search(ann, 'retirement'))[0], 'Talked about the pension');
    assert.equal((await search(ann, 'retirement', 'vector'))[0], 'Talked about the pension');
    assert.deepEqual(await search(ann, 'retirement', 'text'), []);
  });

  it('a chunk is found by its meaning too', async () => {
    const corpus = (await ann.call('POST', '/v1/corpora', { name: 'Animals' })).body.data.id;
    await ann.call('POST', '/v1/documents/text', {
      corpus_id: corpus,
      text: 'My puppy sleeps.',
      document_id: 'pets',
    });
    await eventually(
      'the document',
      async () => (await ann.call('GET', '/v1/documents/pets')).body.data.status === 'succeeded',
    );
    const { body } = await ann.call('POST', `/v1/corpora/${corpus}/search`, { query: 'hound' });
    assert.match(body.data[0].text, /puppy/);
    const state = await ann.call('GET', '/v1/ops/embeddings');
    const chunks = state.body.data.collections.find(
      ({ collection }: { collection: string }) => collection === 'chunks',
    );
    assert.deepEqual([chunks.scope, chunks.models[0].model], [`corpus:${corpus}`, model]);
  });

  describe('whose vectors say nothing', () => {
    const people = ['Anna', 'Boris', 'Chen', 'Dora', 'Emil', 'Fatma', 'Goran', 'Hana'];
    const verbs = ['paints', 'repairs', 'sells', 'collects'];
    const things = ['boats', 'clocks', 'organs', 'lamps'];
    // More than the nearest that are asked for: which of them come first decides what is lifted.
    const jobs = verbs.flatMap((verb) => things.map((thing) => `${verb} ${thing}`));
    const texts = people.flatMap((name) => jobs.map((job) => `${name} ${job} in the old harbour`));
    const questions = people.flatMap((name, i) =>
      [0, 2].map((j) => {
        const job = jobs[(i + j) % jobs.length]!;
        return { query: `In the harbour, who ${job}: ${name}?`, answer: `${name} ${job} in the old harbour` };
      }),
    );
    /** Sum over the questions of one through the place of the answer. */
    const found = async (who: Caller, mode: string): Promise<number> => {
      let sum = 0;
      for (const { query, answer } of questions) {
        const place = (await search(who, query, mode)).indexOf(answer);
        if (place >= 0) sum += 1 / (1 + place);
      }
      return sum;
    };
    const random = (text: string, dimensions: number) => meaningOf(`random ${hash('md5', text)}`, dimensions);
    const constant = (_: string, dimensions: number) => new Array<number>(dimensions).fill(0.5);
    const kinds = {
      random,
      constant,
      'nearly constant': (text: string, dimensions: number) =>
        random(text, dimensions).map((value) => 1 + value / 100),
    };
    after(() => embeddings.answerWith(meaningOf));

    for (const [kind, vectorOf] of Object.entries(kinds)) {
      it(`finds as much by ${kind} ones as by words alone`, async () => {
        embeddings.answerWith(vectorOf);
        await remember(ann, ...texts);
        await embedded(ann, { [model]: texts.length });
        const [words, both] = [await found(ann, 'text'), await found(ann, 'hybrid')];
        assert.ok(words > questions.length * 0.9, `words alone: ${words}`);
        assert.ok(both >= words - 0.5, `${both} instead of ${words}`);
      });
    }
  });

  it('requests hold at most 100 texts', async () => {
    embeddings.requests.length = 0;
    await remember(ann, ...Array.from({ length: 250 }, (_, i) => `number ${i}`));
    await embedded(ann, { [model]: 250 });
    const sizes = embeddings.requests.map(({ input }) => input.length);
    assert.ok(Math.max(...sizes) <= 100);
    assert.ok(sizes.filter((size) => size === 100).length >= 2);
  });

  it('the vector of a query is asked for once', async () => {
    await remember(ann, 'Bought a car');
    await embedded(ann, { [model]: 1 });
    embeddings.requests.length = 0;
    for (let i = 0; i < 3; i++) assert.equal((await search(ann, 'automobile'))[0], 'Bought a car');
    assert.deepEqual(embeddings.texts(), ['automobile']);
  });

  const outages: [string, Trouble, string, RegExp?][] = [
    ['is down', { kind: 'status', status: 503 }, 'server_error'],
    ['is slow', { kind: 'slow', ms: 5_000 }, 'timeout'],
    ['refuses the key', { kind: 'status', status: 401 }, 'unauthorized'],
    ['does not know the model', { kind: 'status', status: 404 }, 'misconfigured', /answered 404/],
    ['leads to another address', { kind: 'status', status: 301 }, 'misconfigured', /leads to another one/],
    ['refuses every text', { kind: 'status', status: 400 }, 'misconfigured'],
    ['answers with other dimensions', { kind: 'dimensions', dimensions: 31 }, 'misconfigured'],
    ['answers with garbage', { kind: 'garbage', body: '<html>' }, 'garbage'],
    ['answers with too little', { kind: 'garbage', body: '{"data":[]}' }, 'garbage'],
    ['falls silent in the middle of an answer', { kind: 'hang' }, 'timeout'],
    ['is cut off in the middle of an answer', { kind: 'cut' }, 'unreachable'],
    ['has no time, and no time soon', { kind: 'status', status: 429, retryAfter: '3600' }, 'rate_limited'],
  ];
  for (const [what, trouble, kind, said] of outages) {
    it(`while it ${what} the built-in vectors stand in, and are replaced when it is well again`, async () => {
      embeddings.fail(trouble);
      await remember(ann, 'Talked about the pension', 'The weather was fine');
      const during = await embedded(ann, { [hashed]: 2 });
      const [link] = during.links;
      assert.deepEqual([link?.state, link?.last_failure?.kind], ['failing', kind]);
      if (said) assert.match(link!.last_failure!.message!, said);
      assert.deepEqual(during.models[0]?.renewal?.remaining, 2);
      assert.deepEqual(await search(ann, 'pension'), ['Talked about the pension']);
      assert.equal((await search(ann, 'pension', 'vector'))[0], 'Talked about the pension');
      embeddings.fail({ kind: 'none' });
      const later = await embedded(ann, { [model]: 2 });
      assert.equal(later.links[0]?.state, 'working');
      assert.equal((await search(ann, 'retirement'))[0], 'Talked about the pension');
    });
  }

  it('a server that was given up is asked again although nobody else asks', async () => {
    embeddings.fail({ kind: 'status', status: 503 });
    for (const text of ['about the dog', 'about the car', 'about the doctor', 'about the pension']) {
      await remember(ann, text);
      await eventually('its vector', async () => (await stateOf(ann)).waiting === 0);
    }
    const { links } = await embedded(ann, { [hashed]: 4 });
    assert.deepEqual([links[0]?.state, links[0]?.last_failure?.kind], ['failing', 'server_error']);
    assert.notEqual(links[0]?.breaker, 'closed');
    embeddings.fail({ kind: 'none' });
    await embedded(ann, { [model]: 4 });
  });

  it('a server that says when to come back is asked again then', async () => {
    embeddings.requests.length = 0;
    embeddings.fail({ kind: 'status', status: 429, retryAfter: '1', times: 1 });
    await remember(ann, 'Saw the doctor');
    await embedded(ann, { [model]: 1 });
    const [first, second] = embeddings.requests;
    assert.ok(second!.at - first!.at >= 1_000);
  });

  it('one text that is refused holds up no other, and is not tried for ever', async () => {
    embeddings.fail({ kind: 'status', status: 400, texts: /poison/ });
    const texts = Array.from({ length: 20 }, (_, i) => `harmless ${i}`);
    const ids = await remember(ann, ...texts, 'a poisonous text');
    const state = await embedded(ann, { [model]: 20, [hashed]: 1 });
    assert.equal(state.links[0]?.state, 'working');
    assert.equal(state.models.find(({ model: name }) => name === hashed)?.renewal?.refused, 1);
    assert.equal((await search(ann, 'poisonous', 'vector'))[0], 'a poisonous text');
    embeddings.requests.length = 0;
    await eventually('the renewal to have nothing left', async () => {
      const { models } = await stateOf(ann);
      return models.find(({ model: name }) => name === hashed)?.renewal?.state === 'done';
    });
    // What comes later is embedded, and the refused text is left in peace.
    await remember(ann, 'harmless as well');
    await embedded(ann, { [model]: 21, [hashed]: 1 });
    assert.deepEqual(
      embeddings.texts().filter((text) => /poison/.test(text)),
      [],
    );
    // A changed text is another text.
    await ann.call('PUT', `/v1/memory/${ids.at(-1)}`, { text: 'harmless by now' });
    await embedded(ann, { [model]: 22 });
  });

  for (const [what, status, says] of [
    ['is too long', 500, 'input (9000 tokens) is too large to process'],
    ['a filter before the model stops', 403, 'blocked'],
  ] as const)
    it(`a tenant whose text ${what} does not take the model from the others`, async () => {
      embeddings.fail({ kind: 'status', status, says, texts: /poison/ });
      for (let i = 0; i < 6; i++) {
        await remember(ann, `a poisonous text ${i}`);
        await eventually('its vector', async () => (await stateOf(ann)).waiting === 0);
      }
      assert.equal((await stateOf(ann)).links[0]?.breaker, 'closed');
      const ben = await newTenant('admin', server);
      await remember(ben, 'Talked about the pension');
      embeddings.requests.length = 0;
      await embedded(ben, { [model]: 1 });
      assert.equal((await search(ben, 'retirement'))[0], 'Talked about the pension');
    });

  it('a memory that is changed or deleted while it waits for renewal keeps no old vector', async () => {
    embeddings.fail({ kind: 'status', status: 503 });
    const [changed, deleted] = await remember(ann, 'about the dog', 'about the car', 'about the doctor');
    await embedded(ann, { [hashed]: 3 });
    await ann.call('PUT', `/v1/memory/${changed}`, { text: 'about the pension' });
    await ann.call('DELETE', `/v1/memory/${deleted}?hard_delete=true`);
    embeddings.fail({ kind: 'none' });
    await embedded(ann, { [model]: 2 });
    assert.equal((await search(ann, 'annuity', 'vector'))[0], 'about the pension');
  });

  it('a memory that is changed or deleted while its vector is made keeps no old one, and others get theirs', async () => {
    embeddings.fail({ kind: 'slow', ms: 5_000 });
    embeddings.requests.length = 0;
    const [changed, deleted] = await remember(ann, 'about the dog', 'about the car', 'about the doctor');
    await eventually('the model to be asked', async () => embeddings.texts().includes('about the dog'));
    await ann.call('PUT', `/v1/memory/${changed}`, { text: 'about the pension' });
    await ann.call('DELETE', `/v1/memory/${deleted}?hard_delete=true`);
    embeddings.fail({ kind: 'none' });
    await embedded(ann, { [model]: 2 });
    assert.equal((await search(ann, 'annuity', 'vector'))[0], 'about the pension');
    assert.equal((await search(ann, 'physician', 'vector'))[0], 'about the doctor');
  });

  it('the state is for those who may read operations, and of their own tenant alone', async () => {
    const user = await newTenant('user', server);
    assert.equal((await user.call('GET', '/v1/ops/embeddings')).status, 403);
    await remember(ann, 'mine');
    await embedded(ann, { [model]: 1 });
    const ben = await newTenant('admin', server);
    assert.deepEqual((await stateOf(ben)).vectors, {});
    const { text } = await callServer(server, 'GET', '/metrics');
    assert.match(text, /embedding_link_up\{link="meaning"\} 1/);
    assert.match(text, /embeddings_renewed_total\{model="meaning-32"\} \d+/);
  });
});

describe('another model', () => {
  before(async () => {
    embeddings = await startEmbeddingServer();
  });
  // Stopping twice does no harm; a test that fails must not leave its server running.
  afterEach(() => server.stop());
  after(() => embeddings.close());

  it('embeds everything anew in the background, and nothing disappears meanwhile', async () => {
    server = await withModel();
    const ann = await follower();
    const texts = Array.from({ length: 300 }, (_, i) => `topic${i} of the pension`);
    for (let at = 0; at < texts.length; at += 100) await remember(ann, ...texts.slice(at, at + 100));
    await embedded(ann, { [model]: 300 });
    await server.stop();

    // The new model answers slowly, so that the move can be watched.
    embeddings.fail({ kind: 'slow', ms: 100 });
    server = await withModel('newer', {
      EMBEDDING_FORMER_MODEL: 'meaning',
      EMBEDDING_FORMER_DIMENSIONS: '32',
    });
    let mixed = 0;
    await eventually(
      'all vectors of the new model',
      async () => {
        const { vectors } = await stateOf(ann);
        if (vectors[model] && vectors['newer-32']) mixed += 1;
        for (const mode of ['vector', 'hybrid']) {
          const found = await ann.call('POST', '/v1/memory/search', {
            query: 'annuity topic7',
            mode,
            limit: 100,
          });
          assert.equal(found.body.length, 100);
          assert.ok(
            found.body.slice(0, 20).some(({ text }: { text: string }) => text === 'topic7 of the pension'),
          );
        }
        return vectors['newer-32'] === 300 && vectors[model] === undefined;
      },
      120_000,
    );
    assert.ok(mixed > 0);
    embeddings.fail({ kind: 'none' });
  });

  it('that is not configured any more keeps its vectors until it is back', async () => {
    server = await withModel();
    const ann = await follower();
    await remember(ann, 'Kept the keepsake');
    await embedded(ann, { [model]: 1 });
    await server.stop();
    server = await startServer(quick);
    await embedded(ann, { [model]: 1, [hashed]: 1 });
    assert.equal((await search(ann, 'keepsake', 'vector'))[0], 'Kept the keepsake');
    await server.stop();
    embeddings.requests.length = 0;
    server = await withModel();
    await embedded(ann, { [model]: 1 });
    assert.deepEqual(
      embeddings.texts().filter((text) => /keepsake/.test(text)),
      [],
    );
    await server.stop();
  });
});

describe('a local model whose package is not installed', () => {
  afterEach(() => server.stop());

  it('is told to operators, and the built-in vectors stand in', async () => {
    server = await startServer({
      ...quick,
      EMBEDDING_PROVIDER: 'local',
      EMBEDDING_LOCAL_MODEL: 'nobody/nothing',
    });
    const ann = await follower();
    await remember(ann, 'Talked about the pension');
    const { links } = await embedded(ann, { [hashed]: 1 });
    assert.deepEqual(
      [links[0]?.provider, links[0]?.state, links[0]?.last_failure?.kind],
      ['local', 'failing', 'misconfigured'],
    );
    assert.deepEqual(await search(ann, 'pension'), ['Talked about the pension']);
  });
});
