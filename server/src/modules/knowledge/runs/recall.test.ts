import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { type Client, eventOf, makeCorpus, signUp, typesOf } from '#test/event-stream.ts';
import { address, useTestServer } from '#test/harness.ts';

useTestServer();

let admin: Client;
let ann: Client;
let bob: Client;
let reader: Client;
before(async () => {
  admin = await signUp(await address());
  ann = await signUp(admin.base, 'agent', admin);
  bob = await signUp(admin.base, 'agent', admin);
  reader = await signUp(admin.base, 'reader', admin);
  await makeCorpus(admin, 'handbook', { gates: 'The release gates are tests, safety and rollback.' });
});

const run = async (who: Client, message: string, more: object = {}) =>
  who.run({ session_id: `s-${randomUUID()}`, message, ...more });
const finalOf = async (who: Client, message: string, more: object = {}) =>
  eventOf(await run(who, message, more), 'message.final');
const note = (who: Client, text: string) =>
  who.json('POST', '/v1/memory/', { text, type: 'note' }).then(({ id }) => id as string);

describe('a run that recalls', () => {
  it('answers from the caller’s own memories, and cites them', async () => {
    const hers = await note(ann, 'The favourite colour of Ann is turquoise.');
    await note(bob, 'The favourite colour of Bob is crimson.');
    const memory = { recall: true };
    const { text, citations } = await finalOf(ann, 'What is the favourite colour?', { memory });
    assert.match(text, /turquoise/);
    assert.doesNotMatch(text, /crimson/);
    assert.deepEqual(
      citations.map(({ source, index }: any) => [source, index]),
      [[`memory://${hers}`, 1]],
    );
    assert.equal(citations[0].metadata.type, 'note');
    assert.ok(citations[0].score > 0);
    // Not those of others, also for somebody who may read them.
    const other = await finalOf(admin, 'What is the favourite colour?', { memory });
    assert.deepEqual([other.text, other.citations], ['No memory of yours answers this question.', []]);
    const run = await ann.json('GET', `/v1/runs?limit=1`);
    assert.equal(run.data[0].corpus_id, null);
    const { data } = await ann.json('GET', `/v1/runs/${run.data[0].id}`);
    assert.deepEqual(data.messages[1].citations, citations);
  });

  it('answers from its corpus as well', async () => {
    const id = await note(ann, 'Ann decides about the release gates on Fridays.');
    const more = { memory: { recall: true }, corpus_id: 'handbook' };
    const { text, citations } = await finalOf(ann, 'What are the release gates?', more);
    assert.match(text, /rollback/);
    const sources = citations.map(({ source }: any) => source);
    assert.ok(sources.includes('document://gates'), text);
    const both = await finalOf(ann, 'Who decides about the release gates on Fridays?', more);
    assert.ok(
      both.citations.some(({ source }: any) => source === `memory://${id}`),
      both.text,
    );
    const without = await finalOf(ann, 'Who decides about the release gates on Fridays?', {
      corpus_id: 'handbook',
    });
    assert.ok(without.citations.every(({ source }: any) => source.startsWith('document://')));
  });

  it('needs a corpus where it does not recall', async () => {
    for (const memory of [undefined, false, { recall: false }, { recall: false, remember: true }]) {
      const reply = await ann.send('POST', '/v1/run', { session_id: 's', message: 'x', memory });
      assert.equal(reply.status, 422);
      assert.equal(((await reply.json()) as any).error.details.errors[0].path, '/corpus_id');
    }
  });
});

