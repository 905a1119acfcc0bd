import { createRequire } from 'node:module';
import type common from '@zxcvbn-ts/language-common';
import { invalid } from '#platform/errors.ts';

/** Characters a password needs beside a second factor (NIST SP 800-63B-4, section 3.1.1.2). */
export const leastWithMfa = 8;
const most = 128;

/** The form in which passwords are hashed (NIST SP 800-63B-4, section 3.1.1.2). */
export const normalizedPassword = (password: string): string => password.normalize('NFC');

export const passwordLength = (password: string): number => [...normalizedPassword(password)].length;

let list: Set<string> | undefined;

/** Whether it is one of some 49,000 passwords that people use most, from the dictionaries of zxcvbn-ts, read when first asked. */
function isListed(text: string): boolean {
  if (!list) {
    const { dictionary }: typeof common = createRequire(import.meta.url)('@zxcvbn-ts/language-common');
    list = new Set(dictionary['passwords-common'].map((word) => word.normalize('NFKC')));
  }
  return list.has(text);
}

const folded = (text: string): string => text.normalize('NFKC').toLowerCase();
/** Letters and digits only: what is left of a text when it is dressed up. */
const bare = (text: string): string => folded(text).replace(/[^\p{L}\p{M}\p{N}]/gu, '');

/**
 * Refuses a password that somebody would guess: there are no rules of composition, only a length, a list, and what is near to the
 * account's own names.
 * @param field where it stands in the body, e.g. `/new_password`
 * @param least characters it needs
 * @param names user name, e-mail address and the like
 * @throws ApiError 422 VALIDATION_ERROR
 */
export function checkPassword(
  field: string,
  password: string,
  least: number,
  names: (string | null | undefined)[],
): void {
  const refuse = (message: string) => invalid([{ path: field, message }]);
  const length = passwordLength(password);
  if (length < least) throw refuse(`must have at least ${least} characters`);
  if (length > most) throw refuse(`must have at most ${most} characters`);
  if (isCommon(password)) throw refuse('is one of those that are guessed first; choose another one');
  if (isNearTo(password, names))
    throw refuse('is too near to the user name or e-mail address; choose another one');
}

/** On the list, two of it joined, one short text over and over, or a run of neighbouring characters. */
function isCommon(password: string): boolean {
  const plain = folded(password);
  const dressed = bare(password);
  return [plain, dressed].some((text) => {
    if (isListed(text)) return true;
    const unit = unitOf(text);
    if (unit.length < text.length && (unit.length <= 4 || isListed(unit))) return true;
    for (let i = 3; i <= text.length - 3; i++)
      if (isListed(text.slice(0, i)) && isListed(text.slice(i))) return true;
    return isRun(text);
  });
}

/** The shortest text that, repeated at least twice (the last time perhaps in part), makes the whole; else the whole. */
function unitOf(text: string): string {
  // The borders of Knuth, Morris and Pratt.
  const border = [0];
  for (let i = 1, k = 0; i < text.length; i++) {
    while (k > 0 && text[i] !== text[k]) k = border[k - 1]!;
    if (text[i] === text[k]) k += 1;
    border[i] = k;
  }
  const period = text.length - (border.at(-1) ?? 0);
  return period * 2 <= text.length ? text.slice(0, period) : text;
}

function isRun(text: string): boolean {
  const codes = [...text].map((letter) => letter.codePointAt(0)!);
  const step = (codes[1] ?? 0) - (codes[0] ?? 0);
  return (
    codes.length > 2 &&
    Math.abs(step) <= 1 &&
    codes.every((code, i) => i === 0 || code - codes[i - 1]! === step)
  );
}

/** Less than this beside a name is too little to be called a password of its own. */
const leastBeside = 8;

function isNearTo(password: string, names: (string | null | undefined)[]): boolean {
  const text = bare(password);
  return names
    .flatMap((name) => (name ? [name, name.split('@')[0]!] : []))
    .map(bare)
    .filter((name) => name.length > 0)
    .some((name) => {
      const backwards = [...name].reverse().join('');
      if (text === name || text === backwards) return true;
      if (name.length < 4) return false;
      const beside = text.replaceAll(name, '').replaceAll(backwards, '');
      if (beside !== text && beside.length < leastBeside) return true;
      return distanceWithin(text, name, 3);
    });
}

/** True when at most `most` insertions, deletions and replacements make one text the other. */
function distanceWithin(a: string, b: string, most: number): boolean {
  if (Math.abs(a.length - b.length) > most) return false;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]! <= most;
}
