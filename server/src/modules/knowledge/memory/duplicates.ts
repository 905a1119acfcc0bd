import type { Ctx } from '#platform/context.ts';
import { requireScope } from '#platform/permission.ts';
import { viewOf } from '../../access/policy/service.ts';
import { comparable, contradictionOf, likeness } from './likeness.ts';
import type { Contradiction, MemoryCreate, Similar } from './schema.ts';
import { selectAlike } from './similar-store.ts';
import { targetOf } from './target.ts';
import { normalised } from './tombstones.ts';
import type { MemoryRow } from './write-store.ts';

/** What was found beside a new memory. */
export interface SimilarFound {
  duplicates?: Similar[];
  contradictions?: Contradiction[];
}

/** Memories read to compare one with. */
const compared = 8;
/** From here on two texts are told as duplicates. */
export const duplicateFrom = 0.85;

const rounded = (score: number): number => Math.round(score * 1_000) / 1_000;

/**
 * Looks for what says the same as these memories, or may contradict them, among what their owner has of the same type.
 * By words and spelling alone; candidates, not verdicts. Sensitive memories are neither compared nor found.
 * @throws ApiError 403 AUTH_FORBIDDEN when the credential's scopes leave out searching
 */
export async function findSimilar(
  ctx: Ctx,
  wanted: { row: MemoryRow; check: NonNullable<MemoryCreate['check']> }[],
): Promise<SimilarFound[]> {
  if (wanted.length === 0) return [];
  requireScope(ctx, 'memory:search');
  const view = await viewOf(ctx, 'memory:search');
  const now = new Date();
  const isOpen = ({ row }: { row: MemoryRow }) => !row.sensitive && view.rows !== 'none';
  const open = wanted.filter(isOpen);
  const answers = await ctx.db.batch(open.map(({ row }) => selectAlike(row, compared, now)));
  const alike = new Map(open.map((one, i) => [one, answers[i]!.rows]));
  const before = new Map<string, string>();
  return wanted.map((one) => {
    const { row, check } = one;
    const found: Required<SimilarFound> = { duplicates: [], contradictions: [] };
    const exact = `${row.type}\n${normalised(row.text)}`;
    const twin = row.sensitive ? undefined : before.get(exact);
    if (twin) found.duplicates.push({ id: twin, score: 1 });
    if (!row.sensitive) before.set(exact, row.id);
    const text = comparable(row.text);
    for (const other of alike.get(one) ?? []) {
      if (view.rows === 'each' && !view.sees(targetOf(other))) continue;
      const theirs = comparable(other.text);
      const score = rounded(likeness(text, theirs));
      const reason = contradictionOf(text, theirs);
      if (reason) found.contradictions.push({ id: other.id, score, reason });
      else if (score >= duplicateFrom) found.duplicates.push({ id: other.id, score });
    }
    found.duplicates.sort((a, b) => b.score - a.score);
    if (check === 'duplicates') return { duplicates: found.duplicates };
    return check === 'contradictions' ? { contradictions: found.contradictions } : found;
  });
}
