/** Plain BM25 (k1 1.2, b 0.75, Porter stems, stop words left out on both sides): what a text search has by itself. */
import { ENGLISH_DROPPED } from '../../server/src/modules/knowledge/retrieval/stopwords.ts';
import { wordsOf } from '../../server/src/modules/knowledge/retrieval/words.ts';

const K1 = 1.2;
const B = 0.75;

const stemsOf = (text: string): string[] =>
  wordsOf(text)
    .filter(({ bare, kind }) => kind !== 'beside' && !ENGLISH_DROPPED.has(bare))
    .map(({ stem }) => stem);

/** Returns a function that orders the ids of the texts by a query; those without a word of it are left out. */
export function plainBm25(texts: readonly { id: string; text: string }[]): (query: string) => string[] {
  const postings = new Map<string, Map<number, number>>();
  const lengths = texts.map(({ text }, row) => {
    const stems = stemsOf(text);
    for (const stem of stems) {
      let counts = postings.get(stem);
      if (!counts) {
        counts = new Map();
        postings.set(stem, counts);
      }
      counts.set(row, (counts.get(row) ?? 0) + 1);
    }
    return stems.length;
  });
  const average = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
  return (query) => {
    const scores = new Map<number, number>();
    for (const stem of stemsOf(query)) {
      const counts = postings.get(stem) ?? new Map<number, number>();
      const idf = Math.log(1 + (texts.length - counts.size + 0.5) / (counts.size + 0.5));
      for (const [row, tf] of counts) {
        const weight = ((K1 + 1) * tf) / (tf + K1 * (1 - B + (B * lengths[row]!) / average));
        scores.set(row, (scores.get(row) ?? 0) + idf * weight);
      }
    }
    return [...scores].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([row]) => texts[row]!.id);
  };
}
