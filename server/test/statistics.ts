import { analyzeDocument } from '#modules/knowledge/retrieval/analyze.ts';
import { mergeCounts, unpackCounts } from '#modules/knowledge/retrieval/counts.ts';
import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';

export interface Statistics {
  texts: number;
  /** How many texts hold a term: by `w` (word) or `g` (trigram) and its dimension, without those that none holds. */
  terms: Map<string, number>;
}

/** What is counted of a scope, settled or not. */
export async function statisticsOf(db: Db, tenant: string, scope: string): Promise<Statistics> {
  const [settled, total, changes] = await db.batch([
    sql<{ term: string; texts: number }>`
      select field || dimension as term, texts from term_counts where tenant_id = ${tenant} and scope = ${scope}`,
    sql<{ texts: number }>`select texts from text_counts where tenant_id = ${tenant} and scope = ${scope}`,
    sql<{ texts: number; words: Buffer; trigrams: Buffer }>`
      select texts, words, trigrams from term_changes where tenant_id = ${tenant} and scope = ${scope}`,
  ] as const);
  const terms = new Map(settled.rows.map(({ term, texts }) => [term, texts]));
  for (const [field, column] of [
    ['w', 'words'],
    ['g', 'trigrams'],
  ] as const) {
    const { dimensions, texts } = mergeCounts(changes.rows.map((row) => unpackCounts(row[column])));
    dimensions.forEach((dimension, i) => {
      const term = `${field}${dimension}`;
      terms.set(term, (terms.get(term) ?? 0) + texts[i]!);
    });
  }
  for (const [term, texts] of terms) if (texts === 0) terms.delete(term);
  return {
    texts: [...total.rows, ...changes.rows].reduce((sum, { texts }) => sum + texts, 0),
    terms,
  };
}

/** What `statisticsOf` has to be for texts, counted anew. */
export function countedAnew(texts: string[]): Statistics {
  const terms = new Map<string, number>();
  for (const text of texts) {
    const { words, trigrams } = analyzeDocument(text);
    for (const [field, { dimensions }] of [
      ['w', words],
      ['g', trigrams],
    ] as const)
      for (const dimension of dimensions)
        terms.set(`${field}${dimension}`, (terms.get(`${field}${dimension}`) ?? 0) + 1);
  }
  return { texts: texts.length, terms };
}
