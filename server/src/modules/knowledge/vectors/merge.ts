import type { Ctx } from '#platform/context.ts';
import { type Candidate, type PreparedQuery, type Ranked, rankFound } from '../retrieval/service.ts';
import type { NearRows } from './search.ts';

/** One result of a search. */
export interface Scored<C extends Candidate> {
  row: Ranked<C>;
  score: number;
}

/**
 * Ranks what words found together with what vectors found, each model's cosines on that model's own scale.
 * @param again whether a reranker, where there is one, reads the best of them
 */
export function rankTogether<C extends Candidate>(
  ctx: Ctx,
  prepared: PreparedQuery,
  byWords: C[],
  near: NearRows<C>[],
  again: boolean,
): Promise<Scored<C>[]> {
  const rows = new Map(byWords.map((row) => [row.id, row]));
  for (const { rows: found } of near) for (const row of found) if (!rows.has(row.id)) rows.set(row.id, row);
  const neighbours = near.map(({ query: { model, weight }, rows: nearest, wanted }) => ({
    model,
    weight,
    nearest,
    wanted,
  }));
  return rankFound(ctx, prepared, [...rows.values()], neighbours, again);
}

/** Nearest vectors alone, of every model, each compared with its own kind; of a text with several the best. */
export function byVectors<C extends Candidate>(near: NearRows<C>[]): Scored<C>[] {
  const best = new Map<string, Scored<C>>();
  for (const {
    query: { model },
    rows,
  } of near) {
    for (const row of rows) {
      const score = Math.max(0, Math.min(1, row.cosine));
      const parts = {
        words: 0,
        trigrams: 0,
        pairs: 0,
        neighbours: 0,
        role: 0,
        preference: 0,
        matched: [],
        model,
        cosine: row.cosine,
      };
      if ((best.get(row.id)?.score ?? -1) < score)
        best.set(row.id, { row: { candidate: row, score, parts }, score });
    }
  }
  return [...best.values()].sort(
    (a, b) => b.score - a.score || (a.row.candidate.id < b.row.candidate.id ? -1 : 1),
  );
}
