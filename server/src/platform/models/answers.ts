import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { streamText } from 'ai';
import type { Config } from '../config.ts';
import type { createGuardedFetch } from '../fetch.ts';

/** Writes an answer from a prompt, piece by piece. */
export interface AnswerModel {
  name: string;
  /** @throws Error when the model fails; nothing more is yielded then. Honours `signal` at once. */
  stream(
    prompt: { system: string; messages: { role: 'user' | 'assistant'; content: string }[] },
    signal: AbortSignal,
  ): AsyncIterable<string>;
}

export function openAiCompatibleAnswers(
  config: Config,
  fetch: ReturnType<typeof createGuardedFetch>['fetch'],
): AnswerModel {
  const apiKey = config.LLM_API_KEY ?? config.OPENAI_API_KEY;
  const provider = createOpenAICompatible({
    name: 'openai-compatible',
    baseURL: config.LLM_BASE_URL ?? 'https://api.openai.com/v1',
    ...(apiKey ? { apiKey } : {}),
    fetch: fetch as unknown as typeof globalThis.fetch,
  });
  return {
    name: config.LLM_MODEL,
    async *stream({ system, messages }, signal) {
      // The silence of the model is limited, not the length of its answer.
      const silence = new AbortController();
      let timer = setTimeout(() => silence.abort(new Error('the model is silent')), config.LLM_TIMEOUT_MS);
      try {
        const result = streamText({
          model: provider(config.LLM_MODEL),
          system,
          messages,
          maxRetries: config.EXT_RETRY_MAX_ATTEMPTS,
          abortSignal: AbortSignal.any([signal, silence.signal]),
          // Failures arrive as parts of the stream below; the default handler would only print them.
          onError: () => {},
        });
        for await (const part of result.fullStream) {
          clearTimeout(timer);
          timer = setTimeout(() => silence.abort(new Error('the model is silent')), config.LLM_TIMEOUT_MS);
          if (part.type === 'text-delta') yield part.text;
          else if (part.type === 'error')
            throw part.error instanceof Error ? part.error : new Error(String(part.error));
          else if (part.type === 'abort') throw signal.aborted ? signal.reason : silence.signal.reason;
        }
      } finally {
        clearTimeout(timer);
      }
    },
  };
}
