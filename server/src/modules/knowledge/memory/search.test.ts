import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Caller, eventually, newMember, newTenant, useTestServer } from '#test/harness.ts';
import { samples } from '#test/language-samples.ts';

useTestServer();

interface Found {
  id: string;
  text: string;
  score: number;
}

async function remember(who: Caller, memories: object[]): Promise<string[]> {
  const reply = await who.call('POST', '/v1/memory/bulk', { memories });
  assert.equal(reply.body.failed.length, 0, reply.text);
  const ids: string[] = reply.body.created.map(({ id }: { id: string }) => id);
  // The statistics of terms follow with the vectors.
  await eventually('the vectors', async () => {
    const list = (await who.call('GET', '/v1/memory/')).body;
    return list.every((memory: { embedding_status: string }) => memory.embedding_status === 'ready');
  });
  return ids;
}

const searchOf =
  (who: Caller) =>
  async (query: string): Promise<Found[]> => {
    const reply = await who.call('POST', '/v1/memory/search', { query });
    assert.equal(reply.status, 200, reply.text);
    return reply.body;
  };

describe('searching in the language of the memories', () => {
  for (const { language, memories, questions, unrelated } of samples) {
    it(`${language}: the answer comes first, with a score that says so`, async () => {
      const ann = await newTenant('user');
      await remember(
        ann,
        memories.map((text) => ({ text, type: 'note' })),
      );
      const search = searchOf(ann);
      for (const [question, answer, least] of questions) {
        const [first] = await search(question);
        assert.equal(first?.text, memories[answer], question);
        assert.ok(first!.score >= least, `${question}: ${first!.score}`);
      }
      for (const question of unrelated) {
        const [first] = await search(question);
        assert.ok((first?.score ?? 0) < 0.6, `${question}: ${first?.score} ${first?.text}`);
      }
    });
  }

  it('finds words however they are put together, and tells signs apart', async () => {
    const ann = await newTenant('user');
    const bob = await newTenant('user');
    const memories = [
      'Flights to the U.S.A. are booked',
      'Her email is on the card',
      'The wi-fi of the office is slow',
      'Frau Müller rief an',
      'We compile it with C++',
      'We compile it with C#',
      'Dinner was 🍕 again',
      'The garden needs water',
    ];
    await remember(
      ann,
      memories.map((text) => ({ text, type: 'note' })),
    );
    await remember(bob, [{ text: 'The office is closed', type: 'note' }]);
    for (const [query, answer] of [
      ['USA', 0],
      ['e-mail', 1],
      ['wifi', 2],
      ['Mueller', 3],
      ['C++', 4],
      ['c#', 5],
      ['🍕', 6],
    ] as const) {
      const [first] = await searchOf(ann)(query);
      assert.equal(first?.text, memories[answer], query);
      assert.ok(first!.score >= 0.6, `${query}: ${first!.score}`);
      assert.deepEqual(await searchOf(bob)(query), []);
    }
  });

  it('finds names and short notes across languages', async () => {
    const ann = await newTenant('user');
    await remember(ann, [
      { text: 'Der Vertrag mit Frau Schäfer läuft im Herbst aus.', type: 'note' },
      { text: 'Vertragskündigungen Müller 2024', type: 'note' },
      { text: 'Buy bread and milk.', type: 'note' },
    ]);
    const search = searchOf(ann);
    assert.match((await search('contract of Schäfer'))[0]!.text, /Schäfer/);
    assert.match((await search('Wann hat Müller gekündigt?'))[0]!.text, /Müller/);
  });
});

describe('searching for more than words', () => {
  it('ranks the turns of a conversation by those the caller may see, whoever names another one alike', async () => {
    const admin = await newTenant();
    const [ann, ben] = [await newMember(admin, 'user'), await newMember(admin, 'user')];
    const turn = (text: string, minute: number, type = 'message') => ({
      text,
      type,
      role: minute % 20 ? 'assistant' : 'user',
      session_id: 'the first',
      occurred_at: new Date(Date.UTC(2026, 0, 1, 10, minute)).toISOString(),
    });
    const between = [4, 5, 6, 14, 15, 16];
    for (const who of [ann, ben]) {
      await remember(who, [
        turn('the falcon landed on the old bridge', 0),
        turn('and what did the falcon do there', 10),
        turn('it ate the mouse near the bridge', 20),
      ]);
      await remember(
        who,
        between.map((minute) => turn('nothing of all that', minute, 'secret')),
      );
    }
    const neighbours = async () => {
      const body = { query: 'falcon bridge mouse', mode: 'text', explain: true };
      const reply = await ann.call('POST', '/v1/memory/search', body);
      return reply.body.slice(0, 3).map(({ parts }: any) => parts.neighbours);
    };
    assert.deepEqual(await neighbours(), [0, 0, 0], 'she can see what stands between');
    const is = (name: string, value: string) => ({ '==': [{ var: name }, value] });
    const policy = {
      role: 'user',
      effect: 'deny',
      rule: { and: [is('resource', 'memory'), is('action', 'read'), is('memory_type', 'secret')] },
    };
    assert.equal((await admin.call('POST', '/v1/policy/', policy)).status, 201);
    const unseen = await neighbours();
    assert.equal(unseen.length, 3);
    assert.ok(
      unseen.every((part: number) => part > 0),
      String(unseen),
    );
  });

  it('brings up what somebody prefers where advice is asked for, and not otherwise', async () => {
    const ann = await newTenant('user');
    const turn = (text: string, i: number) => ({
      text,
      type: 'message',
      role: 'user',
      session_id: `s${i}`,
      occurred_at: new Date(Date.UTC(2026, 0, 1 + i)).toISOString(),
    });
    const texts = [
      'I prefer editing in short bursts of thirty minutes rather than long sessions.',
      ...Array.from(
        { length: 12 },
        (_, i) => `My schedule for week ${i} has work on chapter ${i} and a call.`,
      ),
    ];
    await remember(ann, texts.map(turn));
    const asked = await searchOf(ann)(
      'How should I plan my editing schedule for the week, what would you suggest?',
    );
    assert.equal(asked[0]!.text, texts[0]);
    const plain = await searchOf(ann)('schedule for week 3 with chapter 3');
    assert.match(plain[0]!.text, /week 3 /);
  });

  it('prefers the assistant’s turns for what it has said, the user’s for what the user has', async () => {
    const ann = await newTenant('user');
    const at = (i: number) => new Date(Date.UTC(2026, 0, 1, 10, i)).toISOString();
    await remember(ann, [
      {
        text: 'The project could use the database MariaDB.',
        type: 'message',
        role: 'user',
        session_id: 'a',
        occurred_at: at(0),
      },
      {
        text: 'The project could use the database PostgreSQL.',
        type: 'message',
        role: 'assistant',
        session_id: 'b',
        occurred_at: at(1),
      },
    ]);
    assert.match(
      (await searchOf(ann)('Which database did you recommend for my project?'))[0]!.text,
      /PostgreSQL/,
    );
    assert.match(
      (await searchOf(ann)('What did I ask about a database for my project?'))[0]!.text,
      /MariaDB/,
    );
  });
});
