import type { Ctx } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { newBoundedCache } from './bounded-cache.ts';
import type { Ranked } from './rank.ts';

/**
 * What searches have shown of a model, as a mean weighted by precision. `agreement` says how high words have ranked the
 * texts the model finds nearest: 0.5 for the first of all, 0 for any by chance, as of random or constant vectors.
 */
interface Shown {
  agreement: number;
  precision: number;
}

/** Some hundred searches back count, so that a server that changes is noticed. */
const memory = 0.99;
const nothing = 0.08;
const surely = 0.16;

/** Fewer texts with words of the query, and a search shows nothing. */
const fewest = 12;
const nearestLooked = 3;

/** By tenant, asker and model: nobody's texts and questions, in the same tenant or another, have a say in what others find. */
const mostKnown = 10_000;
const shownBy = perApp(() => newBoundedCache<string, Shown>(mostKnown));

/**
 * Learns from this search, and says how far a model may move its results, 0..1, by what it and those of the same asker
 * before it have shown of the model. Words are
 * right often enough that vectors that never agree with them have nothing to say; those that do agree may say more. A
 * model is believed as long as nothing was shown, as in small tenants, where there is little to put in a wrong order.
 * @param lexical best first by words; what was found by vectors alone is passed over
 * @param chosen chance may look like knowledge, or knowledge like chance, for some searches: `least` does not believe until
 *   it is likely, `most` until it is unlikely
 */
export function learnTrust(
  { app, tenant, actor }: Pick<Ctx, 'app' | 'tenant' | 'actor'>,
  model: string,
  lexical: readonly Ranked[],
  cosines: ReadonlyMap<string, number>,
  chosen: 'least' | 'most' = 'least',
): number {
  const known = shownBy(app);
  const key = `${tenant}/${actor.identity_id ?? actor.credential}/${model}`;
  const before = known.get(key);
  const seen = agreementOf(lexical, cosines);
  const now = before && seen ? joined(before, seen) : (seen ?? before);
  if (!now) return 1;
  known.set(key, now);
  const error = 1 / Math.sqrt(now.precision);
  const likely = now.agreement + (chosen === 'least' ? -error : error);
  return Math.min(1, Math.max(0, (likely - nothing) / (surely - nothing)));
}

function joined(before: Shown, seen: Shown): Shown {
  const past = before.precision * memory;
  const precision = past + seen.precision;
  return { agreement: (before.agreement * past + seen.agreement * seen.precision) / precision, precision };
}

/**
 * Where the nearest texts stand among those words have found. Of texts that are equally near the mean counts, and for
 * one that is missing, because the model finds others nearer, chance.
 */
export function agreementOf(
  lexical: readonly Ranked[],
  cosines: ReadonlyMap<string, number>,
): Shown | undefined {
  // What vectors alone have found would count against the words.
  const found = lexical.filter(({ candidate, score }) => candidate.words != null && score > 0);
  if (found.length < fewest) return undefined;
  const places = new Map<number, number[]>();
  found.forEach(({ candidate }, i) => {
    const cosine = cosines.get(candidate.id);
    if (cosine === undefined) return;
    const place = 0.5 - (i + 0.5) / found.length;
    const equal = places.get(cosine);
    if (equal) equal.push(place);
    else places.set(cosine, [place]);
  });
  let sum = 0;
  let left = nearestLooked;
  for (const cosine of [...places.keys()].sort((a, b) => b - a)) {
    if (left === 0) break;
    const equal = places.get(cosine)!;
    const taken = Math.min(left, equal.length);
    sum += (taken * equal.reduce((all, place) => all + place, 0)) / equal.length;
    left -= taken;
  }
  // A place by chance is uniformly distributed, with a variance of 1/12.
  return { agreement: sum / nearestLooked, precision: 12 * nearestLooked };
}
