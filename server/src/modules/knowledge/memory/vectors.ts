import { raw } from '#platform/db/sql.ts';
import type { VectorCollection, VectorScope } from '../vectors/service.ts';
import { countWaiting, insertVectors, lockUnchanged, readTexts } from './store.ts';

/** Scope of what memory search keeps: statistics of words, and vectors. */
export const memoryScope = 'memory';

const memories: VectorCollection = {
  name: 'memories',
  vectors: raw('memory_vectors v'),
  key: raw('v.memory_id'),
  rows: raw('memories m'),
  rowTenant: raw('m.tenant_id'),
  rowId: raw('m.id'),
  rowWords: raw('m.words'),
  rowTrigrams: raw('m.trigrams'),
  unembedded: { queue: raw('memory_queue q'), tenant: raw('q.tenant_id'), key: raw('q.memory_id') },
  scope: (name) => (name === memoryScope ? memoryVectors : undefined),
  waiting: async (db) => new Map([[memoryScope, await countWaiting(db)]]),
  readTexts,
  lockTexts: (tx, _, texts) => lockUnchanged(tx, texts),
  insert: (tenant, _, vectors) => [insertVectors(tenant, vectors)],
};

/** All memories of a tenant are searched together. */
export const memoryVectors: VectorScope = { collection: memories, name: memoryScope, within: raw('') };
