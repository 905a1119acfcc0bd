import type { App } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import type { Ranked } from './rank.ts';

/**
 * What searches have shown of a model, as a mean weighted by precision. `agreement` is how much likelier than by chance
 * it is that the model finds one of the best texts by words nearer than one of the others: 0 for vectors that say
 * nothing (random, constant), 0.2 and more for vectors that know meaning.
 */
interface Shown {
  agreement: number;
  precision: number;
}

/** A model is believed until searches show otherwise; one search of a large scope is enough to. */
const believed: Shown = { agreement: 0.2, precision: 25 };
/** Some fifty searches back count, so that a server that changes is noticed. */
const memory = 0.98;
const nothing = 0.04;
const surely = 0.12;

/** Fewer texts with words of the query, and a search shows nothing. */
const fewest = 12;
const bestMost = 10;

const shownBy = perApp(() => new Map<string, Shown>());

/**
 * How far a model's vectors may move results, 0..1, by what this search and those before it have shown of it. Words are
 * right often enough that vectors that never agree with them have nothing to say; those that do agree may say more.
 * @param lexical best first by words; what was found by vectors alone is passed over
 */
export function trustIn(
  app: App,
  model: string,
  lexical: readonly Ranked[],
  cosines: ReadonlyMap<string, number>,
): number {
  const known = shownBy(app);
  const before = known.get(model) ?? { agreement: 0, precision: 0 };
  const seen = agreementOf(lexical, cosines);
  const past = before.precision * memory;
  const precision = past + (seen?.precision ?? 0);
  if (seen) {
    const agreement = (before.agreement * past + seen.agreement * seen.precision) / precision;
    known.set(model, { agreement, precision });
  }
  const { agreement } = known.get(model) ?? before;
  const mean =
    (agreement * precision + believed.agreement * believed.precision) / (precision + believed.precision);
  return Math.min(1, Math.max(0, (mean - nothing) / (surely - nothing)));
}

/** The rank-sum statistic of Mann and Whitney, as a probability less a half; texts without a cosine are the farthest. */
export function agreementOf(
  lexical: readonly Ranked[],
  cosines: ReadonlyMap<string, number>,
): Shown | undefined {
  // Texts that vectors alone have found would count against the words.
  const found = lexical.filter(({ candidate, score }) => candidate.words != null && score > 0);
  if (found.length < fewest) return undefined;
  const best = Math.min(bestMost, found.length >> 2);
  const cosineOf = ({ candidate }: Ranked) => cosines.get(candidate.id) ?? -1;
  const others = found.slice(best).map(cosineOf);
  let nearer = 0;
  for (const one of found.slice(0, best).map(cosineOf))
    for (const other of others) nearer += one > other ? 1 : one === other ? 0.5 : 0;
  const pairs = best * others.length;
  return { agreement: nearer / pairs - 0.5, precision: (12 * pairs) / (found.length + 1) };
}
