import { type Static, Type as T, type TSchema } from 'typebox';

const MemoryUse = T.Object(
  {
    recall: T.Optional(T.Boolean({ description: 'Answer from memories; default true' })),
    remember: T.Optional(
      T.Boolean({ description: 'Store question and answer as memories of the session; default false' }),
    ),
  },
  { additionalProperties: false },
);

export const RunCreate = T.Object(
  {
    session_id: T.String({
      minLength: 1,
      maxLength: 200,
      pattern: '\\S',
      description: 'Conversation; its earlier messages are known to the run. Belongs to the caller',
    }),
    corpus_id: T.Optional(
      T.String({ minLength: 1, maxLength: 64, description: 'Required unless memory is on' }),
    ),
    message: T.String({
      maxLength: 20_000,
      pattern: '^$|\\S',
      description: 'Not only white space; an empty one is answered, as NexusRAG answers it',
    }),
    top_k: T.Optional(
      T.Integer({
        minimum: 1,
        maximum: 50,
        description:
          "Passages to answer from; unset: the corpus's top_k_default, which is 5 unless told; more than 20 counts as 20",
      }),
    ),
    audio: T.Optional(T.Boolean({ description: 'Also speak the answer' })),
    memory: T.Optional(
      T.Union([T.Boolean(), MemoryUse], {
        description:
          "Answer from the caller's memories as well. true: recall, and remember where the caller may store memories",
      }),
    ),
    on_disconnect: T.Optional(
      T.Union([T.Literal('cancel'), T.Literal('continue')], {
        description:
          'What becomes of the run when nobody reads it any more: canceled after a grace (default), or worked on to its end',
      }),
    ),
  },
  { additionalProperties: false },
);
export type RunCreate = Static<typeof RunCreate>;

export const RunStatus = T.Union([
  T.Literal('running'),
  T.Literal('succeeded'),
  T.Literal('failed'),
  T.Literal('canceled'),
]);

const DocumentPlace = T.Object({
  filename: T.String(),
  content_type: T.String(),
  offset_start: T.Integer({ description: 'Characters into the document' }),
  offset_end: T.Integer(),
  chunk_id: T.String(),
  page_start: T.Optional(T.Union([T.Integer(), T.Null()])),
  page_end: T.Optional(T.Union([T.Integer(), T.Null()])),
  heading_path: T.Optional(T.Array(T.String())),
  document_metadata: T.Optional(T.Record(T.String(), T.Unknown())),
});

const MemoryPlace = T.Object({
  type: T.String(),
  role: T.Union([T.String(), T.Null()]),
  session_id: T.Union([T.String(), T.Null()]),
  occurred_at: T.String({ description: 'When it was said, or else stored' }),
});

export const Citation = T.Object({
  index: T.Integer({ description: 'The n of the marks [n] in the text' }),
  source: T.String({
    description:
      'document:// and the id of the document, memory:// and that of the memory; of an outside engine its own URI',
  }),
  score: T.Number({ description: '0..1' }),
  metadata: T.Union([DocumentPlace, MemoryPlace]),
});
export type Citation = Static<typeof Citation>;

export const Usage = T.Object({
  input_tokens: T.Union([T.Integer(), T.Null()]),
  output_tokens: T.Union([T.Integer(), T.Null()]),
  total_tokens: T.Union([T.Integer(), T.Null()]),
});
export type Usage = Static<typeof Usage>;

export const Timings = T.Object({
  retrieval_ms: T.Optional(T.Integer({ description: 'Time of the search for passages' })),
  first_token_ms: T.Optional(T.Integer({ description: 'From the request to the first piece of the answer' })),
  answer_ms: T.Optional(T.Integer({ description: 'From the request until the answer was stored' })),
  speech_ms: T.Optional(T.Integer({ description: 'Time of speaking it' })),
});
export type Timings = Static<typeof Timings>;

const orNull = <S extends TSchema>(schema: S) => T.Union([schema, T.Null()]);

export const Run = T.Object({
  id: T.String(),
  session_id: T.String(),
  corpus_id: orNull(T.String()),
  identity_id: T.String(),
  status: RunStatus,
  provider: orNull(T.String({ description: 'Who writes answers: LLM_PROVIDER' })),
  model: orNull(T.String()),
  finish_reason: orNull(T.String({ description: 'Why the model stopped, as it says itself' })),
  usage: orNull(Usage),
  timings: orNull(Timings),
  error_code: orNull(T.String()),
  on_disconnect: T.Union([T.Literal('cancel'), T.Literal('continue')]),
  disconnects: T.Integer({ description: 'How often a reader left before the end' }),
  request_id: orNull(T.String()),
  created_at: T.String(),
  completed_at: orNull(T.String()),
  events_expire_at: orNull(T.String({ description: 'Until when its events can be read again' })),
});
export type Run = Static<typeof Run>;

export const RunMessage = T.Object({
  id: T.String(),
  role: T.Union([T.Literal('user'), T.Literal('assistant')]),
  text: T.String(),
  citations: T.Array(Citation),
  created_at: T.String(),
});
export type RunMessage = Static<typeof RunMessage>;

export const RunWithMessages = T.Object({ ...Run.properties, messages: T.Array(RunMessage) });
export type RunWithMessages = Static<typeof RunWithMessages>;
