export type { QueryVector } from '../embeddings/service.ts';
export type { EmbeddedText, NewVectors, VectorCollection, VectorScope, VectorView } from './collection.ts';
export { storeVectors } from './keep.ts';
export { byVectors, rankTogether, type Scored } from './merge.ts';
export { findNearest, meaningOfQuery, type NearRows, vectorsOfQuery } from './search.ts';
export { forgetInSegments, touchSpace } from './space-store.ts';
export { tailGrew } from './tend.ts';
export { findByWords, type WordSearch } from './words.ts';
