import type { Config } from '../config.ts';
import { createGuardedFetch } from '../fetch.ts';
import { type AnswerModel, openAiCompatibleAnswers } from './answers.ts';
import { type EmbeddingModel, openAiCompatibleEmbeddings } from './embeddings.ts';
import { fakeAnswers } from './fake.ts';

/** The outside models of a process; undefined where none is configured and the built-in way is used. */
export interface Models {
  embeddings: EmbeddingModel | undefined;
  answers: AnswerModel | undefined;
  close(): Promise<void>;
}

export function openModels(config: Config): Models {
  const hostOf = (url: string | undefined) => (url ? [new URL(url).host] : []);
  const { fetch, close } = createGuardedFetch(
    [...config.FETCH_ALLOW_HOSTS, ...hostOf(config.EMBEDDING_BASE_URL), ...hostOf(config.LLM_BASE_URL)],
    Math.max(config.EXT_CALL_TIMEOUT_MS, config.LLM_TIMEOUT_MS),
  );
  const answers = {
    extractive: () => undefined,
    'openai-compatible': () => openAiCompatibleAnswers(config, fetch),
    fake: () => fakeAnswers(),
  };
  return {
    embeddings:
      config.embeddingProvider === 'openai-compatible'
        ? openAiCompatibleEmbeddings(config, fetch)
        : undefined,
    answers: answers[config.LLM_PROVIDER](),
    close,
  };
}
