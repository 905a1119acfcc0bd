import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { type Caller, eventually, newTenant, useOwnServer } from '#test/harness.ts';
import { type RerankServer, type RerankTrouble, startRerankServer } from '#test/rerank-server.ts';

interface Found {
  id: string;
  text: string;
  score: number;
  parts?: { rerank?: { model: string; relevance?: number; failure?: string } };
  explain?: { rerank?: { relevance: number } };
}

/** A reranker that knows what no word says: where the release is really made. */
const knows = (text: string, query: string) =>
  query.includes('release') && text.includes('Lisbon') ? 0.9 : 0.05;
const question = 'Where is the release made?';
const texts = [
  'The release is made in Berlin.',
  'A release is made by people of Lisbon.',
  'Tea is made of leaves.',
];

describe('a reranker', () => {
  let reranker: RerankServer;
  before(async () => {
    reranker = await startRerankServer(knows);
  });
  after(() => reranker.close());
  const server = useOwnServer(async () => ({
    RERANK_BASE_URL: reranker.url,
    RERANK_API_KEY: 'key of the reranker',
    RERANK_MODEL: 'reader',
    RERANK_TOP_N: '4',
    RERANK_TIMEOUT_MS: '2000',
    RERANK_BREAKER_MS: '200',
  }));
  let ann: Caller;
  let ben: Caller;

  before(async () => {
    ann = await newTenant('admin', server());
    ben = await newTenant('admin', server());
    await remember(
      ann,
      texts.map((text) => ({ text, type: 'note' })),
    );
  });
  beforeEach(() => {
    reranker.requests.length = 0;
  });
  afterEach(async () => {
    reranker.fail({ kind: 'none' });
    // Otherwise one test's breaker is the next one's failure.
    await eventually('the reranker to be asked again', async () => {
      const { metrics } = server().app;
      const before = await doneBy(metrics.reranks);
      await search(ann, question);
      return (await doneBy(metrics.reranks)) > before;
    });
  });

  const doneBy = async (counter: { get: () => Promise<{ values: { value: number; labels: object }[] }> }) =>
    (await counter.get()).values.find(({ labels }) => 'outcome' in labels && labels.outcome === 'done')
      ?.value ?? 0;

  const remember = async (who: Caller, memories: object[]) => {
    const reply = await who.call('POST', '/v1/memory/bulk', { memories });
    assert.equal(reply.body.failed.length, 0, reply.text);
    await eventually('the memories', async () =>
      (await who.call('GET', '/v1/memory/')).body.every(
        ({ embedding_status }: { embedding_status: string }) => embedding_status !== 'pending',
      ),
    );
  };

  async function search(who: Caller, query: string, more: object = {}): Promise<Found[]> {
    const reply = await who.call('POST', '/v1/memory/search', { query, explain: true, ...more });
    assert.equal(reply.status, 200, reply.text);
    return reply.body;
  }

  it('reads the best memories again and puts them in its order', async () => {
    await remember(ben, [{ text: 'The release of Ben is made in Lisbon.', type: 'note' }]);
    const words = await search(ann, question, { mode: 'text' });
    assert.match(words[0]!.text, /Berlin/);
    assert.equal(reranker.requests.length, 0, 'a search by words alone asks nobody');
    const found = await search(ann, question);
    assert.match(found[0]!.text, /Lisbon/);
    const { relevance, model } = found[0]!.parts!.rerank!;
    assert.deepEqual([relevance, model], [0.9, 'reader']);
    assert.equal(found[1]!.parts!.rerank!.relevance, 0.05);
    const [asked] = reranker.requests;
    assert.equal(asked!.headers.authorization, 'Bearer key of the reranker');
    assert.deepEqual(
      [asked!.model, asked!.query, asked!.top_n],
      ['reader', question, asked!.documents.length],
    );
    assert.ok(
      asked!.documents.every((text) => texts.includes(text)),
      'and no text of another tenant',
    );
  });

  it('leaves scores on their scale', async () => {
    const found = await search(ann, question);
    assert.ok(found[0]!.score >= 0.7, `what answers: ${found[0]!.score}`);
    assert.ok(found[1]!.score < 0.6, `what it finds irrelevant: ${found[1]!.score}`);
    assert.deepEqual(
      (await search(ann, question, { similarity_threshold: 0.6 })).map(({ text }) => text),
      [texts[1]],
    );
    const [unrelated] = await search(ann, 'The tax office made a mistake about my declaration');
    assert.ok((unrelated?.score ?? 0) < 0.4, `what nothing answers: ${unrelated?.score}`);
  });

  it('never sees a sensitive memory', async () => {
    await remember(ann, [{ text: 'The release is made while Ann is ill.', type: 'health', sensitive: true }]);
    const found = await search(ann, question, { sensitive: true, identity_id: ann.id });
    assert.ok(found.some(({ text }) => text.includes('Ann is ill')));
    assert.ok(reranker.requests.length > 0);
    assert.ok(reranker.requests.every(({ documents }) => !documents.join().includes('Ann is ill')));
  });

  it('reads passages of documents and of runs as well, no more than it is given', async () => {
    const corpus_id = (await ann.call('POST', '/v1/corpora', { name: 'Releases' })).body.data.id;
    const cities = ['Berlin', 'Lisbon', 'Paris', 'Rome', 'Vienna', 'Oslo'];
    for (const city of cities) {
      const text = `The release is made in ${city}.`;
      const reply = await ann.call('POST', '/v1/documents/text', {
        corpus_id,
        document_id: city.toLowerCase(),
        text,
      });
      assert.equal(reply.status, 202, reply.text);
    }
    await eventually('the documents', async () => {
      const { data } = (await ann.call('GET', `/v1/documents?corpus_id=${corpus_id}`)).body;
      return data.every(({ status }: { status: string }) => status === 'succeeded');
    });
    const query = `${question} In Lisbon?`;
    const reply = await ann.call('POST', `/v1/corpora/${corpus_id}/search`, { query, explain: true });
    const [first]: Found[] = reply.body.data;
    assert.match(first!.text, /Lisbon/);
    assert.equal(first!.explain!.rerank!.relevance, 0.9);
    assert.equal(reranker.requests.at(-1)!.documents.length, 4);
    assert.equal((await ben.call('POST', `/v1/corpora/${corpus_id}/search`, { query })).status, 404);
    reranker.requests.length = 0;
    const run = await ann.call('POST', '/v1/run', {
      session_id: 'releases',
      corpus_id,
      message: query,
      memory: { recall: true },
    });
    assert.equal(run.status, 200, run.text);
    assert.deepEqual(
      reranker.requests.map((one) => one.query),
      [query, query],
    );
  });

  const result = (index: unknown, relevance_score: unknown) => ({ index, relevance_score });
  const answer = (...results: object[]): RerankTrouble => ({
    kind: 'garbage',
    body: JSON.stringify({ results }),
  });
  const troubles: [name: string, trouble: RerankTrouble, failure: string][] = [
    ['is broken', { kind: 'status', status: 500 }, 'server_error'],
    ['refuses the key', { kind: 'status', status: 401 }, 'unauthorized'],
    ['is not there', { kind: 'status', status: 404 }, 'misconfigured'],
    ['does not answer in time', { kind: 'silent' }, 'timeout'],
    ['breaks off', { kind: 'cut' }, 'unreachable'],
    ['answers no JSON', { kind: 'garbage', body: '<html>' }, 'garbage'],
    ['answers null', { kind: 'garbage', body: 'null' }, 'garbage'],
    ['leaves texts out', answer(result(1, 0.9)), 'garbage'],
    ['names a text twice', answer(result(1, 0.9), result(1, 0.8)), 'garbage'],
    ['names a text that was not sent', answer(result(0, 0.1), result(7, 0.9)), 'garbage'],
    ['answers words for numbers', answer(result(0, 'much'), result(1, 'little')), 'garbage'],
  ];
  for (const [name, trouble, failure] of troubles) {
    it(`leaves results as they were when it ${name}`, async () => {
      // Two of the three have words of the question that count.
      const query = 'Where is the release?';
      const words = await search(ann, query, { mode: 'text' });
      assert.equal(words.length, 2);
      reranker.fail(trouble);
      const found = await search(ann, query);
      assert.deepEqual(
        found.map(({ text, score }) => [text, score]),
        words.map(({ text, score }) => [text, score]),
      );
      assert.deepEqual(found[0]!.parts!.rerank, { model: 'reader', failure });
    });
  }

  it('is not left alone because it does not take what one tenant sends', async () => {
    await remember(
      ben,
      texts.map((text) => ({ text, type: 'note' })),
    );
    for (const status of [400, 403, 413]) {
      reranker.fail({ kind: 'status', status });
      for (let i = 0; i < 6; i++) await search(ann, question);
      reranker.fail({ kind: 'none' });
      const [first] = await search(ben, question);
      assert.equal(first!.parts!.rerank!.failure, undefined, `${status}`);
    }
  });

  it('is left alone after five failures in a row, and asked again later', async () => {
    reranker.fail({ kind: 'status', status: 503 });
    for (let i = 0; i < 5; i++) await search(ann, question);
    const before = reranker.requests.length;
    const [first] = await search(ann, question);
    assert.equal(reranker.requests.length, before);
    assert.equal(first!.parts!.rerank!.failure, 'breaker_open');
    assert.match(first!.text, /Berlin/);
  });
});
