import snowball from 'snowball-stemmers';
import { newBoundedCache } from './bounded-cache.ts';
import { type Hints, hasStemmer, hintsOf, type Language, recogniseLanguage, stemIn } from './languages.ts';
import { dimensionOf, mix32, SPARSE_DIMENSIONS } from './sparse.ts';

/**
 * One distinct word as it is indexed. Objects are shared between texts: treat them as frozen.
 * `bare` is the folded word, `stem` its stem (words of a space-less script: the character bigram), `dimension` the
 * hashed stem, `trigrams` the hashed character trigrams of `_bare_` (none for space-less scripts).
 */
export interface Word {
  bare: string;
  stem: string;
  dimension: number;
  /**
   * In a text of another language than English: the dimension of the English stem, where it differs. Texts are found by
   * both, so that a name or a text too short to tell its language is found by queries of every language.
   */
  also: number | undefined;
  trigrams: Uint32Array;
  /** What the word says about the language of its text. */
  hints: Hints | undefined;
  /**
   * 'word'; 'gram': bigram (or lone character) of a space-less script; 'beside': indexed so that it is found, but neither
   * counted nor part of the word sequence: a single Han character inside a longer run, an emoji, or words spelt otherwise.
   */
  kind: 'word' | 'gram' | 'beside';
  /** How many words before it this is another spelling of: U.S.A. as usa, e-mail as email, Müller as mueller, v2.0 as 2.0. */
  respells: number;
}

const CACHE_WORDS = 32_768;
const MAX_CACHED_LETTERS = 40;
const MAX_TRIGRAM_LETTERS = 64;

