import type { Config } from '../config.ts';
import { createGuardedFetch } from '../fetch.ts';
import type { AnswerModel } from './answers.ts';
import { type EmbeddingModel, openAiCompatibleEmbeddings } from './embeddings.ts';
import { fakeAnswers } from './fake.ts';
import { openAiCompatibleAnswers } from './openai-compatible.ts';
import { fakeSpeech, openAiSpeech, type SpeechModel } from './speech.ts';
import { vertexAnswers } from './vertex.ts';

/** The outside models of a process; undefined where none is configured and the built-in way is used. */
export interface Models {
  embeddings: EmbeddingModel | undefined;
  answers: AnswerModel | undefined;
  speech: SpeechModel | undefined;
  close(): Promise<void>;
}

export function openModels(config: Config): Models {
  const hostOf = (url: string | undefined) => (url ? [new URL(url).host] : []);
  const addresses = [
    config.EMBEDDING_BASE_URL,
    config.LLM_BASE_URL,
    config.VERTEX_BASE_URL,
    config.TTS_BASE_URL,
  ];
  const { fetch, close } = createGuardedFetch(
    [...config.FETCH_ALLOW_HOSTS, ...addresses.flatMap(hostOf)],
    Math.max(config.EXT_CALL_TIMEOUT_MS, config.LLM_TIMEOUT_MS, config.TTS_TIMEOUT_MS),
    // Each run may hold one for minutes.
    32 + config.RUN_MAX_CONCURRENCY,
  );
  const answers = {
    extractive: () => undefined,
    'openai-compatible': () => openAiCompatibleAnswers(config, fetch),
    vertex: () => vertexAnswers(config, fetch),
    fake: () => fakeAnswers(),
  };
  const speech = {
    none: () => undefined,
    openai: () => openAiSpeech(config, fetch),
    fake: () => fakeSpeech(),
  };
  return {
    embeddings:
      config.embeddingProvider === 'openai-compatible'
        ? openAiCompatibleEmbeddings(config, fetch)
        : undefined,
    answers: answers[config.LLM_PROVIDER](),
    speech: speech[config.TTS_PROVIDER](),
    close,
  };
}
