import { type Static, Type as T } from 'typebox';
import { Timestamp } from '#platform/timestamp.ts';
import { Derivation, MemoryCreate, Metadata, Nullable, SpeakerRole } from './schema.ts';

/** One line of an exported file; what a line of a file to import may say. */
export const MemoryLine = T.Object(
  {
    ...T.Omit(MemoryCreate, ['infer', 'check', 'relearn']).properties,
    id: T.Optional(T.String({ minLength: 1, maxLength: 200, description: 'What it is called in its file' })),
    identity_id: T.Optional(T.String({ maxLength: 100 })),
    session_id: T.Optional(Nullable(T.String({ minLength: 1, maxLength: 200, pattern: '\\S' }))),
    role: T.Optional(Nullable(SpeakerRole)),
    occurred_at: T.Optional(Nullable(Timestamp)),
    version: T.Optional(T.Integer({ minimum: 1, maximum: 2_147_483_647 })),
    derived_from: T.Optional(Nullable(Derivation)),
    created_at: T.Optional(Timestamp),
    updated_at: T.Optional(Timestamp),
    versions: T.Optional(
      T.Array(
        T.Object(
          {
            version: T.Integer({ minimum: 1, maximum: 2_147_483_647 }),
            text: T.String({ minLength: 1, maxLength: 1_000_000 }),
            type: T.String({ minLength: 1, maxLength: 100 }),
            metadata: Metadata,
            session_id: Nullable(T.String({ minLength: 1, maxLength: 200 })),
            role: Nullable(SpeakerRole),
            occurred_at: Nullable(Timestamp),
            ttl_days: Nullable(T.Integer({ minimum: 1, maximum: 36_500 })),
            expires_at: Nullable(Timestamp),
            valid_from: Timestamp,
            valid_until: Timestamp,
          },
          { additionalProperties: false },
        ),
        { maxItems: 1_000, description: 'What it was before, oldest first' },
      ),
    ),
  },
  { additionalProperties: false },
);
export type MemoryLine = Static<typeof MemoryLine>;

export const ImportOptions = T.Object(
  {
    complete: T.Optional(
      T.Boolean({ default: true, description: 'false: more of the file follows by PUT to its status_url' }),
    ),
    owner: T.Optional(
      T.Union([T.Literal('self'), T.Literal('keep')], {
        description: 'keep: memories belong to the identities their lines name, where the caller may do that',
      }),
    ),
    preserve_ids: T.Optional(T.Boolean({ description: 'By an admin: memories get the ids of their lines' })),
  },
  { additionalProperties: false },
);
export type ImportOptions = Static<typeof ImportOptions>;

export const MemoryImport = T.Object({
  import_id: T.String(),
  status: T.Union([
    T.Literal('uploading'),
    T.Literal('queued'),
    T.Literal('processing'),
    T.Literal('succeeded'),
    T.Literal('failed'),
    T.Literal('canceled'),
  ]),
  status_url: T.String(),
  received_bytes: T.Integer({ description: 'Where an upload that was broken off goes on' }),
  received_lines: T.Integer(),
  processed: T.Integer({
    description: 'Lines done: the sum of those created, updated, unchanged, failed and blank',
  }),
  created: T.Integer(),
  updated: T.Integer(),
  unchanged: T.Integer(),
  failed: T.Integer(),
  blank: T.Integer({ description: 'Lines with nothing in them' }),
  errors: T.Array(T.Object({ line: T.Integer(), code: T.String(), message: T.String() }), {
    description: 'Of the first 100 lines that failed',
  }),
  failure_code: Nullable(T.String()),
  created_at: T.String(),
  updated_at: T.String(),
  completed_at: Nullable(T.String()),
});
export type MemoryImport = Static<typeof MemoryImport>;
