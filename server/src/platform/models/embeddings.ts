import type { IPolicy } from 'cockatiel';
import type { Config } from '../config.ts';
import type { createGuardedFetch } from '../fetch.ts';
import { outsideCalls, Permanent } from '../resilience.ts';

/** Turns texts into vectors of one space. `name` says which: vectors are only compared under the same name. */
export interface EmbeddingModel {
  name: string;
  dimensions: number;
  /** Most texts in one call. */
  batch: number;
  /** Weight of its cosine in a fused ranking; 0 for vectors that only repeat what the words say. */
  weight: number;
  /** @returns unit vectors, in the order of the texts */
  embed(texts: string[], signal: AbortSignal): Promise<Float32Array[]>;
}

/** The embeddings call of OpenAI and every server that speaks like it: `POST {base}/embeddings`. */
export function openAiCompatibleEmbeddings(
  config: Config,
  fetch: ReturnType<typeof createGuardedFetch>['fetch'],
): EmbeddingModel {
  const base = (config.EMBEDDING_BASE_URL ?? 'https://api.openai.com/v1').replace(/\/$/, '');
  const key = config.EMBEDDING_API_KEY ?? config.OPENAI_API_KEY;
  const policy: IPolicy = outsideCalls({
    timeoutMs: config.EXT_CALL_TIMEOUT_MS,
    retries: config.EXT_RETRY_MAX_ATTEMPTS,
  });
  const { EMBEDDING_MODEL: model, EMBEDDING_DIMENSIONS: dimensions } = config;
  const call = async (texts: string[], signal: AbortSignal): Promise<Float32Array[]> => {
    const response = await fetch(`${base}/embeddings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify({ model, input: texts, encoding_format: 'float' }),
      signal,
    });
    if (!response.ok) {
      await response.body?.cancel();
      const message = `the embeddings server answered ${response.status}`;
      throw response.status < 500 && response.status !== 429 && response.status !== 408
        ? new Permanent(message)
        : new Error(message);
    }
    return vectorsOf(await response.json(), texts.length, dimensions);
  };
  return {
    name: `${model}-${dimensions}`,
    dimensions,
    batch: 100,
    weight: 1,
    embed: (texts, signal) => policy.execute(({ signal: attempt }) => call(texts, attempt), signal),
  };
}

/** @throws Permanent when the server answers with another number or size of vectors than was asked for */
function vectorsOf(answer: unknown, count: number, dimensions: number): Float32Array[] {
  const data = (answer as { data?: { index?: number; embedding?: number[] }[] } | null)?.data;
  if (!Array.isArray(data) || data.length !== count)
    throw new Permanent(`the embeddings server did not answer with ${count} vectors`);
  const vectors = new Array<Float32Array>(count);
  data.forEach(({ index, embedding }, position) => {
    if (!Array.isArray(embedding) || embedding.length !== dimensions) {
      throw new Permanent(
        `the embeddings server answered with vectors of ${embedding?.length} dimensions; EMBEDDING_DIMENSIONS says ${dimensions}`,
      );
    }
    vectors[index ?? position] = unit(Float32Array.from(embedding));
  });
  if (vectors.includes(undefined as never)) throw new Permanent('the embeddings server left out a vector');
  return vectors;
}

function unit(vector: Float32Array): Float32Array {
  let squares = 0;
  for (const value of vector) squares += value * value;
  if (!(squares > 0) || !Number.isFinite(squares))
    throw new Permanent('the embeddings server answered with an unusable vector');
  const scale = 1 / Math.sqrt(squares);
  return vector.map((value) => value * scale);
}
