import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  analyzeDocument,
  analyzeQuery,
  buildQueryVectors,
  type CollectionStats,
  dimensionsOf,
  idf,
  PREFERENCE_MARK,
} from './analyze.ts';
import { dot, MAX_NON_ZEROS, SPARSE_DIMENSIONS } from './sparse.ts';
import { wordsOf } from './words.ts';

const empty: CollectionStats = { documents: 10, df: () => 0 };
const stems = (text: string) => wordsOf(text).map(({ stem }) => stem);
const score = (query: string, text: string) =>
  dot(analyzeDocument(text).words, buildQueryVectors(analyzeQuery(query), empty).words);

test('words are folded, stemmed and split at letters and digits', () => {
  assert.deepEqual(stems("The user's PREFERENCES, planned"), ['the', 'user', 'prefer', 'plan']);
  assert.deepEqual(stems('vitamin B12 10mg IL1β'), ['vitamin', 'b', '12', '10', 'mg', 'il', '1', 'β']);
  assert.deepEqual(stems('build a1b2c3'), ['build', 'a1b2c3']);
  assert.deepEqual(stems("I don't"), ['i', "don't"]);
  assert.deepEqual(stems('ﬁne Ｗｉｄｅ zero​width soft\u00adhyphen'), stems('fine wide zerowidth softhyphen'));
});

test('accents, umlauts, sharp s and elisions do not hide a word', () => {
  assert.ok(score('straße münchen', 'Die Strasse in Munchen ist lang') > 0);
  assert.equal(score('Strasse', 'Straße'), score('Straße', 'Strasse'));
  assert.ok(score('école', 'il aime l’ecole') > 0);
  assert.ok(score('avion', "l'avion part à midi") > 0);
  assert.ok(score('книга', 'он читает книги') > 0);
  assert.ok(score('الكتاب', 'كِتَاب جديد') > 0);
});

test('words that cling together are found as one, and one as those', () => {
  const spellings: [string, string][] = [
    ['USA', 'U.S.A.'],
    ['eg', 'e.g.'],
    ['PhD', 'Ph.D.'],
    ['ATT', 'AT&T'],
    ['nodejs', 'Node.js'],
    ['email', 'e-mail'],
    ['E‑Mail', 'email'],
    ['wifi', 'Wi-Fi'],
    ['52000', '52,000'],
    ['5551234', '555-1234'],
    ['Mueller', 'Müller'],
    ['schoene', 'schöne'],
  ];
  for (const [one, other] of spellings) {
    assert.ok(score(one, `about ${other}, too`) > 0, `${one} finds ${other}`);
    assert.ok(score(other, `about ${one}, too`) > 0, `${other} finds ${one}`);
    for (const spelt of [one, other])
      assert.ok(
        score(spelt, `about ${spelt}, too`) >= score(spelt, `about ${spelt === one ? other : one}, too`),
      );
  }
  assert.equal(score('U.S. economy', 'tell us more'), 0);
  assert.deepEqual(
    analyzeQuery('e-mail').terms.map(({ word }) => word.bare),
    ['e', 'mail'],
  );
  assert.equal(analyzeDocument('the U.S.A. and e-mail').length, 7);
});

test('signs and points tell languages and versions apart', () => {
  for (const [right, wrong] of [
    ['C++', 'C#'],
    ['C#', 'C'],
    ['version 3.5', 'version 5.3'],
    ['v2.0', 'v0.2'],
  ] as const)
    assert.ok(score(right, `we use ${right} here`) > 1.3 * score(right, `we use ${wrong} here`), right);
  assert.ok(score('release 2.0', 'v2.0') > 0);
  assert.deepEqual(stems('か# か++ ##'), ['か', 'か']);
});

test('emoji are found, and weigh nothing beside words', () => {
  assert.ok(score('🍕', 'tonight 🍕 again') > 0);
  assert.ok(score('❤️', 'made with ❤') > 0);
  assert.equal(score('❤️', 'sunny ☀️'), 0);
  assert.deepEqual(
    analyzeQuery('pizza 🍕').terms.map(({ word }) => word.bare),
    ['pizza'],
  );
});

test('a CJK query finds CJK text, a single character included', () => {
  assert.ok(score('退休计划', '客户会议讨论了退休计划') > 0);
  assert.ok(score('茶', '我喜欢喝红茶') > 0);
  assert.ok(score('猫', '猫が好きです') > 0);
  assert.ok(score('회의', '어제 회의에서 만났다') > 0);
  assert.ok(score('อาหาร', 'ฉันชอบอาหารไทย') > 0);
  assert.equal(score('退休计划', '我喜欢喝红茶'), 0);
});

