import { BrokenCircuitError, TaskCancelledError } from 'cockatiel';
import type { Config } from '../config.ts';
import { type createGuardedFetch, FetchRefused } from '../fetch.ts';
import { beginStream, outsideCalls, Permanent } from '../resilience.ts';

/** Turns text into speech. */
export interface SpeechModel {
  name: string;
  mime: 'audio/mpeg';
  /** Most characters in one call. Speech of several texts is joined by joining its bytes. */
  maxChars: number;
  /** @throws SpeechError, also in the middle; the signal's reason when that aborts */
  speak(text: string, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

const failures = {
  TTS_CONFIG_MISSING: 'No speech provider is configured: set TTS_PROVIDER, and OPENAI_API_KEY for OpenAI.',
  TTS_AUTH_ERROR: 'The speech provider refused the key it was called with.',
  INTEGRATION_UNAVAILABLE: 'The speech provider can not be reached right now.',
  TTS_ERROR: 'The answer could not be spoken.',
} as const;

/** Why nothing was spoken: a permanent code and a sentence for clients. */
export class SpeechError extends Error {
  override name = 'SpeechError';
  readonly code: keyof typeof failures;

  constructor(code: keyof typeof failures, options?: ErrorOptions) {
    super(failures[code], options);
    this.code = code;
  }
}

/** The speech of OpenAI and every server that speaks like it: `POST {base}/audio/speech`, MP3. */
export function openAiSpeech(
  config: Config,
  fetch: ReturnType<typeof createGuardedFetch>['fetch'],
): SpeechModel {
  const base = (config.TTS_BASE_URL ?? 'https://api.openai.com/v1').replace(/\/$/, '');
  const key = config.OPENAI_API_KEY;
  const policy = outsideCalls({
    timeoutMs: config.EXT_CALL_TIMEOUT_MS,
    retries: config.EXT_RETRY_MAX_ATTEMPTS,
  });
  const begin = async (input: string, signal: AbortSignal) => {
    const response = await fetch(`${base}/audio/speech`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify({
        model: config.OPENAI_TTS_MODEL,
        voice: config.OPENAI_TTS_VOICE,
        input,
        response_format: 'mp3',
      }),
      signal,
    });
    if (response.ok && response.body && /^audio\//i.test(response.headers.get('content-type') ?? ''))
      return response.body;
    await response.body?.cancel();
    const { status } = response;
    if (status === 408 || status === 429 || status >= 500)
      throw new SpeechError('INTEGRATION_UNAVAILABLE', {
        cause: new Error(`the speech server answered ${status}`),
      });
    const code = status === 401 || status === 403 ? 'TTS_AUTH_ERROR' : 'TTS_ERROR';
    throw new Permanent(`the speech server answered ${status}`, { cause: new SpeechError(code) });
  };
  return {
    name: config.OPENAI_TTS_MODEL,
    mime: 'audio/mpeg',
    maxChars: 4_000,
    async *speak(text, signal) {
      if (!key && !config.TTS_BASE_URL) throw new SpeechError('TTS_CONFIG_MISSING');
      try {
        const body = await policy.execute(
          ({ signal: attempt }) => beginStream(attempt, signal, (one) => begin(text, one)),
          signal,
        );
        yield* body;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        throw speechErrorOf(error);
      }
    },
  };
}

function speechErrorOf(error: unknown): SpeechError {
  if (error instanceof SpeechError) return error;
  if (error instanceof Permanent && error.cause instanceof SpeechError) return error.cause;
  if (error instanceof BrokenCircuitError || error instanceof TaskCancelledError)
    return new SpeechError('INTEGRATION_UNAVAILABLE', { cause: error });
  const isRefused = error instanceof FetchRefused || (error as Error).cause instanceof FetchRefused;
  return new SpeechError(isRefused ? 'TTS_ERROR' : 'INTEGRATION_UNAVAILABLE', { cause: error });
}

// MPEG 2 layer III, 24 kHz, 32 kbit/s, one channel (ISO/IEC 13818-3): a header and an empty frame of 96 bytes, 24 ms of silence.
const silence = Buffer.concat([Buffer.from([0xff, 0xf3, 0x44, 0xc4]), Buffer.alloc(92)]);

/** Speech for tests: silence, as long as somebody would take to say the text. */
export const fakeSpeech = (): SpeechModel => ({
  name: 'fake',
  mime: 'audio/mpeg',
  maxChars: 4_000,
  async *speak(text, signal) {
    for (let said = 0; said < text.length; said += 100) {
      signal.throwIfAborted();
      yield Buffer.concat(new Array(3 * Math.min(100, text.length - said)).fill(silence));
    }
  },
});
