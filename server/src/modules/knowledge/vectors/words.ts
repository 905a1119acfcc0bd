import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import type { PreparedQuery } from '../retrieval/service.ts';
import type { VectorScope, VectorView } from './collection.ts';
import { comparedAtMost } from './search.ts';
import { countVisible, findLiveSegments, hitsInSegments, type LiveSegment } from './search-store.ts';
import { isGone, isSame, noteSegments, repeats, segmentsKnown } from './segments-known.ts';

/** What a search by words asks for. */
export interface WordSearch<Row> {
  /** Most candidates by words, and by trigrams where the query needs them. */
  byWords: number;
  byTrigrams: number;
  /** The whole statement, given one that answers the ids of hits; without it all texts that may be seen are compared. */
  statement: (hits: Statement | undefined) => Statement<Row>;
}

/** Where a condition leaves out more than what is deleted: candidates beyond those wanted. */
const spareUnderConditions = 5;
/** Fewer rows than this under a condition, and all that may be seen are compared instead. */
const enough = 100;
/** Texts that the rarer words, or trigrams, lead to; the common ones lead to nearly all. */
const wordBudget = 20_000;
const trigramBudget = 10_000;
/** A term in a text counts at most twice its weight in the query. */
const mostOfTerm = 2;
/** What only the left out words can find is nothing to show, when it is less than this share of the best... */
const negligible = 0.15;
/** ... or than so many others have. */
const surely = 50;

/**
 * The best texts of a scope by words. A small scope is compared text by text; one with segments is asked through their
 * inverted indexes, tail and waiting texts beside them, which finds the same.
 */
export async function findByWords<Row extends { words?: number }>(
  ctx: Ctx,
  scope: VectorScope,
  prepared: PreparedQuery,
  view: VectorView,
  search: WordSearch<Row>,
): Promise<Row[]> {
  const all = () => ctx.db.rows(search.statement(undefined));
  let known = await segmentsKnown(ctx, scope, true);
  if (known.length === 0) return all();
  if (view.narrow && (await countVisible(ctx.db, scope, view, comparedAtMost + 1)) <= comparedAtMost)
    return all();
  const times = view.narrow ? spareUnderConditions : 1;
  const rare = rarest(prepared, 'words', wordBudget);
  const missed = mostMissed(prepared, rare);
  const query = {
    words: prepared.words,
    wordDimensions: rare,
    trigrams: prepared.trigrams,
    trigramDimensions: rarest(prepared, 'trigrams', trigramBudget),
    byWords: search.byWords * times,
    byTrigrams: prepared.needsTrigrams ? search.byTrigrams * times : 0,
  };
  for (let tried = 0; tried < repeats; tried++) {
    let answer: [rows: Row[], segments: LiveSegment[]];
    try {
      const [{ rows }, { rows: segments }] = await ctx.db.batch([
        search.statement(hitsInSegments(ctx.tenant, scope, known, view.visible, query)),
        findLiveSegments(ctx.tenant, scope.name),
      ] as const);
      answer = [rows, segments];
    } catch (error) {
      if (!isGone(error)) throw error;
      known = await segmentsKnown(ctx, scope);
      continue;
    }
    const [rows, segments] = answer;
    noteSegments(ctx, scope, segments);
    if (!isSame(known, segments)) {
      known = segments;
      continue;
    }
    if (view.narrow && rows.length < enough) return all();
    if (rare.length === query.wordDimensions.length && isComplete(rows, missed)) return rows;
    if (query.wordDimensions.length === prepared.vectors.words.dimensions.length) return rows;
    // The common words may find what these did not.
    query.wordDimensions = [...prepared.vectors.words.dimensions];
  }
  return all();
}

/** What a text can have at most that holds none of the words asked for, but all of the others. */
function mostMissed({ vectors }: PreparedQuery, asked: number[]): number {
  const { dimensions, values } = vectors.words;
  let most = 0;
  dimensions.forEach((dimension, i) => {
    if (!asked.includes(dimension)) most += mostOfTerm * values[i]!;
  });
  return most;
}

function isComplete(rows: { words?: number }[], missed: number): boolean {
  if (missed === 0) return true;
  const scores = rows.map(({ words }) => words ?? 0).sort((a, b) => b - a);
  return missed <= Math.max(negligible * (scores[0] ?? 0), scores[surely - 1] ?? 0);
}

/** The rarest terms of a query, as many as lead to no more texts than are worth looking at. */
function rarest({ vectors, stats }: PreparedQuery, space: 'words' | 'trigrams', budget: number): number[] {
  const ordered = [...vectors[space].dimensions]
    .map((dimension) => ({ dimension, texts: stats.df(space, dimension) }))
    .sort((a, b) => a.texts - b.texts);
  const chosen: number[] = [];
  let texts = 0;
  for (const { dimension, texts: own } of ordered) {
    texts += own;
    if (texts > budget && chosen.length > 0) break;
    chosen.push(dimension);
  }
  return chosen;
}
