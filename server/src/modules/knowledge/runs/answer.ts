import type { AnswerModel } from '#platform/models/answers.ts';
import { AnswerModelError } from '#platform/models/answers.ts';
import type { retrieveChunks } from '../documents/service.ts';
import { streamExtractively } from './extractive.ts';
import { promptOf } from './prompt.ts';
import type { Citation } from './schema.ts';
import type { PastMessage } from './store.ts';

/** A passage found for a run. */
export type Chunk = Awaited<ReturnType<typeof retrieveChunks>>[number];

/** A finished answer. `citations` are of the passages given to it and nothing else; their `index` is the n of [n] in `text`. */
export interface RunAnswer {
  text: string;
  model: string;
  citations: Citation[];
}

export interface AnswerInput {
  message: string;
  /** The message, made whole by earlier ones where it points back. */
  search_text: string;
  chunks: Chunk[];
  history: PastMessage[];
}

const ANSWER_MAX_CHARS = 200_000;

/** The model that answers when none is configured: quotes the passages. */
export const EXTRACTIVE = 'extractive';

/**
 * Writes the answer, handing each piece to `emit` and waiting for it. Without a model it quotes the passages.
 * @throws AnswerModelError, or the signal's reason
 */
export const writeAnswer = (
  model: AnswerModel | undefined,
  input: AnswerInput,
  emit: (delta: string) => Promise<void>,
  signal: AbortSignal,
): Promise<RunAnswer> => (model ? writeWithModel(model, input, emit, signal) : quote(input, emit, signal));

async function quote(
  { search_text, chunks }: AnswerInput,
  emit: (delta: string) => Promise<void>,
  signal: AbortSignal,
): Promise<RunAnswer> {
  const passages = chunks.map(({ id, text, score, heading_path, filename }) => ({
    id,
    text,
    score,
    heading_path,
    title: filename,
  }));
  const stream = streamExtractively({ question: search_text, passages }, { signal });
  let step = await stream.next();
  for (; !step.done; step = await stream.next()) await emit(step.value);
  const { text, sentences } = step.value;
  const cited = [...new Set(sentences.map(({ passage_id }) => passage_id))];
  const citations = cited.map((id, index) => citationOf(chunks.find((chunk) => chunk.id === id)!, index + 1));
  return { text, model: EXTRACTIVE, citations };
}

async function writeWithModel(
  model: AnswerModel,
  input: AnswerInput,
  emit: (delta: string) => Promise<void>,
  signal: AbortSignal,
): Promise<RunAnswer> {
  const { message, chunks, history } = input;
  let text = '';
  for await (const piece of model.stream(promptOf(message, chunks, history), signal)) {
    // PostgreSQL stores no NUL.
    const delta = piece.replaceAll('\0', '');
    if (delta === '') continue;
    text += delta;
    if (text.length > ANSWER_MAX_CHARS) throw new AnswerModelError('LLM_ERROR');
    await emit(delta);
    signal.throwIfAborted();
  }
  signal.throwIfAborted();
  if (text.trim() === '') throw new AnswerModelError('LLM_ERROR');
  text = text.toWellFormed();
  return { text, model: model.name, citations: citationsOf(text, chunks) };
}

/** The passages the text marks; all that it was made from when it marks none. Marks of no passage cite nothing. */
function citationsOf(text: string, chunks: Chunk[]): Citation[] {
  const marked = new Set([...text.matchAll(/\[(\d{1,4})\]/g)].map(([, number]) => Number(number)));
  const all = chunks.map((chunk, index) => citationOf(chunk, index + 1));
  const cited = all.filter(({ index }) => marked.has(index));
  return cited.length > 0 ? cited : all;
}

const citationOf = (chunk: Chunk, index: number): Citation => ({
  index,
  source: chunk.source,
  score: Math.min(1, Math.max(0, chunk.score)),
  metadata: {
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
