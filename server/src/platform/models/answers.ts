import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, RetryError, streamText } from 'ai';
import type { Config } from '../config.ts';
import { type createGuardedFetch, FetchRefused } from '../fetch.ts';

export interface Prompt {
  system: string;
  messages: { role: 'user' | 'assistant'; content: string }[];
}

/** Writes an answer from a prompt, piece by piece. */
export interface AnswerModel {
  name: string;
  /**
   * Ends normally only when the model said that it was done.
   * @throws AnswerModelError when the model fails; nothing more is yielded then. The signal's reason when that aborts.
   */
  stream(prompt: Prompt, signal: AbortSignal): AsyncIterable<string>;
}

const failures = {
  LLM_CONFIG_MISSING:
    'No key or address of the language model is configured: set LLM_API_KEY or OPENAI_API_KEY, or LLM_BASE_URL.',
  LLM_CONFIG_INVALID: 'The language model did not take the request: check LLM_MODEL and LLM_BASE_URL.',
  LLM_AUTH_ERROR: 'The language model refused the key it was called with.',
  LLM_RATE_LIMITED: 'The language model has too many requests. Repeat the run later.',
  LLM_TIMEOUT: 'The language model was silent for too long. Repeat the run.',
  LLM_UNAVAILABLE: 'The language model can not be reached right now. Repeat the run later.',
  LLM_ERROR: 'The language model broke off before its answer was complete. Repeat the run.',
} as const;

/** Why a model gave no answer: a permanent code and a sentence for clients; what the model's server said is the cause. */
export class AnswerModelError extends Error {
  override name = 'AnswerModelError';
  readonly code: keyof typeof failures;

  constructor(code: keyof typeof failures, options?: ErrorOptions) {
    super(failures[code], options);
    this.code = code;
  }
}

/** The chat completions of OpenAI and every server that speaks like it, streamed. */
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
      if (!apiKey && !config.LLM_BASE_URL) throw new AnswerModelError('LLM_CONFIG_MISSING');
      const silence = silenceLimit(config.LLM_TIMEOUT_MS);
      // Aborted when the reader of this generator stops early, so that the model stops too.
      const left = new AbortController();
      try {
        const result = streamText({
          model: provider(config.LLM_MODEL),
          system,
          messages,
          maxRetries: config.EXT_RETRY_MAX_ATTEMPTS,
          abortSignal: AbortSignal.any([signal, silence.signal, left.signal]),
          // Failures arrive as parts of the stream below; the default handler would only print them.
          onError: () => {},
        });
        let isComplete = false;
        for await (const part of result.fullStream) {
          // Only the model's own silence counts, not the time its reader takes over a piece.
          silence.pause();
          if (part.type === 'text-delta') yield part.text;
          else if (part.type === 'error') throw part.error;
          else if (part.type === 'abort') throw new DOMException('aborted', 'AbortError');
          // A connection that ends early without an error leaves the reason out.
          else if (part.type === 'finish')
            isComplete = part.rawFinishReason !== undefined && part.finishReason !== 'error';
          silence.resume();
        }
        if (!isComplete) throw new AnswerModelError('LLM_ERROR');
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        if (silence.signal.aborted) throw new AnswerModelError('LLM_TIMEOUT');
        throw modelErrorOf(error);
      } finally {
        silence.pause();
        left.abort();
      }
    },
  };
}

function silenceLimit(limitMs: number) {
  const controller = new AbortController();
  const start = () => setTimeout(() => controller.abort(new Error('the model is silent')), limitMs);
  let timer = start();
  return {
    signal: controller.signal,
    pause: () => clearTimeout(timer),
    resume: () => {
      timer = start();
    },
  };
}

function modelErrorOf(thrown: unknown): AnswerModelError {
  if (thrown instanceof AnswerModelError) return thrown;
  const error = RetryError.isInstance(thrown) ? thrown.lastError : thrown;
  const options = { cause: error };
  if (!APICallError.isInstance(error)) return new AnswerModelError('LLM_ERROR', options);
  const { statusCode: status } = error;
  if (status === undefined)
    return new AnswerModelError(
      error.cause instanceof FetchRefused ? 'LLM_CONFIG_INVALID' : 'LLM_UNAVAILABLE',
      options,
    );
  if (status === 401 || status === 403) return new AnswerModelError('LLM_AUTH_ERROR', options);
  if (status === 429) return new AnswerModelError('LLM_RATE_LIMITED', options);
  if (status === 408 || status >= 500) return new AnswerModelError('LLM_UNAVAILABLE', options);
  return new AnswerModelError(status >= 400 ? 'LLM_CONFIG_INVALID' : 'LLM_ERROR', options);
}
