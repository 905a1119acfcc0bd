import { type Static, Type as T } from 'typebox';
import { MemoryCreate, Nullable } from './schema.ts';

export const SensitiveTypesSet = T.Object(
  {
    types: T.Array(MemoryCreate.properties.type, {
      maxItems: 100,
      description: 'All of them, as memories write them: they stand in the place of those there were',
    }),
  },
  { additionalProperties: false },
);
export type SensitiveTypesSet = Static<typeof SensitiveTypesSet>;

export const SensitiveTypes = T.Object({
  types: T.Array(T.String(), { description: 'What the tenant demands' }),
  installation_types: T.Array(T.String(), {
    description: 'What the installation demands of every tenant besides (SENSITIVE_MEMORY_TYPES)',
  }),
  encryption: Nullable(
    T.Object({
      status: T.Union([T.Literal('running'), T.Literal('completed')]),
      found: Nullable(T.Integer(), { description: 'Texts in the clear when it began; null before it does' }),
      encrypted: T.Integer({
        description: 'Of these, what it has encrypted; others change and go meanwhile',
      }),
      started_at: T.String({ description: 'When a type was added last' }),
      completed_at: Nullable(T.String()),
    }),
    { description: 'How far what was stored before is encrypted: memories and their former versions' },
  ),
  updated_at: Nullable(T.String()),
});
export type SensitiveTypes = Static<typeof SensitiveTypes>;
