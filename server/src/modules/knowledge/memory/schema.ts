import { type Static, Type as T, type TSchema } from 'typebox';
import type { PageQuery } from '#platform/http/pages.ts';
import { Timestamp } from '#platform/timestamp.ts';

export const Nullable = <S extends TSchema>(schema: S, options = {}) => T.Union([schema, T.Null()], options);
export const Metadata = T.Record(T.String({ maxLength: 200 }), T.Unknown(), { maxProperties: 200 });
export const SpeakerRole = T.Union([
  T.Literal('user'),
  T.Literal('assistant'),
  T.Literal('system'),
  T.Literal('tool'),
]);
const OlderMetadata = T.Optional({
  ...Metadata,
  description: 'An older name of metadata; where both are given they must be equal',
});
const placing = {
  session_id: T.Optional(
    T.String({ minLength: 1, maxLength: 200, pattern: '\\S', description: 'Conversation it belongs to' }),
  ),
  role: T.Optional(SpeakerRole),
  occurred_at: T.Optional(Timestamp),
};
const movable = {
  session_id: T.Optional(T.Union([placing.session_id, T.Null()])),
  role: T.Optional(T.Union([SpeakerRole, T.Null()])),
  occurred_at: T.Optional(T.Union([Timestamp, T.Null()])),
};
const sensitive = T.Optional(
  T.Boolean({
    description: 'Its text is stored encrypted and found by no search that does not ask for such',
  }),
);
const life = {
  ttl_days: T.Optional(
    T.Union([T.Integer({ minimum: 1, maximum: 36_500 }), T.Null()], {
      description: 'Days from created_at; must not end in the past',
    }),
  ),
  expires_at: T.Optional(T.Union([Timestamp, T.Null()], { description: 'Must be in the future' })),
};

export const MemoryCreate = T.Object(
  {
    text: T.String({
      minLength: 1,
      maxLength: 1_000_000,
      pattern: '\\S',
      description: 'At most MAX_MEMORY_SIZE characters',
    }),
    type: T.String({ minLength: 1, maxLength: 100, pattern: '\\S' }),
    metadata: T.Optional(Metadata),
    meta_data: OlderMetadata,
    ...life,
    ...placing,
    sensitive,
    infer: T.Optional(
      T.Boolean({ description: 'Have the language model infer facts from it, in the background' }),
    ),
    check: T.Optional(
      T.Union([T.Literal('duplicates'), T.Literal('contradictions'), T.Literal('all')], {
        description: 'Tell which memories say the same or something that may contradict it',
      }),
    ),
    relearn: T.Optional(T.Boolean({ description: 'By an admin: also what was erased before' })),
  },
  { additionalProperties: false },
);
export type MemoryCreate = Static<typeof MemoryCreate>;

export const MemoryUpdate = T.Object(
  {
    text: T.Optional(MemoryCreate.properties.text),
    type: T.Optional(MemoryCreate.properties.type),
    metadata: T.Optional(Metadata),
    meta_data: OlderMetadata,
    ...life,
    ...movable,
    sensitive,
    expected_version: T.Optional(
      T.Integer({ minimum: 1, maximum: 2_147_483_647, description: 'As If-Match: refused at any other' }),
    ),
  },
  { additionalProperties: false },
);
export type MemoryUpdate = Static<typeof MemoryUpdate>;

/** Messages of a conversation that facts are to be inferred from. */
export const ConversationInfer = T.Object(
  {
    messages: T.Array(
      T.Object(
        {
          role: SpeakerRole,
          content: MemoryCreate.properties.text,
          occurred_at: placing.occurred_at,
        },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: 100 },
    ),
    type: T.Optional(MemoryCreate.properties.type),
    metadata: T.Optional(Metadata),
    session_id: placing.session_id,
    ...life,
  },
  { additionalProperties: false },
);
export type ConversationInfer = Static<typeof ConversationInfer>;

/** Where a memory that was made from others comes from. */
export const Derivation = T.Object({
  memory_ids: T.Array(T.String()),
  source_hash: T.String({ description: 'SHA-256 of the texts it was inferred from' }),
  model: T.String(),
  inferred_at: T.String(),
});
export type Derivation = Static<typeof Derivation>;

const Similar = T.Object({
  id: T.String(),
  score: T.Number({ description: '1: the same text but for case, spaces and the last full stop' }),
});
export type Similar = Static<typeof Similar>;

const Contradiction = T.Object({
  id: T.String(),
  score: T.Number(),
  reason: T.Union([T.Literal('number'), T.Literal('negation'), T.Literal('value')], {
    description: 'In what it differs; a candidate, not a verdict',
  }),
});
export type Contradiction = Static<typeof Contradiction>;

