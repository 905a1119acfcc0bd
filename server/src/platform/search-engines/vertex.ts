import type { GoogleAuth } from 'google-auth-library';
import type { Config } from '../config.ts';
import { createGuardedFetch, FetchRefused } from '../fetch.ts';
import {
  callEngine,
  engineFailure,
  type FoundPassage,
  forGood,
  policiesOf,
  readAnswer,
  share,
} from './engine.ts';

export interface DataStore {
  /** Id of a data store, or `engines/` and the id of a search app. */
  resource_id: string;
  /** Unset: GOOGLE_CLOUD_PROJECT of the server. */
  project?: string | undefined;
  /** Unset: GOOGLE_CLOUD_LOCATION or VERTEX_LOCATION of the server. */
  location?: string | undefined;
}

const scope = 'https://www.googleapis.com/auth/cloud-platform';
const mostResults = 100;

/** What is asked for beside the documents: passages of them, and how relevant each is. */
const content = {
  snippetSpec: { returnSnippet: true },
  extractiveContentSpec: {
    maxExtractiveAnswerCount: 1,
    maxExtractiveSegmentCount: 1,
    returnExtractiveSegmentScore: true,
  },
};

/**
 * Vertex AI Search by its REST call. Credentials are Google's own library's matter (application default credentials),
 * loaded with the first search; the call itself goes as every call to outside does.
 */
export function vertexSearch(config: Config) {
  const { VERTEX_SEARCH_BASE_URL: base, EXT_CALL_TIMEOUT_MS: timeoutMs } = config;
  const { fetch, close } = createGuardedFetch(
    [...config.FETCH_ALLOW_HOSTS, ...(base ? [new URL(base).host] : [])],
    timeoutMs,
  );
  const policyOf = policiesOf(config);
  let auth: Promise<GoogleAuth> | undefined;

  const authorization = async (): Promise<Record<string, string>> => {
    auth ??= import('google-auth-library').then(({ GoogleAuth }) => {
      const made = new GoogleAuth({ scopes: [scope] });
      // A service account signs its own tokens: no call to get one.
      made.useJWTAccessWithScope = true;
      return made;
    });
    try {
      return Object.fromEntries(await (await auth).getRequestHeaders());
    } catch (error) {
      // Asked anew next time: credentials may have come meanwhile.
      auth = undefined;
      throw forGood(engineFailure('VERTEX_RETRIEVAL_AUTH_ERROR', error));
    }
  };

  const placeOf = ({ project, location }: DataStore): { owner: string; place: string } => {
    const owner = project ?? config.GOOGLE_CLOUD_PROJECT;
    const place = location ?? config.GOOGLE_CLOUD_LOCATION ?? config.VERTEX_LOCATION;
    if (!owner || !place) throw engineFailure('VERTEX_RETRIEVAL_CONFIG_MISSING');
    return { owner, place };
  };

  const addressOf = (resource_id: string, owner: string, place: string): string => {
    const host = place === 'global' ? 'discoveryengine' : `${place}-discoveryengine`;
    const resource = resource_id.includes('/') ? resource_id : `dataStores/${resource_id}`;
    const root = (base ?? `https://${host}.googleapis.com`).replace(/\/$/, '');
    return `${root}/v1/projects/${owner}/locations/${place}/collections/default_collection/${resource}/servingConfigs/default_serving_config:search`;
  };

  const post = async (address: string, body: object, signal: AbortSignal): Promise<Answer> => {
    const headers = await authorization();
    let response: Awaited<ReturnType<typeof fetch>>;
    try {
      response = await fetch(address, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal,
      });
    } catch (error) {
      throw error instanceof FetchRefused ? forGood(engineFailure('VERTEX_RETRIEVAL_ERROR', error)) : error;
    }
    const text = await response.text();
    if (response.ok) return { text, standard: false };
    const said = new Error(`Vertex AI Search answered ${response.status}: ${text.slice(0, 500)}`);
    if (response.status === 429 || response.status === 408 || response.status >= 500) throw said;
    // A standard edition has no passages; it says so and does nothing.
    if (response.status === 400 && /enterprise|extractive/i.test(text)) return { text, standard: true };
    const code = response.status === 401 ? 'VERTEX_RETRIEVAL_AUTH_ERROR' : 'VERTEX_RETRIEVAL_ERROR';
    throw forGood(engineFailure(code, said));
  };

  return {
    /** Passages, the most relevant first. @throws ApiError VERTEX_RETRIEVAL_CONFIG_MISSING, …_AUTH_ERROR, …_ERROR, INTEGRATION_UNAVAILABLE */
    search: async (
      store: DataStore,
      query: string,
      limit: number,
      signal: AbortSignal,
    ): Promise<FoundPassage[]> => {
      const { owner, place } = placeOf(store);
      const address = addressOf(store.resource_id, owner, place);
      const policy = policyOf(address);
      const body = {
        query: query.toWellFormed(),
        pageSize: Math.min(limit, mostResults),
        contentSearchSpec: content,
        relevanceScoreSpec: { returnRelevanceScore: true },
      };
      const ask = (wanted: object) => callEngine(policy, signal, (attempt) => post(address, wanted, attempt));
      let answer = await ask(body);
      if (answer.standard)
        answer = await ask({ ...body, contentSearchSpec: { snippetSpec: content.snippetSpec } });
      if (answer.standard)
        throw engineFailure('VERTEX_RETRIEVAL_ERROR', new Error(answer.text.slice(0, 500)));
      return readAnswer('VERTEX_RETRIEVAL_ERROR', () => passagesOf(answer.text));
    },
    close,
  };
}

