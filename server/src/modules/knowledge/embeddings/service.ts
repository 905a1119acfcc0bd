import { setImmediate as breathe } from 'node:timers/promises';
import type { Ctx } from '#platform/context.ts';
import type { EmbeddingModel } from '#platform/models/embeddings.ts';
import { HASHED_MODEL, hashedEmbedding } from './hashed.ts';

/** Vectors of some texts, all of one model. */
export interface Embedded {
  model: string;
  vectors: Float32Array[];
}

/** The built-in model: the words and spellings of a text hashed into a vector. Always there, and only as wise as the words. */
export const hashedModel: EmbeddingModel = {
  name: HASHED_MODEL,
  dimensions: 384,
  batch: 1_000,
  // It repeats what text search knows: fused into a ranking it only adds noise.
  weight: 0,
  embed: async (texts) => {
    const vectors: Float32Array[] = [];
    for (const [i, text] of texts.entries()) {
      vectors.push(hashedEmbedding(text));
      // A process that serves requests too must not be busy for long.
      if (i % 64 === 63) await breathe();
    }
    return vectors;
  },
};

/**
 * Embeds texts with the configured model, or with the built-in one while that can not be reached, so that no text
 * stays without a vector. Every vector knows its model.
 */
export async function embedTexts(ctx: Ctx, texts: string[]): Promise<Embedded> {
  const remote = ctx.app.models.embeddings;
  if (remote) {
    try {
      const vectors: Float32Array[] = [];
      for (let at = 0; at < texts.length; at += remote.batch) {
        vectors.push(...(await remote.embed(texts.slice(at, at + remote.batch), ctx.signal)));
      }
      ctx.app.metrics.embeddings.inc({ model: remote.name, outcome: 'done' }, texts.length);
      return { model: remote.name, vectors };
    } catch (error) {
      if (ctx.signal.aborted) throw error;
      ctx.app.metrics.embeddings.inc({ model: remote.name, outcome: 'failed' }, texts.length);
      ctx.log.warn(
        { err: error, model: remote.name },
        'the embedding model can not be used; the built-in one stands in',
      );
    }
  }
  ctx.app.metrics.embeddings.inc({ model: hashedModel.name, outcome: 'done' }, texts.length);
  return { model: hashedModel.name, vectors: await hashedModel.embed(texts, ctx.signal) };
}

/** A query's vector under each model that texts may have been embedded with: the configured one, when it answers, and the built-in one. */
export async function embedQuery(
  ctx: Ctx,
  text: string,
): Promise<{ model: EmbeddingModel; vector: Float32Array }[]> {
  const remote = ctx.app.models.embeddings;
  const found: { model: EmbeddingModel; vector: Float32Array }[] = [];
  if (remote) {
    try {
      found.push({ model: remote, vector: (await remote.embed([text], ctx.signal))[0]! });
    } catch (error) {
      if (ctx.signal.aborted) throw error;
      ctx.log.warn({ err: error, model: remote.name }, 'a search goes without the embedding model');
    }
  }
  found.push({ model: hashedModel, vector: (await hashedModel.embed([text], ctx.signal))[0]! });
  return found;
}