export const Memory = T.Object({
  id: T.String(),
  identity_id: T.String(),
  text: T.String(),
  type: T.String(),
  metadata: T.Record(T.String(), T.Unknown()),
  meta_data: T.Record(T.String(), T.Unknown(), {
    description: 'The same as metadata, under the name early clients read',
  }),
  session_id: T.Union([T.String(), T.Null()]),
  role: T.Union([T.String(), T.Null()]),
  occurred_at: T.Union([T.String(), T.Null()]),
  score: T.Union([T.Number(), T.Null()], { description: '0..1 in search results, else null' }),
  version: T.Integer(),
  ttl_days: T.Union([T.Integer(), T.Null()]),
  expires_at: T.Union([T.String(), T.Null()]),
  embedding_status: T.Union([T.Literal('pending'), T.Literal('ready'), T.Literal('none')], {
    description: 'none: it is not searched by meaning',
  }),
  sensitive: T.Boolean({ description: 'Its text is stored encrypted' }),
  derived_from: T.Union([Derivation, T.Null()]),
  inference_status: T.Union(
    [T.Literal('pending'), T.Literal('succeeded'), T.Literal('failed'), T.Literal('unavailable'), T.Null()],
    { description: 'What became of infer; unavailable: no language model is configured' },
  ),
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
  deleted_at: T.Optional(T.String({ description: 'With deleted: true' })),
  duplicates: T.Optional(T.Array(Similar, { description: 'With check' })),
  contradictions: T.Optional(T.Array(Contradiction, { description: 'With check' })),
  parts: T.Optional(
    T.Record(T.String(), T.Unknown(), { description: 'What made the score; with explain: true' }),
  ),
});
export type Memory = Static<typeof Memory>;

export const ConversationInferred = T.Object({
  memory_ids: T.Array(T.String()),
  inference_status: T.Union([T.Literal('pending'), T.Literal('unavailable')]),
});
export type ConversationInferred = Static<typeof ConversationInferred>;

export const MemorySearch = T.Object(
  {
    query: T.String({ minLength: 1, maxLength: 10_000, pattern: '\\S' }),
    type: T.Optional(T.String({ maxLength: 100 })),
    memory_types: T.Optional(T.Array(T.String({ maxLength: 100 }), { maxItems: 100 })),
    metadata: T.Optional(Metadata),
    identity_id: T.Optional(T.String({ maxLength: 100 })),
    session_id: T.Optional(T.String({ maxLength: 200 })),
    limit: T.Optional(T.Integer({ minimum: 1, maximum: 100, default: 10 })),
    similarity_threshold: T.Optional(T.Number({ minimum: 0, maximum: 1 })),
    mode: T.Optional(T.Union([T.Literal('hybrid'), T.Literal('vector'), T.Literal('text')])),
    created_from: T.Optional(Timestamp),
    created_to: T.Optional(Timestamp),
    explain: T.Optional(T.Boolean()),
    sensitive: T.Optional(
      T.Boolean({
        description:
          'Also decrypt and look through the sensitive memories of one identity; not in mode vector, as they have none',
      }),
    ),
  },
  { additionalProperties: false },
);
export type MemorySearch = Static<typeof MemorySearch>;

export const MemoryBulkCreate = T.Object(
  { memories: T.Array(T.Unknown(), { minItems: 1, maxItems: 1_000 }) },
  { additionalProperties: false },
);

export const MemoryBulkCreated = T.Object({
  created: T.Array(
    T.Object({
      index: T.Integer(),
      id: T.String(),
      duplicates: T.Optional(T.Array(Similar)),
      contradictions: T.Optional(T.Array(Contradiction)),
    }),
  ),
  failed: T.Array(
    T.Object({ index: T.Integer(), error: T.Object({ code: T.String(), message: T.String() }) }),
  ),
});

export const Changer = T.Object({
  type: T.String({ description: 'What it came by: identity (a session), api_key, or system' }),
  id: T.Union([T.String(), T.Null()], { description: 'The identity' }),
  on_behalf_of: T.Union([T.String(), T.Null()]),
});

/** What a memory was, and what made it so. */
export const MemoryVersion = T.Object({
  version: T.Integer(),
  ...T.Pick(Memory, [
    'text',
    'type',
    'metadata',
    'session_id',
    'role',
    'occurred_at',
    'ttl_days',
    'expires_at',
    'sensitive',
  ]).properties,
  valid_from: T.String(),
  valid_until: T.Union([T.String(), T.Null()], { description: 'null: it is so now' }),
  change: T.Union(
    [
      T.Literal('created'),
      T.Literal('updated'),
      T.Literal('restored'),
      T.Literal('imported'),
      T.Literal('inferred'),
    ],
    { description: 'What made it so' },
  ),
  changed_by: T.Union([Changer, T.Null()], { description: 'null where it was created: the ledger knows' }),
  request_id: T.Union([T.String(), T.Null()]),
});
export type MemoryVersion = Static<typeof MemoryVersion>;

export const MemoryBulkDelete = T.Object(
  {
    memory_ids: T.Array(T.String({ maxLength: 100 }), { minItems: 1, maxItems: 1_000 }),
    hard_delete: T.Optional(T.Boolean()),
    reason: T.Optional(T.String({ maxLength: 500 })),
  },
  { additionalProperties: false },
);

export const MemoryBulkDeleted = T.Object({
  deleted_count: T.Integer(),
  failed_count: T.Integer(),
  failed_memories: T.Array(T.Object({ memory_id: T.String(), error: T.String() })),
  message: T.String(),
});

/** What lists of memories are narrowed by, beside their page. */
export type MemoryListQuery = PageQuery & { memory_type?: string; session_id?: string; identity_id?: string };
