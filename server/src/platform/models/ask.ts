import { FetchRefused, type GuardedFetch } from '../fetch.ts';
import { ModelError, refusalOf } from './model-error.ts';

/**
 * Asks a model's server with JSON and answers what it said, parsed.
 * @param who as messages name it: `the embeddings server`
 * @throws ModelError for an address that can not be the server's, an answer other than 2xx, or one that is no JSON; the signal's reason when that aborts
 */
export async function askModel(
  send: GuardedFetch['send'],
  who: string,
  address: string,
  key: string | undefined,
  question: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  const { statusCode, headers, body } = await send(address, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'user-agent': 'manushya',
      ...(key ? { authorization: `Bearer ${key}` } : {}),
    },
    body: JSON.stringify(question),
    signal,
  }).catch((error) => {
    if (!(error instanceof FetchRefused)) throw error;
    throw new ModelError('misconfigured', `${who} can not be called: ${error.message}`, { cause: error });
  });
  if (statusCode < 200 || statusCode > 299) {
    const said = await body.text();
    throw refusalOf(who, statusCode, [headers['retry-after'] ?? []].flat()[0] ?? null, said);
  }
  const text = await body.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new ModelError('garbage', `${who} did not answer with JSON`);
  }
}
