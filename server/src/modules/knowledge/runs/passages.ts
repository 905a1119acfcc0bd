import type { Ctx } from '#platform/context.ts';
import { getCorpus } from '../corpora/service.ts';
import { retrieveChunks } from '../documents/service.ts';
import { type Memory, searchMemories } from '../memory/service.ts';
import type { Passage } from './answer.ts';
import { retrievalFailure } from './failures.ts';
import type { MemoryPlan } from './memory.ts';
import type { NewRun, PastMessage } from './store.ts';

const passagesMost = 20;
const memoriesInitially = 5;
const queryMaxChars = 10_000;

export interface PassageSearch {
  query: string;
  top_k: number | undefined;
  history: PastMessage[];
  memory: MemoryPlan;
}

/**
 * What a run answers from: passages of its corpus, and memories of the caller's own where it asked for them, best first.
 * @returns `debug`: what the event debug.retrieval says
 * @throws RunFailure
 */
export async function findPassages(
  ctx: Ctx,
  { corpus_id }: NewRun,
  search: PassageSearch,
): Promise<{ passages: Passage[]; debug: Record<string, unknown> }> {
  try {
    const [chunks, memories] = await Promise.all([
      corpus_id === null ? [] : retrieveChunks(ctx, { corpus_id, query: search.query, limit: search.top_k }),
      search.memory.recall ? recall(ctx, search) : [],
    ]);
    const provider = await debuggedProvider(ctx, corpus_id);
    const passages = [...chunks.map(passageOfChunk), ...memories.map(passageOfMemory)];
    return {
      passages: passages.sort((a, b) => b.score - a.score).slice(0, passagesMost),
      debug: {
        ...(corpus_id === null ? {} : { provider, num_chunks: chunks.length }),
        ...(search.memory.recall ? { num_memories: memories.length } : {}),
      },
    };
  } catch (error) {
    throw retrievalFailure(error);
  }
}

const debuggedProvider = async (ctx: Ctx, corpusId: string | null): Promise<string | undefined> =>
  corpusId !== null && ctx.app.config.DEBUG_EVENTS
    ? (await getCorpus(ctx, corpusId)).provider_config_json.retrieval.provider
    : undefined;

/** Memories of the caller alone, also for somebody who may read those of others; what the history says is left out. */
async function recall(ctx: Ctx, { query, top_k, history }: PassageSearch): Promise<Memory[]> {
  if (query.trim() === '') return [];
  const found = await searchMemories(ctx, {
    query: query.slice(0, queryMaxChars),
    identity_id: ctx.actor.identity_id!,
    limit: top_k ?? memoriesInitially,
  });
  const known = new Set<unknown>(history.map(({ run_id }) => run_id));
  return found.filter(({ metadata }) => !known.has(metadata.run_id));
}

type Chunk = Awaited<ReturnType<typeof retrieveChunks>>[number];

const passageOfChunk = (chunk: Chunk): Passage => ({
  id: chunk.id,
  text: chunk.text,
  score: chunk.score,
  title: chunk.filename,
  heading_path: chunk.heading_path,
  source: chunk.source,
  place: {
    filename: chunk.filename,
    content_type: chunk.content_type,
    offset_start: chunk.offset_start,
    offset_end: chunk.offset_end,
    chunk_id: chunk.id,
    ...(chunk.page_start === null ? {} : { page_start: chunk.page_start, page_end: chunk.page_end }),
    ...(chunk.heading_path.length > 0 ? { heading_path: chunk.heading_path } : {}),
    ...(Object.keys(chunk.document_metadata ?? {}).length > 0
      ? { document_metadata: chunk.document_metadata }
      : {}),
  },
});

function passageOfMemory({
  id,
  text,
  type,
  role,
  session_id,
  occurred_at,
  created_at,
  score,
}: Memory): Passage {
  const when = occurred_at ?? created_at;
  return {
    id,
    text,
    score: score ?? 0,
    title: `memory (${role ?? type}), ${when.slice(0, 10)}`,
    heading_path: [],
    source: `memory://${id}`,
    place: { type, role, session_id, occurred_at: when },
  };
}
