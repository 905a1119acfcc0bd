import {
  APICallError,
  type LanguageModelV4,
  type LanguageModelV4Prompt,
  type LanguageModelV4StreamPart,
} from '@ai-sdk/provider';
import { BrokenCircuitError, TaskCancelledError } from 'cockatiel';
import { FetchRefused } from '../fetch.ts';
import { beginStream, type Judge, judgedByKind, outsideCalls, Permanent } from '../resilience.ts';
import {
  type AnswerEnd,
  type AnswerModel,
  AnswerModelError,
  type AnswerModelErrorCode,
  type Prompt,
} from './answers.ts';
import { saysTooLong } from './model-error.ts';

export interface LanguageModelOptions {
  name: string;
  /** Made when it is first asked. */
  model: () => LanguageModelV4 | Promise<LanguageModelV4>;
  /** What is missing in the configuration; told before the model is made. */
  problem: AnswerModelErrorCode | undefined;
  /** Longest silence, before the first piece and between two. */
  timeoutMs: number;
  /** Repeats of a call that was not answered at all; an answer that has begun is never begun again. */
  retries: number;
  codes: { auth: AnswerModelErrorCode; timeout: AnswerModelErrorCode };
}

/**
 * A language model of the AI SDK as one that writes answers. Its provider is called directly: the layer of agents and
 * tools above it costs a third of the time of a token, and nothing of it is used.
 */
export function languageAnswers(options: LanguageModelOptions): AnswerModel {
  const { name, timeoutMs, retries, codes } = options;
  const policy = outsideCalls({ timeoutMs, retries, judge });
  let made: Promise<LanguageModelV4> | undefined;
  const model = () => (made ??= Promise.resolve().then(options.model));

  const begin = async (prompt: Prompt, attempt: AbortSignal, stop: AbortSignal) => {
    try {
      const language = await model();
      return await beginStream(attempt, stop, (abortSignal) =>
        language.doStream({ prompt: messagesOf(prompt), abortSignal }),
      );
    } catch (error) {
      if (stop.reason instanceof Silent) throw stop.reason;
      // A call that was given up, or that can only fail again, says nothing about the service.
      throw stop.aborted || !mayPass(error) ? new Permanent('not repeated', { cause: error }) : error;
    }
  };

  return {
    name,
    async *stream(prompt, signal) {
      if (options.problem) throw new AnswerModelError(options.problem);
      const silence = silenceLimit(timeoutMs);
      // Aborted when the reader of this generator stops early, so that the model stops too.
      const left = new AbortController();
      const stop = AbortSignal.any([signal, silence.signal, left.signal]);
      let hasBegun = false;
      try {
        const called = policy.execute(
          ({ signal: attempt }) => begin(prompt, attempt, stop),
          AbortSignal.any([signal, left.signal]),
        );
        const { stream } = await orStopped(called, stop);
        hasBegun = true;
        const reader = stream.getReader();
        stop.addEventListener('abort', () => void reader.cancel(stop.reason).catch(() => {}), { once: true });
        let end: AnswerEnd | undefined;
        for (;;) {
          const { done, value: part } = await reader.read();
          stop.throwIfAborted();
          if (done) break;
          // Only the model's own silence counts, not the time its reader takes over a piece.
          silence.pause();
          if (part.type === 'text-delta') yield part.delta;
          else if (part.type === 'error') throw part.error;
          // A connection that ends early without an error leaves the reason out.
          else if (part.type === 'finish' && part.finishReason.raw && part.finishReason.unified !== 'error')
            end = endOf(part);
          silence.resume();
        }
        if (!end) throw new AnswerModelError('LLM_ERROR');
        return end;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        if (silence.signal.aborted) throw new AnswerModelError(codes.timeout);
        throw modelErrorOf(error, codes, hasBegun);
      } finally {
        silence.end();
        left.abort();
      }
    },
  };
}

const messagesOf = ({ system, messages }: Prompt): LanguageModelV4Prompt => [
  { role: 'system', content: system },
  ...messages.map(({ role, content }) => ({ role, content: [{ type: 'text' as const, text: content }] })),
];

function endOf({ finishReason, usage }: Extract<LanguageModelV4StreamPart, { type: 'finish' }>): AnswerEnd {
  const input = usage.inputTokens.total ?? null;
  const output = usage.outputTokens.total ?? null;
  const isTold = input !== null || output !== null;
  const total = input !== null && output !== null ? input + output : null;
  return {
    finish_reason: finishReason.raw ?? null,
    usage: isTold ? { input_tokens: input, output_tokens: output, total_tokens: total } : null,
  };
}

/** What a call does may not listen to its signal, as a look for credentials does not: it is left alone then. */
function orStopped<T>(work: Promise<T>, stop: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const give = () => reject(stop.reason);
    if (stop.aborted) give();
    stop.addEventListener('abort', give, { once: true });
    work.then(resolve, reject).finally(() => stop.removeEventListener('abort', give));
  });
}

class Silent extends Error {
  override name = 'Silent';
}

const judge: Judge = (error) =>
  error instanceof Silent ? { repeat: false, outage: true } : judgedByKind(error);

/** Aborts when the model has said nothing for so long. One timer looks now and then: one a token would cost more than the token. */
function silenceLimit(limitMs: number) {
  const controller = new AbortController();
  let since: number | undefined = performance.now();
  let timer: NodeJS.Timeout;
  const look = () => {
    const left = since === undefined ? limitMs : since + limitMs - performance.now();
    if (left > 0) timer = setTimeout(look, Math.ceil(left));
    else controller.abort(new Silent('the model is silent'));
  };
  look();
  return {
    signal: controller.signal,
    pause: () => {
      since = undefined;
    },
    resume: () => {
      since = performance.now();
    },
    end: () => clearTimeout(timer),
  };
}

const mayPass = (error: unknown): boolean =>
  APICallError.isInstance(error) &&
  !(error.cause instanceof FetchRefused) &&
  !saysTooLong(error.responseBody) &&
  (error.statusCode === undefined ||
    error.statusCode === 408 ||
    error.statusCode === 429 ||
    error.statusCode >= 500);

function modelErrorOf(
  thrown: unknown,
  { auth, timeout }: LanguageModelOptions['codes'],
  hasBegun: boolean,
): AnswerModelError {
  if (thrown instanceof AnswerModelError) return thrown;
  const error = thrown instanceof Permanent ? thrown.cause : thrown;
  const options = { cause: error };
  if (error instanceof BrokenCircuitError) return new AnswerModelError('LLM_UNAVAILABLE', options);
  if (error instanceof TaskCancelledError) return new AnswerModelError(timeout, options);
  if (!APICallError.isInstance(error)) return new AnswerModelError(hasBegun ? 'LLM_ERROR' : auth, options);
  const { statusCode: status } = error;
  if (status === undefined)
    return new AnswerModelError(
      error.cause instanceof FetchRefused ? 'LLM_CONFIG_INVALID' : 'LLM_UNAVAILABLE',
      options,
    );
  if (status === 401 || status === 403) return new AnswerModelError(auth, options);
  if (status === 429) return new AnswerModelError('LLM_RATE_LIMITED', options);
  if (status === 408 || (status >= 500 && !saysTooLong(error.responseBody)))
    return new AnswerModelError('LLM_UNAVAILABLE', options);
  return new AnswerModelError(status >= 400 ? 'LLM_CONFIG_INVALID' : 'LLM_ERROR', options);
}
