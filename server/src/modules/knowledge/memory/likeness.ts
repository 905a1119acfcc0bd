import { type Word, wordsOf } from '../retrieval/service.ts';
import { ENGLISH_DROPPED, ENGLISH_FUNCTION, FUNCTION_WORDS } from '../retrieval/stopwords.ts';
import type { Contradiction } from './schema.ts';
import { normalised } from './tombstones.ts';

/** A word of a text, by what it is compared as. */
interface Term {
  /** Of its stem, as searches have it. */
  dimension: number;
  /** Words that say nothing about a subject count a quarter. */
  weight: number;
  /** Dates and days are numbers. */
  kind: 'word' | 'number' | 'negation';
}

/** A term, or several that cling together, and what else it may be: written together (e-mail, email), or stemmed in English. */
interface Cluster {
  terms: Term[];
  otherwise?: Term;
}

/** The terms of a text in order, and their dimensions. */
interface Reading {
  clusters: Cluster[];
  dimensions: ReadonlySet<number>;
}

/** A text made ready to be compared with others. */
export interface Comparable extends Reading {
  exact: string;
  isNegated: boolean;
}

const list = (words: string): ReadonlySet<string> => new Set(words.split(/\s+/).filter(Boolean));

const light = 0.25;
const functionWords = new Set(Object.values(FUNCTION_WORDS).flatMap((words) => [...words]));
/** In a question they say nothing about its subject; in a statement they are what it says. */
const statements = list('like want need know make get find give show tell say help list describe explain');
const isEnglishLight = (bare: string): boolean =>
  ENGLISH_DROPPED.has(bare) || (ENGLISH_FUNCTION.has(bare) && !statements.has(bare));
const isLight = (bare: string): boolean =>
  isEnglishLight(bare) || functionWords.has(bare) || auxiliaries.has(bare);

const negations = list(`
  not no never none neither nor cannot without nicht nie niemals kein keine keinen keiner keinem keines ohne
  ne pas jamais aucun aucune sans nunca jamas ningun ninguna sin nao nem nessun nessuna mai non niet geen nooit
  inte ikke ingen inget aldrig aldri не нет никогда без`);
