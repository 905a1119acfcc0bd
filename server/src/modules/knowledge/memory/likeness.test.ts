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

test('a verb and its denial are one word in every form', () => {
  for (const [a, b] of [
    ['The user likes jazz', 'The user does not like jazz'],
    ['Likes jazz', "Doesn't like jazz"],
    ['I like jazz', "I don't like jazz"],
    ['The user no longer likes jazz', 'The user likes jazz'],
    ['wants newsletters', 'does not want newsletters'],
    ['Ann needs a visa', 'Ann does not need a visa'],
    ['Ben knows the door code', "Ben doesn't know the door code"],
    ['Has dogs', "Doesn't have dogs"],
    ['The user has a dog', 'The user does not have a dog'],
    ['The user goes to the gym', 'The user does not go to the gym'],
    ['Ann has two dogs', 'Ann does not have 2 dogs'],
    ['Der Nutzer mag Jazz', 'Der Nutzer mag keinen Jazz'],
    ['Der Nutzer möchte Newsletter', 'Der Nutzer möchte keine Newsletter'],
    ["L'utilisateur aime le jazz", "L'utilisateur n'aime pas le jazz"],
    ['Le client veut des factures', 'Le client ne veut pas des factures'],
    ['Al usuario le gusta el jazz', 'Al usuario no le gusta el jazz'],
    ["L'utente ama il jazz", "L'utente non ama il jazz"],
    ['O cliente gosta de jazz', 'O cliente não gosta de jazz'],
    ['De klant houdt van jazz', 'De klant houdt niet van jazz'],
    ['Kunden gillar jazz', 'Kunden gillar inte jazz'],
    ['Kunden kan lide jazz', 'Kunden kan ikke lide jazz'],
    ['Kunden liker jazz', 'Kunden liker ikke jazz'],
    ['Клиент любит джаз', 'Клиент не любит джаз'],
  ] as const) {
    const found = between(a, b);
    assert.equal(found.contradiction, 'negation', `${a} / ${b}: ${JSON.stringify(found)}`);
    assert.ok(found.mirrored);
  }
  for (const [a, b] of [
    ['The user likes jazz', 'The user does not like rock'],
    ['The user likes tea', 'The user does not like tea with milk'],
    ['The user likes jazz', 'The user does not need jazz'],
    ['Likes tea', "Doesn't want tea"],
    ['The user has a dog', 'The user does not have a cat'],
    ['The user has a dog', 'The user does not walk the dog'],
    ['Wants tea', 'Does not want sugar in the tea'],
    ['No one likes the red one', 'Everyone likes blue'],
    ['Der Nutzer mag Jazz', 'Der Nutzer mag keinen Rock'],
    ['Le client aime le jazz', "Le client n'aime pas le bruit"],
  ] as const)
    assert.equal(between(a, b).contradiction, undefined, `${a} / ${b}`);
});

test('what is only written otherwise is the same', () => {
  for (const [a, b] of [
    ['The deposit is 5000 euros', 'The deposit is 5,000 euros'],
    ['The deposit is 5000 euros', 'The deposit is 5000.00 euros'],
    ['The deposit is 5,000 euros', 'The deposit is 5,000.00 euros'],
    ['The debt is 1,250,000 euros', 'The debt is 1250000 euros'],
    ['Die Kaution beträgt 5000 Euro', 'Die Kaution beträgt 5.000 Euro'],
    ['Die Kaution beträgt 5000 Euro', 'Die Kaution beträgt 5.000,00 Euro'],
    ['Die Kaution beträgt 5000 Franken', "Die Kaution beträgt 5'000 Franken"],
    ['La caution est de 5000 euros', 'La caution est de 5 000 euros'],
    ['La caution est de 5000 euros', 'La caution est de 5\u202f000 euros'],
    ['The rate is 3.5 percent', 'The rate is 3,5 percent'],
    ['Standup is at 10', 'Standup is at 10:00'],
    ['Standup is at 10:00', 'Standup is at 10.00'],
    ['The user has two dogs', 'The user has 2 dogs'],
    ['Ann has twelve chairs', 'Ann has 12 chairs'],
    ['The user has one dog', 'The user has 1 dog'],
    ['The larger one of two rooms', 'The larger one of 2 rooms'],
    ['The user prefers e-mail', 'The user prefers email'],
    ['Prefers e-mail contact', 'Prefers email contact'],
    ['The user follows a gluten-free diet', 'The user follows a gluten free diet'],
    ['Ann moved from the U.S.A.', 'Ann moved from the USA'],
    ['Ann lives in the U.S.', 'Ann lives in the US'],
    ['Der Kunde heißt Müller', 'Der Kunde heißt Mueller'],
    ['The invoice goes to Müller', 'The invoice goes to Muller'],
    ['The phone number is 555-1234', 'The phone number is 5551234'],
    ['The user has 2 500 ml bottles', 'The user has 2 bottles of 500 ml'],
    ['The flat is ready at 7 a.m.', 'The flat is ready at 7 am'],
  ] as const) {
    const found = between(a, b);
    assert.equal(found.contradiction, undefined, `${a} / ${b}: ${JSON.stringify(found)}`);
    assert.ok(found.likeness >= duplicateFrom, `${a} / ${b}: ${found.likeness}`);
    assert.ok(found.mirrored);
  }
});

test('other numbers stay other numbers, and one is not always a number', () => {
  for (const [a, b] of [
    ['The deposit is 5000 euros', 'The deposit is 50,000 euros'],
    ['The deposit is 5000 euros', 'The deposit is 5000.50 euros'],
    ['The deposit is 5,000 euros', 'The deposit is 5 euros'],
    ['The user has two dogs', 'The user has 3 dogs'],
    ['The user has one dog', 'The user has 2 dogs'],
    ['The server runs version 2.1', 'The server runs version 2.10'],
    ['The server runs version 1.2.0', 'The server runs version 1.2.1'],
    ['The meeting is on 12.05.2024', 'The meeting is on 13.05.2024'],
    ['Standup is at 10:00', 'Standup is at 10:30'],
    ['The budget is 1,5 million', 'The budget is 15 million'],
    ['The group has 5-10 people', 'The group has 510 people'],
    ['Der Vertrag kostet 1.500 Euro', 'Der Vertrag kostet 1.600 Euro'],
    ['Le loyer est de 1 500 euros', 'Le loyer est de 1 600 euros'],
  ] as const)
    assert.equal(between(a, b).contradiction, 'number', `${a} / ${b}: ${JSON.stringify(between(a, b))}`);
  for (const [a, b] of [
    ['Ann prefers the red one', 'Ann prefers the 2 red bikes'],
    ['No one has the 2 keys', 'No one has the two keys'],
    ['The larger one of 2 rooms', 'The larger of two rooms'],
    ['The user prefers C', 'The user prefers C++'],
    ['The user prefers C++', 'The user prefers C#'],
  ] as const)
    assert.equal(between(a, b).contradiction, undefined, `${a} / ${b}`);
  for (const [a, b] of [
    ['The user prefers C', 'The user prefers C++'],
    ['The user prefers C++', 'The user prefers C#'],
    ['The user prefers e-mail', 'The user prefers snail mail'],
    ['Ann likes tea', 'Ann wants tea'],
  ] as const)
    assert.ok(between(a, b).likeness < duplicateFrom, `${a} / ${b}: ${between(a, b).likeness}`);
});
