/**
 * Texts about topics, and the vectors that a model of their meaning would give: near for texts of one topic, nearer for
 * texts that share words. Deterministic, so that what an exact search finds is known.
 */
import { newRandom, WORDS } from '../texts.ts';

export const DIMENSIONS = 384;
const TOPICS = 600;
const WORD_SHARE = 0.22;

const gauss = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());

const directions = new Map<string, Float32Array>();

function directionOf(word: string): Float32Array {
  let direction = directions.get(word);
  if (!direction) {
    let seed = 7;
    for (let i = 0; i < word.length; i++) seed = (Math.imul(seed, 31) + word.charCodeAt(i)) | 0;
    const random = newRandom(seed);
    direction = Float32Array.from({ length: DIMENSIONS }, () => gauss(random));
    directions.set(word, direction);
  }
  return direction;
}

/** Letters only: a word of letters and digits is searched as two. */
const topicOf = (number: number): string =>
  `topic${String.fromCharCode(97 + (number % 26), 97 + (Math.floor(number / 26) % 26))}`;

/** Words of one or two topics among common and rare others. */
export function newText(random: () => number): string {
  const zipf = () => WORDS[Math.floor(WORDS.length ** random()) - 1] ?? WORDS[0]!;
  const topic = topicOf(Math.floor(TOPICS * random() ** 1.5));
  const words = Array.from({ length: 12 + Math.floor(random() * 10) }, zipf);
  words.splice(Math.floor(random() * words.length), 0, topic);
  if (random() < 0.3) words.push(topicOf(Math.floor(TOPICS * random())));
  return `${words.join(' ')}.`;
}

/** What somebody asks who looks for a text: its topic and some of its words. */
export function newQuestion(text: string, random: () => number): string {
  const words = text.slice(0, -1).split(' ');
  const topics = words.filter((word) => word.startsWith('topic'));
  const others = Array.from(
    { length: 2 + Math.floor(random() * 3) },
    () => words[Math.floor(random() * words.length)]!,
  );
  return [...topics.slice(0, 1), ...others].join(' ');
}

/** The vector of a text, of length 1, in four digits: as it travels. */
export function vectorOf(text: string): Float32Array {
  const vector = new Float32Array(DIMENSIONS);
  for (const word of text.toLowerCase().match(/[a-z0-9]+/g) ?? ['']) {
    const share = word.startsWith('topic') ? 1 : WORD_SHARE;
    const direction = directionOf(word);
    for (let i = 0; i < DIMENSIONS; i++) vector[i]! += share * direction[i]!;
  }
  let squares = 0;
  for (const value of vector) squares += value * value;
  const scale = 1 / Math.sqrt(squares || 1);
  return vector.map((value) => Math.round(value * scale * 10_000) / 10_000);
}

/** Positions of the nearest vectors, nearest first: by looking at all of them. */
export function nearestOf(
  vectors: Float32Array[],
  query: Float32Array,
  count: number,
): { at: number; cosine: number }[] {
  const found = vectors.map((vector, at) => {
    let cosine = 0;
    for (let i = 0; i < DIMENSIONS; i++) cosine += vector[i]! * query[i]!;
    return { at, cosine };
  });
  return found.sort((a, b) => b.cosine - a.cosine).slice(0, count);
}
