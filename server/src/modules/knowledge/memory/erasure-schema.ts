import { type Static, Type as T } from 'typebox';
import { Changer, Nullable } from './schema.ts';

export const MemoryErase = T.Object(
  {
    memory_ids: T.Optional(T.Array(T.String({ maxLength: 100 }), { minItems: 1, maxItems: 1_000 })),
    identity_id: T.Optional(T.String({ maxLength: 100, description: 'All that this identity remembers' })),
    metadata: T.Optional(
      T.Record(T.String({ minLength: 1, maxLength: 200 }), T.Unknown(), {
        minProperties: 1,
        maxProperties: 200,
        description: 'All whose metadata contains this',
      }),
    ),
    reason: T.Optional(T.String({ maxLength: 500 })),
  },
  { additionalProperties: false },
);
export type MemoryErase = Static<typeof MemoryErase>;

const ErasureCounts = T.Object({
  memories: T.Integer(),
  derived: T.Integer({ description: 'Of these, what was inferred from others' }),
  versions: T.Integer({ description: 'Former versions' }),
  vectors: T.Integer(),
  imports: T.Integer({ description: 'Files that were being imported' }),
});

/** Says what was erased without saying what it was: only who knows a text can have its hash compared. */
export const ErasureReceipt = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  erased_at: T.String(),
  requested_by: Changer,
  reason: Nullable(T.String()),
  found: T.Optional(T.Boolean({ description: 'Whether anything of what was asked for was there' })),
  missing: T.Optional(
    T.Array(T.String(), {
      description: 'Of the memory_ids asked for, those not there for who asked: nothing of them was erased',
    }),
  ),
  counts: ErasureCounts,
  algorithm: T.Literal('hmac-sha256'),
  hashes: T.Array(T.Object({ memory_id: T.String(), hash: T.String() }), {
    description: 'Keyed hashes of the texts as they were last, of the first 1,000 memories',
  }),
  digest: T.String({ description: 'Keyed hash over the ids and hashes of all' }),
  signature: T.String({ description: 'Keyed hash over this receipt without it' }),
});
export type ErasureReceipt = Static<typeof ErasureReceipt>;

export const MemoryErasure = T.Object({
  id: T.String(),
  status: T.Union([T.Literal('running'), T.Literal('completed')]),
  counts: ErasureCounts,
  reason: Nullable(T.String()),
  missing: T.Optional(T.Array(T.String(), { description: 'Of memory_ids, those not there for the caller' })),
  receipt: Nullable(ErasureReceipt),
  is_verified: T.Optional(T.Boolean({ description: 'Whether the receipt is as it was signed' })),
  status_url: T.String(),
  created_at: T.String(),
  completed_at: Nullable(T.String()),
});
export type MemoryErasure = Static<typeof MemoryErasure>;
