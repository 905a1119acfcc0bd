import { hashText, mix32 } from '../retrieval/sparse.ts';
import { ENGLISH_DROPPED } from '../retrieval/stopwords.ts';
import { type Word, wordsOfStored } from '../retrieval/words.ts';

/** Name under which these vectors are stored. Any change of the numbers below or of the analysis needs a new one. */
export const HASHED_MODEL = 'hashed-384-v1';
export const HASHED_DIMENSIONS = 384;

const NON_ZEROS = 8;
const MIN_GRAM = 3;
const MAX_GRAM = 5;
const MAX_LETTERS = 40;
const WORD_WEIGHT = 1;
const GRAMS_WEIGHT = 0.5;
const COMMON_WORD = 0.25;

/** Of one word: positions, each with its sign in the lowest bit (1: taken away), and the weights of word and grams. */
interface Features {
  positions: Uint16Array;
  wordWeight: number;
  gramWeight: number;
}

/** By the word object, since the same letters have another stem in a text of another language. */
const known = new WeakMap<Word, Features>();

/**
 * Vector of unit length from the words of a text and their character 3- to 5-grams, each spread over eight signed
 * positions. Deterministic and without a model: near for texts that share words or spelling, blind to meaning. For
 * duplicates and for the shape of the interface; it carries no weight in ranking. A text without words (symbols,
 * nothing at all) is hashed as it stands, so the vector always has length 1.
 */
export function hashedEmbedding(text: string): Float32Array {
  const vector = new Float32Array(HASHED_DIMENSIONS);
  const counts = new Map<Word, number>();
  for (const word of wordsOfStored(text)) {
    if (word.kind !== 'beside') counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  for (const [word, count] of counts) addWord(vector, featuresOf(word), Math.sqrt(count));
  if (!normalise(vector)) {
    const positions = Uint16Array.from(spread(hashText(text.trim())));
    spreadOver(vector, positions, 0, positions.length, 1);
    normalise(vector);
  }
  return vector;
}

function addWord(vector: Float32Array, features: Features, weight: number): void {
  const { positions } = features;
  spreadOver(vector, positions, 0, Math.min(NON_ZEROS, positions.length), weight * features.wordWeight);
  spreadOver(vector, positions, NON_ZEROS, positions.length, weight * features.gramWeight);
}

const signed = new Float64Array(2);

/** Looked up by its sign: of a branch on what is as good as chance the processor guesses half wrong. */
function spreadOver(vector: Float32Array, positions: Uint16Array, from: number, to: number, step: number) {
  signed[0] = step;
  signed[1] = -step;
  for (let i = from; i < to; i++) {
    const position = positions[i]!;
    vector[position >> 1]! += signed[position & 1]!;
  }
}

function featuresOf(word: Word): Features {
  let features = known.get(word);
  if (features === undefined) {
    features = analyze(word);
    known.set(word, features);
  }
  return features;
}

function analyze(word: Word): Features {
  const importance = ENGLISH_DROPPED.has(word.bare) ? COMMON_WORD : 1;
  const positions = spread(hashText(word.stem));
  let grams = 0;
  if (word.kind === 'word') {
    const padded = `_${word.bare.slice(0, MAX_LETTERS)}_`;
    for (let size = MIN_GRAM; size <= MAX_GRAM; size++) {
      for (let start = 0; start + size <= padded.length; start++) {
        positions.push(...spread(hashText(padded, start, start + size) ^ 0x5bd1e995));
        grams++;
      }
    }
  }
  return {
    positions: Uint16Array.from(positions),
    wordWeight: importance * WORD_WEIGHT,
    gramWeight: grams > 0 ? (importance * GRAMS_WEIGHT) / Math.sqrt(grams) : 0,
  };
}

/** Eight positions of one feature, with their signs; the same position may come twice. */
function spread(hash: number): number[] {
  const positions: number[] = [];
  for (let i = 1; i <= NON_ZEROS; i++) {
    const h = mix32(hash + Math.imul(i, 0x9e3779b1));
    positions.push((((h >>> 1) % HASHED_DIMENSIONS) << 1) | (h & 1 ? 0 : 1));
  }
  return positions;
}

/** Scales to length 1; false, and no change, for a vector of zeros. */
function normalise(vector: Float32Array): boolean {
  let squares = 0;
  for (const value of vector) squares += value * value;
  if (squares === 0) return false;
  const scale = 1 / Math.sqrt(squares);
  for (let i = 0; i < vector.length; i++) vector[i]! *= scale;
  return true;
}
