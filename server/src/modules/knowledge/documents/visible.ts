import type { Ctx, Target } from '#platform/context.ts';
import { takingTurns } from '#platform/turns.ts';
import { isTotal, possiblyIn, sqlOf, viewOf } from '../../access/policy/service.ts';
import type { DocumentScope } from './chunk-store.ts';
import type { Principals } from './permission-store.ts';
import {
  type DocumentOfPolicy,
  documentColumns,
  findTargets,
  idsOfCorpus,
  listClosed,
  listTargets,
} from './store.ts';

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

const scanned = 5_000;

/**
 * Which documents of a corpus the caller may read; undefined when that is all of them. Where policies look at documents,
 * or some are restricted, a search must know before it ranks: filtering its results would leave too few, or none.
 */
export async function readableDocuments(
  ctx: Ctx,
  corpusId: string,
  who: Principals,
): Promise<DocumentScope | undefined> {
  const view = await viewOf(ctx, 'documents:read');
  if (view.rows === 'none') return { only: [] };
  const closed = who.all ? [] : (await listClosed(ctx.db, corpusId, who)).map(({ id }) => id);
  if (view.rows === 'all') return closed.length > 0 ? { except: closed } : undefined;
  const condition = view.letThrough(documentColumns);
  if (condition === false) return { only: [] };
  const except = closed.length > 0 ? { except: closed } : {};
  if (condition === true) return closed.length > 0 ? except : undefined;
  if (isTotal(condition)) return { among: idsOfCorpus(ctx.tenant, corpusId, sqlOf(condition)), ...except };
  const shut = new Set(closed);
  const only: string[] = [];
  const others = takingTurns();
  for (let after = ''; ; ) {
    const documents = await listTargets(ctx.db, corpusId, possiblyIn(condition), after, scanned);
    for (const document of documents) {
      const turn = others();
      if (turn) await turn;
      if (!shut.has(document.id) && view.admits(targetOf(document))) only.push(document.id);
    }
    if (documents.length < scanned) return { only };
    after = documents.at(-1)!.id;
  }
}

/** Of passages that were found those whose documents the caller may read as they are now; each of these is decided once more. */
export async function stillReadable<Passage extends { document_id: string }>(
  ctx: Ctx,
  found: Passage[],
): Promise<Passage[]> {
  const view = await viewOf(ctx, 'documents:read');
  if (view.rows !== 'each' || found.length === 0) return found;
  const ids = [...new Set(found.map(({ document_id }) => document_id))];
  const documents = await findTargets(ctx.db, ids);
  const seen = new Set(documents.filter((one) => view.sees(targetOf(one))).map(({ id }) => id));
  return found.filter(({ document_id }) => seen.has(document_id));
}
