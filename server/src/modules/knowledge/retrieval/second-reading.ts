import type { Ctx } from '#platform/context.ts';
import { failureOf } from '#platform/models/model-error.ts';
import { type Candidate, compareRanked, type Ranked, type SecondReading, usuallyUnrelated } from './rank.ts';
import { learnTrust } from './trust.ts';

/**
 * Has the best results read again by the reranker, where one is configured, and puts them in its order. When it fails, is
 * slow, says the same of all, or has shown that it knows nothing, the order stays. A result whose text may not leave this house is not sent and keeps its
 * score.
 * @param order best first
 */
export async function readAgain<C extends Candidate>(
  ctx: Ctx,
  query: string,
  order: Ranked<C>[],
): Promise<Ranked<C>[]> {
  const { rerank: model } = ctx.app.models;
  const sent = order
    .slice(0, model?.topN ?? 0)
    .filter(({ candidate, score }) => score > 0 && candidate.text !== '' && !candidate.sealed);
  if (!model || sent.length < 2) return order;
  const { name } = model;
  try {
    const texts = sent.map(({ candidate }) => candidate.text);
    const relevances = await model.rerank(query, texts, ctx.signal);
    ctx.app.metrics.reranks.inc({ outcome: 'done' });
    const said = new Map(sent.map((row, i) => [row, relevances[i]!]));
    const byId = new Map(sent.map(({ candidate }, i) => [candidate.id, relevances[i]!]));
    return reordered(order, said, { name, trust: learnTrust(ctx, `reranker ${name}`, sent, byId, 'most') });
  } catch (error) {
    ctx.signal.throwIfAborted();
    const failure = failureOf(error);
    ctx.app.metrics.reranks.inc({ outcome: failure });
    if (failure !== 'breaker_open')
      ctx.log.warn({ err: error, model: name, kind: failure }, 'the reranker can not be used');
    const asked = new Set(sent);
    return order.map((row) => (asked.has(row) ? withReading(row, { model: name, failure }) : row));
  }
}

const withReading = <C extends Candidate>(row: Ranked<C>, reading: SecondReading): Ranked<C> => ({
  ...row,
  parts: { ...row.parts, rerank: reading },
});

/**
 * The scores stay on their scale: half of one is how relevant the text is beside the most relevant, half the score of the
 * place it came to. So models that differ in how they spread their numbers differ less in what a threshold lets through.
 * Of a reranker that is trusted less, the score from before keeps its share.
 */
export function reordered<C extends Candidate>(
  order: readonly Ranked<C>[],
  said: ReadonlyMap<Ranked<C>, number>,
  { name: model, trust }: { name: string; trust: number },
): Ranked<C>[] {
  const [most, least] = [Math.max(...said.values()), Math.min(...said.values())];
  const share = most > least ? trust : 0;
  const best = order[0]!.score;
  const places = order.filter((row) => said.has(row)).map(({ score }) => score);
  const scoreOf = (row: Ranked<C>, relevance: number, place: number) => {
    if (share === 0) return row.score;
    const score = (best * relevance) / (2 * most) + place / 2;
    return share * score + (1 - share) * row.score;
  };
  const read = [...said]
    .sort((a, b) => b[1] - a[1])
    .map(([row, relevance], i) => ({
      ...withReading(row, { model, relevance, trust }),
      score: scoreOf(row, relevance, places[i]!),
      support: Math.max(row.support ?? 0, (share * (relevance - usuallyUnrelated)) / (1 - usuallyUnrelated)),
    }));
  // What was not read is as good as the least of what was.
  const unread = order
    .filter((row) => !said.has(row))
    .map((row) => (row.candidate.sealed ? row : { ...row, score: scoreOf(row, least, row.score) }));
  return [...read, ...unread].sort(compareRanked);
}
