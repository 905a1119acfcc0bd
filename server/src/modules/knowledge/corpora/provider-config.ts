import { invalid } from '#platform/errors.ts';
import type { ProviderConfig } from './schema.ts';

const topK = 5;
const path = '/provider_config_json';
const refused = (where: string, message: string) => invalid([{ path: `${path}${where}`, message }]);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function onlyKnown(value: Record<string, unknown>, known: string[], where: string): void {
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) throw refused(`${where}/${unknown.slice(0, 100)}`, 'is not a known field');
}

/**
 * Checks where a corpus is to be searched and fills in what was left out; `{}` is `local_pgvector` with five results.
 * @throws ApiError 422 naming the field
 */
export function readProviderConfig(input: Record<string, unknown> | undefined): ProviderConfig {
  const config = input ?? {};
  onlyKnown(config, ['retrieval'], '');
  const retrieval = config.retrieval ?? {};
  if (!isObject(retrieval)) throw refused('/retrieval', 'must be an object');
  const { provider = 'local_pgvector', top_k_default = topK } = retrieval;
  if (provider !== 'local_pgvector') {
    const message = 'is not available on this server: only local_pgvector is';
    throw refused('/retrieval/provider', message);
  }
  onlyKnown(retrieval, ['provider', 'top_k_default'], '/retrieval');
  if (!Number.isInteger(top_k_default) || (top_k_default as number) < 1 || (top_k_default as number) > 50) {
    throw refused('/retrieval/top_k_default', 'must be a whole number from 1 to 50');
  }
  return { retrieval: { provider, top_k_default: top_k_default as number } };
}
