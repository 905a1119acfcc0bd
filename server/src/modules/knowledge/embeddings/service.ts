import { hash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { App, Ctx } from '#platform/context.ts';
import type { EmbeddingLink, EmbeddingModel } from '#platform/models/embeddings.ts';
import { perApp } from '#platform/per-app.ts';
import { takingTurns } from '#platform/turns.ts';
import { newBoundedCache } from '../retrieval/bounded-cache.ts';
import { embedWith, openLink, tellFailing } from './chain.ts';
import { HASHED_DIMENSIONS, HASHED_MODEL, hashedEmbedding } from './hashed.ts';
import { noteWorking } from './links.ts';

export { HASHED_MODEL } from './hashed.ts';
export { type LinkHealth, linkHealth } from './links.ts';

/** The vector of a text, and who made it. */
export interface Embedded {
  model: string;
  vector: Float32Array;
  /** The better model that does not take this text; it need not be asked again. */
  refusedBy: string | undefined;
}

/** The links that embed texts, best first. Former models only answer queries. */
const textLinks = (app: App): EmbeddingLink[] => app.models.embeddings.filter(({ former }) => !former);

/** The model all vectors should be of; undefined where it is the built-in one, or could not be opened yet. */
export async function preferredModel(ctx: Ctx): Promise<{ name: string; dimensions: number } | undefined> {
  const link = textLinks(ctx.app)[0];
  return link ? openLink(ctx, link) : { name: HASHED_MODEL, dimensions: HASHED_DIMENSIONS };
}

/**
 * The name of the preferred model while it may be asked: undefined while its breaker is open, or before it could be
 * opened.
 */
export async function preferredOpen(app: App): Promise<string | undefined> {
  const link = textLinks(app)[0];
  if (!link) return HASHED_MODEL;
  if (link.breaker() === 'open') return undefined;
  const model = link.peek() ?? (await link.open().catch(() => undefined));
  return model?.name;
}

/**
 * Embeds texts with the best model that takes them: the configured one, what stands below it, and at last the built-in
 * one, so that no text stays without a vector. Every vector knows its model.
 */
export async function embedTexts(ctx: Ctx, texts: string[]): Promise<Embedded[]> {
  const done = new Array<Embedded | undefined>(texts.length).fill(undefined);
  const refusedBy = new Map<number, string>();
  let left = texts.map((_, i) => i);
  for (const [place, link] of textLinks(ctx.app).entries()) {
    if (left.length === 0) break;
    const outcomes = await embedWith(
      ctx,
      link,
      left.map((i) => texts[i]!),
    );
    const model = link.peek()?.name;
    left = left.filter((i, at) => {
      const outcome = outcomes[at];
      if (outcome === 'refused' && place === 0) refusedBy.set(i, model!);
      if (outcome === undefined || outcome === 'refused') return true;
      done[i] = { model: model!, vector: outcome, refusedBy: refusedBy.get(i) };
      return false;
    });
  }
  const hashed = await hashedVectors(left.map((i) => texts[i]!));
  if (left.length > 0) ctx.app.metrics.embeddings.inc({ model: HASHED_MODEL, outcome: 'done' }, left.length);
  left.forEach((i, at) => {
    done[i] = { model: HASHED_MODEL, vector: hashed[at]!, refusedBy: refusedBy.get(i) };
  });
  return done as Embedded[];
}

/**
 * Embeds texts with the preferred model alone.
 * @returns undefined where it can not be reached: nothing stands in
 */
export async function embedAnew(
  ctx: Ctx,
  texts: string[],
): Promise<(Float32Array | 'refused' | undefined)[]> {
  const link = textLinks(ctx.app)[0];
  return link ? embedWith(ctx, link, texts) : hashedVectors(texts);
}

async function hashedVectors(texts: string[]): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  const others = takingTurns();
  for (const text of texts) {
    vectors.push(hashedEmbedding(text));
    const turn = others();
    if (turn) await turn;
  }
  return vectors;
}

/** A search does not wait for a model to be loaded for longer than for its answer. */
async function openSoon(ctx: Ctx, link: EmbeddingLink): Promise<EmbeddingModel | undefined> {
  const late = new AbortController();
  const { signal } = late;
  const limit = sleep(ctx.app.config.EMBEDDING_QUERY_TIMEOUT_MS, undefined, { signal, ref: false });
  try {
    return await Promise.race([openLink(ctx, link), limit]);
  } finally {
    late.abort();
    limit.catch(() => {});
  }
}

/** A query as one model sees it. */
export interface QueryVector {
  model: string;
  vector: Float32Array;
  /** Weight of the model in a fused ranking; 0 for the built-in one. */
  weight: number;
}

const cachedQueries = 2_000;
const queryCache = perApp(() => newBoundedCache<string, Float32Array>(cachedQueries));

/**
 * A query's vector under each model that is configured, can be reached, and is wanted; the preferred one last. The
 * preferred model is always asked: texts may just be moving to it.
 * @param present models that the texts searched have vectors of
 */
export async function embedQuery(
  ctx: Ctx,
  text: string,
  present: ReadonlySet<string>,
): Promise<QueryVector[]> {
  const preferred = textLinks(ctx.app)[0];
  const asked = ctx.app.models.embeddings.map(async (link): Promise<QueryVector | undefined> => {
    if (link !== preferred && ![...present].some(link.makes)) return undefined;
    const model = link.peek() ?? (await openSoon(ctx, link));
    if (!model) return undefined;
    const key = `${ctx.tenant}/${model.name}/${hash('sha256', text, 'base64')}`;
    let vector = queryCache(ctx.app).get(key);
    if (!vector) {
      try {
        vector = await model.embedQuery(text, ctx.signal);
        noteWorking(ctx.app, link);
        queryCache(ctx.app).set(key, vector);
      } catch (error) {
        if (ctx.signal.aborted) throw error;
        tellFailing(ctx, link, error);
        return undefined;
      }
    }
    return { model: model.name, vector, weight: model.weight };
  });
  const found = (await Promise.all(asked)).filter((one) => one !== undefined).reverse();
  if (present.has(HASHED_MODEL) || !preferred)
    found.unshift({ model: HASHED_MODEL, vector: hashedEmbedding(text), weight: 0 });
  return found;
}
