import { type Static, Type as T } from 'typebox';

const nullable = <S extends ReturnType<typeof T.String> | ReturnType<typeof T.Integer>>(schema: S) =>
  T.Union([schema, T.Null()]);
const time = nullable(T.String());

export const Status = T.Union([
  T.Literal('queued'),
  T.Literal('processing'),
  T.Literal('succeeded'),
  T.Literal('failed'),
]);
export type DocumentStatus = Static<typeof Status>;

export const Document = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  corpus_id: T.String(),
  filename: T.String(),
  content_type: T.String(),
  source: T.String(),
  ingest_source: T.String({ description: 'upload_file or raw_text' }),
  metadata_json: T.Record(T.String(), T.Unknown()),
  status: Status,
  failure_reason: nullable(T.String()),
  num_chunks: T.Union([T.Integer(), T.Null()], { description: 'Once succeeded, else null' }),
  created_at: T.String(),
  updated_at: T.String(),
  queued_at: time,
  processing_started_at: time,
  completed_at: time,
  last_reindexed_at: time,
  last_job_id: nullable(T.String()),
});

export const DocumentAccepted = T.Object({
  document_id: T.String(),
  status: Status,
  job_id: nullable(T.String()),
  status_url: T.String(),
});
export type DocumentAccepted = Static<typeof DocumentAccepted>;

const sizes = {
  chunk_size_chars: T.Optional(
    nullable(T.Integer({ minimum: 1, maximum: 1_000_000, description: 'Default 1200' })),
  ),
  chunk_overlap_chars: T.Optional(
    nullable(
      T.Integer({
        minimum: 0,
        maximum: 1_000_000,
        description: 'Default an eighth of the size, at most 150',
      }),
    ),
  ),
};

export const TextIngest = T.Object(
  {
    corpus_id: T.String({ maxLength: 200 }),
    text: T.String({ description: 'At most UPLOAD_LIMIT_BYTES as UTF-8' }),
    document_id: T.Optional(
      nullable(
        T.String({
          maxLength: 200,
          description: '1 to 64 of a-z 0-9 . _ -; made by the server when left out',
        }),
      ),
    ),
    filename: T.Optional(nullable(T.String({ maxLength: 255 }))),
    content_type: T.Optional(
      nullable(
        T.String({ maxLength: 100, description: 'text/plain or text/markdown; unset: by the file name' }),
      ),
    ),
    metadata_json: T.Optional(
      T.Record(T.String({ maxLength: 200 }), T.Unknown(), {
        maxProperties: 200,
        description: '`labels` (object) is what policies see',
      }),
    ),
    ...sizes,
    overwrite: T.Optional(T.Boolean()),
  },
  { additionalProperties: false },
);
export type TextIngest = Static<typeof TextIngest>;

export const Reindex = T.Object(sizes, { additionalProperties: false });
export type Reindex = Static<typeof Reindex>;

export const ChunkSearch = T.Object(
  {
    query: T.String({ minLength: 1, maxLength: 10_000, pattern: '\\S' }),
    top_k: T.Optional(
      T.Integer({ minimum: 1, maximum: 50, description: "Default: the corpus' top_k_default" }),
    ),
    min_score: T.Optional(T.Number({ minimum: 0, maximum: 1 })),
    mode: T.Optional(T.Union([T.Literal('hybrid'), T.Literal('vector'), T.Literal('text')])),
  },
  { additionalProperties: false },
);
export type ChunkSearch = Static<typeof ChunkSearch>;

export const RetrievedChunk = T.Object({
  id: T.String(),
  document_id: T.String(),
  corpus_id: T.String(),
  text: T.String(),
  score: T.Number({ description: '0..1; 0.6 and more is what a person would call a match' }),
  heading_path: T.Array(T.String()),
  filename: T.String(),
  content_type: T.String(),
  offset_start: T.Integer({ description: 'In UTF-16 code units of the stored text' }),
  offset_end: T.Integer(),
  position: T.Integer({ description: 'Place within the document, from 0' }),
  document_metadata: T.Record(T.String(), T.Unknown()),
});
export type RetrievedChunk = Static<typeof RetrievedChunk>;

/** The fields of an upload, for the contract; the form itself is read as it comes. */
export const UploadForm = T.Object({
  corpus_id: T.String(),
  file: T.String({ format: 'binary' }),
  document_id: T.Optional(T.String()),
  overwrite: T.Optional(T.Boolean()),
});
