export interface Prompt {
  system: string;
  messages: { role: 'user' | 'assistant'; content: string }[];
}

/** What a model says of an answer when it is done. */
export interface AnswerEnd {
  /** Why it stopped, in its own words. */
  finish_reason: string | null;
  /** Null where it does not tell. */
  usage: { input_tokens: number | null; output_tokens: number | null; total_tokens: number | null } | null;
}

/** Writes an answer from a prompt, piece by piece. */
export interface AnswerModel {
  name: string;
  /**
   * Ends normally only when the model said that it was done.
   * @throws AnswerModelError when the model fails; nothing more is yielded then. The signal's reason when that aborts.
   */
  stream(prompt: Prompt, signal: AbortSignal): AsyncGenerator<string, AnswerEnd, undefined>;
}

const failures = {
  LLM_CONFIG_MISSING:
    'No key or address of the language model is configured: set LLM_API_KEY or OPENAI_API_KEY, or LLM_BASE_URL.',
  LLM_CONFIG_INVALID: 'The language model did not take the request: check its name and address.',
  LLM_AUTH_ERROR: 'The language model refused the key it was called with.',
  LLM_RATE_LIMITED: 'The language model has too many requests. Repeat the run later.',
  LLM_TIMEOUT: 'The language model was silent for too long. Repeat the run.',
  LLM_UNAVAILABLE: 'The language model can not be reached right now. Repeat the run later.',
  LLM_ERROR: 'The language model broke off before its answer was complete. Repeat the run.',
  VERTEX_CONFIG_MISSING: 'Vertex AI is not configured: set GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION.',
  VERTEX_AUTH_ERROR:
    'Google credentials are missing or were refused: set GOOGLE_APPLICATION_CREDENTIALS, or log in with gcloud.',
  VERTEX_TIMEOUT: 'Vertex AI was silent for too long. Repeat the run.',
} as const;

export type AnswerModelErrorCode = keyof typeof failures;

/** Why a model gave no answer: a permanent code and a sentence for clients; what the model's server said is the cause. */
export class AnswerModelError extends Error {
  override name = 'AnswerModelError';
  readonly code: AnswerModelErrorCode;

  constructor(code: AnswerModelErrorCode, options?: ErrorOptions) {
    super(failures[code], options);
    this.code = code;
  }
}
