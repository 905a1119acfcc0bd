import { wordsOf } from '../retrieval/service.ts';
import { ENGLISH_DROPPED, ENGLISH_FUNCTION, FUNCTION_WORDS } from '../retrieval/stopwords.ts';
import type { Contradiction } from './schema.ts';
import { normalised } from './tombstones.ts';

/** A text made ready to be compared with others. */
export interface Comparable {
  exact: string;
  /** Weights of stems: words that say nothing about a subject count a quarter. */
  words: Map<string, number>;
  /** Stems that are numbers, dates and days. */
  numbers: Map<string, number>;
  isNegated: boolean;
}

const light = 0.25;
const functionWords = new Set(Object.values(FUNCTION_WORDS).flatMap((words) => [...words]));
const isLight = (bare: string): boolean =>
  ENGLISH_DROPPED.has(bare) || ENGLISH_FUNCTION.has(bare) || functionWords.has(bare);

const list = (words: string): ReadonlySet<string> => new Set(words.split(/\s+/).filter(Boolean));

const negations = list(`
  not no never none neither nor cannot without nicht nie niemals kein keine keinen keiner keinem keines ohne
  ne pas jamais aucun aucune sans nunca jamas ningun ninguna sin nao nem nessun nessuna mai non niet geen nooit`);
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

const add = (counts: Map<string, number>, name: string, weight: number) =>
  counts.set(name, (counts.get(name) ?? 0) + weight);

export function comparable(text: string): Comparable {
  const made: Comparable = {
    exact: normalised(text),
    words: new Map(),
    numbers: new Map(),
    isNegated: false,
  };
  for (const { bare, stem, kind } of wordsOf(text)) {
    if (kind === 'beside') continue;
    if (isNegation(bare)) made.isNegated = true;
    else if (isNumber(bare)) add(made.numbers, stem, 1);
    else add(made.words, stem, isLight(bare) || auxiliaries.has(bare) ? light : 1);
  }
  return made;
}

/** What two bags share of what both have, 0..1. */
function overlap(a: Map<string, number>, b: Map<string, number>): number {
  let shared = 0;
  let all = 0;
  for (const name of new Set([...a.keys(), ...b.keys()])) {
    shared += Math.min(a.get(name) ?? 0, b.get(name) ?? 0);
    all += Math.max(a.get(name) ?? 0, b.get(name) ?? 0);
  }
  return all === 0 ? 0 : shared / all;
}

const together = ({ words, numbers }: Comparable) => new Map([...words, ...numbers]);

/** How alike two texts are in their words: 1 for the same text, less than 1 for the same words. */
export function likeness(a: Comparable, b: Comparable): number {
  if (a.exact === b.exact) return 1;
  return 0.99 * overlap(together(a), together(b));
}

const same = (a: Map<string, number>, b: Map<string, number>): boolean => overlap(a, b) === 1;

/** Words about the subject that both have. */
const subjects = (a: Comparable, b: Comparable): number =>
  [...a.words].filter(([name, weight]) => weight >= 1 && (b.words.get(name) ?? 0) >= 1).length;

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
  const object = text.slice(found.index + found[0].length).replace(/[.,;!?].*$/s, '');
  return { subject: text.slice(0, found.index).trim(), verb: found[0].trim(), object: object.trim() };
}

const wordsIn = (text: string): string[] =>
  wordsOf(text)
    .filter(({ kind }) => kind !== 'beside')
    .map(({ stem }) => stem);

function differInValue(a: Comparable, b: Comparable): boolean {
  for (const predicate of [singular, plural]) {
    const [one, other] = [partsOf(a.exact, predicate), partsOf(b.exact, predicate)];
    if (!one || !other) continue;
    if (one.verb !== other.verb || wordsIn(one.subject).join() !== wordsIn(other.subject).join())
      return false;
    const [mine, theirs] = [wordsIn(one.object), wordsIn(other.object)];
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
  const rest = overlap(a.words, b.words);
  const about = subjects(a, b);
  if (
    a.isNegated !== b.isNegated &&
    about >= 1 &&
    rest >= 0.75 &&
    (a.numbers.size + b.numbers.size === 0 || same(a.numbers, b.numbers))
  )
    return 'negation';
  if (a.isNegated !== b.isNegated) return undefined;
  const counts = a.numbers.size > 0 && b.numbers.size > 0 && !same(a.numbers, b.numbers);
  if (counts && about >= 1 && rest >= 0.8) return 'number';
  return differInValue(a, b) ? 'value' : undefined;
}
