import { type Static, Type as T, type TSchema } from 'typebox';
import { type ModelFailure, modelFailures } from '#platform/models/model-error.ts';

const at = T.String({ format: 'date-time' });
const maybe = <S extends TSchema>(schema: S) => T.Union([schema, T.Null()]);

/** A model of the chain, as the process that answers sees it. */
const Link = T.Object({
  provider: T.Union([T.Literal('openai-compatible'), T.Literal('local'), T.Literal('hashed')]),
  model: T.String(),
  role: T.Union([T.Literal('preferred'), T.Literal('stand_in'), T.Literal('former')], {
    description: 'former: only asked for the vectors of queries, while texts move to the preferred model',
  }),
  state: T.Union([T.Literal('working'), T.Literal('failing'), T.Literal('unused')]),
  breaker: T.Union([T.Literal('closed'), T.Literal('open'), T.Literal('half_open')]),
  since: maybe(at),
  last_failure: maybe(
    T.Object({
      kind: T.Unsafe<ModelFailure>({ type: 'string', enum: [...modelFailures] }),
      message: maybe(T.String({ description: 'what there is to say beyond the kind' })),
      at,
    }),
  ),
});

const SpaceState = T.Object({
  model: T.String(),
  dimensions: T.Integer(),
  vectors: T.Integer(),
  indexed: T.Integer({ description: 'in segments with an index' }),
  scanned: T.Integer({ description: 'compared one by one in each search' }),
  segments: T.Integer(),
  renewal: maybe(
    T.Object({
      to: T.String(),
      state: T.Union([T.Literal('waiting'), T.Literal('running'), T.Literal('done')]),
      done: T.Integer({ description: 'vectors replaced so far' }),
      remaining: T.Integer(),
      refused: T.Integer({ description: 'texts the preferred model does not take' }),
      last_progress_at: maybe(at),
    }),
  ),
});

export const EmbeddingState = T.Object({
  links: T.Array(Link, { description: 'the chain, best first' }),
  collections: T.Array(
    T.Object({
      collection: T.String(),
      scope: T.String(),
      waiting: T.Integer({ description: 'memories, or documents, that have no vectors yet' }),
      models: T.Array(SpaceState),
    }),
  ),
});
export type EmbeddingState = Static<typeof EmbeddingState>;