describe('a run that remembers', () => {
  const memoriesOf = async (who: Client, session_id: string) =>
    (await who.json('GET', `/v1/memory/?session_id=${session_id}`)) as any[];

  it('stores question and answer as memories of the session', async () => {
    const session_id = `s-${randomUUID()}`;
    const frames = await ann.run({
      session_id,
      message: 'What are the release gates?',
      corpus_id: 'handbook',
      memory: true,
    });
    const { run_id } = eventOf(frames, 'request.accepted');
    const stored = await memoriesOf(ann, session_id);
    assert.deepEqual(stored.map(({ role, type, metadata }) => [role, type, metadata.run_id]).reverse(), [
      ['user', 'conversation', run_id],
      ['assistant', 'conversation', run_id],
    ]);
    assert.ok(Date.parse(stored[0].occurred_at) >= Date.parse(stored[1].occurred_at));
    assert.match(stored[0].text, /rollback/);
    assert.doesNotMatch(stored[0].text, /\[1\]/);
    assert.deepEqual(await memoriesOf(bob, session_id), []);
  });

  it('stores what was said and not that nothing was found', async () => {
    const session_id = `s-${randomUUID()}`;
    await ann.run({ session_id, message: 'The anchor weighs nine tons.', memory: true });
    const stored = await memoriesOf(ann, session_id);
    assert.deepEqual(
      stored.map(({ role, text }) => [role, text]),
      [['user', 'The anchor weighs nine tons.']],
    );
    // What the session itself said before is history there, and not found a second time.
    const again = await finalOf(ann, 'How much does the anchor weigh?', {
      session_id,
      memory: { recall: true },
    });
    assert.deepEqual(again.citations, []);
    const elsewhere = await finalOf(ann, 'How much does the anchor weigh?', { memory: { recall: true } });
    const [{ source, metadata }] = elsewhere.citations;
    assert.equal(source, `memory://${stored[0].id}`);
    assert.deepEqual([metadata.role, metadata.session_id], ['user', session_id]);
  });

  it('stores nothing when it was not asked to, or has no answer', async () => {
    const one = `s-${randomUUID()}`;
    await ann.run({
      session_id: one,
      message: 'The gates?',
      corpus_id: 'handbook',
      memory: { recall: true },
    });
    assert.deepEqual(await memoriesOf(ann, one), []);
    const two = `s-${randomUUID()}`;
    const frames = await ann.run({
      session_id: two,
      message: 'The gates?',
      corpus_id: 'nowhere',
      memory: { remember: true },
    });
    assert.equal(typesOf(frames).at(-2), 'error');
    assert.deepEqual(await memoriesOf(ann, two), []);
  });

  it('stores a text longer than a memory may be in several', async () => {
    const session_id = `s-${randomUUID()}`;
    const message = `Ships ${'sail the wide sea '.repeat(1_000)}`;
    await ann.run({ session_id, message, memory: { remember: true }, corpus_id: 'handbook' });
    const parts = (await memoriesOf(ann, session_id)).filter(({ role }) => role === 'user');
    assert.ok(parts.length === 2 && parts.every(({ text }) => text.length <= 10_000));
    assert.equal(parts.reduce((sum, { text }) => sum + text.length, 0) + 1, message.trim().length);
  });

  it('is for who may: asked for by name it is refused, else left out', async () => {
    const refused = await reader.send('POST', '/v1/run', {
      session_id: 's',
      message: 'x',
      corpus_id: 'handbook',
      memory: { remember: true },
    });
    assert.equal(refused.status, 403);
    assert.equal(((await refused.json()) as any).error.code, 'AUTH_FORBIDDEN');
    const session_id = `s-${randomUUID()}`;
    const frames = await reader.run({
      session_id,
      message: 'The release gates?',
      corpus_id: 'handbook',
      memory: true,
    });
    assert.equal(typesOf(frames).at(-2), 'message.final');
    assert.deepEqual(await memoriesOf(reader, session_id), []);
  });
});

describe('removing', () => {
  it('a session takes all its runs, and what the next run would know', async () => {
    const session_id = `s-${randomUUID()}`;
    const input = { session_id, message: 'What are the release gates?', corpus_id: 'handbook' };
    const run = eventOf(await ann.run(input), 'request.accepted').run_id;
    await ann.run({ ...input, message: 'And why?' });
    const path = `/v1/runs?session_id=${session_id}`;
    for (const who of [bob, admin]) assert.equal((await who.send('DELETE', path)).status, 404);
    assert.equal((await ann.send('DELETE', path)).status, 204);
    assert.equal((await ann.send('DELETE', path)).status, 404);
    assert.deepEqual((await ann.json('GET', path)).data, []);
    assert.equal((await ann.send('GET', `/v1/runs/${run}`)).status, 404);
    const gone = await ann.send('GET', `/v1/runs/${run}/events`);
    assert.match(await gone.text(), /resume\.unsupported/);
    // What points back has nothing to point to, as in a session that never was.
    const why = (session: string) => finalOf(ann, 'And why?', { session_id: session, corpus_id: 'handbook' });
    assert.equal((await why(session_id)).text, (await why(`s-${randomUUID()}`)).text);
    assert.equal((await ann.send('DELETE', '/v1/runs')).status, 422, 'not all at once');
  });
});
