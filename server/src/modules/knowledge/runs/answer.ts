import type { AnswerModel } from '#platform/models/answers.ts';
import { AnswerModelError } from '#platform/models/answers.ts';
import { streamExtractively } from './extractive.ts';
import { promptOf } from './prompt.ts';
import type { Citation, Usage } from './schema.ts';
import type { PastMessage } from './store.ts';

/** Something a run may answer from and cite: a passage of a document, or a memory. */
export interface Passage {
  id: string;
  text: string;
  /** 0..1 */
  score: number;
  title: string;
  heading_path: string[];
  source: string;
  place: Citation['metadata'];
}

/** A finished answer. `citations` are of the passages given to it and nothing else; their `index` is the n of [n] in `text`. */
export interface RunAnswer {
  text: string;
  model: string;
  citations: Citation[];
  /** As the model says it. */
  finish_reason: string | null;
  usage: Usage | null;
}

export interface AnswerInput {
  message: string;
  /** The message, made whole by earlier ones where it points back. */
  search_text: string;
  passages: Passage[];
  history: PastMessage[];
  /** False when only memories were asked. */
  has_corpus: boolean;
}

/** Hands on a piece of the answer; a promise when the writer has to wait. */
export type Emit = (delta: string) => Promise<void> | void;

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
  emit: Emit,
  signal: AbortSignal,
): Promise<RunAnswer> => (model ? writeWithModel(model, input, emit, signal) : quote(input, emit, signal));

async function quote(
  { search_text, passages, has_corpus }: AnswerInput,
  emit: Emit,
  signal: AbortSignal,
): Promise<RunAnswer> {
  const stream = streamExtractively(
    { question: search_text, passages, of: has_corpus ? 'corpus' : 'memories' },
    { signal },
  );
  let step = await stream.next();
  for (; !step.done; step = await stream.next()) await emit(step.value);
  const { text, sentences } = step.value;
  const cited = [...new Set(sentences.map(({ passage_id }) => passage_id))];
  const citations = cited.map((id, index) => citationOf(passages.find((one) => one.id === id)!, index + 1));
  return { text, model: EXTRACTIVE, citations, finish_reason: 'stop', usage: null };
}

async function writeWithModel(
  model: AnswerModel,
  input: AnswerInput,
  emit: Emit,
  signal: AbortSignal,
): Promise<RunAnswer> {
  const { message, passages, history } = input;
  let text = '';
  const stream = model.stream(promptOf(message, passages, history), signal);
  let step = await stream.next();
  try {
    for (; !step.done; step = await stream.next()) {
      // PostgreSQL stores no NUL.
      const delta = step.value.replaceAll('\0', '');
      if (delta === '') continue;
      text += delta;
      if (text.length > ANSWER_MAX_CHARS) throw new AnswerModelError('LLM_ERROR');
      const room = emit(delta);
      if (room) await room;
      signal.throwIfAborted();
    }
  } finally {
    // Left in the middle, the model stops too.
    if (!step.done) await stream.return({ finish_reason: null, usage: null });
  }
  signal.throwIfAborted();
  if (text.trim() === '') throw new AnswerModelError('LLM_ERROR');
  text = text.toWellFormed();
  return { text, model: model.name, citations: citationsOf(text, passages), ...step.value };
}

/** The passages the text marks; all that it was made from when it marks none. Marks of no passage cite nothing. */
function citationsOf(text: string, passages: Passage[]): Citation[] {
  const marked = new Set([...text.matchAll(/\[(\d{1,4})\]/g)].map(([, number]) => Number(number)));
  const all = passages.map((passage, index) => citationOf(passage, index + 1));
  const cited = all.filter(({ index }) => marked.has(index));
  return cited.length > 0 ? cited : all;
}

const citationOf = ({ source, score, place }: Passage, index: number): Citation => ({
  index,
  source,
  score: Math.min(1, Math.max(0, score)),
  metadata: place,
});