test('the query drops function words unless nothing else is left, and knows the first person', () => {
  const words = (text: string) => analyzeQuery(text).terms.map(({ word }) => word.bare);
  assert.deepEqual(words('Where does the user live?'), ['user', 'live']);
  assert.deepEqual(words('who is it'), ['who', 'is', 'it']);
  assert.deepEqual(words('Wo wohnt meine Schwester?'), ['wohnt', 'schwester']);
  assert.deepEqual(words(''), []);
  for (const text of ['what did I say', "I'm late", 'was ist mein Name', '我的名字', '내 이름은 무엇인가']) {
    assert.equal(analyzeQuery(text).speaker, 'user', text);
  }
  assert.equal(analyzeQuery('what did the client say').speaker, undefined);
});

test('a query for what was advised is about the assistant, one for advice wants preferences', () => {
  for (const text of [
    'What did you recommend for my resume?',
    'Was hast du mir empfohlen?',
    '你建议过什么？',
  ])
    assert.equal(analyzeQuery(text).speaker, 'assistant', text);
  for (const text of [
    'Can you suggest a restaurant?',
    'How should I plan my week?',
    'Kannst du mir helfen?',
    '推荐一家餐厅',
  ])
    assert.ok(analyzeQuery(text).wantsPreferences, text);
  for (const text of ['When is the deadline?', 'Which framework does the project use?'])
    assert.ok(!analyzeQuery(text).wantsPreferences, text);
});

test('a text that states a preference is marked where that is asked for', () => {
  const marked = (text: string) =>
    analyzeDocument(text, { marks: true }).words.dimensions.includes(PREFERENCE_MARK);
  for (const text of [
    'I prefer short answers.',
    'The user loves jazz.',
    'Er mag keine Oliven.',
    'Elle préfère le thé.',
    '他喜欢爵士乐。',
  ])
    assert.ok(marked(text), text);
  for (const text of ['The invoice is due in March.', 'It looks like rain.', ''])
    assert.ok(!marked(text), text);
  const plain = analyzeDocument('I prefer short answers.').words;
  const both = analyzeDocument('I prefer short answers.', { marks: true }).words;
  assert.equal(both.dimensions.length, plain.dimensions.length + 1);
});

test('a word of another language is found by its stem there and by its English one', () => {
  const german = analyzeDocument('Der Kunde hat die Verträge gekündigt.').words;
  const dimensionsOfQuery = (text: string) => {
    const query = analyzeQuery(text);
    return query.terms.map(({ word }) => dimensionsOf(word));
  };
  const [contracts] = dimensionsOfQuery('Welche Verträge sind es?');
  assert.ok(contracts!.every((dimension) => german.dimensions.includes(dimension)));
  const [name] = dimensionsOfQuery('Verträge');
  assert.ok(german.dimensions.includes(name![0]!), 'also where the query does not tell its language');
});

test('a vector is sorted, bounded and the same every time', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
      const first = analyzeDocument(text);
      assert.deepEqual(analyzeDocument(text), first);
      for (const { dimensions, values } of [first.words, first.trigrams]) {
        assert.equal(dimensions.length, values.length);
        assert.ok(dimensions.every((d, i) => d < SPARSE_DIMENSIONS && (i === 0 || d > dimensions[i - 1]!)));
        assert.ok(values.every((value) => value > 0 && value <= 2));
      }
      analyzeQuery(text);
    }),
  );
});

test('hostile texts neither throw nor take long', () => {
  const mega = 1_000_000;
  const texts = [
    'a'.repeat(mega),
    "a'".repeat(mega / 2),
    'a.'.repeat(mega / 2),
    'é-1,'.repeat(mega / 4),
    'a++'.repeat(mega / 3),
    'a1'.repeat(mega / 2),
    Array.from({ length: 160_000 }, (_, i) => i.toString(36).padStart(5, 'x')).join(' '),
    '东京的天气'.repeat(mega / 5),
    '😀'.repeat(1000),
    '​‌﻿',
    '\u0301'.repeat(mega),
    '12345678901234567890',
    '\ud800 lone \udc00',
  ];
  for (const text of texts) {
    const before = process.cpuUsage();
    const { words, trigrams } = analyzeDocument(text);
    assert.ok(words.dimensions.length <= MAX_NON_ZEROS && trigrams.dimensions.length <= MAX_NON_ZEROS);
    analyzeQuery(text);
    assert.ok(process.cpuUsage(before).user < 10_000_000);
  }
});

test('a piece of a longer text is not favoured for being short', () => {
  const text = 'retirement planning';
  const [short] = analyzeDocument(text).words.values;
  const [piece] = analyzeDocument(text, { minimumLength: 200 }).words.values;
  assert.ok(piece! < short! / 1.5);
  assert.equal(analyzeDocument(text, { trigrams: false }).trigrams.dimensions.length, 0);
});

test('idf stays positive, even when statistics lag', () => {
  assert.ok(idf(1, 1) > 0);
  assert.ok(idf(5, 1) > 0);
  assert.ok(idf(0, 0) > 0);
});
