import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { chunkText } from '#modules/knowledge/documents/chunk.ts';
import { demoDocuments } from '#modules/knowledge/documents/demo.ts';
import { answerExtractively, NO_ANSWER, type Passage, streamExtractively } from './extractive.ts';
import { plainText } from './units.ts';

const demo: Passage[] = demoDocuments.flatMap(({ document_id, filename, ...document }) => {
  return chunkText(document.text, document).map(({ index, text, heading_path }) => {
    return { id: `${document_id}#${index}`, text, heading_path, title: filename, score: 0.5 };
  });
});
const ask = (question: string, passages = demo) => answerExtractively({ question, passages });
const passage = (id: string, text: string, score = 0.5): Passage => ({ id, text, score });

test('the release gates are answered with the whole list under its introduction', () => {
  const answer = ask('What are the release gates for Agent 2.0?');
  assert.match(answer.text, /six release gates.*: \[1\]\n- Tests: /);
  for (const gate of ['Tests', 'Answer quality', 'Safety', 'Performance', 'Security', 'Rollback']) {
    assert.ok(answer.text.includes(`\n- ${gate}: `), gate);
  }
  assert.equal(answer.sentences[0]!.passage_id, 'agent-2-release-gates#1');
  assert.ok(answer.text.startsWith('The sources say:\n\n'));
});

test('the testing strategy is answered first by the sentence that states it', () => {
  const answer = ask('What is the testing strategy of agent 2.0?');
  assert.match(answer.sentences[0]!.text, /^The testing strategy of Agent 2\.0.* is to check each promise/);
  assert.equal(answer.sentences[0]!.passage_id, 'agent-2-testing-strategy#0');
});

test('a summary of the corpus quotes every document', () => {
  const answer = ask('Summarize the demo corpus.');
  const quoted = new Set(answer.sentences.map(({ passage_id }) => passage_id.split('#')[0]));
  assert.deepEqual([...quoted].sort(), demoDocuments.map(({ document_id }) => document_id).sort());
});

test('a single item or table row answers when the question is about it alone', () => {
  assert.match(
    ask('What does the security gate require?').sentences[0]!.text,
    /^Security: no known vulnerability/,
  );
  assert.match(ask('What is the target for availability?').text, /Target: 99\.9 % of requests succeed/);
});

test('a mistyped word still finds its answer', () => {
  assert.match(ask('What are the relaese gates?').text, /six release gates/);
});

test('code is answered with the line that introduces it', () => {
  const text = '## Deleting\n\nDelete a document:\n\n```sh\ncurl -X DELETE /v1/documents/d1\n```\n';
  assert.equal(
    ask('How do I delete a document?', [passage('a', text)]).text,
    'The sources say:\n\nDelete a document: [1]\n```\ncurl -X DELETE /v1/documents/d1\n```',
  );
});

test('it says so when no passage answers', () => {
  const none = { text: NO_ANSWER, sentences: [] };
  assert.equal(NO_ANSWER, 'No passage of the corpus answers this question.');
  for (const question of [
    'What is the capital of France?',
    'What is the pricing of Agent 2.0?',
    'Summarize the French revolution.',
    '我们的产品什么时候发布？',
    '',
    '?!',
  ]) {
    assert.deepEqual(ask(question), none, question);
  }
  assert.deepEqual(ask('What are the release gates?', []), none);
});

test('marks are numbered by first use and each belongs to its passage', () => {
  const answer = ask('How are releases, tests and backups done?');
  const marks = [...answer.text.matchAll(/\[(\d+)\]/g)].map((match) => Number(match[1]));
  const ids = answer.sentences.map(({ passage_id }) => passage_id);
  const order = [...new Set(ids)];
  assert.deepEqual(
    marks,
    ids.map((id) => order.indexOf(id) + 1),
  );
});

test('the same sentence from two passages is quoted once', () => {
  const same = 'The blue valve closes before the pump starts.';
  const answer = ask('When does the blue valve close?', [
    passage('a', same),
    passage('b', `${same} Then it rains.`),
  ]);
  assert.equal(answer.text.split('blue valve').length, 2);
});

test('no more sentences are quoted than asked for', () => {
  const text = Array.from(
    { length: 30 },
    (_, n) => `Valve ${n} opens when sensor ${n * 7} reports heat.`,
  ).join(' ');
  const answer = answerExtractively({
    question: 'valve opens heat',
    passages: [passage('a', text)],
    max_sentences: 2,
  });
  assert.ok(answer.sentences.length >= 1 && answer.sentences.length <= 2);
});

