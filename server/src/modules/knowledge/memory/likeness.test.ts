import assert from 'node:assert/strict';
import { test } from 'node:test';
import { duplicateFrom } from './duplicates.ts';
import { comparable, contradictionOf, likeness } from './likeness.ts';

const between = (a: string, b: string) => {
  const [x, y] = [comparable(a), comparable(b)];
  return {
    likeness: likeness(x, y),
    contradiction: contradictionOf(x, y),
    mirrored: likeness(y, x) === likeness(x, y) && contradictionOf(y, x) === contradictionOf(x, y),
  };
};

test('texts that say the same in the same words are duplicates, however they are written', () => {
  assert.equal(between('User likes tea', 'user  likes TEA.').likeness, 1);
  for (const [a, b] of [
    ['The user prefers dark mode interfaces', 'User prefers the dark mode interface'],
    ['Meeting with Dr. Weber on 3 May at 10', 'on 3 May at 10: meeting with Dr Weber'],
    ['Der Kunde hat am Montag bezahlt', 'Am Montag hat der Kunde bezahlt!'],
  ] as const) {
    const found = between(a, b);
    assert.ok(found.likeness >= duplicateFrom && found.likeness < 1, `${a} / ${b}: ${found.likeness}`);
    assert.equal(found.contradiction, undefined);
    assert.ok(found.mirrored);
  }
});

test('texts about different things are no duplicates', () => {
  for (const [a, b] of [
    ['I like tea', 'I like green tea with honey'],
    ['The user prefers dark mode interfaces', 'The user prefers window seats'],
    ['Bought new shoes', 'Bought new chairs for the garden'],
    ['😀', '🚀'],
    ['', 'something'],
  ] as const) {
    const { likeness: score, contradiction } = between(a, b);
    assert.ok(score < duplicateFrom, `${a} / ${b}: ${score}`);
    assert.equal(contradiction, undefined, `${a} / ${b}`);
  }
});

test('what may contradict is told with the reason', () => {
  for (const [a, b, reason] of [
    ['The user eats meat', 'The user does not eat meat', 'negation'],
    ['Ann smokes', "Ann doesn't smoke any more", 'negation'],
    ['Der Kunde ist zufrieden', 'Der Kunde ist nicht zufrieden', 'negation'],
    ['The appointment is on 3 May', 'The appointment is on 5 May', 'number'],
    ['The budget is 500 euros', 'The budget is 750 euros', 'number'],
    ['Standup is on Monday', 'Standup is on Thursday', 'number'],
    ['The user lives in Berlin', 'The user lives in Paris', 'value'],
    ['Ann works for Siemens', 'Ann works for Bosch', 'value'],
    ['Her favourite colour is blue', 'Her favourite colour is dark green', 'value'],
    ['Anna wohnt in Köln', 'Anna wohnt in Hamburg', 'value'],
    ['The user prefers dark mode', 'The user prefers light mode', 'value'],
  ] as const) {
    const found = between(a, b);
    assert.equal(found.contradiction, reason, `${a} / ${b}: ${JSON.stringify(found)}`);
    assert.ok(found.mirrored);
  }
});

test('what only differs is not taken for a contradiction', () => {
  for (const [a, b] of [
    ['The user lives in Berlin', 'Ann lives in Paris'],
    ['The user likes tea', 'The user likes coffee'],
    ['The user lives in Berlin', 'The user lives in Berlin Mitte'],
    ['Invoice 17 was paid', 'The dog is 3 years old'],
    ['The user does not eat meat', 'The user does not smoke'],
    ['No sugar in the tea', 'Bought a new car'],
    ['The user prefers tea', 'The user prefers window seats'],
  ] as const)
    assert.equal(between(a, b).contradiction, undefined, `${a} / ${b}`);
});
