import snowball from 'snowball-stemmers';
import { ENGLISH_DROPPED, ENGLISH_FUNCTION, FUNCTION_WORDS } from './stopwords.ts';

/** A language whose function words are known; English stands for every other. */
export type Language = 'english' | keyof typeof FUNCTION_WORDS;

/** How much a function word says for each language: the fewer languages share it, the more. */
export type Hints = readonly (readonly [Language, number])[];

const hintsByWord = new Map<string, Hints>();
{
  const languagesOf = new Map<string, Language[]>();
  const note = (word: string, language: Language) =>
    languagesOf.set(word, [...(languagesOf.get(word) ?? []), language]);
  for (const word of ENGLISH_DROPPED.union(ENGLISH_FUNCTION)) note(word, 'english');
  // Single letters are names of variables and options in every language.
  for (const [language, words] of Object.entries(FUNCTION_WORDS))
    for (const word of words) if (word.length > 1 || /[^a-z]/.test(word)) note(word, language);
  for (const [word, languages] of languagesOf)
    hintsByWord.set(
      word,
      languages.map((language) => [language, 1 / languages.length] as const),
    );
}

/** What a folded word says about the language of its text; undefined for words of no language's list. */
export const hintsOf = (bare: string): Hints | undefined => hintsByWord.get(bare);

/** Letters that few languages have; they speak for those as a function word does. */
const LETTERS: [RegExp, Language[]][] = [
  [/ß/, ['german']],
  [/[äöü]/, ['german', 'swedish', 'finnish', 'hungarian', 'turkish']],
  [/[ñ¿¡]/, ['spanish']],
  [/[èêëàùœ]/, ['french', 'italian']],
  [/[ãõ]/, ['portuguese']],
  [/ç/, ['french', 'portuguese', 'turkish']],
  [/å/, ['swedish', 'danish', 'norwegian']],
  [/[æø]/, ['danish', 'norwegian']],
  [/[őű]/, ['hungarian']],
  [/[ğşı]/, ['turkish']],
  [/[ăâîșțşţ]/, ['romanian']],
];

/** Words looked at to recognise a language; a text says it early. */
const LOOKED_AT = 200;
const CHARACTERS_LOOKED_AT = 1_600;
/** Less than one sure word is taken for chance. */
const ENOUGH = 0.7;

/**
 * The language of a text by its function words, and by its letters where those leave it open. English when nothing
 * speaks against it, so that names and single words are read alike in every text.
 * @param words folded words with their hints, in order
 * @param lower the text in lower case
 */
export function recogniseLanguage(words: readonly { hints?: Hints | undefined }[], lower: string): Language {
  const weights = new Map<Language, number>();
  const add = (language: Language, weight: number) =>
    weights.set(language, (weights.get(language) ?? 0) + weight);
  for (let i = 0; i < words.length && i < LOOKED_AT; i++)
    for (const [language, weight] of words[i]!.hints ?? []) add(language, weight);
  if (/[^\p{ASCII}]/u.test(lower)) {
    const start = lower.slice(0, CHARACTERS_LOOKED_AT);
    for (const [letters, languages] of LETTERS)
      if (letters.test(start)) for (const language of languages) add(language, 0.6 / languages.length);
  }
  let best: Language = 'english';
  let most = Math.max(ENOUGH, weights.get('english') ?? 0);
  for (const [language, weight] of weights) if (weight > most) [best, most] = [language, weight];
  return best;
}

const latin = [
  'german',
  'french',
  'spanish',
  'italian',
  'portuguese',
  'dutch',
  'swedish',
  'danish',
  'norwegian',
  'finnish',
  'hungarian',
  'romanian',
  'turkish',
] as const;

const stemmers = new Map<Language, { stem(word: string): string }>(
  latin.map((language) => [language, snowball.newStemmer(language)]),
);

/** True for languages in the Latin script that have a stemmer of their own. */
export const hasStemmer = (language: Language): boolean => stemmers.has(language);

/** The stem of a word, accents and all, in a language that has a stemmer. */
export const stemIn = (language: Language, word: string): string =>
  stemmers.get(language)!.stem(word) || word;
