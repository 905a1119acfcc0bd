import type { Ctx } from '#platform/context.ts';
import { binaryArray } from '#platform/db/binary.ts';
import type { Statement } from '#platform/db/sql.ts';
import type { Embedded } from '../embeddings/service.ts';
import { encodeVector } from '../retrieval/service.ts';
import type { VectorScope } from './collection.ts';
import { touchSpace } from './space-store.ts';

/** Statements that store the vectors of texts, of whatever models, and say that the scope has such. */
export function storeVectors(
  ctx: Ctx,
  scope: VectorScope,
  texts: { id: string; embedded: Embedded }[],
): Statement[] {
  const now = new Date();
  const byModel = Map.groupBy(texts, ({ embedded }) => embedded.model);
  // Always in the same order, so that two transactions can not wait for each other in a circle.
  return [...byModel].sort().flatMap(([model, some]) => [
    ...scope.collection.insert(ctx.tenant, scope, {
      model,
      ids: some.map(({ id }) => id),
      vectors: binaryArray(
        ctx.app.vectorTypes.vector,
        some.map(({ embedded }) => encodeVector(embedded.vector)),
      ),
      refusedBy: some.map(({ embedded }) => embedded.refusedBy ?? null),
    }),
    touchSpace(ctx.tenant, scope.name, model, some[0]!.embedded.vector.length, now),
  ]);
}
