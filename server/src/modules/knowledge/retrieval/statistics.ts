import type { Ctx } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { findTermCounts, type TermCounts } from './store.ts';

/** Texts of a scope in which a few seconds change next to nothing; in a smaller one they do, and asking costs little. */
export const largeScope = 500;
const freshMs = 2_000;
const mostScopes = 1_000;
const mostTerms = 50_000;

interface Known extends TermCounts {
  at: number;
}

const knownOf = perApp(() => new Map<string, Known>());

/** How common terms are in a scope: from the database, or for a large scope from what it said a moment ago. */
export async function termCounts(
  ctx: Ctx,
  scope: string,
  words: number[],
  trigrams: number[],
): Promise<TermCounts> {
  const scopes = knownOf(ctx.app);
  const key = `${ctx.tenant}/${scope}`;
  const known = scopes.get(key);
  if (
    !known ||
    performance.now() - known.at > freshMs ||
    known.words.size + known.trigrams.size > mostTerms
  ) {
    const found = await findTermCounts(ctx.db, scope, words, trigrams);
    scopes.delete(key);
    if (found.texts >= largeScope) scopes.set(key, { ...found, at: performance.now() });
    if (scopes.size > mostScopes) scopes.delete(scopes.keys().next().value!);
    return found;
  }
  const newWords = words.filter((dimension) => !known.words.has(dimension));
  const newTrigrams = trigrams.filter((dimension) => !known.trigrams.has(dimension));
  if (newWords.length + newTrigrams.length > 0) {
    const found = await findTermCounts(ctx.db, scope, newWords, newTrigrams, known.changes);
    for (const [dimension, texts] of found.words) known.words.set(dimension, texts);
    for (const [dimension, texts] of found.trigrams) known.trigrams.set(dimension, texts);
  }
  return known;
}
