import { type Static, Type as T } from 'typebox';
import { Timestamp } from '#platform/timestamp.ts';

const Metadata = T.Record(T.String({ maxLength: 200 }), T.Unknown(), { maxProperties: 200 });
const SpeakerRole = T.Union([
  T.Literal('user'),
  T.Literal('assistant'),
  T.Literal('system'),
  T.Literal('tool'),
]);
const placing = {
  session_id: T.Optional(
    T.String({ minLength: 1, maxLength: 200, description: 'Conversation it belongs to' }),
  ),
  role: T.Optional(SpeakerRole),
  occurred_at: T.Optional(Timestamp),
};
const life = {
  ttl_days: T.Optional(T.Union([T.Integer({ minimum: 1, maximum: 36_500 }), T.Null()])),
  expires_at: T.Optional(T.Union([Timestamp, T.Null()])),
};

export const MemoryCreate = T.Object(
  {
    text: T.String({ minLength: 1, maxLength: 1_000_000, description: 'At most MAX_MEMORY_SIZE characters' }),
    type: T.String({ minLength: 1, maxLength: 100 }),
    metadata: T.Optional(Metadata),
    meta_data: T.Optional(Metadata),
    ...life,
    ...placing,
  },
  { additionalProperties: false },
);
export type MemoryCreate = Static<typeof MemoryCreate>;

export const MemoryUpdate = T.Object(
  {
    text: T.Optional(MemoryCreate.properties.text),
    type: T.Optional(MemoryCreate.properties.type),
    metadata: T.Optional(Metadata),
    meta_data: T.Optional(Metadata),
    ...life,
  },
  { additionalProperties: false },
);
export type MemoryUpdate = Static<typeof MemoryUpdate>;

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
  embedding_status: T.Union([T.Literal('pending'), T.Literal('ready')]),
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
  parts: T.Optional(
    T.Record(T.String(), T.Unknown(), { description: 'What made the score; with explain: true' }),
  ),
});
export type Memory = Static<typeof Memory>;

export const MemorySearch = T.Object(
  {
    query: T.String({ minLength: 1, maxLength: 10_000 }),
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
  },
  { additionalProperties: false },
);
export type MemorySearch = Static<typeof MemorySearch>;

export const MemoryBulkCreate = T.Object(
  { memories: T.Array(T.Unknown(), { minItems: 1, maxItems: 1_000 }) },
  { additionalProperties: false },
);

export const MemoryBulkCreated = T.Object({
  created: T.Array(T.Object({ index: T.Integer(), id: T.String() })),
  failed: T.Array(
    T.Object({ index: T.Integer(), error: T.Object({ code: T.String(), message: T.String() }) }),
  ),
});

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
