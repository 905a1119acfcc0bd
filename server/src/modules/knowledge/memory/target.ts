import type { Target } from '#platform/context.ts';
import type { DeletableMemory } from './store.ts';

/** Scope of the statistics that memory search uses. */
export const memoryScope = 'memory';

/** A memory as policies see it. */
export const targetOf = (
  memory: Pick<DeletableMemory, 'id' | 'identity_id' | 'type' | 'metadata'>,
): Target => ({
  id: memory.id,
  owner: memory.identity_id,
  type: memory.type,
  metadata: memory.metadata,
});
