import { type Candidate, compareRanked, type Ranked } from './rank.ts';

export interface DenseScores {
  /** Cosine by candidate id; a candidate without one counts as unrelated. */
  cosines: ReadonlyMap<string, number>;
  /**
   * Weight of the embedding against the lexical score. A hashed vector always has 0: it repeats the words and loses
   * to them. A semantic model: about 1.
   */
  weight: number;
  /** Cosine that unrelated texts have under the model; differs much between models. Default 0.3. */
  unrelated?: number;
}

/**
 * Adds the evidence of a semantic embedding to a lexical ranking: both on a 0..1 scale, then a weighted sum, so an
 * embedding can lift a result and never lowers one. With weight 0 the ranking comes back as it is. `rerank` must
 * have been called with the rows found by the embedding too, if those are to appear. `support` of each result says how
 * related the embedding finds it (0..1), for `calibrate`.
 */
export function fuse<C extends Candidate>(ranked: readonly Ranked<C>[], dense: DenseScores): Ranked<C>[] {
  if (dense.weight <= 0) return [...ranked];
  const unrelated = dense.unrelated ?? 0.3;
  const best = Math.max(0, ...ranked.map(({ score }) => score));
  const scale = best > 0 ? best : 1;
  const supported = ranked.map((entry) => {
    const cosine = dense.cosines.get(entry.candidate.id) ?? unrelated;
    return { ...entry, support: Math.min(1, Math.max(0, (cosine - unrelated) / (1 - unrelated))) };
  });
  const strongest = supported.reduce((max, { support }) => Math.max(max, support), 0);
  if (strongest === 0) return supported;
  for (const entry of supported) entry.score += (dense.weight * scale * entry.support) / strongest;
  return supported.sort(compareRanked);
}
