import { type Candidate, compareRanked, type Likeness, type Ranked, usuallyUnrelated } from './rank.ts';

/** What one embedding model found. */
export interface DenseScores {
  /** Name of the model. */
  model: string;
  /** Cosine by candidate id; a candidate without one counts as unrelated. */
  cosines: ReadonlyMap<string, number>;
  /**
   * Weight of the embedding against the lexical score. A hashed vector always has 0: it repeats the words and loses
   * to them. A semantic model: about 1.
   */
  weight: number;
  /** How far the model is believed, 0..1. Default 1. */
  trust?: number;
  /** Cosine that unrelated texts have under the model; differs much between models. Default `usuallyUnrelated`. */
  unrelated?: number;
}

/** Fewer nearest texts may all be related. */
const manyNear = 10;

/**
 * The cosine that unrelated texts have at most, told by those that were found: models differ in it, and what is no
 * nearer than the last of so many, or than half of all there are, is not near.
 * @param cosines of the nearest texts, descending
 * @param wanted how many were asked for: fewer are all there are
 */
export function unrelatedAmong(cosines: readonly number[], wanted: number): number {
  if (cosines.length < manyNear) return usuallyUnrelated;
  const place = cosines.length < wanted ? cosines.length >> 1 : cosines.length - 1;
  return Math.max(usuallyUnrelated, cosines[place]!);
}

/**
 * Adds the evidence of semantic embeddings to a lexical ranking: all on a 0..1 scale, then a weighted sum, so an
 * embedding can lift a result and never lowers one. Where texts have vectors of several models, each is compared on
 * its own model's scale and the best counts. With no weight the ranking comes back as it is. `rerank` must have been
 * called with the rows found by the embeddings too, if those are to appear. `support` of each result says how related
 * the embeddings find it (0..1), for `calibrate`.
 */
export function fuse<C extends Candidate>(
  ranked: readonly Ranked<C>[],
  evidence: readonly DenseScores[],
): Ranked<C>[] {
  const models = evidence.filter(({ weight, cosines }) => weight > 0 && cosines.size > 0);
  if (models.length === 0) return [...ranked];
  const best = Math.max(0, ...ranked.map(({ score }) => score));
  const scale = best > 0 ? best : 1;
  let strongest = 0;
  const supported = ranked.map((entry) => {
    let support = 0;
    let weighed = 0;
    let likeness: Likeness | undefined;
    for (const { model, cosines, weight, trust = 1, unrelated = usuallyUnrelated } of models) {
      const cosine = cosines.get(entry.candidate.id);
      if (cosine === undefined) continue;
      const own = unrelated < 1 ? Math.min(1, Math.max(0, (cosine - unrelated) / (1 - unrelated))) : 0;
      support = Math.max(support, trust * own);
      strongest = Math.max(strongest, own);
      if (likeness === undefined || weight * trust * own > weighed) likeness = { model, cosine, trust };
      weighed = Math.max(weighed, weight * trust * own);
    }
    return { entry: { ...entry, support, parts: { ...entry.parts, ...likeness } }, weighed };
  });
  for (const { entry, weighed } of supported) {
    const meaning = strongest > 0 ? (scale * weighed) / strongest : 0;
    entry.parts.meaning = meaning;
    entry.score += meaning;
  }
  return supported.map(({ entry }) => entry).sort(compareRanked);
}
