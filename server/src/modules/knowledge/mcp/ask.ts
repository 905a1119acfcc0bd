import { Type as T } from 'typebox';
import { ApiError } from '#platform/errors.ts';
import type { ForwardedReply } from '#platform/http/forward.ts';
import { uuidv7 } from '#platform/ids.ts';
import { Citation, RunCreate } from '../runs/service.ts';
import type { Tool } from './tools.ts';

interface Event {
  type: string;
  session_id: string;
  data: Record<string, unknown>;
}

/** A run, as one answer: its stream is read to the end. */
export const answerTool: Tool = {
  name: 'ask',
  permission: 'runs:create',
  title: 'Ask',
  description:
    'Have a question answered from a corpus, from memories or both, with citations. Give the session_id of the answer to go on with the conversation.',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false },
  input: T.Object(
    {
      question: T.String({ minLength: 1, maxLength: 20_000, pattern: '\\S' }),
      corpus_id: T.Optional(
        T.String({
          minLength: 1,
          maxLength: 64,
          description: 'As list_corpora shows it; left out: only memories',
        }),
      ),
      from_memory: T.Optional(
        T.Boolean({
          description: 'Also answer from your memories; default: only where there is no corpus_id',
        }),
      ),
      session_id: T.Optional(RunCreate.properties.session_id),
      top_k: RunCreate.properties.top_k,
    },
    { additionalProperties: false },
  ),
  output: T.Object({
    answer: T.String(),
    citations: T.Array(Citation),
    run_id: T.String(),
    session_id: T.String(),
  }),
  request: ({
    question,
    corpus_id,
    from_memory = corpus_id === undefined,
    session_id = uuidv7(),
    top_k,
  }) => ({
    method: 'POST',
    path: '/v1/run',
    body: {
      message: question,
      session_id,
      ...(corpus_id === undefined ? {} : { corpus_id }),
      ...(from_memory ? { memory: { recall: true } } : {}),
      ...(top_k === undefined ? {} : { top_k }),
    },
  }),
  progress: {
    first: 'What is known is being read.',
    after: (piece) => (piece.includes('"type":"token.delta"') ? 'The answer is being written.' : undefined),
  },
  result: (reply) => {
    const events = eventsIn(reply);
    const failed = events.find(({ type }) => type === 'error')?.data;
    if (failed) throw new ApiError(503, String(failed.code), String(failed.message));
    const final = events.find(({ type }) => type === 'message.final');
    if (!final) throw new ApiError(503, 'RUN_CANCELED', 'The run ended without an answer. Ask again.');
    const { text, citations, run_id } = final.data;
    return { answer: text, citations, run_id, session_id: final.session_id };
  },
};

const eventsIn = ({ text }: ForwardedReply): Event[] =>
  [...text.matchAll(/^event: message\n(?:id: .*\n)?data: (.*)$/gm)].map(([, data]) => JSON.parse(data!));
