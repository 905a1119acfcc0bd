import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from '#platform/errors.ts';
import { checkPassword } from './rules.ts';

const refusalOf = (password: string, names: string[] = [], least = 15): string | undefined => {
  try {
    checkPassword('/password', password, least, names);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof ApiError);
    assert.equal(error.code, 'VALIDATION_ERROR');
    const [problem] = error.details!.errors as { path: string; message: string }[];
    assert.equal(problem!.path, '/password');
    return problem!.message;
  }
};

test('a password has a length, counted in characters as they are normalised', () => {
  assert.match(refusalOf('short')!, /at least 15/);
  assert.equal(refusalOf('fourteen chars'), 'must have at least 15 characters');
  assert.equal(refusalOf('fifteen chars !'), undefined);
  assert.equal(refusalOf('eight ch', [], 8), undefined);
  assert.match(refusalOf('x'.repeat(200))!, /at most 128/);
  assert.match(refusalOf(`${'walnut gate '.repeat(10)}and nine more`)!, /at most 128/);
  // Five letters of two code points each, which are one character in NFC.
  assert.match(refusalOf('e\u0301a\u0301o\u0301u\u0301i\u0301nqz')!, /at least 15/);
  assert.equal(refusalOf('🦊🐿️🌰 öffnet das Tor'), undefined);
});

test('any characters will do: there are no rules of composition', () => {
  for (const password of [
    'onlylowercaseletterszz',
    'NURGROSSEBUCHSTABENHIER',
    'пароль которого нет в списке',
    '合言葉は長くて誰も知らないものにする',
    '840271936502847',
    '          a     b',
  ])
    assert.equal(refusalOf(password), undefined, password);
});

test('what is guessed first is refused, however it is dressed up', () => {
  for (const password of [
    'password',
    'PassWord',
    'p.a.s.s.w.o.r.d',
    'qwertyuiop12345',
    '123456789987654321',
    'passwordpassword',
    'password-password',
    'iloveyou princess',
    'aaaaaaaaaaaaaaaaaaaa',
    'abcabcabcabcabcabc',
    '12121212121212121',
    'abcdefghijklmnopqrst',
    'zyxwvutsrqponmlkj',
    'sunshine1234567',
    'football baseball',
  ])
    assert.match(refusalOf(password, [], 8)!, /guessed first/, password);
});

test('what is near to the names of the account is refused', () => {
  const names = ['wilhelmina.walnut', 'w.walnut@gatehouse.example'];
  for (const password of [
    'wilhelmina.walnut',
    'Wilhelmina Walnut',
    'tunlaw.animlehliw',
    'wilhelminawalnut1',
    'wilhelm1naw4lnut',
    'w.walnut@gatehouse.example',
    '2024-wilhelmina-walnut',
  ])
    assert.match(refusalOf(password, names)!, /too near/, password);
  for (const password of ['walnuts open the gate', 'wilhelmina.walnut likes green gates'])
    assert.equal(refusalOf(password, names), undefined, password);
});
