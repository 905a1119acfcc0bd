/** Letters that one text must gain, lose, change or swap with a neighbour to become the other (optimal string alignment). */
function distance(a: string, b: string): number {
  let older: number[] = [];
  let old = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const changed = old[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(changed, old[j]! + 1, row[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j]!, older[j - 2]! + 1);
    }
    [older, old] = [old, row];
  }
  return old[b.length]!;
}

/** The same word in one spelling: small, with one joint, in the singular. */
const plain = (word: string): string =>
  word.slice(0, 100).toLowerCase().replaceAll('-', '_').replace(/ies$/, 'y').replace(/s$/, '');

const between = (a: string, b: string): number => Math.min(distance(a, b), distance(plain(a), plain(b)));

/** The known words most like a word, the nearest first. */
export const nearest = (word: string, known: Iterable<string>, most = 3): string[] =>
  [...known]
    .map((other) => ({ other, far: between(word.slice(0, 100), other) }))
    .sort((a, b) => a.far - b.far)
    .slice(0, most)
    .map(({ other }) => other);

/** True for a word that is hardly anything but a slip of a known one: one letter, of a long word two, or the plural. */
export const isSlip = (word: string, known: Iterable<string>): boolean =>
  [...known].some((other) => between(word.slice(0, 100), other) <= (other.length < 7 ? 1 : 2));
