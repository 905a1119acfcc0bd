import { type Static, Type as T } from 'typebox';
import { Timestamp } from '#platform/timestamp.ts';

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

export const Access = T.Union([T.Literal('open'), T.Literal('restricted')], {
  description: 'open: whom policy lets; restricted: of those, only who holds a permission of the document',
});
export type Access = Static<typeof Access>;

const Warning = T.Object({ code: T.String(), message: T.String() });

export const Document = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  corpus_id: T.String(),
  filename: T.String(),
  content_type: T.String({ description: 'What the document is by its content' }),
  content_hash: T.String({ description: 'SHA-256 of the bytes as they were sent, in hex' }),
  size_bytes: T.Integer(),
  source: T.String(),
  ingest_source: T.String({ description: 'upload_file or raw_text' }),
  metadata_json: T.Record(T.String(), T.Unknown()),
  access: Access,
  status: Status,
  failure_reason: nullable(T.String()),
  warnings: T.Array(Warning, {
    description: 'What was noticed about a document that was taken all the same',
  }),
  num_chunks: T.Union([T.Integer(), T.Null()], { description: 'Once succeeded, else null' }),
  num_pages: T.Union([T.Integer(), T.Null()], { description: 'Of formats that have pages' }),
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
  content_type: T.Optional(T.String()),
  warnings: T.Optional(T.Array(Warning)),
  duplicate_of: T.Optional(
    T.String({ description: 'A document of the corpus that has the same bytes; both are kept' }),
  ),
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

const metadata_json = T.Optional(
  T.Record(T.String({ maxLength: 200 }), T.Unknown(), {
    maxProperties: 200,
    description: '`labels` (object) is what policies see',
  }),
);

export const TextIngest = T.Object(
  {
    corpus_id: T.String({ maxLength: 64 }),
    text: T.String({ description: 'At most UPLOAD_LIMIT_BYTES as UTF-8' }),
    document_id: T.Optional(
      nullable(
        T.String({
          maxLength: 64,
          description: '1 to 64 of a-z 0-9 . _ -; made by the server when left out',
        }),
      ),
    ),
    filename: T.Optional(nullable(T.String({ maxLength: 255 }))),
    content_type: T.Optional(
      nullable(
        T.String({
          maxLength: 100,
          description:
            'text/plain, text/markdown, text/html or text/csv; unset: by the file name, else text/plain',
        }),
      ),
    ),
    metadata_json,
    access: T.Optional(Access),
    ...sizes,
    overwrite: T.Optional(T.Boolean()),
  },
  { additionalProperties: false },
);
export type TextIngest = Static<typeof TextIngest>;

export const DocumentUpdate = T.Object(
  { access: T.Optional(Access), metadata_json },
  { additionalProperties: false },
);
export type DocumentUpdate = Static<typeof DocumentUpdate>;

export const Reindex = T.Object(sizes, { additionalProperties: false });
export type Reindex = Static<typeof Reindex>;

export const ChunkSearch = T.Object(
  {
    query: T.String({ minLength: 1, maxLength: 10_000, pattern: '\\S' }),
    top_k: T.Optional(
      T.Integer({ minimum: 1, maximum: 50, description: "Default: the corpus' top_k_default" }),
    ),
    min_score: T.Optional(T.Number({ minimum: 0, maximum: 1 })),
    mode: T.Optional(
      T.Union([T.Literal('hybrid'), T.Literal('vector'), T.Literal('text')], {
        description: 'Of local_pgvector; other providers search in their own way',
      }),
    ),
    explain: T.Optional(T.Boolean({ description: 'Adds what each score is made of' })),
  },
  { additionalProperties: false },
);
export type ChunkSearch = Static<typeof ChunkSearch>;

export const RetrievedChunk = T.Object({
  id: T.String(),
  document_id: T.String(),
  corpus_id: T.String(),
  source: T.String({
    description: 'document:// and the id of the document; of another provider its own URI',
  }),
  text: T.String(),
  score: T.Number({ description: '0..1; 0.6 and more is what a person would call a match' }),
  heading_path: T.Array(T.String()),
  filename: T.String(),
  content_type: T.String(),
  offset_start: T.Integer({
    description: 'In UTF-16 code units of the text of the document, see GET /v1/documents/{id}/content',
  }),
  offset_end: T.Integer(),
  page_start: T.Union([T.Integer(), T.Null()], { description: 'From 1, of formats that have pages' }),
  page_end: T.Union([T.Integer(), T.Null()]),
  position: T.Integer({ description: 'Place within the document, from 0' }),
  document_metadata: T.Record(T.String(), T.Unknown()),
  explain: T.Optional(T.Record(T.String(), T.Unknown())),
});
export type RetrievedChunk = Static<typeof RetrievedChunk>;

/** The fields of an upload, for the contract; the form itself is read as it comes. */
export const UploadForm = T.Object({
  corpus_id: T.String(),
  file: T.String({ format: 'binary' }),
  document_id: T.Optional(T.String()),
  overwrite: T.Optional(T.Boolean()),
  access: T.Optional(Access),
  metadata_json: T.Optional(T.String({ description: 'A JSON object; `labels` in it is what policies see' })),
});

export const Grant = T.Union([
  T.Literal('read'),
  T.Literal('write'),
  T.Literal('delete'),
  T.Literal('reindex'),
  T.Literal('owner'),
]);
export type Grant = Static<typeof Grant>;

const PrincipalType = T.Union([T.Literal('user'), T.Literal('role'), T.Literal('api_key')]);

export const PermissionCreate = T.Object(
  {
    principal_type: PrincipalType,
    principal_id: T.String({
      minLength: 1,
      maxLength: 128,
      description: 'Id of an identity or an API key, or the name of a role',
    }),
    permission: Grant,
    expires_at: T.Optional(T.Union([Timestamp, T.Null()])),
  },
  { additionalProperties: false },
);
export type PermissionCreate = Static<typeof PermissionCreate>;

export const DocumentPermission = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  document_id: T.String(),
  principal_type: PrincipalType,
  principal_id: T.String(),
  permission: Grant,
  granted_by: T.Union([T.String(), T.Null()]),
  expires_at: T.Union([T.String(), T.Null()]),
  created_at: T.String(),
});
export type DocumentPermission = Static<typeof DocumentPermission>;
