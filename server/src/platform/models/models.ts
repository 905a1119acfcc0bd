import type { Config } from '../config.ts';
import { createGuardedFetch, type GuardedFetch } from '../fetch.ts';
import type { AnswerModel } from './answers.ts';
import { type EmbeddingLink, openAiCompatibleEmbeddings } from './embeddings.ts';
import { fakeAnswers } from './fake.ts';
import { localEmbeddings } from './local.ts';
import { openAiCompatibleAnswers } from './openai-compatible.ts';
import { cohereCompatibleRerank, type RerankModel } from './rerank.ts';
import { fakeSpeech, openAiSpeech, type SpeechModel } from './speech.ts';
import { vertexAnswers } from './vertex.ts';

/** The models of a process that are configured; where there is none the built-in way is used. */
export interface Models {
  /** Best first. */
  embeddings: EmbeddingLink[];
  answers: AnswerModel | undefined;
  rerank: RerankModel | undefined;
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
    config.RERANK_BASE_URL,
  ];
  const { fetch, send, close } = createGuardedFetch(
    [...config.FETCH_ALLOW_HOSTS, ...addresses.flatMap(hostOf)],
    Math.max(
      config.EXT_CALL_TIMEOUT_MS,
      config.LLM_TIMEOUT_MS,
      config.TTS_TIMEOUT_MS,
      config.RERANK_TIMEOUT_MS,
    ),
    // Each run may hold one for minutes.
    32 + config.RUN_MAX_CONCURRENCY,
  );
  const answers = {
    extractive: () => undefined,
    'openai-compatible': () => openAiCompatibleAnswers(config, fetch),
    vertex: () => vertexAnswers(config, fetch),
    fake: () => fakeAnswers(),
  };
  const embeddings = embeddingLinks(config, send);
  const speech = {
    none: () => undefined,
    openai: () => openAiSpeech(config, fetch),
    fake: () => fakeSpeech(),
  };
  return {
    embeddings,
    answers: answers[config.LLM_PROVIDER](),
    rerank: config.RERANK_BASE_URL ? cohereCompatibleRerank(config, config.RERANK_BASE_URL, send) : undefined,
    speech: speech[config.TTS_PROVIDER](),
    close: async () => {
      await Promise.all(embeddings.map((link) => link.close()));
      await close();
    },
  };
}

/** What is configured, and what stands below it. */
function embeddingLinks(config: Config, send: GuardedFetch['send']): EmbeddingLink[] {
  const links: EmbeddingLink[] = [];
  if (config.embeddingProvider === 'hashed') return links;
  if (config.embeddingProvider === 'openai-compatible') {
    const { EMBEDDING_MODEL: model, EMBEDDING_DIMENSIONS: dimensions } = config;
    links.push(openAiCompatibleEmbeddings(config, send, { model, dimensions, former: false }));
    if (config.EMBEDDING_FORMER_MODEL)
      links.push(
        openAiCompatibleEmbeddings(config, send, {
          model: config.EMBEDDING_FORMER_MODEL,
          dimensions: config.EMBEDDING_FORMER_DIMENSIONS,
          former: true,
        }),
      );
  }
  if (config.EMBEDDING_LOCAL_MODEL) links.push(localEmbeddings(config, config.EMBEDDING_LOCAL_MODEL));
  return links;
}
