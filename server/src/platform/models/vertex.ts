import type { Config } from '../config.ts';
import type { createGuardedFetch } from '../fetch.ts';
import type { AnswerModel } from './answers.ts';
import { languageAnswers } from './language.ts';

/**
 * Gemini on Vertex AI, streamed. Credentials are Application Default Credentials, which Google's library looks for
 * itself: the file that GOOGLE_APPLICATION_CREDENTIALS names, those of gcloud, or the machine's own.
 */
export function vertexAnswers(
  config: Config,
  fetch: ReturnType<typeof createGuardedFetch>['fetch'],
): AnswerModel {
  const project = config.GOOGLE_CLOUD_PROJECT;
  const location = config.GOOGLE_CLOUD_LOCATION ?? config.VERTEX_LOCATION;
  const isConfigured = project !== undefined && location !== undefined;
  return languageAnswers({
    name: config.GEMINI_MODEL,
    model: async () => {
      // Only who uses it waits for it at the start.
      const { createGoogleVertex } = await import('@ai-sdk/google-vertex');
      const provider = createGoogleVertex({
        project: project!,
        location: location!,
        // Never taken from the environment of the process: an empty key is none.
        apiKey: '',
        ...(config.VERTEX_BASE_URL
          ? { baseURL: `${config.VERTEX_BASE_URL.replace(/\/$/, '')}/${publisherPath(project!, location!)}` }
          : {}),
        fetch: fetch as unknown as typeof globalThis.fetch,
      });
      return provider(config.GEMINI_MODEL);
    },
    problem: isConfigured ? undefined : 'VERTEX_CONFIG_MISSING',
    timeoutMs: config.LLM_TIMEOUT_MS,
    retries: config.EXT_RETRY_MAX_ATTEMPTS,
    codes: { auth: 'VERTEX_AUTH_ERROR', timeout: 'VERTEX_TIMEOUT' },
  });
}

const publisherPath = (project: string, location: string) =>
  `v1beta1/projects/${project}/locations/${location}/publishers/google`;
