import type { Config } from '../config.ts';
import type { GuardedFetch } from '../fetch.ts';
import { createBreaker, outsideCalls, stateOf } from '../resilience.ts';
import { askModel } from './ask.ts';
import { failureOf, judgeModel, ModelError } from './model-error.ts';

export type EmbeddingProvider = 'openai-compatible' | 'local' | 'hashed';

/** Turns texts into vectors of one space. */
export interface EmbeddingModel {
  provider: EmbeddingProvider;
  /** Says which space, its dimensions included: vectors are only compared under the same name. */
  name: string;
  dimensions: number;
  /** Weight of its cosine in a fused ranking; 0 for vectors that only repeat what the words say. */
  weight: number;
  /** What one call takes. */
  limits: { inputs: number; characters: number };
  /** Calls that may be under way at once. */
  lanes: number;
  /**
   * One call.
   * @returns unit vectors, in the order of the texts
   * @throws ModelError; `refused` when it takes other texts but not all of these
   */
  embed(texts: string[], signal: AbortSignal): Promise<Float32Array[]>;
  /** The same for a search that somebody waits for: no retries, and not for long. */
  embedQuery(text: string, signal: AbortSignal): Promise<Float32Array>;
}

/** A model that may be there: the link of a chain. */
export interface EmbeddingLink {
  provider: EmbeddingProvider;
  /** What configuration calls it, for operators. */
  label: string;
  /** Former models are asked for the vectors of queries only, while texts move to the present one. */
  former: boolean;
  /** Whether vectors of that name are of this model; known before it is open. */
  makes(name: string): boolean;
  /** The model, once it is open. @throws ModelError when it can not be opened */
  open(): Promise<EmbeddingModel>;
  /** The model when it is open already. */
  peek(): EmbeddingModel | undefined;
  breaker(): 'closed' | 'open' | 'half_open';
  close(): Promise<void>;
}

/** A request of an OpenAI server may have 300,000 tokens; a character is at most about one. */
const limits = { inputs: 100, characters: 200_000 };
const lanes = 4;
/** Background work waits as long as a busy server asks for, within reason. */
const patienceMs = 60_000;

/** The embeddings call of OpenAI and every server that speaks like it: `POST {base}/embeddings`. */
export function openAiCompatibleEmbeddings(
  config: Config,
  send: GuardedFetch['send'],
  { model, dimensions, former }: { model: string; dimensions: number; former: boolean },
): EmbeddingLink {
  const base = (config.EMBEDDING_BASE_URL ?? 'https://api.openai.com/v1').replace(/\/$/, '');
  const key = config.EMBEDDING_API_KEY ?? config.OPENAI_API_KEY;
  const breaker = createBreaker(judgeModel, config.EMBEDDING_BREAKER_MS);
  const patient = outsideCalls({
    timeoutMs: config.EXT_CALL_TIMEOUT_MS,
    retries: config.EXT_RETRY_MAX_ATTEMPTS,
    judge: judgeModel,
    breaker,
    patienceMs,
  });
  const quick = outsideCalls({
    timeoutMs: Math.min(config.EXT_CALL_TIMEOUT_MS, config.EMBEDDING_QUERY_TIMEOUT_MS),
    retries: 0,
    judge: judgeModel,
    breaker,
  });
  const askFor = async (format: 'base64' | 'float', texts: string[], signal: AbortSignal) => {
    const question = {
      model,
      input: texts.map((text) => cut(text, config.EMBEDDING_MAX_CHARACTERS)),
      encoding_format: format,
    };
    const answer = await askModel(send, 'the embeddings server', `${base}/embeddings`, key, question, signal);
    return vectorsOf(answer, texts.length, dimensions);
  };
  /** Numbers written out take many times as long to read; but not every server knows another way. */
  let format: 'base64' | 'float' = 'base64';
  let isTaken = false;
  const call = async (texts: string[], signal: AbortSignal): Promise<Float32Array[]> => {
    try {
      const vectors = await askFor(format, texts, signal);
      isTaken = true;
      return vectors;
    } catch (error) {
      // What it refuses, or fails at, may be the format.
      if (isTaken || !['refused', 'server_error'].includes(failureOf(error))) throw error;
      const vectors = await askFor('float', texts, signal);
      format = 'float';
      isTaken = true;
      return vectors;
    }
  };
  const open: EmbeddingModel = {
    provider: 'openai-compatible',
    name: `${model}-${dimensions}`,
    dimensions,
    weight: 1,
    limits,
    lanes,
    embed: (texts, signal) => patient.execute((attempt) => call(texts, attempt.signal), signal),
    embedQuery: async (text, signal) =>
      (await quick.execute((attempt) => call([text], attempt.signal), signal))[0]!,
  };
  return {
    provider: 'openai-compatible',
    label: model,
    former,
    makes: (name) => name === open.name,
    open: async () => open,
    peek: () => open,
    breaker: () => stateOf(breaker),
    close: async () => {},
  };
}

/** Never between the halves of a surrogate pair. */
export function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const end = /[\ud800-\udbff]/.test(text[most - 1]!) ? most - 1 : most;
  return text.slice(0, end);
}

interface Answer {
  data?: { index?: number; embedding?: number[] | string }[];
}

/** @throws ModelError when the server answers with another number or size of vectors than was asked for */
function vectorsOf(answer: unknown, count: number, dimensions: number): Float32Array[] {
  const data = (answer as Answer | null)?.data;
  if (!Array.isArray(data) || data.length !== count)
    throw new ModelError('garbage', `the embeddings server did not answer with ${count} vectors`);
  const vectors = new Array<Float32Array>(count);
  data.forEach((item, position) => {
    const embedding = numbersOf(item?.embedding);
    if (!embedding) throw new ModelError('garbage', 'the embeddings server left out a vector');
    if (embedding.length !== dimensions)
      throw new ModelError(
        'misconfigured',
        `the embeddings server answered with vectors of ${embedding.length} dimensions; EMBEDDING_DIMENSIONS says ${dimensions}`,
      );
    vectors[item.index ?? position] = unit(embedding);
  });
  if (vectors.includes(undefined as never))
    throw new ModelError('garbage', 'the embeddings server left out a vector');
  return vectors;
}

/** A list of numbers, or base64 of 32-bit floats, little-endian; some servers send the list whatever is asked for. */
function numbersOf(embedding: number[] | string | undefined): Float32Array | undefined {
  if (Array.isArray(embedding)) return new Float32Array(embedding);
  if (typeof embedding !== 'string') return undefined;
  const bytes = new Uint8Array(Buffer.from(embedding, 'base64'));
  return bytes.length % 4 === 0 ? new Float32Array(bytes.buffer) : undefined;
}

/** Scales to length 1. A vector of zeros or of what is not a number is no better than a refusal of its text. */
export function unit(vector: Float32Array): Float32Array {
  let squares = 0;
  for (const value of vector) squares += value * value;
  if (!(squares > 0) || !Number.isFinite(squares))
    throw new ModelError('refused', 'the embedding model answered with an unusable vector');
  const scale = 1 / Math.sqrt(squares);
  return vector.map((value) => value * scale);
}
