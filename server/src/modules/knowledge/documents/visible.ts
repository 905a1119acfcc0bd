import type { Ctx, Target } from '#platform/context.ts';
import { viewOf } from '../../access/policy/service.ts';
import { type DocumentOfPolicy, listTargets } from './store.ts';

/** A document as policies see it. */
export const targetOf = (document: DocumentOfPolicy): Target => {
  const { labels } = document.metadata_json;
  return {
    id: document.id,
    ...(document.created_by === null ? {} : { owner: document.created_by }),
    type: document.content_type,
    metadata: document.metadata_json,
    ...(isObject(labels) ? { labels } : {}),
  };
};

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const scanned = 1_000;

/**
 * Ids of the documents of a corpus that the caller may read; undefined when that is all of them. Where policies look
 * at documents, a search must know before it ranks: filtering its results would leave too few, or none.
 */
export async function readableDocuments(ctx: Ctx, corpusId: string): Promise<string[] | undefined> {
  const view = await viewOf(ctx, 'documents:read');
  if (view.rows === 'all') return undefined;
  const readable: string[] = [];
  if (view.rows === 'none') return readable;
  for (let after = ''; ; ) {
    const documents = await listTargets(ctx.db, corpusId, after, scanned);
    readable.push(...documents.filter((document) => view.sees(targetOf(document))).map(({ id }) => id));
    if (documents.length < scanned) return readable;
    after = documents.at(-1)!.id;
  }
}
