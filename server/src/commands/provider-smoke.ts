import { getCorpus } from '#modules/knowledge/corpora/service.ts';
import { retrieveChunks } from '#modules/knowledge/documents/service.ts';
import { ConfigError } from '#platform/config.ts';
import { type App, systemCtx } from '#platform/context.ts';
import { ApiError } from '#platform/errors.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';

const shownText = 80;

export interface Smoke {
  tenant: string;
  corpus: string;
  query: string;
  limit: number;
}

/** @throws ConfigError for options that ask for nothing */
export function smokeOf({ tenant = '', corpus = '', query = '', topK }: Record<string, string>): Smoke {
  const limit = Number(topK);
  if (!isSlug(tenant)) throw new ConfigError('--tenant must be a tenant id');
  if (!isSlug(corpus)) throw new ConfigError('--corpus must be a corpus id');
  if (query.trim() === '') throw new ConfigError('--query must say what to look for');
  if (!Number.isInteger(limit) || limit < 1 || limit > 50)
    throw new ConfigError('--top-k must be a whole number from 1 to 50');
  return { tenant, corpus, query, limit };
}

/**
 * Proves the retrieval route of a corpus without a language model: one line for each passage found.
 * @throws Error with the permanent code when the provider does not answer
 */
export async function smokeProvider(
  app: App,
  { tenant, corpus, query, limit }: Smoke,
  say: (line: string) => void,
): Promise<void> {
  const ctx = systemCtx(app, tenant, uuidv7());
  try {
    const { provider_config_json } = await getCorpus(ctx, corpus);
    const { provider } = provider_config_json.retrieval;
    const began = performance.now();
    const chunks = await retrieveChunks(ctx, { corpus_id: corpus, query, limit });
    const ms = Math.round(performance.now() - began);
    chunks.forEach(({ score, source, text }, i) => {
      const line = text.replace(/\s+/g, ' ').trim();
      const shown = line.length > shownText ? `${line.slice(0, shownText - 1).toWellFormed()}…` : line;
      say([i + 1, score.toFixed(4), source, shown].join('\t'));
    });
    say(`${provider}: ${chunks.length} rows in ${ms} ms`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const reason = (error.cause as Error | undefined)?.message;
    // Whoever runs this operates the installation, and may know what the provider said.
    throw new Error(`${error.code}: ${error.message}${reason ? ` (${reason.slice(0, 500)})` : ''}`, {
      cause: error,
    });
  }
}
