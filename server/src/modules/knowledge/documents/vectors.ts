import { raw } from '#platform/db/sql.ts';
import { corpusScope, lockCorpusContent } from '../corpora/service.ts';
import type { VectorCollection, VectorScope } from '../vectors/service.ts';
import { findPresent, insertVectors, readTexts, vectorsOfCorpus } from './chunk-store.ts';
import { countUnfinished } from './unfinished-store.ts';

const prefix = corpusScope('');
const corpusOf = (scope: VectorScope): string => scope.name.slice(prefix.length);

export const chunkVectors: VectorCollection = {
  name: 'chunks',
  vectors: raw('chunk_vectors v'),
  key: raw('v.chunk_id'),
  rows: raw('chunks c'),
  rowTenant: raw('c.tenant_id'),
  rowId: raw('c.id'),
  rowWords: raw('c.words'),
  rowTrigrams: raw('c.trigrams'),
  unembedded: undefined,
  scope: (name) => (name.startsWith(prefix) ? corpusVectors(name.slice(prefix.length)) : undefined),
  waiting: async (db) =>
    new Map((await countUnfinished(db)).map(({ corpus_id, count }) => [corpusScope(corpus_id), count])),
  readTexts,
  lockTexts: async (tx, scope, texts) => {
    // Whoever replaces the chunks of a document holds its corpus too.
    await tx.run(lockCorpusContent(tx.tenant!, corpusOf(scope)));
    return findPresent(
      tx,
      texts.map(({ id }) => id),
    );
  },
  insert: (tenant, scope, vectors) => [insertVectors(tenant, corpusOf(scope), vectors)],
};

/** The chunks of a corpus are searched together. */
export const corpusVectors = (corpusId: string): VectorScope => ({
  collection: chunkVectors,
  name: corpusScope(corpusId),
  within: vectorsOfCorpus(corpusId),
});