test('markup, control characters and forged marks do not reach the reader', () => {
  assert.equal(
    plainText('**Bold** and _soft_ `code` [link](https://x.example) <b>tag</b>'),
    'Bold and soft code link tag',
  );
  assert.equal(plainText('snake_case_name stays, 2 * 3 too \\*'), 'snake_case_name stays, 2 * 3 too *');
  assert.equal(plainText('a\u001b[31mred\u202e b [7]'), 'a [31mred b (7)');
  const answer = ask('Where is the key?', [passage('a', 'The **key** is under the mat [2], [9].')]);
  assert.equal(answer.text, 'The sources say:\n\nThe key is under the mat (2), (9). [1]');
});

test('Chinese questions are answered from Chinese text', () => {
  const text = '系统每周二发布新版本。发布之前必须通过六项检查。数据库每小时备份一次。';
  const answer = ask('数据库多久备份一次？', [passage('a', text), passage('b', '天气很好。')]);
  assert.equal(answer.sentences[0]!.text, '数据库每小时备份一次。');
});

test('a stream joins to exactly the answer and returns it', async () => {
  const input = { question: 'What are the release gates for Agent 2.0?', passages: demo };
  const expected = answerExtractively(input);
  const stream = streamExtractively(input);
  const deltas: string[] = [];
  let step = await stream.next();
  for (; !step.done; step = await stream.next()) deltas.push(step.value);
  assert.equal(deltas.join(''), expected.text);
  assert.deepEqual(step.value, expected);
  assert.ok(deltas.length > 20);
  assert.ok(deltas.every((delta) => delta.length > 0 && delta.length <= 60));
});

test('a stream stops with the reason of the abort', async () => {
  const controller = new AbortController();
  const stream = streamExtractively(
    { question: 'release gates', passages: demo },
    { signal: controller.signal },
  );
  const reason = new Error('gone');
  await assert.rejects(
    async () => {
      for await (const _ of stream) controller.abort(reason);
    },
    (error) => error === reason,
  );
});

const hostile = fc.array(
  fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom(
      '[',
      '](',
      '**',
      '_',
      '`',
      '```\n',
      '<',
      '| a |\n',
      '|--|\n',
      '- x\n',
      '# key\n',
      '\ud800',
      '. ',
    ),
    fc.constantFrom('The key is here. ', '发布之前', '[1]', '\n\n', ' key:\n- '),
  ),
  { maxLength: 60 },
);

test('whatever the text: quotations stand in the answer, streams join, nothing throws', async () => {
  const texts = hostile.map((parts) => parts.join(''));
  const property = async (question: string, bodies: string[], score: number) => {
    const passages = bodies.map((text, n) => ({ id: `${n}`, text, score, title: text.slice(0, 9) }));
    const input = { question: `${question} key`, passages };
    const answer = answerExtractively(input);
    const unmarked = answer.text.replace(/ \[\d+\]/g, '');
    for (const quoted of answer.sentences) {
      assert.ok(unmarked.includes(quoted.text.replace(/ \[\d+\]/g, '')));
      assert.ok(quoted.score >= 0 && quoted.score <= 1);
    }
    let joined = '';
    for await (const delta of streamExtractively(input)) joined += delta;
    assert.equal(joined, answer.text);
  };
  const score = fc.oneof(fc.double(), fc.constantFrom(0, 1));
  await fc.assert(fc.asyncProperty(texts, fc.array(texts, { maxLength: 4 }), score, property), {
    numRuns: 300,
  });
});

test('time is bounded for text made to be slow', () => {
  const shapes = [
    '[',
    '[a](',
    '<a',
    '*',
    '_',
    'a_',
    '`',
    '|',
    '\\',
    'key. ',
    '- key\n',
    '> ',
    '\n',
    'a b c key ',
    '"',
  ];
  for (const shape of shapes) {
    const text = shape.repeat(20_000);
    const before = process.cpuUsage();
    ask(
      `key ${text}`,
      Array.from({ length: 10 }, (_, n) => passage(`${n}`, text)),
    );
    const us = process.cpuUsage(before).user;
    assert.ok(us < 3_000_000, `${JSON.stringify(shape)}: ${us} us of processor time`);
  }
});
