import type { Config } from '../config.ts';
import type { createGuardedFetch } from '../fetch.ts';
import type { AnswerModel } from './answers.ts';
import { languageAnswers } from './language.ts';

/** The chat completions of OpenAI and every server that speaks like it, streamed. */
export function openAiCompatibleAnswers(
  config: Config,
  fetch: ReturnType<typeof createGuardedFetch>['fetch'],
): AnswerModel {
  const apiKey = config.LLM_API_KEY ?? config.OPENAI_API_KEY;
  return languageAnswers({
    name: config.LLM_MODEL,
    model: async () => {
      // Only who uses it waits for it at the start.
      const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible');
      const provider = createOpenAICompatible({
        name: 'openai-compatible',
        baseURL: config.LLM_BASE_URL ?? 'https://api.openai.com/v1',
        ...(apiKey ? { apiKey } : {}),
        includeUsage: true,
        fetch: fetch as unknown as typeof globalThis.fetch,
      });
      return provider.chatModel(config.LLM_MODEL);
    },
    problem: !apiKey && !config.LLM_BASE_URL ? 'LLM_CONFIG_MISSING' : undefined,
    timeoutMs: config.LLM_TIMEOUT_MS,
    retries: config.EXT_RETRY_MAX_ATTEMPTS,
    codes: { auth: 'LLM_AUTH_ERROR', timeout: 'LLM_TIMEOUT' },
  });
}
