import { createHash } from 'node:crypto';
import type { Ctx } from '#platform/context.ts';
import { requireSwitchedOn } from '#platform/kill-switches.ts';
import { type FoundPassage, searchEnginesOf } from '#platform/search-engines/search-engines.ts';
import { viewOf } from '../../access/policy/service.ts';
import type { Corpus, Retrieval } from '../corpora/service.ts';
import { scoreForeign } from '../retrieval/service.ts';
import type { RetrievedChunk } from './schema.ts';
import { isObject } from './visible.ts';

export type Routed = Exclude<Retrieval, { provider: 'local_pgvector' }>;

/** What is asked for where policy may leave some out. */
const spare = 4;
const most = 50;

/**
 * Asks the outside engine of a corpus, and answers what it found as passages of our own. What policy does not let the
 * caller read is left out; grants are of documents that are stored here.
 * @throws ApiError with the provider's codes, INTEGRATION_UNAVAILABLE
 */
export async function searchOutside(
  ctx: Ctx,
  corpus: Corpus,
  retrieval: Routed,
  query: string,
  limit: number,
): Promise<RetrievedChunk[]> {
  requireSwitchedOn(ctx.app, 'external_retrieval');
  const view = await viewOf(ctx, 'documents:read');
  if (view.rows === 'none') return [];
  const wanted = view.rows === 'all' ? limit : Math.min(most, limit * spare);
  const found = await askEngine(ctx, retrieval, query, wanted);
  const scores = scoreForeign(query, found);
  return found
    .map((passage, i) => chunkOf(corpus, retrieval, passage, i, scores[i]!))
    .filter(
      ({ document_id, content_type, document_metadata }) =>
        view.rows === 'all' ||
        view.sees({
          id: document_id,
          type: content_type,
          metadata: document_metadata,
          ...(isObject(document_metadata.labels) ? { labels: document_metadata.labels } : {}),
        }),
    );
}

async function askEngine(ctx: Ctx, retrieval: Routed, query: string, limit: number): Promise<FoundPassage[]> {
  const { bedrock, vertex } = searchEnginesOf(ctx.app);
  try {
    return retrieval.provider === 'aws_bedrock_kb'
      ? await bedrock.search(retrieval, query, limit, ctx.signal)
      : await vertex.search(retrieval, query, limit, ctx.signal);
  } catch (error) {
    const { code, cause } = error as { code?: string; cause?: unknown };
    if (!ctx.signal.aborted)
      ctx.log.warn({ code, err: cause, provider: retrieval.provider }, 'an outside engine did not search');
    throw error;
  }
}

/** An id that stays the same while the passage does. */
const idOf = (...parts: string[]): string =>
  createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 32);

function chunkOf(
  corpus: Corpus,
  { provider }: Routed,
  passage: FoundPassage,
  rank: number,
  score: number,
): RetrievedChunk {
  const { text, source, title, metadata, page = null, relevance = null } = passage;
  const document = idOf(corpus.id, source || passage.id || text);
  const filename = title ?? (decoded(source).split(/[?#]/, 1)[0]!.split('/').findLast(Boolean) || document);
  return {
    id: `${provider}-${idOf(corpus.id, source, passage.id ?? '', text)}`,
    document_id: `${provider}-${document}`,
    corpus_id: corpus.id,
    source: source || `${provider}://${passage.id ?? document}`,
    text,
    score,
    heading_path: [],
    filename,
    content_type: passage.content_type ?? 'text/plain',
    // Where the passage stands in its document the engines do not tell.
    offset_start: 0,
    offset_end: text.length,
    page_start: page,
    page_end: page,
    position: rank,
    document_metadata: metadata,
    explain: { provider, rank: rank + 1, relevance },
  };
}

function decoded(uri: string): string {
  try {
    return decodeURIComponent(uri);
  } catch {
    return uri;
  }
}
