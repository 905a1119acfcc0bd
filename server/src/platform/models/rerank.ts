import type { Config } from '../config.ts';
import type { GuardedFetch } from '../fetch.ts';
import { createBreaker, outsideCalls } from '../resilience.ts';
import { askModel } from './ask.ts';
import { cut } from './embeddings.ts';
import { judgeModel, ModelError } from './model-error.ts';

/** Reads a query and texts together, and says how well each text answers it. */
export interface RerankModel {
  name: string;
  /** The texts of one call at most. */
  topN: number;
  /**
   * One call, that a search waits for: no retries, and not for long.
   * @returns relevance 0..1, in the order of the texts
   * @throws ModelError, or the reason of the signal
   */
  rerank(query: string, texts: string[], signal: AbortSignal): Promise<number[]>;
}

/** Characters of a text beyond these are not read: most models end sooner. */
const mostCharacters = 8_000;

/** `POST {base}/rerank` as Cohere and Jina have it, and the servers that speak like them. */
export function cohereCompatibleRerank(
  config: Config,
  base: string,
  send: GuardedFetch['send'],
): RerankModel {
  const address = `${base.replace(/\/$/, '')}/rerank`;
  const { RERANK_MODEL: model, RERANK_API_KEY: key } = config;
  const policy = outsideCalls({
    timeoutMs: config.RERANK_TIMEOUT_MS,
    retries: 0,
    judge: judgeModel,
    breaker: createBreaker(judgeModel, config.RERANK_BREAKER_MS),
  });
  const call = async (query: string, documents: string[], signal: AbortSignal): Promise<number[]> => {
    const question = { model, query, documents, top_n: documents.length };
    const answer = await askModel(send, 'the reranker', address, key, question, signal);
    return relevancesOf(answer, documents.length);
  };
  return {
    name: model,
    topN: config.RERANK_TOP_N,
    rerank: (query, texts, signal) =>
      policy.execute(
        (attempt) =>
          call(
            cut(query, mostCharacters),
            texts.map((text) => cut(text, mostCharacters)),
            attempt.signal,
          ),
        signal,
      ),
  };
}

interface Answer {
  results?: { index?: unknown; relevance_score?: unknown }[];
}

/** @throws ModelError unless there is one number for each text */
function relevancesOf(answer: unknown, count: number): number[] {
  const results = (answer as Answer | null)?.results;
  if (!Array.isArray(results) || results.length !== count)
    throw new ModelError('garbage', `the reranker did not answer with ${count} results`);
  const relevances = new Array<number | undefined>(count).fill(undefined);
  for (const result of results) {
    const { index, relevance_score: score } = result ?? {};
    const isPlace = typeof index === 'number' && index in relevances && relevances[index] === undefined;
    if (!isPlace || typeof score !== 'number' || !Number.isFinite(score))
      throw new ModelError('garbage', 'the reranker answered with a result that is none');
    relevances[index] = score;
  }
  const scores = relevances as number[];
  // Some servers pass on what the model's last layer says.
  return scores.every((score) => score >= 0 && score <= 1)
    ? scores
    : scores.map((score) => 1 / (1 + Math.exp(-score)));
}
