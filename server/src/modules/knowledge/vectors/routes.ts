import { type Route, route } from '#platform/http/route.ts';
import type { VectorCollection } from './collection.ts';
import { EmbeddingState } from './schema.ts';
import { embeddingState } from './state.ts';

export const vectorRoutes = (collections: VectorCollection[]): Route[] => [
  route({
    method: 'GET',
    path: '/v1/ops/embeddings',
    name: 'embedding_state',
    summary: 'Vectors by collection and model, what waits, and how the embedding models do',
    tag: 'operations',
    envelope: true,
    permission: 'ops:read',
    response: { 200: EmbeddingState },
    handler: (ctx) => embeddingState(ctx, collections),
  }),
];