interface Answer {
  text: string;
  /** Refused for what only an enterprise edition does. */
  standard: boolean;
}

interface Result {
  id?: unknown;
  rankSignals?: { relevanceScore?: unknown; semanticSimilarityScore?: unknown };
  document?: {
    id?: unknown;
    structData?: Record<string, unknown>;
    derivedStructData?: {
      title?: unknown;
      link?: unknown;
      extractive_segments?: Piece[];
      extractive_answers?: Piece[];
      snippets?: { snippet?: unknown; snippet_status?: unknown }[];
    };
  };
}

interface Piece {
  content?: unknown;
  pageNumber?: unknown;
  relevanceScore?: unknown;
}

function passagesOf(text: string): FoundPassage[] {
  const results = (JSON.parse(text) as { results?: unknown } | null)?.results ?? [];
  if (!Array.isArray(results)) throw engineFailure('VERTEX_RETRIEVAL_ERROR', new Error('no list of results'));
  return (results as Result[]).flatMap(passageOf);
}

/** The passage of a document: its best segment, else the answer cut from it, else its snippet. */
function passageOf({ id, document, rankSignals }: Result): FoundPassage[] {
  const { derivedStructData: derived = {}, structData = {} } = document ?? {};
  const piece = [...list(derived.extractive_segments), ...list(derived.extractive_answers)].find(
    ({ content }) => typeof content === 'string' && content.trim() !== '',
  );
  const snippet = list(derived.snippets).find(
    ({ snippet, snippet_status }) => typeof snippet === 'string' && snippet_status !== 'NO_SNIPPET_AVAILABLE',
  )?.snippet;
  const text = typeof piece?.content === 'string' ? piece.content : plain(snippet);
  if (text.trim() === '') return [];
  const page = Number(piece?.pageNumber);
  const name = document?.id ?? id;
  return [
    {
      id: typeof name === 'string' ? name : undefined,
      text,
      source: typeof derived.link === 'string' ? derived.link : '',
      title: typeof derived.title === 'string' ? derived.title : undefined,
      content_type: undefined,
      relevance:
        share(rankSignals?.relevanceScore) ??
        share(rankSignals?.semanticSimilarityScore) ??
        share(piece?.relevanceScore),
      page: Number.isInteger(page) && page > 0 ? page : undefined,
      metadata: structData,
    },
  ];
}

const list = <T>(value: T[] | undefined): T[] => (Array.isArray(value) ? value : []);

/** A snippet marks the words it was found by in HTML. */
const plain = (snippet: unknown): string =>
  typeof snippet !== 'string'
    ? ''
    : snippet
        .replace(/<\/?b>/g, '')
        .replace(/&#39;/g, "'")
        .replace(/&quot;/g, '"')
        .replace(/&nbsp;/g, ' ')
        .replace(/&lt;/g, '<')
        .replace(/&gt;/g, '>')
        .replace(/&amp;/g, '&');
