/** Memories to measure with: the same in every run, 15 to 25 words, their frequencies as in natural language (Zipf). */

const COMMON =
  'the of and to a in for is on that by with was as at from it an are this has be or had we but not which their they will can were one all user about after when'.split(
    ' ',
  );
const ONSETS = 'b br c ch cl d dr f fl g gr h j k l m n p pl pr qu r s sh sl st str t th tr v w'.split(' ');
const VOWELS = 'a e i o u ai ea ee ou'.split(' ');
const ENDINGS = ' n r s t l ck nd nt ng rd st ment tion ing ed er ly'.split(' ');
const RARE_WORDS = 12_000;

/** A small deterministic generator (mulberry32): numbers in 0..1. */
export function newRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const pick = <T>(list: readonly T[], random: () => number): T => list[Math.floor(random() * list.length)]!;

function vocabulary(): string[] {
  const random = newRandom(1);
  const words = new Set(COMMON);
  while (words.size < RARE_WORDS) {
    const syllable = () => pick(ONSETS, random) + pick(VOWELS, random);
    words.add(syllable() + (random() < 0.7 ? syllable() : '') + pick(ENDINGS, random));
  }
  return [...words];
}

export const WORDS = vocabulary();

/** Rank r comes with a probability near 1/r. */
const zipf = (random: () => number): string => WORDS[Math.floor(WORDS.length ** random()) - 1] ?? WORDS[0]!;

const kinds = ['note', 'preference', 'fact', 'message'];

export interface MemoryInput {
  text: string;
  type: string;
  metadata: Record<string, unknown>;
}

export function newMemory(random: () => number): MemoryInput {
  const length = 15 + Math.floor(random() * 11);
  const text = Array.from({ length }, () => zipf(random)).join(' ');
  const metadata = { source: 'bench', client: `C${Math.floor(random() * 1_000)}` };
  return { text: `${text}.`, type: pick(kinds, random), metadata };
}

/** A question of three to six words that one memory holds, two of them uncommon where it has such. */
export function newQuery({ text }: MemoryInput, random: () => number): string {
  const words = text.slice(0, -1).split(' ');
  const rare = words.filter((word) => !COMMON.includes(word)).slice(0, 2);
  const length = 1 + Math.floor(random() * 4);
  return [...rare, ...Array.from({ length }, () => pick(words, random))].join(' ');
}