const NON_ASCII = /[^\p{ASCII}]/u;
const WORD = /[\p{L}\p{M}\p{N}]+(?:['’ʼ][\p{L}\p{M}\p{N}]+)*/gu;
/** A word with those that cling to it: U.S.A., e-mail, AT&T, 52,000, c++; or an emoji. */
const CLUSTER =
  /\p{L}(?:\+\+|#)|[\p{L}\p{M}\p{N}]+(?:(?:['’ʼ.&\-‐]|(?<=\p{N}),(?=\p{N}))[\p{L}\p{M}\p{N}]+)*|\p{Extended_Pictographic}/gu;
const CLINGING = /[.&\-‐,+#]/;
const EMOJI = /^\p{Extended_Pictographic}/u;
const INVISIBLE = /[\u00ad\u200b-\u200f\u2060\ufeff]|\p{Variation_Selector}/gu;
/** Scripts written without spaces between words, and Hangul, whose particles cling to the word. */
const SPACELESS =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}ー々〆]/u;
const SPACELESS_RUN = new RegExp(`${SPACELESS.source}+|(?:(?!${SPACELESS.source}).)+`, 'gsu');
const HAN = /^\p{Script=Han}$/u;

const STEMMERS: [script: RegExp, stemmer: { stem(word: string): string }][] = [
  [/^[a-z']+$/, snowball.newStemmer('english')],
  [/^\p{Script=Cyrillic}+$/u, snowball.newStemmer('russian')],
  [/^\p{Script=Arabic}+$/u, snowball.newStemmer('arabic')],
  [/^\p{Script=Tamil}+$/u, snowball.newStemmer('tamil')],
  [/^\p{Script=Armenian}+$/u, snowball.newStemmer('armenian')],
];

const isAsciiWord = new Uint8Array(128);
for (const char of 'abcdefghijklmnopqrstuvwxyz0123456789') isAsciiWord[char.charCodeAt(0)] = 1;
/** What stands inside of words. */
const joins = new Uint8Array(128);
for (const char of "'.-&") joins[char.charCodeAt(0)] = 1;
const [COMMA, HASH, PLUS] = [44, 35, 43];
const isDigit = (code: number): boolean => code >= 48 && code <= 57;

type KnownWords = ReturnType<typeof newBoundedCache<string, Word[]>>;
const spacedWords: KnownWords = newBoundedCache<string, Word[]>(CACHE_WORDS);
const otherWords = new Map<Language, KnownWords>();

function wordsByLanguage(language: Language): KnownWords {
  let known = otherWords.get(language);
  if (!known) {
    known = newBoundedCache<string, Word[]>(CACHE_WORDS / 4);
    otherWords.set(language, known);
  }
  return known;
}

const grams = newBoundedCache<string, Word>(CACHE_WORDS);
const besides = newBoundedCache<string, Word>(CACHE_WORDS);

/** The words of a text, and the language they were stemmed in. */
export interface Reading {
  words: Word[];
  language: Language;
}

/**
 * The words of a text in order: NFKC, lower case, split at everything but letters, marks and numbers, folded, stemmed in
 * the language of the text, and beside them what they are when spelt otherwise; runs of space-less scripts as overlapping
 * character bigrams. Linear in the length of the text; never throws.
 */
export function readText(text: string): Reading {
  const words: Word[] = [];
  let lower: string;
  if (NON_ASCII.test(text)) {
    lower = text.normalize('NFKC').toLowerCase().replace(INVISIBLE, '');
    for (const match of lower.matchAll(CLUSTER)) append(words, match[0], spacedWords, 'english');
  } else {
    lower = text.toLowerCase();
    appendAscii(words, lower);
  }
  const language = recogniseLanguage(words, lower);
  if (!hasStemmer(language)) return { words, language };
  const known = wordsByLanguage(language);
  const own: Word[] = [];
  for (const match of lower.matchAll(CLUSTER)) append(own, match[0], known, language);
  return { words: own, language };
}

export const wordsOf = (text: string): Word[] => readText(text).words;

const keptTexts = 2_048;
const keptCharacters = 2_000;
const kept = newBoundedCache<string, Word[]>(keptTexts);

/**
 * The same of a text that is stored as it is, and so is read again soon: for its vector, and by every search that finds it.
 * What was read is kept for a while, which nothing of a text may be that is only ever stored encrypted.
 */
export function wordsOfStored(text: string): Word[] {
  if (text.length > keptCharacters) return wordsOf(text);
  let words = kept.get(text);
  if (words === undefined) {
    words = wordsOf(text);
    kept.set(text, words);
  }
  return words;
}

function appendAscii(words: Word[], text: string): void {
  let start = -1;
  for (let i = 0; i <= text.length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : 32;
    if (isAsciiWord[code] === 1) {
      if (start < 0) start = i;
    } else if (start >= 0) {
      const next = text.charCodeAt(i + 1);
      if (joins[code] === 1 && isAsciiWord[next] === 1) continue;
      if (code === COMMA && isDigit(next) && isDigit(text.charCodeAt(i - 1))) continue;
      let signs = 0;
      if (i === start + 1 && !isDigit(text.charCodeAt(start)))
        signs = code === HASH ? 1 : code === PLUS && next === PLUS ? 2 : 0;
      append(words, text.slice(start, i + signs), spacedWords, 'english');
      start = -1;
    }
  }
}

function append(words: Word[], raw: string, known: KnownWords, language: Language): void {
  const found = known.get(raw);
  if (found === undefined) appendUnknown(words, raw, known, language);
  else if (found.length === 1) words.push(found[0]!);
  else for (const word of found) words.push(word);
}

function appendUnknown(words: Word[], raw: string, known: KnownWords, language: Language): void {
  if (SPACELESS.test(raw)) {
    for (const [run] of raw.matchAll(SPACELESS_RUN)) {
      if (SPACELESS.test(run)) appendGrams(words, run);
      else append(words, run, known, language);
    }
    return;
  }
  if (EMOJI.test(raw)) {
    words.push(gramOf(raw, 'beside'));
    return;
  }
  const isLong = raw.length > MAX_CACHED_LETTERS;
  if (!CLINGING.test(raw)) {
    const key = ownCopy(raw);
    const found = analyzeSpaced(key, language);
    if (!isLong) known.set(key, found);
    words.push(...found);
    return;
  }
  const found: Word[] = isLong ? words : [];
  for (const [word] of raw.matchAll(WORD)) append(found, word, known, language);
  if (isLong) return;
  const key = ownCopy(raw);
  found.push(...writtenTogether(key, found, language));
  known.set(key, found);
  words.push(...found);
}

const POINTED_NUMBER = /\p{N}+(?:\.\p{N}+)+/u;
const NOT_OF_WORDS = /[^\p{L}\p{M}\p{N}'’ʼ]/gu;

/** The word that several make which cling together, or a letter with the signs after it, where it is not the same words. */
function writtenTogether(raw: string, parts: Word[], language: Language): Word[] {
  const respells = parts.filter(({ kind }) => kind !== 'beside').length;
  if (respells === 0) return [];
  const isSigned = raw.endsWith('+') || raw.endsWith('#');
  const exact = isSigned ? raw : POINTED_NUMBER.exec(raw)?.[0];
  if (exact !== undefined) return [besideOf(exact, exact, language, respells)];
  const plain = withoutClitics(raw.replace(NOT_OF_WORDS, ''));
  const bare = fold(plain);
  if (respells < 2 || LETTERS_AND_DIGITS.test(bare)) return [];
  return [besideOf(bare, plain, language, respells)];
}

function besideOf(bare: string, plain: string, language: Language, respells: number): Word {
  const { stem, dimension, also } = makeWord(bare, plain, language);
  return { bare, stem, dimension, also, trigrams: NO_TRIGRAMS, hints: undefined, kind: 'beside', respells };
}

/** A slice of a text keeps the whole text alive in V8; the copy does not. */
const ownCopy = (text: string): string => Buffer.from(text, 'utf16le').toString('utf16le');

/** Letters and digits change places at most twice (b12, 10mg, il1β): words of their own. More often: a code, kept whole. */
const LETTERS_AND_DIGITS = /^(?:\p{L}+\p{N}+\p{L}*|\p{N}+\p{L}+\p{N}*)$/u;
const SAME_KIND = /\p{L}+|\p{N}+/gu;

function analyzeSpaced(raw: string, language: Language): Word[] {
  const plain = withoutClitics(raw);
  const bare = fold(plain);
  if (bare === '') return [];
  if (!LETTERS_AND_DIGITS.test(bare)) {
    const word = makeWord(bare, plain, language);
    if (!UMLAUT.test(plain) || (language !== 'german' && language !== 'english')) return [word];
    const spelt = plain.replace(UMLAUTS, (letter) => UMLAUT_LETTERS[letter]!);
    return [word, besideOf(fold(spelt), spelt, language, 1)];
  }
  return Array.from(bare.matchAll(SAME_KIND), ([part]) => makeWord(part, part, language));
}

const UMLAUT = /[äöü]/;
const UMLAUTS = /[äöü]/g;
const UMLAUT_LETTERS: Record<string, string> = { ä: 'ae', ö: 'oe', ü: 'ue' };

const LATIN = /^[\p{Script=Latin}\p{M}]+$/u;

/** @param plain the word with its accents, which stemmers of other languages than English look at */
function makeWord(bare: string, plain: string, language: Language): Word {
  const english = stemOf(bare);
  const trigrams = trigramsOf(bare);
  const hints = hintsOf(bare);
  const other = language !== 'english' && plain.length <= MAX_CACHED_LETTERS && LATIN.test(plain);
  const stem = other ? fold(stemIn(language, plain)) || english : english;
  const also = stem === english ? undefined : dimensionOf(english);
  // Made alike wherever words are made, so that reading them stays fast.
  return { bare, stem, dimension: dimensionOf(stem), also, trigrams, hints, kind: 'word', respells: 0 };
}

const NO_TRIGRAMS = new Uint32Array(0);

function gramOf(text: string, kind: 'gram' | 'beside'): Word {
  const cache = kind === 'gram' ? grams : besides;
  let gram = cache.get(text);
  if (gram === undefined) {
    const own = ownCopy(text);
    const [dimension, trigrams] = [dimensionOf(own), NO_TRIGRAMS];
    gram = {
      bare: own,
      stem: own,
      dimension,
      also: undefined,
      trigrams,
      hints: undefined,
      kind,
      respells: 0,
    };
    cache.set(own, gram);
  }
  return gram;
}

/** Bigrams of the run; a Han character without a Han neighbour is a word of its own (猫が好き: 猫, 好). */
function appendGrams(words: Word[], run: string): void {
  const letters = Array.from(run);
  if (letters.length === 1) {
    words.push(gramOf(run, 'gram'));
    return;
  }
  let previousHan = false;
  let han = HAN.test(letters[0]!);
  for (let i = 0; i < letters.length; i++) {
    const nextHan = i + 1 < letters.length && HAN.test(letters[i + 1]!);
    if (han) words.push(gramOf(letters[i]!, previousHan || nextHan ? 'beside' : 'gram'));
    if (i + 1 < letters.length) words.push(gramOf(letters[i]! + letters[i + 1]!, 'gram'));
    previousHan = han;
    han = nextHan;
  }
}

function stemOf(bare: string): string {
  if (bare.length > MAX_CACHED_LETTERS) return bare;
  for (const [script, stemmer] of STEMMERS) if (script.test(bare)) return stemmer.stem(bare) || bare;
  return bare;
}

/** Hashed character trigrams of `_bare_`, repeats included. */
function trigramsOf(bare: string): Uint32Array {
  const padded = `_${bare.slice(0, MAX_TRIGRAM_LETTERS)}_`;
  const trigrams = new Uint32Array(padded.length - 2);
  for (let i = 0; i < trigrams.length; i++) {
    const [a, b, c] = [padded.charCodeAt(i), padded.charCodeAt(i + 1), padded.charCodeAt(i + 2)];
    trigrams[i] =
      mix32(Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x27d4eb2f) ^ Math.imul(c, 0x165667b1)) %
      SPARSE_DIMENSIONS;
  }
  return trigrams;
}

const APOSTROPHES = /[’ʼ]/g;
/** Possessive after the word; French, Catalan and Italian elisions before it. Contractions (I'm) stay words. */
const POSSESSIVE = /'s$/;
const ELISION = /^(?:[ldjmtscn]|qu|jusqu|lorsqu|puisqu|un|dell|nell|all|dall|sull|quest|quell)'(?=\p{L}{2})/u;
const LATIN_LETTERS: Record<string, string> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  ł: 'l',
  đ: 'd',
  ð: 'd',
  þ: 'th',
  ı: 'i',
};
const ARABIC_LETTERS: Record<string, string> = {
  أ: 'ا',
  إ: 'ا',
  آ: 'ا',
  ٱ: 'ا',
  ى: 'ي',
  ی: 'ي',
  ک: 'ك',
  ة: 'ه',
};

/** The word without what clings to it behind or before an apostrophe. */
function withoutClitics(raw: string): string {
  const word = NON_ASCII.test(raw) ? raw.replace(APOSTROPHES, "'") : raw;
  return word.includes("'") ? word.replace(POSSESSIVE, '').replace(ELISION, '') : word;
}

/**
 * Removes what spelling varies in: accents of Latin, Greek and Cyrillic (й stays a letter), vocalisation of Arabic and
 * Hebrew. Marks that are letters elsewhere (Devanagari, kana) stay.
 */
function fold(raw: string): string {
  let word = raw;
  if (NON_ASCII.test(word)) {
    word = word
      .normalize('NFD')
      .replace(/и\u0306/g, 'й')
      .replace(/[\u0300-\u036f]/g, '')
      .normalize('NFC');
    word = word.replace(/[ßæœøłđðþı]/g, (letter) => LATIN_LETTERS[letter]!);
    word = word.replace(/[\u064b-\u065f\u0670\u0640\u0591-\u05c7]/g, '');
    word = word.replace(/[أإآٱىیکة]/g, (letter) => ARABIC_LETTERS[letter]!);
  }
  return word;
}
