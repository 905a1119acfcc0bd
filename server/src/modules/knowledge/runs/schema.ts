import { type Static, Type as T } from 'typebox';

export const RunCreate = T.Object(
  {
    session_id: T.String({
      minLength: 1,
      maxLength: 200,
      description: 'Conversation; its earlier messages are known to the run. Belongs to the caller',
    }),
    corpus_id: T.String({ minLength: 1, maxLength: 64 }),
    message: T.String({ maxLength: 20_000 }),
    top_k: T.Optional(
      T.Integer({
        minimum: 1,
        maximum: 50,
        description:
          "Passages to answer from; unset: the corpus's top_k_default, which is 5 unless told; more than 20 counts as 20",
      }),
    ),
    audio: T.Optional(T.Boolean({ description: 'Also speak the answer' })),
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

export const Citation = T.Object({
  index: T.Integer({ description: 'The n of the marks [n] in the text' }),
  source: T.String({
    description: 'document:// and the id of the document; of an outside engine its own URI',
  }),
  score: T.Number({ description: '0..1' }),
  metadata: T.Object({
    filename: T.String(),
    content_type: T.String(),
    offset_start: T.Integer({ description: 'Characters into the document' }),
    offset_end: T.Integer(),
    chunk_id: T.String(),
    page_start: T.Optional(T.Union([T.Integer(), T.Null()])),
    page_end: T.Optional(T.Union([T.Integer(), T.Null()])),
    heading_path: T.Optional(T.Array(T.String())),
    document_metadata: T.Optional(T.Record(T.String(), T.Unknown())),
  }),
});
export type Citation = Static<typeof Citation>;

export const Run = T.Object({
  id: T.String(),
  session_id: T.String(),
  corpus_id: T.String(),
  identity_id: T.String(),
  status: RunStatus,
  model: T.Union([T.String(), T.Null()]),
  error_code: T.Union([T.String(), T.Null()]),
  request_id: T.Union([T.String(), T.Null()]),
  created_at: T.String(),
  completed_at: T.Union([T.String(), T.Null()]),
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