const isNegation = (bare: string): boolean => negations.has(bare) || /n['’]t$/.test(bare);
/** What comes and goes with a negation. */
const auxiliaries = list(
  'do does did is are was were has have had can could will would longer any anymore more',
);

const dates = list(`
  january february march april june july august september october november december jan feb apr jun jul aug sep sept oct nov dec
  monday tuesday wednesday thursday friday saturday sunday januar februar marz mai juni juli oktober dezember
  montag dienstag mittwoch donnerstag freitag samstag sonntag janvier fevrier avril juin juillet aout septembre octobre novembre decembre
  lundi mardi mercredi jeudi vendredi samedi dimanche enero febrero marzo abril junio julio agosto septiembre octubre noviembre diciembre
  lunes martes miercoles jueves viernes sabado domingo
  zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million
  ein zwei drei vier funf sechs sieben acht neun zehn once twice daily weekly monthly yearly`);
const isNumber = (bare: string): boolean => /\p{N}/u.test(bare) || dates.has(bare);

/** What stemming leaves apart though it is the same: forms of a verb, and numbers in words and digits. */
const sameAs = new Map(
  [
    ['has', 'have'],
    ['does', 'do'],
    ['goes', 'go'],
    ...[...list('one two three four five six seven eight nine ten eleven twelve')].map((word, i) => [
      word,
      String(i + 1),
    ]),
  ].map(([form, same]) => [form!, wordsOf(same!)[0]!.dimension]),
);

/** A number, with what keeps its thousands apart, and what follows it behind a point, comma or colon. */
const written =
  /(?<!\d[.,:]?)(\d{1,3}(?:([.,'’ \u00a0\u202f])\d{3}(?:\2\d{3})*)|\d+)([.,:]\d+)?(?![.,:]?\d)/g;
const nothing = /^(?:[.,]0+|:00)$/;
/** Numbers as digits alone; what a space keeps apart may be two of them, and only clings together. */
const withPlainNumbers = (text: string): string =>
  text.replace(
    written,
    (_, whole: string, _mark, rest = '') =>
      whole.replace(/\s/g, '-').replace(/[.,'’]/g, '') + (nothing.test(rest) ? '' : rest),
  );

function termOf({ bare, dimension }: Word, before?: Word, after?: Word): Term {
  if (isNegation(bare)) return { dimension, weight: 1, kind: 'negation' };
  // The red one, one of them, no one.
  const isPronoun = bare === 'one' && (before?.bare === 'no' || !after || isEnglishLight(after.bare));
  if (isPronoun) return { dimension, weight: light, kind: 'word' };
  const term = { dimension: sameAs.get(bare) ?? dimension };
  if (isNumber(bare)) return { ...term, weight: 1, kind: 'number' };
  return { ...term, weight: isLight(bare) ? light : 1, kind: 'word' };
}

function read(text: string): Reading {
  const clusters: Cluster[] = [];
  const words = wordsOf(withPlainNumbers(text));
  for (const [i, word] of words.entries()) {
    const term = termOf(word, words[i - 1], words[i + 1]);
    if (word.kind !== 'beside') {
      const { also } = word;
      clusters.push({
        terms: [term],
        ...(also !== undefined && { otherwise: { ...term, dimension: also } }),
      });
      continue;
    }
    // 5 000 and 555-1234 may be one number; 5-10 and 1,5 are not 510 and 15.
    if (word.respells === 0 || (term.kind === 'number' && words[i - 1]!.bare.length < 3)) continue;
    const terms: Term[] = [];
    while (terms.length < word.respells && clusters.length > 0) terms.unshift(...clusters.pop()!.terms);
    // C++ is never C.
    clusters.push(/[+#]$/.test(word.bare) ? { terms: [term] } : { terms, otherwise: term });
  }
  const dimensions = clusters.flatMap(({ terms }) => terms.map(({ dimension }) => dimension));
  return { clusters, dimensions: new Set(dimensions) };
}

/** The terms of a text, as the other text has them where it has them otherwise. */
const termsBeside = ({ clusters }: Reading, { dimensions }: Reading): Term[] =>
  clusters.flatMap(({ terms, otherwise }) =>
    otherwise && dimensions.has(otherwise.dimension) ? [otherwise] : terms,
  );

export function comparable(text: string): Comparable {
  const reading = read(text);
  const isNegated = reading.clusters.some(({ terms }) => terms.some(({ kind }) => kind === 'negation'));
  return { ...reading, exact: normalised(text), isNegated };
}

type Bag = Map<number, number>;

function bagOf(terms: Term[], ...kinds: Term['kind'][]): Bag {
  const bag: Bag = new Map();
  for (const { dimension, weight, kind } of terms)
    if (kinds.includes(kind)) bag.set(dimension, (bag.get(dimension) ?? 0) + weight);
  return bag;
}

/** What two bags share of what both have, 0..1. */
function overlap(a: Bag, b: Bag): number {
  let shared = 0;
  let all = 0;
  for (const dimension of new Set([...a.keys(), ...b.keys()])) {
    shared += Math.min(a.get(dimension) ?? 0, b.get(dimension) ?? 0);
    all += Math.max(a.get(dimension) ?? 0, b.get(dimension) ?? 0);
  }
  return all === 0 ? 0 : shared / all;
}

/** How alike two texts are in their words: 1 for the same text, less than 1 for the same words. */
export function likeness(a: Comparable, b: Comparable): number {
  if (a.exact === b.exact) return 1;
  return (
    0.99 * overlap(bagOf(termsBeside(a, b), 'word', 'number'), bagOf(termsBeside(b, a), 'word', 'number'))
  );
}

const same = (a: Bag, b: Bag): boolean => overlap(a, b) === 1;

/** Words about the subject that both have. */
const subjects = (a: Bag, b: Bag): number =>
  [...a].filter(([dimension, weight]) => weight >= 1 && (b.get(dimension) ?? 0) >= 1).length;

/** Of these somebody has one at a time, as written in a handful of languages. */
const singular =
  /\b(?:lives? in|living in|moved to|works? (?:at|for|as)|(?:is|am|are) (?:called|named|married to|from)|names? is|born (?:in|on)|favou?rite [\p{L} ]{1,40}? is|(?:e-?mail|phone|address|birthday|age|job|title|role|employer|manager|diet|nationality|time ?zone)(?: address| number)? is|(?:wohnt?|wohne|lebt|lebe) in|arbeitet? (?:bei|für|als)|(?:heißt|heiße)|lieblings\p{L}+ ist|habite à|vi[st] à|travaille (?:à|pour|chez)|s'appelle|vive en|trabaja (?:en|para)|se llama)\s+/u;
/** Of these somebody has many; two contradict each other only when they end in the same word: dark mode, light mode. */
const plural = /\b(?:prefers?|likes?|wants?|uses?|bevorzugt|mag|préfère|aime|prefiere|quiere)\s+/u;

function partsOf(
  text: string,
  predicate: RegExp,
): { subject: string; verb: string; object: string } | undefined {
  const found = predicate.exec(text);
  if (!found || found.index > 60) return undefined;
  const object = text.slice(found.index + found[0].length).replace(/[.,;!?](?:\s.*)?$/s, '');
  return { subject: text.slice(0, found.index).trim(), verb: found[0].trim(), object: object.trim() };
}

/** The words of two parts, each beside the other. */
function wordsIn(a: string, b: string): [number[], number[]] {
  const [one, other] = [read(a), read(b)];
  return [
    termsBeside(one, other).map(({ dimension }) => dimension),
    termsBeside(other, one).map(({ dimension }) => dimension),
  ];
}

function differInValue(a: Comparable, b: Comparable): boolean {
  for (const predicate of [singular, plural]) {
    const [one, other] = [partsOf(a.exact, predicate), partsOf(b.exact, predicate)];
    if (!one || !other) continue;
    const [subject, theirSubject] = wordsIn(one.subject, other.subject);
    if (one.verb !== other.verb || subject.join() !== theirSubject.join()) return false;
    const [mine, theirs] = wordsIn(one.object, other.object);
    if (mine.length === 0 || theirs.length === 0 || mine.length > 6 || theirs.length > 6) return false;
    const isPart = mine.every((word) => theirs.includes(word)) || theirs.every((word) => mine.includes(word));
    if (isPart) return false;
    return predicate === singular || (mine.length > 1 && theirs.length > 1 && mine.at(-1) === theirs.at(-1));
  }
  return false;
}

/**
 * In what two texts may contradict each other: one denies what the other says, they differ in a number or date only, or
 * in the one value of something that has one. By their words alone, so it is conservative, and only ever a candidate.
 */
export function contradictionOf(a: Comparable, b: Comparable): Contradiction['reason'] | undefined {
  if (a.exact === b.exact) return undefined;
  const [mine, theirs] = [termsBeside(a, b), termsBeside(b, a)];
  const [words, theirWords] = [bagOf(mine, 'word'), bagOf(theirs, 'word')];
  const [numbers, theirNumbers] = [bagOf(mine, 'number'), bagOf(theirs, 'number')];
  const rest = overlap(words, theirWords);
  const isAboutTheSame = subjects(words, theirWords) >= 1;
  const counted = numbers.size + theirNumbers.size;
  if (a.isNegated !== b.isNegated)
    return isAboutTheSame && rest >= 0.75 && (counted === 0 || same(numbers, theirNumbers))
      ? 'negation'
      : undefined;
  const differ = numbers.size > 0 && theirNumbers.size > 0 && !same(numbers, theirNumbers);
  if (differ && isAboutTheSame && rest >= 0.8) return 'number';
  return differInValue(a, b) ? 'value' : undefined;
}
